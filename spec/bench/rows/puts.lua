--- puts: short strings written to a file, one a call, beside stock io.

local CALLS = 3000000

return function(h)
  local function script(whose)
    return function() return h.run(h.script("file_write", CALLS, whose), 1) end
  end
  return {
    title = "3 million short writes",
    unit = "calls",
    setup = function() end,
    teardown = function() end,
    contenders = {
      { name = "uring", measure = script "task" },
      { name = "io", measure = script "io" },
      { name = "no task", measure = script "uring" },
    },
    budgets = {
      { peer = "io", figure = "rate", at_least = 1.0 },
    },
  }
end
