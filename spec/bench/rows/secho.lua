--- secho: the TCP echo server of the row echo, written with streams, as most programs will write it.

local CONNECTIONS, BYTES, WARM_MS = 64, 512, 300

return function(h)
  local function load(pid, port)
    return h.bin("echo_load", port, pid, CONNECTIONS, BYTES, WARM_MS, h.scaled(1000))
  end
  local function script(name)
    return function() return h.serve(h.script(name, CONNECTIONS, BYTES), load) end
  end
  return {
    title = "TCP echo by streams, 64 connections x 512 B",
    unit = "request",
    contenders = {
      { name = "uring", measure = script "echo_stream_uring" },
      { name = "C", measure = function() return h.serve(h.bin("echo_server", CONNECTIONS, BYTES), load) end },
      { name = "luv", needs = "luv", measure = script "echo_luv" },
      { name = "cqueues", needs = "cqueues", measure = script "echo_cqueues" },
      { name = "operations", measure = script "echo_uring" },
    },
    budgets = {
      { peer = "C", figure = "cpu", at_least = 1.0 },
      { peer = "luv", figure = "cpu", at_least = 1.3 },
      { peer = "cqueues", figure = "cpu", at_least = 1.6 },
    },
  }
end
