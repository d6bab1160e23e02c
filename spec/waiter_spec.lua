-- Waiters: descriptors whose reading takes a signal away.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local errno, op = uring.errno, uring.op
local testkit = helper.testkit
local error_of = helper.error_of

local SIGUSR1 = 10

local function pack(...)
  return table.pack(...)
end

local CLOSED = { n = 3, nil, "closed", errno.ECANCELED }
local CANCELLED = { n = 3, nil, "cancelled", errno.ECANCELED }

local function signal(fd, n)
  assert.are.equal(8, op.write(fd, ("=i8"):pack(n or 1)))
end

describe("a waiter", function()
  local fds

  helper.watch(function(setup)
    before_each(function()
      setup()
      fds = {}
    end)
  end, function(check)
    after_each(function()
      opened.close()
      for _, fd in ipairs(fds) do
        testkit.close(fd)
      end
      check()
    end)
  end)

  local function kept(fd)
    fds[#fds + 1] = fd
    return fd
  end

  local function eventfd(initial, nonblocking)
    return kept(testkit.eventfd(initial or 0, nonblocking))
  end

  local function new(fd, options)
    return opened.keep(uring.waiter(fd, options))
  end

  -- What there is in an eventfd now.
  local function rest(fd)
    return testkit.poll(fd, 0) and (op.read(fd, uring.buffer(8)) and true) or false
  end

  it("takes the counter of an eventfd", function()
    local fd = eventfd(7)
    local waiter = new(fd)
    assert.are.equal(7, waiter:wait())
    assert.is_false(rest(fd))
    uring.run(function()
      local task = uring.spawn(waiter.wait, waiter)
      uring.sleep(0.003)
      assert.are.equal("waiting", task:status())
      signal(fd, 3)
      assert.are.equal(3, task:await())
    end)
    signal(fd, 2)
    signal(fd, 5)
    assert.are.equal(7, waiter:wait())
  end)

  it("takes it from one that does not block, too", function()
    local fd = eventfd(0, true)
    local waiter = new(fd)
    uring.run(function()
      for i = 1, 3 do
        local task = uring.spawn(waiter.wait, waiter)
        uring.sleep(0.003)
        assert.are.equal("waiting", task:status())
        signal(fd, i)
        assert.are.equal(i, task:await())
      end
    end)
  end)

  it("takes the expirations of a timerfd", function()
    local waiter = new(kept(testkit.timerfd(0.01)))
    assert.are.equal(1, waiter:wait())
    local many = new(kept(testkit.timerfd(0.001, 0.001)))
    uring.sleep(0.02)
    assert.is_true(many:wait() >= 10)
  end)

  it("takes what a signalfd tells", function()
    local waiter = new(kept(testkit.signalfd(SIGUSR1)), { size = 128 })
    uring.run(function()
      local task = uring.spawn(waiter.wait, waiter)
      uring.sleep(0.003)
      testkit.kill(testkit.getpid(), SIGUSR1)
      local info = task:await()
      assert.are.equal(128, #info)
      assert.are.equal(SIGUSR1, (("=I4"):unpack(info)))
    end)
    testkit.unblock_signal(SIGUSR1)
  end)

  it("takes bytes of any size as a string, and tells the end", function()
    local r, w = uring.pipe()
    opened.keep(r)
    opened.keep(w)
    local waiter = new(r, { size = 4 })
    w:write "abcdefg"
    assert.are.equal("abcd", waiter:wait())
    assert.are.equal("efg", waiter:wait())
    w:close()
    assert.is_nil(waiter:wait())
    local short = new(r)
    assert.is_nil(short:wait())
  end)

  it("serves several who wait, one signal each, in the order in which they came", function()
    local fd = eventfd()
    local waiter = new(fd)
    uring.run(function()
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = uring.spawn(waiter.wait, waiter)
      end
      for i = 1, 5 do
        uring.sleep(0.002)
        signal(fd, i * 10)
        assert.are.equal(i * 10, tasks[i]:await())
      end
    end)
  end)

  describe("and cancel:", function()
    it("with nothing to be had it is false, and who waits is told", function()
      local fd = eventfd()
      local waiter = new(fd)
      uring.run(function()
        local a, b = uring.spawn(waiter.wait, waiter), uring.spawn(waiter.wait, waiter)
        uring.sleep(0.002)
        assert.are.same({ n = 1, false }, pack(waiter:cancel()))
        assert.are.same(CANCELLED, pack(a:await()))
        assert.are.same(CANCELLED, pack(b:await()))
        -- and it can be waited for again
        signal(fd, 4)
        assert.are.equal(4, waiter:wait())
      end)
    end)

    it("with nobody waiting is false, and takes nothing", function()
      local fd = eventfd(9)
      local waiter = new(fd)
      assert.is_false(waiter:cancel())
      assert.are.equal(9, waiter:wait())
      assert.is_false(waiter:cancel())
    end)

    it("says that the signal was taken, and who waits has it", function()
      local fd = eventfd()
      local waiter = new(fd)
      uring.run(function()
        local first, second = uring.spawn(waiter.wait, waiter), uring.spawn(waiter.wait, waiter)
        uring.sleep(0.002)
        testkit.signal_eventfd(fd, 6)
        uring.yield() -- in the turn that has read it, this task is the first to run
        assert.are.same({ n = 2, true, 6 }, pack(waiter:cancel()))
        assert.are.equal(6, first:await())
        assert.are.same(CANCELLED, pack(second:await()))
        assert.is_false(rest(fd))
      end)
    end)

    it("at every step accounts for the signal, once", function()
      local takes = { [true] = 0, [false] = 0 }
      for _, nonblocking in ipairs { false, true } do
        for turns = 0, 6 do
          local fd = eventfd(0, nonblocking)
          local waiter = new(fd)
          uring.run(function()
            local task = uring.spawn(waiter.wait, waiter)
            for _ = 1, turns // 2 do
              uring.yield()
            end
            testkit.signal_eventfd(fd, 5)
            for _ = 1, turns - turns // 2 do
              uring.yield()
            end
            local taken, value = waiter:cancel()
            local waited = task:await()
            takes[taken] = takes[taken] + 1
            if taken then
              assert.are.equal(5, value)
              assert.are.equal(5, waited)
            end
            -- in the hands of who waited, or still there
            assert.are.equal(waited == nil, rest(fd))
          end)
        end
      end
      assert.is_true(takes[true] > 0 and takes[false] > 0)
    end)

    it("of a task that waits loses no signal", function()
      for turns = 0, 5 do
        local fd = eventfd()
        local waiter = new(fd)
        uring.run(function()
          local got
          local task = uring.spawn(function() got = waiter:wait() end)
          uring.yield()
          uring.yield()
          testkit.signal_eventfd(fd, 5)
          for _ = 1, turns do
            uring.yield()
          end
          task:cancel()
          pcall(task.await, task)
          if got == nil then
            got = waiter:wait()
          end
          assert.are.equal(5, got)
          assert.is_false(rest(fd))
        end)
      end
    end)

    it("of one task leaves the others waiting", function()
      local fd = eventfd()
      local waiter = new(fd)
      uring.run(function()
        local tasks = {}
        for i = 1, 4 do
          tasks[i] = uring.spawn(waiter.wait, waiter)
        end
        uring.sleep(0.002)
        tasks[1]:cancel()
        tasks[3]:cancel()
        uring.sleep(0.002)
        signal(fd, 1)
        assert.are.equal(1, tasks[2]:await())
        uring.sleep(0.002)
        signal(fd, 2)
        assert.are.equal(2, tasks[4]:await())
      end)
    end)

    it("of a wait that an error interrupted finds what came since", function()
      local fd = eventfd()
      local waiter = new(fd)
      local main = coroutine.running()
      local striker = uring.spawn(function()
        uring.sleep(0.002)
        debug.sethook(main, function()
          debug.sethook(main)
          error("struck", 0)
        end, "crl", 1)
      end)
      assert.are.equal("struck", error_of(waiter.wait, waiter))
      striker:await()
      signal(fd, 8)
      uring.sleep(0.002)
      assert.is_false(rest(fd)) -- the read is still under way, and has it
      assert.are.same({ n = 2, true, 8 }, pack(waiter:cancel()))
      assert.are.same({ n = 2, true, 8 }, pack(waiter:cancel()))
      assert.are.equal(8, waiter:wait())
      assert.is_false(waiter:cancel())
    end)
  end)

  describe("that is closed", function()
    it("gives those who wait nil, \"closed\", and lets go of the descriptor", function()
      local fd = eventfd()
      local waiter = uring.waiter(fd)
      uring.run(function()
        local a, b = uring.spawn(waiter.wait, waiter), uring.spawn(waiter.wait, waiter)
        uring.sleep(0.002)
        waiter:close()
        assert.are.equal(0, uring.stats().in_flight)
        assert.are.same(CLOSED, pack(a:await()))
        assert.are.same(CLOSED, pack(b:await()))
      end)
      signal(fd, 1)
      assert.is_true(rest(fd))
    end)

    it("cannot be used, but closed again", function()
      local fd = eventfd()
      local waiter = uring.waiter(fd)
      waiter:close()
      waiter:close()
      assert.is_truthy(error_of(waiter.wait, waiter):find("attempt to use a closed waiter", 1, true))
      assert.is_truthy(error_of(waiter.cancel, waiter):find("attempt to use a closed waiter", 1, true))
      assert.are.equal(("waiter (fd %d, closed)"):format(fd), tostring(waiter))
    end)
  end)

  it("is not collected under those who wait", function()
    local fd = eventfd()
    uring.run(function()
      local task = uring.spawn(function() return uring.waiter(fd):wait() end)
      uring.sleep(0.002)
      helper.collect()
      signal(fd, 12)
      assert.are.equal(12, task:await())
    end)
  end)

  it("outside of tasks turns the loop", function()
    local fd = eventfd()
    local waiter = new(fd)
    local task = uring.spawn(function()
      uring.sleep(0.003)
      signal(fd, 2)
    end)
    assert.are.equal(2, waiter:wait())
    task:await()
  end)

  it("on what cannot be read is a failure", function()
    local waiter = new(987654)
    assert.are.same({ n = 3, nil, "read: Bad file descriptor", errno.EBADF }, pack(waiter:wait()))
    local _, w = opened.pipe()
    local value, _, code = new(w):wait()
    assert.is_nil(value)
    assert.are.equal(errno.EBADF, code)
  end)

  it("refuses wrong types and sizes", function()
    assert.is_truthy(error_of(uring.waiter, "x"):find("bad argument #1 to 'waiter' (descriptor expected", 1, true))
    assert.is_truthy(error_of(uring.waiter, 0, { size = 0 }):find("option 'size' of waiter is 0", 1, true))
    assert.is_truthy(error_of(uring.waiter, 0, { size = 1 << 20 }):find("option 'size' of waiter", 1, true))
    assert.is_truthy(error_of(uring.waiter, 0, { size = "8" }):find("integer expected", 1, true))
    assert.is_truthy(error_of(uring.waiter, 0, { sise = 8 }):find("did you mean 'size'", 1, true))
    assert.are.equal("waiter (fd 0)", tostring(uring.waiter(0)))
  end)
end)
