--- Files by path, and what they can do besides what every stream can.
--
-- Files are streams (see `uring.stream`), and have these methods too.
-- @module uring.file

local arguments = require "uring.arguments"
local core = require "uring.core"
local stream = require "uring.stream"

local op, const = core.op, core.const
local Buffer = getmetatable(core.buffer(0))
local methods = stream.methods

local CHUNK = 1 << 20 -- bytes that one pread asks for at most

local M = {}

local modes = {
  ["r"] = const.O_RDONLY;
  ["r+"] = const.O_RDWR;
  ["w"] = const.O_WRONLY | const.O_CREAT | const.O_TRUNC;
  ["w+"] = const.O_RDWR | const.O_CREAT | const.O_TRUNC;
  ["a"] = const.O_WRONLY | const.O_CREAT | const.O_APPEND;
  ["a+"] = const.O_RDWR | const.O_CREAT | const.O_APPEND;
}

-- The reason in a message: "openat: Permission denied" has it behind the colon.
local function reason(message)
  return message:match ": (.*)" or message
end

--- Opens a file.
-- @string path
-- @string[opt="r"] mode as `io.open` has them; a "b" changes nothing
-- @treturn Stream nil, "path: reason", errno
-- @raise an invalid mode
function M.open(...)
  local path, mode = ...
  local there = select("#", ...)
  path = arguments.string(1, "open", there, path)
  mode = mode == nil and "r" or arguments.string(2, "open", there, mode)
  local flags = modes[mode:match "^([rwa]%+?)b*$"]
  if not flags then
    arguments.bad(2, "open", "invalid mode")
  end
  return M.open_with(path, flags)
end

--- Opens a file that a library function was asked for.
-- @string path
-- @int flags of open(2)
-- @treturn Stream nil, "path: reason", errno
function M.open_with(path, flags)
  if path:find("\0", 1, true) then
    return nil, path .. ": there is a zero byte in the path", core.errno.EINVAL
  end
  local file = stream.new("file", path)
  local fd, message, errno = op.openat(nil, path, flags | const.O_CLOEXEC, 438) -- 0666
  if not fd then
    return nil, path .. ":" .. message:match(":(.*)"), errno
  end
  stream.open(file, fd)
  if flags == modes["a"] then -- as C's fopen has it
    core.seek(fd, "end")
  end
  return file
end

--
-- Methods
--

-- What is buffered is written, and what has been read ahead is forgotten: it is
-- about what the file was before.  The position; nil, message, errno, also where
-- there is none.
local function settle(self)
  local ok, message, errno = self:flush()
  if not ok then
    return nil, message, errno
  end
  return self:seek("cur", 0)
end

-- A file's errors have no subject, as io's have none.
local function failure(message, errno)
  return nil, reason(message), errno
end

-- Up to n bytes, fewer at the end; as a list of strings.
local function read_at(self, n, offset)
  local parts, have = {}, 0
  while have < n do
    local buffer = core.buffer(math.min(n - have, CHUNK))
    local got, message, errno = op.read(self:fd(), buffer, #buffer, offset + have)
    if not got then
      return failure(message, errno)
    elseif got == 0 then
      break
    end
    parts[#parts + 1] = buffer:get(1, got)
    have = have + got
  end
  return parts
end

--- Reads at an offset and leaves the position where it is.  What is still
-- buffered is written first.
-- @int n bytes
-- @int offset in bytes from the beginning
-- @treturn string n bytes, or fewer at the end of the file; nil if there are
--   none; nil, message, errno
function methods:pread(...)
  local n, offset = ...
  local there = select("#", ...)
  self:fd()
  n = arguments.count(1, "pread", there, n)
  offset = arguments.count(2, "pread", there, offset)
  local at, message, errno = settle(self)
  if not at then
    return nil, message, errno
  end
  local parts
  parts, message, errno = read_at(self, n, offset)
  if not parts then
    return nil, message, errno
  elseif n > 0 and #parts == 0 then
    return nil
  end
  return table.concat(parts)
end

--- Writes at an offset and leaves the position where it is.  (A file that was
-- opened to append gets it at its end all the same.)
-- @tparam string|number|Buffer data
-- @int offset in bytes from the beginning
-- @treturn Stream the file; nil, message, errno, bytes written
function methods:pwrite(...)
  local data, offset = ...
  local there = select("#", ...)
  self:fd()
  if getmetatable(data) ~= Buffer then
    data = arguments.string(1, "pwrite", there, data)
  end
  offset = arguments.count(2, "pwrite", there, offset)
  local ok, message, errno = settle(self)
  local size, sent = #data, 0
  while ok and sent < size do
    local rest = data
    if sent > 0 then
      rest = type(data) == "string" and data:sub(sent + 1) or data:slice(sent + 1)
    end
    ok, message, errno = op.write(self:fd(), rest, #rest, offset + sent)
    message = message and reason(message)
    sent = sent + (ok or 0)
  end
  if not ok then
    return nil, message, errno, sent
  end
  return self
end

local syncs = { all = 0, data = const.IORING_FSYNC_DATASYNC }

--- Has what was written brought to the disk.
-- @string[opt="all"] what "data": the metadata only as far as the data cannot be
--   read without it
-- @treturn Stream the file; nil, message, errno
function methods:sync(...)
  local what = ...
  self:fd()
  what = what == nil and "all" or arguments.string(1, "sync", select("#", ...), what)
  if not syncs[what] then
    arguments.bad(1, "sync", ("invalid option '%s'"):format(what))
  end
  local ok, message, errno = self:flush()
  if not ok then
    return nil, message, errno
  end
  ok, message, errno = stream.work({ self }, "fsync", self:fd(), syncs[what])
  if not ok then
    return failure(message, errno)
  end
  return self
end

--- Cuts or stretches the file.  The position stays where it is.
-- @int[opt] size in bytes; default: where the position is
-- @treturn Stream the file; nil, message, errno
function methods:truncate(...)
  local size = ...
  self:fd()
  size = size ~= nil and arguments.count(1, "truncate", select("#", ...), size) or nil
  local at, message, errno = settle(self)
  if not at then
    return nil, message, errno
  end
  local ok
  ok, message, errno = stream.work({ self }, "ftruncate", self:fd(), size or at)
  if not ok then
    return failure(message, errno)
  end
  return self
end

--- Its metadata.  What is still buffered is written first, so the size counts
-- it.
-- @treturn table as of `uring.fs.stat`; nil, message, errno
function methods:stat()
  self:fd()
  local ok, message, errno = self:flush()
  if not ok then
    return nil, message, errno
  end
  local info
  ok, info, errno = op.statx(self:fd(), "", const.AT_EMPTY_PATH)
  if not ok then
    return failure(info, errno)
  end
  return info
end

return M
