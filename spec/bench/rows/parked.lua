--- parked: 100,000 tasks that sleep, against coroutines that have yielded; the figure is the resident memory of one.

local PARKED = 100000

return function(h)
  local function script(name)
    local command = h.script(name, PARKED)
    return function() return h.run(command, 1) end
  end
  return {
    title = "100,000 parked tasks",
    unit = "task",
    figures = { "memory" },
    contenders = {
      { name = "uring", measure = script "parked_uring" },
      { name = "coroutine", measure = script "parked_coroutine" },
    },
    budgets = { { peer = "coroutine", figure = "memory", at_least = 1 / 1.4 } },
  }
end
