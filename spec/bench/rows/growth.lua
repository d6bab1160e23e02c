--- growth: how the cost of a task grows with their number: CPU time to spawn, sleep 1 to 100 ms and finish, and
-- resident memory while parked. A million is set beside fewer: a ratio of 1 is no growth at all.

local MOST = 1000000
local FEWER = { 100000, 10000, 1000 }

return function(h)
  local function growth(name, count)
    local sleepers = h.script("sleepers_uring", count, math.max(1, math.ceil(20000 * h.seconds / count)))
    local parked = h.script("parked_uring", count)
    return {
      name = name,
      measure = function()
        local sample, why = h.run(sleepers, 1)
        if not sample then return nil, why end
        local memory, reason = h.run(parked, 1)
        if not memory then return nil, reason end
        sample.bytes = memory.bytes / memory.ops * sample.ops
        return sample
      end,
    }
  end
  local contenders = { growth("uring", MOST) }
  for i, count in ipairs(FEWER) do contenders[i + 1] = growth(("%d tasks"):format(count), count) end
  return {
    title = "a million tasks, beside fewer",
    unit = "task",
    figures = { "cpu", "memory" },
    contenders = contenders,
    budgets = {},
  }
end
