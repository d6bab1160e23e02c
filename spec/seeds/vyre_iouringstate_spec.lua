-- What vyre's IoUringState does, done here: SQPOLL with an idle time, enter, wake,
-- SQEs and CQEs by hand, registered buffers and files, errors that say what
-- failed and what to do.  And that its faults are not here.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, new_ring = opened.pipe, opened.ring
local testkit, error_of = helper.testkit, helper.error_of

describe("vyre's IoUringState", function()
  helper.watch(before_each, function(check)
    after_each(function()
      testkit.alarm(0)
      helper.cleanup()
      opened.close()
      check()
    end)
  end)

  local function sqpoll(idle)
    return new_ring { entries = 8, sqpoll = true, sq_thread_idle = idle }
  end

  local function asleep(ring)
    helper.eventually(function() return ring:needs_wakeup() end, "the thread never slept")
  end

  describe("new", function()
    it("has a thread that submits, and sleeps when it has been idle", function()
      local ring = sqpoll(0.01)
      assert.is_true(ring:uses_sqpoll())
      assert.is_true(ring:features().sqpoll)
      asleep(ring)
      assert.is_false(new_ring():uses_sqpoll())
      assert.is_false(new_ring():needs_wakeup())
    end)

    it("that is refused says what failed, why, and what to do about it", function()
      for code, fix in pairs { EPERM = "kernel.io_uring_disabled", ENOSYS = "newer kernel", ENOMEM = "ulimit" } do
        local output = helper.script(([[
          local uring, testkit = require "uring", require "testkit"
          testkit.refuse_rings(uring.errno.%s)
          local ring, message, errno = uring.ring { entries = 8 }
          print(ring, uring.errno[errno], message)
        ]]):format(code))
        assert.is_truthy(output:find("nil\t" .. code .. "\tio_uring: ", 1, true), output)
        assert.is_truthy(output:find(fix, 1, true), output)
      end
    end)
  end)

  it("wake_sqpoll lets what is published go on", function()
    local ring = sqpoll(0.001)
    for _ = 1, helper.times(20) do
      asleep(ring)
      assert.is_true(ring:wake())
      local handle = ring:prepare "nop"
      ring:submit() -- wakes by itself where it must
      assert.are.equal(0, handle:await())
    end
  end)

  describe("enter", function()
    it("submits so many, and waits for so many", function()
      local ring = new_ring()
      local handles = {}
      for i = 1, 5 do
        handles[i] = ring:prepare "nop"
      end
      assert.are.equal(2, ring:enter(2, 2, const.IORING_ENTER_GETEVENTS))
      assert.are.equal(3, ring:enter(10, 3, const.IORING_ENTER_GETEVENTS))
      assert.are.equal(0, ring:enter(0, 0, 0))
      assert.are.equal(5, ring:advance(5))
      for i = 1, 5 do
        assert.are.equal("done", handles[i]:status())
      end
    end)

    it("tells its errors by the call, the reason and the number", function()
      local ring = new_ring()
      local r = pipe()
      local handle = ring:prepare("read", r, uring.buffer(1))
      assert.are.equal(1, ring:enter())
      testkit.alarm(0.02)
      local n, message, code = ring:enter(0, 1, const.IORING_ENTER_GETEVENTS)
      assert.are.same({ nil, "enter: Interrupted system call", errno.EINTR }, { n, message, code })
      assert.are.equal("cancelled", handle:cancel():await())
    end)
  end)

  it("get_sqe and commit_sqe: what is prepared is seen when it is submitted", function()
    local ring = new_ring()
    local r, w = pipe()
    op.write(w, "data")
    local buffer = uring.buffer(8)
    local handle = ring:prepare { -- fills the SQE itself
      prepare = function(_, sqe)
        sqe.opcode = const.IORING_OP_READ
        sqe.fd = r
        sqe.addr = buffer
        sqe.off = -1
      end;
    }
    assert.are.equal("prepared", handle:status())
    assert.are.equal(1, ring:enter())
    assert.are.equal("submitted", handle:status())
    assert.are.equal(4, handle:await())
    assert.are.equal("data", buffer:get(1, 4))
  end)

  it("peek_cqe and advance_cq: a completion is seen, and then acknowledged", function()
    local ring = new_ring()
    assert.is_nil(ring:peek())
    local a = ring:prepare "nop"
    local b = ring:prepare("read", 987654, uring.buffer(1))
    ring:enter(nil, 2)
    for _ = 1, 2 do
      assert.are.same({ 0, 0, a:user_data(), "nop" }, { ring:peek() })
    end
    assert.are.equal(1, ring:advance())
    local result, _, user_data, name = ring:peek()
    assert.are.same({ -errno.EBADF, b:user_data(), "read" }, { result, user_data, name })
    assert.are.equal(1, ring:advance())
    assert.is_nil(ring:peek())
    assert.are.equal(0, ring:advance())
    assert.are.same({ "done", "done" }, { a:status(), b:status() })
  end)

  describe("register_buffers", function()
    it("unlocks reads and writes that look nothing up", function()
      local ring = new_ring()
      local fd = assert(op.openat(nil, helper.tmpname "0123456789", const.O_RDWR | const.O_CLOEXEC))
      local buffer = uring.buffer(64)
      assert.is_true(ring:register_buffers { buffer })
      assert.are.equal(10, ring:prepare("read_fixed", fd, buffer, 64, 0):await())
      assert.are.equal("0123456789", buffer:get(1, 10))
      assert.is_true(ring:unregister_buffers())
      op.close(fd)
    end)

    it("keeps them for as long as they are registered, dropped or not", function()
      local ring = new_ring()
      local r, w = pipe()
      local whole = uring.buffer(64)
      ring:register_buffers { whole }
      local slice = whole:slice(1, 4)
      whole = nil -- luacheck: ignore 311
      helper.collect()
      op.write(w, "data")
      assert.are.equal(4, ring:prepare("read_fixed", r, slice):await())
      assert.are.equal("data", slice:get())
    end)

    it("tells what it refuses, and what to do", function()
      local ring = new_ring()
      local buffer = uring.buffer(64)
      assert.is_true(ring:register_buffers { buffer })
      assert.is_truthy(error_of(ring.register_buffers, ring, { buffer })
        :find("register_buffers: there are registered buffers already; unregister them first", 1, true))
      local ok, message, code = new_ring():unregister_buffers() -- the kernel's own refusal
      assert.is_nil(ok)
      assert.are.equal("unregister_buffers: No such device or address", message)
      assert.are.equal(errno.ENXIO, code)
    end)
  end)

  it("register_files: descriptors are indices of the table", function()
    local ring = new_ring()
    local r, w = pipe()
    assert.is_true(ring:register_files { w, r })
    assert.are.equal(4, ring:prepare("write", 0, "data", { fixed_file = true }):await())
    local buffer = uring.buffer(4)
    assert.are.equal(4, ring:prepare("read", 1, buffer, { fixed_file = true }):await())
    assert.are.equal("data", buffer:get())
    assert.is_true(ring:unregister_files())
    assert.are.equal(errno.EBADF, select(3, ring:prepare("read", 1, buffer, { fixed_file = true }):await()))
  end)

  describe("has no such faults here:", function()
    it("an SQE has no flags and no index of the one that had its place", function()
      local ring = new_ring { entries = 1 } -- one place for all
      local r, w = pipe()
      local registered, plain = uring.buffer(8), uring.buffer(8)
      ring:register_buffers { uring.buffer(1), registered }
      ring:register_files { r }
      for _ = 1, 5 do
        op.write(w, "12345678abcdefgh")
        local fixed = ring:prepare("read_fixed", 0, registered, 8, -1, { fixed_file = true, async = true })
        assert.are.equal(8, fixed:await())
        assert.are.equal("12345678", registered:get())
        assert.are.equal(8, ring:prepare("read", r, plain):await())
        assert.are.equal("abcdefgh", plain:get())
        -- an opcode that refuses every field it does not know
        assert.are.equal(0, ring:prepare("timeout", 0):await())
        assert.are.equal(errno.EBADF, select(3, ring:prepare("shutdown", 987654, "rw"):await()))
        assert.are.equal(0, ring:prepare("nop"):await())
      end
    end)

    it("no wake-up is lost, however the thread's sleep and the submitting meet", function()
      local ring = sqpoll(0.001)
      math.randomseed(5)
      local slept = 0
      for _ = 1, helper.times(200) do
        local began, wait = uring.now(), math.random() * 0.012
        repeat until uring.now() - began >= wait
        slept = slept + (ring:needs_wakeup() and 1 or 0)
        local handle = ring:prepare "nop"
        ring:submit()
        began = uring.now()
        repeat until ring:peek() or uring.now() - began > 2 -- nothing else is asked of the kernel
        assert.are.equal(0, (ring:peek()))
        ring:advance()
        assert.are.equal(0, handle:await())
      end
      assert.is_true(slept > 0)
    end)

    it("a signal interrupts no await", function()
      local ring = new_ring()
      testkit.alarm(0.005)
      assert.are.equal(0, ring:prepare("timeout", 0.03):await())
      uring.run(function()
        testkit.alarm(0.005)
        assert.are.equal(0, op.timeout(0.03))
      end)
    end)

    it("a ring that is dropped with reads in flight lets the kernel write nowhere", function()
      local r, w = pipe()
      local buffer = uring.buffer(8)
      do
        local ring = assert(uring.ring { entries = 4 })
        ring:prepare("read", r, buffer, 8, -1, { async = true }) -- by a thread of the kernel
        ring:submit()
      end
      helper.collect()
      helper.eventually(function()
        uring.yield()
        helper.collect()
        return buffer:status() == "owned"
      end)
      buffer:set(1, "mine")
      op.write(w, "theirs")
      uring.sleep(0.005)
      assert.are.equal("mine", buffer:get(1, 4))
      assert.are.equal(6, op.read(r, uring.buffer(8)))
    end)

    it("what is registered can be taken back", function()
      local ring = new_ring()
      for _ = 1, 3 do
        assert.is_true(ring:register_buffers { uring.buffer(8) })
        assert.is_true(ring:unregister_buffers())
        assert.is_true(ring:register_files { (pipe()) })
        assert.is_true(ring:unregister_files())
      end
    end)

    it("what is in flight can be cancelled", function()
      local ring = sqpoll(0.01)
      local r = pipe()
      local buffer = uring.buffer(8)
      local handle = ring:prepare("read", r, buffer)
      ring:submit()
      assert.are.equal("cancelled", handle:cancel():await())
      assert.are.equal("owned", buffer:status())
    end)

    it("a CQ that overflows is flushed", function()
      local ring = new_ring { entries = 4, cq_entries = 4 }
      local handles = {}
      for i = 1, 12 do
        handles[i] = ring:prepare "nop"
        if i % 4 == 0 then
          ring:enter()
        end
      end
      for i = 1, 12 do
        assert.are.equal(0, handles[i]:await())
      end
    end)

    it("an error is that of the operation that failed", function()
      local ring = new_ring()
      local good, bad, other = ring:prepare "nop", ring:prepare("read", 987654, uring.buffer(1)), ring:prepare "nop"
      ring:submit()
      assert.are.equal(0, other:await())
      assert.are.equal(0, good:await())
      assert.are.same({ nil, "read: Bad file descriptor", errno.EBADF }, { bad:await() })
    end)

    it("a full queue is no error", function()
      local ring = new_ring { entries = 2 }
      local handles = {}
      for i = 1, 100 do
        handles[i] = ring:prepare "nop"
      end
      for i = 1, 100 do
        assert.are.equal(0, handles[i]:await())
      end
      assert.is_truthy(error_of(ring.prepare, ring, "nopp"):find("did you mean 'nop'", 1, true))
    end)
  end)
end)
