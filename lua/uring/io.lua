--- Lua's `io`, with files that do not block the loop: the same functions, the
-- same results, the same errors.  `local io = require "uring.io"` is enough for
-- a script to run many of its files, pipes and commands at a time.
--
-- What is not as in `io`:
--
-- - Files are streams (`uring.stream`), so they can do more.  `tostring` tells
--   their name and descriptor, the type in messages is "uring.stream" in the
--   place of "FILE*"; `io.type` of Lua's own does not know them, and this one's
--   does not know Lua's.
-- - Closing what is closed already is no error.  A file whose closing has begun
--   is closed for everybody else.
-- - `flush` returns the file.  What cannot be written is kept and tried again.
-- - A negative number of bytes to read is refused, a path with a zero byte in it
--   does not exist, and `write` writes nothing where one of its arguments cannot
--   be written.
-- - A device, a pipe and a terminal are written at once, unless `setvbuf` says
--   otherwise; of the standard streams, and of what `popen` writes to, the
--   terminal alone.
-- - `print`, and whatever else writes by C's stdio, has a buffer of its own: what
--   goes there and what goes here keep their order only if both are flushed, or
--   the output is a terminal.
-- - A command of `popen` whose file is dropped is not waited for until the end of
--   the Lua state.
-- @module uring.io

local arguments = require "uring.arguments"
local core = require "uring.core"
local file = require "uring.file"
local stream = require "uring.stream"

local const = core.const

local M = {}

local FORMATS_MAX = 250 -- of one `lines`, as io has it

-- What takes the place of closing: file → function.
local closing = stream.closing

local TYPE = core.stream_meta.__name

local function is_open(f)
  local _, open = core.stream_kind(f)
  return open
end

local function check_open(f)
  if not is_open(f) then
    error("attempt to use a closed file", 3)
  end
end

-- To be called by the function whose argument it is.
local function check_file(i, name, there, x)
  if not core.stream_kind(x) then
    arguments.bad_type(i, name, TYPE, there, x, 1)
  end
end

--- Opens a file: see `uring.open`.
-- @function open
-- @string path
-- @string[opt="r"] mode "r", "w", "a", "r+", "w+", "a+"; a "b" behind it changes
--   nothing
-- @treturn Stream nil, "path: reason", errno
M.open = file.open

--- What something is.
-- @param x
-- @treturn string "file", "closed file"; nil if it is no stream
function M.type(...)
  local x = ...
  if select("#", ...) == 0 then
    arguments.bad(1, "type", "value expected")
  end
  local kind, open = core.stream_kind(x)
  return kind and (open and "file" or "closed file") or nil
end

--
-- Default files
--

-- The file of that path; raises as `io` does.
local function open_or_raise(path, flags)
  local f, message = file.open_with(path, flags)
  if not f then
    error(("cannot open file '%s' (%s)"):format(path, message:sub(#path + 3)), 3)
  end
  return f
end

local OUTPUT_FLAGS = const.O_WRONLY | const.O_CREAT | const.O_TRUNC

--- Sets and tells the default input.
-- @tparam[opt] string|Stream x path or file
-- @treturn Stream
-- @raise where the file cannot be opened
function M.input(...)
  local x = ...
  if type(x) == "string" or type(x) == "number" then
    x = open_or_raise(tostring(x), const.O_RDONLY)
  elseif x ~= nil then
    check_file(1, "input", select("#", ...), x)
    check_open(x)
  end
  return (core.default_file("input", x))
end

--- Sets and tells the default output.
-- @tparam[opt] string|Stream x path or file
-- @treturn Stream
-- @raise where the file cannot be opened
function M.output(...)
  local x = ...
  if type(x) == "string" or type(x) == "number" then
    x = open_or_raise(tostring(x), OUTPUT_FLAGS)
  elseif x ~= nil then
    check_file(1, "output", select("#", ...), x)
    check_open(x)
  end
  return (core.default_file("output", x))
end

--- Closes a file.
-- @tparam[opt] Stream x the default output if there is none
-- @return as of `file:close`
function M.close(...)
  local x = ...
  if select("#", ...) == 0 then
    x = core.default_file "output"
  else
    check_file(1, "close", 1, x)
  end
  return x:close()
end

M.read = core.default_read
M.write = core.default_write

--- Writes what the default output holds back.
-- @return as of `file:flush`
function M.flush()
  local f = core.default_file "output"
  if not is_open(f) then
    error("default output file is closed", 2)
  end
  return f:flush()
end

--- Iterates over the lines of a file, or over what the formats ask for.  The
-- file is closed at its end, and when the loop is left.
-- @string[opt] path; nil: the default input, which stays open
-- @param ... formats, as of `read`
-- @treturn function iterator; with a path also nil, nil, and the file, which the
--   loop closes
-- @raise where the file cannot be opened or read
function M.lines(path, ...)
  if select("#", ...) > FORMATS_MAX then
    arguments.bad(FORMATS_MAX + 2, "lines", "too many arguments")
  end
  if path == nil then
    local input = core.default_file "input"
    check_open(input)
    return (input:lines(...))
  end
  path = arguments.string(1, "lines", 1, path)
  local f = open_or_raise(path, const.O_RDONLY)
  return core.stream_lines(f, ...), nil, nil, f
end

--
-- Standard streams
--

local function refuse_close()
  return nil, "cannot close standard file"
end

-- What is held back of what is written to it: as in C, but for the prompt on a
-- terminal, which has no newline and is to be seen.
local function standard(fd, name, buffering)
  local f = stream.open(stream.new("file", name), fd, true)
  closing[f] = refuse_close
  f:setvbuf(core.isatty(fd) and "no" or buffering)
  return f
end

--- The standard streams of the process.  They cannot be closed.  What is written
-- to `stdout` is held back, unless it is a terminal, until there is much of it,
-- it is flushed, or the process ends in whatever way but by a signal; `stderr`
-- is written at once.
M.stdin = standard(0, "stdin", "no")
M.stdout = standard(1, "stdout", "full")
M.stderr = standard(2, "stderr", "no")

core.default_file("input", M.stdin)
core.default_file("output", M.stdout)

--
-- Temporary files and commands
--

-- A file without a name, where the file system has such; else one whose name is
-- taken away at once.
local function open_unnamed()
  local op, errno = core.op, core.errno
  local flags = const.O_RDWR | const.O_CLOEXEC | const.O_EXCL
  local f = stream.new("file", "temporary file")
  local fd, message, number = op.openat(nil, "/tmp", flags | const.O_TMPFILE, 384) -- 0600
  if not fd and (number == errno.EOPNOTSUPP or number == errno.EISDIR) then
    local path
    repeat
      path = ("/tmp/lua_%016x"):format(math.random(0))
      fd, message, number = op.openat(nil, path, flags | const.O_CREAT, 384)
    until number ~= errno.EEXIST
    if fd then
      stream.open(f, fd)
      os.remove(path)
      return f
    end
  end
  if not fd then
    return nil, message:match ": (.*)", number
  end
  return stream.open(f, fd)
end

--- Makes a temporary file, to be read and written, which is gone when it is
-- closed.
-- @treturn Stream nil, message, errno
function M.tmpfile()
  return open_unnamed()
end

-- Closes the file of a command and waits for the command.  Cancelled in that,
-- the task leaves it behind to end by itself.
local function finish(f, command)
  closing[f] = nil
  f:close()
  return command:wait()
end

-- What has been written is in its files before a command may look there.
local function write_pending()
  M.stdout:flush()
  core.write_files()
end

-- A shell with one end of a pipe.
-- A process; nil, message, errno
local function start(command, option, descriptor)
  local process = require "uring.process"
  local shell, message, errno = process.spawn { "/bin/sh", "-c", command, [option] = descriptor }
  if not shell then
    return nil, command .. ": " .. (message:match ": (.*)" or message), errno
  end
  return shell
end

--- Runs a command in a shell, and reads what it prints or writes what it reads.
-- `close` waits for its end, off the loop: true or nil, "exit" or "signal", and
-- the status or the signal.
-- @string command for `/bin/sh -c`
-- @string[opt="r"] mode "r" or "w"
-- @treturn Stream nil, "command: reason", errno
-- @raise an invalid mode
function M.popen(...)
  local command, mode = ...
  local there = select("#", ...)
  command = arguments.string(1, "popen", there, command)
  mode = mode == nil and "r" or arguments.string(2, "popen", there, mode)
  if mode ~= "r" and mode ~= "w" then
    arguments.bad(2, "popen", "invalid mode")
  elseif command:find("\0", 1, true) then
    return nil, command .. ": there is a zero byte in the command", core.errno.EINVAL
  end
  local f = stream.new("file", command)
  local reading <close> = core.descriptor()
  local writing <close> = core.descriptor()
  local r, w, errno = core.pipe(reading, writing)
  if not r then
    return nil, command .. ": " .. w:match ": (.*)", errno
  end
  write_pending()
  local ours, option, theirs = reading, "stdout", w
  if mode == "w" then
    ours, option, theirs = writing, "stdin", r
  end
  local shell, message, number = start(command, option, theirs)
  if not shell then
    return nil, message, number
  end
  stream.open(f, ours:take())
  closing[f] = function(self) return finish(self, shell) end
  if mode == "w" then
    f:setvbuf "full"
  end
  shell.child:linger() -- at last: where this fails, the command is ended
  return f
end

return M
