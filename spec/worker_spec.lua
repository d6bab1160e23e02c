local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local testkit, errno = helper.testkit, uring.errno
local nap, threads = core.nap, core.threads

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script("local uring, core, testkit = require 'uring', require 'uring.core', require 'testkit'\n"
    .. chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

-- A child keeps the memory of the parent's jobs; where threads are refused the
-- check for leaks has none either.
local FORGIVING = "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0"

describe("jobs in threads", function()
  helper.watch(before_each, after_each)

  local function all_back()
    helper.eventually(function() return uring.stats().jobs == 0 end, "a job never came back")
  end

  it("suspend the task that awaits one, and no other", function()
    uring.run(function()
      local ticks = 0
      local ticker = uring.spawn(function()
        while true do
          uring.sleep(0.001)
          ticks = ticks + 1
        end
      end)
      assert.is_true(nap(0.05))
      ticker:cancel()
      assert.is_true(ticks > 5)
    end)
  end)

  it("are awaited by the main chunk, too, which turns the loop", function()
    local done = false
    local task = uring.spawn(function() done = true end)
    assert.is_true(nap(0.01))
    assert.is_true(done)
    task:await()
    assert.are.equal(0, uring.stats().jobs)
  end)

  it("run side by side, a bounded number of them", function()
    uring.run(function()
      local tasks, began = {}, uring.now()
      for i = 1, 64 do
        tasks[i] = uring.spawn(nap, 0.02)
      end
      uring.yield()
      assert.are.equal(64, uring.stats().jobs)
      assert.are.equal(16, threads())
      for i = 1, 64 do
        assert.is_true(tasks[i]:await())
      end
      local took = uring.now() - began
      assert.is_true(took >= 0.08 and (helper.slow or took < 0.6), tostring(took))
    end)
    assert.are.equal(0, uring.stats().jobs)
  end)

  it("come back by the thousand, whichever way they are awaited", function()
    uring.run(function()
      local n = 0
      uring.scope(function(scope)
        for _ = 1, 50 do
          scope:spawn(function()
            for _ = 1, helper.times(100) do
              assert(nap(0))
              n = n + 1
            end
          end)
        end
      end)
      assert.are.equal(50 * helper.times(100), n)
    end)
  end)

  it("hold no descriptor while there is none", function()
    local before = testkit.fds()
    uring.run(function()
      local task = uring.spawn(nap, 0.02)
      uring.yield()
      assert.are.equal(before + 1, testkit.fds())
      local other = uring.spawn(nap, 0.01)
      uring.yield()
      assert.are.equal(before + 1, testkit.fds())
      task:await()
      other:await()
      assert.are.equal(before, testkit.fds())
    end)
  end)

  it("are no deadlock, however long they take", function()
    uring.run(function()
      local group = uring.sync.waitgroup(1)
      uring.spawn(function()
        nap(0.05)
        group:done()
      end)
      group:wait()
    end)
  end)

  it("are a deadlock no longer once the last is back", function()
    local err = helper.error_of(uring.run, function()
      nap(0.001)
      uring.sync.waitgroup(1):wait()
    end)
    assert.is_truthy(err:find("deadlock", 1, true), err)
    uring.close()
  end)

  describe("that nobody awaits any more", function()
    it("never run if no thread has begun them", function()
      uring.run(function()
        local busy, late = {}, {}
        for i = 1, 16 do
          busy[i] = uring.spawn(nap, 0.03)
        end
        uring.yield()
        for i = 1, 20 do
          late[i] = uring.spawn(nap, 60)
        end
        uring.yield()
        assert.are.equal(36, uring.stats().jobs)
        for i = 20, 1, -1 do
          late[i]:cancel()
        end
        for i = 1, 20 do
          assert.are.equal(uring.cancelled, select(2, pcall(late[i].await, late[i])))
        end
        assert.are.equal(16, uring.stats().jobs)
        for i = 1, 16 do
          assert.is_true(busy[i]:await())
        end
      end)
      assert.are.equal(0, uring.stats().jobs)
    end)

    it("are left alone if one has, and the task unwinds at once", function()
      uring.run(function()
        local began = uring.now()
        local closed = false
        local task = uring.spawn(function()
          local _guard <close> = setmetatable({}, { __close = function() closed = true end })
          nap(0.2)
        end)
        uring.sleep(0.01)
        task:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
        assert.is_true(closed)
        assert.is_true(uring.now() - began < 0.15)
        assert.are.equal(1, uring.stats().jobs)
      end)
      all_back()
    end)

    it("are told to stop, and waited for, if they change what others see", function()
      uring.run(function()
        local began = uring.now()
        local task = uring.spawn(nap, 60, true)
        uring.sleep(0.01)
        task:cancel()
        task:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
        assert.are.equal(0, uring.stats().jobs)
        assert.is_true(uring.now() - began < 10)
      end)
    end)

    it("wait for the end of a shield", function()
      uring.run(function()
        local got
        local task = uring.spawn(function()
          got = uring.shield(nap, 0.03)
          nap(60)
        end)
        uring.sleep(0.005)
        task:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
        assert.is_true(got)
      end)
    end)

    it("are collected with the coroutine that the program closed", function()
      uring.run(function()
        for _, finishes in ipairs { false, true } do
          local co = uring.coroutine.create(function() nap(0.05, finishes) end)
          local task = uring.spawn(uring.coroutine.resume, co)
          uring.sleep(0.005)
          task:cancel()
          pcall(task.await, task)
          uring.coroutine.close(co)
        end
      end)
      helper.collect()
      all_back()
    end)

    it("hand their result out if they were faster", function()
      uring.run(function()
        local result
        local task = uring.spawn(function()
          result = nap(0.01)
          uring.sleep(1)
        end)
        uring.yield()
        os.execute "sleep 0.05" -- it is done, and nobody has turned the loop
        uring.yield()
        task:cancel()
        pcall(task.await, task)
        assert.is_true(result)
      end)
    end)

    it("survive cancellation at every moment", function()
      for i = 0, 40 do
        uring.run(function()
          local tasks = {}
          for n = 1, 24 do
            tasks[n] = uring.spawn(nap, 0.001 * (n % 3), n % 2 == 0)
          end
          for _ = 1, i % 5 do
            uring.yield()
          end
          uring.sleep(i * 0.0001)
          for n = 24, 1, -1 do
            tasks[n]:cancel()
            if n % 7 == 0 then
              collectgarbage()
            end
          end
          for n = 1, 24 do
            pcall(tasks[n].await, tasks[n])
          end
        end)
      end
      all_back()
    end)
  end)

  it("come back through a new ring when the default ring was closed", function()
    local task = uring.spawn(nap, 0.02)
    uring.yield()
    uring.sleep(0.001)
    uring.close()
    assert.are.equal("ended", task:status() == "cancelled" and "ended" or task:status())
    all_back()
    assert.is_true(nap(0.001))
  end)

  it("go on when the ring's operations are cancelled behind their back", function()
    uring.run(function()
      local task = uring.spawn(nap, 0.05)
      uring.sleep(0.005)
      local hit = uring.op.raw { opcode = 14, fd = -1, rw_flags = 1 | 4 } -- ASYNC_CANCEL: ALL | ANY
      assert.is_true(helper.valgrind or hit >= 1)
      assert.is_true(task:await())
    end)
  end)

  it("do not hold up what is drained", function()
    for _, wait in ipairs { 0, 0.005 } do
      uring.run(function()
        local task = uring.spawn(nap, 0.4)
        uring.sleep(wait)
        local began = uring.now()
        assert.are.equal(0, uring.op.nop { drain = true })
        assert.are.equal(0, uring.op.nop())
        assert.is_true(uring.now() - began < 0.2)
        task:cancel()
      end)
    end
    local task = uring.spawn(nap, 0.1)
    uring.sleep(0.002)
    local before, drained = uring.prepare("timeout", 0.01), uring.prepare("nop", { drain = true })
    assert.are.equal(0, drained:await())
    assert.are.equal("done", before:status())
    assert.is_true(task:await())
    all_back()
  end)

  it("work while operations are being linked", function()
    local ring = uring.ring and require "uring.core".default()
    local one = ring:prepare("nop", { link = true })
    local task = uring.spawn(nap, 0.005)
    local two = ring:prepare("nop")
    assert.are.equal(0, one:await())
    assert.are.equal(0, two:await())
    assert.is_true(task:await())
  end)

  it("wake a loop that is not ours", function()
    local ring = core.default()
    local task = uring.spawn(nap, 0.02)
    local fd = ring:fd()
    for _ = 1, 200 do
      local next_step = ring:step(0)
      if task:status() == "done" or task:status() == "ended" or uring.stats().jobs == 0 then
        break
      end
      testkit.poll(fd, math.min(next_step or 1, 1))
    end
    assert.is_true(task:await())
    uring.close()
  end)

  it("are the parent's alone after a fork", function()
    local output, status = script [[
      local task = uring.spawn(core.nap, 0.1)
      uring.sleep(0.01)
      local pid = testkit.fork()
      if pid == 0 then
        local ok = core.threads() == 0
        uring.close()
        ok = ok and uring.stats().jobs == 0 and core.nap(0.001) == true and core.threads() == 1
        testkit.exit(ok and 7 or 8)
      end
      print(testkit.wait(pid), task:await(), uring.stats().jobs)
    ]]
    assert.are.equal("7\ttrue\t0\n", output)
    assert.are.equal(0, status)
  end)

  it("are the parent's when a child just ends", function()
    local output, status = script([[
      uring.spawn(core.nap, 0.05)
      core.nap(0.001)
      local pid = testkit.fork()
      if pid > 0 then
        io.write(testkit.wait(pid), " ")
        core.nap(0.06)
      else
        os.exit(true, true)
      end
      print(uring.stats().jobs)
    ]], FORGIVING)
    assert.are.equal("0 0\n", output)
    assert.are.equal(0, status)
  end)

  describe("at the end of the state", function()
    it("are not waited for, if nothing they do is seen", function()
      local before = uring.now()
      local output, status = script [[
        for _ = 1, 20 do uring.spawn(core.nap, 5) end
        core.nap(0.01)
        print(core.threads(), uring.stats().jobs)
        os.exit(true, true)
      ]]
      assert.are.equal("16\t20\n", output)
      assert.are.equal(0, status)
      assert.is_true(uring.now() - before < (helper.slow and 5 or 2.5))
    end)

    it("run on without the Lua state, and the module stays", function()
      local output, status = helper.script [[
        local testkit = require "testkit"
        local chunk = 'local core = require "uring.core" '
          .. 'require "uring".spawn(core.nap, 0.4) core.nap(0.01) print(core.threads())'
        local maps = function() return io.open("/proc/self/maps"):read "a":find("uring/core.so", 1, true) ~= nil end
        print(maps())
        testkit.in_state(chunk) -- 0.2 s are waited for, and 0.2 s are left
        print(maps())
        os.execute "sleep 0.4"
        testkit.in_state(chunk:gsub("0.4", "0"))
      ]]
      assert.are.equal("false\n2\ntrue\n", (output:gsub("[12]\n$", "")))
      assert.are.equal(0, status)
    end)

    it("are waited for, and told to stop, if others see what they do", function()
      local before = uring.now()
      local _, status = script [[
        for _ = 1, 20 do uring.spawn(core.nap, 60, true) end
        core.nap(0.01)
      ]]
      assert.are.equal(0, status)
      assert.is_true(uring.now() - before < 8)
    end)
  end)

  describe("where the system refuses", function()
    it("threads: fail with EAGAIN", function()
      local output, status = script([[
        testkit.refuse_threads()
        uring.run(function()
          print(core.nap(0.01))
          print(uring.stats().jobs, uring.stats().in_flight, core.threads())
        end)
        print(core.nap(0.01))
      ]], FORGIVING)
      local failure = ("nil\tnap: Resource temporarily unavailable\t%d\n"):format(errno.EAGAIN)
      assert.are.equal(failure .. "0\t0\t0\n" .. failure, output)
      assert.are.equal(0, status)
    end)

    it("more threads: the one that is there does them all", function()
      local output, status = script([[
        core.nap(0)
        testkit.refuse_threads()
        uring.run(function()
          local n = 0
          for _ = 1, 20 do
            uring.spawn(function()
              assert(core.nap(0.001))
              n = n + 1
            end)
          end
          uring.sleep(0.001)
          while n < 20 do uring.sleep(0.001) end
          print(n, core.threads())
        end)
      ]], FORGIVING)
      assert.are.equal("20\t1\n", output)
      assert.are.equal(0, status)
    end)

    it("a descriptor: the loop looks after them by itself", function()
      local output, status = script [[
        uring.sleep(0)
        testkit.spare_fds(0)
        uring.run(function()
          local tasks = {}
          for i = 1, 20 do tasks[i] = uring.spawn(core.nap, 0.002) end
          for i = 1, 20 do assert(tasks[i]:await()) end
        end)
        print(core.nap(0.01), uring.stats().jobs)
      ]]
      assert.are.equal("true\t0\n", output)
      assert.are.equal(0, status)
    end)
  end)

  it("leave signals to the thread that runs Lua", function()
    local output = script [[
      local naps = {}
      for i = 1, 16 do naps[i] = uring.spawn(core.nap, 0.1) end
      uring.sleep(0.01)
      for line in io.lines "/proc/self/status" do
        if line:find "^SigBlk" then
          print(line:match "(%x+)$" == ("0"):rep(16) and "open" or "blocked")
        end
      end
      local p = io.popen "grep -h SigBlk /proc/$PPID/task/*/status | sort | uniq -c"
      local shut = 0
      for line in p:lines() do
        if line:find "fffffff%x*$" then
          shut = shut + tonumber(line:match "%d+")
        end
      end
      print(shut >= 16)
    ]]
    assert.are.equal("open\ntrue\n", output)
  end)
end)
