--- sleepers: 100,000 tasks that sleep at once, from 1 to 100 ms, created and finished: against luv's timers, which are
-- bare callbacks, and cqueues' coroutines. The wall time cannot be less than the longest sleep. The CPU time can, but
-- not less than that of as many coroutines without anything that would wake them.

local SLEEPERS, TIMES = 100000, 3

return function(h)
  local function script(name)
    local command = h.script(name, SLEEPERS, h.scaled(TIMES))
    return function() return h.run(command, 1) end
  end
  return {
    title = "100,000 tasks sleeping 1 to 100 ms at once",
    unit = "sleep",
    contenders = {
      { name = "uring", measure = script "sleepers_uring" },
      { name = "luv", needs = "luv", measure = script "sleepers_luv" },
      { name = "cqueues", needs = "cqueues", measure = script "sleepers_cqueues" },
      { name = "coroutine", measure = script "sleepers_coroutine" },
    },
    budgets = {
      { peer = "luv", figure = "rate", at_least = 1.0 },
      { peer = "luv", figure = "cpu", at_least = 1.0 },
      { peer = "cqueues", figure = "rate", at_least = 5.0 },
      { peer = "cqueues", figure = "cpu", at_least = 5.0 },
    },
  }
end
