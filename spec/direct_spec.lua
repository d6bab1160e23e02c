-- Direct descriptors: files in slots of a ring, and what becomes of those that
-- nobody is given.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit

local SLOTS = 16
local FIXED = { fixed_file = true }
local ANY = { direct = true }

describe("direct descriptors", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  -- A ring with SLOTS empty slots.
  local function new_ring(options)
    local ring = assert(uring.ring(options or { entries = 8 }))
    assert(ring:register_files(SLOTS))
    return ring
  end

  -- How many slots of the ring have a file.
  local function taken(ring)
    local fd = assert(op.openat(nil, "/dev/null", const.O_CLOEXEC))
    local fds = {}
    for i = 1, SLOTS do
      fds[i] = fd
    end
    local n, empty = ring:prepare("files_update", fds):await()
    for _, slot in ipairs(empty or {}) do
      assert.are.equal(1, ring:register_files_update({ -1 }, slot))
    end
    op.close(fd)
    return SLOTS - (n or 0)
  end

  local function settle(ring)
    helper.collect()
    helper.eventually(function()
      ring:prepare("nop"):await()
      return ring:stats().in_flight == 0
    end, "an operation did not end")
  end

  -- Prepared, submitted and completed, and nobody has asked for the result.
  local function complete(ring, ...)
    local o = ring:prepare(...)
    ring:submit()
    helper.eventually(function()
      ring:prepare("nop"):await()
      return o:status() == "done"
    end)
    return o
  end

  local function read(ring, slot, n)
    local buffer = uring.buffer(n)
    local got = assert(ring:prepare("read", slot, buffer, n, -1, FIXED):await())
    return buffer:get(1, got)
  end

  -- A descriptor that listens, and its address.
  local function listen()
    local fd = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
    assert(op.bind(fd, "127.0.0.1:0"))
    assert(op.listen(fd))
    return fd, core.local_address(fd)
  end

  local function client(address)
    local fd = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
    assert(op.connect(fd, address))
    return fd
  end

  -- Every row that makes one, as a call.
  local path
  before_each(function()
    path = helper.tmpname "contents"
  end)
  local makes = {
    openat = function(options) return "openat", nil, path, const.O_RDONLY, options end;
    openat2 = function(options) return "openat2", nil, path, { flags = const.O_RDONLY }, options end;
    socket = function(options) return "socket", const.AF_INET, const.SOCK_STREAM, options end;
  }

  describe("of", function()
    for name, call in pairs(makes) do
      it(name .. " are in the slot that is asked for, or in any that is empty", function()
        local ring <close> = new_ring()
        local descriptors = testkit.fds()
        assert.are.equal(0, ring:prepare(call(ANY)):await())
        assert.are.equal(1, ring:prepare(call(ANY)):await())
        assert.are.equal(7, ring:prepare(call { direct = 7 }):await())
        assert.are.equal(7, ring:prepare(call { direct = 7 }):await()) -- takes the place of the other
        assert.are.equal(0, ring:prepare(call { direct = 0 }):await())
        assert.are.equal(3, taken(ring))
        assert.are.equal(descriptors, testkit.fds())
        assert.are.equal(errno.EINVAL, select(3, ring:prepare(call { direct = SLOTS }):await()))
        local fd = assert(ring:prepare(call { direct = false }):await())
        assert.are.equal(descriptors + 1, testkit.fds())
        op.close(fd)
      end)
    end

    it("openat are read by their slot", function()
      local ring <close> = new_ring()
      assert.are.equal(3, ring:prepare("openat", nil, path, 0, { direct = 3 }):await())
      assert.are.equal("conte", read(ring, 3, 5))
      assert.are.equal("nts", read(ring, 3, 5))
    end)

    it("accept come with the peer's address", function()
      local ring <close> = new_ring()
      local fd, address = listen()
      local one, two = client(address), client(address)
      local slot, peer = ring:prepare("accept", fd, { direct = 9 }):await()
      assert.are.same({ 9, core.local_address(one) }, { slot, peer })
      slot, peer = ring:prepare("accept", fd, ANY):await()
      assert.are.equal(core.local_address(two), peer)
      assert.are_not.equal(9, slot)
      op.send(two, "hello")
      assert.are.equal("hello", read(ring, slot, 8))
      for _, each in ipairs { fd, one, two } do
        op.close(each)
      end
    end)

    it("multishot accept are in any slot", function()
      local ring <close> = new_ring()
      local fd, address = listen()
      local accept <close> = ring:prepare("accept", fd, { direct = true, multishot = true })
      ring:submit()
      local clients = {}
      for i = 1, 3 do
        clients[i] = client(address)
        assert.are.equal(i - 1, accept:await())
        op.send(clients[i], "hello " .. i)
        assert.are.equal("hello " .. i, read(ring, i - 1, 16))
      end
      assert.are.equal(3, taken(ring))
      assert.is_truthy(helper.error_of(ring.prepare, ring, "accept", fd, { direct = 3, multishot = true })
        :find("option 'direct' of accept is true, and no slot, where it is multishot", 1, true))
      op.close(fd)
      for _, each in ipairs(clients) do
        op.close(each)
      end
    end)

    it("pipe are two", function()
      local ring <close> = new_ring()
      assert.are.same({ 0, 5, 6 }, { ring:prepare("pipe", { direct = 5 }):await() })
      assert.are.equal(4, ring:prepare("write", 6, "data", 4, -1, FIXED):await())
      assert.are.equal("data", read(ring, 5, 8))
      local zero, r, w = ring:prepare("pipe", ANY):await()
      assert.are.equal(0, zero)
      assert.are.equal(4, ring:prepare("write", w, "more", 4, -1, FIXED):await())
      assert.are.equal("more", read(ring, r, 8))
      assert.are.equal(4, taken(ring))
    end)

    it("raw operations are counted, too", function()
      local ring <close> = new_ring()
      local any = (1 << 32) - 1
      local sqe = { opcode = const.IORING_OP_SOCKET, fd = const.AF_INET, off = const.SOCK_STREAM, file_index = any }
      assert.are.equal(0, ring:prepare("raw", sqe):await())
      sqe.file_index = 4
      assert.are.equal(3, ring:prepare("raw", sqe):await())
      complete(ring, "raw", sqe)
      sqe.file_index = any
      complete(ring, "raw", sqe)
      settle(ring)
      assert.are.equal(1, taken(ring))
    end)
  end)

  it("are refused where the system call would make another kind", function()
    local ring <close> = new_ring { entries = 8, without = { "pipe" } }
    assert.are.same({ nil, "pipe: not supported by this kernel (needs 6.16)", errno.ENOSYS },
      { ring:prepare("pipe", ANY):await() })
    local zero, r, w = ring:prepare("pipe"):await()
    assert.are.equal(0, zero)
    op.close(r)
    op.close(w)
  end)

  it("say what the kernel says where there are no slots", function()
    local ring <close> = uring.ring { entries = 8 }
    assert.are.same({ nil, "openat: No such device or address", errno.ENXIO },
      { ring:prepare("openat", nil, path, 0, { direct = 1 }):await() })
    assert.are.same({ nil, "openat: Too many open files in system", errno.ENFILE },
      { ring:prepare("openat", nil, path, 0, ANY):await() })
    for _, wrong in ipairs { -1, 32768, 1.5, "1", {} } do
      assert.is_truthy(helper.error_of(ring.prepare, ring, "openat", nil, path, 0, { direct = wrong })
        :find("option 'direct' of openat is true, false or an index of a registered file, not ", 1, true))
    end
  end)

  it("are closed by their slot", function()
    local ring <close> = new_ring()
    assert.are.equal(3, ring:prepare("openat", nil, path, 0, { direct = 3 }):await())
    assert.are.equal(0, ring:prepare("close", 3, FIXED):await())
    assert.are.equal(0, taken(ring))
    assert.are.same({ nil, "close: Bad file descriptor", errno.EBADF }, { ring:prepare("close", 3, FIXED):await() })
    assert.are.equal(errno.EINVAL, select(3, ring:prepare("close", SLOTS, FIXED):await()))
  end)

  it("are opened, read and closed in one group", function()
    local ring <close> = new_ring()
    local buffer = uring.buffer(16)
    local opened = ring:prepare("openat", nil, path, 0, { direct = 2, link = true })
    local got = ring:prepare("read", 2, buffer, 8, 0, { fixed_file = true, link = true })
    local closed = ring:prepare("close", 2, FIXED)
    assert.are.same({ 2, 8, 0 }, { opened:await(), got:await(), (closed:await()) })
    assert.are.equal("contents", buffer:get(1, 8))
    assert.are.equal(0, taken(ring))
  end)

  it("are cancelled by their slot", function()
    local ring <close> = new_ring()
    local _, r = assert(ring:prepare("pipe", ANY):await())
    local buffer = uring.buffer(8)
    local waiting = ring:prepare("read", r, buffer, FIXED)
    ring:submit()
    assert.are.equal(0, ring:prepare("cancel_fd", r, 0, FIXED):await())
    assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
    assert.are.equal(errno.ENOENT, select(3, ring:prepare("cancel_fd", r, 0, FIXED):await()))
    assert.are.equal(errno.EBADF, select(3, ring:prepare("cancel_fd", SLOTS - 1, 0, FIXED):await()))
  end)

  it("are given the slots of a range", function()
    local ring <close> = new_ring()
    assert.is_true(ring:register_file_alloc_range(10, 2))
    assert.are.equal(10, ring:prepare("openat", nil, path, 0, ANY):await())
    assert.are.equal(11, ring:prepare("openat", nil, path, 0, ANY):await())
    assert.are.equal(errno.ENFILE, select(3, ring:prepare("openat", nil, path, 0, ANY):await()))
    assert.are.equal(3, ring:prepare("openat", nil, path, 0, { direct = 3 }):await())
    assert.are.same({ nil, "register_file_alloc_range: Invalid argument", errno.EINVAL },
      { ring:register_file_alloc_range(10, SLOTS) })
    assert.is_truthy(helper.error_of(ring.register_file_alloc_range, ring, -1, 1):find("out of range", 1, true))
    assert.is_truthy(helper.error_of(ring.register_file_alloc_range, ring, 0):find("number expected", 1, true))
  end)

  describe("that nobody is given are closed:", function()
    -- One slot has the number of a descriptor that is open: that stays.
    local function watched(fn)
      local ring <close> = new_ring()
      local fds = {}
      repeat -- a number that is a slot, too
        fds[#fds + 1] = assert(op.openat(nil, "/dev/null", const.O_CLOEXEC))
      until fds[#fds] >= 5
      local fd = fds[#fds]
      assert(fd < SLOTS, "there are many descriptors open")
      fn(ring, fd)
      settle(ring)
      assert.are.equal(0, taken(ring))
      assert.are.equal(0, (assert(op.read(fd, uring.buffer(1))))) -- still /dev/null
      for _, each in ipairs(fds) do
        assert.are.equal(0, op.close(each))
      end
    end

    for name, call in pairs(makes) do
      it(name .. " that is done", function()
        watched(function(ring, fd)
          complete(ring, call(ANY))
          complete(ring, call { direct = fd })
        end)
      end)

      it(name .. " in flight", function()
        watched(function(ring, fd)
          for _ = 1, 20 do
            ring:prepare(call(ANY))
            ring:prepare(call { direct = fd })
            ring:submit()
            helper.collect()
            settle(ring)
          end
        end)
      end)

      it(name .. " whose handle is closed", function()
        watched(function(ring, fd)
          for _ = 1, 20 do
            local _one <close> = ring:prepare(call { direct = fd })
            local _other <close> = complete(ring, call(ANY))
          end
        end)
      end)
    end

    it("pipe", function()
      watched(function(ring, fd)
        complete(ring, "pipe", ANY)
        complete(ring, "pipe", { direct = fd })
        ring:prepare("pipe", ANY)
        ring:submit()
      end)
    end)

    it("accept", function()
      local listening, address = listen()
      local clients = { client(address), client(address) }
      watched(function(ring, fd)
        complete(ring, "accept", listening, { direct = fd })
        ring:prepare("accept", listening, ANY)
        ring:submit()
      end)
      for _, each in ipairs { listening, table.unpack(clients) } do
        op.close(each)
      end
    end)

    it("results of a multishot accept", function()
      local listening, address = listen()
      local clients = {}
      for i = 1, 6 do
        clients[i] = client(address)
      end
      watched(function(ring)
        local accept = ring:prepare("accept", listening, { direct = true, multishot = true })
        ring:submit()
        ring:prepare("timeout", 0.01):await()
        assert.are.equal(6, taken(ring))
        local given
        for slot in accept:results() do -- luacheck: ignore
          given = slot
          break -- leaving the loop closes it
        end
        assert.are.equal(1, taken(ring))
        assert.are.equal(0, ring:prepare("close", given, FIXED):await())
        for i = 7, 9 do
          clients[i] = client(address)
        end
        local _dropped = ring:prepare("accept", listening, { direct = true, multishot = true })
        ring:submit()
        ring:prepare("timeout", 0.01):await()
        assert.are.equal(3, taken(ring))
      end)
      for _, each in ipairs { listening, table.unpack(clients) } do
        op.close(each)
      end
    end)

    it("files_update into slots that the kernel chose", function()
      watched(function(ring, fd)
        complete(ring, "files_update", { fd, fd, fd })
        ring:prepare("files_update", { fd, fd })
        ring:submit()
        settle(ring)
        assert.are.equal(0, taken(ring))
        complete(ring, "files_update", { fd, fd }, 3) -- the program knows them
        settle(ring)
        assert.are.equal(2, taken(ring))
        assert.are.equal(2, ring:prepare("files_update", { -1, -1 }, 3):await())
      end)
    end)

    it("in a task that is cancelled", function()
      local ring = core.default()
      assert.is_true(ring:register_files(SLOTS))
      for _ = 1, 20 do
        local got
        uring.run(function()
          local task = uring.spawn(function()
            got = op.openat(nil, path, const.O_RDONLY, { direct = true, async = true })
          end)
          uring.yield()
          task:cancel()
          pcall(task.await, task)
        end)
        assert.are.equal(got and 1 or 0, taken(ring))
        if got then
          op.close(got, FIXED)
        end
      end
      assert.is_true(ring:unregister_files())
    end)
  end)

  it("of a ring that is closed are no longer anybody's", function()
    local ring = new_ring()
    local kept = complete(ring, "openat", nil, path, 0, { direct = 2 }) -- luacheck: ignore
    ring:close()
    -- another ring, perhaps where the other one was, has the same slot
    local other <close> = new_ring()
    assert.are.equal(2, other:prepare("openat", nil, path, 0, { direct = 2 }):await())
    kept = nil -- luacheck: ignore
    ring = nil -- luacheck: ignore
    helper.collect()
    assert.are.equal(1, taken(other))
  end)

  it("of a parent stay when its child drops what it inherited", function()
    local ring <close> = new_ring()
    local kept = complete(ring, "openat", nil, path, 0, { direct = 2 })
    local pid = testkit.fork()
    if pid == 0 then
      kept = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      testkit.exit(0)
    end
    assert.are.equal(0, testkit.wait(pid))
    assert.are.equal(1, taken(ring))
    assert.are.equal(2, kept:await())
    helper.collect()
    assert.are.equal(1, taken(ring)) -- now it is ours
  end)

  describe("by files_update", function()
    it("go into slots from the first on", function()
      local ring <close> = new_ring()
      local fd = assert(op.openat(nil, path, const.O_CLOEXEC))
      assert.are.same({ 2 }, { ring:prepare("files_update", { fd, fd }, 4):await() })
      assert.are.equal("contents", read(ring, 5, 16))
      assert.are.same({ 2 }, { ring:prepare("files_update", { -1, fd }, 4):await() })
      assert.are.equal(1, taken(ring))
      assert.are.same({ nil, "files_update: Invalid argument", errno.EINVAL },
        { ring:prepare("files_update", { fd, fd }, SLOTS - 1):await() })
      op.close(fd)
    end)

    it("go where the kernel likes, and it says where", function()
      local ring <close> = new_ring()
      local fd = assert(op.openat(nil, path, const.O_CLOEXEC))
      local all = {}
      for _, call in ipairs {
        { 3, { fd, fd, fd } }, { 2, { fd, fd }, nil }, { 1, { fd }, { async = true } },
        { 1, { fd, 1000000, fd } }, -- as far as it came
      } do
        local n, slots = ring:prepare("files_update", table.unpack(call, 2, 4)):await()
        assert.are.same({ call[1], call[1] }, { n, #slots })
        for _, slot in ipairs(slots) do
          assert.is_nil(all[slot])
          all[slot] = true
          assert.are.equal(8, ring:prepare("read", slot, uring.buffer(16), 16, 0, FIXED):await())
        end
      end
      assert.are.equal(7, taken(ring))
      op.close(fd)
    end)

    it("are up to 64, and descriptors", function()
      local ring <close> = uring.ring { entries = 8 }
      ring:register_files(64)
      local fd = assert(op.openat(nil, path, const.O_CLOEXEC))
      local fds = {}
      for i = 1, 64 do
        fds[i] = fd
      end
      local n, slots = ring:prepare("files_update", fds):await()
      assert.are.same({ 64, 64, 63 }, { n, #slots, slots[64] })
      fds[65] = fd
      for _, call in ipairs {
        { fds, "more than 64 descriptors" },
        { { fd, "x" }, "descriptor, or -1 for none, expected at [2], got x" },
        { { -2 }, "descriptor, or -1 for none, expected at [1], got -2" },
        { { 0.5 }, "descriptor, or -1 for none, expected at [1], got 0.5" },
      } do
        assert.are.equal(("bad argument 'fds' to 'files_update' (%s)"):format(call[2]),
          (helper.error_of(ring.prepare, ring, "files_update", call[1]):gsub("^%S+:%d+: ", "")))
      end
      op.close(fd)
    end)
  end)
end)
