-- eager: operations that are handed over at once.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit

local EAGER = { eager = true }

describe("eager", function()
  local r, w
  after_each(function() -- before the books are checked
    op.close(r)
    op.close(w)
  end)
  helper.watch(before_each, after_each)
  before_each(function() r, w = core.pipe() end)

  local function readable()
    return testkit.poll(r, 0)
  end

  it("operations are with the kernel when prepare returns", function()
    for _, options in ipairs { { entries = 8 }, { entries = 8, sqpoll = true } } do
      local ring <close> = uring.ring(options)
      local lazy = ring:prepare("write", w, "x")
      assert.are.same({ "prepared", 0 }, { lazy:status(), ring:stats().in_flight })
      assert.is_false(readable())
      local eager = ring:prepare("write", w, "y", EAGER)
      assert.are.same({ "submitted", "submitted", 2 }, { lazy:status(), eager:status(), ring:stats().in_flight })
      assert.is_true(testkit.poll(r, 1))
      assert.are.same({ 1, 1 }, { lazy:await(), (eager:await()) })
      op.read(r, uring.buffer(4))
    end
  end)

  it("calls are with the kernel before the turn ends", function()
    uring.run(function()
      for _, options in ipairs { EAGER, {} } do
        local task = uring.spawn(op.write, w, "x", options)
        local seen
        uring.spawn(function()
          seen = readable() -- runs behind it, in the same turn
        end)
        uring.yield()
        assert.are.equal(options.eager == true, seen)
        assert.are.equal(1, task:await())
        op.read(r, uring.buffer(1))
      end
    end)
    assert.are.equal(1, op.write(w, "x", EAGER)) -- and outside of tasks
  end)

  it("operations wait where they have to", function()
    local ring <close> = uring.ring { entries = 8 }
    local read = ring:prepare("read", r, uring.buffer(4), EAGER)
    local drained = ring:prepare("nop", { drain = true, eager = true })
    assert.are.same({ "submitted", "prepared" }, { read:status(), drained:status() })
    op.write(w, "data")
    assert.are.same({ 4, 0 }, { read:await(), (drained:await()) })
  end)

  it("operations are more than there is room for", function()
    local ring <close> = uring.ring { entries = 4, backlog = 8 }
    local ops = {}
    for i = 1, 50 do
      ops[i] = ring:prepare("read", r, uring.buffer(1), EAGER)
    end
    assert.are.equal(50, ring:stats().in_flight)
    op.write(w, ("x"):rep(50))
    for i = 1, 50 do
      assert.are.equal(1, ops[i]:await())
    end
  end)

  it("operations may end a group and not be in the middle of one", function()
    local ring <close> = uring.ring { entries = 8 }
    local first = ring:prepare("nop", { link = true })
    local last = ring:prepare("write", w, "x", EAGER)
    assert.are.same({ "submitted", "submitted" }, { first:status(), last:status() })
    assert.is_true(readable())
    assert.are.same({ 0, 1 }, { first:await(), (last:await()) })
    for _, name in ipairs { "link", "hardlink" } do
      assert.is_truthy(helper.error_of(ring.prepare, ring, "nop", { eager = true, [name] = true })
        :find("option 'eager' of nop: an operation that is linked to the next has to wait for it", 1, true))
    end
    assert.is_truthy(helper.error_of(ring.prepare, ring, "raw", { opcode = 0, flags = const.IOSQE_IO_LINK }, EAGER)
      :find("option 'eager' of raw", 1, true))
    assert.are.equal(0, ring:prepare("raw", { opcode = 0 }, EAGER):await())
    assert.are.equal(0, ring:stats().in_flight)
  end)

  it("is a hint: a kernel that is busy gets them later", function()
    for _, name in ipairs { "EBUSY", "EAGAIN", "EINTR" } do
      local ring <close> = uring.ring { entries = 8, driver = "fault",
        fault = { rate = 0.7, seed = 3, errno = errno[name] } }
      local ops = {}
      for i = 1, 20 do
        ops[i] = ring:prepare("write", w, "x", EAGER)
      end
      for i = 1, 20 do
        assert.are.equal(1, ops[i]:await())
      end
      assert.are.equal(20, op.read(r, uring.buffer(64)))
    end
  end)
end)
