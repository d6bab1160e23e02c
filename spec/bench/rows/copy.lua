--- copy: a tree of 20,000 small files, in memory where there is a file system for it. Both are whole processes, with
-- their start-up; what either has written is compared with the original once.

local DIRECTORIES, FILES = 400, 50 -- of each

-- Files of 2 bytes to 7 KB.
local MAKE = [[
  local top = ...
  local text = ("0123456789abcdef"):rep(64)
  for d = 1, %d do
    local path = ("%%s/d%%02d/s%%03d"):format(top, d %% 20, d)
    assert(os.execute("mkdir -p " .. path))
    for i = 1, %d do
      local file = assert(io.open(path .. "/file" .. i, "w"))
      file:write(text:rep(i %% 8), i, "\n")
      file:close()
    end
  end
]]

return function(h)
  local top
  local compared = {}

  -- The sample of a command that copies `from` to `to`, by the shell's own clock.
  local function timed(name, command)
    local from, to = top .. "/from", top .. "/to"
    os.execute("rm -rf " .. to)
    local shell = "TIMEFORMAT='wall=%%R user=%%U system=%%S'; time %s %s %s"
    local sample, text = h.run("bash -c " .. ("%q"):format(shell:format(command, from, to)))
    if not sample then return nil, text end
    if not compared[name] then
      local difference = h.ask(("diff -r %s %s 2>&1"):format(from, to))
      if difference then return nil, difference end
      compared[name] = true
    end
    return { ops = DIRECTORIES * FILES, wall = sample.wall, cpu = sample.user + sample.system }
  end

  return {
    title = "a tree of 20,000 small files",
    unit = "file",
    setup = function()
      top = h.ask "mktemp -d -p /dev/shm" or h.ask "mktemp -d"
      assert(load(MAKE:format(DIRECTORIES, FILES)))(top .. "/from")
    end,
    teardown = function() os.execute("rm -rf " .. top) end,
    contenders = {
      { name = "uring", measure = function() return timed("uring", h.script "copy_uring") end },
      { name = "cp -r", needs = "!cp", measure = function() return timed("cp", "cp -r") end },
    },
    budgets = {
      { peer = "cp -r", figure = "rate", at_least = 1.0 },
    },
  }
end
