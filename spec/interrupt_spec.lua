local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

describe("an interrupt", function()
  helper.watch(before_each, after_each)

  after_each(function()
    debug.sethook()
    testkit.alarm(0)
  end)

  describe("from the keyboard", function()
    -- The script is sent SIGINT 0.15 seconds after it has called ready().
    local function interrupted(chunk)
      local began = uring.now()
      local output, status = script([[
        local testkit = require "testkit"
        local script = testkit.getpid()
        local rd, wr
        local uring = require "uring"
        local function ready()
          io.stdout:setvbuf "no"
          if testkit.fork() == 0 then
            os.execute "sleep 0.15"
            testkit.kill(script, 2)
            testkit.exit(0)
          end
        end
      ]] .. chunk)
      assert.is_true(uring.now() - began < (helper.slow and 8 or 2), "it took too long to end")
      return output, status
    end

    local function assert_interrupted(chunk)
      local output, status = interrupted(chunk)
      assert.matches("lua5.4: .*interrupted!", output)
      assert.are.equal(1, status)
      assert.is_nil(output:find("never", 1, true), output)
      return output
    end

    it("ends run while its task sleeps", function()
      assert_interrupted "ready() uring.run(function() uring.sleep(10) print 'never' end) print 'never'"
    end)

    it("ends a sleep outside of tasks", function()
      assert_interrupted "ready() uring.sleep(10) print 'never'"
    end)

    it("ends the await of a read that nothing comes for", function()
      assert_interrupted [[
        rd, wr = uring.pipe()
        local op = uring.prepare("read", rd:fd(), uring.buffer(10), 10)
        ready()
        print("never", op:await())
      ]]
    end)

    it("ends a call outside of tasks", function()
      assert_interrupted [[
        rd, wr = uring.pipe()
        ready()
        print("never", uring.op.read(rd:fd(), uring.buffer(10), 10))
      ]]
    end)

    it("ends the await of a task", function()
      assert_interrupted [[
        local task = uring.spawn(uring.sleep, 10)
        ready()
        print("never", task:await())
      ]]
    end)

    it("ends an await on a by-hand ring", function()
      assert_interrupted [[
        local r = uring.ring { entries = 4 }
        local op = r:prepare("timeout", 10)
        ready()
        print("never", op:await())
      ]]
    end)

    it("ends a prepare that waits for room", function()
      assert_interrupted [[
        local r = uring.ring { entries = 1, backlog = 2 }
        local keep = { r:prepare("timeout", 10) }
        ready()
        for i = 2, 10 do -- all wait for the end of the first
          keep[i] = r:prepare("nop", { drain = true })
        end
        print "never"
      ]]
    end)

    it("ends a loop of tasks that are always ready", function()
      assert_interrupted [[
        for _ = 1, 3 do
          uring.spawn(function() while true do uring.yield() end end)
        end
        ready()
        uring.run(function() while true do uring.op.nop() end end)
        print "never"
      ]]
    end)

    it("lets tasks unwind before run raises", function()
      local output = assert_interrupted [[
        rd, wr = uring.pipe()
        local function parked(name, fn, ...)
          local args = table.pack(...)
          uring.spawn(function()
            local _guard <close> = setmetatable({}, { __close = function(_, err)
              print("unwound", name, err == uring.cancelled)
            end })
            fn(table.unpack(args))
          end)
        end
        ready()
        uring.run(function()
          parked("sleep", uring.sleep, 10)
          parked("read", uring.op.read, rd:fd(), uring.buffer(10), 10)
          uring.sleep(10)
        end)
      ]]
      assert.matches("unwound\tsleep\ttrue", output)
      assert.matches("unwound\tread\ttrue", output)
    end)

    it("can be caught, and everything goes on", function()
      local output, status = interrupted [[
        ready()
        print(pcall(uring.run, function() uring.sleep(10) end))
        print(uring.stats().tasks, uring.stats().timers, uring.stats().in_flight)
        print(uring.run(function() uring.sleep(0.001) return "again" end))
      ]]
      assert.matches("^false\t[^\n]*interrupted!", output)
      assert.matches("\n0\t0\t0\nagain\n$", output)
      assert.are.equal(0, status)
    end)
  end)

  -- A hook that raises once, from the first place that Lua code runs at.
  local function strike()
    debug.sethook(function()
      debug.sethook()
      error("struck", 0)
    end, "crl", 1)
  end

  local function assert_clean()
    local s = uring.stats()
    assert.are.same({ 0, 0, 0, 0, 0 }, { s.tasks, s.timers, s.in_flight, s.backlog, s.bytes_lent })
    assert.are.equal("again", uring.run(function()
      uring.sleep(0.001)
      uring.op.nop()
      return "again"
    end))
  end

  it("by a signal and a hook ends an idle run", function()
    if helper.valgrind then
      return pending "the clock of valgrind is too slow for this"
    end
    local began = uring.now()
    testkit.alarm(0.05)
    local turns = 0
    debug.sethook(function() -- what a signal handler would have set
      if uring.now() - began > 0.04 then
        debug.sethook()
        turns = turns + 1
        error("struck", 0)
      end
    end, "c")
    assert.matches("struck", helper.error_of(uring.run, uring.sleep, 60))
    assert.is_true(uring.now() - began < 5)
    assert.are.equal(1, turns)
    assert_clean()
  end)

  it("by a count hook reaches an idle sleep", function()
    testkit.alarm(0.05)
    local strikes = 0
    debug.sethook(function() strikes = strikes + 1 end, "", 1)
    local before = strikes
    local began = uring.now()
    uring.sleep(0.15)
    local during = strikes - before
    debug.sethook()
    assert.is_true(uring.now() - began >= 0.15) -- EINTR is no result
    assert.is_true(during > 2)
  end)

  it("that does nothing ends no wait", function()
    local rd, wr = uring.pipe()
    local op = uring.prepare("read", rd:fd(), uring.buffer(10), 10)
    uring.spawn(function()
      uring.sleep(0.1)
      wr:write "late"
    end)
    testkit.alarm(0.02)
    assert.are.equal(4, op:await())
    local r <close> = uring.ring { entries = 4 }
    testkit.alarm(0.02)
    assert.are.equal(0, r:prepare("timeout", 0.06):await())
    rd:close()
    wr:close()
  end)

  -- Turns a plain call into one that a raising hook strikes while it idles:
  -- the hook is set by the task itself on the main thread, shortly before it parks.
  local main = coroutine.running()
  local function strike_main()
    debug.sethook(main, function()
      debug.sethook(main)
      error("struck", 0)
    end, "crl", 1)
  end

  it("by a raising hook leaves run clean, and it can be called again", function()
    for _ = 1, 5 do
      local unwound
      local rd <close>, _wr = uring.pipe()
      local buffer = uring.buffer(10)
      local outcome = table.pack(pcall(uring.run, function()
        uring.spawn(function()
          local _guard <close> = setmetatable({}, { __close = function(_, err)
            unwound = err == uring.cancelled
          end })
          uring.op.read(rd:fd(), buffer, 10)
        end)
        uring.sleep(0.001)
        strike_main()
        uring.sleep(60)
      end))
      assert.is_false(outcome[1])
      assert.matches("struck", outcome[2])
      assert.is_true(unwound)
      assert.are.equal("owned", buffer:status())
      assert_clean()
    end
  end)

  it("by a raising hook leaves an awaited operation in flight", function()
    local rd, wr = uring.pipe()
    local buffer = uring.buffer(10)
    local op = uring.prepare("read", rd:fd(), buffer, 10)
    uring.spawn(function() strike_main() end)
    assert.are.equal("struck", helper.error_of(op.await, op))
    assert.are.equal("submitted", op:status())
    assert.are.equal("lent", buffer:status())
    wr:write "data"
    assert.are.equal(4, op:await())
    assert_clean()
    rd:close()
    wr:close()
  end)

  it("by a raising hook makes an orphan of a call outside of tasks", function()
    local rd, wr = uring.pipe()
    local buffer = uring.buffer(10)
    uring.spawn(function() strike_main() end)
    assert.are.equal("struck", helper.error_of(uring.op.read, rd:fd(), buffer, 10))
    collectgarbage()
    collectgarbage()
    uring.sleep(0.005)
    assert.are.equal("owned", buffer:status())
    assert_clean()
    rd:close()
    wr:close()
  end)

  it("by a raising hook leaves a task that was awaited alone", function()
    local task = uring.spawn(function()
      strike_main()
      uring.sleep(0.01)
      return "result"
    end)
    assert.are.equal("struck", helper.error_of(task.await, task))
    assert.are.equal("result", task:await())
    assert_clean()
  end)

  it("by a raising hook while a by-hand ring idles leaves it whole", function()
    if helper.valgrind then
      return pending "the clock of valgrind is too slow for this"
    end
    local r <close> = uring.ring { entries = 4 }
    local op = r:prepare("timeout", 0.05)
    local began = uring.now()
    testkit.alarm(0.02)
    debug.sethook(function()
      if uring.now() - began > 0.01 then
        debug.sethook()
        error("struck", 0)
      end
    end, "c")
    assert.are.equal("struck", helper.error_of(op.await, op))
    assert.are.equal("submitted", op:status())
    assert.are.equal(0, op:await())
    assert.are.equal(0, r:stats().in_flight)
  end)

  it("in a task is that task's error", function()
    local ok, err = pcall(uring.run, function()
      strike()
      local x = 1
      uring.sleep(60)
      return x
    end)
    assert.is_false(ok)
    assert.matches("struck", err)
    assert_clean()
  end)
end)
