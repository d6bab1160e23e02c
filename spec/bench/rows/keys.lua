--- keys: from a key to its echo at the prompt, while a server that was started there is under full load on the same
-- processor; beside an idle prompt's. Medians of all keys of a run.

local CONNECTIONS, BYTES, WARM_MS = 64, 512, 300

return function(h)
  local path = os.tmpname()

  local function median()
    local list = {}
    for line in io.lines(path) do list[#list + 1] = tonumber(line) end
    return { ops = 1, wall = h.median(list) / 1e3, cpu = 0 }
  end

  local function under_load(pid, port)
    return h.bin("echo_load", port, pid, CONNECTIONS, BYTES, WARM_MS, h.scaled(1000))
  end

  -- Clients that come and do nothing.
  local function idle(_, port)
    return h.script("idle_clients", port, h.scaled(1000))
  end

  local function measure(load, connections)
    return function()
      local sample, why = h.serve(h.script("prompt_uring", connections, BYTES, "keys", path), load)
      if not sample then return nil, why end
      return median()
    end
  end

  return {
    title = "from a key to its echo",
    unit = "key",
    figures = { "extra" },
    contenders = {
      { name = "under full load", measure = measure(under_load, CONNECTIONS) },
      { name = "idle", measure = measure(idle, 1) },
    },
    budgets = { { peer = "idle", figure = "extra", at_most = 10 } },
  }
end
