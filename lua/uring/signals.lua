--- Waiting for signals.
--
-- `for name in uring.signals { "INT", "TERM" } do … end` runs its body with the
-- name of each signal as it comes.  While that lasts these signals do nothing
-- else: INT interrupts no script, TERM ends none.  Leaving the loop puts back
-- what there was before.  Nothing is blocked, so programs that are started
-- meanwhile, in whatever way, get these signals as ever.  (The prompt of the stock
-- interpreter, `lua -i`, takes INT back with every line.)

local core = require "uring.core"
local names = require "uring.signal_names"
local waiter = require "uring.waiter"

local numbers = core.signal_names

local M = {}

local methods = {}
local Signals = { __index = methods, __name = "uring.signals" }

-- Why a signal cannot be waited for.
local refused = {
  [numbers.KILL] = "cannot be caught";
  [numbers.STOP] = "cannot be caught";
  [numbers.SEGV] = "is a fault of the program itself";
  [numbers.BUS] = "is a fault of the program itself";
  [numbers.FPE] = "is a fault of the program itself";
  [numbers.ILL] = "is a fault of the program itself";
}

local function check_open(self)
  if self.closed then
    error("attempt to use closed signals", 3)
  end
end

--- Waits for the next signal.  They are taken in the order in which they came;
-- of several who wait each takes one, and each object has all its signals.
--
-- The kernel does not count: a signal that comes again before the program has
-- got the first is the same one.
-- @treturn string its name, "INT"; nil, "closed", ECANCELED if it was closed
--   meanwhile; nil, message, errno
-- @treturn int its number
function methods:wait()
  check_open(self)
  self.watch:fd() -- raises in a child of fork, which would take the parent's signals
  local byte, message, errno = self.waiter:wait()
  if not byte then
    return nil, message, errno
  end
  local number = byte:byte()
  return names.name(number), number
end

--- Puts back what these signals did before, unless somebody else has changed
-- it meanwhile.  Signals that nobody has taken yet are dropped.  Who waits gets
-- nil, "closed".  Idempotent.
function methods:close()
  if not self.closed then
    self.closed = true
    self.waiter:close()
    self.watch:close()
  end
end

Signals.__close = methods.close

-- As an iterator; the loop ends when it is closed.
function Signals:__call()
  if self.closed then
    return nil
  end
  local name, number, errno = self:wait()
  if name or number == "closed" then
    return name, number
  end
  error(("%s (%d)"):format(number, errno), 2)
end

function Signals:__tostring()
  return ("signals (%s%s)"):format(table.concat(self.names, " "), self.closed and ", closed" or "")
end

local function read(list)
  if type(list) ~= "table" then
    error(("bad argument #1 to 'signals' (table of names expected, got %s)"):format(type(list)), 3)
  elseif #list == 0 then
    error("bad argument #1 to 'signals' (there is no signal in it)", 3)
  end
  local found, found_names = {}, {}
  for key, x in pairs(list) do
    if math.type(key) ~= "integer" then
      error(("bad argument #1 to 'signals' (unknown option '%s'; it takes names of signals)"):format(
        tostring(key)), 3)
    end
    local number = names.number("bad argument #1 to 'signals'", x, 3)
    if refused[number] then
      error(("bad argument #1 to 'signals': %s %s"):format(names.name(number), refused[number]), 3)
    end
    found[#found + 1] = number
  end
  table.sort(found)
  for i, number in ipairs(found) do
    found_names[i] = names.name(number)
  end
  return found, found_names
end

--- Watches for signals: `signals { "INT", "TERM" }`.
--
-- The object is an iterator, and has `wait` and `close`.  Several objects may
-- watch for the same signal: each gets it.  Waiting for a signal is no deadlock,
-- costs nothing, and can be cancelled.
-- @tab list names, with or without "SIG", or numbers
-- @treturn Signals, and nil, nil, Signals for the loop, which closes it
-- @raise unknown signals; KILL and STOP, which nobody can catch; SEGV, BUS, FPE
--   and ILL; where there is no descriptor left for it, as `io.lines` does
function M.signals(list)
  local found, found_names = read(list)
  local watch, message = core.signal_watch(found)
  if not watch then
    error(message, 2)
  end
  local self = setmetatable({
    names = found_names;
    watch = watch;       -- the handler's side
    waiter = waiter.new(watch, { size = 1 }); -- the ring's side
    closed = false;
  }, Signals)
  return self, nil, nil, self
end

return M
