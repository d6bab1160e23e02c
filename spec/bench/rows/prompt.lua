--- prompt: the echo server of the row echo, started at the prompt, while keys are typed there; beside the same server
-- in a script. Both under full load on one processor.

local CONNECTIONS, BYTES, WARM_MS = 64, 512, 300

return function(h)
  local function load(pid, port)
    return h.bin("echo_load", port, pid, CONNECTIONS, BYTES, WARM_MS, h.scaled(1000))
  end
  local function at_prompt(how)
    return function() return h.serve(h.script("prompt_uring", CONNECTIONS, BYTES, how), load) end
  end
  local function in_script() return h.serve(h.script("echo_uring", CONNECTIONS, BYTES), load) end
  return {
    title = "echo server started at the prompt, keys typed meanwhile",
    unit = "request",
    figures = { "cpu", "rate" },
    contenders = {
      { name = "prompt, keys", measure = at_prompt "keys" },
      { name = "script", measure = in_script },
      { name = "prompt, idle", measure = at_prompt "idle" },
    },
    budgets = { { peer = "script", figure = "cpu", at_least = 0.95 } },
  }
end
