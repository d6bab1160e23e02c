--- sidle: 10,000 TCP connections of `serve` that wait, a stream and a task each; the figure is the server's resident
-- memory for one of them. The peer has a task each, too, and receives from one pool by operations.

local CONNECTIONS = 10000

return function(h)
  local function load(pid, port) return h.script("idle_load", port, pid, CONNECTIONS) end
  local function measure(command) return function() return h.serve(command, load) end end
  return {
    title = "10,000 idle connections as streams",
    unit = "connection",
    figures = { "memory" },
    contenders = {
      { name = "uring", measure = measure(h.script("idle_stream_uring", CONNECTIONS)) },
      { name = "operations", measure = measure(h.script("idle_uring", CONNECTIONS, "pool")) },
      { name = "4 KB each", measure = measure(h.script("idle_uring", CONNECTIONS, "buffer")) },
    },
    budgets = {},
  }
end
