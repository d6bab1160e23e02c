--- The keys, their values, and when they expire.
--
-- A value is a string, or a table with a `type` ("list", "hash", "set") and a
-- `size`; what has become empty is removed.  A key that has expired is gone when
-- somebody looks for it, or at the next `sweep`.

local resp = require "kv.resp"
local uring = require "uring"

local M = {}

local values, deadlines, count = {}, {}, 0

function M.clear()
  values, deadlines, count = {}, {}, 0
end

--- @treturn bool was it there?
function M.remove(key)
  local there = values[key] ~= nil
  values[key], deadlines[key] = nil, nil
  count = there and count - 1 or count
  return there
end

--- The value of a key; nil: there is none.
function M.get(key)
  local deadline = deadlines[key]
  if deadline and deadline <= uring.now() then
    M.remove(key)
  end
  return values[key]
end

--- Sets a value; the key keeps its deadline, if it has one.
function M.put(key, value)
  if values[key] == nil then
    count = count + 1
  end
  values[key] = value
end

local WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

--- The string of a key; nil: there is none.
function M.string(key)
  local value = M.get(key)
  return type(value) == "table" and resp.refuse(WRONG_TYPE) or value
end

--- The list, hash or set of a key.  If there is none it is an empty one, which is
-- the key's once it is kept.
function M.table(key, kind)
  local value = M.get(key) or { type = kind, size = 0, first = 1, items = {} }
  return type(value) == "table" and value.type == kind and value or resp.refuse(WRONG_TYPE)
end

--- Puts back one that has changed.
function M.keep(key, value)
  if value.size > 0 then
    M.put(key, value)
  else
    M.remove(key)
  end
end

--- When it expires, a time of `uring.now`; nil: never.
function M.deadline(key)
  return deadlines[key]
end

function M.expire(key, deadline)
  deadlines[key] = deadline
end

--- Removes what has expired.
function M.sweep()
  local now = uring.now()
  for key, deadline in pairs(deadlines) do
    if deadline <= now then
      M.remove(key)
    end
  end
end

function M.size()
  return count
end

--- Iterates over keys; those that have expired among them, until they are swept.
function M.keys()
  return next, values
end

return M
