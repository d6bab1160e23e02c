-- Who owns memory while the kernel may touch it (invariants 1 to 5
-- and 8): what is lent, what that forbids, and how it comes back.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local errno, const = uring.errno, uring.const
local fds = helper.testkit.fds

-- Opcodes by number, for raw.
local MSG_RING, OPENAT2, SEND_ZC = 40, 28, 47

local pipe, socketpair, listen, close_opened = opened.pipe, opened.socketpair, opened.listen, opened.close
local collect, eventually = helper.collect, helper.eventually

local function lent()
  return uring.stats().bytes_lent
end

local function lent_message(operation, fd)
  return ("buffer is lent to the kernel (%s on fd %d)"):format(operation, fd)
end

local function assert_lent(operation, fd, fn, ...)
  assert.matches(lent_message(operation, fd), helper.error_of(fn, ...), 1, true)
end

-- Writes into a pipe until it takes no more; how much it took.
local function fill_pipe(fd)
  local total = 0
  for _ = 1, 1000 do
    local op = uring.prepare("write", fd, ("."):rep(4096))
    uring.submit()
    uring.yield()
    if op:status() ~= "done" then
      assert.are.equal("cancelled", op:cancel():await())
      return total
    end
    total = total + assert(op:await())
  end
  error "this pipe has no end"
end

-- Reads exactly n bytes.
local function read_all(fd, n)
  local parts = {}
  while n > 0 do
    local b <close> = uring.buffer(math.min(n, 65536))
    local got = assert(uring.op.read(fd, b))
    assert.is_true(got > 0, "the end came early")
    parts[#parts + 1] = b:get(1, got)
    n = n - got
  end
  return table.concat(parts)
end

-- Is there nothing in the pipe?
local function assert_empty(fd)
  local op = uring.prepare("poll_add", fd, const.POLLIN)
  uring.submit()
  uring.yield()
  assert.are.equal("cancelled", op:cancel():await())
end

-- A string of n bytes that no other seed gives.
local function text(seed, n)
  local unit = ("%d:%d;"):format(seed, seed * 2654435761 % 4294967296)
  return unit:rep(n // #unit + 1):sub(1, n)
end

describe("memory", function()
  helper.watch(before_each, function(check)
    after_each(function()
      close_opened()
      check()
    end)
  end)

  setup(function()
    math.randomseed(7)
  end)

  describe("that the kernel writes", function()
    it("is neither read nor changed nor lent again, from prepare on", function()
      local r, w = pipe()
      local b = uring.buffer "0123456789"
      local op = uring.prepare("read", r, b)
      local function check()
        assert.are.equal("lent", b:status())
        assert_lent("read", r, b.get, b)
        assert_lent("read", r, b.get, b, 3, 3)
        assert_lent("read", r, b.set, b, 1, "x")
        assert_lent("read", r, b.fill, b)
        assert_lent("read", r, b.fill, b, 0, 10, 10)
        assert_lent("read", r, b.find, b, "x")
        assert_lent("read", r, uring.prepare, "read", r, b)
        assert_lent("read", r, uring.prepare, "recv", r, b)
        assert_lent("read", r, uring.prepare, "write", w, b)
        assert_lent("read", r, uring.prepare, "readv", r, { b })
        assert_lent("read", r, uring.prepare, "writev", w, { "x", b })
        assert_lent("read", r, uring.prepare, "recvmsg", r, { data = b })
        assert_lent("read", r, uring.prepare, "sendmsg", w, { data = b })
        assert_lent("read", r, uring.prepare, "raw", { opcode = const.IORING_OP_READ, fd = r, addr = b })
        assert_lent("read", r, uring.op.read, r, b)
      end
      check()
      uring.submit()
      check()
      uring.yield()
      check()
      assert.are.equal(10, uring.stats().bytes_lent)
      assert.are.equal(2, uring.op.write(w, "hi"))
      assert.are.equal(2, op:await())
      assert.are.equal("owned", b:status())
      assert.are.equal("hi23456789", b:get())
    end)

    it("is named by the operation that has it and the descriptor", function()
      local r, w = pipe()
      local a, z = socketpair()
      local b = uring.buffer(16)
      local calls = {
        { "read", r, "read", r, b };
        { "readv", r, "readv", r, { b } };
        { "recv", a, "recv", a, b };
        { "recvmsg", z, "recvmsg", z, { data = { b } } };
        { "recvmsg", a, "recvmsg", a, { data = { uring.buffer(1) }, control = b } };
        { "raw", r, "raw", { opcode = const.IORING_OP_READ, fd = r, addr = b } };
        { "write", w, "write", w, b };
      }
      for _, call in ipairs(calls) do
        local op = uring.prepare(table.unpack(call, 3))
        assert_lent(call[1], call[2], b.set, b, 1, "x")
        assert.are.equal("lent", b:status())
        op:cancel():await()
        assert.are.equal("owned", b:status())
        b:set(1, "x")
      end
    end)

    it("still has a size, a name, a status and slices", function()
      local r = pipe()
      local b = uring.buffer(100)
      local op = uring.prepare("read", r, b)
      assert.are.equal(100, #b)
      assert.matches("^buffer %(100 bytes, ", tostring(b))
      local s = b:slice(10, 20)
      assert.are.equal(11, #s)
      assert.are.equal("lent", s:status())
      assert_lent("read", r, s.get, s)
      assert.are.equal("", b:get(1, 0))
      assert.are.equal("cancelled", op:cancel():await())
      assert.are.equal(("\0"):rep(11), s:get())
    end)

    it("is only as much as was asked for", function()
      local r, w = pipe()
      local b = uring.buffer "0123456789"
      local op = uring.prepare("read", r, b, 4)
      assert.are.equal(4, lent())
      assert.are.equal("456789", b:get(5))
      b:set(5, "x"):fill(0x2E, 10)
      assert_lent("read", r, b.get, b, 4)
      assert_lent("read", r, b.get, b)
      assert_lent("read", r, b.set, b, 4, "x")
      uring.op.write(w, "abcdefg")
      assert.are.equal(4, op:await())
      assert.are.equal("abcdx5678.", b:get())
      assert.are.equal("efg", read_all(r, 3))
    end)

    it("is out of reach for other tasks, too", function()
      local r, w = pipe()
      local b = uring.buffer(4)
      uring.run(function()
        local reader = uring.spawn(uring.op.read, r, b)
        uring.yield()
        uring.yield()
        assert_lent("read", r, b.get, b)
        assert_lent("read", r, uring.op.read, r, b)
        assert.are.equal(1, uring.op.write(w, "x"))
        assert.are.equal(1, reader:await())
        assert.are.equal("x\0\0\0", b:get())
      end)
    end)

    it("is nothing at all where the length is zero", function()
      local r, w = pipe()
      local b = uring.buffer "abc"
      local op = uring.prepare("read", r, b)
      local none = uring.prepare("read", r, b, 0)
      local empty = uring.prepare("write", w, b:slice(1, 0))
      assert.are.equal(0, empty:await())
      assert.are.equal(0, none:await())
      assert_lent("read", r, b.get, b)
      uring.op.write(w, "x")
      assert.are.equal(1, op:await())
    end)
  end)

  describe("that the kernel only reads", function()
    it("can be read and sent again, but not changed nor read into", function()
      local r, w = pipe()
      local filled = fill_pipe(w)
      local b = uring.buffer "0123456789"
      local first = uring.prepare("write", w, b)
      local second = uring.prepare("write", w, b, 5)
      local third = uring.prepare("writev", w, { b:slice(6), "!", b:slice(1, 5) })
      uring.submit()
      assert.are.equal(25, lent() - 1) -- and the string of one byte
      assert.are.equal("lent", b:status())
      assert.are.equal("0123456789", b:get())
      assert.are.same({ 4, 5 }, { b:find "34" })
      assert.matches("buffer is lent to the kernel (write", helper.error_of(b.set, b, 1, "x"), 1, true)
      assert.matches("buffer is lent to the kernel (write", helper.error_of(b.fill, b), 1, true)
      assert.matches("buffer is lent to the kernel (write", helper.error_of(uring.prepare, "read", r, b), 1, true)
      assert.are.equal(filled, #read_all(r, filled))
      assert.are.equal(10, first:await())
      assert.are.equal(5, second:await())
      assert.are.equal(11, third:await())
      assert.are.equal("owned", b:status())
      b:set(1, "x")
      local got = read_all(r, 26) -- in whatever order they were woken
      for _, part in ipairs { "56789!01234", "0123456789", "01234" } do
        local i, j = got:find(part, 1, true)
        assert.is_truthy(i, got)
        got = got:sub(1, i - 1) .. got:sub(j + 1)
      end
      assert.are.equal("", got)
    end)

    it("may be in one writev many times", function()
      local r, w = pipe()
      local b = uring.buffer "ab"
      assert.are.equal(8, uring.op.writev(w, { b, b, b:slice(), b }))
      assert.are.equal("abababab", read_all(r, 8))
    end)

    it("is not taken for free before the last of its loans has ended", function()
      local r, w = pipe()
      local filled = fill_pipe(w)
      local b = uring.buffer "0123456789"
      local ops = {}
      for i = 1, 10 do
        ops[i] = uring.prepare("write", w, b)
      end
      uring.submit()
      for i = 1, 9 do
        assert.are.equal("cancelled", ops[i]:cancel():await())
        assert_lent("write", w, b.set, b, 1, "x")
      end
      read_all(r, filled)
      assert.are.equal(10, ops[10]:await())
      b:set(1, "x")
      assert.are.equal("0123456789", read_all(r, 10))
    end)
  end)

  describe("of slices", function()
    it("is lent by the byte: disjoint ones are independent", function()
      local r1, w1 = pipe()
      local r2, w2 = pipe()
      local b = uring.buffer "............"
      local left, right = b:slice(1, 4), b:slice(9, 12)
      local first = uring.prepare("read", r1, left)
      local second = uring.prepare("read", r2, right)
      uring.submit()
      assert_lent("read", r1, left.get, left)
      assert_lent("read", r2, right.get, right)
      assert.are.equal("....", b:get(5, 8))
      b:set(5, "mid!")
      assert.are.equal("lent", b:status())
      assert.are.equal("owned", b:slice(5, 8):status())
      uring.op.write(w2, "RRRR")
      assert.are.equal(4, second:await())
      assert.are.equal("mid!RRRR", b:get(5))
      assert_lent("read", r1, b.get, b)
      assert_lent("read", r1, left.get, left)
      uring.op.write(w1, "LLLL")
      assert.are.equal(4, first:await())
      assert.are.equal("LLLLmid!RRRR", b:get())
      assert.are.equal("owned", b:status())
    end)

    it("conflicts exactly where ranges meet, whoever lends first", function()
      local r, w = pipe()
      local b = uring.buffer(40)
      local base = uring.stats().prepared
      local tries, refused = helper.times(1500), 0
      for _ = 1, tries do
        local i, k = math.random(41), math.random(41)
        local j, l = math.random(i - 1, 40), math.random(k - 1, 40)
        local writes1, writes2 = math.random(2) == 1, math.random(2) == 1
        local first = uring.prepare(writes1 and "read" or "write", writes1 and r or w, b:slice(i, j))
        local ok, second = pcall(uring.prepare, writes2 and "read" or "write", writes2 and r or w, b:slice(k, l))
        local meet = math.max(i, k) <= math.min(j, l)
        if ok == (meet and (writes1 or writes2)) then
          error(("(%d, %d) and (%d, %d): %s"):format(i, j, k, l, tostring(second)))
        end
        assert.are.equal(ok and j - i + 1 + l - k + 1 or j - i + 1, lent())
        first:cancel()
        if ok then
          second:cancel()
        else
          refused = refused + 1
        end
        uring.yield()
        assert.are.equal("owned", b:status())
      end
      assert.are.equal(base + 2 * tries - refused, uring.stats().prepared)
      assert.is_true(refused > 0 and refused < tries)
    end)

    it("of slices is the same block", function()
      local r, w = pipe()
      local b = uring.buffer(100)
      local inner = b:slice(11, 90):slice(11, 70):slice(11, 50) -- 31 … 70
      local op = uring.prepare("read", r, inner)
      assert.are.equal(40, lent())
      assert.are.equal(("\0"):rep(30), b:get(1, 30))
      assert.are.equal(("\0"):rep(30), b:get(71))
      assert_lent("read", r, b.get, b, 30, 31)
      assert_lent("read", r, b.get, b, 70, 71)
      uring.op.write(w, "x")
      assert.are.equal(1, op:await())
      assert.are.equal("\0x\0", b:get(30, 32))
    end)
  end)

  describe("refused", function()
    local function assert_nothing_lent(operation, fd, ...)
      local before = uring.stats()
      assert_lent(operation, fd, uring.prepare, ...)
      assert.are.same(before, uring.stats())
    end

    it("leaves nothing lent: the same Buffer twice in one readv", function()
      local r, w = pipe()
      local a, b = uring.buffer(8), uring.buffer(8)
      assert_nothing_lent("readv", r, "readv", r, { a, a })
      assert_nothing_lent("readv", r, "readv", r, { a, b, a })
      assert_nothing_lent("readv", r, "readv", r, { a:slice(1, 4), b, a:slice(4, 8) })
      assert_nothing_lent("recvmsg", r, "recvmsg", r, { data = { a, b }, control = b })
      assert_nothing_lent("raw", r, "raw", { opcode = const.IORING_OP_READ, fd = r, addr = a, addr3 = a })
      assert.are.equal("owned", a:status())
      assert.are.equal("owned", b:status())
      uring.op.write(w, "0123456789ABCDEF")
      assert.are.equal(16, uring.op.readv(r, { a:slice(1, 4), b, a:slice(5, 8) }))
      assert.are.equal("0123CDEF", a:get())
      assert.are.equal("456789AB", b:get())
    end)

    it("leaves nothing lent: one of a thousand is lent already", function()
      local r = pipe()
      local taken = uring.buffer(8)
      local op = uring.prepare("read", r, taken)
      for _, place in ipairs { 1, 2, 500, 1000 } do
        local all = {}
        for i = 1, 1000 do
          all[i] = i == place and taken or uring.buffer(8)
        end
        assert_nothing_lent("read", r, "readv", r, all)
        for i = 1, 1000 do
          assert.are.equal(i == place and "lent" or "owned", all[i]:status())
        end
      end
      op:cancel():await()
    end)

    it("leaves nothing lent: bad arguments", function()
      local r = pipe()
      local a = uring.buffer(8)
      local closed = uring.buffer(8)
      closed:close()
      local before = uring.stats()
      for _, call in ipairs {
        { "readv", r, { a, closed } }, { "readv", r, { a, "string" } }, { "readv", r, { a, 1 } },
        { "readv", r, { a }, 2 }, { "readv", r, { a }, 1, 0, 0, {}, 1 }, { "readv", r, { a }, { nonsense = true } },
        { "read", r, a, 9 }, { "read", r, a, -1 }, { "read", -1, a }, { "read", r, a, 8, 0, 0, { link = 1 } },
        { "read", r, a, 8, 0, 0, 0 }, { "read", r, "string" }, { "read", r, a, {}, {} },
        { "recvmsg", r, { data = a, control = closed } }, { "writev", r, { a, {} } },
        { "raw", { opcode = 22, fd = r, addr = a, addr2 = "string" } },
        { "raw", { opcode = 22, fd = r, addr = a, addr3 = closed } },
        { "raw", { opcode = 22, fd = r, addr = a, adr = 1 } },
        { "raw", { opcode = 256, fd = r, addr = a } },
      } do
        assert.is_false((pcall(uring.prepare, table.unpack(call))), call[1])
        assert.is_false((pcall(uring.op[call[1]], table.unpack(call, 2))), call[1])
        assert.are.equal("owned", a:status())
      end
      assert.are.same(before, uring.stats())
    end)
  end)

  describe("comes back with the result", function()
    it("of success", function()
      local r, w = pipe()
      local b = uring.buffer(8)
      local op = uring.prepare("read", r, b)
      uring.op.write(w, "12345678")
      uring.submit()
      eventually(function() return op:status() == "done" end)
      assert.are.equal("12345678", b:get()) -- before anybody has awaited it
      assert.are.equal(8, op:await())
    end)

    it("of failure", function()
      local r, w = pipe()
      local b = uring.buffer "unchanged"
      local cases = {
        { errno.EBADF, "read", w, b };
        { errno.EBADF, "write", r, b };
        { errno.EBADF, "readv", w, { b } };
        { errno.EBADF, "read", 1 << 20, b };
        { errno.ENOTSOCK, "recv", r, b };
        { errno.ENOTSOCK, "sendmsg", w, { data = { "x", b } } };
        { errno.ENOTSOCK, "recvmsg", r, { data = b } };
        { errno.ENOSYS, "raw", { opcode = 255, fd = r, addr = b } };
      }
      for _, case in ipairs(cases) do
        local op = uring.prepare(table.unpack(case, 2))
        assert.are.equal("lent", b:status())
        local n, _, code = op:await()
        assert.is_nil(n)
        assert.are.equal(case[1], code, case[2])
        assert.are.equal("owned", b:status())
        assert.are.equal("unchanged", b:set(1, "u"):get())
      end
    end)

    it("of a failure inside a task", function()
      local _, w = pipe()
      local b = uring.buffer(8)
      uring.run(function()
        local n, message, code = uring.op.read(w, b)
        assert.is_nil(n)
        assert.are.equal("read: Bad file descriptor", message)
        assert.are.equal(errno.EBADF, code)
        assert.are.equal("owned", b:status())
      end)
    end)

    it("of cancellation, submitted or not", function()
      local r = pipe()
      local b = uring.buffer "unchanged"
      for _, submitted in ipairs { false, true } do
        local op = uring.prepare("read", r, b)
        if submitted then
          uring.submit()
        end
        local c = op:cancel()
        -- asked for is not done: the kernel may be writing still
        assert_lent("read", r, b.get, b)
        assert.are.equal("cancelled", c:await())
        assert.are.equal("unchanged", b:get())
      end
    end)

    it("of a short read: all of it", function()
      local r, w = pipe()
      local b = uring.buffer(4096)
      uring.op.write(w, "x")
      assert.are.equal(1, uring.op.read(r, b))
      assert.are.equal("owned", b:status())
      assert.are.equal(0, lent())
    end)

    it("of a zero-copy send, once the kernel is done with the data as well", function()
      local listener, address = listen()
      local client = assert(uring.connect(address))
      opened.keep(client)
      local server = assert(uring.op.accept(listener))
      for round = 1, 20 do
        local contents = text(round, 32768)
        local b = uring.buffer(contents)
        local op = uring.prepare("raw", { opcode = SEND_ZC, fd = server, addr = b })
        assert_lent("raw", server, b.set, b, 1, "x")
        local n, message, code = op:await()
        if code == errno.EINVAL or code == errno.EOPNOTSUPP then
          uring.op.close(server)
          return pending "no zero-copy send here"
        end
        assert.is_true(n and n > 0, message) -- not the 0 of the notification
        b:fill(0) -- what was sent is not what is here now
        assert.are.equal(contents:sub(1, n), read_all(client:fd(), n))
      end
      uring.op.close(server)
    end)
  end)

  describe("of a Buffer that is gone", function()
    it("is still there for the kernel: closed while lent", function()
      local r, w = pipe()
      local b = uring.buffer(100000)
      local op = uring.prepare("read", r, b)
      b:close()
      assert.are.equal(100000, lent())
      uring.submit()
      collect()
      for _ = 1, 10 do
        uring.buffer(100000):fill(1)
      end
      uring.op.write(w, "hello")
      assert.are.equal(5, op:await())
      assert.are.equal(0, lent())
    end)

    it("is still there for the kernel: collected while lent", function()
      local r, w = pipe()
      local ops = {}
      for i = 1, 50 do
        ops[i] = uring.prepare("read", r, uring.buffer(5000))
      end
      uring.submit()
      collect()
      local others = {}
      for i = 1, 60 do -- what would be hit, were it free
        others[i] = uring.buffer(("o"):rep(5000))
      end
      assert.are.equal(250000, lent())
      for i = 1, 50 do
        assert.are.equal(8, uring.op.write(w, ("%08d"):format(i)))
        eventually(function() return lent() == 250000 - i * 5000 end)
      end
      for i = 1, 50 do
        assert.are.equal(8, ops[i]:await())
      end
      for i = 1, 60 do
        assert.is_true(others[i]:get() == ("o"):rep(5000))
      end
    end)

    it("arrives in the slices that are left", function()
      local r, w = pipe()
      local b = uring.buffer(1000)
      local slice = b:slice(500, 509)
      local op = uring.prepare("read", r, b)
      b:close()
      b = nil -- luacheck: ignore
      collect()
      assert_lent("read", r, slice.get, slice)
      uring.op.write(w, ("0123456789"):rep(100))
      assert.are.equal(1000, op:await())
      assert.are.equal("9012345678", slice:get())
    end)

    it("is gone with handle, Buffer and slices all dropped", function()
      local r, w = pipe()
      local before = uring.stats().orphaned
      for _ = 1, 20 do
        local b = uring.buffer(3000)
        uring.prepare("readv", r, { b:slice(1, 1000), b:slice(1001, 2000), b:slice(2001) })
      end
      uring.submit()
      assert.are.equal(60000, lent())
      collect()
      assert.are.equal(before + 20, uring.stats().orphaned)
      eventually(function() return lent() == 0 end)
      assert.are.equal(0, uring.stats().in_flight)
      uring.op.write(w, "nothing is lost")
      assert.are.equal("nothing is lost", read_all(r, 15))
    end)

    it("survives finalisers that close it while it is being lent", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local r, _keeps_it_open = uring.pipe()
        local lent, refused = 0, 0
        for i = 1, 6000 do
          local b = uring.buffer(64)
          setmetatable({}, { __gc = function() b:close() end })
          local ok, op = pcall(uring.prepare, i % 2 == 0 and "read" or "readv", r:fd(), i % 2 == 0 and b or { b })
          if ok then
            lent = lent + 1
            op:cancel()
          else
            assert(op:find("attempt to use a closed buffer", 1, true), op)
            refused = refused + 1
          end
          if i % 500 == 0 then
            uring.yield()
          end
        end
        uring.yield()
        print(lent + refused, uring.stats().bytes_lent, uring.stats().in_flight)
      ]]
      assert.are.equal("6000\t0\t0\n", output)
      assert.are.equal(0, status)
    end)

    it("survives finalisers that close the ring while it is being lent", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local r, _keeps_it_open = uring.pipe()
        local b = uring.buffer(64)
        local refused
        for _ = 1, 3000 do
          local ring = uring.ring { entries = 4 }
          setmetatable({}, { __gc = function() ring:close() end })
          for _ = 1, 4 do
            local ok, op = pcall(ring.prepare, ring, "read", r:fd(), b)
            if ok then
              op:cancel()
              pcall(ring.submit, ring)
              pcall(op.await, op)
            else
              assert(op:find("attempt to use a closed ring", 1, true), op)
              refused = true
              break
            end
          end
          ring:close()
          assert(b:status() == "owned")
        end
        print "done"
      ]]
      assert.are.equal("done\n", output)
      assert.are.equal(0, status)
    end)

    it("survives finalisers that lend by themselves while something is being lent", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local ring = uring.ring { entries = 8, backlog = 2000 }
        local r, w = uring.pipe()
        local made, failed = {}, nil
        for i = 1, 1500 do
          setmetatable({}, { __gc = function()
            for _ = 1, 3 do
              made[#made + 1] = ring:prepare("write", w:fd(), ("f%05d"):format(#made))
            end
          end })
          made[#made + 1] = ring:prepare("write", w:fd(), ("m%05d"):format(#made))
          if #made > 1000 then
            break
          end
        end
        collectgarbage "stop" -- what is made from here on is counted
        local b, total = uring.buffer(6), #made
        ring:submit()
        for i = 1, total do
          assert(made[i]:await() == 6)
          assert(uring.op.read(r:fd(), b) == 6)
          local n = tonumber(b:get(2))
          if not n then failed = b:get() end
        end
        print(failed, ring:stats().bytes_lent, ring:stats().in_flight)
        os.exit(0)
      ]]
      assert.are.equal("nil\t0\t0\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("of a string", function()
    it("stays while it is written, whatever is collected", function()
      local r, w = pipe()
      local rounds, size = helper.times(20), 1 << 20
      local filled = fill_pipe(w)
      for round = 1, rounds do
        local op = uring.prepare("write", w, text(round, size))
        collectgarbage()
        assert.are.equal(size, lent())
        uring.submit()
        collectgarbage()
        local other = text(round + 1000, size) -- where the first was, if it is not anchored
        read_all(r, filled)
        collectgarbage()
        local n = op:await()
        collectgarbage()
        assert.are.equal(0, lent())
        assert.is_true(n > 0)
        assert.is_true(text(round, n) == read_all(r, n), "it is another string")
        filled = fill_pipe(w)
        assert.are.equal(size, #other)
      end
      read_all(r, filled)
    end)

    it("stays while it is sent bit by bit", function()
      local a, z = socketpair()
      local size = 1 << 20
      for round = 1, 3 do
        local op = uring.prepare("send", a, text(round, size), nil, const.MSG_WAITALL)
        uring.submit()
        local got, total = {}, 0
        while total < size do
          collectgarbage()
          local part = read_all(z, math.min(65536, size - total))
          got[#got + 1], total = part, total + #part
          text(round + 1000, size)
          if total < size // 2 then
            assert.are.equal(size, lent())
          end
        end
        assert.are.equal(size, op:await())
        assert.is_true(table.concat(got) == text(round, size))
      end
    end)

    it("stays in a vector, whatever happens to the table", function()
      local r, w = pipe()
      local filled = fill_pipe(w)
      local parts, expected = {}, {}
      for i = 1, 200 do
        parts[i] = i % 3 == 0 and uring.buffer(text(i, 100)) or text(i, 100)
        expected[i] = text(i, 100)
      end
      local op = uring.prepare("writev", w, parts)
      for i = 1, 200 do
        parts[i] = text(-i, 100)
      end
      parts = nil -- luacheck: ignore
      collect()
      assert.are.equal(20000, lent())
      uring.submit()
      read_all(r, filled)
      local n = op:await()
      assert.are.equal(table.concat(expected):sub(1, n), read_all(r, n))
    end)

    it("stays as a path and as a message", function()
      local function path(i)
        return "/nonexistent/" .. text(i, 200) .. ".file"
      end
      local ops = {}
      for i = 1, 100 do
        ops[i] = uring.prepare("openat", nil, path(i), const.O_RDONLY, 0, { async = true })
      end
      collect()
      for i = 1, 100 do
        path(-i)
      end
      for i = 1, 100 do
        local fd, _, code = ops[i]:await()
        assert.is_nil(fd)
        assert.are.equal(errno.ENOENT, code)
      end
      local a, z = socketpair()
      for i = 1, 50 do
        local op = uring.prepare("sendmsg", a, { data = { text(i, 300), uring.buffer(text(i + 1, 300)) } })
        collect()
        text(-i, 300)
        assert.are.equal(600, op:await())
        assert.are.equal(text(i, 300) .. text(i + 1, 300), read_all(z, 600))
      end
    end)

    it("is let go with the result", function()
      local _, w = pipe()
      local op
      local freed = false
      do
        local sentinel = setmetatable({}, { __gc = function() freed = true end })
        op = uring.prepare("raw", { opcode = const.IORING_OP_WRITE, fd = w, addr = "x", keep = { sentinel } })
      end
      collect()
      assert.is_false(freed)
      assert.are.equal(1, op:await())
      collect()
      assert.is_true(freed)
    end)
  end)

  describe("of a table of Buffers", function()
    it("is what the table held at prepare", function()
      local r, w = pipe()
      local a, b, c = uring.buffer(4), uring.buffer(4), uring.buffer(4)
      local list = { a, b }
      local op = uring.prepare("readv", r, list)
      list[1], list[2], list[3] = c, nil, c
      assert.are.equal("owned", c:status())
      assert_lent("readv", r, a.get, a)
      assert_lent("readv", r, b.get, b)
      uring.op.write(w, "aaaabbbbcccc")
      assert.are.equal(8, op:await())
      assert.are.equal("aaaa", a:get())
      assert.are.equal("bbbb", b:get())
      assert.are.equal("\0\0\0\0", c:get())
      assert.are.equal("cccc", read_all(r, 4))
    end)

    it("is only as many as were asked for", function()
      local r, w = pipe()
      local a, b = uring.buffer(2), uring.buffer(2)
      local op = uring.prepare("readv", r, { a, b }, 1)
      assert.are.equal("lent", a:status())
      assert.are.equal("owned", b:status())
      uring.op.write(w, "xyz")
      assert.are.equal(2, op:await())
      assert.are.equal("z", read_all(r, 1))
    end)
  end)

  describe("of operations that nobody wants any more", function()
    it("comes back: thousands of handles dropped with reads in flight", function()
      local r, w = pipe()
      local count = helper.times(5000)
      local before = uring.stats()
      for i = 1, count do
        uring.prepare(i % 2 == 0 and "read" or "recv", r, uring.buffer(64))
        if i % 1000 == 0 then
          collectgarbage()
          uring.submit()
        end
      end
      uring.submit()
      collect()
      assert.are.equal(before.orphaned + count, uring.stats().orphaned)
      eventually(function() return lent() == 0 end)
      local after = uring.stats()
      assert.are.equal(0, after.in_flight)
      assert.are.equal(0, after.backlog)
      assert.are.equal(count, after.completed - before.completed)
      uring.op.write(w, "x")
      assert.are.equal("x", read_all(r, 1))
    end)

    it("comes back: dropped before they reach the kernel", function()
      local r, w = pipe()
      local before = uring.stats()
      for _ = 1, 500 do -- more than the submission queue holds
        uring.prepare("read", r, uring.buffer(64))
      end
      collect()
      assert.are.equal(before.orphaned + 500, uring.stats().orphaned)
      uring.op.write(w, "x")
      eventually(function() return uring.stats().backlog == 0 and lent() == 0 end)
      assert.are.equal("x", read_all(r, 1)) -- none of them took it
    end)

    it("comes back: writes of strings into a full pipe", function()
      local r, w = pipe()
      local filled = fill_pipe(w)
      for i = 1, 200 do
        uring.prepare("write", w, text(i, 10000))
      end
      uring.submit()
      assert.are.equal(2000000, lent())
      collect()
      eventually(function() return lent() == 0 end)
      assert.are.equal(filled, #read_all(r, filled))
      assert_empty(r)
    end)

    it("comes back: the ring itself dropped with reads in flight", function()
      local r, w = pipe()
      local b = uring.buffer(16)
      local before = fds();
      (function()
        local ring = uring.ring { entries = 8 }
        ring:prepare("read", r, b)
        ring:submit()
        assert.are.equal("lent", b:status())
      end)()
      collect()
      eventually(function()
        uring.ring({ entries = 1 }):close() -- a new ring looks after the old ones
        return b:status() == "owned"
      end)
      uring.op.write(w, "here")
      assert.are.equal(4, uring.op.read(r, b))
      assert.are.equal("here", b:get(1, 4))
      eventually(function()
        collect()
        return fds() == before
      end)
    end)

    it("is never held up where a Lua state ends with loans out", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local r, w = uring.pipe()
        local rings, keep = {}, {}
        for i = 1, 4 do
          rings[i] = uring.ring { entries = 4 }
        end
        for i = 1, 100 do
          local ring = rings[i % 4 + 1]
          keep[#keep + 1] = ring:prepare("read", r:fd(), uring.buffer(1000))
          keep[#keep + 1] = uring.prepare("readv", r:fd(), { uring.buffer(10), uring.buffer(20) })
          if i % 10 == 0 then ring:submit() end
        end
        uring.op.write(w:fd(), ("x"):rep(65536), 65536 - 40000)
        for i = 1, 50 do
          keep[#keep + 1] = uring.prepare("write", w:fd(), ("y"):rep(100000))
        end
        uring.submit()
        uring.spawn(function() uring.op.read(r:fd(), uring.buffer(10)) end)
        uring.spawn(function() uring.sleep(1000) end)
        uring.yield()
        print "end"
      ]]
      assert.are.equal("end\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("a descriptor that nobody takes", function()
    -- Connects without touching the default ring.
    local function connect(other, address)
      local fd = assert(other:prepare("socket", const.AF_INET, const.SOCK_STREAM):await())
      assert.are.equal(0, other:prepare("connect", fd, address):await())
      return fd
    end

    local function assert_closed(before)
      eventually(function() return fds() == before end, "a descriptor leaked")
    end

    it("is closed: an accept dropped at any moment", function()
      local listener, address = listen()
      local other <close> = uring.ring { entries = 4 }
      local before = fds()
      for moment = 1, 6 do
        for _ = 1, 5 do
          local op, client
          op = uring.prepare("accept", listener)
          if moment >= 2 then uring.submit() end
          if moment >= 3 then client = connect(other, address) end
          if moment >= 4 then uring.submit() end -- completed, not reaped
          if moment >= 5 then uring.yield() end
          if moment >= 6 then eventually(function() return op:status() == "done" end) end
          op = nil -- luacheck: ignore
          collect()
          client = client or connect(other, address)
          uring.yield()
          eventually(function() return uring.stats().in_flight == 0 end)
          uring.op.close(client)
        end
        -- whoever was not accepted is waiting: take them
        for _ = 1, 30 do
          local op = uring.prepare("accept", listener)
          uring.submit()
          uring.yield()
          local outcome, fd = op:cancel():await()
          if outcome == "cancelled" then break end
          uring.op.close(fd)
        end
        assert_closed(before)
      end
    end)

    it("is closed: a multishot accept dropped with connections untaken", function()
      local listener, address = listen()
      local other <close> = uring.ring { entries = 4 }
      local before = fds()
      local clients = {}
      local op = uring.prepare("accept", listener, { multishot = true })
      uring.submit()
      for i = 1, 8 do
        clients[i] = connect(other, address)
      end
      uring.yield()
      eventually(function() return fds() == before + 16 end)
      local fd = assert(op:await())
      uring.op.close(fd)
      op = nil -- luacheck: ignore
      collect()
      eventually(function() return fds() == before + 8 end, "a descriptor leaked")
      for i = 1, 8 do
        uring.op.close(clients[i])
      end
      assert_closed(before)
    end)

    it("is closed: an accept that a <close> variable ends", function()
      local listener, address = listen()
      local other <close> = uring.ring { entries = 4 }
      local before = fds()
      local client
      do
        local op <close> = uring.prepare("accept", listener)
        uring.submit()
        client = connect(other, address)
        eventually(function() return op:status() == "done" end)
        assert.are.equal(before + 2, fds())
      end
      assert.are.equal(before + 1, fds())
      uring.op.close(client)
      assert_closed(before)
    end)

    it("is closed: files and sockets, by name and raw", function()
      local path = uring.buffer "/dev/null\0"
      local how = uring.buffer(24) -- struct open_how: O_RDONLY
      local calls = {
        openat = { "openat", nil, "/dev/null" };
        openat_async = { "openat", nil, "/dev/null", 0, 0, { async = true } };
        socket = { "socket", const.AF_INET, const.SOCK_STREAM };
        raw_openat = { "raw", { opcode = const.IORING_OP_OPENAT, fd = const.AT_FDCWD, addr = "/dev/null\0", len = 0 } };
        raw_openat2 = { "raw", { opcode = OPENAT2, fd = const.AT_FDCWD, addr = path, addr2 = how, len = 24 } };
        raw_socket = { "raw", { opcode = const.IORING_OP_SOCKET, fd = const.AF_INET, off = const.SOCK_STREAM } };
      }
      for name, call in pairs(calls) do
        local before = fds()
        local fd = assert(uring.prepare(table.unpack(call, 1, 6)):await(), name)
        assert.are.equal(before + 1, fds(), name)
        uring.op.close(fd)
        for moment = 1, 4 do
          local op = uring.prepare(table.unpack(call, 1, 6))
          if moment >= 2 then uring.submit() end
          if moment >= 3 then uring.yield() end
          if moment >= 4 then eventually(function() return op:status() == "done" end) end
          op = nil -- luacheck: ignore
          collect()
          uring.yield()
          eventually(function() return uring.stats().in_flight == 0 end)
          collect()
          eventually(function() return fds() == before end, name .. ": a descriptor leaked")
        end
      end
    end)

    it("is kept once it was handed out, though the handle goes", function()
      local before = fds()
      local fd
      do
        local op <close> = uring.prepare("openat", nil, "/dev/null")
        fd = assert(op:await())
      end
      collect()
      assert.are.equal(before + 1, fds())
      assert.are.equal(0, uring.op.close(fd))
      assert.are.equal(before, fds())
    end)

    it("is not any number: results of other operations are no descriptors", function()
      local r, w = pipe()
      local before = fds()
      for result = 0, 19 do
        uring.prepare("write", w, ("x"):rep(result))
        uring.submit()
        collect()
        uring.yield()
      end
      assert.are.equal(before, fds())
      assert.is_true(#read_all(r, 190) == 190)
    end)
  end)

  describe("of raw", function()
    it("is no string where the kernel may write", function()
      local r = pipe()
      for _, opcode in ipairs { const.IORING_OP_READ, const.IORING_OP_RECV, const.IORING_OP_READV,
        const.IORING_OP_WRITEV, const.IORING_OP_RECVMSG, const.IORING_OP_SENDMSG, const.IORING_OP_TIMEOUT,
        const.IORING_OP_ACCEPT, const.IORING_OP_NOP, MSG_RING, 200, 255 } do
        assert.matches("the kernel may write there: give it a Buffer",
          helper.error_of(uring.prepare, "raw", { opcode = opcode, fd = r, addr = "string" }), 1, true)
      end
      for _, name in ipairs { "addr2", "addr3" } do
        assert.matches("the kernel may write there: give it a Buffer",
          helper.error_of(uring.prepare, "raw", { opcode = const.IORING_OP_STATX, addr = "/", [name] = "s" }), 1, true)
        assert.matches("the kernel may write there: give it a Buffer",
          helper.error_of(uring.prepare, "raw", { opcode = const.IORING_OP_WRITE, addr = "/", [name] = "s" }), 1, true)
      end
    end)

    it("may be a string where it only reads", function()
      local r, w = pipe()
      local a, z = socketpair()
      assert.are.equal(5, uring.op.raw { opcode = const.IORING_OP_WRITE, fd = w, addr = "hello" })
      assert.are.equal("hello", read_all(r, 5))
      assert.are.equal(3, uring.op.raw { opcode = const.IORING_OP_SEND, fd = a, addr = "hello", len = 3 })
      assert.are.equal("hel", read_all(z, 3))
      local fd = assert(uring.op.raw { opcode = const.IORING_OP_OPENAT, fd = -100, addr = "/dev/null\0", len = 0 })
      uring.op.close(fd)
    end)

    it("is a Buffer that nobody else has meanwhile", function()
      local r, w = pipe()
      local b = uring.buffer(8)
      local op = uring.prepare("raw", { opcode = const.IORING_OP_READ, fd = r, addr = b })
      assert.are.equal(8, lent())
      assert_lent("raw", r, b.get, b)
      assert_lent("raw", r, uring.prepare, "write", w, b)
      uring.op.write(w, "12345678")
      assert.are.equal(8, op:await())
      assert.are.equal("12345678", b:get())
    end)

    it("keeps what keep names until the end, whatever happens to the table", function()
      local r, w = pipe()
      local gone = 0
      local function sentinel()
        return setmetatable({}, { __gc = function() gone = gone + 1 end })
      end
      local b = uring.buffer(4)
      local keep = { sentinel(), sentinel(), { sentinel() } }
      local arguments = { opcode = const.IORING_OP_READ, fd = r, addr = b, keep = keep }
      local op = uring.prepare("raw", arguments)
      keep[1], keep[2], keep[3], arguments.keep = nil, nil, nil, nil
      collect()
      assert.are.equal(0, gone)
      uring.submit()
      collect()
      assert.are.equal(0, gone)
      uring.op.write(w, "x")
      assert.are.equal(1, op:await())
      collect()
      assert.are.equal(3, gone)
    end)

    it("keeps one value as well, and after the handle is dropped", function()
      local r = pipe()
      local gone = false
      local function holder(value)
        return function() return value end
      end
      do
        local sentinel = setmetatable({}, { __gc = function() gone = true end })
        local op = uring.prepare("raw", {
          opcode = const.IORING_OP_READ, fd = r, addr = uring.buffer(4), keep = holder(sentinel);
        })
        sentinel = nil -- luacheck: ignore
        collect()
        assert.is_false(gone)
        uring.submit()
        collect()
        assert.is_false(gone)
        assert.are.equal("submitted", op:status())
        op = nil -- luacheck: ignore
      end
      eventually(function()
        collect()
        return gone
      end)
      assert.are.equal(0, uring.stats().in_flight)
    end)
  end)

  describe("collected at every point", function()
    it("comes to the same: reads, writes, vectors, cancels", function()
      local r, w = pipe()
      for i = 1, helper.times(100) do
        local cancel = i % 3 == 0
        collectgarbage()
        local b = uring.buffer(64)
        collectgarbage()
        local op = i % 2 == 0 and uring.prepare("read", r, b)
          or uring.prepare("readv", r, { b:slice(1, 4), b:slice(5) })
        collectgarbage()
        uring.submit()
        collectgarbage()
        local c = cancel and op:cancel()
        collectgarbage()
        local out = uring.prepare(i % 5 == 0 and "write" or "writev", w, i % 5 == 0 and text(i, 9) or { text(i, 9) })
        collectgarbage()
        uring.submit()
        collectgarbage()
        uring.yield()
        collectgarbage()
        assert.are.equal(9, out:await())
        collectgarbage()
        if cancel then
          local outcome, n = c:await()
          collectgarbage()
          if outcome == "cancelled" then
            assert.are.equal(text(i, 9), read_all(r, 9))
          else
            assert.are.equal(9, n)
            assert.are.equal(text(i, 9), b:get(1, 9))
          end
        else
          assert.are.equal(9, op:await())
          assert.are.equal(text(i, 9), b:get(1, 9))
        end
        collectgarbage()
        assert.are.equal("owned", b:status())
      end
      assert_empty(r)
    end)

    it("comes to the same in tasks, with the handles dropped behind them", function()
      local r, w = pipe()
      local count = helper.times(60)
      uring.run(function()
        local readers = {}
        for i = 1, count do
          readers[i] = uring.spawn(function()
            local b = uring.buffer(8)
            collectgarbage()
            assert.are.equal(8, uring.op.read(r, b))
            collectgarbage()
            uring.prepare("read", r, uring.buffer(1)) -- dropped, cancelled
            collectgarbage()
            return b:get()
          end)
        end
        for i = 1, count do
          collectgarbage()
          uring.op.write(w, ("%08d"):format(i))
        end
        local seen = {}
        for i = 1, count do
          seen[readers[i]:await()] = true
        end
        for i = 1, count do
          assert.is_true(seen[("%08d"):format(i)])
        end
      end)
    end)
  end)

  it("is counted exactly, in and out", function()
    local r, w = pipe()
    local silent = pipe()
    local b = uring.buffer(1000)
    local before = uring.stats()
    local ops = {
      uring.prepare("read", silent, b:slice(1, 100));
      uring.prepare("readv", silent, { b:slice(101, 200), b:slice(201, 250) });
      uring.prepare("write", w, "12345");
      uring.prepare("write", w, "12345", 2);
      uring.prepare("writev", w, { "123", b:slice(500, 509), "" });
      uring.prepare("write", w, b:slice(501, 600), 50);
      uring.prepare("nop");
    }
    assert.are.equal(100 + 150 + 5 + 2 + 13 + 50, lent())
    assert.are.equal(before.prepared + 7, uring.stats().prepared)
    assert.are.equal(0, uring.stats().in_flight)
    for i = 3, 7 do
      assert(ops[i]:await())
    end
    assert.are.equal(250, lent())
    assert.are.equal(2, uring.stats().in_flight)
    assert.are.equal(before.completed + 5, uring.stats().completed)
    assert.are.equal("cancelled", ops[2]:cancel():await())
    assert.are.equal(100, lent())
    assert.are.equal("cancelled", ops[1]:cancel():await())
    assert.are.equal(0, lent())
    assert.are.equal(before.completed + 7, uring.stats().completed)
    assert.are.equal(before.cancelled + 2, uring.stats().cancelled)
    assert.are.equal(0, uring.stats().in_flight)
    assert.are.equal(70, #read_all(r, 70))
  end)
end)
