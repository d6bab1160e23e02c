-- What ringbahn's Event does, done here: every kind of event, prepared, awaited and
-- cancelled into a cancellation that owns what the kernel has.  And that its
-- faults are not here.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, socketpair, new_ring = opened.pipe, opened.socketpair, opened.ring
local collect, error_of = helper.collect, helper.error_of

local function pack(...)
  return table.pack(...)
end

describe("ringbahn's Event", function()
  helper.watch(before_each, function(check)
    after_each(function()
      helper.cleanup()
      opened.close()
      check()
    end)
  end)

  -- A file of its own, open for everything.
  local function file(contents)
    local fd = assert(op.openat(nil, helper.tmpname(contents), const.O_RDWR | const.O_CLOEXEC))
    opened.keep { close = function() op.close(fd) end }
    return fd
  end

  -- Prepared by hand, and awaited.
  local function run(...)
    local handle = uring.prepare(...)
    assert.are.equal("prepared", handle:status())
    uring.submit()
    return handle:await()
  end

  describe("of every kind:", function()
    it("Accept and Connect", function()
      local fd, address = opened.listen()
      local accept = uring.prepare("accept", fd)
      uring.submit()
      local socket = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
      assert.are.equal(0, run("connect", socket, address))
      local accepted, peer = accept:await()
      assert.is_true(accepted >= 0)
      assert.is_truthy(peer:find "^127%.0%.0%.1:%d+$")
      assert.are.equal(0, run("close", accepted))
      assert.are.equal(0, run("close", socket))
    end)

    it("Accept without an address", function()
      local fd, address = opened.listen()
      local client = opened.keep(uring.connect(address))
      local accepted = pack(run("accept", fd, 0, { peer = false }))
      assert.are.equal(1, accepted.n)
      assert.is_truthy(client:peer())
      op.close(accepted[1])
    end)

    it("OpenAt, Write, Read and Close", function()
      local path = helper.tmpname()
      local fd = run("openat", nil, path, const.O_RDWR | const.O_CLOEXEC)
      assert.is_true(fd >= 0)
      assert.are.equal(5, run("write", fd, "hello", nil, 0))
      local buffer = uring.buffer(8)
      assert.are.equal(5, run("read", fd, buffer, 8, 0))
      assert.are.equal("hello", buffer:get(1, 5))
      assert.are.equal(0, run("close", fd))
      assert.are.same({ n = 3, nil, "close: Bad file descriptor", errno.EBADF }, pack(run("close", fd)))
    end)

    it("ReadVectored and WriteVectored", function()
      local fd = file ""
      assert.are.equal(9, run("writev", fd, { "one", uring.buffer "two", "six" }, nil, 0))
      local a, b = uring.buffer(4), uring.buffer(5)
      assert.are.equal(9, run("readv", fd, { a, b }, nil, 0))
      assert.are.equal("onetwosix", a:get() .. b:get())
    end)

    it("ReadFixed and WriteFixed", function()
      local ring = new_ring()
      local fd = file "0123456789"
      local buffer = uring.buffer(16)
      assert.is_true(ring:register_buffers { buffer })
      assert.are.equal(10, ring:prepare("read_fixed", fd, buffer, 16, 0):await())
      assert.are.equal("0123456789", buffer:get(1, 10))
      assert.are.equal(4, ring:prepare("write_fixed", fd, buffer:slice(3, 6), nil, 0):await())
      assert.are.equal(10, ring:prepare("read_fixed", fd, buffer, 16, 0):await())
      assert.are.equal("2345456789", buffer:get(1, 10))
    end)

    it("Recv and Send", function()
      local a, b = socketpair()
      local buffer = uring.buffer(8)
      assert.are.equal(5, run("send", a, "hello"))
      assert.are.equal(5, run("recv", b, buffer))
      assert.are.equal("hello", buffer:get(1, 5))
    end)

    it("Fadvise, Fallocate and Fsync", function()
      local fd = file ""
      assert.are.equal(0, run("fallocate", fd, 0, 0, 4096))
      assert.are.equal(0, run("fadvise", fd, 0, 4096, 3))
      assert.are.equal(0, run("fsync", fd))
      local result, info = run("statx", fd, "", const.AT_EMPTY_PATH)
      assert.are.equal(0, result)
      assert.are.equal(4096, info.size)
    end)

    it("Statx", function()
      local result, info = run("statx", nil, helper.tmpname "12345")
      assert.are.equal(0, result)
      assert.are.same({ "file", 5 }, { info.type, info.size })
    end)

    it("Splice", function()
      local r, w = pipe()
      assert.are.equal(4, run("splice", file "data", 0, w, nil, 4))
      local buffer = uring.buffer(8)
      assert.are.equal(4, op.read(r, buffer))
      assert.are.equal("data", buffer:get(1, 4))
    end)

    it("EpollCtl", function()
      local epfd = helper.testkit.epoll()
      opened.keep { close = function() op.close(epfd) end }
      local r, w = pipe()
      assert.are.equal(0, run("epoll_ctl", epfd, r, "add", const.EPOLLIN))
      op.write(w, "x")
      assert.is_true(helper.testkit.poll(epfd, 1))
      assert.are.equal(0, run("epoll_ctl", epfd, r, "del"))
    end)

    it("FilesUpdate, for files that are registered", function()
      local ring = new_ring()
      local r, w = pipe()
      assert.is_true(ring:register_files { -1, -1 })
      assert.are.equal(1, (ring:prepare("files_update", { r }, 1):await()))
      op.write(w, "x")
      assert.are.equal(1, ring:prepare("read", 1, uring.buffer(1), { fixed_file = true }):await())
    end)

    it("ProvideBuffers and RemoveBuffers", function()
      local block = uring.buffer(16)
      assert.are.equal(0, (run("provide_buffers", block, 4, 4, 77, 0)))
      assert.are.equal("lent", block:status())
      assert.are.equal(4, (run("remove_buffers", 4, 77)))
      assert.are.equal("owned", block:status())
    end)

    it("Timeout", function()
      local began = uring.now()
      assert.are.equal(0, run("timeout", 0.01))
      assert.is_true(uring.now() - began >= 0.01)
      local counted = uring.prepare("timeout", 60, 1) -- or one completion, whichever comes first
      uring.submit()
      op.nop()
      assert.are.equal(0, counted:await())
    end)

    it("one's own", function()
      local fd = file "0123456789"
      local event = {
        buffer = uring.buffer(4);
        prepare = function(self, sqe) sqe:read(fd, self.buffer, 4, 3) end;
        complete = function(self, result) return self.buffer:get(1, result) end;
      }
      assert.are.equal("3456", uring.await(event))
    end)
  end)

  describe("owns what the kernel has, and gives it back", function()
    it("with the result, on success and on failure", function()
      local a, b = socketpair()
      local buffer = uring.buffer(8)
      local reading = uring.prepare("recv", a, buffer)
      uring.submit()
      assert.are.equal("lent", buffer:status())
      assert.is_truthy(error_of(buffer.get, buffer):find("buffer is lent to the kernel", 1, true))
      op.send(b, "data")
      assert.are.equal(4, reading:await())
      assert.are.equal("data", buffer:get(1, 4))
      assert.is_nil(run("read", 987654, buffer))
      assert.are.equal("owned", buffer:status())
    end)

    it("when it is cancelled, at its completion and not before", function()
      local a = socketpair()
      local buffer = uring.buffer(8)
      local reading = uring.prepare("recv", a, buffer)
      uring.submit()
      local cancellation = reading:cancel()
      assert.are.equal("lent", buffer:status()) -- asked for is not done
      assert.are.equal("cancelled", cancellation:await())
      assert.are.equal("owned", buffer:status())
    end)

    it("when a result was faster, with that", function()
      local a, b = socketpair()
      local buffer = uring.buffer(8)
      local reading = uring.prepare("recv", a, buffer)
      op.send(b, "data")
      assert.are.same({ n = 2, "completed", 4 }, pack(reading:cancel():await()))
      assert.are.equal("data", buffer:get(1, 4))
    end)

    it("when it is dropped: at its completion, which is brought about", function()
      local a, b = socketpair()
      local buffer = uring.buffer(8)
      uring.prepare("recv", a, buffer)
      uring.submit()
      collect()
      assert.are.equal("lent", buffer:status())
      helper.eventually(function() return buffer:status() == "owned" end)
      op.send(b, "data")
      assert.are.equal(4, op.recv(a, buffer)) -- nobody has taken it
    end)

    it("of any kind: strings, vectors, addresses, whatever an event has", function()
      local a = socketpair()
      local weak = setmetatable({}, { __mode = "v" })
      do
        local kept = { "state of an event" }
        weak[1] = kept
        uring.prepare({
          kept = kept;
          prepare = function(_, sqe) sqe:recv(a, uring.buffer(8)) end;
        })
      end
      uring.prepare("readv", a, { uring.buffer(4), uring.buffer(4) })
      uring.submit()
      collect()
      assert.is_not_nil(weak[1])
      assert.are.equal(16, uring.stats().bytes_lent)
      helper.eventually(function()
        collect()
        return uring.stats().bytes_lent == 0 and weak[1] == nil
      end)
    end)

    it("and an event is told that interest in it is gone", function()
      local a = socketpair()
      local told = 0
      local handle = uring.prepare {
        prepare = function(_, sqe) sqe:recv(a, uring.buffer(8)) end;
        cancel = function() told = told + 1 end;
      }
      uring.submit()
      assert.are.equal("cancelled", handle:cancel():await())
      assert.are.equal(1, told)
    end)
  end)

  it("is hinted to be eager", function()
    local ring = new_ring()
    local event = { prepare = function(_, sqe) sqe:nop { eager = true } end }
    local handle = ring:prepare(event)
    assert.are.equal("submitted", handle:status())
    assert.are.equal(0, handle:await())
  end)

  describe("has no such faults here:", function()
    it("interest that is dropped does not pin the buffer until the next event", function()
      local a = socketpair()
      local buffer = uring.buffer(8)
      uring.run(function()
        local task = uring.spawn(op.recv, a, buffer)
        uring.sleep(0.002)
        task:cancel()
        pcall(task.await, task)
        assert.are.equal("owned", buffer:status()) -- with the task, without another event
      end)
      assert.are.equal(0, uring.stats().in_flight)
    end)

    it("a late cancel hits nobody who has the same place now", function()
      local ring = new_ring()
      local a, b = socketpair()
      local old = {}
      for round = 1, 50 do
        local finished = ring:prepare "nop"
        local mark = finished:user_data()
        assert.are.equal(0, finished:await())
        local buffer = uring.buffer(4)
        local successor = ring:prepare("recv", a, buffer)
        ring:submit()
        assert.is_nil(old[mark]) -- no mark is ever used again
        old[mark] = true
        -- by the handle, as an operation, and by the bare number
        assert.are.equal("completed", (finished:cancel():await()))
        assert.are.equal(errno.ENOENT, select(3, ring:prepare("cancel", finished):await()))
        assert.are.equal(errno.ENOENT, select(3, ring:prepare("raw", {
          opcode = const.IORING_OP_ASYNC_CANCEL, fd = -1, addr = mark,
        }):await()))
        assert.are.equal("submitted", successor:status(), round)
        op.send(b, "data")
        assert.are.equal(4, successor:await())
      end
    end)

    it("ReadFixed is no plain read", function()
      local ring = new_ring()
      local r = pipe()
      local buffer = uring.buffer(8)
      assert.is_truthy(error_of(ring.prepare, ring, "read_fixed", r, buffer):find("registered", 1, true))
      ring:register_buffers { buffer }
      local read = ring:prepare("read_fixed", r, buffer)
      assert.is_truthy(tostring(read):find("read_fixed", 1, true))
      assert.are.equal("cancelled", read:cancel():await())
    end)

    it("another event on the same object cancels none", function()
      local a, b = socketpair()
      uring.run(function()
        local buffer = uring.buffer(4)
        local reading = uring.spawn(op.recv, a, buffer)
        uring.sleep(0.002)
        assert.are.equal(4, op.send(a, "ping"))
        local poll = uring.prepare("poll_add", a, const.POLLOUT)
        assert.are.equal(const.POLLOUT, poll:await())
        assert.are.equal("waiting", reading:status())
        op.send(b, "pong")
        assert.are.equal(4, reading:await())
        assert.are.equal("pong", buffer:get())
      end)
    end)

    it("results are told, and counted in and out", function()
      local ring = new_ring()
      local before = ring:stats()
      local handles = {}
      for i = 1, 20 do
        handles[i] = ring:prepare("read", i % 2 == 0 and 987654 or 0, uring.buffer(0), 0, 0)
      end
      ring:submit()
      for i = 2, 20, 2 do
        assert.are.equal(errno.EBADF, select(3, handles[i]:await()))
      end
      for i = 1, 20, 2 do
        handles[i]:await()
      end
      local after = ring:stats()
      assert.are.equal(20, after.completed - before.completed)
      assert.are.equal(0, after.in_flight)
    end)
  end)
end)
