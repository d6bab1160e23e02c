local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

describe("a queue smaller than the load", function()
  helper.watch(before_each, after_each)

  local function ring(options)
    return assert(uring.ring(options))
  end

  -- All is over: n operations, nothing left anywhere.
  local function assert_quiet(r, n)
    local s = r:stats()
    assert.are.same({ n, n, 0, 0, 0, 0 },
      { s.prepared, s.completed, s.in_flight, s.backlog, s.bytes_lent, s.unknown })
  end

  for _, entries in ipairs { 1, 2, 8 } do
    it(("of %d loses nothing"):format(entries), function()
      local r <close> = ring { entries = entries }
      assert.are.equal(entries, r:features().entries)
      local ops, n = {}, helper.times(3000)
      for i = 1, n do
        ops[i] = r:prepare("nop")
      end
      for i = n, 1, -1 do
        assert.are.equal(0, ops[i]:await())
      end
      assert_quiet(r, n)
    end)

    it(("of %d keeps the order"):format(entries), function()
      local r <close> = ring { entries = entries }
      local rd <close>, wr = uring.pipe()
      local ops, expected, n = {}, {}, helper.times(3000)
      for i = 1, n do
        expected[i] = ("%05d\n"):format(i)
        ops[i] = r:prepare("write", wr:fd(), expected[i])
        if i % 701 == 0 then
          r:submit()
        end
      end
      for i = 1, n do
        assert.are.equal(6, ops[i]:await())
      end
      wr:close()
      assert.are.equal(table.concat(expected), rd:read "a")
      assert_quiet(r, n)
    end)

    it(("of %d loses nothing that waits"):format(entries), function()
      local r <close> = ring { entries = entries }
      local rd, wr = uring.pipe()
      local ops, buffers, n = {}, {}, helper.times(1000)
      for i = 1, n do
        buffers[i] = uring.buffer(4)
        ops[i] = r:prepare("read", rd:fd(), buffers[i], 4)
      end
      local seen = {}
      for i = 1, n do
        wr:write(("%04d"):format(i))
      end
      for i = 1, n do
        assert.are.equal(4, ops[i]:await())
        seen[tonumber(buffers[i]:get())] = true
      end
      assert.are.equal(n, #seen)
      assert_quiet(r, n)
      rd:close()
      wr:close()
    end)
  end

  it("hands over in batches of its size", function()
    local r <close> = ring { entries = 8 }
    local ops = {}
    for i = 1, 20 do
      ops[i] = r:prepare("nop")
    end
    assert.are.equal(12, r:stats().backlog)
    assert.are.equal(8, r:submit())
    assert.are.equal(8, r:submit())
    assert.are.equal(4, r:submit())
    assert.are.equal(0, r:submit())
    for i = 1, 20 do
      assert.are.equal(0, ops[i]:await())
    end
  end)

  it("cancels what is in the backlog without the kernel", function()
    local r <close> = ring { entries = 2 }
    local rd <close>, wr = uring.pipe()
    local ops, n = {}, helper.times(1000)
    for i = 1, n do
      ops[i] = r:prepare("write", wr:fd(), i % 2 == 0 and "even" or "odd")
    end
    for i = 1, n do
      if i % 2 == 1 then
        ops[i]:cancel()
      end
    end
    for i = 1, n do
      local count, _, number = ops[i]:await()
      if i % 2 == 0 then
        assert.are.equal(4, count)
      else
        assert.are.equal(errno.ECANCELED, number)
      end
    end
    wr:close()
    assert.are.equal(("even"):rep(n // 2), rd:read "a")
    assert_quiet(r, n)
  end)

  it("drops handles in the backlog without carrying them out", function()
    local r <close> = ring { entries = 2 }
    local rd <close>, wr = uring.pipe()
    local n = helper.times(1000)
    for _ = 1, n do
      r:prepare("write", wr:fd(), "never")
    end
    collectgarbage()
    collectgarbage()
    assert.are.equal(0, r:prepare("nop"):await())
    wr:close()
    assert.are.equal("", rd:read "a")
    assert_quiet(r, n + 1)
    assert.are.equal(n, r:stats().orphaned)
  end)

  it("puts a cancel before what waits in the backlog", function()
    local r <close> = ring { entries = 1 }
    local rd <close>, _wr = uring.pipe()
    local op = r:prepare("read", rd:fd(), uring.buffer(10), 10)
    r:submit()
    local ops = {}
    for i = 1, 100 do
      ops[i] = r:prepare("nop")
    end
    assert.are.equal("cancelled", (op:cancel():await()))
    assert.is_true(r:stats().backlog > 0)
    assert.are.equal(0, ops[100]:await())
  end)

  describe("has a bound", function()
    it("at which prepare outside of tasks submits and reaps", function()
      local r <close> = ring { entries = 2, backlog = 16 }
      local ops, n = {}, helper.times(3000)
      for i = 1, n do
        ops[i] = r:prepare("nop")
        assert.is_true(r:stats().backlog <= 16)
      end
      assert.is_true(r:stats().completed >= n - 16 - 2 - 2)
      for i = 1, n do
        assert.are.equal(0, ops[i]:await())
      end
      assert_quiet(r, n)
    end)

    it("of one", function()
      local r <close> = ring { entries = 1, backlog = 1 }
      local rd <close>, wr = uring.pipe()
      local expected, ops = {}, {}
      for i = 1, helper.times(1000) do
        expected[i] = i .. ";"
        ops[i] = r:prepare("write", wr:fd(), expected[i])
        assert.is_true(r:stats().backlog <= 1)
      end
      for i = 1, #ops do
        assert.are.equal(#expected[i], ops[i]:await())
      end
      wr:close()
      assert.are.equal(table.concat(expected), rd:read "a")
    end)

    it("that a queue of operations that never end does not reach", function()
      local r <close> = ring { entries = 4, backlog = 4 }
      local ops = {}
      for i = 1, helper.times(1000) do -- these go to the kernel, and there is no bound there
        ops[i] = r:prepare("timeout", 60)
      end
      local s = r:stats()
      assert.is_true(s.backlog <= 4)
      assert.is_true(s.in_flight >= #ops - 8)
    end)

    it("at which prepare on a by-hand ring in a task submits, too", function()
      local r <close> = ring { entries = 2, backlog = 8 }
      uring.run(function()
        local ops = {}
        for i = 1, helper.times(1000) do
          ops[i] = r:prepare("nop")
          assert.is_true(r:stats().backlog <= 8)
        end
        for i = 1, #ops do
          assert.are.equal(0, ops[i]:await())
        end
      end)
    end)

    -- The default ring: 256 entries and 4096 behind them.
    local FULL = 256 + 4096

    it("at which prepare in a task lets other tasks run", function()
      local ticks, most, in_between = 0, 0, 0
      uring.run(function()
        local going = true
        uring.spawn(function()
          while going do
            ticks = ticks + 1
            uring.yield()
          end
        end)
        uring.yield()
        local ops = {}
        for i = 1, FULL + 1000 do
          local before = ticks
          ops[i] = uring.prepare("nop")
          if i <= FULL then
            assert(ticks == before, "suspended before the bound")
          end
          in_between = in_between + (ticks - before)
          most = math.max(most, uring.stats().backlog)
        end
        going = false
        for i = 1, #ops do
          assert(ops[i]:await() == 0)
        end
      end)
      assert.is_true(in_between > 0)
      assert.are.equal(4096, most)
      assert.are.same({ 0, 0 }, { uring.stats().backlog, uring.stats().in_flight })
    end)

    -- Runs fns as tasks that all find the queue full: the first of the batch has filled it and waits.
    local function with_full_queue(...)
      local filled, ops, tasks = false, {}, {}
      local filler = uring.spawn(function()
        for i = 1, FULL do
          ops[i] = uring.prepare("nop")
        end
        filled = uring.stats().backlog == 4096
        ops[FULL + 1] = uring.prepare("nop")
      end)
      for i, fn in ipairs { ... } do
        tasks[i] = uring.spawn(function()
          assert(filled, "the queue is not full")
          return fn()
        end)
      end
      for _, task in ipairs(tasks) do
        task:await()
      end
      filler:await()
      for _, op in ipairs(ops) do
        assert(op:await() == 0)
      end
    end

    it("at which tasks wait in order", function()
      local order, fns = {}, {}
      for i = 1, 20 do
        fns[i] = function()
          local prepared = uring.stats().prepared
          local op = uring.prepare("nop")
          assert(uring.stats().prepared > prepared + 1) -- others came first
          order[#order + 1] = i
          assert(op:await() == 0)
        end
      end
      uring.run(with_full_queue, table.unpack(fns))
      assert.are.equal(20, #order)
      for i = 1, 20 do
        assert.are.equal(i, order[i])
      end
    end)

    it("at which a task that waits can be cancelled", function()
      local seen, victims, before = {}, {}, nil
      local function victim(i, fn, ...)
        local arguments = table.pack(...)
        return function()
          victims[i] = uring.current()
          before = uring.stats().prepared
          local ok, err = pcall(fn, table.unpack(arguments))
          seen[i] = not ok and err == uring.cancelled and uring.stats().prepared - before <= 1
        end
      end
      uring.run(with_full_queue, victim(1, uring.prepare, "nop"), victim(2, uring.op.nop), function()
        victims[1]:cancel()
        victims[2]:cancel()
      end)
      assert.are.same({ true, true }, seen)
    end)

    -- What a call waits for here ends only at its deadline, and no task can run meanwhile.
    it("at which deadlines are met where nobody can be suspended", function()
      local first, second = assert(uring.socketpair())
      local r <close> = ring { entries = 1, backlog = 1 }
      local received = r:prepare("recv", first:fd(), uring.buffer(1), { timeout = 0.01 })
      local drained = r:prepare("nop", { drain = true })
      local last = r:prepare "nop"
      assert.are.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { received:await() })
      assert.are.same({ 0, 0 }, { drained:await(), (last:await()) })
      first:close()
      second:close()
    end)

    it("at which a task that is cancelled is told so, and waits for nobody", function()
      local first, second = assert(uring.socketpair())
      local buffer, told = uring.buffer(1), nil
      uring.run(function()
        local receiver = uring.spawn(uring.op.recv, first:fd(), buffer, { timeout = 0.02 })
        local ops = {}
        local victim = uring.spawn(function()
          ops[1] = uring.prepare("nop", { drain = true }) -- behind the receive
          for i = 2, 4096 do ops[i] = uring.prepare "nop" end
          uring.current():cancel()
          told = table.pack(pcall(uring.prepare, "nop"))
        end)
        pcall(victim.await, victim)
        assert.are.equal("recv: timeout", (select(2, receiver:await())))
        for _, op in ipairs(ops) do assert(op:await() == 0) end
      end)
      assert.are.same({ false, uring.cancelled }, { told[1], told[2] })
      first:close()
      second:close()
    end)

    it("at which bad arguments still raise", function()
      local r <close> = ring { entries = 1, backlog = 1 }
      for _ = 1, 10 do
        r:prepare("nop")
        assert.matches("bad argument", helper.error_of(r.prepare, r, "read", "x"))
      end
      assert.are.equal(10, r:stats().prepared)
    end)

    it("at which calls without a handle wait as well", function()
      local done, fns = 0, {}
      for i = 1, 50 do
        fns[i] = function()
          local prepared = uring.stats().prepared
          assert(uring.op.nop() == 0)
          assert(uring.stats().prepared > prepared + 1) -- others came first
          done = done + 1
        end
      end
      uring.run(with_full_queue, table.unpack(fns))
      assert.are.equal(50, done)
      assert.are.equal(0, uring.stats().backlog)
    end)
  end)
end)

describe("a completion queue that overflows", function()
  helper.watch(before_each, after_each)

  it("loses nothing", function()
    local r <close> = assert(uring.ring { entries = 8, cq_entries = 8 })
    local ops, n = {}, helper.times(4000)
    for i = 1, n do
      ops[i] = r:prepare("nop")
      if i % 8 == 0 then
        assert.are.equal(8, r:submit()) -- and nobody reaps
      end
    end
    assert.is_true(r:stats().completed < n)
    for i = 1, n do
      assert.are.equal(0, ops[i]:await())
    end
    local s = r:stats()
    assert.are.same({ n, 0, 0 }, { s.completed, s.in_flight, s.unknown })
    assert.is_true(s.overflowed > 0)
  end)

  it("loses no data and no descriptors", function()
    local r <close> = assert(uring.ring { entries = 4, cq_entries = 4 })
    local rd, wr = uring.pipe()
    local n = helper.times(500)
    local reads, buffers, opens = {}, {}, {}
    for i = 1, n do
      wr:write(("%04d"):format(i))
      buffers[i] = uring.buffer(4)
      reads[i] = r:prepare("read", rd:fd(), buffers[i], 4)
      opens[i] = r:prepare("openat", nil, "/dev/null", uring.const.O_CLOEXEC)
      r:submit()
    end
    local seen = {}
    for i = 1, n do
      assert.are.equal(4, reads[i]:await())
      seen[tonumber(buffers[i]:get())] = true
      if i % 2 == 0 then
        assert.are.equal(0, uring.op.close(assert(opens[i]:await())))
      end -- the others are dropped, and must be closed for us
    end
    assert.are.equal(n, #seen)
    rd:close()
    wr:close()
  end)

  it("is emptied for a task that waits", function()
    local r <close> = assert(uring.ring { entries = 4, cq_entries = 4 })
    local ops, done = {}, 0
    for i = 1, 400 do
      ops[i] = r:prepare("nop")
      if i % 4 == 0 then
        r:submit()
      end
    end
    local task = uring.spawn(function()
      for i = 400, 1, -1 do
        assert(ops[i]:await() == 0)
        done = done + 1
      end
    end)
    local deadline = uring.now() + (helper.slow and 10 or 2)
    while task:status() ~= "returned" and uring.now() < deadline do
      uring.sleep(0.001)
    end
    task:cancel()
    assert.are.equal(400, done)
  end)

  it("is emptied by close", function()
    local r = assert(uring.ring { entries = 4, cq_entries = 4 })
    local ops = {}
    for i = 1, 400 do
      ops[i] = r:prepare("nop")
      if i % 4 == 0 then
        r:submit()
      end
    end
    r:close()
    for i = 1, 400 do
      assert.are.equal(0, ops[i]:await())
    end
    assert.are.same({ 400, 0 }, { r:stats().completed, r:stats().in_flight })
  end)

  it("of timeouts that all end at once loses none", function()
    local r <close> = assert(uring.ring { entries = 4, cq_entries = 4 })
    local ops = {}
    for i = 1, helper.times(1000) do
      ops[i] = r:prepare("timeout", 0.01)
      r:submit()
    end
    uring.sleep(0.02)
    for i = 1, #ops do
      assert.are.equal(0, ops[i]:await())
    end
    assert.are.equal(0, r:stats().in_flight)
  end)

  it("with a submission thread loses nothing", function()
    local r <close> = assert(uring.ring { entries = 8, cq_entries = 8, sqpoll = true, sq_thread_idle = 0.01 })
    local ops, n = {}, helper.times(2000)
    for i = 1, n do
      ops[i] = r:prepare("nop")
      if i % 8 == 0 then
        r:submit()
      end
    end
    for i = 1, n do
      assert.are.equal(0, ops[i]:await())
    end
    assert.are.same({ n, 0 }, { r:stats().completed, r:stats().in_flight })
  end)
end)
