-- Timers: deadlines that can be moved while tasks wait for them.

local helper = require "spec.support.helper"
local uring = require "uring"

local collect, error_of = helper.collect, helper.error_of

-- How far from what was meant the machine may be.
local SLACK = helper.slow and 0.5 or 0.15
-- Time enough to begin many waits.
local A_WHILE = helper.slow and 0.5 or 0.05

-- Calls fn in a task; how long it took, and the task's results.
local function timed(fn)
  return uring.run(function()
    local start = uring.now()
    local results = table.pack(fn())
    return uring.now() - start, table.unpack(results, 1, results.n)
  end)
end

local function assert_took(seconds, took)
  assert.is_true(took >= seconds, ("%.3f s are too short for %.3f"):format(took, seconds))
  assert.is_true(took < seconds + SLACK, ("%.3f s are too long for %.3f"):format(took, seconds))
end

describe("a timer", function()
  helper.watch(before_each, after_each)

  it("is waited for until its deadline has come, and tells the time", function()
    local deadline = uring.now() + 0.02
    local timer <close> = uring.timer(deadline)
    local took, now = timed(function() return timer:wait() end)
    assert_took(0.015, took)
    assert.is_true(now >= deadline and now <= uring.now())
  end)

  it("whose deadline is past keeps nobody waiting, however often", function()
    local timer <close> = uring.timer(uring.now() - 1)
    uring.run(function()
      local enters = uring.stats().enters
      for _ = 1, 3 do
        assert.is_number(timer:wait())
      end
      assert.are.equal(enters, uring.stats().enters)
    end)
    assert.is_number(uring.timer(0):wait())
    assert.is_number(uring.timer(-5):wait())
  end)

  it("can be moved to earlier while a task waits", function()
    local timer <close> = uring.timer(uring.now() + 60)
    local took = timed(function()
      local waiting = uring.spawn(timer.wait, timer)
      uring.yield()
      timer:after(0.01)
      return waiting:await()
    end)
    assert_took(0.01, took)
  end)

  it("can be moved to later while a task waits", function()
    local timer <close> = uring.timer(uring.now() + 0.01)
    local took = timed(function()
      local waiting = uring.spawn(timer.wait, timer)
      uring.yield()
      timer:after(0.06)
      return waiting:await()
    end)
    assert_took(0.06, took)
  end)

  it("without a deadline waits for one, and can lose it again", function()
    local timer <close> = uring.timer()
    local took = timed(function()
      local waiting = uring.spawn(timer.wait, timer)
      uring.yield()
      assert.are.equal(0, uring.stats().timers)
      timer:after(0.01)
      assert.are.equal(1, uring.stats().timers)
      timer:set(nil)
      assert.are.equal(0, uring.stats().timers)
      uring.sleep(0.03)
      assert.are.equal("waiting", waiting:status())
      timer:set(uring.now())
      return waiting:await()
    end)
    assert_took(0.03, took)
  end)

  it("tells its deadline", function()
    local timer <close> = uring.timer()
    assert.is_nil(timer:deadline())
    timer:set(12.5)
    assert.are.equal(12.5, timer:deadline())
    timer:set(nil)
    assert.is_nil(timer:deadline())
    timer:set(math.huge)
    assert.is_nil(timer:deadline())
    timer:after(1e300)
    assert.is_nil(timer:deadline())
    local before = uring.now()
    timer:after(2)
    assert.is_true(timer:deadline() >= before + 2 and timer:deadline() <= uring.now() + 2)
  end)

  it("repeats itself without drift", function()
    local timer <close> = uring.timer(uring.now())
    local first = timer:deadline()
    uring.run(function()
      for _ = 1, 5 do
        timer:set(timer:deadline() + 0.005)
        timer:wait()
      end
    end)
    assert.is_true(math.abs(timer:deadline() - (first + 0.025)) < 1e-6)
  end)

  it("wakes all who wait, with one place in the heap and no operation", function()
    local timer <close> = uring.timer(uring.now() + A_WHILE)
    uring.run(function()
      local prepared = uring.stats().prepared
      local tasks, woken = {}, {}
      for i = 1, 100 do
        tasks[i] = uring.spawn(function()
          timer:wait()
          woken[#woken + 1] = i
        end)
      end
      uring.yield()
      assert.are.equal(1, uring.stats().timers)
      for _, task in ipairs(tasks) do
        task:await()
      end
      for i = 1, 100 do
        assert.are.equal(i, woken[i]) -- in the order in which they came
      end
      assert.are.equal(prepared, uring.stats().prepared)
      assert.are.equal(0, uring.stats().timers)
    end)
  end)

  it("that nobody waits for wakes nobody up", function()
    local timer <close> = uring.timer(uring.now() + 0.005)
    uring.run(function()
      assert.are.equal(0, uring.stats().timers)
      local enters = uring.stats().enters
      uring.sleep(0.05)
      assert.is_true(uring.stats().enters - enters <= 2)
    end)
    assert.is_number(timer:wait())
  end)

  it("many of them come in the order of their deadlines, wherever they were moved", function()
    math.randomseed(7)
    uring.run(function()
      local order, timers, tasks = {}, {}, {}
      local start = uring.now() + A_WHILE
      for i = 1, 60 do
        timers[i] = uring.timer(start + math.random())
        tasks[i] = uring.spawn(function()
          timers[i]:wait()
          order[#order + 1] = timers[i]:deadline()
        end)
      end
      uring.yield()
      for _ = 1, 300 do
        timers[math.random(60)]:set(({ nil, start + math.random() * 0.05 })[math.random(2)])
      end
      for i = 1, 60 do
        timers[i]:set(start + math.random() * 0.05)
      end
      for i = 1, 60 do
        tasks[i]:await()
      end
      for i = 2, 60 do
        assert.is_true(order[i - 1] <= order[i])
      end
    end)
  end)

  describe("and cancellation:", function()
    it("one who waits can be cancelled, and the others wait on", function()
      local timer <close> = uring.timer(uring.now() + 0.03)
      uring.run(function()
        local tasks = {}
        for i = 1, 5 do
          tasks[i] = uring.spawn(timer.wait, timer)
        end
        uring.yield()
        tasks[1]:cancel()
        tasks[3]:cancel()
        tasks[5]:cancel()
        uring.yield()
        uring.yield()
        assert.are.equal("cancelled", tasks[3]:status())
        assert.are.equal("waiting", tasks[2]:status())
        assert.are.equal(1, uring.stats().timers)
        assert.is_number(tasks[2]:await())
        assert.is_number(tasks[4]:await())
      end)
    end)

    it("with the last who waits it leaves the heap", function()
      local timer <close> = uring.timer(uring.now() + 60)
      uring.run(function()
        local a, b = uring.spawn(timer.wait, timer), uring.spawn(timer.wait, timer)
        uring.yield()
        a:cancel()
        uring.yield()
        assert.are.equal(1, uring.stats().timers)
        b:cancel()
        uring.yield()
        assert.are.equal(0, uring.stats().timers)
        -- and can be waited for again
        timer:after(0.01)
        assert.is_number(timer:wait())
      end)
    end)

    it("a task that was woken already has not lost what woke it", function()
      local timer <close> = uring.timer(uring.now() + 60)
      local got
      uring.run(function()
        local task = uring.spawn(function() got = timer:wait() end)
        uring.yield()
        timer:set(0)
        uring.spawn(task.cancel, task) -- runs in the turn that wakes it, before it
        uring.yield()
        uring.yield()
        pcall(task.await, task)
      end)
      assert.is_number(got)
      assert.are.equal(0, uring.stats().timers)
    end)

    it("is held back in a shield, and strikes before a wait begins", function()
      local timer <close> = uring.timer(uring.now() + 0.02)
      uring.run(function()
        local shielded, struck
        local task = uring.spawn(function()
          shielded = uring.shield(timer.wait, timer)
          timer:set(uring.now() + 60)
          struck = select(2, pcall(timer.wait, timer))
        end)
        uring.yield()
        task:cancel()
        pcall(task.await, task)
        assert.is_number(shielded)
        assert.are.equal(uring.cancelled, struck)
      end)
    end)
  end)

  describe("that is closed", function()
    it("gives those who wait nil, \"closed\"", function()
      local timer = uring.timer(uring.now() + 60)
      uring.run(function()
        local tasks = {}
        for i = 1, 3 do
          tasks[i] = uring.spawn(timer.wait, timer)
        end
        uring.yield()
        timer:close()
        for i = 1, 3 do
          assert.are.same({ n = 3, nil, "closed", uring.errno.ECANCELED }, table.pack(tasks[i]:await()))
        end
      end)
      assert.are.equal(0, uring.stats().timers)
    end)

    it("cannot be used, but closed again", function()
      local timer = uring.timer(1)
      timer:close()
      timer:close()
      for _, use in ipairs { "wait", "set", "after" } do
        assert.is_truthy(error_of(timer[use], timer, 1):find("attempt to use a closed timer", 1, true))
      end
      assert.are.equal("timer (closed)", tostring(timer))
    end)
  end)

  describe("outside of tasks", function()
    it("turns the loop until the deadline", function()
      local ticks = 0
      local task = uring.spawn(function()
        for _ = 1, 3 do
          uring.sleep(0.002)
          ticks = ticks + 1
        end
      end)
      local start = uring.now()
      local timer <close> = uring.timer(start + 0.03)
      assert.is_true(timer:wait() >= start + 0.03)
      assert.are.equal(3, ticks)
      task:await()
    end)

    it("can be moved by a task, to earlier and to later", function()
      for _, case in ipairs { { 60, 0.01 }, { 0.005, 0.03 } } do
        local start = uring.now()
        local timer <close> = uring.timer(start + case[1])
        local task = uring.spawn(function() timer:set(start + case[2]) end)
        timer:wait()
        assert_took(case[2], uring.now() - start)
        task:await()
      end
    end)

    it("can be closed by a task", function()
      local timer = uring.timer(uring.now() + 60)
      local task = uring.spawn(timer.close, timer)
      assert.are.same({ n = 3, nil, "closed", uring.errno.ECANCELED }, table.pack(timer:wait()))
      task:await()
    end)

    it("never is an error where nothing could change that", function()
      local timer <close> = uring.timer()
      assert.is_truthy(error_of(timer.wait, timer):find("deadlock", 1, true))
    end)
  end)

  it("is a deadlock of tasks, too, where nothing could move it", function()
    local timer <close> = uring.timer()
    assert.is_truthy(error_of(uring.run, timer.wait, timer):find("deadlock", 1, true))
  end)

  it("is not collected under those who wait", function()
    uring.run(function()
      local tasks = {}
      for i = 1, 20 do
        tasks[i] = uring.spawn(function() return uring.timer(uring.now() + 0.01):wait() end)
      end
      uring.yield()
      collect()
      for i = 1, 20 do
        assert.is_number(tasks[i]:await())
      end
    end)
    collect()
    assert.are.equal(0, uring.stats().timers)
  end)

  it("survives a program that closes the coroutine of who waits", function()
    local output, status = helper.script [[
      local uring = require "uring"
      for _, far in ipairs { true, false } do
        pcall(uring.run, function()
          local co
          local task = uring.spawn(function()
            co = coroutine.running()
            uring.timer(far and uring.now() + 60 or nil):wait()
          end)
          uring.yield()
          for _ = 1, 3 do coroutine.resume(co, "bogus") end
          pcall(coroutine.close, co)
          co = nil
          collectgarbage() collectgarbage()
          pcall(task.await, task)
        end)
      end
      collectgarbage() collectgarbage()
      print(uring.stats().tasks, uring.stats().timers)
    ]]
    assert.are.equal("0\t0\n", output)
    assert.are.equal(0, status)
  end)

  it("in a child of fork has none of the parent's tasks waiting", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      local timer = uring.timer(uring.now() + 60)
      local ran = 0
      local task = uring.spawn(function() timer:wait() ran = ran + 1 end)
      uring.sleep(0)
      local pid = testkit.fork()
      if pid == 0 then
        uring.close()
        timer:after(0.01)
        timer:wait()
        uring.sleep(0.01)
        task = nil
        collectgarbage() collectgarbage()
        uring.sleep(0.01)
        io.stderr:write("child ", ran, " ", uring.stats().tasks, "\n")
        testkit.exit(0)
      end
      local code = testkit.wait(pid)
      timer:set(uring.now())
      task:await()
      print("parent", ran, code)
    ]]
    assert.are.equal("child 0 0\nparent\t1\t0\n", output)
    assert.are.equal(0, status)
  end)

  it("that a state leaves behind is nobody's trouble", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local timer = uring.timer(uring.now() + 60)
      uring.spawn(function() timer:wait() end)
      uring.sleep(0)
      print(uring.stats().timers)
    ]]
    assert.are.equal("1\n", output)
    assert.are.equal(0, status)
  end)

  it("refuses what is no time", function()
    local timer <close> = uring.timer()
    assert.is_truthy(error_of(uring.timer, "soon"):find("number expected, got string", 1, true))
    assert.is_truthy(error_of(uring.timer, 0 / 0):find("not a number of seconds", 1, true))
    assert.is_truthy(error_of(timer.set, timer):find("value expected", 1, true))
    assert.is_truthy(error_of(timer.set, timer, {}):find("number expected", 1, true))
    assert.is_truthy(error_of(timer.after, timer, -1):find("seconds are negative", 1, true))
    assert.is_truthy(error_of(timer.after, timer, 0 / 0):find("not a number of seconds", 1, true))
    assert.is_truthy(error_of(timer.after, timer):find("number expected", 1, true))
    assert.is_nil(timer:deadline())
  end)

  it("says what it is", function()
    local timer <close> = uring.timer()
    assert.are.equal("timer (never)", tostring(timer))
    timer:set(12.5)
    assert.are.equal("timer (at 12.5)", tostring(timer))
  end)
end)
