--- echo: a TCP echo server on loopback. One load generator on the other processor drives each server in turn; the
-- figure is the processor time of the server for a request, read while the load lasts.

local CONNECTIONS, BYTES, WARM_MS = 64, 512, 300

return function(h)
  local function load(pid, port)
    return h.bin("echo_load", port, pid, CONNECTIONS, BYTES, WARM_MS, h.scaled(1000))
  end
  local function script(name, how)
    return function() return h.serve(h.script(name, CONNECTIONS, BYTES, how), load) end
  end
  return {
    title = "TCP echo, 64 connections x 512 B",
    unit = "request",
    contenders = {
      { name = "uring", measure = script "echo_uring" },
      { name = "C", measure = function() return h.serve(h.bin("echo_server", CONNECTIONS, BYTES), load) end },
      { name = "luv", needs = "luv", measure = script "echo_luv" },
      { name = "luv try_write", needs = "luv", measure = script("echo_luv", "try") },
      { name = "cqueues", needs = "cqueues", measure = script "echo_cqueues" },
    },
    budgets = {
      { peer = "C", figure = "cpu", at_least = 1.0 },
      { peer = "luv", figure = "cpu", at_least = 1.3 },
      { peer = "cqueues", figure = "cpu", at_least = 1.6 },
    },
  }
end
