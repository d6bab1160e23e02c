--- nop: what an await costs when the kernel does next to nothing. 256 in flight, against a C loop with the same batch.

local IN_FLIGHT, OPS = 256, 8e6

return function(h)
  local ops = h.scaled(OPS)
  return {
    title = "await of nop, 256 tasks",
    unit = "op",
    contenders = {
      { name = "uring", measure = function() return h.run(h.script("nop_uring", ops, IN_FLIGHT), 1) end },
      { name = "C", measure = function() return h.run(h.bin("nop", ops, IN_FLIGHT), 1) end },
    },
    budgets = { { peer = "C", figure = "rate", at_least = 0.60 } },
  }
end
