--- From one stream to another, past the program's memory where that pays.
--
-- Little is moved by reading and writing.  Once a read has brought all that was
-- asked for, there is more where that came from: it goes through a pipe of the
-- kernel's (splice), until it comes in drops again.

local core = require "uring.core"
local options = require "uring.options"
local socket = require "uring.socket"
local stream = require "uring.stream"

local EAGAIN, EINVAL, EINTR = core.errno.EAGAIN, core.errno.EINVAL, core.errno.EINTR
local ECANCELED = core.errno.ECANCELED

local CHUNK = 16384 -- bytes that are worth a splice
local ROOM = 65536  -- bytes that a pipe takes, see pipe(7)

local M = {}

local known = { count = "integer", shutdown = "boolean" }

-- Splices at most so many bytes; at a file that is for the ring's threads, since
-- it may wait for a disk.
local function splice(from, to, bytes)
  if not stream.is_open(from) or not stream.is_open(to) then -- by another task
    return nil, "closed", ECANCELED
  end
  if stream.kind(from) == "file" or stream.kind(to) == "file" then
    return stream.work({ from, to }, "splice", from:fd(), nil, to:fd(), nil, bytes)
  end
  return core.splice(from:fd(), to:fd(), bytes)
end

local function write(job, data)
  if not stream.is_open(job.to) then
    return nil, "closed", ECANCELED
  end
  return job.to:write(data)
end

local function read(job, bytes)
  if not stream.is_open(job.from) then
    return nil, "closed", ECANCELED
  end
  return job.from:read_some(bytes)
end

-- Empties the pipe.  Where the other end is slow to take it, or somebody else is
-- writing, what is left is written as everything else is, which waits.  True; nil,
-- message, errno.
local function empty(job, bytes)
  while bytes > 0 do
    local n, message, errno = nil, nil, EAGAIN
    if stream.is_idle(job.to, true) then
      n, message, errno = splice(job.reader, job.to, bytes)
    end
    if n then
      job.moved = job.moved + n
      bytes = bytes - n
    elseif errno == EAGAIN or errno == EINVAL then
      job.splices = errno == EAGAIN -- a file to append to takes none
      local ok, why, code, written = write(job, job.reader:read(bytes))
      job.moved = job.moved + (ok and bytes or written or 0)
      return ok and true, why, code
    elseif errno ~= EINTR then
      return nil, message, errno
    end
  end
  return true
end

local function make_pipe(job)
  local reader, writer, errno = socket.pipe()
  if not reader then
    return nil, writer, errno
  end
  job.reader, job.writer = reader, writer
  return true
end

-- Can more of it be taken past the streams, with nothing left behind that one has in
-- hand, or the other has not written yet, and in nobody's midst?
local function can_splice(job)
  return job.splices and job.moved < job.count
    and stream.is_open(job.from) and stream.in_hand(job.from) == 0
    and stream.is_open(job.to) and job.to:flush()
    and stream.is_idle(job.from, false) and stream.is_idle(job.to, true)
end

-- Moves what there is, while there is much.  True; nil, message, errno.
local function splice_on(job)
  while can_splice(job) do
    if not job.reader and not make_pipe(job) then -- no descriptors left: so it is copied
      job.splices = false
      return true
    end
    local n, message, errno = splice(job.from, job.writer, math.min(ROOM, job.count - job.moved))
    if not n and errno == EINVAL then
      job.splices = false
    elseif not n and errno ~= EAGAIN then
      return nil, message, errno
    end
    n = n or 0
    local ok
    ok, message, errno = empty(job, n)
    if not ok then
      return nil, message, errno
    elseif n < CHUNK then
      break
    end
  end
  return true
end

-- True at the end or when enough has been moved; nil, message, errno.
local function move(job)
  while job.moved < job.count do
    local data, message, errno = read(job, math.min(CHUNK, job.count - job.moved))
    if not data then
      return not message and true or nil, message, errno
    end
    local ok, written
    ok, message, errno, written = write(job, data)
    job.moved = job.moved + (ok and #data or written or 0)
    if ok and #data == CHUNK then
      ok, message, errno = splice_on(job)
    end
    if not ok then
      return nil, message, errno
    end
  end
  return true
end

local Job = { __name = "uring.transfer" }

function Job:__close()
  if self.reader then
    self.reader:close()
    self.writer:close()
  end
end

local function check_stream(i, x)
  if not stream.is_stream(x) then
    error(("bad argument #%d to 'transfer' (stream expected, got %s)"):format(i, type(x)), 3)
  end
  x:fd() -- raises where it is closed
end

-- The options of a call, which may be just a count.
local function read_options(given)
  if math.type(given) == "integer" then
    given = { count = given }
  elseif given ~= nil and type(given) ~= "table" then
    error(("bad argument #3 to 'transfer' (integer or table expected, got %s)"):format(type(given)), 3)
  end
  given = options.check("transfer", given or {}, known, 4)
  if given.count and given.count < 0 then
    error("bad argument #3 to 'transfer' (the count is negative)", 3)
  end
  return given
end

--- Moves bytes from one stream to another, until the first ends: from sockets,
-- pipes and files to any of them.  What `from` has in hand comes first.  Cancelled,
-- it may have taken up to 64 KB that have not been written, and are lost.
-- @tparam Stream from
-- @tparam Stream to
-- @tparam[opt] int|table given how many bytes at most; or `count` and `shutdown` (true:
--   at the end of `from`, the writing side of `to` is shut down: a half-close is
--   passed on)
-- @treturn int bytes that were moved; nil, message, errno, and bytes moved until then
-- @raise wrong types, unknown options, a closed stream
function M.transfer(from, to, given)
  check_stream(1, from)
  check_stream(2, to)
  given = read_options(given)
  local job <close> = setmetatable({
    from = from, to = to;
    count = given.count or math.maxinteger;
    moved = 0;
    splices = not core.on_default.uses_sqpoll(); -- see core.splice: nobody else may look meanwhile
    reader = nil, writer = nil;                  -- the ends of the pipe, once there is one
  }, Job)
  local ok, message, errno = move(job)
  if ok and given.shutdown and job.moved < job.count then
    ok, message, errno = to:shutdown "w"
  end
  if not ok then
    return nil, message, errno, job.moved
  end
  return job.moved
end

return M
