-- Pools: who has which buffer, what is received into them, and what happens
-- when there is none.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit
local socketpair, pipe, keep = opened.socketpair, opened.pipe, opened.keep
local error_of, collect = helper.error_of, helper.collect

local seed = tonumber(os.getenv "URING_SEED") or 20260101

-- Two descriptors from the core, which are kept.
local function kept(a, b)
  keep { close = function() testkit.close(a) end }
  keep { close = function() testkit.close(b) end }
  return a, b
end

local function dgrams()
  return kept(core.socketpair(const.SOCK_DGRAM))
end

local function pool(options)
  return keep(assert(uring.pool(options)))
end

local function counts(p)
  local s = p:stats()
  return { provided = s.provided, out = s.out }
end

-- So many buffers are with the program, and the kernel has the others.
local function assert_out(n, p)
  assert.are.same({ provided = p:stats().buffers - n, out = n }, counts(p))
end

-- All of them have come back, or do when garbage is collected.
local function assert_quiet(p)
  collect()
  assert_out(0, p)
end

-- The loop turns for a moment.
local function turn(ring)
  assert((ring or uring).prepare(ring or "timeout", ring and "timeout" or 0.002, ring and 0.002):await() == 0)
end

local function send(fd, text)
  assert.are.equal(#text, op.send(fd, text))
end

-- A string of n bytes that is nowhere the same.
local function text_of(n)
  local parts, size, i = {}, 0, 0
  while size < n do
    i = i + 1
    parts[i] = ("%d,"):format(i)
    size = size + #parts[i]
  end
  return table.concat(parts):sub(1, n)
end

-- A pool whose buffers the program has all, and the socket that has more.
local function dry(options)
  options = options or {}
  options.buffers, options.size = options.buffers or 1, options.size or 4
  local p = pool(options)
  local a, b = socketpair()
  send(b, ("x"):rep(options.buffers * options.size))
  local held = {}
  for i = 1, options.buffers do
    local n, x = op.recv(a, p)
    assert(n == options.size)
    held[i] = x
  end
  assert_out(options.buffers, p)
  return p, a, b, held
end

local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 60 env " .. (prefix or ""))
end

-- A chunk of its own prints `expected` and ends well.
local function assert_script(expected, chunk)
  local output, status = script(([[
    local uring, core, testkit = require "uring", require "uring.core", require "testkit"
    local const, errno, op = uring.const, uring.errno, uring.op
    local function out(p) local s = p:stats() return s.provided .. "+" .. s.out end
  ]]) .. chunk)
  assert.are.equal(expected, output)
  assert.are.equal(0, status)
end

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

describe("a bundle", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local function parts_of(list)
    local parts = {}
    for i, x in ipairs(list) do
      parts[i] = x:get()
    end
    return parts
  end

  -- Receives all of a text, which is there already, and checks the form of
  -- each bundle.  Returns how many there were.
  local function receive(a, p, text, copy)
    local at, bundles = 1, 0
    while at <= #text do
      local n, got = op.recv(a, p, { bundle = true, copy = copy })
      if not copy then
        assert.are.equal(p:stats().out, #got)
        for i, x in ipairs(got) do
          assert.is_true(#x == p:stats().size or i == #got)
        end
        local list = got
        got = table.concat(parts_of(list))
        for i, x in ipairs(list) do
          x:close()
          assert_out(#list - i, p)
        end
      end
      assert.are.same({ n, text:sub(at, at + n - 1) }, { #got, got })
      at, bundles = at + n, bundles + 1
      assert_out(0, p)
    end
    return bundles
  end

  local function has_bundles()
    return core.default():features().variants.bundle
  end

  it("is a table of buffers, full but for the last", function()
    local p = pool { buffers = 64, size = 4 }
    local a, b = socketpair()
    for n = 1, 256 do
      local text = text_of(n)
      send(b, text)
      local bundles = receive(a, p, text)
      assert.is_true(bundles <= n // 4 + 1)
      assert.is_true(n ~= 256 or not has_bundles() or bundles < 10)
    end
  end)

  it("is one string with the option copy", function()
    local p = pool { buffers = 64, size = 100 }
    local a, b = socketpair()
    for _, n in ipairs { 1, 99, 100, 101, 1000, 6000, 6399, 6400, 6401, 20000 } do
      local text = text_of(n)
      send(b, text)
      receive(a, p, text, true)
    end
  end)

  it("ends where the pool does", function()
    local p = pool { buffers = 3, size = 4 }
    local a, b = socketpair()
    local text = text_of(200)
    send(b, text)
    local n, list = op.recv(a, p, { bundle = true })
    assert.are.equal(text:sub(1, n), table.concat(parts_of(list)))
    assert.is_true(n == 12 or not has_bundles())
    assert_out(#list, p)
    list = nil -- luacheck: ignore
    assert_quiet(p)
    receive(a, p, text:sub(n + 1))
  end)

  it("goes around the end of the kernel's ring, in whatever order buffers come back", function()
    math.randomseed(seed)
    for _, buffers in ipairs { 1, 2, 3, 5, 8, 13 } do
      local p = pool { buffers = buffers, size = 3 }
      local a, b = socketpair()
      local text, at = text_of(helper.times(4000)), 1
      local held = {}
      send(b, text)
      while at <= #text do
        local n, list = op.recv(a, p, { bundle = true })
        local got = table.concat(parts_of(list))
        assert.are.equal(n, #got)
        assert.are.equal(text:sub(at, at + n - 1), got)
        at = at + n
        for _, x in ipairs(list) do
          held[#held + 1] = x
        end
        assert_out(#held, p)
        repeat
          if #held > 0 then
            table.remove(held, math.random(#held)):close()
          end
        until #held < buffers and math.random(3) == 1
      end
      held = nil -- luacheck: ignore
      assert_quiet(p)
    end
  end)

  it("takes what several operations share", function()
    math.randomseed(seed)
    local p = pool { buffers = 32, size = 5 }
    uring.run(function()
      for i = 1, 8 do
        local a, b = socketpair()
        local text = text_of(2000 + i)
        uring.spawn(function()
          local got, received = {}, 0
          while received < #text do
            local n, list = op.recv(a, p, { bundle = true, copy = i % 2 == 0 })
            received = received + n
            got[#got + 1] = i % 2 == 0 and list or table.concat(parts_of(list))
            if math.random(3) == 1 then
              uring.yield()
            end
            for _, x in ipairs(i % 2 == 0 and {} or list) do
              x:close()
            end
          end
          assert(text == table.concat(got))
        end)
        uring.spawn(function()
          local at = 1
          while at <= #text do
            at = at + op.send(b, text:sub(at, at + math.random(300)))
            uring.yield()
          end
        end)
      end
    end)
    assert_out(0, p)
  end)

  it("that waits unreaped while its pool is closed is all there", function()
    for _, copy in ipairs { false, true } do
      local p = pool { buffers = 4, size = 16 }
      local a, b = socketpair()
      local text = text_of(64)
      send(b, text)
      local recv = uring.prepare("recv", a, p, { bundle = true, copy = copy })
      uring.submit()
      p:close()
      local n, got = recv:await()
      if not copy then
        got = table.concat(parts_of(got))
      end
      assert.are.same({ text:sub(1, n), n }, { got, #got })
      assert.is_true(n == 64 or not has_bundles())
      collect()
      assert.are.same({ provided = 0, out = 0 }, counts(p))
    end
  end)
end)

describe("an incremental pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local function incremental(buffers, size)
    return pool { buffers = buffers, size = size, incremental = true }
  end

  it("fills a buffer with one result after the other", function()
    local p = incremental(2, 10)
    assert.is_true(p:stats().incremental)
    local a, b = socketpair()
    local held = {}
    for i, text in ipairs { "abc", "defg", "hij", "klm" } do
      send(b, text)
      local n, x = op.recv(a, p)
      assert.are.same({ #text, text }, { n, x:get() })
      held[i] = x
    end
    assert_out(1, p) -- the first is full; of the second the kernel has the rest
    held[1]:close()
    held[3]:close()
    assert_out(1, p)
    assert.are.equal("defg", held[2]:get())
    held[2]:close()
    assert_out(0, p)
    assert.are.equal("klm", held[4]:get())
    held[4]:close()
    assert_out(0, p)
  end)

  it("never writes where a Buffer is", function()
    local p = incremental(3, 64)
    local a, b = socketpair()
    local recv = uring.prepare("recv", a, p, { multishot = true })
    local held = {}
    for i = 1, helper.times(2000) do
      local text = ("%d;"):format(i):rep(i % 7 + 1)
      send(b, text)
      local got = ""
      while #got < #text do
        local n, x = recv:await()
        got = got .. x:get()
        held[#held + 1] = { x, x:get() }
        assert(n == #x)
      end
      assert.are.equal(text, got)
      while #held > i % 5 do
        local one = table.remove(held, 1)
        assert.are.equal(one[2], one[1]:get())
        one[1]:fill(0)
        one[1]:close()
      end
      local s = p:stats()
      assert.are.equal(3, s.provided + s.out)
    end
    recv:cancel()
    recv, held = nil, nil -- luacheck: ignore
    turn()
    assert_quiet(p)
  end)

  it("is shared by many operations", function()
    math.randomseed(seed)
    local p = incremental(8, 1000)
    local N = helper.slow and 10 or 50
    local sent, got = {}, {}
    uring.run(function()
      for i = 1, N do
        local a, b = socketpair()
        sent[i], got[i] = {}, {}
        local function took(x)
          got[i][#got[i] + 1] = x:get()
          if math.random(3) == 1 then
            uring.sleep(0.0001)
          end
          if math.random(2) == 1 then
            x:close()
          end
        end
        uring.spawn(function()
          if i % 3 == 0 then
            while true do
              local n, x = op.recv(a, p)
              if n == 0 then
                return
              end
              took(x)
            end
          end
          local recv <close> = uring.prepare("recv", a, p, { multishot = true })
          for n, x in recv:results() do
            assert(n == #x)
            took(x)
          end
        end)
        uring.spawn(function()
          for k = 1, 30 do
            local text = ("%d.%d,"):format(i, k):rep(math.random(30))
            sent[i][k] = text
            local at = 1
            while at <= #text do
              at = at + op.send(b, text:sub(at))
            end
            if math.random(4) == 1 then
              uring.yield()
            end
          end
          op.shutdown(b, "w")
        end)
      end
    end)
    for i = 1, N do
      assert(table.concat(sent[i]) == table.concat(got[i]), i)
    end
    assert_quiet(p)
  end)

  it("that is closed leaves what is received", function()
    local p = incremental(1, 100)
    local a, b = socketpair()
    send(b, "one")
    local _, one = op.recv(a, p)
    send(b, "two")
    local recv = uring.prepare("recv", a, p)
    uring.submit()
    p:close()
    local _, two = recv:await()
    assert.are.same({ "one", "two" }, { one:get(), two:get() })
    assert.are.same({ provided = 0, out = 1 }, counts(p))
    one:close()
    two:close()
    assert.are.same({ provided = 0, out = 0 }, counts(p))
  end)

  it("cuts a datagram at the end of a buffer", function()
    local p = incremental(4, 1000)
    local a, b = dgrams()
    for i = 1, 8 do
      send(b, ("z"):rep(600))
      local n, x = op.recv(a, p)
      assert.are.equal(i % 2 == 1 and 600 or 400, n)
      assert.are.equal(("z"):rep(n), x:get())
      x:close()
      assert_out(0, p)
    end
  end)
end)

describe("an outgoing pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local function outgoing(buffers, size)
    return pool { buffers = buffers, size = size, outgoing = true }
  end

  local function received(fd, n)
    local buffer, parts = uring.buffer(4096), {}
    while n > 0 do
      local got = assert(op.recv(fd, buffer, math.min(n, 4096)))
      parts[#parts + 1] = buffer:get(1, got)
      n = n - got
    end
    return table.concat(parts)
  end

  it("sends what is pushed, in order", function()
    local p = outgoing(3, 16)
    local a, b = socketpair()
    assert.are.same({ 3, 0, 0, true }, { p:stats().buffers, p:stats().provided, p:stats().out, p:stats().outgoing })
    assert.is_true(p:push "one, ")
    assert.is_true(p:push(uring.buffer "two, "))
    assert.is_true(p:push "three")
    assert.is_false(p:push "no room")
    assert.are.equal(3, p:stats().provided)
    for _, text in ipairs { "one, ", "two, ", "three" } do
      assert.are.same({ #text, n = 1 }, table.pack(op.send(a, p)))
      assert.are.equal(text, received(b, #text))
    end
    assert.are.same({ provided = 0, out = 0 }, counts(p))
    assert.is_true(p:push "room again")
    assert.are.equal(10, op.send(a, p))
    assert.are.equal("room again", received(b, 10))
  end)

  it("sends all of it as a bundle", function()
    local p = outgoing(20, 16)
    local a, b = socketpair()
    for round = 1, 30 do
      local parts = {}
      for i = 1, round % 20 + 1 do
        parts[i] = ("%d.%d"):format(round, i)
        assert.is_true(p:push(parts[i]))
      end
      local text, n = table.concat(parts), 0
      while n < #text do
        n = n + assert(op.send(a, p, { bundle = true }))
      end
      assert.are.equal(text, received(b, #text))
      assert.are.equal(0, p:stats().provided)
    end
  end)

  it("sends more than the kernel takes at a time as one bundle, and tells of all", function()
    local p = outgoing(1000, 8)
    local a, b = socketpair()
    local parts = {}
    for i = 1, 1000 do
      parts[i] = ("%07d,"):format(i)
      assert.is_true(p:push(parts[i]))
    end
    local n = 0
    while n < 8000 do
      local before = p:stats().provided
      local sent = assert(op.send(a, p, { bundle = true }))
      assert.are.equal(sent, 8 * (before - p:stats().provided))
      n = n + sent
    end
    assert.are.equal(table.concat(parts), received(b, 8000))
  end)

  it("is waited for while there is nothing in it", function()
    local p = outgoing(2, 16)
    local a, b = socketpair()
    local sending = uring.prepare("send", a, p)
    turn()
    assert.are.equal("submitted", sending:status())
    assert.is_true(p:push "late")
    assert.are.equal(4, sending:await())
    assert.are.equal("late", received(b, 4))
    uring.run(function()
      local task = uring.spawn(op.send, a, p)
      uring.sleep(0.002)
      p:push "later"
      assert.are.equal(5, task:await())
    end)
    assert.are.equal("later", received(b, 5))
  end)

  it("is filled from Buffers that may be read, and with what fits", function()
    local p = outgoing(2, 4)
    local r, w = pipe()
    local lent = uring.buffer(4)
    local reading = uring.prepare("read", r, lent)
    uring.submit()
    for message, what in pairs {
      ["5 bytes do not fit a pool's buffer of 4"] = "12345",
      ["nothing to send"] = "",
      ["string expected, got table"] = {},
      [("buffer is lent to the kernel (read on fd %d)"):format(r)] = lent,
    } do
      assert.matches(message, error_of(p.push, p, what), 1, true)
    end
    assert.are.equal(0, p:stats().provided)
    op.write(w, "okay")
    reading:await()
    assert.is_true(p:push(lent))
    assert.matches("the pool is not for sending", error_of(pool().push, pool(), "x"), 1, true)
  end)

  it("that fails to send, or is cancelled, keeps count", function()
    local p = outgoing(3, 16)
    local a, b = socketpair()
    p:push "lost?"
    op.shutdown(a, "w")
    local n, _, number = op.send(a, p, nil, const.MSG_NOSIGNAL)
    assert.are.same({ nil, errno.EPIPE }, { n, number })
    local s = p:stats()
    assert.is_true(s.provided <= 1 and s.out == 0)
    local c = socketpair()
    local waiting = uring.prepare("send", c, outgoing(1, 1))
    turn()
    assert.are.equal("cancelled", waiting:cancel():await())
    testkit.close(false)
    assert.is_truthy(b)
  end)

  it("may be closed with something in it", function()
    local p = outgoing(3, 16)
    local a = socketpair()
    p:push "x"
    p:push "y"
    local sending = uring.prepare("send", a, p)
    uring.submit()
    p:close()
    assert.are.equal(1, sending:await())
    assert.are.same({ provided = 0, out = 0 }, counts(p))
  end)
end)

describe("a pool that has run dry", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("is waited for, until a buffer comes back", function()
    local p, a, b, held = dry()
    local before = uring.stats().rearmed
    send(b, "more")
    local waiting = uring.prepare("recv", a, p, { copy = true })
    turn()
    assert.are.equal("submitted", waiting:status())
    assert.are.equal(1, p:stats().starved)
    assert.are.equal(0, uring.stats().in_flight)
    held[1]:close()
    assert.are.same({ 4, "more" }, { waiting:await() })
    assert.are.equal(before + 1, uring.stats().rearmed)
    assert_out(0, p)
  end)

  it("is waited for by tasks, all of which get their turn", function()
    local p, _, _, held = dry { buffers = 2 }
    local got = {}
    uring.run(function()
      for i = 1, 20 do
        local a, b = socketpair()
        send(b, ("%04d"):format(i))
        uring.spawn(function()
          local n, x = op.recv(a, p)
          assert(n == 4)
          got[#got + 1] = x:get()
          uring.yield()
          x:close()
        end)
      end
      uring.sleep(0.002)
      assert.are.equal(0, #got)
      held[1]:close()
      held[2]:close()
    end)
    table.sort(got)
    assert.are.equal(20, #got)
    assert.are.equal("0001", got[1])
    assert.are.equal("0020", got[20])
    assert_out(0, p)
  end)

  it("is no reason for those to starve who have nothing to receive", function()
    local p, a, b, held = dry()
    send(b, "data")
    local idle = socketpair()
    local one = uring.prepare("recv", idle, p, { copy = true })
    local two = uring.prepare("recv", a, p, { copy = true })
    local three = uring.prepare("recv", idle, p, { copy = true })
    turn()
    held[1]:close()
    assert.are.same({ 4, "data" }, { two:await() })
    assert.are.equal("submitted", one:status())
    assert.are.equal("submitted", three:status())
    one:cancel()
    three:cancel()
    assert.is_nil((one:await()))
    assert.is_nil((three:await()))
    assert_out(0, p)
  end)

  for how, cancel in pairs {
    ["is cancelled"] = function(waiting)
      assert.are.equal("cancelled", waiting:cancel():await())
    end;
    ["is cancelled twice, and the buffer comes back"] = function(waiting, held)
      waiting:cancel()
      held[1]:close()
      waiting:cancel()
      assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
    end;
    ["is woken and cancelled at once"] = function(waiting, held)
      held[1]:close()
      assert.are.equal("cancelled", waiting:cancel():await())
    end;
    ["is woken, queued and cancelled"] = function(waiting, held)
      held[1]:close()
      uring.yield()
      local how, n = waiting:cancel():await()
      assert.is_true(how == "cancelled" or how == "completed" and n == 4)
    end;
    ["is dropped"] = function()
    end;
    ["is dropped when it was woken"] = function(_, held)
      held[1]:close()
    end;
    ["is closed"] = function(waiting)
      local _op <close> = waiting
    end;
    ["is closed when it was woken"] = function(waiting, held)
      local _op <close> = waiting
      held[1]:close()
    end;
  } do
    it("loses nothing when who waits " .. how, function()
      for _ = 1, 3 do
        local p, a, b, held = dry()
        send(b, "more")
        local waiting = uring.prepare("recv", a, p, { copy = true })
        turn()
        assert.are.equal(1, p:stats().starved)
        cancel(waiting, held)
        waiting = nil -- luacheck: ignore
        collect()
        turn()
        local s = uring.stats()
        assert.are.same({ 0, 0 }, { s.in_flight, s.backlog })
        held[1]:close()
        local left = op.recv(a, p, nil, const.MSG_DONTWAIT)
        assert.is_true(left == 4 or left == nil)
        assert_quiet(p)
      end
    end)
  end

  it("does not keep who has data waiting for those who have none", function()
    local p, a, b, held = dry()
    send(b, "data")
    local idle = {}
    for i = 1, 30 do
      idle[i] = uring.prepare("recv", (socketpair()), p, { multishot = i % 2 == 0 })
    end
    local waiting = uring.prepare("recv", a, p, { copy = true })
    for i = 31, 60 do
      idle[i] = uring.prepare("recv", (socketpair()), p, { multishot = i % 2 == 0 })
    end
    turn()
    local began = uring.now()
    held[1]:close()
    assert.are.same({ 4, "data" }, { waiting:await() })
    assert.is_true(uring.now() - began < 0.05, uring.now() - began)
    for i = 1, 60 do
      idle[i]:cancel()
      assert.is_nil((idle[i]:await()))
    end
    assert_out(0, p)
  end)

  it("goes on to the next when who was woken ends without a buffer", function()
    for _, foreign in ipairs { false, true } do
      local ring = foreign and opened.ring() or core.default()
      local p = keep(ring:pool { buffers = 1, size = 4 })
      local a, b = socketpair()
      send(b, "1234")
      local _, x = ring:prepare("recv", a, p):await()
      uring.run(function()
        local tasks, ends, got = {}, {}, {}
        for i = 1, 6 do
          local c, d = socketpair()
          ends[i] = d
          tasks[i] = uring.spawn(function()
            local n, text = ring:prepare("recv", c, p, { copy = true, multishot = i % 2 == 0 }):await()
            got[i] = text or n
          end)
        end
        for i, d in ipairs(ends) do
          if i % 3 == 0 then
            send(d, "abc")
          elseif i % 3 == 1 then
            op.shutdown(d, "w")
          end
        end
        uring.sleep(0.005)
        tasks[2]:cancel()
        x:close()
        for i = 1, 6 do
          if i == 5 then
            send(ends[5], "end")
          end
          pcall(tasks[i].await, tasks[i])
        end
        assert.are.same({ [1] = 0, [3] = "abc", [4] = 0, [5] = "end", [6] = "abc" }, got)
      end)
      assert_out(0, p)
    end
  end)

  it("is waited for by messages, which bring their senders all the same", function()
    local p, _, _, held = dry { size = 100 }
    local receiver = assert(op.socket(const.AF_INET, const.SOCK_DGRAM | const.SOCK_CLOEXEC))
    local sender = assert(op.socket(const.AF_INET, const.SOCK_DGRAM | const.SOCK_CLOEXEC))
    kept(receiver, sender)
    assert(op.bind(receiver, "127.0.0.1:0"))
    assert(op.bind(sender, "127.0.0.1:0"))
    op.sendmsg(sender, { data = "a message", to = core.local_address(receiver) })
    local waiting = uring.prepare("recvmsg", receiver, { data = p }, { copy = true })
    turn()
    assert.are.equal("submitted", waiting:status())
    held[1]:close()
    local n, message, text = waiting:await()
    assert.are.same({ 9, core.local_address(sender), 0, "a message" }, { n, message.from, message.flags, text })
  end)

  it("is not what a cancelled operation tells of", function()
    local a, b = socketpair()
    for _, multishot in ipairs { false, true } do
      local ring <close> = uring.ring { entries = 4 }
      local p <close> = ring:pool { buffers = 1, size = 4 }
      send(b, "12345678")
      local first = ring:prepare("recv", a, p)
      local waiting = ring:prepare("recv", a, p, { multishot = multishot })
      ring:submit() -- the first has the buffer, and the kernel has refused the second
      waiting:cancel()
      assert.are.equal(4, (first:await()))
      for _ in waiting:results() do
        error "there is nothing"
      end
      assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
      assert.are.equal(4, op.recv(a, uring.buffer(4)))
    end
  end)

  for name, cancel in pairs {
    ["itself"] = function(waiting) return op.cancel(waiting) end;
    ["its descriptor"] = function(_, fd) return op.cancel_fd(fd) end;
    ["any"] = function() return op.cancel(nil, const.IORING_ASYNC_CANCEL_ANY | const.IORING_ASYNC_CANCEL_ALL) end;
    ["its descriptor being closed"] = function(_, fd) return op.close(fd) end;
  } do
    it("does not keep an operation from being cancelled by " .. name, function()
      local p, _, _, held = dry()
      local a, b = core.socketpair()
      send(b, "data")
      for _, multishot in ipairs { false, true } do
        local waiting = uring.prepare("recv", a, p, { multishot = multishot })
        turn()
        assert.are.equal("submitted", waiting:status())
        assert.is_truthy((cancel(waiting, a)))
        assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
        if name:find "closed" then
          break
        end
      end
      held[1]:close()
      if not name:find "closed" then
        testkit.close(a)
      end
      testkit.close(b)
      assert_out(0, p)
    end)
  end

  it("ends a task's wait when that is cancelled", function()
    local p, a, _, held = dry()
    uring.run(function()
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = uring.spawn(op.recv, a, p)
      end
      uring.sleep(0.002)
      for i = 1, 5 do
        tasks[i]:cancel()
        if i == 3 then
          held[1]:close()
        end
      end
      for i = 1, 5 do
        local ok, err = pcall(tasks[i].await, tasks[i])
        assert.is_false(ok)
        assert.are.equal(uring.cancelled, err)
      end
    end)
    assert_out(0, p)
  end)

  it("tells who waits when it is closed", function()
    local p, a, b, held = dry()
    send(b, "data")
    local one = uring.prepare("recv", a, p)
    local two = uring.prepare("recv", a, p, { multishot = true })
    turn()
    p:close()
    assert.are.same({ nil, "recv: No buffer space available", errno.ENOBUFS }, { one:await() })
    assert.are.same({ nil, "recv: No buffer space available", errno.ENOBUFS }, { two:await() })
    held[1]:close()
    assert.are.same({ provided = 0, out = 0 }, counts(p))
  end)

  it("is let go of with its ring, and with who waits", function()
    for _, how in ipairs { "close", "drop" } do
      local ring = uring.ring { entries = 4 }
      local p = ring:pool { buffers = 1, size = 4 }
      local a, b = socketpair()
      send(b, "12345678")
      local _, x = ring:prepare("recv", a, p):await()
      local waiting = ring:prepare("recv", a, p)
      local many = ring:prepare("recv", a, p, { multishot = true })
      turn(ring)
      if how == "close" then
        ring:close()
        assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
        assert.are.equal(errno.ECANCELED, select(3, many:await()))
        assert.are.equal(0, ring:stats().leaked)
      end
      ring, waiting, many = nil, nil, nil -- luacheck: ignore
      p = nil -- luacheck: ignore
      collect()
      assert.are.equal("1234", x:get())
      x:close()
    end
  end)

  it("collects Buffers that nobody has any more", function()
    local p, a, b, held = dry()
    held[1] = nil
    collectgarbage "stop"
    send(b, "more")
    assert.are.same({ 4, "more" }, { op.recv(a, p, { copy = true }) })
    collectgarbage "restart"
    assert_out(0, p)
  end)

  it("collects again when it has done so in vain", function()
    local p, a, b, held = dry()
    local other, _, _, others = dry()
    send(b, "more")
    collectgarbage "stop"
    uring.run(function()
      local waiting = uring.prepare("recv", a, p, { copy = true })
      local starving = uring.prepare("recv", a, other)
      uring.sleep(0.005) -- nothing is garbage yet
      held[1] = nil
      assert.are.same({ 4, "more" }, { waiting:await() })
      starving:cancel()
      starving:await()
    end)
    collectgarbage "restart"
    others[1]:close()
    assert_out(0, p)
  end)

  it("collects for a ring that is not the default one", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 4 })
    local a, b = socketpair()
    send(b, "12345678abcd")
    collectgarbage "stop"
    assert.are.equal(4, (ring:prepare("recv", a, p):await()))
    assert.are.equal(4, (ring:prepare("recv", a, p):await()))
    uring.run(function()
      assert.are.same({ 4, "abcd" }, { ring:prepare("recv", a, p, { copy = true }):await() })
    end)
    collectgarbage "restart"
    assert_quiet(p)
  end)

  it("does not collect each time that it runs dry", function()
    if os.getenv "URING_GCSTRESS" then
      return pending "there it is collected all the time"
    end
    local heap = {}
    for i = 1, 200000 do
      heap[i] = { i }
    end
    local p = pool { buffers = 1, size = 4 }
    local a, b = socketpair()
    local rounds = helper.times(200)
    collectgarbage()
    local began = testkit.cpu()
    collectgarbage()
    local full = testkit.cpu() - began
    began = testkit.cpu()
    uring.run(function()
      local recv <close> = uring.prepare("recv", a, p, { multishot = true })
      for _ = 1, rounds do
        send(b, "12345678")
        for _ = 1, 2 do
          local _, x = recv:await()
          uring.sleep(0.0001)
          x:close()
        end
      end
    end)
    assert.is_true(testkit.cpu() - began < full * rounds / 4,
      ("%g s for %d rounds, a collection takes %g s"):format(testkit.cpu() - began, rounds, full))
    assert.are.equal(200000, #heap)
  end)

  it("survives a finaliser that closes the ring", function()
    assert_script("closing\nnil\trecv: Operation canceled\t125\nclosing\nslept\n", [[
      local a, b = core.socketpair()
      local function dry(ring)
        local p = (ring or uring).pool(ring or { buffers = 1, size = 4 }, ring and { buffers = 1, size = 4 })
        op.send(b, "12345678")
        local prepare = ring and function(...) return ring:prepare(...) end or uring.prepare
        local _, x = prepare("recv", a, p):await()
        return prepare("recv", a, p), x, p
      end
      local ring = uring.ring { entries = 4 }
      local waiting, x, p = dry(ring)
      setmetatable({}, { __gc = function() print "closing" ring:close() end })
      print(waiting:await())
      x:close()
      local buffer = uring.buffer(4) op.recv(a, buffer)
      waiting, x = dry()
      uring.submit()
      setmetatable({}, { __gc = function() print "closing" uring.close() end })
      pcall(uring.sleep, 0.5)
      print "slept"
    ]])
  end)

  it("raises when a buffer can never come back", function()
    local message <const> = "deadlock: an operation waits for a buffer of its pool, and the program has them all"
    local p, a, b, held = dry()
    send(b, "more")
    local waiting = uring.prepare("recv", a, p)
    assert.matches(message, error_of(waiting.await, waiting), 1, true)
    assert.matches(message, error_of(uring.run, function() op.recv(a, p) end), 1, true)
    assert.are.equal(0, uring.stats().tasks)
    local ring = opened.ring()
    local q = keep(ring:pool { buffers = 1, size = 4 })
    local _, x = ring:prepare("recv", a, q):await()
    local other = ring:prepare("recv", a, q)
    assert.matches(message, error_of(other.await, other), 1, true)
    x:close()
    held[1]:close()
    -- what waited goes on
    send(b, "even more")
    assert.are.equal(4, (waiting:await()))
    assert.are.equal(4, (other:await()))
    assert_quiet(p)
    assert_quiet(q)
  end)

  it("raises nothing while something may still happen", function()
    local p, a, b, held = dry()
    send(b, "more")
    uring.run(function()
      uring.spawn(function()
        uring.sleep(0.02)
        held[1]:close()
      end)
      assert.are.same({ 4, "more" }, { op.recv(a, p, { copy = true }) })
    end)
    local _, x = nil, select(2, (function() send(b, "once") return op.recv(a, p) end)())
    send(b, "more")
    local waiting = uring.prepare("recv", a, p, { copy = true })
    uring.spawn(function()
      uring.sleep(0.01)
      x:close()
    end)
    assert.are.same({ 4, "more" }, { waiting:await() })
  end)

  it("goes with a drain, and holds back what comes behind it", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 4 })
    local a, b = socketpair()
    send(b, "1234more")
    local _, x = ring:prepare("recv", a, p):await()
    local waiting = ring:prepare("recv", a, p, { drain = true, copy = true })
    local behind = ring:prepare "nop"
    for _ = 1, 3 do
      ring:step(0)
    end
    assert.are.same({ 1, "submitted", "prepared" }, { p:stats().starved, waiting:status(), behind:status() })
    x:close()
    assert.are.same({ 4, "more" }, { waiting:await() })
    assert.are.equal(0, (behind:await()))
    assert_out(0, p)
  end)

  it("is waited for by who is drained behind it", function()
    local ring = opened.ring()
    local p = keep(ring:pool { buffers = 1, size = 4 })
    local a, b = socketpair()
    send(b, "1234more")
    local _, x = ring:prepare("recv", a, p):await()
    local waiting = ring:prepare("recv", a, p, { copy = true })
    ring:step(0)
    assert.are.equal(1, p:stats().starved)
    local drained = ring:prepare("nop", { drain = true })
    for _ = 1, 3 do
      ring:step(0)
    end
    assert.are.equal("prepared", drained:status())
    x:close()
    assert.are.equal(0, (drained:await()))
    assert.are.equal("done", waiting:status())
    assert.are.same({ 4, "more" }, { waiting:await() })
  end)

  it("ends a linked operation, and its group with it", function()
    local p, a, _, held = dry()
    for _, hard in ipairs { false, true } do
      local ring <const> = core.default()
      local recv, nop = uring.prepare("recv", a, p), uring.prepare "nop"
      ring:link { recv, nop, hard = hard }
      assert.are.equal(errno.ENOBUFS, select(3, recv:await()))
      assert.are.equal(hard and 0 or nil, (nop:await()))
    end
    local recv = uring.prepare("recv", a, p, { link = true })
    local timer = uring.prepare("link_timeout", 0.001)
    assert.are.equal(errno.ENOBUFS, select(3, recv:await()))
    assert.are.equal(errno.ECANCELED, select(3, timer:await()))
    assert.are.equal(0, op.nop())
    held[1]:close()
    assert_out(0, p)
  end)

  it("does not stop for a group that is being linked", function()
    local p, a, b, held = dry()
    send(b, "more")
    local waiting = uring.prepare("recv", a, p, { copy = true })
    turn()
    local first = uring.prepare("nop", { link = true })
    held[1]:close()
    local ok, n, x = pcall(waiting.await, waiting)
    if ok then
      assert.are.same({ 4, "more" }, { n, x })
    else
      assert.matches("a linked operation waits for the one to follow it", n, 1, true)
    end
    local second = uring.prepare "nop"
    assert.are.same({ 0, 0 }, { first:await(), second:await() })
    if not ok then
      assert.are.same({ 4, "more" }, { waiting:await() })
    end
  end)

  it("may be given up while a group is being linked", function()
    local p, a, _, held = dry()
    local waiting = uring.prepare("recv", a, p)
    local other = uring.prepare("recv", a, p)
    turn()
    local first = uring.prepare("nop", { link = true })
    assert.are.equal("cancelled", waiting:cancel():await())
    do
      local _op <close> = other
    end
    local second = uring.prepare "nop"
    assert.are.same({ 0, 0 }, { first:await(), second:await() })
    held[1]:close()
    assert_out(0, p)
  end)

  it("is waited for through a full queue", function()
    local ring = opened.ring { entries = 2, cq_entries = 4 }
    local p = keep(ring:pool { buffers = 2, size = 4 })
    local a, b = socketpair()
    local N <const> = 30
    send(b, text_of(4 * N))
    local ops, got = {}, {}
    for i = 1, N do
      ops[i] = ring:prepare("recv", a, p, { copy = true })
    end
    for i = 1, N do
      local n, x = ops[i]:await()
      assert(n == 4)
      got[i] = x
    end
    table.sort(got)
    local expected = {}
    for i = 1, N do
      expected[i] = text_of(4 * N):sub(4 * i - 3, 4 * i)
    end
    table.sort(expected)
    assert.are.same(expected, got)
    assert_out(0, p)
  end)
end)

describe("a pool that is closed", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("gives its number to nobody while operations still have it", function()
    local a, b = socketpair()
    for _, multishot in ipairs { false, true } do
      local old = pool { buffers = 4, size = 16 }
      local waiting = uring.prepare("recv", a, old, { multishot = multishot })
      uring.submit()
      old:close()
      local new = pool { buffers = 4, size = 16 }
      send(b, "secret")
      assert.are.same({ nil, "recv: No buffer space available", errno.ENOBUFS }, { waiting:await() })
      assert_out(0, new)
      assert.are.same({ 6, "secret" }, { op.recv(a, new, { copy = true }) })
    end
  end)

  it("leaves what was received and not yet reaped", function()
    for _, copy in ipairs { false, true } do
      local p = pool { buffers = 4, size = 16 }
      local a, b = socketpair()
      send(b, "data")
      local recv = uring.prepare("recv", a, p, { copy = copy })
      uring.submit()
      p:close()
      p = nil -- luacheck: ignore
      collect()
      local n, x = recv:await()
      assert.are.same({ 4, "data" }, { n, copy and x or x:get() })
    end
  end)

  it("leaves what a multishot operation has received, unread", function()
    local p = pool { buffers = 4, size = 4 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, { multishot = true })
    send(b, "0123456789ab")
    turn()
    p:close()
    local parts = {}
    for _ = 1, 3 do
      local n, x = many:await()
      parts[#parts + 1] = x:get(1, n)
    end
    assert.are.equal("0123456789ab", table.concat(parts))
    send(b, "more")
    assert.are.equal(errno.ENOBUFS, select(3, many:await()))
    collect()
    assert.are.same({ provided = 0, out = 0 }, counts(p))
  end)

  it("in any state of things frees what it has", function()
    math.randomseed(seed)
    for _ = 1, helper.times(200) do
      local ring = uring.ring { entries = 4 }
      local p = ring:pool { buffers = math.random(4), size = math.random(8), incremental = math.random(2) == 1 }
      local a, b = core.socketpair()
      local things = { p, ring }
      op.send(b, text_of(math.random(0, 40)))
      for _ = 1, math.random(5) do
        things[#things + 1] = ring:prepare("recv", a, p,
          { multishot = math.random(2) == 1, copy = math.random(2) == 1 })
        if math.random(2) == 1 then
          turn(ring)
        end
        local last = things[#things]
        if last:status() == "done" then
          local _, x = last:await()
          things[#things + 1] = type(x) == "userdata" and x or nil
        end
      end
      while #things > 0 do
        local thing = table.remove(things, math.random(#things))
        local how = math.random(3)
        if how == 1 and thing.close then
          thing:close()
        elseif how == 2 and thing.cancel and ring.stats then
          pcall(thing.cancel, thing)
        end
        thing = nil -- luacheck: ignore
        if math.random(3) == 1 then
          collect()
        end
      end
      p, ring = nil, nil -- luacheck: ignore
      testkit.close(a)
      testkit.close(b)
      collect()
    end
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

describe("many connections on a small pool", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local kinds = {
    function(a, p, took) -- Buffers
      local many <close> = uring.prepare("recv", a, p, { multishot = true })
      for n, x in many:results() do
        assert(n == #x)
        took(x:get(), x)
      end
    end;
    function(a, p, took) -- strings
      local many <close> = uring.prepare("recv", a, p, { multishot = true, copy = true })
      for _, text in many:results() do
        took(text)
      end
    end;
    function(a, p, took) -- one by one
      while true do
        local n, x = op.recv(a, p)
        if n == 0 then
          return
        end
        took(x:get(), x)
      end
    end;
    function(a, p, took) -- the same Buffer
      local many <close> = uring.prepare("recv", a, p, { multishot = true, reuse = true })
      for _, x in many:results() do
        took(x:get())
      end
    end;
    function(a, p, took) -- sent on while it is closed
      local c, d = core.socketpair()
      local many = uring.prepare("recv", a, p, { multishot = true })
      local buffer = uring.buffer(4096)
      for n, x in many:results() do
        local echo = uring.prepare("send", c, x)
        x:close()
        assert(op.recv(d, buffer, n, const.MSG_WAITALL) == n)
        assert(echo:await() == n)
        took(buffer:get(1, n))
      end
      testkit.close(c)
      testkit.close(d)
    end;
    function(a, p, took) -- bundles
      local many <close> = uring.prepare("recv", a, p, { multishot = true, bundle = not p:stats().incremental })
      for _, list in many:results() do
        for _, x in ipairs(type(list) == "table" and list or { list }) do
          took(x:get(), x)
        end
      end
    end;
  }

  local function traffic(connections, options, bytes)
    math.randomseed(seed)
    local p = pool(options)
    local fds = {}
    for i = 1, connections do
      fds[i] = { core.socketpair() }
    end
    local sent, got = {}, {}
    uring.run(function()
      for i = 1, connections do
        local a, b = fds[i][1], fds[i][2]
        got[i] = {}
        local function took(text, x)
          got[i][#got[i] + 1] = text
          local dice = math.random(20)
          if dice == 1 then
            uring.sleep(math.random() / 1000)
          elseif dice < 5 then
            uring.yield()
          end
          if x and dice ~= 7 then -- some are left to the collector
            local s = dice == 6 and x:slice(1, 1)
            x:close()
            if s then
              uring.yield()
              s:close()
            end
          end
        end
        uring.spawn(function()
          kinds[i % #kinds + 1](a, p, took)
        end)
        uring.spawn(function()
          local text, at = text_of(math.random(bytes)), 1
          sent[i] = text
          while at <= #text do
            at = at + assert(op.send(b, text:sub(at, at + math.random(2000))))
            local dice = math.random(6)
            if dice == 1 then
              uring.sleep(math.random() / 1000)
            elseif dice < 4 then
              uring.yield()
            end
          end
          op.shutdown(b, "w")
        end)
      end
    end)
    for i = 1, connections do
      testkit.close(fds[i][1])
      testkit.close(fds[i][2])
      assert.are.equal(sent[i], table.concat(got[i]), i)
    end
    assert_quiet(p)
    local s = uring.stats()
    assert.are.same({ 0, 0, 0 }, { s.in_flight, s.backlog, s.unknown })
  end

  for name, options in pairs {
    ["of one buffer"] = { buffers = 1, size = 500 },
    ["of two small ones"] = { buffers = 2, size = 50 },
    ["of a few"] = { buffers = 16, size = 256 },
    ["of incremental ones"] = { buffers = 4, size = 4096, incremental = true },
    ["that is large enough"] = { buffers = 512, size = 1024 },
  } do
    it("every byte arrives, in order: a pool " .. name, function()
      traffic(helper.slow and 12 or 60, options, helper.slow and 1000 or 5000)
    end)
  end

  it("every byte arrives, in order: a thousand of them", function()
    local n = helper.slow and 60 or 1000
    if testkit.fds() + 2 * n + 50 > tonumber((io.popen "ulimit -n":read "l"):match "%d+" or "1e9") then
      return pending "not enough descriptors"
    end
    traffic(n, { buffers = 32, size = 512 }, 1500)
  end)
end)

describe("random use of pools", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  -- Pools, operations, Buffers, cancels, closes, in an order that the seed
  -- decides.  Every socket carries numbered text: what is received is the
  -- next of it, whoever receives.
  local function round(n)
    math.randomseed(n)
    local random = math.random
    local ring = uring.ring { entries = 1 << random(0, 4), cq_entries = 1 << random(1, 6) }
    local pools, ops, held, sockets = {}, {}, {}, {}
    local stream = text_of(100000)

    local function new_pool()
      pools[#pools + 1] = assert(ring:pool {
        buffers = random(5), size = random(20), incremental = random(3) == 1,
      })
    end

    local function new_socket()
      local a, b = core.socketpair()
      sockets[#sockets + 1] = { a = a, b = b, sent = 0, received = 0, busy = false }
    end

    -- What came: text, a Buffer or a table of Buffers.
    local function take(socket, size, x)
      local text = x
      if type(x) == "userdata" then
        text = x:get()
        held[#held + 1] = x
      elseif type(x) == "table" then
        local parts = {}
        for i, one in ipairs(x) do
          parts[i] = one:get()
          held[#held + 1] = one
        end
        text = table.concat(parts)
      end
      assert(#text == size, "a length is wrong")
      assert(stream:sub(socket.received + 1, socket.received + size) == text, "bytes are lost, or out of order")
      socket.received = socket.received + size
    end

    local function drop_op(i, socket)
      table.remove(ops, i)
      socket.dead = true -- nobody knows what it still received
    end

    local actions = {
      function() -- an operation
        local socket = sockets[random(#sockets)]
        local p = pools[random(#pools)]
        if not socket or not p or socket.busy or socket.dead then
          return
        end
        local incremental = p:stats().incremental
        local options = { multishot = random(2) == 1, copy = random(3) == 1 }
        options.bundle = not incremental and random(3) == 1 or nil
        options.drain = random(12) == 1 or nil
        local one = ring:prepare("recv", socket.a, p, options)
        socket.busy = true
        ops[#ops + 1] = { op = one, socket = socket, pool = p, multishot = options.multishot }
      end,
      function() -- something to receive
        local socket = sockets[random(#sockets)]
        if socket and socket.sent < 90000 and not socket.dead then
          local size = random(60)
          local sent = op.send(socket.b, stream:sub(socket.sent + 1, socket.sent + size), nil, const.MSG_DONTWAIT)
          socket.sent = socket.sent + (sent or 0)
        end
      end,
      function() -- a turn
        ring:submit()
        ring:step(0)
      end,
      function() -- a result
        for i, one in ipairs(ops) do
          local ready = one.op:status() == "done"
          if ready then
            table.remove(ops, i)
            one.socket.busy = false
            repeat
              local size, x = one.op:await()
              if size and size > 0 and x then
                take(one.socket, size, x)
              end
            until not (one.multishot and size and size > 0 and x)
            return
          end
        end
      end,
      function() -- the next of a multishot operation that is there, or comes
        local i = #ops > 0 and random(#ops)
        local one = ops[i]
        ring:step(0)
        if one and one.multishot and one.socket.sent > one.socket.received and #held == 0
          and one.pool:stats().provided > 0 and ring:stats().backlog == 0 then
          local size, x = one.op:await()
          if size and size > 0 then
            take(one.socket, size, x)
          else
            table.remove(ops, i)
            one.socket.busy = false
          end
        end
      end,
      function() -- a Buffer goes back
        if #held > 0 then
          table.remove(held, random(#held)):close()
        end
      end,
      function() -- or is forgotten
        if #held > 0 then
          table.remove(held, random(#held))
        end
      end,
      function() -- cancel
        if #ops > 0 then
          ops[random(#ops)].op:cancel()
        end
      end,
      function() -- drop
        if #ops > 0 and random(3) == 1 then
          local i = random(#ops)
          drop_op(i, ops[i].socket)
        end
      end,
      function() -- a pool is closed
        if #pools > 0 and random(6) == 1 then
          table.remove(pools, random(#pools)):close()
        end
      end,
      function() -- or forgotten
        if #pools > 0 and random(10) == 1 then
          table.remove(pools, random(#pools))
        end
      end,
      function()
        if #pools < 4 then
          new_pool()
        end
      end,
      function()
        if #sockets < 8 then
          new_socket()
        end
      end,
      function()
        if random(10) == 1 then
          collectgarbage()
        end
      end,
    }

    for _ = 1, random(3) do
      new_pool()
      new_socket()
    end
    for _ = 1, 300 do
      actions[random(#actions)]()
      for _, p in ipairs(pools) do
        local s = p:stats()
        assert(s.provided + s.out == s.buffers, "a buffer is nowhere")
      end
    end
    local how = random(3)
    if how == 1 then -- everything ends well
      held = {}
      for _, one in ipairs(ops) do
        one.op:cancel()
      end
      for _, one in ipairs(ops) do
        repeat
          local size, x = one.op:await()
          if size and size > 0 and x then
            take(one.socket, size, x)
          end
        until not (one.multishot and size and size > 0 and x)
      end
      ops, held = {}, {}
      collect()
      local deadline = uring.now() + 2
      while ring:stats().in_flight > 0 and uring.now() < deadline do
        ring:step(0.01)
      end
      for _, p in ipairs(pools) do
        assert_quiet(p)
      end
      ring:close()
    elseif how == 2 then
      ring:close()
      ops, held = {}, {}
    end
    local s = ring:stats()
    assert(s.unknown == 0 and s.leaked == 0)
    if how < 3 then
      assert(s.bytes_lent == 0 and s.prepared == s.completed, "an operation is lost")
    end
    for _, socket in ipairs(sockets) do
      testkit.close(socket.a)
      testkit.close(socket.b)
    end
  end

  it("loses nothing", function()
    for n = seed, seed + helper.times(300) do
      local ok, err = pcall(round, n)
      collect()
      if not ok then
        error(("seed %d: %s"):format(n, tostring(err)), 0)
      end
    end
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
