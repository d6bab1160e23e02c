--- Arguments, checked as Lua's own library does, with the same words.
--
-- Each raises in the name of who called the function with the argument: it has
-- to be called from that function itself.

local M = {}

-- How Lua's messages name the type of a value.
local function type_name(x)
  local meta = getmetatable(x)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return type(name) == "string" and name or type(x)
end

--- Raises "bad argument #i to 'name' (why)".
-- @int i
-- @string name of the function
-- @string why
-- @int[opt=0] further levels between the function and who calls this
function M.bad(i, name, why, further)
  error(("bad argument #%d to '%s' (%s)"):format(i, name, why), 3 + (further or 0))
end

--- Raises "bad argument #i to 'name' (expected, got type)".
-- @int i
-- @string name
-- @string expected
-- @int there how many arguments there were
-- @param x the argument
-- @int[opt=0] further
function M.bad_type(i, name, expected, there, x, further)
  M.bad(i, name, ("%s expected, got %s"):format(expected, i > there and "no value" or type_name(x)),
    1 + (further or 0))
end

--- A string, as which numbers count too.
-- @treturn string
function M.string(i, name, there, x)
  if type(x) == "string" then
    return x
  elseif type(x) == "number" then
    return tostring(x)
  end
  M.bad_type(i, name, "string", there, x, 1) -- no tail call: it counts levels
end

--- An integer that is not negative: numbers, and strings that are numerals.
-- @treturn int
function M.count(i, name, there, x)
  local n = math.tointeger(tonumber(x))
  if not n and tonumber(x) then
    M.bad(i, name, "number has no integer representation", 1)
  elseif not n then
    M.bad_type(i, name, "number", there, x, 1)
  elseif n < 0 then
    M.bad(i, name, "number is negative", 1)
  end
  return n
end

return M
