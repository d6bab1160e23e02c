--- Waiting on descriptors whose reading takes a signal away: eventfd, timerfd,
-- signalfd and their like.  A signal that was taken is never lost, whoever is
-- cancelled meanwhile, and `cancel` tells whether there was one.

local core = require "uring.core"
local descriptor = require "uring.descriptor"
local options = require "uring.options"

local const, errnos = core.const, core.errno
local prepare = core.on_default.prepare

local SIZE_MAX = 65536

local M = {}

local methods = {}
local Waiter = { __index = methods, __name = "uring.waiter" }

local function check_open(self)
  if self.closed then
    error("attempt to use a closed waiter", 3)
  end
end

-- A step is an operation that all who wait share.  It stays until one of them
-- takes what it came to, so none who is interrupted takes a signal with it.
local function begin(self)
  local reads = not self.polls
  local step = {
    reads = reads; -- or else waits until there is something to read
    op = reads and prepare("read", self.fd, self.buffer) or prepare("poll_add", self.fd, const.POLLIN);
    value = nil;   -- the signal, once it has been read from the buffer
  }
  self.step = step
  return step
end

local function value_of(self, step, n)
  if step.value == nil then
    local bytes = self.buffer:get(1, n)
    step.value = n == 8 and self.size == 8 and ("=i8"):unpack(bytes) or bytes
  end
  return step.value
end

-- Takes what the step came to.  False: there is more to wait for, for whoever still
-- does.
local function take(self, step, n, message, errno)
  self.step = nil
  self.polls = step.reads and errno == errnos.EAGAIN -- the descriptor itself does not wait
  if not step.reads and n then
    return false
  elseif n == 0 then
    return true, nil
  elseif n then
    return true, value_of(self, step, n)
  elseif errno ~= errnos.ECANCELED and not self.polls then
    return true, nil, message, errno
  end
  return false
end

local function wait(self, cancels)
  while true do
    local step = self.step or begin(self)
    local n, message, errno = step.op:await()
    local taken, value
    if self.step == step then
      taken, value, message, errno = take(self, step, n, message, errno)
    end
    if taken then
      return value, message, errno
    elseif self.closed then
      return nil, "closed", errnos.ECANCELED
    elseif self.cancels ~= cancels then
      return nil, "cancelled", errnos.ECANCELED
    end
  end
end

--- Waits for a signal and takes it.  Of several who wait each takes one, in the
-- order in which they came.
-- @treturn int|string the 8 bytes read as an integer (of an eventfd the
--   counter, of a timerfd how often it has expired); with another size a
--   string.  nil at the end of a pipe; nil, "cancelled", ECANCELED after
--   `cancel`; nil, "closed", ECANCELED after `close`; nil, message, errno
function methods:wait()
  check_open(self)
  return wait(self, self.cancels)
end

--- Cancels the waits under way, and waits until that is settled.
-- @treturn boolean whether a signal was taken before.  If so, the first of those
--   who wait has it, or where nobody waits any more, the next `wait`
-- @treturn int|string that signal, for information
function methods:cancel()
  check_open(self)
  local step = self.step
  if not step then
    return false
  end
  self.cancels = self.cancels + 1
  local _, n = step.op:cancel():await()
  if step.reads and n and n > 0 then
    return true, value_of(self, step, n)
  end
  return false
end

--- Ends the waits: they give nil, "closed".  Returns when the kernel has let go
-- of the descriptor, which stays open.  Idempotent.
function methods:close()
  self.closed = true
  if self.step then
    local cancellation = self.step.op:cancel()
    core.shield(function() cancellation:await() end)
  end
end

Waiter.__close = methods.close

function Waiter.__tostring(self)
  return ("waiter (fd %d%s)"):format(self.fd, self.closed and ", closed" or "")
end

--- Waits on a descriptor.
-- @tparam int|table fd a number, or an object with `fd`, which is kept
-- @tparam[opt] table given `size`: how many bytes a signal has (default 8)
-- @treturn Waiter
-- @raise wrong types, unknown options
function M.new(fd, given)
  given = options.check("waiter", given or {}, { size = "integer" })
  local size = given.size or 8
  if size < 1 or size > SIZE_MAX then
    error(("option 'size' of waiter is %d, not 1 to %d"):format(size, SIZE_MAX), 2)
  end
  return setmetatable({
    fd = descriptor.number("waiter", fd);
    owner = fd;  -- what has the descriptor, kept from the collector
    size = size;
    buffer = core.buffer(size);
    step = nil;    -- what all who wait are waiting for
    polls = false; -- is the next one only to wait until there is something?
    cancels = 0;   -- how often `cancel` was called
    closed = false;
  }, Waiter)
end

return M
