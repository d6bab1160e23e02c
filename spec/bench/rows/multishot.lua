--- multishot: the echo server that asks once for all connections, and once a connection for all that comes, beside the
-- one that asks each time.

local CONNECTIONS, BYTES, WARM_MS = 64, 512, 300

return function(h)
  local function load(pid, port)
    return h.bin("echo_load", port, pid, CONNECTIONS, BYTES, WARM_MS, h.scaled(1000))
  end
  local function script(name, how)
    return function() return h.serve(h.script(name, CONNECTIONS, BYTES, how), load) end
  end
  return {
    title = "TCP echo, multishot accept and recv from a pool",
    unit = "request",
    contenders = {
      { name = "uring", measure = script "multishot_uring" },
      { name = "single-shot", measure = script "echo_uring" },
      { name = "as strings", measure = script("multishot_uring", "copy") },
    },
    budgets = {
      { peer = "single-shot", figure = "cpu", at_least = 1.0 },
    },
  }
end
