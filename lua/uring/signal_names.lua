--- Signals, by name and by number.

local core = require "uring.core"

local names = core.signal_names

local M = {}

local function known()
  local list = {}
  for name, number in pairs(names) do
    if type(name) == "string" and not name:find("+", 1, true) then
      list[#list + 1] = name
      list[name] = number
    end
  end
  table.sort(list, function(a, b) return list[a] < list[b] end)
  return list
end

--- The number of a signal.
-- @string subject what it is for, for messages: "bad argument #1 to 'kill'"
-- @tparam string|int x "TERM", "SIGTERM", "RTMIN+3" or a number
-- @int level of the caller to blame, as of `error`
-- @treturn int
-- @raise anything else, naming what is known
function M.number(subject, x, level)
  local number
  level = level + 1
  if type(x) == "string" then
    number = names[x:match "^SIG(.+)" or x]
    if not number then
      local list = known()
      error(("%s: unknown signal '%s'%s; there are %s"):format(subject, x,
        core.near((x:upper():gsub("^SIG", "")), list), table.concat(list, " ")), level)
    end
    return number
  end
  number = math.tointeger(x)
  if type(x) ~= "number" or not number then
    error(("%s: name or number of a signal expected, got %s"):format(subject,
      type(x) == "number" and tostring(x) or type(x)), level)
  elseif not names[number] then
    error(("%s: there is no signal %d"):format(subject, number), level)
  end
  return number
end

--- The name of a signal, or its number where it has none.
-- @int number
-- @treturn string
function M.name(number)
  return names[number] or tostring(number)
end

return M
