--- Operations of the program's own: an object that prepares itself.
--
-- `ring:prepare(object)`, `uring.prepare(object)` and `uring.await(object)` take
-- any table or userdata with a method `prepare`:
--
-- - `object:prepare(sqe)` fills the one SQE it is given.  Either as a built-in
--   operation, with its arguments and options,
--   `sqe:read(fd, buffer, 4096)`; or field by field as the operation raw has
--   them, `sqe.opcode = 22; sqe.addr = buffer; sqe.keep = { … }`.  If it raises, or
--   fills none or two, nothing has happened.
-- - `object:complete(result, flags, …)`, if there is one, makes of a result what
--   `await` returns, or raises.  The result is an integer ≥ 0 or -errno, flags
--   are the CQE's, and what follows is what the operation adds.  It is called
--   once for every result that is awaited, the -ECANCELED of a cancelled
--   operation among them; never for one that is given up, because the handle
--   was dropped or closed.
-- - `object:cancel()`, if there is one, is told once that the operation is being
--   cancelled: by `cancel`, by `__close`, or together with the task that awaits
--   it, and then as soon as that runs again.  A result may still come.
--
-- What is lent is kept under the same rules as a built-in's: until the terminal
-- completion it belongs to the operation, and so does the object itself, whatever
-- happens to the handle and the ring.  (An object that refers to its handle keeps
-- that from being dropped: the operation then goes on until it ends by itself.)
-- @module uring.custom

local blame = require "uring.blame"
local core = require "uring.core"

local ECANCELED = core.errno.ECANCELED

local M = {}

--
-- The SQE that an object fills: it only takes note.
--

local CALLS = {} -- key of the calls made: { name, arguments … }

local Sqe = { __name = "uring.sqe" }
local Taken = { __name = "uring.sqe" } -- once it has been filled

-- Fields that raw takes, as they are before they are set.
local fields = {
  opcode = 0, fd = 0, len = 0, off = 0, flags = 0, ioprio = 0, rw_flags = 0, buf_index = 0,
  personality = 0, file_index = 0, addr = 0, addr2 = 0, addr3 = 0, keep = false, multishot = false;
}

local recorders = {} -- name of an operation → function(sqe, …)

local function recorder(name)
  return function(sqe, ...)
    if getmetatable(sqe) ~= Sqe then
      error(("call it as sqe:%s(…), inside prepare"):format(name), 2)
    end
    local calls = sqe[CALLS]
    calls[#calls + 1] = table.pack(name, ...)
  end
end

local function index(t, name)
  return t[name]
end

function Sqe.__index(_, name)
  if fields[name] ~= nil then
    return fields[name]
  end
  local fn = recorders[name]
  if not fn then
    local known, message = pcall(index, core.op, name)
    if not known then
      blame(message, 2)
    end
    fn = recorder(name)
    recorders[name] = fn
  end
  return fn
end

local function taken()
  error("an SQE can be filled only inside prepare", 2)
end

Taken.__index = taken
Taken.__newindex = taken

local function new_sqe()
  return setmetatable({ [CALLS] = {} }, Sqe)
end

-- What an SQE has been filled with: a name and its arguments.
local function filling(object, sqe)
  local calls = sqe[CALLS]
  sqe[CALLS] = nil
  setmetatable(sqe, Taken)
  local by_field = next(sqe) ~= nil
  local count = #calls + (by_field and 1 or 0)
  if count ~= 1 then
    error(("%s: prepare has filled %s: it fills exactly one"):format(tostring(object),
      count == 0 and "no SQE" or count == 2 and "two SQEs" or count .. " SQEs"), 0)
  elseif not by_field then
    return calls[1]
  end
  local raw = {}
  for name, value in next, sqe do
    raw[name] = value
  end
  return { n = 2, "raw", raw }
end

--
-- The handle
--

local methods = {}
local Custom = { __index = methods, __name = "uring.custom" }

local cancellation_methods = {}
local Cancellation = { __index = cancellation_methods, __name = "uring.cancellation" }

-- The last result on its way through `complete`; whoever awaits the operation
-- again gets the same.  Closed with the function that works on it, it is done,
-- one way or the other.
local Last = {}

function Last.__close(last, err)
  if not last.done then
    last.done, last.failed, last.err = true, true, err
  end
  if last.bell then
    last.bell:set(0)
  end
end

local function replay(last)
  while not last.done do -- `complete` is suspended, in another task
    last.bell = last.bell or core.timer()
    last.bell:wait()
  end
  if last.failed then
    error(last.err, 0)
  end
  return table.unpack(last.values, 1, last.values.n)
end

-- Tells the object, once, that the operation is being cancelled.
local function tell_cancelled(self)
  local object = self.object
  if not self.told and object.cancel then
    self.told = true
    object:cancel()
  end
end

-- Calls fn, which awaits; tells the object if the operation was cancelled with
-- the task meanwhile.
local function awaiting(self, fn, ...)
  if not self.object.cancel then
    return fn(...)
  end
  local results = table.pack(pcall(fn, ...))
  local _, cancelled = core.progress(self.op)
  if cancelled then
    tell_cancelled(self)
  end
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

-- What a built-in operation's await has returned, as one integer.
local function integer(results)
  if results[1] then
    return results[1]
  end
  return results[3] and -results[3] or 0 -- the end of a stream is a bare nil
end

-- What the object makes of a result.
local function completed(self, results, flags)
  local object = self.object
  if not object.complete then
    return results
  end
  return table.pack(object:complete(integer(results), flags,
    table.unpack(results, 2, results[1] and results.n or 0)))
end

local function complete_last(self, results, flags)
  local last <close> = setmetatable({
    done = false;      -- `complete` has returned or raised
    failed = false;    -- and this is what it raised
    err = nil;
    values = nil;      -- or returned
    cancelled = not results[1] and results[3] == ECANCELED;
    bell = nil;        -- a Timer, where somebody waits for it
  }, Last)
  self.last = last
  last.values = completed(self, results, flags)
  last.done = true
  return table.unpack(last.values, 1, last.values.n)
end

-- Takes one result; fetch(self) gets it.
local function take(self, fetch)
  local results = not self.last and table.pack(fetch(self))
  if self.last then -- taken before, or by another task meanwhile
    return replay(self.last)
  end
  local flags = self.op:flags()
  if self.multishot and core.progress(self.op) then
    local values = completed(self, results, flags)
    return table.unpack(values, 1, values.n)
  end
  return complete_last(self, results, flags)
end

local function from_operation(self)
  return awaiting(self, self.op.await, self.op)
end

--- The result, or of a multishot operation the next one.
-- @return what `complete` has made of it; without `complete` as of a built-in
-- @raise what `complete` raised
function methods:await()
  return take(self, from_operation)
end

local function request_cancel(self)
  local ended = self.op:status() == "done"
  local cancellation = self.op:cancel()
  if not ended then
    tell_cancelled(self)
  end
  return cancellation
end

--- Asks for cancellation.
-- @treturn Cancellation its `await` gives "cancelled", or "completed" and what
--   `await` of the operation returns
function methods:cancel()
  return setmetatable({ custom = self, cancellation = request_cancel(self) }, Cancellation)
end

-- "cancelled" is what the operation itself tells in more words.
local function from_outcome(self, outcome, ...)
  if outcome == "cancelled" then
    return self.op:await()
  end
  return ...
end

function cancellation_methods:await()
  local custom = self.custom
  local values = table.pack(take(custom, function()
    return from_outcome(custom, self.cancellation:await())
  end))
  if custom.last and custom.last.cancelled then
    return "cancelled"
  end
  return "completed", table.unpack(values, 1, values.n)
end

function cancellation_methods:status()
  return self.custom:status()
end

function Cancellation:__tostring()
  return ("cancellation (%s, %s)"):format(tostring(self.custom.object), self:status())
end

--- @treturn string "prepared" | "submitted" | "cancelling" | "done"
function methods:status()
  return self.op:status()
end

--- Waits until what was lent has come back, as of a built-in.
function methods:notification()
  return self.op:notification()
end

--- @treturn Operation the built-in one behind it, for what wants that: `link`,
--   `cancel`, `poll_update`
function methods:operation()
  return self.op
end

local function next_completed(self)
  if self.last then
    return nil
  end
  local values = table.pack(take(self, from_operation))
  if self.last and self.last.cancelled then
    return nil
  end
  return table.unpack(values, 1, values.n)
end

--- Iterates over the results of a multishot operation.  Leaving the loop cancels
-- the operation.  With `complete` the values are what that returns, also of the
-- last result and of a failure; nil ends the loop.
function methods:results()
  if self.object.complete then
    return next_completed, self, nil, self
  end
  local next_result, operation = self.op:results()
  return function() return awaiting(self, next_result, operation) end, nil, nil, self
end

-- Cancels and waits until the memory is back; the result is given up.
function Custom.__close(self)
  local operation = self.op
  local told, err = pcall(request_cancel, self)
  getmetatable(operation).__close(operation)
  if not self.last then
    self.last = { done = true, cancelled = true, values = table.pack(operation:await()) }
  end
  if not told then
    error(err, 0)
  end
end

function Custom.__tostring(self)
  return ("operation (%s, %s)"):format(tostring(self.object), self:status())
end

-- Can it prepare itself?
local function is_custom(x)
  local meta = getmetatable(x)
  local indexable = type(x) == "table" or type(x) == "userdata" and type(meta) == "table" and meta.__index
  local ours = meta == Sqe or meta == Taken or meta and meta.__name == "uring.ring"
  return indexable and not ours and type(x.prepare) == "function"
end

--- Prepares an object on a ring; also `ring:prepare(object)`.
-- @tparam Ring ring
-- @param object
-- @treturn Custom a handle with the methods of an Operation
-- @raise what its `prepare` raises, and what the operation's own arguments do
function M.prepare(ring, object, ...)
  if not is_custom(object) then
    error(("bad argument #1 to 'prepare' (object with a method 'prepare' or string expected, got %s)")
      :format(type(object)), 3)
  elseif select("#", ...) > 0 then
    error("bad argument #2 to 'prepare' (an object has no arguments)", 3)
  end
  local sqe = new_sqe()
  object:prepare(sqe)
  local call = filling(object, sqe)
  local prepared, operation = pcall(core.prepare_for, ring, call[1], object, table.unpack(call, 2, call.n))
  if not prepared then
    error(operation, 3)
  end
  local _, _, multishot = core.progress(operation)
  return setmetatable({
    object = object;
    op = operation;  -- the built-in one
    multishot = multishot;
    last = nil;  -- the last result, once it has been taken
    told = nil;  -- the object knows that it is cancelled
  }, Custom)
end

core.preparer(M.prepare)

M.is_custom = is_custom

return M
