-- Buffers that the program provides by number: provide_buffers,
-- remove_buffers and the option buffer_group.  Who has which bytes.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local socketpair, pipe, keep = opened.socketpair, opened.pipe, opened.keep
local error_of, collect = helper.error_of, helper.collect

local GROUP <const> = 7

local function lent(ring)
  return (ring and ring:stats() or uring.stats()).bytes_lent
end

local function send(fd, text)
  assert.are.equal(#text, op.send(fd, text))
end

local function turn()
  assert(uring.prepare("timeout", 0.002):await() == 0)
end

-- A Buffer in so many pieces of so many bytes, all of them provided.
local function provided(n, size, first, group)
  local memory = uring.buffer(n * size)
  assert.are.equal(0, op.provide_buffers(memory, size, n, group or GROUP, first or 0))
  return memory
end

local LENT <const> = "buffer is lent to the kernel (provide_buffers)"

describe("buffers provided by number", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("are lent until a result names them", function()
    local memory = provided(4, 16, 10)
    assert.are.equal(64, lent())
    assert.are.equal("lent", memory:status())
    for _, fn in ipairs { memory.get, memory.fill } do
      assert.matches(LENT, error_of(fn, memory), 1, true)
    end
    assert.matches(LENT, error_of(op.write, 1, memory), 1, true)
    local a, b = socketpair()
    send(b, "hello")
    local n, id = op.recv(a, nil, { buffer_group = GROUP })
    assert.are.equal(5, n)
    assert.is_true(id >= 10 and id < 14)
    assert.are.equal(48, lent())
    local at = (id - 10) * 16
    assert.are.equal("hello", memory:get(at + 1, at + 5))
    assert.are.equal("owned", memory:slice(at + 1, at + 16):status())
    assert.matches(LENT, error_of(memory.get, memory), 1, true)
    -- provided again
    assert.are.equal(0, op.provide_buffers(memory:slice(at + 1, at + 16), 16, 1, GROUP, id))
    assert.are.equal(64, lent())
    assert.are.equal(4, op.remove_buffers(4, GROUP))
    assert.are.equal("owned", memory:status())
  end)

  it("come back together when all that are left of their group have been removed", function()
    local memory = provided(6, 8)
    local other = provided(2, 8, 0, GROUP + 1)
    local a, b = socketpair()
    send(b, "1")
    op.recv(a, nil, { buffer_group = GROUP })
    assert.are.equal(5 * 8 + 16, lent())
    assert.are.equal(2, op.remove_buffers(2, GROUP)) -- which ones nobody says
    assert.are.equal(5 * 8 + 16, lent())
    send(b, "2")
    op.recv(a, nil, { buffer_group = GROUP })
    assert.are.equal(4 * 8 + 16, lent())
    assert.are.equal(2, op.remove_buffers(100, GROUP))
    assert.are.equal(16, lent())
    assert.are.equal("owned", memory:status())
    assert.are.equal("lent", other:status())
    assert.are.equal(2, op.remove_buffers(2, GROUP + 1))
  end)

  it("are used up by operations after some were removed", function()
    local memory = provided(4, 8)
    local a, b = socketpair()
    assert.are.equal(1, op.remove_buffers(1, GROUP))
    for i = 1, 3 do
      assert.are.equal(8 * (5 - i), lent())
      send(b, "x")
      assert.are.equal(1, op.recv(a, nil, { buffer_group = GROUP }))
    end
    assert.are.equal(0, lent())
    assert.are.equal("owned", memory:status())
    assert.are.same({ nil, "recv: No buffer space available", errno.ENOBUFS },
      { op.recv(a, nil, { buffer_group = GROUP }) })
  end)

  it("outlive the Buffer that they were cut from", function()
    do
      local memory = provided(2, 8)
      memory:close()
    end
    collect()
    assert.are.equal(16, lent())
    local a, b = socketpair()
    send(b, "12345678abcdefgh")
    for _ = 1, 2 do
      assert.are.equal(8, op.recv(a, nil, { buffer_group = GROUP }))
    end
    assert.are.equal(0, lent())
  end)

  it("are not provided where that fails, or is taken back", function()
    local memory = uring.buffer(64)
    local n, message, number = op.provide_buffers(memory, 1, 64, GROUP, 65535) -- the numbers end there
    assert.are.same({ nil, "provide_buffers: " .. message:match ": (.*)" }, { n, message })
    assert.is_true(number == errno.EINVAL or number == errno.E2BIG)
    assert.are.equal("owned", memory:status())
    local ring = opened.ring()
    local prepared = ring:prepare("provide_buffers", memory, 16, 4, GROUP, 0)
    assert.are.equal("lent", memory:status())
    prepared:cancel()
    assert.is_nil((prepared:await()))
    assert.are.equal("owned", memory:status())
    ring:prepare("provide_buffers", memory, 16, 4, GROUP, 0) -- nobody asks for the result
    collect()
    ring:step(0)
    ring:step(0)
    assert.is_true(memory:status() == "owned" or lent(ring) == 64)
    ring:close()
    assert.are.equal("owned", memory:status())
  end)

  it("must not be lent, and must be there", function()
    local r, w = pipe()
    local memory = uring.buffer(64)
    local reading = uring.prepare("read", r, memory:slice(60))
    uring.submit()
    assert.matches(("buffer is lent to the kernel (read on fd %d)"):format(r),
      error_of(op.provide_buffers, memory, 16, 4, GROUP, 0), 1, true)
    assert.are.equal(0, op.provide_buffers(memory, 16, 3, GROUP, 0)) -- the first 48 bytes are free
    assert.are.equal(48 + 5, lent())
    op.write(w, "x")
    assert.are.equal(1, reading:await())
    assert.are.equal(3, op.remove_buffers(3, GROUP))
    for message, call in pairs {
      ["bad argument 'nr' to 'provide_buffers' (the Buffer has not so many bytes)"] = { memory, 17, 4, 0, 0 },
      ["bad argument 'nr' to 'provide_buffers' (0 is out of range)"] = { memory, 16, 0, 0, 0 },
      ["bad argument 'len' to 'provide_buffers' (0 is out of range)"] = { memory, 0, 4, 0, 0 },
      ["bad argument 'bgid' to 'provide_buffers' (65536 is out of range)"] = { memory, 1, 1, 65536, 0 },
      ["bad argument 'bid' to 'provide_buffers' (-1 is out of range)"] = { memory, 1, 1, 0, -1 },
      ["bad argument 'bid' to 'provide_buffers' (integer expected, got no value)"] = { memory, 1, 1, 0 },
      ["bad argument 'buffer' to 'provide_buffers' (Buffer expected, got string)"] = { "text", 1, 1, 0, 0 },
    } do
      assert.matches(message, error_of(op.provide_buffers, table.unpack(call)), 1, true)
    end
    assert.matches("bad argument 'nr' to 'remove_buffers' (0 is out of range)", error_of(op.remove_buffers, 0, 0), 1,
      true)
    assert.are.equal(errno.ENOENT, select(3, op.remove_buffers(1, GROUP + 3)))
    assert.are.equal(0, lent())
  end)

  it("come back with the ring", function()
    for _, how in ipairs { "close", "drop" } do
      local ring = uring.ring { entries = 4 }
      local memory = uring.buffer(64)
      assert.are.equal(0, (ring:prepare("provide_buffers", memory, 16, 4, GROUP, 0):await()))
      local a = socketpair()
      local waiting = ring:prepare("recv", a, nil, { buffer_group = GROUP })
      ring:submit()
      assert.are.equal(64, lent(ring))
      if how == "close" then
        ring:close()
        assert.are.same({ 0, 0 }, { lent(ring), ring:stats().leaked })
        assert.are.equal(errno.ECANCELED, select(3, waiting:await()))
      end
      ring, waiting = nil, nil -- luacheck: ignore
      collect()
      assert.are.equal("owned", memory:status())
    end
  end)

  it("are of one ring", function()
    local ring = opened.ring()
    local memory = uring.buffer(64)
    assert.are.equal(0, (ring:prepare("provide_buffers", memory, 16, 4, GROUP, 0):await()))
    local a, b = socketpair()
    send(b, "x")
    assert.are.equal(errno.ENOBUFS, select(3, op.recv(a, nil, { buffer_group = GROUP })))
    local n, id = ring:prepare("recv", a, nil, { buffer_group = GROUP }):await()
    assert.are.same({ 1, "x" }, { n, memory:get(16 * id + 1, 16 * id + 1) })
    ring:close()
  end)

  it("serve every operation that takes a Buffer of a pool", function()
    local memory = provided(16, 16)
    local function text(n, id)
      return memory:get(16 * id + 1, 16 * id + n)
    end
    local a, b = socketpair()
    local r, w = pipe()
    send(b, "0123456789abcdefghijklm")
    local n, id = op.recv(a, nil, { buffer_group = GROUP })
    assert.are.equal("0123456789abcdef", text(n, id))
    n, id = op.recv(a, nil, 3, { buffer_group = GROUP })
    assert.are.equal("ghi", text(n, id))
    n, id = op.recv(a, nil, nil, const.MSG_PEEK, { buffer_group = GROUP })
    assert.are.equal("jklm", text(n, id))
    op.write(w, "piped")
    n, id = op.read(r, nil, 2, { buffer_group = GROUP })
    assert.are.equal("pi", text(n, id))
    local many = uring.prepare("read_multishot", r, nil, { buffer_group = GROUP })
    n, id = many:await()
    assert.are.equal("ped", text(n, id))
    op.write(w, "more")
    n, id = many:await()
    assert.are.equal("more", text(n, id))
    many:cancel()
    assert.is_nil((many:await()))
    -- sent from: what is in them goes out
    many = uring.prepare("recv", a, nil, { buffer_group = GROUP, multishot = true })
    n, id = many:await()
    assert.are.equal("jklm", text(n, id))
    local left = lent() // 16
    send(b, ("y"):rep(16 * left + 5))
    local total = 0
    while true do
      local size, which = many:await()
      if not size then
        assert.are.equal("recv: No buffer space available", which)
        break
      end
      assert.are.equal(("y"):rep(size), text(size, which))
      total = total + size
    end
    assert.are.equal(16 * left, total)
    assert.are.equal(0, lent())
    assert.are.equal("owned", memory:status())
  end)

  it("are sent from, too", function()
    local memory = uring.buffer "first.second"
    assert.are.equal(0, op.provide_buffers(memory, 6, 2, GROUP, 0))
    local a, b = socketpair()
    local n, id = op.send(b, nil, { buffer_group = GROUP })
    assert.are.equal(6, n)
    assert.are.equal(6, lent())
    local buffer = uring.buffer(6)
    op.recv(a, buffer)
    assert.are.equal(memory:get(6 * id + 1, 6 * id + 6), buffer:get())
    assert.are.equal(1, op.remove_buffers(1, GROUP))
  end)

  it("are named wrongly only with an error", function()
    local a = socketpair()
    for message, call in pairs {
      ["buffer_group of recv goes with nil in the place of a Buffer"] =
        { "recv", a, uring.buffer(1), { buffer_group = 1 } },
      ["option 'buffer_group' of recv is an integer from 0 to 65535, not -1"] =
        { "recv", a, nil, { buffer_group = -1 } },
      ["option 'buffer_group' of recv is an integer from 0 to 65535, not 65536"] =
        { "recv", a, nil, { buffer_group = 65536 } },
      ["option 'buffer_group' of recv is an integer from 0 to 65535, not a boolean"] =
        { "recv", a, nil, { buffer_group = true } },
      ["(Buffer, Pool, or nil with the option buffer_group, expected)"] = { "recv", a, nil, { async = true } },
      ["unknown option 'buffer_group' of write"] = { "write", a, "x", { buffer_group = 1 } },
    } do
      assert.matches(message, error_of(uring.prepare, table.unpack(call, 1, 5)), 1, true)
    end
  end)

  it("are held by no operation that waits for data", function()
    local memory = provided(1, 16)
    local ops, ends = {}, {}
    for i = 1, 10 do
      local a, b = socketpair()
      ops[i], ends[i] = uring.prepare("recv", a, nil, { buffer_group = GROUP }), b
    end
    turn()
    for i = 10, 1, -1 do
      send(ends[i], "no " .. i)
      local n, id = ops[i]:await()
      assert.are.equal("no " .. i, memory:get(1, n))
      assert.are.equal(0, op.provide_buffers(memory, 16, 1, GROUP, id))
    end
    assert.are.equal(1, op.remove_buffers(1, GROUP))
  end)

  it("come back where an operation that had one is cancelled or fails", function()
    local r = pipe()
    local a = socketpair()
    for _, case in ipairs {
      { "recv", a, nil, { buffer_group = GROUP } }, { "recv", a, nil, { buffer_group = GROUP, async = true } },
      { "read", r, nil, { buffer_group = GROUP } }, { "read", r, nil, { buffer_group = GROUP, async = true } },
      { "recv", a, nil, { buffer_group = GROUP, multishot = true } },
    } do
      local memory = provided(2, 16)
      local waiting = uring.prepare(table.unpack(case, 1, 4))
      turn()
      waiting:cancel()
      assert.is_nil((waiting:await()))
      local removed = op.remove_buffers(2, GROUP)
      assert.are.equal(0, lent(), case[1])
      assert.is_true(removed == nil or removed <= 2)
      assert.are.equal("owned", memory:status())
    end
  end)

  it("may be provided many times, one after the other", function()
    math.randomseed(20260101)
    local N <const> = 32
    local memory = uring.buffer(N * 8)
    local with_kernel, free = 0, {}
    for i = 1, N do
      free[i] = i - 1
    end
    local a, b = socketpair()
    local sent, received = 0, 0
    for _ = 1, helper.times(1500) do
      local dice = math.random(4)
      if dice == 1 and #free > 0 then
        local id = table.remove(free, math.random(#free))
        assert.are.equal(0, op.provide_buffers(memory:slice(8 * id + 1, 8 * id + 8), 8, 1, GROUP, id))
        with_kernel = with_kernel + 1
      elseif dice == 2 and sent - received < 50 then
        sent = sent + 1
        send(b, ("%07d,"):format(sent))
      elseif dice == 3 then
        local n, id = op.recv(a, nil, nil, const.MSG_DONTWAIT, { buffer_group = GROUP })
        if n then
          received = received + 1
          assert.are.same({ 8, ("%07d,"):format(received) }, { n, memory:get(8 * id + 1, 8 * id + 8) })
          free[#free + 1] = id
          with_kernel = with_kernel - 1
        else
          assert.is_true(sent == received or with_kernel == 0)
        end
      end
      assert.are.equal(8 * with_kernel, lent())
    end
    op.remove_buffers(N, GROUP)
    assert.are.equal("owned", memory:status())
  end)

  it("in many groups do not get in one another's way", function()
    local all = {}
    for g = 1, 50 do
      all[g] = provided(3, 4, 0, g)
    end
    assert.are.equal(50 * 12, lent())
    for g = 50, 1, -1 do
      assert.are.equal(3, op.remove_buffers(3, g))
      assert.are.equal(12 * (g - 1), lent())
      assert.are.equal("owned", all[g]:status())
    end
  end)

  it("and a pool keep out of each other's way", function()
    local p = keep(uring.pool { buffers = 2, size = 8 })
    local memory = uring.buffer(16)
    local n, _, number = op.provide_buffers(memory, 8, 2, p:group(), 0)
    assert.is_nil(n)
    assert.is_true(number == errno.EINVAL or number == errno.EEXIST, number)
    assert.are.equal("owned", memory:status())
    assert.is_nil((op.remove_buffers(1, p:group())))
    local a, b = socketpair()
    send(b, "still")
    local size, x = op.recv(a, p)
    assert.are.same({ 5, "still" }, { size, x:get() })
  end)
end)
