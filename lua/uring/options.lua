--- Tables of options: an unknown name or a wrong type raises, and the message
-- names what is known.

local core = require "uring.core"

local M = {}

local function sorted_names(known)
  local names = {}
  for name in pairs(known) do
    if type(name) == "string" then -- [1] is no option
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

-- Is the value of a type, or of one of several: "boolean|table"?
local function is_of(value, expected)
  local kind, number = type(value), math.type(value)
  if kind == expected or number == expected then
    return true
  end
  for one in expected:gmatch "[^|]+" do
    if kind == one or number == one then
      return true
    end
  end
  return false
end

--- Checks a table of options.
-- @string subject what the options are of, for messages
-- @tab options what the caller gave
-- @tab known option name → type name, or several: "boolean|table"
-- @int[opt=3] level whom errors blame, as of `error`
-- @raise unknown name, wrong type
-- @treturn table the options
function M.check(subject, options, known, level)
  level = level or 3
  for name, value in pairs(options) do
    local expected = known[name]
    if expected == nil then
      local names = sorted_names(known)
      local near = type(name) == "string" and core.near(name, names) or ""
      error(("unknown option '%s' of %s%s; it takes %s"):format(
        tostring(name), subject, near, table.concat(names, " ")), level)
    elseif not is_of(value, expected) then
      error(("option '%s' of %s: %s expected, got %s"):format(
        name, subject, (expected:gsub("|", " or ")), type(value)), level)
    end
  end
  return options
end

--- Checks that an option, if it is given, is not negative (and not NaN).
-- @raise otherwise
function M.check_not_negative(subject, options, name)
  local value = options[name]
  if value and (value < 0 or value ~= value) then
    error(("option '%s' of %s is negative"):format(name, subject), 3)
  end
end

return M
