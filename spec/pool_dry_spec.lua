-- Pools: what happens when there is no buffer, or no pool any more.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local shared = require "spec.support.pools"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit
local socketpair, keep = opened.socketpair, opened.keep
local error_of, collect = helper.error_of, helper.collect
local kept, pool, counts, assert_out = shared.kept, shared.pool, shared.counts, shared.assert_out
local assert_quiet, turn, send, text_of = shared.assert_quiet, shared.turn, shared.send, shared.text_of
local dry, assert_script = shared.dry, shared.assert_script

local seed = tonumber(os.getenv "URING_SEED") or 20260101

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

  describe("and keeps the queue full", function()
    local function full()
      local ring = opened.ring { entries = 2, backlog = 1 }
      local p = keep(ring:pool { buffers = 1, size = 4 })
      local a, b = socketpair()
      send(b, "datamore")
      local _, x = ring:prepare("recv", a, p):await()
      local waiting = ring:prepare("recv", a, p, { copy = true })
      ring:step(0)
      ring:step(0)
      return ring, waiting, ring:prepare("nop", { drain = true }), x
    end

    it("collects Buffers that nobody has any more", function()
      local ring, waiting, drained = full()
      local last = ring:prepare("nop")
      assert.are.same({ 4, "more" }, { waiting:await() })
      assert.are.same({ 0, 0 }, { drained:await(), (last:await()) })
    end)

    it("raises where a buffer can never come back", function()
      local ring, waiting, drained, x = full()
      assert.matches("deadlock: an operation waits for a buffer", error_of(ring.prepare, ring, "nop"))
      x:close()
      assert.are.same({ 0, 4, "more" }, { drained:await(), waiting:await() })
    end)
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
