--- idle: 10,000 TCP connections that wait, a task each; the figure is the server's resident memory for one of them.

local CONNECTIONS = 10000

return function(h)
  local function load(pid, port) return h.script("idle_load", port, pid, CONNECTIONS) end
  local function script(how)
    return function() return h.serve(h.script("idle_uring", CONNECTIONS, how), load) end
  end
  return {
    title = "10,000 idle connections receiving from one pool",
    unit = "connection",
    figures = { "memory" },
    contenders = {
      { name = "uring", measure = script "pool" },
      { name = "4 KB each", measure = script "buffer" },
    },
    budgets = {
      { peer = "4 KB each", figure = "memory", at_least = 1.5 },
    },
  }
end
