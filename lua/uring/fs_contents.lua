--- Whole files, and files and directories for a while.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local file = require "uring.file"
local options = require "uring.options"
local fs_path = require "uring.fs_path"
local fs_remove = require "uring.fs_remove"

local op, const, errnos, path_call = core.op, core.const, core.errno, core.path
local failure = core.failure
local refuse, zero_byte = arguments.refuse, arguments.zero_byte

local M = {}

local CHUNK = 65536     -- bytes that are asked for first
local LARGE = 1 << 20   -- and as long as it is not known how many there are
local ATTEMPTS = 100    -- to find a name that nobody has

-- Opens a path; `owner`, a Descriptor, has it then.
local function open(owner, path, flags, mode)
  local fd, _, errno = op.openat(nil, path, flags | const.O_CLOEXEC, mode)
  if not fd then
    return failure(path, errno)
  end
  owner:put(fd)
  return fd
end

--
-- Reading
--

-- How much there may be to read behind what has been read already.
local function room_for(fd, have)
  local ok, info = op.statx(fd, "", const.AT_EMPTY_PATH, const.STATX_SIZE)
  if ok and info.size > have then
    return info.size - have + 1 -- one more, to see the end
  end
  return LARGE
end

local function read_all(fd, path)
  local pieces, have, size = {}, 0, CHUNK
  while true do
    local buffer <close> = core.buffer(size)
    local n, _, errno = op.read(fd, buffer, size)
    if not n then
      return failure(path, errno)
    elseif n == 0 then
      return table.concat(pieces)
    end
    pieces[#pieces + 1] = buffer:get(1, n)
    have = have + n
    size = n == size and room_for(fd, have) or CHUNK
  end
end

--- What is in a file.
-- @string path
-- @treturn string nil, "path: reason", errno
function M.readfile(path)
  if refuse("readfile", 1, path) then
    return zero_byte(path)
  end
  local owner <close> = core.descriptor()
  local fd, message, errno = open(owner, path, const.O_RDONLY)
  if not fd then
    return nil, message, errno
  end
  return read_all(fd, path)
end

--
-- Writing
--

-- By position: the kernel does not move the file's own past a write that came to
-- a limit halfway.
local function write_all(fd, path, data)
  local done = 0
  while done < #data do
    local n, _, errno = op.write(fd, done == 0 and data or data:sub(done + 1), nil, done)
    if not n then
      return failure(path, errno)
    end
    done = done + n
  end
  return true
end

-- Closing tells of what a file system has put off; whatever it tells, it is closed
-- then.
local function close(owner, fd, path)
  local ok, _, errno = op.close(fd)
  owner:take()
  if not ok then
    return failure(path, errno)
  end
  return true
end

-- Writes it all, and sees to it that it is on the disk.
local function fill(fd, path, data, sync)
  local ok, message, errno = write_all(fd, path, data)
  if ok and sync then
    ok, message, errno = op.fsync(fd)
    if not ok then
      return failure(path, errno)
    end
  end
  if not ok then
    return nil, message, errno
  end
  return true
end

local function write_in_place(path, data, flags, mode, sync)
  local owner <close> = core.descriptor()
  local fd, message, errno = open(owner, path, flags, mode)
  if not fd then
    return nil, message, errno
  end
  local ok
  ok, message, errno = fill(fd, path, data, sync)
  if not ok then
    return nil, message, errno
  end
  return close(owner, fd, path)
end

-- A file that is removed unless it has got its name.
local Temporary = {}

function Temporary.__close(self)
  if self.path then
    core.shield(op.unlinkat, nil, self.path, 0)
  end
end

local function split(path)
  local directory, name = path:match "^(.*/)([^/]*)$"
  return directory or "", name or path
end

-- Opens a new file beside `path`; `temporary` is to remove it.
local function open_beside(temporary, owner, path, mode)
  local directory, name = split(path)
  for _ = 1, ATTEMPTS do
    local candidate = ("%s.%s.%s"):format(directory, name:sub(1, 200), path_call.random_name())
    temporary.path = candidate -- before it is there: what is there is removed
    local fd, _, errno = op.openat(nil, candidate,
      const.O_WRONLY | const.O_CREAT | const.O_EXCL | const.O_CLOEXEC, mode)
    if fd then
      owner:put(fd)
      return fd
    end
    temporary.path = nil
    if errno ~= errnos.EEXIST then
      return failure(path, errno)
    end
  end
  return failure(path, errnos.EEXIST)
end

-- The new name is on the disk when the directory is.
local function sync_directory(path)
  local directory = split(path)
  if directory == "" then
    directory = "."
  end
  local owner <close> = core.descriptor()
  local fd, message, errno = open(owner, directory, const.O_RDONLY | const.O_DIRECTORY)
  if not fd then
    return nil, message, errno
  end
  local ok, _, code = op.fsync(fd)
  if not ok and code ~= errnos.EINVAL then -- EINVAL: one that has nothing to sync
    return failure(directory, code)
  end
  return true
end

-- Where a write goes: behind links.  And the permissions of what is there.
local function resolve(path)
  local ok, info, errno = op.statx(nil, path, const.AT_SYMLINK_NOFOLLOW)
  if not ok then
    if errno == errnos.ENOENT then
      return path
    end
    return failure(path, errno)
  elseif info.type == "link" then
    local real, message, code = path_call.realpath(path)
    if not real then
      return nil, message, code
    end
    return resolve(real)
  elseif info.type ~= "file" then
    return failure(path, info.type == "directory" and errnos.EISDIR or errnos.EINVAL)
  end
  return path, info.mode & 4095
end

local function write_anew(path, data, mode, sync)
  local real, there, code = resolve(path)
  if not real then
    return nil, there, code
  end
  local temporary <close> = setmetatable({ path = nil }, Temporary)
  local owner <close> = core.descriptor()
  local fd, message, errno = open_beside(temporary, owner, real, there or mode or 438)
  if not fd then
    return nil, message, errno
  end
  local ok, _
  ok, _, errno = fill(fd, path, data, sync)
  if ok and (mode or there) then -- which the umask may have cut
    ok, _, errno = path_call.chmod(temporary.path, mode or there)
  end
  if ok then
    ok, _, errno = close(owner, fd, path)
  end
  if ok then
    ok, _, errno = op.renameat(nil, temporary.path, nil, real)
  end
  if not ok then
    return failure(path, errno)
  end
  temporary.path = nil
  if sync then
    return core.shield(sync_directory, real) -- the new contents are there: it was not cancelled
  end
  return true
end

local write_options = { atomic = "boolean", append = "boolean", sync = "boolean", mode = true }

--- Writes a file, by default so that whoever reads it, and whatever a crash
-- leaves, has all of the old contents or all of the new: into a new file in
-- the same directory, which is synced to disk and renamed; then the directory is
-- synced.  A link is followed.  Permissions stay those of the file that was there;
-- the owner is who writes.
-- @string path
-- @string data
-- @tab[opt] o `atomic = false`: into the file itself, without syncing;
--   `append`: likewise, behind what is there; `sync`: to disk? By default where it
--   is atomic; `mode`: permissions, as of `chmod`, of a new file subject to the
--   umask where it is not atomic
-- @treturn boolean true; nil, "path: reason", errno
function M.writefile(path, data, o)
  if refuse("writefile", 1, path) then
    return zero_byte(path)
  elseif type(data) ~= "string" then
    error(("bad argument #2 to 'writefile' (string expected, got %s)"):format(type(data)), 2)
  end
  o = o or {}
  local mode = arguments.mode("writefile", 3, o.mode, nil)
  local checked = {}
  for name, value in pairs(o) do
    checked[name] = name ~= "mode" and value or nil
  end
  options.check("writefile", checked, write_options)
  if o.append then
    return write_in_place(path, data, const.O_WRONLY | const.O_CREAT | const.O_APPEND, mode or 438, o.sync)
  elseif o.atomic == false then
    return write_in_place(path, data, const.O_WRONLY | const.O_CREAT | const.O_TRUNC, mode or 438, o.sync)
  end
  return write_anew(path, data, mode, o.sync ~= false)
end

--
-- For a while
--

local temp_options = { dir = "string", prefix = "string", suffix = "string" }

local function candidate(o)
  local directory = o.dir or os.getenv "TMPDIR" or "/tmp"
  return ("%s/%s%s%s"):format(directory, o.prefix or "uring-", path_call.random_name(), o.suffix or "")
end

-- Calls make(path) with names until one is free.
local function with_new_name(o, make)
  local path, result, message, errno
  for _ = 1, ATTEMPTS do
    path = candidate(o)
    if path:find("\0", 1, true) then
      return zero_byte(path)
    end
    result, message, errno = make(path)
    if result or errno ~= errnos.EEXIST then
      break
    end
  end
  if not result then
    return nil, message, errno
  end
  return path, result
end

local methods = {}
local Directory = { __index = methods, __name = "uring.tempdir" }

--- Removes the directory with all that is in it.  Idempotent.
-- @treturn boolean true; nil, "path: reason", errno
function methods:close()
  if self.closed then
    return true
  end
  self.closed = true
  return core.shield(fs_remove.remove, self.path, { recursive = true })
end

Directory.__close = methods.close

function Directory.__tostring(self)
  return self.path
end

--- Makes a directory that nobody else may enter, to be removed with all that is in
-- it: `local dir <close> = fs.tempdir()`, and then `dir.path`.  It is not removed
-- when it is merely dropped.
-- @tab[opt] o `dir`, by default TMPDIR or /tmp; `prefix`, "uring-"; `suffix`, ""
-- @treturn Directory with `path` and `close()`; nil, "path: reason", errno
function M.tempdir(o)
  o = options.check("tempdir", o or {}, temp_options)
  local self = setmetatable({ path = nil, closed = true }, Directory)
  local path, message, errno = with_new_name(o, function(path) return fs_path.mkdir(path, 448) end) -- 0700
  if not path then
    return nil, message, errno
  end
  self.path, self.closed = path, false
  return self
end

--- Makes a file that nobody else may open, and opens it to be read and written.
-- Who asked for it removes it.
-- @tab[opt] o as of `tempdir`
-- @treturn File nil, "path: reason", errno
-- @treturn string its path
function M.tempfile(o)
  o = options.check("tempfile", o or {}, temp_options)
  local temporary <close> = setmetatable({ path = nil }, Temporary)
  local path, message, errno = with_new_name(o, function(path)
    local owner <close> = core.descriptor()
    temporary.path = path
    local fd, why, code = open(owner, path, const.O_RDWR | const.O_CREAT | const.O_EXCL, 384) -- 0600
    temporary.path = fd and path
    return fd, why, code
  end)
  if not path then
    return nil, message, errno
  end
  local opened
  opened, message, errno = file.open(path, "r+")
  if not opened then
    return nil, message, errno
  end
  temporary.path = nil
  return opened, path
end

return M
