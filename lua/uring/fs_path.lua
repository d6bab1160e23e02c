--- What there is at a path: asking for it, making it, naming it.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local options = require "uring.options"

local op, const, errnos, path_call = core.op, core.const, core.errno, core.path
local failure = core.failure
local refuse, zero_byte, mode_of = arguments.refuse, arguments.zero_byte, arguments.mode

local M = {}

-- What an operation on a path has come to: true for its 0.
local function done(path, result, _, errno)
  if not result then
    return failure(path, errno)
  end
  return true
end

--
-- Asking
--

local PERMISSIONS = 4095

local function stat(path, flags)
  local ok, info, errno = op.statx(nil, path, flags)
  if not ok then
    return failure(path, errno)
  end
  info.mode = info.mode & PERMISSIONS
  return info
end

--- What is at a path; of a link, what it points to.
-- @string path
-- @treturn table `type` ("file", "directory", "link", "fifo", "socket", "char", "block"),
--   `size` in bytes, `mode` (permissions), `atime`, `mtime`, `ctime` and `btime` in
--   seconds, `uid`, `gid`, `nlink`, `ino`, `dev_major`, `dev_minor`, `blocks` of 512
--   bytes and what else statx(2) tells; nil, "path: reason", errno
function M.stat(path)
  if refuse("stat", 1, path) then
    return zero_byte(path)
  end
  return stat(path, 0)
end

--- As `stat`, but of a link the link itself.
-- @string path
function M.lstat(path)
  if refuse("lstat", 1, path) then
    return zero_byte(path)
  end
  return stat(path, const.AT_SYMLINK_NOFOLLOW)
end

--- Is there something at a path?  A link that leads nowhere is nothing.
-- @string path
-- @treturn boolean nil, "path: reason", errno where that cannot be told
function M.exists(path)
  if refuse("exists", 1, path) then
    return zero_byte(path)
  end
  local ok, _, errno = op.statx(nil, path, 0, const.STATX_TYPE)
  if ok then
    return true
  elseif errno == errnos.ENOENT or errno == errnos.ENOTDIR then
    return false
  end
  return failure(path, errno)
end

--- What a link points to.
-- @string path
-- @treturn string nil, "path: reason", errno
function M.readlink(path)
  if refuse("readlink", 1, path) then
    return zero_byte(path)
  end
  return path_call.readlink(path)
end

--- The path without links, "." and "..", from the root.
-- @string path
-- @treturn string nil, "path: reason", errno
function M.realpath(path)
  if refuse("realpath", 1, path) then
    return zero_byte(path)
  end
  return path_call.realpath(path)
end

--- The file system that a path is on.
-- @string path
-- @treturn table `size`, `free` and `available` (to others than root) in bytes,
--   `files` and `files_free`, `block_size`, `name_max`; nil, "path: reason", errno
function M.statvfs(path)
  if refuse("statvfs", 1, path) then
    return zero_byte(path)
  end
  return path_call.statvfs(path)
end

--
-- Making and unmaking
--

local function mkdir(path, mode)
  return done(path, op.mkdirat(nil, path, mode))
end

--- Makes a directory.
-- @string path
-- @tparam[opt=511] int|string mode permissions, subject to the umask
-- @treturn boolean true; nil, "path: reason", errno
function M.mkdir(path, mode)
  if refuse("mkdir", 1, path) then
    return zero_byte(path)
  end
  return mkdir(path, mode_of("mkdir", 2, mode, 511))
end

local function makedirs(path, mode)
  local ok, message, errno = mkdir(path, mode)
  if not ok and errno == errnos.ENOENT then
    local parent = path:match "^(.*[^/])/+[^/]+/*$"
    if parent then
      local made, why, code = makedirs(parent, 511)
      if not made then
        return nil, why, code
      end
      ok, message, errno = mkdir(path, mode)
    end
  end
  if not ok and errno == errnos.EEXIST then
    local info = stat(path, 0)
    if info and info.type == "directory" then
      return true
    end
  end
  return ok, message, errno
end

--- Makes a directory and those above it that are missing.  One that is there is
-- none to complain of.
-- @string path
-- @tparam[opt=511] int|string mode of the last; the others have 0777, subject to
--   the umask
-- @treturn boolean true; nil, "path: reason", errno
function M.makedirs(path, mode)
  if refuse("makedirs", 1, path) then
    return zero_byte(path)
  end
  return makedirs(path, mode_of("makedirs", 2, mode, 511))
end

--- Removes an empty directory.
-- @string path
-- @treturn boolean true; nil, "path: reason", errno
function M.rmdir(path)
  if refuse("rmdir", 1, path) then
    return zero_byte(path)
  end
  return done(path, op.unlinkat(nil, path, const.AT_REMOVEDIR))
end

--
-- Names
--

local rename_options = { noreplace = "boolean", exchange = "boolean" }

--- Gives a file or directory another path, in one step.
-- @string from
-- @string to
-- @tab[opt] o `noreplace`: what is at `to` stays, EEXIST; `exchange`: the two
--   change places
-- @treturn boolean true; nil, "from -> to: reason", errno
function M.rename(from, to, o)
  if refuse("rename", 1, from) or refuse("rename", 2, to) then
    return zero_byte(from .. " -> " .. to)
  end
  o = options.check("rename", o or {}, rename_options)
  local flags = (o.noreplace and const.RENAME_NOREPLACE or 0) | (o.exchange and const.RENAME_EXCHANGE or 0)
  return done(from .. " -> " .. to, op.renameat(nil, from, nil, to, flags))
end

--- Gives a file one more path.
-- @string from the file; of a link, the link itself
-- @string to the new path
-- @treturn boolean true; nil, "from -> to: reason", errno
function M.link(from, to)
  if refuse("link", 1, from) or refuse("link", 2, to) then
    return zero_byte(from .. " -> " .. to)
  end
  return done(from .. " -> " .. to, op.linkat(nil, from, nil, to))
end

--- Makes a symbolic link.
-- @string target what it says, which need not be there
-- @string path of the link
-- @treturn boolean true; nil, "target -> path: reason", errno
function M.symlink(target, path)
  if refuse("symlink", 1, target) or refuse("symlink", 2, path) then
    return zero_byte(target .. " -> " .. path)
  end
  return done(target .. " -> " .. path, op.symlinkat(target, nil, path))
end

--
-- Attributes
--

local attribute_options = { nofollow = "boolean" }

--- Sets permissions.
-- @string path
-- @tparam int|string mode `493` or `"755"`
-- @tab[opt] o `nofollow`: of a link itself, which most file systems refuse
-- @treturn boolean true; nil, "path: reason", errno
function M.chmod(path, mode, o)
  if refuse("chmod", 1, path) then
    return zero_byte(path)
  end
  o = options.check("chmod", o or {}, attribute_options)
  return path_call.chmod(path, mode_of("chmod", 2, mode == nil and false or mode), o.nofollow)
end

--- Sets the owner.
-- @string path
-- @tparam int|nil uid nil: as it is
-- @tparam int|nil gid likewise
-- @tab[opt] o `nofollow`
-- @treturn boolean true; nil, "path: reason", errno
function M.chown(path, uid, gid, o)
  if refuse("chown", 1, path) then
    return zero_byte(path)
  end
  o = options.check("chown", o or {}, attribute_options)
  return path_call.chown(path, uid, gid, o.nofollow)
end

--- Sets times.
-- @string path
-- @tparam number|boolean|nil atime in seconds; true: now; nil: as it is
-- @tparam number|boolean|nil mtime likewise
-- @tab[opt] o `nofollow`
-- @treturn boolean true; nil, "path: reason", errno
function M.utime(path, atime, mtime, o)
  if refuse("utime", 1, path) then
    return zero_byte(path)
  end
  o = options.check("utime", o or {}, attribute_options)
  return path_call.utime(path, atime, mtime, o.nofollow)
end

--- Cuts a file off, or makes it longer by a hole.
-- @string path
-- @int[opt=0] size in bytes
-- @treturn boolean true; nil, "path: reason", errno
function M.truncate(path, size)
  if refuse("truncate", 1, path) then
    return zero_byte(path)
  end
  if size ~= nil and (math.type(size) ~= "integer" or size < 0) then
    error(("bad argument #2 to 'truncate' (size in bytes expected, got %s)"):format(
      math.type(size) == "integer" and size or type(size)), 3)
  end
  local owner <close> = core.descriptor()
  local fd, _, errno = op.openat(nil, path, const.O_WRONLY | const.O_NONBLOCK | const.O_CLOEXEC)
  if not fd then
    return failure(path, errno)
  end
  owner:put(fd)
  return done(path, op.ftruncate(fd, size or 0))
end

--
-- Extended attributes
--

local VALUE_MAX = 65536 -- bytes, the kernel's limit

-- A file is named by its path or a descriptor.
local function is_fd(x)
  return math.type(x) == "integer" and x >= 0
end

local function is_broken(name, attribute)
  if type(attribute) ~= "string" then
    error(("bad argument #2 to '%s' (string expected, got %s)"):format(name, type(attribute)), 3)
  end
  return attribute:find("\0", 1, true) ~= nil
end

local function subject(file)
  return is_fd(file) and "fd " .. file or file
end

--- An extended attribute.
-- @tparam string|int file its path or descriptor
-- @string name "user.mime_type"
-- @treturn string its value; nil, "path: reason", errno: ENODATA where there is none
function M.getxattr(file, name)
  if not is_fd(file) and refuse("getxattr", 1, file) or is_broken("getxattr", name) then
    return zero_byte(subject(file))
  end
  local buffer <close> = core.buffer(VALUE_MAX)
  local n, _, errno
  if is_fd(file) then
    n, _, errno = op.fgetxattr(file, name, buffer)
  else
    n, _, errno = op.getxattr(name, buffer, file)
  end
  if not n then
    return failure(subject(file), errno)
  end
  return buffer:get(1, n)
end

local xattr_options = { create = "boolean", replace = "boolean" }

--- Sets an extended attribute.
-- @tparam string|int file its path or descriptor
-- @string name
-- @string value
-- @tab[opt] o `create`: it must not be there yet; `replace`: it must
-- @treturn boolean true; nil, "path: reason", errno
function M.setxattr(file, name, value, o)
  if not is_fd(file) and refuse("setxattr", 1, file) or is_broken("setxattr", name) then
    return zero_byte(subject(file))
  elseif type(value) ~= "string" then
    error(("bad argument #3 to 'setxattr' (string expected, got %s)"):format(type(value)), 2)
  end
  o = options.check("setxattr", o or {}, xattr_options)
  local flags = (o.create and const.XATTR_CREATE or 0) | (o.replace and const.XATTR_REPLACE or 0)
  if is_fd(file) then
    return done(subject(file), op.fsetxattr(file, name, value, flags))
  end
  return done(file, op.setxattr(name, value, file, flags))
end

--- The names of extended attributes.
-- @string path
-- @tab[opt] o `nofollow`
-- @treturn table a list of strings; nil, "path: reason", errno
function M.listxattr(path, o)
  if refuse("listxattr", 1, path) then
    return zero_byte(path)
  end
  o = options.check("listxattr", o or {}, attribute_options)
  return path_call.listxattr(path, o.nofollow)
end

--- Removes an extended attribute.
-- @string path
-- @string name
-- @tab[opt] o `nofollow`
-- @treturn boolean true; nil, "path: reason", errno
function M.removexattr(path, name, o)
  if refuse("removexattr", 1, path) then
    return zero_byte(path)
  end
  if is_broken("removexattr", name) then
    return zero_byte(path)
  end
  o = options.check("removexattr", o or {}, attribute_options)
  return path_call.removexattr(path, name, o.nofollow)
end

return M
