-- Pools: several buffers at once, parts of one, and sending from them.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local shared = require "spec.support.pools"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit
local socketpair, pipe = opened.socketpair, opened.pipe
local error_of, collect = helper.error_of, helper.collect
local dgrams, pool, counts, assert_out = shared.dgrams, shared.pool, shared.counts, shared.assert_out
local assert_quiet, turn, send, text_of = shared.assert_quiet, shared.turn, shared.send, shared.text_of

local seed = tonumber(os.getenv "URING_SEED") or 20260101

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
