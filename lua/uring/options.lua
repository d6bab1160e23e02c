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

--- Checks a table of options.
-- @string subject what the options are of, for messages
-- @tab options what the caller gave
-- @tab known option name → type name
-- @raise unknown name, wrong type
-- @treturn table the options
function M.check(subject, options, known)
  for name, value in pairs(options) do
    local expected = known[name]
    if expected == nil then
      local names = sorted_names(known)
      local near = type(name) == "string" and core.near(name, names) or ""
      error(("unknown option '%s' of %s%s; it takes %s"):format(
        tostring(name), subject, near, table.concat(names, " ")), 3)
    elseif type(value) ~= expected and math.type(value) ~= expected then
      error(("option '%s' of %s: %s expected, got %s"):format(
        name, subject, expected, type(value)), 3)
    end
  end
  return options
end

return M
