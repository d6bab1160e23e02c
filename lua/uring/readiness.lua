--- Readiness: waiting until a descriptor can be read or written, for those who
-- then do it themselves, such as a library with a socket of its own.
--
-- Every wait asks the kernel how things are now, so no readiness is missed and
-- none is taken for granted that is gone.  Tasks that wait for the same share
-- one poll.  The descriptor stays the program's: close the Readiness first.

local core = require "uring.core"
local descriptor = require "uring.descriptor"

local op, const, errnos = core.op, core.const, core.errno
local prepare = core.on_default.prepare

local M = {}

local methods = {}
local Readiness = { __index = methods, __name = "uring.readiness" }

-- What is asked for, and what it is known by when it is there.
local interests = {
  r = const.POLLIN | const.POLLRDHUP;
  w = const.POLLOUT;
  p = const.POLLPRI;
  h = const.POLLRDHUP; -- POLLHUP and POLLERR are told unasked
}
local letters = {
  { "r", const.POLLIN }, { "w", const.POLLOUT }, { "p", const.POLLPRI },
  { "h", const.POLLHUP | const.POLLRDHUP }, { "e", const.POLLERR },
}

local function names(mask)
  local found = ""
  for _, letter in ipairs(letters) do
    if mask & letter[2] ~= 0 then
      found = found .. letter[1]
    end
  end
  return found
end

local function events_of(method, interest)
  local events = 0
  if type(interest) == "string" then
    for letter in interest:gmatch "." do
      events = events | (interests[letter] or math.mininteger)
    end
  end
  if events <= 0 then
    error(("bad argument #1 to '%s' (\"r\", \"w\", \"p\", \"h\" or several of them expected, got %s)")
      :format(method, type(interest) == "string" and ("%q"):format(interest) or type(interest)), 3)
  end
  return events
end

local function check_open(self)
  if not self.polls then
    error("attempt to use a closed readiness", 3)
  end
end

-- The poll under way for these events; a new one where there is none, or only
-- one that tells how things were.
local function poll_for(self, events)
  local poll = self.polls[events]
  if not poll or poll:status() == "done" or poll:status() == "cancelling" then
    poll = prepare("poll_add", self.fd, events)
    self.polls[events] = poll
  end
  return poll
end

--- Waits until the descriptor is ready, or hung up, or in error.
-- @string[opt="r"] interest "r" to be read, "w" to be written, "p" for urgent
--   data, "h" for nothing but a hang-up, or several: "rw"
-- @treturn string those that it is ready for, "h" if the other side has hung
--   up or writes no more, "e" if there is an error (see `check`): "rh"; nil,
--   "closed", ECANCELED if the Readiness was closed meanwhile; nil, message,
--   errno
-- @treturn int the same as poll(2) has it: POLLIN | POLLHUP
function methods:wait(interest)
  check_open(self)
  local events = events_of("wait", interest or "r")
  while true do
    local poll = poll_for(self, events)
    local mask, message, errno = poll:await()
    if not self.polls and errno == errnos.ECANCELED then
      return nil, "closed", errno
    elseif mask then
      self.mask = self.mask | mask
      return names(mask), mask
    elseif errno ~= errnos.ECANCELED then
      return nil, message, errno
    end -- cancelled with another task that waited for the same: once more
  end
end

--- What waits have found since the last `clear`, without asking again.
-- @treturn string as from `wait`, "" for nothing
-- @treturn int
function methods:known()
  return names(self.mask), self.mask
end

--- Forgets what waits have found, and the error that `check` has.
-- @string[opt] interest only this: "r"
function methods:clear(interest)
  local forgotten = -1
  if interest ~= nil then
    forgotten = 0
    events_of("clear", interest)
    for _, letter in ipairs(letters) do
      if interest:find(letter[1], 1, true) then
        forgotten = forgotten | letter[2]
      end
    end
  end
  self.mask = self.mask & ~forgotten
  if forgotten == -1 then
    self.failure = nil
  end
end

--- Asks a socket for its error (SO_ERROR): how a connection that was begun
-- elsewhere has ended, once it is ready to be written.  Asking takes the error
-- from the socket; here it is kept until `clear`.
-- @treturn boolean true where there is none; nil, message, errno
function methods:check()
  check_open(self)
  if not self.failure then
    local size, code, errno = op.getsockopt(self.fd, const.SOL_SOCKET, const.SO_ERROR)
    if not size then
      return nil, code, errno
    elseif code ~= 0 then
      self.failure = code
    end
  end
  if self.failure then
    return core.failure("fd " .. self.fd, self.failure)
  end
  return true
end

--- Ends the waits: they give nil, "closed".  Returns when the kernel has let go
-- of the descriptor.  Idempotent; the descriptor stays open.
function methods:close()
  local polls = self.polls or {}
  self.polls = nil
  local cancellations = {}
  for _, poll in pairs(polls) do
    cancellations[#cancellations + 1] = poll:cancel()
  end
  core.shield(function()
    for _, cancellation in ipairs(cancellations) do
      cancellation:await()
    end
  end)
end

Readiness.__close = methods.close

function Readiness.__tostring(self)
  return ("readiness (fd %d%s)"):format(self.fd, self.polls and "" or ", closed")
end

--- Watches a descriptor.
-- @tparam int|Stream|Listener fd a number, or an object with `fd`, which is kept
-- @treturn Readiness
-- @raise anything else
function M.new(fd)
  return setmetatable({
    fd = descriptor.number("readiness", fd);
    owner = fd;    -- what has the descriptor, kept from the collector
    polls = {};    -- events → the poll of all who wait for them; nil: closed
    mask = 0;      -- what waits have found
    failure = nil; -- the errno that SO_ERROR gave
  }, Readiness)
end

return M
