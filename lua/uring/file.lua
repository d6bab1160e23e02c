--- Files by path.

local core = require "uring.core"
local stream = require "uring.stream"

local op, const = core.op, core.const

local M = {}

local modes = {
  ["r"] = const.O_RDONLY;
  ["r+"] = const.O_RDWR;
  ["w"] = const.O_WRONLY | const.O_CREAT | const.O_TRUNC;
  ["w+"] = const.O_RDWR | const.O_CREAT | const.O_TRUNC;
  ["a"] = const.O_WRONLY | const.O_CREAT | const.O_APPEND;
  ["a+"] = const.O_RDWR | const.O_CREAT | const.O_APPEND;
}

--- Opens a file.
-- @string path
-- @string[opt="r"] mode as `io.open` has them; a "b" changes nothing
-- @treturn Stream nil, "path: reason", errno
-- @raise an invalid mode
function M.open(path, mode)
  if type(path) ~= "string" then
    error(("bad argument #1 to 'open' (string expected, got %s)"):format(type(path)), 2)
  end
  if mode ~= nil and type(mode) ~= "string" then
    error(("bad argument #2 to 'open' (string expected, got %s)"):format(type(mode)), 2)
  end
  local flags = modes[(mode or "r"):match "^([rwa]%+?)b*$"]
  if not flags then
    error("bad argument #2 to 'open' (invalid mode)", 2)
  end
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

return M
