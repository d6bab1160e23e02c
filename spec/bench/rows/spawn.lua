--- spawn: what a task costs that does nothing: spawn and await, one after the other, against a bare coroutine that is
-- created and resumed.

local OPS = 1e6

return function(h)
  local ops = h.scaled(OPS)
  local function script(name)
    return function() return h.run(h.script(name, ops), 1) end
  end
  return {
    title = "spawn and await of an empty task",
    unit = "task",
    contenders = {
      { name = "uring", measure = script "spawn_uring" },
      { name = "coroutine", measure = script "spawn_coroutine" },
    },
    budgets = { { peer = "coroutine", figure = "cpu", at_least = 0.25 } },
  }
end
