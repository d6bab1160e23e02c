local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno = uring.errno
local run = uring.process.run
local pack = table.pack

local function shell(text, options)
  options = options or {}
  options[1], options[2], options[3] = "sh", "-c", text
  return run(options)
end

if not helper.can_spawn() then
  describe("running a command", function()
    it("is spawned", function() pending "this valgrind knows no pidfd" end)
  end)
  return
end

describe("running a command", function()
  after_each(function()
    helper.cleanup()
    helper.collect()
    helper.eventually(function() return not testkit.children() end, "there is a child left")
  end)
  helper.watch(before_each, after_each)

  it("gives what it wrote and how it ended", function()
    assert.are.same({ ok = true, how = "exit", code = 0, stdout = "out\n", stderr = "err\n" },
      shell "echo out; echo err >&2")
    assert.are.same({ ok = nil, how = "exit", code = 3, stdout = "", stderr = "" }, shell "exit 3")
    assert.are.same({ ok = nil, how = "signal", code = 9, stdout = "before\n", stderr = "" },
      shell "echo before; kill -KILL $$")
  end)

  it("works in a task and in many", function()
    local results = uring.run(function()
      local words = {}
      for i = 1, helper.times(50) do
        words[i] = i
      end
      return uring.map(words, function(i)
        return run { "echo", i }.stdout
      end, { limit = 16 })
    end)
    for i, text in ipairs(results) do
      assert.are.equal(i .. "\n", text)
    end
  end)

  it("gives it its input", function()
    assert.are.equal("text", run { "cat", input = "text" }.stdout)
    assert.are.equal("", run { "cat", input = "" }.stdout)
    assert.are.equal("", run { "cat" }.stdout)
    local big = ("0123456789abcdef"):rep(helper.times(1 << 17))
    assert.are.equal(big, run { "cat", input = big }.stdout)
  end)

  it("deadlocks with none that fills both its pipes and reads its input", function()
    local n = helper.slow and 200000 or 2000000
    local result = shell(("head -c %d /dev/zero; head -c %d /dev/zero >&2; wc -c >&2"):format(n, n),
      { input = ("x"):rep(n), timeout = 30 })
    assert.are.equal(n, #result.stdout)
    assert.are.equal(tostring(n), result.stderr:sub(n + 1):match "%d+")
  end)

  it("does not mind that it does not want its input", function()
    local result = shell("exec <&-; echo done", { input = ("x"):rep(1000000) })
    assert.are.same({ ok = true, how = "exit", code = 0, stdout = "done\n", stderr = "" }, result)
  end)

  it("takes the options of spawn", function()
    local path = helper.tmpname "from a file"
    assert.are.same({ ok = true, how = "exit", code = 0, stdout = "from a file" },
      run { "cat", stdin = { path }, stderr = "null" })
    assert.are.equal("out\nerr\n", shell("echo out; echo err >&2", { stderr = "stdout" }).stdout)
    assert.are.equal("/usr x\n", shell("echo $(pwd) $A", { cwd = "/usr", setenv = { A = "x" } }).stdout)
    assert.are.same({ ok = true, how = "exit", code = 0 }, run { "true", stdout = "null", stderr = "null" })
  end)

  it("runs it in a group of its own unless told not to", function()
    local function group_of(options)
      local pid, group = shell("cut -d' ' -f1,5 /proc/$$/stat", options).stdout:match "(%d+) (%d+)"
      return pid == group
    end
    assert.is_true(group_of())
    assert.is_false(group_of { group = false })
    assert.is_true(group_of { session = true })
  end)

  it("fails as spawn does", function()
    if helper.valgrind then
      return pending "valgrind does not tell what exec fails with"
    end
    assert.are.same({ n = 3, nil, "no-such-program: No such file or directory", errno.ENOENT },
      pack(run { "no-such-program", input = "text" }))
  end)

  describe("for at most so long", function()
    it("ends it and what it has started", function()
      local began = uring.now()
      local _, message, number, rest = shell("echo first; sleep 100 & sleep 100", { timeout = 0.1 })
      assert.are.same({ "sh: timeout", errno.ETIMEDOUT }, { message, number })
      assert.are.same({ stdout = "first\n", stderr = "" }, rest)
      assert.is_true(uring.now() - began < (helper.slow and 10 or 1))
    end)

    it("ends what it has left behind, too, with its output", function()
      local _, message, _, rest = shell("sleep 100 & echo $!; exit 0", { timeout = 0.1 })
      assert.are.equal("sh: timeout", message)
      local pid = tonumber(rest.stdout)
      helper.eventually(function()
        local file = io.open(("/proc/%d/stat"):format(pid))
        local state = file and file:read "a":match "%) (%a)"
        if file then
          file:close()
        end
        return state == nil or state == "Z"
      end)
    end)

    it("kills what does not want to end", function()
      local began = uring.now()
      local _, message = shell("trap '' TERM; while :; do sleep 0.01; done", { timeout = 0.05, grace = 0.05 })
      assert.are.equal("sh: timeout", message)
      assert.is_true(uring.now() - began < (helper.slow and 10 or 1))
    end)

    it("is no obstacle to one that is faster", function()
      assert.is_true(run { "true", timeout = 30 }.ok)
      local _, message = run { "sleep", 100, timeout = 0 }
      assert.are.equal("sleep: timeout", message)
    end)
  end)

  describe("with so much output at most", function()
    it("ends it", function()
      local _, message, number, rest = run { "yes", max = 1000 }
      assert.are.same({ "yes: more than 1000 bytes of output", errno.EMSGSIZE }, { message, number })
      assert.are.equal(("y\n"):rep(500), rest.stdout)
      _, message, _, rest = shell("yes >&2", { max = 0 })
      assert.are.equal("sh: more than 0 bytes of output", message)
      assert.are.same({ stdout = "", stderr = "" }, rest)
    end)

    it("takes so much of each", function()
      local result = shell("printf 12345; printf 67890 >&2", { max = 5 })
      assert.are.same({ "12345", "67890" }, { result.stdout, result.stderr })
      assert.is_nil((shell("printf 123456", { max = 5 })))
    end)
  end)

  it("that is cancelled leaves nothing of it, at any step", function()
    for steps = 0, 30, helper.slow and 10 or 1 do
      local task = uring.spawn(run, { "sh", "-c", "cat; sleep 100", input = "text", timeout = 50 })
      for _ = 1, steps do
        uring.yield()
      end
      task:cancel()
      pcall(task.await, task)
      assert.are.equal("cancelled", task:status())
      assert.is_false((testkit.children()))
    end
  end)

  it("inside of a timeout ends it", function()
    assert.are.same({ nil, "timeout", errno.ETIMEDOUT }, { uring.timeout(0.05, run, { "sleep", "100" }) })
    assert.is_false((testkit.children()))
  end)

  it("that is interrupted from the keyboard leaves nothing of it", function()
    local output = helper.script([[
      local uring = require "uring"
      local testkit = require "testkit"
      local script, killer = testkit.getpid(), testkit.fork()
      if killer == 0 then
        os.execute "sleep 0.2"
        testkit.kill(script, 2)
        testkit.exit(0)
      end
      print(pcall(uring.process.run, { "sh", "-c", "sleep 100 & sleep 100" }))
      testkit.wait(killer)
      print(testkit.children())
    ]], "timeout --foreground -k 1 30")
    assert.are.equal("false\tinterrupted!\nfalse\n", (output:gsub("%S+%.lua:%d+: ", "")))
  end)

  it("is misused", function()
    local function error_of(options)
      return (helper.error_of(run, options):gsub("^%S+:%d+: ", ""))
    end
    assert.are.equal("bad argument #1 to 'run' (there is no command at [1])", error_of {})
    assert.matches("^unknown option 'inptu' of run %(did you mean 'input'%?%); it takes cwd env fds grace group input "
      .. "max session setenv stderr stdin stdout timeout$", error_of { "a", inptu = "" })
    assert.are.equal("options 'input' and 'stdin' of run exclude each other",
      error_of { "a", input = "", stdin = "null" })
    assert.are.equal("option 'stdin' of run: nobody could write to that pipe; give 'input'",
      error_of { "a", stdin = "pipe" })
    assert.are.equal("option 'max' of run is negative", error_of { "a", max = -1 })
    assert.are.equal("option 'max' of run: integer expected, got number", error_of { "a", max = 1.5 })
    assert.are.equal("option 'timeout' of run: -1 is not from 0 to inf seconds", error_of { "a", timeout = -1 })
    assert.are.equal("option 'input' of run: string expected, got number", error_of { "a", input = 1 })
    local here = debug.getinfo(1, "l").currentline
    local _, err = pcall(function()
      run { "a", nope = 1 }
    end)
    assert.matches(("process_run_spec.lua:%d: unknown option"):format(here + 2), err)
  end)
end)
