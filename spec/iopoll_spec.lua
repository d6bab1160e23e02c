local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno = uring.const, uring.errno

describe("a ring that polls its devices", function()
  after_each(helper.cleanup)
  after_each(opened.close)
  helper.watch(before_each, after_each)

  -- A file of two blocks, opened for direct I/O; here, or where that works.
  local function open_direct()
    local path = helper.tmpname(("x"):rep(8192))
    local fd, err, number = uring.op.openat(nil, path, const.O_RDONLY | const.O_DIRECT | const.O_CLOEXEC)
    if not fd then
      assert.are.equal(errno.EINVAL, number, err)
      return nil
    end
    return opened.keep { close = function() uring.op.close(fd) end } and fd
  end

  local function polled(options)
    options = options or { entries = 8 }
    options.iopoll = true
    return opened.ring(options)
  end

  -- Read or refused for want of polling queues; the second says so.
  local function assert_read(buffer, n, message, number)
    if n then
      assert.are.equal(8192, n)
      assert.are.equal(("x"):rep(8192), buffer:get())
    else
      assert.are.same({ "read: Operation not supported", errno.EOPNOTSUPP }, { message, number })
    end
  end

  it("says so, and others do not", function()
    assert.is_true(polled():features().iopoll)
    assert.is_false(opened.ring():features().iopoll)
  end)

  it("completes what needs no device", function()
    local ring = polled()
    assert.are.equal(0, ring:prepare("nop"):await())
    local ops = {}
    for i = 1, 100 do -- past the SQ, too
      ops[i] = ring:prepare "nop"
    end
    for i = 1, 100 do
      assert.are.equal(0, ops[i]:await())
    end
  end)

  it("reads from a device that can be polled, and from others says that it cannot", function()
    local fd = open_direct()
    if not fd then
      return pending "no direct I/O on this file system"
    end
    local ring = polled()
    local buffer = uring.buffer(8192)
    for i = 1, 20 do -- at once, and by a worker
      assert_read(buffer, ring:prepare("read", fd, buffer, 8192, 0, { async = i % 2 == 0 }):await())
    end
    assert.are.equal(0, ring:stats().in_flight)
  end)

  it("is awaited in tasks, and does not hold up the others", function()
    local fd = open_direct()
    local ring = polled()
    local ticks = 0
    uring.run(function()
      local ticker = uring.spawn(function()
        while true do
          uring.sleep(0.001)
          ticks = ticks + 1
        end
      end)
      local readers = {}
      for i = 1, 4 do
        readers[i] = uring.spawn(function()
          for _ = 1, 10 do
            assert.are.equal(0, ring:prepare("nop"):await())
            if fd then
              local buffer = uring.buffer(8192)
              assert_read(buffer, ring:prepare("read", fd, buffer, 8192, 0, { async = true }):await())
            end
          end
        end)
      end
      for _, reader in ipairs(readers) do
        reader:await()
      end
      helper.eventually(function()
        return ticks > 1
      end)
      ticker:cancel()
    end)
  end)

  it("refuses operations that cannot be polled for, and files that are not direct", function()
    local ring = polled()
    local plain = assert(uring.op.openat(nil, helper.tmpname "text", const.O_RDONLY | const.O_CLOEXEC))
    local r = opened.pipe()
    assert.are.same({ nil, "read: Operation not supported", errno.EOPNOTSUPP },
      { ring:prepare("read", plain, uring.buffer(4), 4, 0):await() })
    assert.are.equal(errno.EINVAL, select(3, ring:prepare("timeout", 0.01):await()))
    assert.are.equal(errno.EINVAL, select(3, ring:prepare("poll_add", r, const.POLLIN):await()))
    uring.op.close(plain)
  end)

  it("cancels nothing that the kernel has, and gives its result", function()
    local fd = open_direct()
    local ring = polled()
    local buffer = uring.buffer(8192)
    local withdrawn = ring:prepare "nop"
    assert.are.equal("cancelled", withdrawn:cancel():await())
    for _ = 1, 20 do
      local op = fd and ring:prepare("read", fd, buffer, 8192, 0) or ring:prepare "nop"
      ring:enter()
      local outcome, n, message, number = op:cancel():await()
      assert.are.equal("completed", outcome)
      if fd then
        assert_read(buffer, n, message, number)
      end
    end
    local stats = ring:stats()
    assert.are.equal(stats.prepared, stats.completed)
    assert.are.equal(0, stats.unknown)
    assert.is_nil(ring:peek())
  end)

  it("can be closed, dropped and interrupted with I/O in flight", function()
    local fd = open_direct() or opened.pipe()
    for i = 1, 10 do
      local ring = uring.ring { entries = 8, iopoll = true }
      local buffers = {}
      for j = 1, 8 do
        buffers[j] = uring.buffer(8192)
        ring:prepare("read", fd, buffers[j], 8192, 0)
      end
      ring:submit()
      if i % 2 == 0 then
        ring:close()
        for _, buffer in ipairs(buffers) do
          assert.are.equal("owned", buffer:status())
        end
        assert.are.equal(0, ring:stats().leaked)
      end
      ring = nil -- luacheck: ignore
      helper.collect()
    end
  end)

  it("ends a step at its deadline", function()
    local ring = polled()
    local began = uring.now()
    for _ = 1, 10 do
      ring:step(0.001)
    end
    assert.is_true(uring.now() - began < 2)
    assert.is_nil(ring:step(0))
    assert.is_truthy(helper.error_of(ring.step, ring):find("nothing is in flight", 1, true))
  end)

  it("has no fd to wait for", function()
    local ring = polled()
    assert.is_truthy(helper.error_of(ring.fd, ring):find("has no fd to wait for", 1, true))
  end)

  it("can have a thread that submits and polls", function()
    local fd = open_direct()
    local ring = polled { entries = 8, sqpoll = true, sq_thread_idle = 0.01 }
    local buffer = uring.buffer(8192)
    for _ = 1, 20 do
      assert.are.equal(0, ring:prepare("nop"):await())
      if fd then
        assert_read(buffer, ring:prepare("read", fd, buffer, 8192, 0):await())
      end
    end
    assert.are.equal("integer", math.type(ring:fd()))
  end)
end)
