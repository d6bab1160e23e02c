-- The moments at which specs do things that a seed chooses.

local uring = require "uring"

local random = math.random

local M = {}

--- Lets some time go by: nothing, turns, or up to so many seconds.
-- @number[opt=0.0005] longest
function M.wait(longest)
  local dice = random(4)
  if dice == 1 then
    for _ = 1, random(4) do uring.yield() end
  elseif dice == 2 then
    uring.sleep(random() * (longest or 0.0005))
  elseif dice == 3 then
    uring.op.nop()
  end
end

return M
