local helper = require "spec.support.helper"
local uring = require "uring"

local const, errno = uring.const, uring.errno

describe("registered", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local function open(contents)
    return assert(uring.op.openat(nil, helper.tmpname(contents), const.O_RDWR | const.O_CLOEXEC))
  end

  describe("buffers", function()
    it("are read into and written from, whole and by slices", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = open "0123456789"
      local one, two = uring.buffer(64), uring.buffer(64)
      assert.is_true(ring:register_buffers { one, two })
      assert.are.equal(10, ring:prepare("read_fixed", fd, one, 64, 0):await())
      assert.are.equal("0123456789", one:get(1, 10))
      local slice = two:slice(11, 14)
      assert.are.equal(4, ring:prepare("read_fixed", fd, slice, nil, 3):await())
      assert.are.equal("3456", two:get(11, 14))
      assert.are.equal(("\0"):rep(10), two:get(1, 10))
      two:set(1, "abc")
      assert.are.equal(3, ring:prepare("write_fixed", fd, two, 3, 0):await())
      assert.are.equal(10, ring:prepare("read_fixed", fd, one, 64, 0):await())
      assert.are.equal("abc3456789", one:get(1, 10))
      assert.is_true(ring:unregister_buffers())
      uring.op.close(fd)
    end)

    it("are read into and written from by vectors of slices", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = open ""
      local other, buffer = uring.buffer(16), uring.buffer("hello, vectors")
      assert.is_true(ring:register_buffers { other, buffer })
      assert.are.equal(12, ring:prepare("writev_fixed", fd, { buffer:slice(8), buffer:slice(1, 5) }, nil, 0):await())
      assert.are.equal(7, ring:prepare("readv_fixed", fd, { other:slice(9, 12), other:slice(1, 3) }, nil, 0):await())
      assert.are.equal("vect", other:get(9, 12))
      assert.are.equal("ors", other:get(1, 3))
      uring.op.close(fd)
    end)

    it("of a vector are lent like others", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = uring.pipe()
      local buffer = uring.buffer(64)
      ring:register_buffers { buffer }
      local read = ring:prepare("readv_fixed", r:fd(), { buffer:slice(1, 4), buffer:slice(9, 12) })
      ring:submit()
      assert.are.equal(8, ring:stats().bytes_lent)
      assert.is_truthy(helper.error_of(buffer.get, buffer):find("lent to the kernel (readv_fixed on fd", 1, true))
      buffer:set(5, "free")
      w:write "12345678"
      assert.are.equal(8, read:await())
      assert.are.equal("1234free5678", buffer:get(1, 12))
      assert.are.equal(0, ring:stats().bytes_lent)
      r:close()
      w:close()
    end)

    it("that a vector is in are one, and hold all of it", function()
      local ring <close> = uring.ring { entries = 8 }
      local one, two = uring.buffer(64), uring.buffer(64)
      ring:register_buffers { one:slice(1, 32), two }
      local message = "the data is in no buffer that is registered with this ring"
      for _, call in ipairs {
        { "readv_fixed", 0, { one } }, { "readv_fixed", 0, { one:slice(1, 8), two } }, { "readv_fixed", 0, {} },
        { "readv_fixed", 0, { one:slice(1, 8), one:slice(30, 33) } }, { "writev_fixed", 1, { "text" } },
        { "writev_fixed", 1, { two, "text" } }, { "writev_fixed", 1, { uring.buffer(8) } },
      } do
        assert.is_truthy(helper.error_of(ring.prepare, ring, table.unpack(call)):find(message, 1, true))
      end
      assert.are.equal(0, ring:stats().bytes_lent)
    end)

    it("are lent like others while an operation has them", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = uring.pipe()
      local buffer = uring.buffer(64)
      ring:register_buffers { buffer }
      local read = ring:prepare("read_fixed", r:fd(), buffer:slice(1, 8))
      ring:submit()
      assert.is_truthy(helper.error_of(buffer.get, buffer):find("lent to the kernel (read_fixed on fd", 1, true))
      buffer:set(9, "free")
      w:write "12345678"
      assert.are.equal(8, read:await())
      assert.are.equal("12345678free", buffer:get(1, 12))
      r:close()
      w:close()
    end)

    it("outlive their Buffer, and their ring gives them back", function()
      local fd = open(("x"):rep(4096))
      do
        local ring <close> = uring.ring { entries = 8 }
        local buffer = uring.buffer(4096)
        local slice = buffer:slice(1, 100)
        ring:register_buffers { buffer }
        buffer:close()
        buffer = nil -- luacheck: ignore
        collectgarbage()
        assert.are.equal(100, ring:prepare("read_fixed", fd, slice, nil, 0):await())
        assert.are.equal(("x"):rep(100), slice:get())
      end
      uring.op.close(fd)
    end)

    it("stay with an operation that has them when they are unregistered", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = uring.pipe()
      local buffer = uring.buffer(16)
      ring:register_buffers { buffer }
      local read = ring:prepare("read_fixed", r:fd(), buffer)
      ring:submit()
      assert.is_true(ring:unregister_buffers())
      buffer:close()
      buffer = nil -- luacheck: ignore
      collectgarbage()
      w:write "data"
      assert.are.equal(4, read:await())
      r:close()
      w:close()
    end)

    it("are found wherever they overlap, and only there", function()
      math.randomseed(7)
      local SIZE = 4096
      for _ = 1, 5 do
        local ring <close> = uring.ring { entries = 8 }
        local fd = open(("0123456789abcdef"):rep(SIZE // 16))
        local big, list, ranges = uring.buffer(SIZE), {}, {}
        local function range()
          local from = math.random(SIZE)
          return from, math.random(from, math.min(SIZE, from + 600))
        end
        for i = 1, helper.times(60) do
          local from, to = range()
          ranges[i] = { from, to }
          list[2 * i - 1], list[2 * i] = big:slice(from, to), uring.buffer(16)
        end
        assert.is_true(ring:register_buffers(list))
        local function is_registered(from, to)
          for _, r in ipairs(ranges) do
            if r[1] <= from and to <= r[2] then
              return true
            end
          end
          return false
        end
        local inside = 0
        for i = 1, 400 do
          local from, to = range()
          local slice = big:slice(from, to)
          local ok, op = pcall(ring.prepare, ring, "read_fixed", fd, slice, nil, from - 1)
          assert.are.equal(is_registered(from, to), ok)
          if ok then -- the kernel looks, too
            inside = inside + 1
            assert.are.equal(to - from + 1, op:await())
            assert.are.equal(("0123456789abcdef"):rep(SIZE // 16):sub(from, to), slice:get())
          end
          local vector = { big:slice(to, to), slice, big:slice(from, from) }
          local same, whole = pcall(ring.prepare, ring, "writev_fixed", fd, vector)
          assert.are.equal(ok, same)
          if same then
            assert.are.equal("cancelled", whole:cancel():await())
          end
          if i % 10 == 0 then
            assert.are.equal(16, ring:prepare("read_fixed", fd, list[i % #list + 2 - i % 2], nil, 0):await())
          end
        end
        assert.is_true(inside > 20 and inside < 380, inside)
        uring.op.close(fd)
      end
    end)

    it("are refused where they are not registered", function()
      local ring <close> = uring.ring { entries = 8 }
      local buffer, other = uring.buffer(64), uring.buffer(64)
      local message = "the data is in no buffer that is registered with this ring"
      assert.is_truthy(helper.error_of(ring.prepare, ring, "read_fixed", 0, buffer):find(message, 1, true))
      ring:register_buffers { buffer:slice(1, 32) }
      assert.is_truthy(helper.error_of(ring.prepare, ring, "read_fixed", 0, buffer):find(message, 1, true))
      assert.is_truthy(helper.error_of(ring.prepare, ring, "read_fixed", 0, other):find(message, 1, true))
      assert.is_truthy(helper.error_of(ring.prepare, ring, "write_fixed", 1, "text"):find(message, 1, true))
      assert.is_truthy(helper.error_of(ring.register_buffers, ring, { other }):find("already", 1, true))
      assert.is_truthy(helper.error_of(ring.register_buffers, ring, {}):find("nothing in the table", 1, true))
      ring:unregister_buffers()
      assert.are.same({ nil, "unregister_buffers: No such device or address", errno.ENXIO },
        { ring:unregister_buffers() })
      assert.is_truthy(helper.error_of(ring.register_buffers, ring, { 5 })
        :find("open Buffer expected at [1], got 5", 1, true))
      other:close()
      assert.is_truthy(helper.error_of(ring.register_buffers, ring, { other }):find("open Buffer expected", 1, true))
    end)
  end)

  it("with the default ring are there for calls in tasks", function()
    local fd = open "0123456789"
    local buffer = uring.buffer(16)
    assert.is_true(uring.register_files { fd })
    assert.is_true(uring.register_buffers { buffer })
    uring.run(function()
      assert.are.equal(10, uring.op.read_fixed(0, buffer, nil, 0, { fixed_file = true }))
    end)
    assert.are.equal("0123456789", buffer:get(1, 10))
    assert.is_true(uring.unregister_buffers())
    assert.is_true(uring.unregister_files())
    uring.op.close(fd)
  end)

  describe("files", function()
    it("are named by their slot", function()
      local ring <close> = uring.ring { entries = 8 }
      local one, two = open "one", open "two"
      local buffer = uring.buffer(8)
      assert.is_true(ring:register_files { one, -1, two })
      uring.op.close(one) -- the slot keeps the file
      assert.are.equal(3, ring:prepare("read", 0, buffer, 8, 0, { fixed_file = true }):await())
      assert.are.equal("one", buffer:get(1, 3))
      assert.are.equal(3, ring:prepare("read", 2, buffer, 8, 0, { fixed_file = true }):await())
      assert.are.equal("two", buffer:get(1, 3))
      assert.are.equal(errno.EBADF, select(3, ring:prepare("read", 1, buffer, 8, 0, { fixed_file = true }):await()))
      assert.are.equal(1, ring:register_files_update({ two }, 1))
      assert.are.equal(3, ring:prepare("read", 1, buffer, 8, 0, { fixed_file = true }):await())
      assert.are.equal("two", buffer:get(1, 3))
      assert.is_true(ring:unregister_files())
      assert.are.equal(errno.EBADF, select(3, ring:prepare("read", 0, buffer, 8, 0, { fixed_file = true }):await()))
      uring.op.close(two)
    end)

    it("may all be registered empty", function()
      local ring <close> = uring.ring { entries = 8 }
      assert.is_true(ring:register_files(16))
      local fd = open "text"
      assert.are.equal(1, ring:register_files_update({ fd }, 15))
      local buffer = uring.buffer(8)
      assert.are.equal(4, ring:prepare("read", 15, buffer, nil, 0, { fixed_file = true }):await())
      assert.are.equal(errno.EINVAL, select(3, ring:register_files_update({ fd }, 16)))
      assert.are.equal(1, ring:register_files_update({ -1 }, 15))
      assert.are.equal(errno.EBADF, select(3, ring:prepare("read", 15, buffer, nil, 0, { fixed_file = true }):await()))
      uring.op.close(fd)
    end)

    it("become descriptors", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = open "text"
      assert.is_true(ring:register_files { -1, fd })
      uring.op.close(fd)
      local got = assert(ring:prepare("fixed_fd_install", 1):await())
      local buffer = uring.buffer(8)
      assert.are.equal(4, uring.op.read(got, buffer, nil, 0))
      assert.are.equal("text", buffer:get(1, 4))
      assert.are.equal(4, ring:prepare("read", 1, buffer, nil, 0, { fixed_file = true }):await()) -- it is still there
      uring.op.close(got)
      assert.are.equal(errno.EBADF, select(3, ring:prepare("fixed_fd_install", 0):await()))
      assert.are.equal(errno.EBADF, select(3, ring:prepare("fixed_fd_install", 2):await()))
      assert.are.equal(errno.EINVAL, select(3, ring:prepare("fixed_fd_install", 1, 1 << 31):await()))
      local descriptors = helper.testkit.fds()
      ring:prepare("fixed_fd_install", 1, const.IORING_FIXED_FD_NO_CLOEXEC) -- dropped
      ring:submit()
      helper.collect()
      helper.eventually(function()
        ring:prepare("nop"):await()
        return ring:stats().in_flight == 0
      end)
      assert.are.equal(descriptors, helper.testkit.fds())
    end)

    it("are refused where they are none", function()
      local ring <close> = uring.ring { entries = 8 }
      assert.are.same({ nil, "unregister_files: No such device or address", errno.ENXIO }, { ring:unregister_files() })
      assert.are.equal(errno.EBADF, select(3, ring:register_files { 1000000 }))
      for _, wrong in ipairs { "x", true, {} } do
        assert.is_truthy(helper.error_of(ring.register_files, ring, { wrong }):find("expected at [1]", 1, true))
      end
      assert.is_truthy(helper.error_of(ring.register_files, ring, 0):find("out of range", 1, true))
      assert.is_truthy(helper.error_of(ring.register_files, ring, {}):find("nothing in the table", 1, true))
      assert.are.same({ nil, "close: No such device or address", errno.ENXIO },
        { ring:prepare("close", 0, { fixed_file = true }):await() })
      assert.is_truthy(helper.error_of(ring.prepare, ring, "epoll_ctl", 0, 0, "del", { fixed_file = true })
        :find("unknown option 'fixed_file' of epoll_ctl", 1, true))
    end)
  end)
end)
