--- What stands for a descriptor: its number, or an object that has one.

local M = {}

--- The number of a descriptor.
-- @string subject the function it was given to, for messages
-- @tparam int|table|userdata x a number, or an object with `fd`
-- @treturn int
-- @raise anything else; a closed object
function M.number(subject, x)
  if math.type(x) == "integer" and x >= 0 then
    return x
  end
  local kind = type(x)
  local meta = getmetatable(x)
  if kind == "table" or kind == "userdata" and type(meta) == "table" and meta.__index then
    if type(x.fd) == "function" then
      return x:fd()
    end
  end
  error(("bad argument #1 to '%s' (descriptor expected, got %s)"):format(subject,
    kind == "number" and tostring(x) or kind), 3)
end

return M
