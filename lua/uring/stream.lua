--- Streams: sockets, pipes, terminals and files behind one face, with the
-- manners of Lua's own files.
--
-- A stream owns its descriptor.  Dropped without `close`, what it still has
-- to write is written and the descriptor closed when it is collected.  Of
-- several tasks that read, or write, one does so at a time, in their order; at
-- a file reading and writing count alike.
--
-- What has to be fast is in C (c/stream*.c) and in the same table of methods:
--
-- - `read(...)`: one result a format, as `file:read` has them: "l", "L", "a",
--   "n", a number of bytes; a line without a format.  nil at the end; nil,
--   message, errno.  What fails, or is cancelled, takes nothing.
-- - `lines(...)`: iterates over lines, or over what the formats ask for.  Raises
--   where reading fails.
-- - `read_some([max = 65536])` → string: up to `max` bytes, as soon as there are
--   any; nil at the end; nil, message, errno.
-- - `read_until(delimiter [, max])` → string that ends with the delimiter; at the
--   end of the stream what is left, without one; nil if that is nothing; nil,
--   message, EMSGSIZE if there is none within `max` bytes (by default the limit
--   of a line).
-- - `recv(buffer)` → bytes received into a Buffer, once; 0 at the end; nil,
--   message, errno.
-- - `write(...)` → the stream: strings, numbers, Buffers; nil, message, errno,
--   bytes of them that were written.
-- - `flush()` → the stream: what is buffered is written; nil, message, errno.
-- - `setvbuf(mode [, size = 16384])` → true: "no", "full" or "line", as of
--   `file:setvbuf`.  Files are fully buffered unless they are devices,
--   everything else is not buffered; nil, message, errno.
-- - `tie([on = true])` → the stream: what is buffered is written before a read has to
--   wait, so that no answer is waited for whose question has not been sent, and of many
--   questions that have come at once the answers leave at once.  The read waits for
--   that, too, and fails if it fails.  For a stream that one task reads and answers.
-- - `seek([whence = "cur" [, offset = 0]])` → position, as `file:seek`; nil,
--   message, errno.
-- - `timeout(seconds | nil)` → the stream: each single call on it has so long, or
--   gives nil, "timeout", ETIMEDOUT.  Nothing is lost by that.  One call alone
--   is limited by `uring.timeout(seconds, stream.read, stream, "l")`.
-- - `fd()` → the descriptor.
-- @module uring.stream

local core = require "uring.core"
local options = require "uring.options"

local op = core.op

local Stream = core.stream_meta
local methods = Stream.__index

local function check_open(self)
  local kind, open = core.stream_kind(self)
  if not open then
    error(("attempt to use a closed %s"):format(kind), 3)
  end
end

local limit_names = { line = "integer", all = "integer" }

--- Limits how many bytes a read collects before it gives nil, message,
-- EMSGSIZE and has taken nothing.  Files have no limits unless they are set.
-- @tparam[opt] table limits `line`: of a line without its newline, and of what
--   `read_until` looks through (1 MiB); `all`: of what is read by "a" (256 MiB)
-- @treturn table what the limits are now
function methods:limit(limits)
  check_open(self)
  limits = options.check("limit", limits or {}, limit_names)
  for name, most in pairs(limits) do
    if most < 1 then
      error(("option '%s' of limit is not positive"):format(name), 2)
    end
  end
  local line, all = core.stream_limits(self, limits.line, limits.all)
  return { line = line, all = all }
end

local directions = { r = 0, w = 1, rw = 2 } -- SHUT_RD, SHUT_WR, SHUT_RDWR

--- Ends one direction of a socket; what is buffered is written first.
-- @string[opt="w"] how "r" | "w" | "rw"
-- @treturn Stream nil, message, errno
function methods:shutdown(how)
  check_open(self)
  local direction = directions[how or "w"]
  if not direction then
    error("bad argument #1 to 'shutdown' ('r', 'w' or 'rw' expected)", 2)
  end
  local ok, message, errno = self:flush()
  if ok and not select(2, core.stream_kind(self)) then -- by another task, meanwhile
    return nil, "closed", core.errno.ECANCELED
  elseif ok then
    ok, message, errno = core.shutdown(self:fd(), direction)
  end
  if not ok then
    return nil, message, errno
  end
  return self
end

-- A file's errors have no subject, as io's have none.
local function failed(self, message, errno)
  if core.stream_kind(self) == "file" then
    message = message:gsub("^[^:]*: ", "", 1)
  end
  return nil, message, errno
end

-- What takes the place of closing, of streams that have something of their own
-- there: stream → function(stream) → what `close` returns.
local closing = setmetatable({}, { __mode = "k" })

-- What the kernel leaves to its threads (fsync, ftruncate, splice) looks its
-- descriptor up when a thread gets to it.  So a stream is closed when that has ended:
-- stream → set of operations.
local working = setmetatable({}, { __mode = "k" })

-- Makes such an operation on streams and awaits it: its name and arguments.
local function work(streams, ...)
  for _, self in ipairs(streams) do
    working[self] = working[self] or {}
  end
  local operation = core.on_default.prepare(...)
  for _, self in ipairs(streams) do
    working[self][operation] = true
  end
  local results = table.pack(pcall(operation.await, operation))
  for _, self in ipairs(streams) do
    working[self][operation] = nil
  end
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

local function close(self)
  local operations = working[self]
  local operation = operations and next(operations)
  while operation do
    operation:await()
    operations[operation] = nil
    operation = next(operations)
  end
  local ok, message, errno = op.close(core.stream_number(self))
  core.stream_closed(self) -- now that it is: an error before leaves an owner
  if not ok then
    return failed(self, message, errno)
  end
  return true
end

-- True where both writing and closing came off; else what the first of them says.
local function both(ok, message, errno, closed, why, number)
  if not ok then
    return nil, message, errno
  elseif not closed then
    return nil, why, number
  end
  return true
end

-- A file waits for nobody.
local function finish_file(self)
  local ok, message, errno = core.stream_finish(self)
  return both(ok, message, errno, close(self))
end

-- Waiting for a peer that takes nothing can be cancelled.
local function finish(self)
  local done, ok, message, errno = pcall(core.stream_finish, self)
  if not done then
    core.stream_give_up(self)
    core.shield(close, self)
    error(ok, 0)
  end
  return both(ok, message, errno, core.shield(close, self))
end

--- Writes what is buffered and closes.  A read or write of another task ends with
-- nil, "closed".  Idempotent.  In a task that is being cancelled, or is cancelled while
-- the peer takes nothing, it closes all the same: a file is written, anybody else gets
-- what needs no waiting.
-- @treturn bool true; nil, message, errno
function methods:close()
  local own = closing[self]
  if own then
    return own(self)
  end
  if not core.stream_closing(self) then
    return true
  elseif core.stream_kind(self) == "file" then
    return core.shield(finish_file, self)
  end
  return finish(self)
end

--- The address of the other end.
-- @treturn string nil, message, errno
function methods:peer()
  check_open(self)
  return core.peer_address(self:fd())
end

--- The address of this end.
-- @treturn string nil, message, errno
function methods:address()
  check_open(self)
  return core.local_address(self:fd())
end

Stream.__close = methods.close

-- For what works on the descriptor of a stream.

local function is_stream(x)
  return core.stream_kind(x) ~= nil
end

local function kind_of(self)
  check_open(self)
  return (core.stream_kind(self))
end

local function is_open(self)
  local _, open = core.stream_kind(self)
  return open
end

return {
  is_stream = is_stream;
  is_open = is_open;
  kind = kind_of;
  work = work;
  in_hand = core.stream_in_hand;
  is_idle = core.stream_idle; -- (stream, writing) → does nobody read, or write, or wait for that?
  --- `readable(stream)`, `writable(stream)` → true, when there is something to be
  -- read, or room to write; nil, message, errno.  As calls on the stream they wait
  -- for their turn, have its `timeout` and end when it is closed.
  readable = core.stream_readable;
  writable = core.stream_writable;
  --- `new(kind, name)` makes a stream that has no descriptor yet: `open(stream,
  -- fd [, borrowed])` gives it one, which it closes unless that is borrowed.  Made
  -- first, so that nothing can fail between getting a descriptor and owning it.
  -- Kinds: "socket", "pipe", "tty", "file"; a socket needs no name, its address
  -- is that.
  new = core.stream;
  open = core.stream_open;
  methods = methods;
  closing = closing;
}
