--- first_prompt: from starting the command until its prompt is on the terminal; beside the interpreter's. A round is
-- the median of several starts.

local TIMES = 11

return function(h)
  -- The rows are listed where there is no terminal to be had, too.
  local ok, testkit = pcall(require, "testkit")

  local function start(command, prompt)
    local now = require "uring".now
    local began = now()
    local fd, pid = testkit.terminal("exec env TERM=xterm XDG_STATE_HOME=/dev/null/none " .. command)
    local text = ""
    while not text:find(prompt) do
      text = text .. assert(testkit.read(fd, 5), "it ended")
    end
    local took = now() - began
    testkit.kill(pid, 9)
    testkit.wait(pid)
    testkit.close(fd)
    return took
  end

  local function measure(command, prompt)
    return function()
      if not ok then return nil, "testkit is not built" end
      local list = {}
      for i = 1, TIMES do list[i] = start(command, prompt) end
      return { ops = 1, wall = h.median(list), cpu = 0 }
    end
  end

  return {
    title = "from start to the first prompt",
    unit = "start",
    figures = { "extra" },
    contenders = {
      { name = "uring", measure = measure(h.lua .. " lua/bin/uring", "1> $") },
      { name = "lua", measure = measure(h.lua, "> $") },
    },
    budgets = { { peer = "lua", figure = "extra", at_most = 15 } },
  }
end
