local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno = uring.errno
local signals = uring.signals
local HUP, INT, USR1, USR2, TERM = 1, 2, 10, 12, 15

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script([[
    io.stdout:setvbuf "no"
    local uring = require "uring"
    local testkit = require "testkit"
    local self = testkit.getpid()
  ]] .. chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

local self = testkit.getpid()

local function strike(...)
  for _, number in ipairs { ... } do
    assert.is_true(testkit.kill(self, number))
  end
end

describe("signals", function()
  helper.watch(before_each, after_each)

  local before
  before_each(function()
    before = {}
    for _, number in ipairs { HUP, INT, USR1, USR2, TERM } do
      before[number] = testkit.disposition(number)
    end
  end)
  after_each(function()
    for number, disposition in pairs(before) do
      assert.are.equal(disposition, testkit.disposition(number))
    end
  end)

  describe("are waited for", function()
    it("by name, in the order in which they come", function()
      local watched <close> = signals { "INT", "TERM", "USR1" }
      strike(TERM, INT, USR1)
      assert.are.same({ "TERM", 15 }, { watched:wait() })
      assert.are.same({ "INT", 2 }, { watched:wait() })
      assert.are.same({ "USR1", 10 }, { watched:wait() })
    end)

    it("in a loop, which puts everything back", function()
      uring.spawn(function()
        uring.sleep(0.005)
        strike(USR1)
        uring.sleep(0.005)
        strike(USR2)
      end)
      local names = {}
      for name, number in signals { "USR1", "USR2" } do
        assert.are.equal("handled", testkit.disposition(USR1))
        names[#names + 1] = name .. number
        if name == "USR2" then
          break
        end
      end
      assert.are.same({ "USR110", "USR212" }, names)
      assert.are.equal("default", testkit.disposition(USR1))
    end)

    it("in a task, which sleeps meanwhile", function()
      local name
      local task = uring.spawn(function()
        local watched <close> = signals { "USR1" }
        name = watched:wait()
      end)
      uring.sleep(0.01)
      strike(USR1)
      task:await()
      assert.are.equal("USR1", name)
    end)

    it("by number, and with or without SIG", function()
      for _, x in ipairs { "USR1", "SIGUSR1", 10, 10.0 } do
        local watched <close> = signals { x }
        strike(USR1)
        assert.are.same({ "USR1", 10 }, { watched:wait() })
      end
    end)

    it("of the real-time kind, which are counted", function()
      if helper.valgrind then
        return pending "valgrind needs the last of them for itself"
      end
      local watched <close> = signals { "RTMIN", "RTMIN+3", "RTMAX" }
      strike(34, 34, 37, 34, 64)
      local names = {}
      for i = 1, 5 do
        names[i] = watched:wait()
      end
      table.sort(names)
      assert.are.same({ "RTMAX", "RTMIN", "RTMIN", "RTMIN", "RTMIN+3" }, names)
    end)

    it("one by one, by several tasks", function()
      uring.run(function()
        local watched <close> = signals { "USR1", "USR2" }
        local first, second = uring.spawn(watched.wait, watched), uring.spawn(watched.wait, watched)
        uring.sleep(0.005)
        strike(USR1, USR2)
        assert.are.same({ "USR1", "USR2" }, { first:await(), (second:await()) })
      end)
    end)

    it("all of them, by each of several objects", function()
      local outer <close> = signals { "USR1", "USR2" }
      do
        local inner <close> = signals { "USR1" }
        strike(USR1)
        assert.are.equal("USR1", inner:wait())
      end
      strike(USR2, USR1)
      assert.are.equal("USR1", outer:wait())
      assert.are.equal("USR2", outer:wait())
      assert.are.equal("USR1", outer:wait())
    end)

    it("by many objects, but no more than there is room for", function()
      local many = {}
      for i = 1, 64 do
        many[i] = signals { "USR1" }
      end
      assert.matches("signals_spec.lua:%d+: signals: Too many open files$",
        helper.error_of(function() signals { "USR1" } end))
      strike(USR1)
      for i = 64, 1, -1 do
        assert.are.equal("USR1", many[i]:wait())
        many[i]:close()
      end
      signals({ "USR1" }):close()
    end)

    it("on other threads of the process, too", function()
      local watched <close> = signals { "USR1" }
      testkit.in_thread(function() strike(USR1) end)
      assert.are.equal("USR1", watched:wait())
    end)

    it("with none lost when who waits is cancelled at that moment", function()
      local watched <close> = signals { "USR1" }
      uring.run(function()
        for i = 1, helper.times(200) do
          local got
          local task = uring.spawn(function() got = watched:wait() end)
          for _ = 1, i % 4 do
            uring.yield()
          end
          strike(USR1)
          for _ = 1, i // 4 % 4 do
            uring.yield()
          end
          task:cancel()
          pcall(task.await, task)
          assert.are.equal("USR1", got or watched:wait())
        end
      end)
    end)

    it("with a timeout", function()
      local watched <close> = signals { "USR1" }
      assert.are.same({ nil, "timeout", errno.ETIMEDOUT }, { uring.timeout(0.01, watched.wait, watched) })
      strike(USR1)
      assert.are.equal("USR1", watched:wait())
    end)

    it("which is no deadlock and costs nothing", function()
      local watched <close> = signals { "USR1" }
      local used = testkit.cpu()
      uring.run(function()
        uring.spawn(function()
          uring.op.timeout(0.2) -- no timer of the loop
          strike(USR1)
        end)
        assert.are.equal("USR1", watched:wait())
      end)
      assert.is_true(testkit.cpu() - used < (helper.slow and 0.1 or 0.02))
      local out = script [[
        if testkit.fork() == 0 then
          os.execute "sleep 0.2"
          testkit.kill(self, 10)
          testkit.exit(0)
        end
        local used = testkit.cpu()
        for name in uring.signals { "USR1" } do
          print(name, testkit.cpu() - used < 0.1)
          break
        end
      ]]
      assert.are.equal("USR1\ttrue\n", out)
    end)
  end)

  describe("are closed:", function()
    it("who waits is told", function()
      uring.run(function()
        local watched = signals { "USR1" }
        local task = uring.spawn(watched.wait, watched)
        uring.sleep(0.005)
        watched:close()
        watched:close()
        assert.are.same({ nil, "closed", errno.ECANCELED }, { task:await() })
      end)
    end)

    it("a loop ends", function()
      uring.run(function()
        local watched = signals { "USR1" }
        local ended
        local task = uring.spawn(function()
          for _ in watched do -- luacheck: ignore
          end
          for _ in watched do -- luacheck: ignore
          end
          ended = true
        end)
        uring.sleep(0.005)
        watched:close()
        task:await()
        assert.is_true(ended)
      end)
    end)

    it("and are not waited for any more", function()
      local watched = signals { "USR1" }
      watched:close()
      assert.matches("signals_spec.lua:%d+: attempt to use closed signals",
        helper.error_of(function() watched:wait() end))
    end)

    it("when they are dropped", function()
      signals { "USR1" }
      local watched = signals { "USR1" }
      uring.timeout(0.002, watched.wait, watched)
      watched = nil -- luacheck: ignore
      helper.collect()
      uring.sleep(0.005)
      helper.collect()
      assert.are.equal("default", testkit.disposition(USR1))
    end)

    it("in whatever order", function()
      local first, second = signals { "USR1", "USR2" }, signals { "USR1" }
      first:close()
      assert.are.equal("handled", testkit.disposition(USR1))
      assert.are.equal("default", testkit.disposition(USR2))
      strike(USR1)
      assert.are.equal("USR1", second:wait())
      second:close()
      assert.are.equal("default", testkit.disposition(USR1))
    end)

    it("in a task that is cancelled", function()
      local task = uring.spawn(function()
        for _ in signals { "USR1" } do -- luacheck: ignore
        end
      end)
      uring.sleep(0.005)
      task:cancel()
      pcall(task.await, task)
      assert.are.equal("cancelled", task:status())
      assert.are.equal("default", testkit.disposition(USR1))
    end)

    it("and the former disposition is there again", function()
      local out, status = script [[
        testkit.ignore_signal(1)
        local watched = uring.signals { "HUP", "TERM" }
        testkit.kill(self, 1)
        testkit.kill(self, 15)
        print(watched:wait(), watched:wait())
        watched:close()
        print(testkit.disposition(1), testkit.disposition(15))
        testkit.kill(self, 1)
        print "still here"
        testkit.kill(self, 15)
        print "never"
      ]]
      assert.are.equal("HUP\tTERM\t15\nignored\tdefault\nstill here\n", out:gsub("Terminated\n", ""))
      assert.are.equal(143, status)
    end)

    it("unless somebody else has changed it meanwhile", function()
      local out = script [[
        local watched = uring.signals { "USR1" }
        testkit.ignore_signal(10)
        watched:close()
        print(testkit.disposition(10))
        watched = uring.signals { "USR1" }
        testkit.ignore_signal(10)
        local second = uring.signals { "USR1" } -- takes it over once more
        testkit.kill(self, 10)
        print(watched:wait(), second:wait())
        watched:close()
        second:close()
        print(testkit.disposition(10))
      ]]
      assert.are.equal("ignored\nUSR1\tUSR1\t10\nignored\n", out)
    end)

    it("with the Lua state", function()
      local out, status = script [[
        watched = uring.signals { "USR1" }
        uring.spawn(function() for name in watched do print(name) end end)
        uring.sleep(0.005)
        setmetatable({}, { __gc = function() print(testkit.disposition(10)) end })
      ]]
      assert.are.equal("handled\n", out)
      assert.are.equal(0, status)
    end)
  end)

  describe("of the keyboard", function()
    it("interrupt no script while they are watched, and do so again afterwards", function()
      local out, status = script [[
        local watched = uring.signals { "INT" }
        testkit.kill(self, 2)
        uring.sleep(0.01)
        print(watched:wait())
        watched:close()
        testkit.kill(self, 2)
        uring.sleep(1)
        print "never"
      ]]
      assert.matches("^INT\t2\n%S*lua5.4: .*interrupted!", out)
      assert.are.equal(1, status)
    end)
  end)

  describe("in other processes:", function()
    it("a program that is started has them as by default", function()
      local out = script [[
        local watched <close> = uring.signals { "USR1", "TERM" }
        print(os.execute "kill -TERM $$")
        local p = uring.process.spawn { "sh", "-c", "kill -USR1 $$" }
        print(p:wait())
        print(uring.timeout(0.01, watched.wait, watched))
      ]]
      assert.are.equal("nil\tsignal\t15\nnil\tsignal\t10\nnil\ttimeout\t110\n", (out:gsub("Terminated\n", "")))
    end)

    it("a child of fork has them as they were, and tells its parent nothing", function()
      local out = script [[
        local watched <close> = uring.signals { "USR1" }
        local pid = testkit.fork()
        if pid == 0 then
          print(pcall(watched.wait, watched))
          testkit.kill(testkit.getpid(), 10)
          print "never"
        end
        print(testkit.wait(pid))
        print(uring.timeout(0.01, watched.wait, watched))
        testkit.kill(self, 10)
        print(watched:wait())
      ]]
      assert.are.equal("false\tthese signals were watched before the fork: they are the parent's\n"
        .. "138\nnil\ttimeout\t110\nUSR1\t10\n", (out:gsub("%S+%.lua:%d+: ", "")))
    end)

    if not helper.valgrind then
      it("a child of fork may watch for them itself", function()
        local out = script [[
          local watched = uring.signals { "USR1", "USR2" }
          local pid = testkit.fork()
          if pid == 0 then
            uring.close()
            do
              local own <close> = uring.signals { "USR1" }
              print(testkit.disposition(10), testkit.disposition(12))
              testkit.kill(testkit.getpid(), 10)
              print(own:wait())
            end
            print(testkit.disposition(10), testkit.disposition(12))
            watched = nil
            collectgarbage()
            collectgarbage()
            testkit.exit(0)
          end
          print(testkit.wait(pid))
          testkit.kill(self, 12)
          print(watched:wait())
          watched:close()
        ]]
        assert.are.equal("handled\tdefault\nUSR1\t10\ndefault\tdefault\n0\nUSR2\t12\n", out)
      end)
    end
  end)

  describe("are misused:", function()
    local function error_of(list)
      return (helper.error_of(function() signals(list) end):gsub("^%S+signals_spec.lua:%d+: ", ""))
    end

    it("names that are none", function()
      local subject = "bad argument #1 to 'signals'"
      assert.are.equal(subject .. " (table of names expected, got string)", error_of "INT")
      assert.are.equal(subject .. " (table of names expected, got nil)", error_of())
      assert.are.equal(subject .. " (there is no signal in it)", error_of {})
      assert.matches(": unknown signal 'int' %(did you mean 'INT'.*; there are HUP INT QUIT", error_of { "int" })
      assert.matches(": unknown signal 'SIGNAL'.*; there are HUP INT QUIT", error_of { "INT", "SIGNAL" })
      assert.are.equal(subject .. ": there is no signal 32", error_of { 32 })
      assert.are.equal(subject .. ": name or number of a signal expected, got boolean", error_of { true })
      assert.are.equal(subject .. " (unknown option 'once'; it takes names of signals)",
        error_of { "INT", once = true })
      assert.are.equal("default", testkit.disposition(USR1))
    end)

    it("signals that nobody can wait for", function()
      for _, name in ipairs { "KILL", "STOP", "SIGKILL", 9 } do
        assert.matches("^bad argument #1 to 'signals': %u+ cannot be caught$", error_of { "USR1", name })
      end
      for _, name in ipairs { "SEGV", "BUS", "FPE", "ILL" } do
        assert.are.equal(("bad argument #1 to 'signals': %s is a fault of the program itself"):format(name),
          error_of { name })
      end
    end)

    it("with no descriptor left", function()
      local out = script [[
        uring.sleep(uring.signals and 0) -- loads it
        testkit.limit_fds(20)
        while testkit.eventfd(0) >= 0 do end -- luacheck: ignore
        local ok, err = pcall(function() uring.signals { "USR1" } end)
        print(ok, err:match "signals: .*", testkit.disposition(10))
      ]]
      assert.are.equal("false\tsignals: Too many open files\tdefault\n", out)
    end)
  end)

  it("say what they are", function()
    local watched = signals { "TERM", 2 }
    assert.are.equal("signals (INT TERM)", tostring(watched))
    watched:close()
    assert.are.equal("signals (INT TERM, closed)", tostring(watched))
  end)
end)

describe("SIGPIPE", function()
  local function ended(chunk)
    return script([[
      local function attempt(write, ...)
        local n, message, number = write(...)
        print(n, message, number)
      end
    ]] .. chunk)
  end

  it("ends no program that writes to a pipe of ours without a reader", function()
    local out, status = ended [[
      local rd, wr = uring.pipe()
      rd:close()
      attempt(wr.write, wr, "x")
      attempt(uring.op.write, wr:fd(), "x")
      attempt(uring.op.write, wr:fd(), "x", 1, -1, { async = true })
      print(testkit.disposition(13))
    ]]
    assert.are.equal("nil\twrite: Broken pipe\t32\n" .. ("nil\twrite: Broken pipe\t32\n"):rep(2) .. "handled\n", out)
    assert.are.equal(0, status)
  end)

  it("ends none that is writing when the reader leaves", function()
    local out, status = ended [[
      local rd, wr = uring.pipe()
      uring.run(function()
        local task = uring.spawn(function() attempt(wr.write, wr, ("x"):rep(1000000)) end)
        uring.sleep(0.01)
        rd:close()
        task:await()
      end)
    ]]
    assert.are.equal("nil\twrite: Broken pipe\t32\n", out)
    assert.are.equal(0, status)
  end)

  it("ends none that sends to a socket, whatever is the matter with pipes", function()
    local out, status = ended [[
      local a, b = uring.socketpair()
      b:close()
      print(testkit.disposition(13))
      attempt(a.write, a, "x")
      attempt(uring.op.send, a:fd(), "x")
    ]]
    assert.are.equal("default\n" .. ("nil\tsend: Broken pipe\t32\n"):rep(2), out)
    assert.are.equal(0, status)
  end)

  it("is what the program has made of it", function()
    local out = ended [[
      testkit.ignore_signal(13)
      uring.pipe()
      print(testkit.disposition(13))
    ]]
    assert.are.equal("ignored\n", out)
  end)

  it("can be waited for", function()
    local out = script [[
      local rd, wr = uring.pipe()
      rd:close()
      local watched <close> = uring.signals { "PIPE" }
      print(wr:write "x")
      print(watched:wait())
    ]]
    assert.are.equal("nil\twrite: Broken pipe\t32\t0\nPIPE\t13\n", out)
  end)

  it("still ends a stock program at the end of its output", function()
    local out = script [=[
      os.execute "lua5.4 -e 'require [[uring]].sleep(0) while true do print(1) end' | head -n 1"
    ]=]
    assert.are.equal("1\n", out)
  end)
end)
