-- What pal_async's Driver does, done here: timers, readiness of descriptors and
-- sockets, waits with a read size, probe, raw submission.  And that its faults
-- are not here.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, socketpair, new_ring = opened.pipe, opened.socketpair, opened.ring
local testkit, collect, error_of = helper.testkit, helper.collect, helper.error_of

local SLACK = helper.slow and 0.5 or 0.15

local function pack(...)
  return table.pack(...)
end

describe("pal_async's Driver", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      check()
    end)
  end)

  local function eventfd(initial)
    local fd = testkit.eventfd(initial or 0)
    opened.keep { close = function() testkit.close(fd) end }
    return fd
  end

  describe("new_dyn_timer", function()
    it("is ready with the time when its deadline has come, and stays so", function()
      local timer <close> = uring.timer()
      timer:after(0.01)
      local deadline = timer:deadline()
      local now = timer:wait()
      assert.is_true(now >= deadline)
      assert.is_true(timer:wait() >= now) -- polled once more
    end)

    it("has a deadline that is updated while it is polled, to earlier and to later", function()
      for _, case in ipairs { { 60, 0.01 }, { 0.01, 0.05 } } do
        local timer <close> = uring.timer()
        uring.run(function()
          local began = uring.now()
          timer:after(case[1])
          local waiting = uring.spawn(timer.wait, timer)
          uring.yield()
          timer:set(began + case[2])
          local took = waiting:await() - began
          assert.is_true(took >= case[2] and took < case[2] + SLACK, took)
        end)
      end
    end)

    it("is polled by several, and costs no operation", function()
      local timer <close> = uring.timer(uring.now() + 0.02)
      uring.run(function()
        local prepared, tasks = uring.stats().prepared, {}
        for i = 1, 10 do
          tasks[i] = uring.spawn(timer.wait, timer)
        end
        for i = 1, 10 do
          assert.is_number(tasks[i]:await())
        end
        assert.are.equal(prepared, uring.stats().prepared)
      end)
    end)
  end)

  for what, read in pairs {
    new_dyn_fd_ready = { pipe, op.read }, new_dyn_socket_ready = { socketpair, op.recv },
  } do
    describe(what, function()
      it("tells when a descriptor is ready, for different interests at once", function()
        local a, b = read[1]()
        if what == "new_dyn_fd_ready" then
          local ready <close> = uring.readiness(b)
          assert.are.equal("w", (ready:wait "w"))
        end
        local ready <close> = uring.readiness(a)
        uring.run(function()
          local reading = uring.spawn(ready.wait, ready, "r")
          local hung_up = uring.spawn(ready.wait, ready, "h")
          uring.sleep(0.002)
          assert.are.equal("waiting", reading:status())
          op.write(b, "x")
          assert.are.same({ n = 2, "r", const.POLLIN }, pack(reading:await()))
          assert.are.equal("waiting", hung_up:status())
          hung_up:cancel()
        end)
      end)

      it("keeps what it found until it is cleared, and then asks again", function()
        local a, b = read[1]()
        local ready <close> = uring.readiness(a)
        op.write(b, "x")
        ready:wait "r"
        read[2](a, uring.buffer(1))
        assert.are.equal("r", (ready:known())) -- as it was
        ready:clear "r"
        assert.are.equal("", (ready:known()))
        uring.run(function()
          local reading = uring.spawn(ready.wait, ready, "r")
          uring.sleep(0.002)
          assert.are.equal("waiting", reading:status())
          op.write(b, "x")
          assert.are.equal("r", (reading:await()))
        end)
      end)

      it("is closed under those who poll it", function()
        local a = read[1]()
        local ready = uring.readiness(a)
        uring.run(function()
          local reading = uring.spawn(ready.wait, ready, "r")
          uring.sleep(0.002)
          ready:close()
          assert.are.same({ n = 3, nil, "closed", errno.ECANCELED }, pack(reading:await()))
        end)
      end)
    end)
  end

  it("new_dyn_socket_ready tells what a connection has come to", function()
    local nobody = uring.listen "127.0.0.1:0"
    local address = nobody:address()
    nobody:close()
    local fd = assert(op.socket(const.AF_INET, const.SOCK_DGRAM))
    local ready = uring.readiness(fd)
    assert(op.connect(fd, address))
    assert.are.equal("w", (ready:wait "w"))
    assert.is_true(ready:check())
    op.send(fd, "is anybody there?")
    assert.is_truthy(ready:wait "r":find("e", 1, true))
    local ok, message, code = ready:check()
    assert.is_nil(ok)
    assert.are.equal(("fd %d: Connection refused"):format(fd), message)
    assert.are.equal(errno.ECONNREFUSED, code)
    ready:close()
    op.close(fd)
  end)

  describe("new_dyn_wait", function()
    it("consumes a signal by a read of its size", function()
      local fd = eventfd(5)
      local waiter <close> = uring.waiter(fd, { size = 8 })
      assert.are.equal(5, waiter:wait())
      assert.is_false(testkit.poll(fd, 0))
      local r, w = pipe()
      local short <close> = uring.waiter(r, { size = 2 })
      op.write(w, "abcd")
      assert.are.equal("ab", short:wait())
      assert.are.equal("cd", short:wait())
    end)

    it("tells on cancel whether the signal was consumed, and loses none", function()
      local fd = eventfd()
      local waiter <close> = uring.waiter(fd)
      uring.run(function()
        local waiting = uring.spawn(waiter.wait, waiter)
        uring.sleep(0.002)
        assert.is_false(waiter:cancel())
        assert.is_nil((waiting:await()))
        waiting = uring.spawn(waiter.wait, waiter)
        uring.sleep(0.002)
        testkit.signal_eventfd(fd, 3)
        uring.yield()
        assert.are.same({ n = 2, true, 3 }, pack(waiter:cancel()))
        assert.are.equal(3, waiting:await())
      end)
    end)

    it("serves a timerfd", function()
      local fd = testkit.timerfd(0.005)
      local waiter = uring.waiter(fd)
      assert.are.equal(1, waiter:wait())
      waiter:close()
      testkit.close(fd)
    end)
  end)

  it("io_uring_probe tells what the ring can do", function()
    assert.is_true(uring.probe "read")
    local all = uring.probe()
    assert.is_true(all.linkat)
    assert.are.equal(all.epoll_wait, uring.probe "epoll_wait")
    local without = new_ring { without = { "linkat" } }
    assert.is_false(without:probe "linkat")
    assert.is_truthy(error_of(uring.probe, "lnkat"):find("did you mean 'linkat'", 1, true))
  end)

  describe("io_uring_submit", function()
    it("takes any SQE, and gives its result", function()
      local r, w = pipe()
      op.write(w, "raw")
      local buffer = uring.buffer(8)
      assert.are.equal(3, op.raw { opcode = const.IORING_OP_READ, fd = r, addr = buffer, off = -1 })
      assert.are.equal("raw", buffer:get(1, 3))
      assert.are.same({ n = 3, nil, "raw: Bad file descriptor", errno.EBADF },
        pack(op.raw { opcode = const.IORING_OP_READ, fd = 987654, addr = buffer }))
    end)

    it("keeps the memory that the SQE names for as long as it is needed", function()
      local r, w = pipe()
      local weak = setmetatable({}, { __mode = "v" })
      do
        local mine = {}
        weak[1] = mine
        uring.prepare("raw", {
          opcode = const.IORING_OP_READ, fd = r, addr = uring.buffer(8), off = -1, keep = { mine },
        })
      end
      uring.submit()
      collect() -- the handle is dropped
      assert.is_not_nil(weak[1])
      assert.are.equal(8, uring.stats().bytes_lent)
      helper.eventually(function()
        collect()
        return weak[1] == nil
      end)
      assert.are.equal(0, uring.stats().bytes_lent)
      op.write(w, "x")
    end)
  end)

  describe("has no such faults here:", function()
    it("dropping an operation in flight aborts nothing", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local r, w = uring.pipe()
        do
          local buffer = uring.buffer(4096)
          uring.prepare("raw", { opcode = uring.const.IORING_OP_READ, fd = r:fd(), addr = buffer, off = -1 })
        end
        uring.submit()
        collectgarbage() collectgarbage()
        while uring.stats().in_flight > 0 do uring.sleep(0.001) end
        print(uring.stats().bytes_lent, uring.stats().orphaned)
        -- and one that is in flight when the program ends
        uring.prepare("read", r:fd(), uring.buffer(4096))
        uring.submit()
      ]]
      assert.are.equal("0\t1\n", output)
      assert.are.equal(0, status)
    end)

    it("what waits for the kernel is bounded", function()
      local ring = new_ring { entries = 2, backlog = 3 }
      for _ = 1, 50 do
        ring:prepare "nop"
        assert.is_true(ring:stats().backlog <= 3)
      end
    end)

    it("an operation with many results is no double completion", function()
      local count = 0
      for _ in uring.prepare("timeout", 0.001, 3, { multishot = true }):results() do
        count = count + 1
      end
      assert.are.equal(3, count)
    end)

    it("a CQ that overflows loses no completion", function()
      local ring = new_ring { entries = 4, cq_entries = 4 }
      local handles = {}
      for i = 1, 40 do
        handles[i] = ring:prepare "nop"
        ring:submit()
      end
      for i = 1, 40 do
        assert.are.equal(0, handles[i]:await())
      end
    end)

    it("a deadline that is moved to later costs nothing either", function()
      local timer <close> = uring.timer(uring.now() + 60)
      uring.run(function()
        local waiting = uring.spawn(timer.wait, timer)
        uring.yield()
        local before = uring.stats()
        for i = 1, 1000 do
          timer:after(60 + i)
        end
        local after = uring.stats()
        assert.are.same({ before.prepared, before.enters, 1 }, { after.prepared, after.enters, after.timers })
        timer:set(0)
        waiting:await()
      end)
    end)

    it("a readiness that is cleared too late loses no wake-up", function()
      local a, b = socketpair()
      local ready <close> = uring.readiness(a)
      uring.run(function()
        op.write(b, "1")
        ready:wait "r"
        op.recv(a, uring.buffer(1))
        op.write(b, "2") -- comes between the read that found nothing and the clear
        ready:clear "r"
        assert.are.equal("r", (ready:wait "r"))
      end)
    end)
  end)
end)
