-- Pools: who has which buffer, and what is received into them.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local shared = require "spec.support.pools"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit
local socketpair, pipe, keep = opened.socketpair, opened.pipe, opened.keep
local error_of, collect = helper.error_of, helper.collect
local kept, dgrams, pool, counts = shared.kept, shared.dgrams, shared.pool, shared.counts
local assert_out, assert_quiet, turn, send = shared.assert_out, shared.assert_quiet, shared.turn, shared.send
local text_of, script, assert_script = shared.text_of, shared.script, shared.assert_script

local seed = tonumber(os.getenv "URING_SEED") or 20260101

describe("a pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("has 256 buffers of 4096 bytes, all of them the kernel's", function()
    local p = pool()
    assert.are.same({ buffers = 256, size = 4096, provided = 256, out = 0, starved = 0, incremental = false,
      outgoing = false }, p:stats())
    assert.are.equal(256, #p)
    assert.are.equal("pool (256 of 256 buffers of 4096 bytes)", tostring(p))
  end)

  it("is as large as is asked for", function()
    for _, n in ipairs { 1, 2, 3, 1000, 32768 } do
      for _, size in ipairs { 1, 2, 3, 4095 // n + 1 } do
        local p <close> = assert(uring.pool { buffers = n, size = size })
        assert.are.equal(n, #p)
        assert.are.same({ n, size, n, 0 }, { p:stats().buffers, p:stats().size, p:stats().provided, p:stats().out })
      end
    end
    local p <close> = assert(uring.pool { buffers = 1, size = 1 << 20 })
    assert.are.equal(1 << 20, p:stats().size)
  end)

  it("is closed by its method, by <close> and by its ring", function()
    local closed
    do
      local p <close> = assert(uring.pool { buffers = 2, size = 8 })
      closed = p
    end
    local ring = uring.ring { entries = 4 }
    local of_ring = assert(ring:pool { buffers = 2, size = 8 })
    assert.are.equal("pool (2 of 2 buffers of 8 bytes)", tostring(of_ring))
    ring:close()
    for _, p in ipairs { closed, of_ring } do
      assert.are.equal("pool (closed)", tostring(p))
      for _ = 1, 2 do
        p:close()
      end
      assert.are.equal(0, p:stats().provided)
      for _, fn in ipairs {
        function() return #p end, function() return p:group() end, function() return p:push "x" end,
        function() return uring.prepare("recv", 0, p) end, function() return uring.prepare("read", 0, p) end,
        function() return uring.prepare("read_multishot", 0, p) end,
        function() return uring.prepare("recvmsg", 0, { data = p }) end,
      } do
        assert.matches("attempt to use a closed pool", error_of(fn), 1, true)
      end
    end
    assert.matches("attempt to use a closed ring", error_of(ring.pool, ring), 1, true)
  end)

  it("says what is wrong with its options", function()
    for _, case in ipairs {
      { { buffers = 0 }, "option 'buffers' of pool: integer from 1 to 32768 expected, got 0" },
      { { buffers = 32769 }, "option 'buffers' of pool: integer from 1 to 32768 expected, got 32769" },
      { { buffers = 1.5 }, "option 'buffers' of pool: integer from 1 to 32768 expected, got 1.5" },
      { { buffers = true }, "option 'buffers' of pool: integer from 1 to 32768 expected, got true" },
      { { size = 0 }, "option 'size' of pool: integer from 1 to 1073741824 expected, got 0" },
      { { size = -1 }, "option 'size' of pool: integer from 1 to 1073741824 expected, got -1" },
      { { size = 0 / 0 }, "option 'size' of pool: integer from 1 to 1073741824 expected" },
      { { size = (1 << 30) + 1 }, "option 'size' of pool: integer from 1 to 1073741824 expected, got 1073741825" },
      { { incremental = 1 }, "option 'incremental' of pool: true or false expected, got 1" },
      { { outgoing = "yes" }, "option 'outgoing' of pool: true or false expected, got yes" },
      { { bufers = 1 }, "unknown option 'bufers' of pool (did you mean 'buffers'?); it takes buffers size incremental "
        .. "outgoing" },
      { { 1 }, "unknown option '?' of pool; it takes buffers size incremental outgoing" },
      { { outgoing = true, incremental = true }, "a pool is incremental or outgoing, not both" },
      { 256, "table expected, got number" },
    } do
      assert.matches(case[2], error_of(uring.pool, case[1]), 1, true)
    end
  end)

  it("that there is no memory for is refused, and nothing is left of it", function()
    if helper.slow then
      return pending "a limit on address space is nothing for sanitizers"
    end
    local output, status = script([[
      local uring = require "uring"
      print(uring.pool { buffers = 2, size = 1 << 30 })
      print(uring.pool { buffers = 32768, size = 1 << 30 })
      print(#uring.pool())
    ]], "prlimit --as=600000000 ")
    local refused <const> = ("nil\tpool: Cannot allocate memory\t%d\n"):format(errno.ENOMEM)
    assert.are.equal(refused .. refused .. "256\n", output)
    assert.are.equal(0, status)
  end)

  it("has a number that no other pool of its ring has", function()
    local pools, seen = {}, {}
    for i = 1, 300 do
      pools[i] = pool { buffers = 1, size = 1 }
      local group = pools[i]:group()
      assert.is_nil(seen[group])
      seen[group] = true
    end
    pools[7]:close()
    local p = pool { buffers = 1, size = 1 }
    assert.are.equal("integer", math.type(p:group()))
  end)

  it("does not mind numbers that the program has taken", function()
    local memory = uring.buffer(64)
    local groups = {}
    local highest = pool { buffers = 1, size = 1 }:group()
    for i = 0, 3 do
      groups[i] = highest - 1 - i -- what would be next
      assert.are.equal(0, op.provide_buffers(memory:slice(16 * i + 1, 16 * i + 16), 16, 1, groups[i], 0))
    end
    local a, b = socketpair()
    send(b, "into the pool")
    local n, x = op.recv(a, pool { buffers = 1, size = 16 })
    assert.are.equal("into the pool", x:get(1, n))
    for i = 0, 3 do
      assert.are.equal(1, op.remove_buffers(1, groups[i]))
    end
    assert.are.equal("owned", memory:status())
  end)

  it("belongs to a ring", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 1 })
    local a = socketpair()
    assert.matches("the pool belongs to another ring", error_of(uring.prepare, "recv", a, p), 1, true)
    assert.matches("the pool belongs to another ring", error_of(op.recv, a, p), 1, true)
    assert.matches("the pool belongs to another ring", error_of(ring.prepare, ring, "recv", a, pool()), 1, true)
  end)

  it("is told from everything else in the place of a Buffer", function()
    local a = socketpair()
    local p, outgoing = pool { size = 8 }, pool { outgoing = true }
    local incremental = pool { incremental = true }
    local small = uring.buffer(1)
    for message, call in pairs {
      ["bad argument 'length' to 'recv' (9 is more than the 8 bytes there are)"] = { "recv", a, p, 9 },
      ["bad argument 'data' to 'write' (Buffer or string expected, got userdata)"] = { "write", a, p },
      ["bad argument 'buffer' to 'read_fixed' (Buffer expected, got userdata)"] = { "read_fixed", a, p },
      ["bad argument 'pool' to 'read_multishot' (Pool expected, got userdata)"] = { "read_multishot", a, small },
      ["bad argument 'message' to 'recvmsg' (Buffer expected at [1], got userdata)"] =
        { "recvmsg", a, { data = { p } } },
      ["bad argument 'message' to 'sendmsg' (Buffer or string expected at [1], got userdata)"] =
        { "sendmsg", a, { data = p } },
      ["recvmsg: without multishot, control is a Buffer"] = { "recvmsg", a, { data = p, control = 16 } },
      ["bad argument 'control' to 'recvmsg' (4097 is out of range)"] =
        { "recvmsg", a, { data = p, control = 4097 }, { multishot = true } },
      ["send: the pool is not for sending"] = { "send", a, p },
      ["recv: the pool is for sending"] = { "recv", a, outgoing },
      ["read: the pool is for sending"] = { "read", a, outgoing },
      ["read: an incremental pool is for recv and read_multishot"] = { "read", a, incremental },
      ["recvmsg: an incremental pool is for recv and read_multishot"] = { "recvmsg", a, { data = incremental } },
      ["recv: an incremental pool is not for bundles"] = { "recv", a, incremental, { bundle = true } },
      ["recv: an incremental pool is not for what is made async"] = { "recv", a, incremental, { async = true } },
      ["recv: an incremental pool is not for MSG_TRUNC"] = { "recv", a, incremental, nil, const.MSG_TRUNC },
      ["recv: a bundle takes no length: it is of whole buffers"] = { "recv", a, p, 4, { bundle = true } },
      ["recv: a bundle is not for what is made async"] = { "recv", a, p, { bundle = true, async = true } },
      ["recv: a bundle is not for MSG_TRUNC"] = { "recv", a, p, nil, const.MSG_TRUNC, { bundle = true } },
      ["multishot recv takes a pool in the place of a Buffer"] = { "recv", a, small, { multishot = true } },
      ["multishot recvmsg takes a pool in the place of a Buffer"] =
        { "recvmsg", a, { data = small }, { multishot = true } },
      ["multishot recv takes no length: it fills buffers"] = { "recv", a, p, 4, { multishot = true } },
      ["a bundle of recv takes a pool in the place of a Buffer"] = { "recv", a, small, { bundle = true } },
      ["a bundle of send takes a pool in the place of a Buffer"] = { "send", a, "x", { bundle = true } },
      ["recv: reuse goes neither with copy nor with bundle"] = { "recv", a, p, { reuse = true, copy = true } },
    } do
      assert.matches(message, error_of(uring.prepare, table.unpack(call, 1, 6)), 1, true)
    end
    assert.matches("recv: a multishot operation needs a handle: use prepare",
      error_of(op.recv, a, p, { multishot = true }), 1, true)
    assert.matches("recv: a Buffer that is used again needs a handle: use prepare",
      error_of(op.recv, a, p, { reuse = true }), 1, true)
  end)
end)

describe("a buffer of a pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("is received into, and goes back when it is closed", function()
    local p = pool { buffers = 4, size = 16 }
    local a, b = socketpair()
    send(b, "hello")
    local n, x = op.recv(a, p)
    assert.are.same({ 5, 5, "hello" }, { n, #x, x:get() })
    assert_out(1, p)
    assert.are.equal("pool (3 of 4 buffers of 16 bytes)", tostring(p))
    x:close()
    x:close()
    assert_out(0, p)
    assert.matches("attempt to use a closed buffer", error_of(x.get, x), 1, true)
  end)

  it("goes back when it is collected", function()
    local p = pool { buffers = 4, size = 16 }
    local a, b = socketpair()
    send(b, "hello")
    op.recv(a, p)
    assert_quiet(p)
  end)

  it("may be changed, sliced and found in, within the bytes that came", function()
    local p = pool { buffers = 1, size = 64 }
    local a, b = socketpair()
    send(b, "0123456789")
    local _, x = op.recv(a, p)
    assert.are.equal(10, #x)
    assert.are.equal("89", x:get(-2))
    assert.are.equal("0123456789", x:get(1, 100))
    assert.matches("do not fit a buffer of 10", error_of(x.set, x, 10, "ab"), 1, true)
    x:set(10, "a"):fill(65, 1, 2)
    local s = x:slice(2, 4)
    assert.are.equal("A23", s:get())
    assert.are.equal(4, x:find "3")
    x:close()
    assert_out(1, p)
    assert.are.equal("A23", s:get())
    s:close()
    assert_out(0, p)
  end)

  it("is kept by any part of it, and by the last of them", function()
    local p = pool { buffers = 2, size = 64 }
    local a, b = socketpair()
    send(b, text_of(64))
    local _, x = op.recv(a, p)
    local slices = {}
    for i = 1, 64 do
      slices[i] = (i > 1 and i % 3 == 0 and slices[i - 1] or x):slice(1, 1)
    end
    x:close()
    for i = 64, 1, -1 do
      assert_out(1, p)
      slices[i]:close()
    end
    assert_out(0, p)
  end)

  it("is kept by a send of it until that has ended", function()
    local p = pool { buffers = 2, size = 1 << 16 }
    local a, b = socketpair()
    local c, d = socketpair()
    op.setsockopt(c, const.SOL_SOCKET, const.SO_SNDBUF, 4096)
    send(b, ("y"):rep(1 << 16))
    local total, sends = 0, {}
    while total < 1 << 16 do
      local n, x = op.recv(a, p)
      total = total + n
      sends[#sends + 1] = uring.prepare("send", c, x, nil, const.MSG_WAITALL)
      uring.submit()
      x:close()
      assert.matches("attempt to use a closed buffer", error_of(x.get, x), 1, true)
    end
    assert.are.equal(#sends, p:stats().out)
    local got = 0
    local buffer = uring.buffer(8192)
    while got < total do
      local n = op.recv(d, buffer)
      assert.are.equal(("y"):rep(n), buffer:get(1, n))
      got = got + n
    end
    for _, one in ipairs(sends) do
      assert(one:await())
    end
    assert_out(0, p)
  end)

  it("is lent like any other", function()
    local p = pool { buffers = 1, size = 16 }
    local a, b = socketpair()
    local r, w = pipe()
    send(b, "0123456789")
    local _, x = op.recv(a, p)
    local reading = uring.prepare("read", r, x, 4)
    uring.submit()
    assert.are.equal("lent", x:status())
    assert.matches(("buffer is lent to the kernel (read on fd %d)"):format(r), error_of(x.get, x), 1, true)
    assert.are.equal("456789", x:get(5))
    x:close()
    assert_out(1, p)
    op.write(w, "abcd")
    assert.are.equal(4, reading:await())
    assert_out(0, p)
  end)

  it("can be registered, and is the pool's again when it is not any more", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 4096 })
    local a, b = socketpair()
    send(b, "data")
    local _, x = ring:prepare("recv", a, p):await()
    assert.is_true(ring:register_buffers { x })
    x:close()
    assert_out(1, p)
    assert.is_true(ring:unregister_buffers())
    assert_out(0, p)
  end)

  it("outlives its pool and its ring", function()
    local ring = opened.ring()
    local a, b = socketpair()
    local function received()
      local p = ring:pool { buffers = 2, size = 16 }
      send(b, "data")
      local _, x = ring:prepare("recv", a, p):await()
      return x, p
    end
    local one, p = received()
    p:close()
    assert.are.equal("data", one:get())
    assert.are.same({ provided = 0, out = 1 }, counts(p))
    local two = received()
    collect()
    local three = received()
    ring:close()
    collect()
    for _, x in ipairs { one, two, three } do
      local s = x:set(1, "DATA"):slice(2, 3)
      x:close()
      assert.are.equal("AT", s:get())
      s:close()
    end
    assert.are.same({ provided = 0, out = 0 }, counts(p))
  end)

  it("is handed out once", function()
    local p = pool { buffers = 4, size = 16 }
    local a, b = socketpair()
    local recv = uring.prepare("recv", a, p)
    send(b, "once")
    local _, x = recv:await()
    assert.are.equal("once", x:get())
    assert.are.same({ 4, n = 1 }, table.pack(recv:await()))
    assert_out(1, p)
  end)
end)

describe("receiving into a pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("takes as much as fits one buffer, or as is asked for", function()
    local p = pool { buffers = 8, size = 10 }
    local a, b = socketpair()
    send(b, "0123456789abcdefghijkl")
    local held = {}
    for i, case in ipairs { { nil, 10, "0123456789" }, { 3, 3, "abc" }, { 0, 9, "defghijkl" } } do
      local n, x = op.recv(a, p, case[1])
      assert.are.same({ case[2], case[3] }, { n, x:get() })
      held[i] = x
      assert_out(#held, p)
    end
  end)

  it("comes as a string with the option copy, and holds no buffer", function()
    local p = pool { buffers = 1, size = 16 }
    local a, b = socketpair()
    for i = 1, 5 do
      send(b, "message " .. i)
      assert.are.same({ 9, "message " .. i }, { op.recv(a, p, { copy = true }) })
      assert_out(0, p)
    end
    send(b, "binary\0\255")
    local recv = uring.prepare("recv", a, p, { copy = true })
    assert.are.same({ 8, "binary\0\255" }, { recv:await() })
    assert_out(0, p)
  end)

  it("is nothing at the end of the stream, which takes no buffer", function()
    local p = pool { buffers = 2, size = 16 }
    for _, options in ipairs { {}, { copy = true }, { bundle = true }, { async = true } } do
      local a, b = socketpair()
      local waiting = uring.prepare("recv", a, p, options)
      turn()
      op.shutdown(b, "w")
      assert.are.same({ 0, n = 1 }, table.pack(waiting:await()))
      assert.are.same({ 0, n = 1 }, table.pack(op.recv(a, p, options)))
      assert_out(0, p)
    end
  end)

  it("of a file or a pipe is a read, at its offset and to its end", function()
    local p = pool { buffers = 4, size = 4 }
    local fd = assert(op.openat(nil, helper.tmpname "0123456789", const.O_RDONLY | const.O_CLOEXEC))
    local function reads(expected, ...)
      local n, x = op.read(fd, p, ...)
      assert.are.same(expected, { n, x and x:get() })
    end
    reads({ 4, "0123" })
    reads({ 2, "45" }, 2)
    reads({ 4, "1234" }, nil, 1)
    reads({ 1, "9" }, 3, 9)
    assert_quiet(p)
    assert.are.same({ 4, "3456" }, { op.read(fd, p, nil, 3, { copy = true }) })
    for _, options in ipairs { {}, { copy = true }, { async = true } } do
      assert.are.same({ 0, n = 1 }, table.pack(op.read(fd, p, nil, 10, options)))
    end
    op.close(fd)
    helper.cleanup()
    assert_out(0, p)
    local r, w = pipe()
    op.write(w, "pipe")
    local n, x = op.read(r, p)
    assert.are.same({ 4, "pipe" }, { n, x:get() })
    x:close()
    assert_out(0, p)
  end)

  it("of a message brings its sender, and cuts it to the buffer", function()
    local p = pool { buffers = 2, size = 8 }
    local a = keep(assert(uring.listen "127.0.0.1:0")) -- an address that is free for UDP, too
    local receiver = assert(op.socket(const.AF_INET, const.SOCK_DGRAM | const.SOCK_CLOEXEC))
    assert(op.bind(receiver, "127.0.0.1:0"))
    local sender = assert(op.socket(const.AF_INET, const.SOCK_DGRAM | const.SOCK_CLOEXEC))
    assert(op.bind(sender, "127.0.0.1:0"))
    local to, from = core.local_address(receiver), core.local_address(sender)
    assert.are.equal(10, op.sendmsg(sender, { data = "0123456789", to = to }))
    local n, message, x = op.recvmsg(receiver, { data = p })
    assert.are.same({ 8, from, const.MSG_TRUNC, "01234567" }, { n, message.from, message.flags, x:get() })
    op.sendmsg(sender, { data = "short", to = to })
    n, message, x = op.recvmsg(receiver, { data = p }, { copy = true })
    assert.are.same({ 5, from, 0, "short" }, { n, message.from, message.flags, x })
    op.sendmsg(sender, { data = "", to = to })
    n, message = op.recvmsg(receiver, { data = p })
    assert.are.same({ 0, from }, { n, message.from })
    op.close(sender)
    op.close(receiver)
    a:close()
    assert_quiet(p)
  end)

  it("of a message puts control data into a Buffer of the program's own", function()
    local p = pool { buffers = 2, size = 64 }
    local a, b = kept(core.socketpair(const.SOCK_DGRAM))
    op.setsockopt(a, const.SOL_SOCKET, const.SO_TIMESTAMP or 29, 1)
    send(b, "stamped")
    local control = uring.buffer(128)
    local n, message, x = op.recvmsg(a, { data = p, control = control })
    assert.are.same({ 7, "stamped" }, { n, x:get() })
    assert.is_true(message.control_length > 0)
    assert.are.equal("owned", control:status())
    local r = pipe()
    local reading = uring.prepare("read", r, control)
    uring.submit()
    -- the slots that will be used have served other pools
    for _ = 1, 4 do
      do
        local gone <close> = uring.pool { buffers = 1, size = 8 }
        local ops = {}
        for i = 1, 8 do
          ops[i] = uring.prepare("recv", a, gone)
        end
        uring.submit()
        for i = 1, 8 do
          ops[i]:cancel()
        end
        for i = 1, 8 do
          ops[i]:await()
        end
      end
      collect()
      assert.matches("buffer is lent to the kernel (read on fd",
        error_of(op.recvmsg, a, { data = p, control = control }), 1, true)
    end
    x:close()
    assert_out(0, p)
    reading:cancel()
    reading:await()
    send(b, "works")
    assert.are.equal(5, op.recvmsg(a, { data = p, control = control }))
  end)

  it("of a datagram too long for the buffer never goes beyond it", function()
    local long = text_of(100)
    for _, options in ipairs { {}, { copy = true } } do
      local p = pool { buffers = 4, size = 16 }
      local a, b = dgrams()
      for _ = 1, 10 do
        send(b, long)
        local n, x = op.recv(a, p, nil, const.MSG_TRUNC, options)
        assert.are.equal(100, n) -- what it was
        assert.are.equal(16, #x) -- what there is
        assert.are.equal(long:sub(1, 16), options.copy and x or x:get())
        if not options.copy then
          assert_out(1, p)
          x:close()
        end
        assert_out(0, p)
      end
      send(b, "fits")
      assert.are.equal(4, op.recv(a, p))
      assert_quiet(p)
    end
  end)

  it("may only look at what is there", function()
    local p = pool { buffers = 2, size = 16 }
    local a, b = socketpair()
    send(b, "look")
    for _ = 1, 3 do
      assert.are.same({ 4, "look" }, { op.recv(a, p, nil, const.MSG_PEEK, { copy = true }) })
    end
    assert.are.same({ 4, "look" }, { op.recv(a, p, { copy = true }) })
    assert.are.same({ nil, "recv: Resource temporarily unavailable", errno.EAGAIN },
      { op.recv(a, p, nil, const.MSG_DONTWAIT) })
    assert_out(0, p)
  end)

  it("that fails takes no buffer", function()
    local p = pool { buffers = 3, size = 16 }
    local directory = assert(op.openat(nil, "/tmp", const.O_RDONLY | const.O_CLOEXEC))
    local r = pipe()
    for _ = 1, 5 do
      for _, options in ipairs { {}, { async = true } } do
        for _, case in ipairs {
          { errno.EISDIR, "read", directory, p, options }, { errno.EBADF, "read", 1000000, p, options },
          { errno.EBADF, "recv", 1000000, p, options }, { errno.ENOTSOCK, "recv", r, p, options },
          { errno.ENOTSOCK, "recvmsg", r, { data = p }, options },
        } do
          local n, _, number = op[case[2]](table.unpack(case, 3))
          assert.are.same({ nil, case[1] }, { n, number })
          assert_out(0, p)
        end
      end
    end
    op.close(directory)
    -- a task goes on to its next operation at once
    uring.run(function()
      for _ = 1, 5 do
        assert.are.equal(errno.ENOTSOCK, select(3, op.recv(r, p, { async = true })))
      end
      assert_out(0, p)
    end)
  end)

  it("that is reset takes no buffer", function()
    local p = pool { buffers = 1, size = 16 }
    uring.run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      for _, options in ipairs { {}, { async = true }, { copy = true } } do
        local client = assert(uring.connect(listener:address()))
        local server <close> = assert(listener:accept())
        local waiting = uring.spawn(op.recv, server:fd(), p, options)
        uring.sleep(0.002)
        op.setsockopt(client:fd(), const.SOL_SOCKET, const.SO_LINGER, "\1\0\0\0\0\0\0\0")
        client:close()
        assert.are.same({ nil, "recv: Connection reset by peer", errno.ECONNRESET }, { waiting:await() })
        assert_out(0, p)
      end
    end)
  end)

  it("that is cancelled takes no buffer", function()
    local p = pool { buffers = 2, size = 16 }
    local a = socketpair()
    local r = pipe()
    for _, case in ipairs {
      { "recv", a, p }, { "recv", a, p, { async = true } }, { "read", r, p }, { "read", r, p, { async = true } },
      { "recvmsg", a, { data = p } }, { "recvmsg", a, { data = p }, { async = true } },
      { "recv", a, p, { bundle = true } }, { "recv", a, p, { poll_first = true } },
    } do
      local waiting = uring.prepare(table.unpack(case))
      turn()
      assert.are.equal("cancelled", waiting:cancel():await())
      assert_out(0, p)
      uring.run(function()
        local task = uring.spawn(op[case[1]], table.unpack(case, 2))
        uring.sleep(0.001)
        task:cancel()
        assert.is_false((pcall(task.await, task)))
        assert_out(0, p)
      end)
    end
  end)

  it("may be given up", function()
    local p = pool { buffers = 2, size = 16 }
    local a, b = socketpair()
    for _ = 1, 3 do
      uring.prepare("recv", a, p)
      uring.submit()
      collect()
      turn()
      assert_out(0, p)
      local _ = uring.prepare("recv", a, p)
      send(b, "nobody reads this") -- the outcome is there, and dropped with its handle
      turn()
      _ = nil
      assert_quiet(p)
      op.recv(a, p)
      assert_quiet(p)
    end
  end)

  it("waits with poll_first, too", function()
    local p = pool { buffers = 1, size = 16 }
    local a, b = socketpair()
    local waiting = uring.prepare("recv", a, p, { poll_first = true, copy = true })
    turn()
    send(b, "polled")
    assert.are.same({ 6, "polled" }, { waiting:await() })
  end)

  it("holds no buffer while it waits", function()
    local p = pool { buffers = 1, size = 16 }
    local ops, ends = {}, {}
    for i = 1, 50 do
      local a, b = socketpair()
      ops[i], ends[i] = uring.prepare("recv", a, p, { copy = true }), b
    end
    turn()
    assert_out(0, p)
    assert.are.equal(0, uring.stats().bytes_lent)
    for i = 50, 1, -1 do
      send(ends[i], "no " .. i)
      assert.are.same({ #("no " .. i), "no " .. i }, { ops[i]:await() })
    end
    assert_out(0, p)
  end)

  it("by its number or by raw comes to the same", function()
    local p = pool { buffers = 2, size = 16 }
    local a, b = socketpair()
    send(b, "named")
    local n, x = op.recv(a, nil, { buffer_group = p:group() })
    assert.are.same({ 5, "named" }, { n, x:get() })
    x:close()
    send(b, "raw")
    local RECV <const>, BUFFER_SELECT <const> = 27, 32
    n, x = op.raw { opcode = RECV, fd = a, flags = BUFFER_SELECT, buf_index = p:group() }
    assert.are.same({ 3, "raw" }, { n, x:get() })
    x:close()
    assert_out(0, p)
    local many = uring.prepare("raw",
      { opcode = RECV, fd = a, flags = BUFFER_SELECT, buf_index = p:group(), ioprio = 2, multishot = true })
    for i = 1, 5 do
      send(b, "m" .. i)
      n, x = many:await()
      assert.are.same({ 2, "m" .. i }, { n, x:get() })
      x:close()
    end
    many:cancel()
    assert.is_nil((many:await()))
    -- one that is multishot to the kernel and not to us gives one result, and loses no buffer
    local one = uring.prepare("raw",
      { opcode = RECV, fd = a, flags = BUFFER_SELECT, buf_index = p:group(), ioprio = 2 })
    for _ = 1, 3 do
      send(b, "m")
      turn()
    end
    op.shutdown(b, "w")
    assert.are.equal(1, (one:await()))
    one, many, x = nil, nil, nil -- luacheck: ignore
    assert_quiet(p)
  end)
end)

describe("a pool of another ring", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("serves tasks of the default ring's loop", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 2, size = 8 })
    local text = text_of(4000)
    local got = {}
    uring.run(function()
      local a, b = socketpair()
      uring.spawn(function()
        for at = 1, #text, 100 do
          send(b, text:sub(at, at + 99))
          if at % 300 == 1 then
            uring.sleep(0.0002)
          end
        end
        op.shutdown(b, "w")
      end)
      local many <close> = ring:prepare("recv", a, p, { multishot = true })
      for n, x in many:results() do
        got[#got + 1] = x:get(1, n)
        if #got % 7 == 0 then
          uring.sleep(0.0002)
        end
        x:close()
      end
    end)
    assert.are.equal(text, table.concat(got))
    assert_out(0, p)
  end)

  it("is waited for by tasks, and let go of when they are cancelled", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 4 })
    local a, b = socketpair()
    send(b, "12345678")
    local _, x = ring:prepare("recv", a, p):await()
    uring.run(function()
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = uring.spawn(function() return ring:prepare("recv", a, p, { copy = true }):await() end)
      end
      uring.sleep(0.005)
      tasks[1]:cancel()
      assert.is_false((pcall(tasks[1].await, tasks[1])))
      x:close()
      uring.sleep(0.005)
      send(b, "more")
      local got = { select(2, tasks[2]:await()), select(2, tasks[3]:await()) }
      table.sort(got)
      assert.are.same({ "5678", "more" }, got)
    end)
    assert_out(0, p)
  end)

  it("works with a thread that submits", function()
    local ring = uring.ring { entries = 8, sqpoll = true, sq_thread_idle = 0.01 }
    keep(ring)
    local p = keep(ring:pool { buffers = 2, size = 8 })
    local a, b = socketpair()
    local text = text_of(2000)
    local many = ring:prepare("recv", a, p, { multishot = true, copy = true })
    ring:submit()
    send(b, text)
    op.shutdown(b, "w")
    local got = {}
    for n, x in many:results() do
      assert(n == #x)
      got[#got + 1] = x
    end
    assert.are.equal(text, table.concat(got))
    assert_out(0, p)
  end)
end)

describe("what a pool counts", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  -- The kernel's own count: how many buffers it has taken.
  local function head(ring, p)
    return testkit.pool_head(ring:features().ring_fd, p:group())
  end

  it("agrees with the kernel", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 5, size = 8 })
    if not head(ring, p) then
      return pending "this kernel does not tell"
    end
    local a, b = socketpair()
    local taken = 0
    local function received(n, got)
      local list = type(got) == "table" and got or { got }
      taken = taken + #list
      for _, x in ipairs(list) do
        x:close()
      end
      return n
    end
    local sent = 0
    for i = 1, 200 do
      send(b, ("x"):rep(i % 37 + 1))
      sent = sent + i % 37 + 1
      sent = sent - received(ring:prepare("recv", a, p, i % 3 == 0 and { bundle = true } or nil):await())
      assert.are.equal(taken, head(ring, p))
      assert_out(0, p)
    end
    local many = ring:prepare("recv", a, p, { multishot = true })
    while sent > 0 do
      sent = sent - received(many:await())
    end
    many:cancel()
    assert.is_nil((many:await()))
    assert.are.equal(taken, head(ring, p))
  end)

  it("agrees with the kernel past 65536 buffers", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 256, size = 1 })
    if not head(ring, p) then
      return pending "this kernel does not tell"
    end
    local a, b = socketpair()
    local taken, rounds = 0, helper.slow and 10 or 300
    local block = text_of(256)
    for _ = 1, rounds do
      send(b, block)
      local n, text = ring:prepare("recv", a, p, { bundle = true, copy = true }):await()
      while n < 256 do
        local m, more = ring:prepare("recv", a, p, { bundle = true, copy = true }):await()
        n, text = n + m, text .. more
      end
      assert.are.equal(block, text)
      taken = taken + 256
      assert.are.equal(taken % 65536, head(ring, p))
      assert_out(0, p)
    end
  end)

  for _, buffers in ipairs { 1, 2, 3, 7, 8, 9, 255, 1000 } do
    for _, size in ipairs { 1, 3, 16, 4096, 5001 } do
      for _, incremental in ipairs { false, true } do
        local name = ("is right: %d buffers of %d bytes%s"):format(buffers, size, incremental and ", incremental" or "")
        it(name, function()
          math.randomseed(seed)
          local p = pool { buffers = buffers, size = size, incremental = incremental }
          local a, b = socketpair()
          local text = text_of(math.min(buffers * size * 3 + 7, helper.slow and 1000 or 20000))
          local at, held, got = 1, {}, {}
          local many = uring.prepare("recv", a, p, { multishot = true })
          local received = 0
          while received < #text do
            if at <= #text then
              at = at + (op.send(b, text:sub(at, at + math.random(2 * size)), nil, const.MSG_DONTWAIT) or 0)
            end
            local n, x = many:await()
            got[#got + 1] = x:get()
            assert(n == #x)
            received = received + n
            held[#held + 1] = x
            local s = p:stats()
            assert.are.equal(buffers, s.provided + s.out)
            while #held >= buffers or #held > 0 and (math.random(3) == 1 or at <= #text and received == at - 1) do
              table.remove(held, math.random(#held)):close()
              if incremental and #held < buffers and math.random(2) == 1 then
                break
              end
            end
            if incremental and s.provided == 0 then
              while #held > 0 do
                table.remove(held):close()
              end
            end
          end
          assert.are.equal(text, table.concat(got))
          many:cancel()
          many, held = nil, nil -- luacheck: ignore
          turn()
          assert_quiet(p)
        end)
      end
    end
  end

  it("is right for the largest of pools", function()
    local p = pool { buffers = 32768, size = 16 }
    local a, b = socketpair()
    local text = text_of(16 * 3000)
    local many = uring.prepare("recv", a, p, { multishot = true })
    local held, got, at = {}, {}, 1
    while #held < 3000 do
      if at <= #text then
        send(b, text:sub(at, at + 1599))
        at = at + 1600
      end
      local n, x = many:await()
      assert(n == 16)
      held[#held + 1], got[#got + 1] = x, x:get()
    end
    assert_out(3000, p)
    assert.are.equal(text, table.concat(got))
    for i = #held, 1, -2 do
      held[i]:close()
    end
    assert_out(1500, p)
    held = nil -- luacheck: ignore
    many:cancel()
    turn()
    many = nil -- luacheck: ignore
    assert_quiet(p)
  end)
end)

describe("lua_close", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  -- Everything there is, made in this order; what is made last is finalised first.
  local makers = {
    ring = "ring = ring or uring.ring { entries = 4 }",
    pool = "ring = ring or uring.ring { entries = 4 } pool = ring:pool { buffers = 4, size = 4 }",
    home = "home = uring.pool { buffers = 4, size = 4 }",
    sockets = "a, b = core.socketpair() op.send(b, ('x'):rep(40))",
  }
  local orders = {
    { "ring", "pool", "home", "sockets" }, { "sockets", "home", "pool", "ring" }, { "home", "sockets", "ring", "pool" },
  }
  local middles = {
    ["operations armed"] = [[
      c, d = core.socketpair()
      ops = { ring:prepare("recv", c, pool, { multishot = true }), uring.prepare("recv", c, home) }
      ring:submit() uring.submit()
    ]],
    ["operations prepared"] = [[
      ops = { ring:prepare("recv", a, pool, { multishot = true }), uring.prepare("recv", a, home) }
    ]],
    ["data unread"] = [[
      ops = { ring:prepare("recv", a, pool, { multishot = true }) }
      ring:prepare("timeout", 0.001):await()
      assert(pool:stats().provided < 4)
    ]],
    ["data unreaped"] = [[
      ops = { ring:prepare("recv", a, pool), ring:prepare("recv", a, pool, { bundle = true, copy = true }) }
      ring:submit()
    ]],
    ["Buffers out, and slices of them, and sends"] = [[
      local _, x = ring:prepare("recv", a, pool):await()
      local _, y = uring.prepare("recv", a, home):await()
      keep = { x:slice(1, 2), y, uring.prepare("send", a, y), x }
    ]],
    ["an operation that starves, with all Buffers out"] = [[
      held = {}
      for i = 1, 4 do
        held[i] = table.pack(ring:prepare("recv", a, pool):await())
        held[i + 4] = table.pack(uring.prepare("recv", a, home):await())
      end
      ops = { ring:prepare("recv", a, pool), ring:prepare("recv", a, pool, { multishot = true }),
        uring.prepare("recv", a, home) }
      ring:prepare("timeout", 0.001):await()
      uring.prepare("timeout", 0.001):await()
    ]],
    ["an operation that was woken"] = [[
      held = {}
      for i = 1, 4 do held[i] = table.pack(ring:prepare("recv", a, pool):await()) end
      ops = { ring:prepare("recv", a, pool), ring:prepare("recv", a, pool, { multishot = true }) }
      ring:prepare("timeout", 0.001):await()
      held[1][2]:close()
    ]],
    ["tasks that receive"] = [[
      c, d = core.socketpair()
      for i = 1, 3 do uring.spawn(function() op.recv(c, home) end) end
      many = uring.prepare("recv", a, home, { multishot = true })
      uring.spawn(function() for _, x in many:results() do X = x end end)
      uring.spawn(function() ring:prepare("recv", c, pool):await() end)
      uring.sleep(0.001)
    ]],
    ["a Buffer that is used again"] = [[
      ops = { ring:prepare("recv", a, pool, { multishot = true, reuse = true }) }
      local _, x = ops[1]:await()
      slice = x:slice(1, 1)
      assert(ops[1]:await() == 4)
    ]],
    ["buffers provided by number"] = [[
      memory = uring.buffer(64)
      assert(op.provide_buffers(memory:slice(1, 32), 4, 8, 1, 0) == 0)
      assert(ring:prepare("provide_buffers", memory:slice(33), 4, 8, 1, 0):await() == 0)
      ops = { ring:prepare("recv", a, nil, { buffer_group = 1, multishot = true }) }
      ring:submit()
    ]],
  }
  local ends = {
    [""] = "",
    [", everything closed before"] = [[
      for _, x in ipairs { pool, home } do x:close() end
      ring:close()
    ]],
    [", the pools closed before"] = "pool:close() home:close()",
    [", the ring closed before"] = "ring:close()",
    [", what is dropped collected before"] = "pool, home, ops = nil collectgarbage() collectgarbage()",
    [", the ring dropped before"] = "ring, pool, ops = nil collectgarbage() collectgarbage()",
  }
  for name, middle in pairs(middles) do
    for how, last in pairs(ends) do
      it("comes to an end with " .. name .. how, function()
        for i, order in ipairs(orders) do
          if i == 1 or not helper.slow then
            local chunk = {}
            for k, what in ipairs(order) do
              chunk[k] = makers[what]
            end
            chunk[#chunk + 1] = middle .. last .. "\nprint 'done' os.exit(0, true)"
            assert_script("done\n", table.concat(chunk, "\n"))
          end
        end
      end)
    end
  end
end)
