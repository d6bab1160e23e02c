--- channel: a value handed from one task to another, against a bare coroutine that is resumed and yields.

local OPS = 3e6

return function(h)
  local ops = h.scaled(OPS)
  local function script(name, ...)
    local command = h.script(name, ops, ...)
    return function() return h.run(command, 1) end
  end
  return {
    title = "send and receive on an unbuffered channel between two tasks",
    unit = "value",
    contenders = {
      { name = "uring", measure = script("channel_uring", 0) },
      { name = "resume+yield", measure = script "channel_coroutine" },
      { name = "64 buffered", measure = script("channel_uring", 64) },
    },
    budgets = { { peer = "resume+yield", figure = "cpu", at_least = 1 / 7.3 } },
  }
end
