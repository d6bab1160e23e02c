--- Functions that others have taken the place of: what was redefined while it is
-- in use.
--
-- A server keeps the handler that it was given.  Whoever changes programs that
-- run says here what is to be called instead.

local M = {}

-- function → the one in its place
local successors = setmetatable({}, { __mode = "k" })

--- From now on `new` is what `latest(old)` returns.
-- @func old
-- @func new
function M.replace(old, new)
  if old ~= new then
    successors[old] = new
    successors[new] = nil -- one that came back is the latest again
  end
end

--- The function in the place of another: the newest.
-- @func fn
-- @treturn function fn itself if nobody has replaced it
function M.latest(fn)
  while successors[fn] do
    fn = successors[fn]
  end
  return fn
end

return M
