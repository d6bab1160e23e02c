--- startup: how much longer the interpreter lives that requires uring and completes one operation than one with nothing
-- to do. One program starts both in turn; a round is the median of that.

local TIMES = 21
local CHUNK = [[local uring = require "uring" uring.run(function() assert(uring.op.nop() == 0) end)]]

return function(h)
  local bare

  local function ours()
    local sample, why = h.run(h.bin("startup", TIMES, h.lua, CHUNK), 1)
    if not sample then return nil, why end
    bare = { ops = 1, wall = sample.bare_wall, cpu = sample.bare_cpu }
    return { ops = 1, wall = sample.full_wall, cpu = sample.full_cpu }
  end

  return {
    title = [[require "uring" and one operation]],
    unit = "start",
    figures = { "extra" },
    contenders = {
      { name = "uring", measure = ours },
      { name = "bare lua", measure = function() return bare, "measured together with ours" end },
    },
    budgets = { { peer = "bare lua", figure = "extra", at_most = 3.0 } },
  }
end
