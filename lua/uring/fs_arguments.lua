--- Arguments of functions on paths.

local core = require "uring.core"

local M = {}

--- A path that is an argument.
-- @string name of the function
-- @int n which argument
-- @treturn boolean it has a zero byte, so that there can be nothing by that name
-- @raise what is no string
function M.refuse(name, n, path)
  if type(path) ~= "string" then
    error(("bad argument #%d to '%s' (string expected, got %s)"):format(n, name, type(path)), 3)
  end
  return path:find("\0", 1, true) ~= nil
end

--- What the function returns then: nil, message, EINVAL.
function M.zero_byte(path)
  return nil, path .. ": there is a zero byte in the path", core.errno.EINVAL
end

--- Permissions: an integer, or its octal digits as a string.
-- @string name of the function
-- @int n which argument
-- @param mode
-- @int fallback where there is none
function M.mode(name, n, mode, fallback)
  if mode == nil then
    return fallback
  end
  local number = mode
  if type(mode) == "string" then
    number = mode:find "^[0-7]+$" and tonumber(mode, 8)
  end
  if math.type(number) ~= "integer" or number < 0 or number > 4095 then
    error(("bad argument #%d to '%s' (permissions expected, an integer or octal digits, got %s)"):format(
      n, name, type(mode) == "string" and ("%q"):format(mode) or type(mode)), 3)
  end
  return number
end

return M
