-- Operations that give many results: nothing of them is lost, however they
-- are ended, held up, cancelled and forgotten.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local shared = require "spec.support.pools"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit
local socketpair, pipe, keep = opened.socketpair, opened.pipe, opened.keep
local error_of, collect, eventually = helper.error_of, helper.collect, helper.eventually
local kept, dgrams, pool, text_of = shared.kept, shared.dgrams, shared.pool, shared.text_of
local assert_out, assert_quiet, turn = shared.assert_out, shared.assert_quiet, shared.turn

local RESULTS_MAX <const> = 256 -- that an operation may be ahead of its reader
local OFTEN <const> = helper.valgrind and 0.005 or helper.slow and 0.001 or 0.0001 -- seconds between firings

local function udp()
  local fd = assert(op.socket(const.AF_INET, const.SOCK_DGRAM | const.SOCK_CLOEXEC))
  keep { close = function() testkit.close(fd) end }
  assert(op.bind(fd, "127.0.0.1:0"))
  return fd, core.local_address(fd)
end

local function send(fd, text)
  local at = 1
  while at <= #text do
    at = at + assert(op.send(fd, at == 1 and text or text:sub(at)))
  end
end

-- n records of 8 bytes, from `first` on.
local function records(n, first)
  local list = {}
  for i = 1, n do
    list[i] = ("%07d,"):format(i - 1 + (first or 1))
  end
  return table.concat(list)
end

-- Takes results until it has n of them; each is the next record.
local function take_records(many, n, from)
  for i = from or 1, n do
    local size, x = many:await()
    assert(size == 8, size or x)
    local text = type(x) == "string" and x or x:get()
    assert.are.equal(("%07d,"):format(i), text)
    if type(x) ~= "string" then
      x:close()
    end
  end
end

local function ended(many)
  local n, _, number = many:await()
  assert.is_nil(n)
  return number
end

local function script(chunk)
  return helper.script(chunk, "timeout --foreground -k 1 60 env ")
end

local function multishot(options)
  options = options or {}
  options.multishot = true
  return options
end

describe("a multishot recv", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("gives what comes, as it comes, to the end of the stream", function()
    local p = pool { buffers = 8, size = 16 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, multishot())
    local got = {}
    for i = 1, 20 do
      send(b, "message " .. i)
      local n, x = many:await()
      assert.are.equal(#x, n)
      got[i] = x:get()
      x:close()
    end
    assert.are.same({ "message 1", "message 20" }, { got[1], got[20] })
    send(b, "the last")
    op.shutdown(b, "w")
    local rest = {}
    for n, x in many:results() do
      rest[#rest + 1] = n .. x:get()
    end
    assert.are.same({ "8the last" }, rest)
    assert.are.equal("done", many:status())
    assert_quiet(p)
  end)

  it("says 0 at the end to who awaits it, and says nothing else any more", function()
    local p = pool { buffers = 8, size = 16 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, multishot())
    send(b, "x")
    op.shutdown(b, "w")
    local n, x = many:await()
    assert.are.same({ 1, "x" }, { n, x:get() })
    assert.are.same({ 0, n = 1 }, table.pack(many:await()))
    for _ = 1, 3 do
      n = many:await()
      assert.is_true(n == nil or n == 0)
    end
    for _ in many:results() do
      error "there is nothing"
    end
  end)

  it("that is cancelled repeats no result", function()
    local p = pool { buffers = 64, size = 8 }
    for _, take in ipairs { 0, 3 } do
      local a, b = socketpair()
      local many = uring.prepare("recv", a, p, multishot { copy = true })
      send(b, records(10))
      turn()
      take_records(many, take)
      many:cancel()
      take_records(many, 10, take + 1)
      for _ = 1, 3 do
        assert.are.equal(errno.ECANCELED, ended(many))
      end
    end
  end)

  it("raises where the connection is reset, when all that came before has been taken", function()
    local p = pool { buffers = 8, size = 16 }
    uring.run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local client = assert(uring.connect(listener:address()))
      local server <close> = assert(listener:accept())
      local many = uring.prepare("recv", server:fd(), p, multishot { copy = true })
      client:write "before"
      uring.sleep(0.002)
      op.setsockopt(client:fd(), const.SOL_SOCKET, const.SO_LINGER, "\1\0\0\0\0\0\0\0")
      client:close()
      uring.sleep(0.002)
      local got = {}
      local message = error_of(function()
        for _, text in many:results() do
          got[#got + 1] = text
        end
      end)
      assert.are.same({ "before" }, got)
      assert.matches("recv: Connection reset by peer", message, 1, true)
      assert.are.equal("done", many:status())
    end)
    assert_quiet(p)
  end)

  it("says what is wrong with its descriptor", function()
    local p = pool { buffers = 8, size = 16 }
    local r = pipe()
    for fd, number in pairs { [1000000] = errno.EBADF, [r] = errno.ENOTSOCK } do
      local many = uring.prepare("recv", fd, p, multishot())
      assert.matches("recv: ", error_of(function() for _ in many:results() do error "no" end end), 1, true)
      assert.are.equal(number, ended(uring.prepare("recv", fd, p, multishot())))
    end
    assert_quiet(p)
  end)

  it("is cancelled by leaving the loop", function()
    local p = pool { buffers = 4, size = 8 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, multishot())
    send(b, records(10))
    local got = 0
    for _, x in many:results() do
      got = got + 1
      assert.are.equal(records(1, got), x:get())
      if got == 2 then
        break
      end
    end
    assert.are.equal("done", many:status())
    assert.are.equal(0, uring.stats().in_flight)
    assert_quiet(p)
  end)

  it("is as a string with copy, and holds no buffer while that is read", function()
    local p = pool { buffers = 2, size = 8 }
    local a, b = socketpair()
    send(b, records(100))
    op.shutdown(b, "w")
    local parts = {}
    for n, text in uring.prepare("recv", a, p, multishot { copy = true }):results() do
      assert.are.equal(#text, n)
      parts[#parts + 1] = text
    end
    assert.are.equal(records(100), table.concat(parts))
    assert_out(0, p)
  end)

  it("is in bundles where they are asked for", function()
    local p = pool { buffers = 16, size = 8 }
    local a, b = socketpair()
    local text = text_of(5000)
    local parts, results = {}, 0
    uring.run(function()
      uring.spawn(function()
        send(b, text)
        op.shutdown(b, "w")
      end)
      for n, list in uring.prepare("recv", a, p, multishot { bundle = true }):results() do
        results = results + 1
        for _, x in ipairs(list) do
          parts[#parts + 1] = x:get()
          n = n - #x
          x:close()
        end
        assert(n == 0)
      end
    end)
    assert.are.equal(text, table.concat(parts))
    assert.is_true(results < 5000 / 8)
    assert_out(0, p)
    a, b = socketpair()
    send(b, text)
    op.shutdown(b, "w")
    parts = {}
    for _, part in uring.prepare("recv", a, p, multishot { bundle = true, copy = true }):results() do
      parts[#parts + 1] = part
    end
    assert.are.equal(text, table.concat(parts))
    assert_out(0, p)
  end)

  it("uses one Buffer again with reuse, and gives back what was in it", function()
    local p = pool { buffers = 2, size = 8 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, multishot { reuse = true })
    send(b, records(50))
    op.shutdown(b, "w")
    local first, slice
    local i = 0
    for n, x in many:results() do
      i = i + 1
      first = first or x
      assert.are.equal(first, x)
      assert.are.same({ 8, ("%07d,"):format(i) }, { n, x:get() })
      if i == 10 then
        slice = x:slice(1, 7)
      elseif i == 20 then
        assert.are.equal("0000010", slice:get())
        slice:close()
      elseif i == 30 then
        x:close()
      end
    end
    assert.are.equal(50, i)
    many, slice = nil, nil -- luacheck: ignore
    first:close()
    assert_quiet(p)
    -- of a single-shot operation, too
    a, b = socketpair()
    send(b, "once")
    local one = uring.prepare("recv", a, p, { reuse = true })
    local n, x = one:await()
    assert.are.same({ 4, "once" }, { n, x:get() })
    x:close()
    assert_out(0, p)
  end)

  it("that is forgotten gives its buffers back and leaves what it has not received", function()
    local p = pool { buffers = 4, size = 8 }
    local a, b = socketpair()
    for _, when in ipairs { "prepared", "armed", "unread", "starving" } do
      send(b, when == "starving" and records(8) or when == "unread" and records(2) or "")
      do
        local _many = uring.prepare("recv", a, p, multishot())
        if when ~= "prepared" then
          turn()
        end
        if when == "starving" then
          assert.is_true(p:stats().starved > 0)
        end
      end
      collect()
      eventually(function() collect() return uring.stats().in_flight == 0 end)
      assert_quiet(p)
    end
    assert.are.equal(8, (op.recv(a, p)))
    assert_quiet(p)
  end)

  it("starves, and goes on when a buffer comes back", function()
    local p = pool { buffers = 3, size = 8 }
    local a, b = socketpair()
    send(b, records(100))
    local many = uring.prepare("recv", a, p, multishot())
    local held = {}
    for i = 1, 100 do
      local n, x = many:await()
      assert.are.same({ 8, ("%07d,"):format(i) }, { n, x:get() })
      held[#held + 1] = x
      if #held == 3 then
        turn()
        assert.are.equal(i < 90 and 0 or uring.stats().in_flight, uring.stats().in_flight)
        table.remove(held, i % 3 + 1):close()
        if i % 2 == 0 then
          table.remove(held, i % 2 + 1):close()
        end
      end
    end
    assert.is_true(p:stats().starved > 10)
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
    held = nil -- luacheck: ignore
    assert_quiet(p)
  end)

  it("waits for a drain before it, and holds up one behind it", function()
    local ring = opened.ring()
    local p = pool({ buffers = 2, size = 8 }, ring)
    local a, b = socketpair()
    local r, w = pipe()
    local first = ring:prepare("read", r, uring.buffer(1))
    local many = ring:prepare("recv", a, p, multishot { drain = true, copy = true })
    local behind = ring:prepare("nop", { drain = true })
    send(b, records(20))
    ring:step(0)
    assert.are.equal("prepared", many:status())
    op.write(w, "x")
    assert.are.equal(1, (first:await()))
    take_records(many, 20) -- it starves and goes on all the while
    assert.are.equal("prepared", behind:status())
    many:cancel()
    assert.are.equal(0, (behind:await()))
    assert.are.equal(errno.ECANCELED, ended(many))
  end)

  it("may be ended by a task that is cancelled", function()
    local p = pool { buffers = 2, size = 8 }
    local a, b = socketpair()
    for _, state in ipairs { "armed", "starving" } do
      local got = 0
      uring.run(function()
        local many
        local task = uring.spawn(function()
          many = uring.prepare("recv", a, p, multishot())
          local held = {}
          for _, x in many:results() do
            got = got + 1
            held[got] = x
            assert(#held == got)
          end
        end)
        send(b, records(state == "armed" and 1 or 4))
        uring.sleep(0.002)
        task:cancel()
        assert.is_false((pcall(task.await, task)))
        assert.are.equal("done", many:status())
      end)
      assert.are.equal(state == "armed" and 1 or 2, got)
      assert_quiet(p)
    end
  end)

  it("may have several readers, each of which gets other results", function()
    local p = pool { buffers = 2, size = 8 }
    local a, b = socketpair()
    local seen, total = {}, 0
    uring.run(function()
      local many = uring.prepare("recv", a, p, multishot { copy = true })
      for _ = 1, 4 do
        uring.spawn(function()
          while true do
            local n, text = many:await()
            if not n or n == 0 then
              return
            end
            assert(not seen[text])
            seen[text] = true
            total = total + 1
            if total % 3 == 0 then
              uring.yield()
            end
          end
        end)
      end
      send(b, records(100))
      uring.sleep(0.005)
      op.shutdown(b, "w")
    end)
    assert.are.equal(100, total)
  end)

  it("may be of another ring", function()
    local ring = opened.ring { entries = 4 }
    local p = pool({ buffers = 2, size = 8 }, ring)
    local a, b = socketpair()
    -- outside of tasks
    local many = ring:prepare("recv", a, p, multishot())
    send(b, records(50))
    take_records(many, 50)
    -- and inside
    uring.run(function()
      uring.spawn(function()
        for i = 51, 100 do
          send(b, records(1, i))
          if i % 10 == 0 then
            uring.sleep(0.0005)
          end
        end
      end)
      take_records(many, 100, 51)
      local waiting = uring.spawn(function() return many:await() end)
      uring.sleep(0.002)
      waiting:cancel()
      assert.is_false((pcall(waiting.await, waiting)))
    end)
    assert.are.equal("done", many:status())
    assert_quiet(p)
  end)
end)

describe("a reader that is slow", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("holds a multishot recv up, and loses nothing", function()
    local p = pool { buffers = 1024, size = 8 }
    local a, b = socketpair()
    local many = uring.prepare("recv", a, p, multishot())
    local N <const> = 2000
    uring.submit()
    send(b, records(N))
    for _ = 1, 10 do
      turn()
    end
    local ahead = p:stats().out
    assert.is_true(ahead >= RESULTS_MAX and ahead < 2 * RESULTS_MAX, ahead)
    assert.are.equal(0, uring.stats().in_flight)
    take_records(many, 100)
    turn()
    assert.are.equal(ahead - 100, p:stats().out)
    take_records(many, N, 101)
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
    assert_out(0, p)
  end)

  for _, cq in ipairs { 2, 4, 16, 64, 256 } do
    it(("and a completion queue of %d lose nothing"):format(cq), function()
      local ring = opened.ring { entries = math.min(4, cq), cq_entries = cq }
      local p = pool({ buffers = 512, size = 8 }, ring)
      for _, N in ipairs { 255, 256, 257, 272, 280, 300, 600 } do
        local a, b = socketpair()
        local many = ring:prepare("recv", a, p, multishot { copy = true })
        ring:submit()
        send(b, records(N))
        turn(ring)
        turn(ring)
        local taken = math.min(N, 200)
        take_records(many, taken)
        for _ = 1, 3 do -- long enough for a late cancel request to be repeated
          ring:prepare("timeout", 0.011):await()
        end
        take_records(many, N, taken + 1)
        send(b, records(20, N + 1))
        turn(ring)
        take_records(many, N + 20, N + 1)
        op.shutdown(b, "w")
        assert.are.equal(0, (many:await()))
        assert_out(0, p)
      end
      local s = ring:stats()
      assert.are.same({ 0, 0, s.prepared }, { s.in_flight, s.unknown, s.completed })
    end)
  end

  it("holds up a multishot recv that starves at the same time", function()
    for _, buffers in ipairs { 255, 256, 257, 260, 272 } do
      for _, cq in ipairs { 4, 16, 1024 } do
        local ring <close> = uring.ring { entries = 4, cq_entries = cq }
        local p <close> = ring:pool { buffers = buffers, size = 8 }
        local a, b = core.socketpair()
        local many = ring:prepare("recv", a, p, multishot())
        ring:submit()
        send(b, records(800))
        turn(ring)
        turn(ring)
        take_records(many, 100)
        for _ = 1, 3 do
          ring:prepare("timeout", 0.006):await()
        end
        take_records(many, 800, 101)
        assert_out(0, p)
        many:cancel()
        assert.are.equal(errno.ECANCELED, ended(many))
        testkit.close(a)
        testkit.close(b)
      end
    end
  end)

  it("holds up a multishot accept, and loses no connection", function()
    for _, cq in ipairs { 4, 1024 } do
      local ring <close> = uring.ring { entries = 4, cq_entries = cq }
      local listener <close> = assert(uring.listen { "127.0.0.1:0", backlog = 1000 })
      local many = ring:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, multishot())
      ring:submit()
      local N <const> = 400
      local clients = {}
      for i = 1, N do
        clients[i] = assert(uring.connect(listener:address()))
        if i % 50 == 0 then
          ring:step(0)
        end
      end
      for _ = 1, 3 do
        turn(ring)
      end
      local seen = {}
      for _ = 1, N do
        local fd = assert(many:await())
        local peer = core.peer_address(fd)
        assert(not seen[peer])
        seen[peer] = true
        testkit.close(fd)
      end
      for i = 1, N do
        assert(seen[clients[i]:address()])
        clients[i]:close()
      end
      turn(ring) -- it is queued again, now that its reader has caught up
      many:cancel()
      assert.are.equal(errno.ECANCELED, ended(many))
      assert.is_true(ring:stats().rearmed > 0)
    end
  end)

  it("that never comes leaves no descriptor behind", function()
    local before = testkit.fds()
    for _, how in ipairs { "dropped", "cancelled", "closed", "ring closed", "ring dropped" } do
      local ring = uring.ring { entries = 4, cq_entries = 8 }
      local listener = assert(uring.listen { "127.0.0.1:0", backlog = 1000 })
      local many = ring:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, multishot())
      ring:submit()
      local clients = {}
      for i = 1, 300 do
        clients[i] = assert(uring.connect(listener:address()))
      end
      for _ = 1, 5 do
        turn(ring)
      end
      if how == "cancelled" then
        many:cancel()
      elseif how == "closed" then
        local _op <close> = many
      elseif how == "ring closed" then
        ring:close()
      elseif how == "ring dropped" then
        ring = nil -- luacheck: ignore
      end
      many = nil -- luacheck: ignore
      for i = 1, 300 do
        clients[i]:close()
      end
      listener:close()
      collect()
      if ring then
        for _ = 1, 5 do
          pcall(turn, ring)
        end
        ring:close()
      end
      ring = nil -- luacheck: ignore
      eventually(function() collect() return testkit.fds() == before end)
    end
  end)

  it("holds up a multishot poll", function()
    local ring = opened.ring { entries = 4, cq_entries = 8 }
    local a, b = dgrams()
    local many = ring:prepare("poll_add", a, const.POLLIN, multishot())
    ring:submit()
    local buffer = uring.buffer(8)
    for _ = 1, 600 do
      send(b, "x")
      ring:step(0)
      assert(op.recv(a, buffer))
    end
    local n = 0
    repeat
      local events = assert(many:await())
      assert.are.equal(const.POLLIN, events & const.POLLIN)
      n = n + 1
    until n == RESULTS_MAX // 2 + 10 -- it runs again
    turn(ring)
    while ring:stats().in_flight == 0 do
      assert(many:await())
    end
    send(b, "one more")
    many:cancel()
    local last
    for events in many:results() do
      last = events
    end
    assert.is_truthy(last)
    assert.is_true(ring:stats().rearmed > 0)
  end)

  it("gets every firing of a timer that counts them", function()
    for _, count in ipairs { 1, 2, 255, 256, 257, 400 } do
      local many = uring.prepare("timeout", OFTEN, count, multishot())
      uring.submit()
      local deadline = uring.now() + 0.05 + count * OFTEN
      while uring.now() < deadline do
        turn()
      end
      local n = 0
      for result in many:results() do
        assert.are.equal(0, result)
        n = n + 1
      end
      assert.are.equal(count, n)
    end
  end)

  it("gets a timer without a count for as long as it wants", function()
    local many = uring.prepare("timeout", OFTEN, multishot())
    uring.submit()
    for _ = 1, 30 do
      turn()
    end
    for _ = 1, helper.valgrind and 300 or 600 do
      assert.are.equal(0, (many:await()))
    end
    many:cancel()
    for result in many:results() do
      assert.are.equal(0, result)
    end
    assert.are.equal("done", many:status())
  end)

  it("may cancel what is held up, at any moment of it", function()
    math.randomseed(20260101)
    local p = pool { buffers = 600, size = 8 }
    for round = 1, helper.times(60) do
      local ring = uring.ring { entries = 4, cq_entries = 1 << math.random(2, 9) }
      local q = ring:pool { buffers = math.random(250, 400), size = 8 }
      local a, b = core.socketpair()
      local many = ring:prepare("recv", a, q, multishot { copy = round % 2 == 0 })
      ring:submit()
      send(b, records(500))
      for _ = 1, math.random(0, 30) do
        ring:step(0)
      end
      local taken = 0
      if math.random(2) == 1 and many:status() ~= "done" then
        taken = math.random(1, 200)
        take_records(many, taken)
      end
      for _ = 1, math.random(0, 3) do
        ring:step(0)
      end
      many:cancel()
      if math.random(2) == 1 then
        ring:step(0)
        many:cancel()
      end
      while true do
        local n, x = many:await()
        if not n or not x then
          break
        end
        taken = taken + 1
        assert.are.equal(("%07d,"):format(taken), type(x) == "string" and x or x:get())
      end
      local s = ring:stats()
      assert.are.same({ 0, 0, s.prepared }, { s.in_flight, s.unknown, s.completed })
      -- the rest is still in the socket
      local text, n = {}, taken
      local buffer = uring.buffer(8192)
      while n < 500 do
        local size = op.recv(a, buffer, nil, const.MSG_DONTWAIT)
        text[#text + 1] = buffer:get(1, size)
        n = n + size // 8
      end
      assert.are.equal(records(500 - taken, taken + 1), table.concat(text))
      collect()
      assert.are.equal(q:stats().buffers, q:stats().provided)
      ring:close()
      testkit.close(a)
      testkit.close(b)
    end
    assert_out(0, p)
  end)
end)

describe("a multishot recvmsg", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("brings each message with its sender", function()
    local p = pool { buffers = 8, size = 256 }
    local receiver, to = udp()
    local many = uring.prepare("recvmsg", receiver, { data = p }, multishot())
    local senders = {}
    for i = 1, 3 do
      local fd, from = udp()
      senders[i] = { fd = fd, from = from }
    end
    for i = 1, 30 do
      local sender = senders[i % 3 + 1]
      local text = i % 5 == 0 and "" or ("message %d"):format(i)
      assert.are.equal(#text, op.sendmsg(sender.fd, { data = text, to = to }))
      local n, message, x = many:await()
      assert.are.same({ #text, sender.from, 0, 0, text }, { n, message.from, message.flags, message.control_length,
        x and x:get() or "" })
      if x then
        x:close()
      end
      assert_out(0, p)
    end
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
  end)

  it("gives the data as a string with copy, and in the same Buffer with reuse", function()
    local p = pool { buffers = 1, size = 256 }
    local receiver, to = udp()
    local sender, from = udp()
    for _, options in ipairs { { copy = true }, { reuse = true } } do
      local many = uring.prepare("recvmsg", receiver, { data = p }, multishot(options))
      local one
      for i = 1, 10 do
        local text = ("message %d"):format(i)
        op.sendmsg(sender, { data = text, to = to })
        local n, message, x = many:await()
        one = one or x
        assert.are.same({ #text, from, text }, { n, message.from, options.copy and x or x:get() })
        assert.is_true(options.copy or one == x)
      end
      many:cancel()
      assert.are.equal(errno.ECANCELED, ended(many))
      if options.reuse then
        one:close()
      end
      assert_out(0, p)
    end
  end)

  it("says where a message was cut", function()
    local p = pool { buffers = 2, size = 16 + 128 + 10 }
    local receiver, to = udp()
    local sender, from = udp()
    local many = uring.prepare("recvmsg", receiver, { data = p }, multishot())
    for _, size in ipairs { 9, 10, 11, 1000, 1, 0 } do
      local text = text_of(size)
      op.sendmsg(sender, { data = text, to = to })
      local n, message, x = many:await()
      assert.are.same({ math.min(size, 10), from, size > 10 and const.MSG_TRUNC or 0, text:sub(1, 10) },
        { n, message.from, message.flags, x and x:get() or "" })
      if x then
        x:close()
      end
    end
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
    assert_out(0, p)
  end)

  it("brings control data where room is asked for", function()
    local SO_TIMESTAMP <const> = 29
    for _, room in ipairs { 32, 64, 100, 4096 } do
      local p = pool { buffers = 2, size = 5000 }
      local receiver, to = udp()
      op.setsockopt(receiver, const.SOL_SOCKET, SO_TIMESTAMP, 1)
      local sender, from = udp()
      local many = uring.prepare("recvmsg", receiver, { data = p, control = room }, multishot { copy = true })
      for i = 1, 3 do
        op.sendmsg(sender, { data = "stamped " .. i, to = to })
        local n, message, text = many:await()
        assert.are.same({ 9, from, 0, "stamped " .. i }, { n, message.from, message.flags, text })
        assert.are.equal(32, message.control_length)
        assert.are.equal(32, #message.control)
        local length, level, kind = string.unpack("=I8i4i4", message.control)
        assert.are.same({ 32, const.SOL_SOCKET, SO_TIMESTAMP }, { length, level, kind })
      end
      many:cancel()
      assert.are.equal(errno.ECANCELED, ended(many))
    end
    -- none, and too little
    local p = pool { buffers = 2, size = 512 }
    local receiver, to = udp()
    op.setsockopt(receiver, const.SOL_SOCKET, SO_TIMESTAMP, 1)
    local sender = udp()
    for _, room in ipairs { 0, 8 } do
      local many = uring.prepare("recvmsg", receiver, { data = p, control = room }, multishot { copy = true })
      op.sendmsg(sender, { data = "cut", to = to })
      local n, message, text = many:await()
      assert.are.same({ 3, "cut", const.MSG_CTRUNC }, { n, text, message.flags })
      assert.is_true(message.control_length <= room)
      many:cancel()
      assert.are.equal(errno.ECANCELED, ended(many))
    end
  end)

  it("of a stream ends with it", function()
    local p = pool { buffers = 8, size = 200 }
    local a, b = socketpair()
    local many = uring.prepare("recvmsg", a, { data = p }, multishot())
    send(b, "stream")
    op.shutdown(b, "w")
    local parts = {}
    for n, message, x in many:results() do
      assert.is_nil(message.from)
      parts[#parts + 1] = x:get(1, n)
    end
    assert.are.equal("stream", table.concat(parts))
    assert.are.equal("done", many:status())
    assert_quiet(p)
    a, b = socketpair()
    many = uring.prepare("recvmsg", a, { data = p }, multishot())
    op.shutdown(b, "w")
    for _ = 1, 3 do
      local n = many:await()
      assert.is_true(n == 0 or n == nil)
    end
    many = nil -- luacheck: ignore
    assert_quiet(p)
  end)

  it("needs room for more than the data", function()
    local p = pool { buffers = 1, size = 143 }
    local receiver = udp()
    local message = error_of(uring.prepare, "recvmsg", receiver, { data = p }, multishot())
    assert.matches("recvmsg: .*143.*144", message)
    local q = pool { buffers = 1, size = 1000 }
    message = error_of(uring.prepare, "recvmsg", receiver, { data = q, control = 900 }, multishot())
    assert.matches("recvmsg: .*1000.*1044", message)
    assert.matches("recvmsg: with multishot, control is a number of bytes",
      error_of(uring.prepare, "recvmsg", receiver, { data = q, control = uring.buffer(64) }, multishot()), 1, true)
  end)

  it("goes on through an empty pool and a full completion queue", function()
    local ring = opened.ring { entries = 4, cq_entries = 8 }
    local p = pool({ buffers = 20, size = 200 }, ring)
    local a, b = kept(core.socketpair(const.SOCK_SEQPACKET or 5))
    local many = ring:prepare("recvmsg", a, { data = p }, multishot())
    ring:submit()
    local N <const> = helper.times(1000)
    local sent, held = 0, {}
    for i = 1, N do
      while sent < N and sent < i + 30 do
        sent = sent + 1
        send(b, records(1, sent))
      end
      local n, _, x = many:await()
      assert.are.same({ 8, records(1, i) }, { n, x:get() })
      held[#held + 1] = x
      if #held == 20 then
        turn(ring)
        for _ = 1, i % 20 + 1 do
          table.remove(held, 1):close()
        end
      end
    end
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
    held = nil -- luacheck: ignore
    assert_quiet(p)
  end)
end)

describe("a read_multishot", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  for _, incremental in ipairs { false, true } do
    it("gives what comes through a pipe, to its end" .. (incremental and ", incrementally" or ""), function()
      local p = pool { buffers = 2, size = 24, incremental = incremental }
      local read, write = uring.pipe()
      local text = text_of(20000)
      local parts = {}
      uring.run(function()
        uring.spawn(function()
          for at = 1, #text, 100 do
            assert(op.write(write:fd(), text:sub(at, at + 99)))
            if at % 700 == 1 then
              uring.sleep(0.0002)
            end
          end
          write:close()
        end)
        for n, x in uring.prepare("read_multishot", read:fd(), p):results() do
          parts[#parts + 1] = x:get(1, n)
          x:close()
        end
      end)
      read:close()
      assert.are.equal(text, table.concat(parts))
      assert_out(0, p)
    end)
  end

  it("says what it cannot read from", function()
    local p = pool { buffers = 2, size = 24 }
    local file = assert(op.openat(nil, "/etc/passwd", const.O_RDONLY | const.O_CLOEXEC))
    assert.are.equal(errno.EBADFD or 77, ended(uring.prepare("read_multishot", file, p)))
    op.close(file)
    assert.are.equal(errno.EBADF, ended(uring.prepare("read_multishot", 1000000, p)))
    assert_quiet(p)
  end)

  it("reads an event counter each time that it counts", function()
    local p = pool { buffers = 2, size = 8 }
    local ring = opened.ring()
    local fd = ring:fd() -- an eventfd
    local many = uring.prepare("read_multishot", fd, p, { copy = true })
    uring.submit()
    for i = 1, 5 do
      assert.are.equal(8, op.write(fd, string.pack("=I8", i)))
      assert.are.same({ 8, string.pack("=I8", i) }, { many:await() })
    end
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
  end)
end)

describe("one by one, where the kernel does not know it as multishot:", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local function lacking(name)
    return opened.ring { entries = 4, without = { name } }
  end

  for _, case in ipairs { { "recv_multishot", "recv" }, { "read_multishot", "read_multishot" } } do
    it("a " .. case[2], function()
      local ring = lacking(case[1])
      local p = pool({ buffers = 2, size = 8 }, ring)
      for _ = 1, 2 do
        local a, b = socketpair()
        local many = ring:prepare(case[2], a, p, case[2] == "recv" and multishot() or nil)
        send(b, records(50))
        take_records(many, 50)
        turn(ring)
        send(b, records(1, 51))
        op.shutdown(b, "w")
        local rest = {}
        for n, x in many:results() do
          rest[#rest + 1] = x:get(1, n)
        end
        assert.are.equal(records(1, 51), table.concat(rest))
        assert_quiet(p)
      end
      -- cancelled, starving and not
      for _, starving in ipairs { false, true } do
        local a, b = socketpair()
        send(b, records(4))
        local many = ring:prepare(case[2], a, p, case[2] == "recv" and multishot() or nil)
        local _, one = many:await()
        local _, two = many:await()
        if not starving then
          one:close()
          take_records(many, 4, 4 - 1)
        end
        turn(ring)
        many:cancel()
        assert.are.equal(errno.ECANCELED, ended(many))
        one:close()
        two:close()
        many = nil -- luacheck: ignore
        assert_quiet(p)
      end
    end)
  end

  it("an accept", function()
    local ring = lacking "accept_multishot"
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local many = ring:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, multishot())
    for _ = 1, 10 do
      local client <close> = assert(uring.connect(listener:address()))
      local fd = assert(many:await())
      assert.are.equal(client:address(), core.peer_address(fd))
      testkit.close(fd)
    end
    many:cancel()
    assert.are.equal(errno.ECANCELED, ended(many))
    assert.is_false(ring:features().variants.accept_multishot)
  end)

  it("a poll", function()
    local ring = lacking "poll_multishot"
    local a, b = dgrams()
    local many = ring:prepare("poll_add", a, const.POLLIN, multishot())
    local buffer = uring.buffer(8)
    for _ = 1, 10 do
      send(b, "x")
      assert.is_true(assert(many:await()) & const.POLLIN ~= 0)
      assert(op.recv(a, buffer))
    end
    many:cancel()
    for _ in many:results() do -- it may have been there once more
    end
    assert.are.equal("done", many:status())
  end)

  it("a timer, with a count and without", function()
    local ring = lacking "timeout_multishot"
    local n = 0
    for result in ring:prepare("timeout", OFTEN, 7, multishot()):results() do
      assert.are.equal(0, result)
      n = n + 1
    end
    assert.are.equal(7, n)
    local many = ring:prepare("timeout", OFTEN, multishot())
    for _ = 1, 10 do
      assert.are.equal(0, (many:await()))
    end
    many:cancel()
    for _ in many:results() do -- it may have fired once more
    end
    assert.are.equal("done", many:status())
  end)

  it("a bundle buffer by buffer, and an incremental pool whole", function()
    local ring = opened.ring { entries = 4, without = { "bundle", "incremental_pool" } }
    local p = pool({ buffers = 2, size = 8, incremental = true }, ring)
    assert.is_false(p:stats().incremental)
    local a, b = socketpair()
    send(b, records(10))
    op.shutdown(b, "w")
    local i = 0
    for n, list in ring:prepare("recv", a, p, multishot { bundle = true }):results() do
      i = i + 1
      assert.are.same({ 8, 1, records(1, i) }, { n, #list, list[1]:get() })
      list[1]:close()
    end
    assert.are.equal(10, i)
    assert_out(0, p)
  end)
end)

describe("a multishot operation that the kernel ends", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("goes on where the completion queue overflowed", function()
    local ring = opened.ring { entries = 4, cq_entries = 4 }
    local a, b = dgrams()
    local p = pool({ buffers = 100, size = 8 }, ring)
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local many = {
      recv = ring:prepare("recv", a, p, multishot { copy = true }),
      accept = ring:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, multishot()),
      timer = ring:prepare("timeout", math.max(OFTEN, 0.001), multishot()),
    }
    ring:submit()
    local clients, sent, received, accepted = {}, 0, 0, 0
    for round = 1, 20 do
      local nops = {}
      for i = 1, 4 do
        nops[i] = ring:prepare "nop"
      end
      ring:submit()
      for _ = 1, 5 do
        sent = sent + 1
        send(b, records(1, sent))
      end
      for _ = 1, 3 do
        clients[#clients + 1] = assert(uring.connect(listener:address()))
      end
      for i = 5, 8 do
        nops[i] = ring:prepare "nop"
      end
      ring:submit()
      for i = 1, 8 do
        assert(nops[i]:await() == 0)
      end
      assert.are.equal(0, (many.timer:await()))
      if round % 3 == 0 then
        take_records(many.recv, sent, received + 1)
        received = sent
        while accepted < #clients do
          testkit.close(assert(many.accept:await()))
          accepted = accepted + 1
        end
      end
    end
    take_records(many.recv, sent, received + 1)
    while accepted < #clients do
      testkit.close(assert(many.accept:await()))
      accepted = accepted + 1
    end
    for _, client in ipairs(clients) do
      client:close()
    end
    assert.is_true(ring:stats().overflowed > 0 and ring:stats().rearmed > 0)
    for _, one in pairs(many) do
      one:cancel()
      for _ in one:results() do
      end
      assert.are.equal("done", one:status())
    end
  end)

  it("goes on as it was last asked to", function()
    local ring = opened.ring { entries = 4, cq_entries = 4 }
    local a, b = socketpair()
    local many = ring:prepare("poll_add", a, const.POLLPRI, multishot())
    ring:submit()
    assert.are.equal(0, (ring:prepare("poll_update", many, const.POLLIN):await()))
    for _ = 1, 3 do
      local nops = {}
      for i = 1, 4 do
        nops[i] = ring:prepare "nop"
      end
      ring:submit()
      send(b, "x")
      for i = 5, 8 do
        nops[i] = ring:prepare "nop"
      end
      ring:submit()
      assert.are.equal(const.POLLIN, (many:await()))
      for i = 1, 8 do
        nops[i]:await()
      end
    end
    many:cancel()
    for events in many:results() do
      assert.are.equal(const.POLLIN, events)
    end
  end)

  it("does not go on once it is cancelled, however it ends", function()
    for _, cancel in ipairs {
      function(ring, many) ring:prepare("cancel", many):await() end,
      function(_, many) many:cancel() end,
      function(ring, many) ring:prepare("cancel", many) many:cancel() end,
    } do
      local ring <close> = uring.ring { entries = 8 }
      local p <close> = ring:pool { buffers = 2, size = 8 }
      local a, b = core.socketpair()
      local many = ring:prepare("recv", a, p, multishot { copy = true })
      send(b, records(1))
      take_records(many, 1)
      cancel(ring, many)
      assert.are.equal(errno.ECANCELED, ended(many))
      testkit.close(a)
      testkit.close(b)
    end
  end)
end)

describe("many multishot operations", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("on a ring of two entries lose nothing", function()
    local ring = opened.ring { entries = 2, cq_entries = 4 }
    local p = pool({ buffers = 80, size = 8 }, ring) -- what is unread has its buffer
    local N <const> = 40
    local ops, ends = {}, {}
    for i = 1, N do
      local a, b = socketpair()
      ops[i], ends[i] = ring:prepare("recv", a, p, multishot { copy = i % 2 == 0 }), b
    end
    for round = 1, 10 do
      for i = 1, N do
        send(ends[i], records(2, 2 * round - 1))
      end
      for i = N, 1, -1 do
        take_records(ops[i], 2 * round, 2 * round - 1)
      end
    end
    for i = 1, N, 2 do
      op.shutdown(ends[i], "w")
      ops[i + 1]:cancel()
    end
    for i = 1, N, 2 do
      for _ in ops[i]:results() do
        error "there is nothing more"
      end
      assert.are.equal(errno.ECANCELED, ended(ops[i + 1]))
    end
    assert_out(0, p)
  end)

  it("are ended with their ring, whatever they do", function()
    math.randomseed(20260202)
    for _ = 1, helper.times(40) do
      local without = math.random(3) == 1 and { "recv_multishot" } or nil
      local ring = uring.ring { entries = 4, cq_entries = 8, without = without }
      local p = ring:pool { buffers = math.random(1, 300), size = 8 }
      local fds, ops = {}, {}
      for i = 1, 6 do
        local a, b = core.socketpair()
        fds[2 * i - 1], fds[2 * i] = a, b
        ops[i] = ring:prepare("recv", a, p, multishot { copy = math.random(2) == 1 })
        send(b, records(math.random(0, 200)))
        ring:step(0)
      end
      for _ = 1, math.random(0, 20) do
        ring:step(0)
      end
      for i = 1, 3 do
        if math.random(2) == 1 then
          ops[i]:cancel()
        end
      end
      if math.random(2) == 1 then
        ring:close()
        for i = 1, 6 do
          repeat
            local n, x = ops[i]:await()
          until not n or not x
          assert.are.equal("done", ops[i]:status())
        end
        assert.are.equal(0, ring:stats().leaked)
      end
      ring, ops, p = nil, nil, nil -- luacheck: ignore
      collect()
      for _, fd in ipairs(fds) do
        testkit.close(fd)
      end
    end
  end)

  it("are closed by lua_close", function()
    local output, status = script [[
      local uring, core = require "uring", require "uring.core"
      local p = uring.pool { buffers = 300, size = 8 }
      ops = {}
      for i = 1, 3 do
        local a, b = core.socketpair()
        ops[i] = uring.prepare("recv", a, p, { multishot = true, copy = i == 2 })
        uring.submit()
        uring.op.send(b, ("12345678"):rep(300))
      end
      local listener = uring.listen "127.0.0.1:0"
      ops[4] = uring.prepare("accept", listener:fd(), { multishot = true })
      for i = 1, 5 do uring.connect(listener:address()) end
      print "done"
      os.exit(0, true)
    ]]
    assert.are.same({ "done\n", 0 }, { output, status })
  end)
end)
