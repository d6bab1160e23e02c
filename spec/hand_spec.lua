local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local testkit = helper.testkit
local const, errno = uring.const, uring.errno

-- Most of what is here would wait for ever where it is wrong: a signal ends
-- it, and the count is off.
local LIMIT = helper.slow and 20 or 5

local function limited(before_each, after_each)
  after_each(opened.close)
  helper.watch(before_each, after_each)
  before_each(function()
    testkit.alarm(LIMIT)
  end)
  after_each(function()
    testkit.alarm(0)
  end)
end

local function nops(ring, n)
  local ops = {}
  for i = 1, n do
    ops[i] = ring:prepare "nop"
  end
  return ops
end

local function statuses(ops)
  local list = {}
  for i, op in ipairs(ops) do
    list[i] = op:status()
  end
  return table.concat(list, " ")
end

-- A write that no ring of ours makes.
local function write_by_other_means(fd, text)
  local ring <close> = uring.ring { entries = 2 }
  assert(ring:prepare("write", fd, text):await() == #text)
end

describe("enter", function()
  limited(before_each, after_each)

  it("hands over all that is queued and reaps nothing", function()
    local ring = opened.ring()
    local ops = nops(ring, 3)
    assert.are.equal("prepared prepared prepared", statuses(ops))
    assert.are.equal(3, ring:enter())
    assert.are.equal("submitted submitted submitted", statuses(ops))
    assert.are.equal(0, ring:stats().completed)
    assert.are.equal(0, ring:enter())
    assert.are.equal(3, ring:advance(3))
    assert.are.equal("done done done", statuses(ops))
  end)

  it("hands over as many as it is told to, the oldest first", function()
    local ring = opened.ring()
    local ops = nops(ring, 5)
    assert.are.equal(0, ring:enter(0))
    assert.are.equal(2, ring:enter(2))
    assert.are.equal(2, ring:advance(10))
    assert.are.equal("done done submitted submitted submitted", statuses(ops))
    assert.are.equal(1, ring:enter(1))
    assert.are.equal(2, ring:enter(7))
    assert.are.equal(3, ring:advance(10))
    assert.are.equal(5, ring:stats().completed)
  end)

  it("takes up the backlog as the SQ empties", function()
    local ring = opened.ring { entries = 4 }
    local ops = nops(ring, 10)
    assert.are.equal(6, ring:stats().backlog)
    assert.are.equal(4, ring:enter())
    assert.are.equal(4, ring:enter(100))
    assert.are.equal(2, ring:enter())
    assert.are.equal(0, ring:enter())
    assert.are.equal(10, ring:advance(10))
    assert.are.equal(("done "):rep(10), statuses(ops) .. " ")
  end)

  it("never cuts a linked group", function()
    local ring = opened.ring()
    local r, w = opened.pipe()
    local buffer = uring.buffer(4)
    local first = ring:prepare "nop"
    local read = ring:prepare("read", r, buffer, 4, { link = true })
    local after = ring:prepare "nop"
    assert.are.equal(1, ring:enter(2)) -- the nop, and not half of what follows
    assert.are.equal(0, ring:enter(1))
    assert.are.equal(2, ring:enter(2))
    assert.are.equal(1, ring:advance(3))
    assert.are.equal("done submitted submitted", statuses { first, read, after })
    write_by_other_means(w, "data")
    assert.are.equal(0, ring:enter(0, 2))
    assert.are.equal(2, ring:advance(3))
    assert.are.equal(4, read:await())
    assert.are.equal(0, after:await())
  end)

  it("waits for as many completions as it is told to, whoever had them before", function()
    local ring = opened.ring()
    local began = uring.now()
    local ops = { ring:prepare("timeout", 0.02), ring:prepare("timeout", 0.04), ring:prepare("timeout", 60) }
    assert.are.equal(3, ring:enter(nil, 1))
    assert.is_true(uring.now() - began >= 0.02)
    assert.are.equal(0, ring:enter(nil, 1)) -- that one is still there
    assert.are.equal(0, ring:enter(0, 2))
    assert.is_true(uring.now() - began >= 0.04)
    assert.are.equal("submitted submitted submitted", statuses(ops))
    assert.are.equal(2, ring:advance(3))
    assert.are.equal("done done submitted", statuses(ops))
  end)

  it("does not wait without IORING_ENTER_GETEVENTS", function()
    local ring = opened.ring()
    local r = opened.pipe()
    local op = ring:prepare("read", r, uring.buffer(1))
    local began = uring.now()
    assert.are.equal(1, ring:enter(nil, 1, 0))
    assert.are.equal(0, ring:enter(nil, 0, const.IORING_ENTER_GETEVENTS))
    assert.is_true(uring.now() - began < LIMIT)
    assert.are.equal("submitted", op:status())
  end)

  it("is interrupted by a signal, and says so", function()
    if helper.valgrind then
      return pending "valgrind lets no signal into this system call"
    end
    local ring = opened.ring()
    local r = opened.pipe()
    local op = ring:prepare("read", r, uring.buffer(1))
    assert.are.equal(1, ring:enter())
    testkit.alarm(0.02)
    assert.are.same({ nil, "enter: Interrupted system call", errno.EINTR }, { ring:enter(nil, 1) })
    assert.are.equal("submitted", op:status())
  end)

  it("wakes a thread that submits, and waits for it", function()
    local ring = opened.ring { entries = 4, sqpoll = true, sq_thread_idle = 0.05 }
    for _ = 1, helper.times(10) do
      helper.eventually(function()
        return ring:needs_wakeup()
      end)
      assert.are.equal(0, ring:enter(0, 0, const.IORING_ENTER_SQ_WAKEUP))
      helper.eventually(function()
        return not ring:needs_wakeup()
      end)
      local ops = nops(ring, 4)
      ring:enter()
      assert.are.equal(0, ring:enter(0, 0, const.IORING_ENTER_SQ_WAIT)) -- there is room again
      ops[5] = ring:prepare "nop"
      ring:enter(nil, 5)
      assert.are.equal(5, ring:advance(6))
      assert.are.equal("done done done done done", statuses(ops))
    end
  end)

  it("repeats cancel requests that came to nothing while it waits", function()
    local ring = opened.ring()
    local op = ring:prepare("timeout", 0.002, 0, 0, { multishot = true })
    ring:enter()
    uring.sleep(0.005) -- it has fired, and is set again when that has been seen to
    local mark = op:user_data()
    op:cancel()
    assert.are.equal(1, ring:enter())
    local results = {}
    for _ = 1, 100 do
      ring:enter(nil, 1)
      local result, _, user_data, name = ring:peek()
      results[user_data == mark and name or "request"] = result
      ring:advance()
      if op:status() == "done" then
        break
      end
    end
    assert.are.equal("done", op:status())
    assert.are.equal(-errno.ECANCELED, results.timeout)
    assert.is_true(ring:stats().completed == 1)
  end)

  it("refuses what makes no sense and hands nothing over", function()
    local ring = opened.ring()
    local op = ring:prepare "nop"
    local function refused(message, ...)
      local arguments = table.pack(...)
      local err = helper.error_of(function()
        ring:enter(table.unpack(arguments, 1, arguments.n))
      end)
      assert.is_truthy(err:find(message, 1, true), err)
      assert.are.equal("prepared", op:status())
    end
    refused("bad argument #1 to 'enter' (out of range)", -1)
    refused("bad argument #2 to 'enter' (out of range)", 0, 1 << 40)
    refused("bad argument #1 to 'enter' (number expected, got string)", "x")
    refused("bad argument #2 to 'enter' (number has no integer representation)", 0, 0.5)
    for _, flags in ipairs { 8, 16, -1, math.mininteger } do -- EXT_ARG and REGISTERED_RING are ours
      refused("bad argument #3 to 'enter' (flags other than GETEVENTS, SQ_WAKEUP and SQ_WAIT)", nil, nil, flags)
    end
  end)
end)

describe("peek", function()
  limited(before_each, after_each)

  it("shows the oldest completion, which stays", function()
    local ring = opened.ring()
    assert.is_nil(ring:peek())
    local nop, failed = ring:prepare "nop", ring:prepare("read", 1000000, uring.buffer(1))
    local marks = { nop:user_data(), failed:user_data() }
    assert.are.equal("integer", math.type(marks[1]))
    assert.is_nil(ring:peek()) -- nobody has handed them over
    ring:enter()
    for _ = 1, 2 do
      assert.are.same({ 0, 0, marks[1], "nop" }, { ring:peek() })
    end
    assert.are.equal(1, ring:advance())
    assert.are.same({ -errno.EBADF, 0, marks[2], "read" }, { ring:peek() })
    assert.are.equal(1, ring:advance())
    assert.are.same({ nil }, { ring:peek() })
    assert.are.same({ nil, "read: Bad file descriptor", errno.EBADF }, { failed:await() })
  end)

  it("sees what the kernel puts off until somebody enters", function()
    local ring = opened.ring()
    local r, w = opened.pipe()
    local buffer = uring.buffer(8)
    local read = ring:prepare("read", r, buffer)
    ring:enter()
    assert.is_nil(ring:peek())
    write_by_other_means(w, "12345678")
    assert.are.same({ 8, 0, read:user_data(), "read" }, { ring:peek() })
    assert.are.equal("lent", buffer:status())
    ring:advance()
    assert.are.equal("12345678", buffer:get())
  end)

  it("sees what did not fit into the CQ", function()
    local ring = opened.ring { entries = 4, cq_entries = 4 }
    local ops, seen = {}, 0
    for i = 1, 3 do
      ops[i] = nops(ring, 4)
      ring:enter() -- the kernel takes no more once some overflow
    end
    while ring:peek() and seen < 100 do
      seen = seen + ring:advance()
      ring:enter()
    end
    assert.are.equal(12, seen)
    for _, four in ipairs(ops) do
      assert.are.equal("done done done done", statuses(four))
    end
    assert.is_true(ring:stats().overflowed > 0)
  end)

  it("shows the flags of one that is not the last", function()
    local ring = opened.ring()
    local op = ring:prepare("timeout", 0.001, 2, 0, { multishot = true })
    ring:enter(nil, 1)
    local result, flags = ring:peek()
    assert.are.equal(-errno.ETIME, result)
    assert.are.equal(const.IORING_CQE_F_MORE, flags & const.IORING_CQE_F_MORE)
    op:cancel()
  end)

  it("tells the ring's own requests, and what is not the ring's at all", function()
    local ring, other = opened.ring(), opened.ring()
    local r = opened.pipe()
    local op = ring:prepare("read", r, uring.buffer(1))
    ring:enter()
    local mark = op:user_data()
    op:cancel()
    ring:enter(nil, 2)
    local seen = {}
    for _ = 1, 2 do
      local result, _, user_data, name = ring:peek()
      seen[name] = { result, user_data == mark }
      ring:advance()
    end
    assert.are.same({ read = { -errno.ECANCELED, true }, cancel = { 0, false } }, seen)

    other:prepare("msg_ring", ring, 7, 0x12345):await()
    local message = { ring:peek() }
    assert.are.equal(0x12345, table.remove(message) >> 32) -- where no operation of the ring can be
    assert.are.same({ 7, 0 }, message)
    assert.are.equal(1, ring:advance())
    assert.are.equal(1, ring:stats().unknown)
  end)
end)

describe("advance", function()
  limited(before_each, after_each)

  it("gives completions to their operations, in order", function()
    local ring = opened.ring()
    local ops = nops(ring, 4)
    ring:enter()
    assert.are.equal(0, ring:advance(0))
    assert.are.equal(1, ring:advance())
    assert.are.equal("done submitted submitted submitted", statuses(ops))
    assert.are.equal(2, ring:advance(2))
    assert.are.equal("done done done submitted", statuses(ops))
    assert.are.equal(1, ring:advance(1000))
    assert.are.equal(0, ring:advance(1000))
    local enters = ring:stats().enters
    for _, op in ipairs(ops) do
      assert.are.equal(0, op:await())
    end
    assert.are.equal(enters, ring:stats().enters)
  end)

  it("finds what nobody has peeked at", function()
    local ring = opened.ring()
    local r, w = opened.pipe()
    local read = ring:prepare("read", r, uring.buffer(1))
    ring:enter()
    write_by_other_means(w, "x")
    assert.are.equal(1, ring:advance(5))
    assert.are.equal(1, read:await())
  end)

  it("refuses what is no count", function()
    local ring = opened.ring()
    assert.is_truthy(helper.error_of(ring.advance, ring, -1):find("out of range", 1, true))
    assert.is_truthy(helper.error_of(ring.advance, ring, "x"):find("number expected", 1, true))
  end)

  it("resumes nobody: who waits runs in the next turn", function()
    uring.run(function()
      local r, w = opened.pipe()
      local log = {}
      local task = uring.spawn(function()
        log[#log + 1] = uring.op.read(r, uring.buffer(4))
      end)
      helper.eventually(function() return uring.stats().in_flight == 1 end)
      testkit.write(w, "data")
      local _, _, _, name = uring.peek()
      assert.are.equal("read", name)
      assert.are.equal(1, uring.advance(10))
      assert.are.same({}, log)
      assert.are.equal("ready", task:status())
      uring.yield()
      assert.are.same({ 4 }, log)
    end)
  end)

  it("ends the wait of a task for an operation of another ring", function()
    local ring = opened.ring()
    uring.run(function()
      local op = ring:prepare("timeout", 0.02)
      local task = uring.spawn(function()
        return op:await()
      end)
      uring.yield()
      local n = 0
      repeat -- holds the loop up until it is there
        n = n + ring:advance()
      until n == 1 or uring.now() == 0
      assert.are.equal(0, task:await())
    end)
  end)
end)

describe("an operation's user_data", function()
  limited(before_each, after_each)

  it("is its own for as long as it lasts, and nil afterwards", function()
    local ring = opened.ring()
    local seen = {}
    for _ = 1, 50 do -- slots are used again, marks are not
      local op = ring:prepare "nop"
      local mark = op:user_data()
      assert.is_nil(seen[mark])
      seen[mark] = true
      ring:enter()
      assert.are.equal(mark, op:user_data())
      ring:advance()
      assert.is_nil(op:user_data())
    end
    local op = ring:prepare "nop"
    ring:close()
    assert.is_nil(op:user_data())
    assert.is_truthy(helper.error_of(op.user_data, ring):find("uring.operation expected", 1, true))
  end)
end)

describe("a ring that is driven by hand", function()
  limited(before_each, after_each)

  it("can be turned by the loop at any point", function()
    local ring = opened.ring()
    local ops = nops(ring, 3)
    ring:enter()
    ring:peek()
    assert.are.equal(0, ops[3]:await()) -- reaps what was left
    assert.are.equal("done done done", statuses(ops))
    assert.is_nil(ring:peek())
    assert.are.equal(0, ring:advance(3))
    local last = nops(ring, 1)[1]
    ring:enter()
    ring:peek()
    ring:close()
    assert.are.equal("done", last:status())
    assert.are.equal(0, last:await())
  end)

  it("silences its fd when all is reaped, and not before", function()
    local ring = opened.ring()
    local fd = ring:fd()
    local ops = nops(ring, 2)
    ring:enter()
    assert.is_true(testkit.poll(fd, 0))
    ring:advance()
    assert.is_true(testkit.poll(fd, 0))
    ring:advance()
    assert.is_false(testkit.poll(fd, 0))
    assert.are.equal("done done", statuses(ops))
    -- what rang without leaving a completion behind does not ring for ever
    local r, w = opened.pipe()
    local read = ring:prepare("read", r, uring.buffer(1))
    ring:enter()
    write_by_other_means(w, "x")
    assert.is_true(testkit.poll(fd, 1))
    assert.is_truthy(ring:peek())
    assert.are.equal(1, ring:advance())
    assert.is_nil(ring:peek())
    assert.is_false(testkit.poll(fd, 0))
    assert.are.equal(1, read:await())
  end)

  it("is refused once it is closed", function()
    local ring = uring.ring { entries = 8 }
    ring:close()
    for _, method in ipairs { "enter", "peek", "advance", "step" } do
      assert.is_truthy(helper.error_of(ring[method], ring):find("closed ring", 1, true))
    end
  end)

  it("is the parent's in a child of fork", function()
    local ring = opened.ring()
    local ops = nops(ring, 2)
    ring:enter(1)
    local pid = testkit.fork()
    if pid == 0 then
      local refused = 0
      for _, method in ipairs { "enter", "peek", "advance", "step" } do
        local ok, err = pcall(ring[method], ring)
        refused = refused + (not ok and err:find("before the fork", 1, true) and 1 or 0)
      end
      testkit.exit(refused)
    end
    assert.are.equal(4, testkit.wait(pid))
    assert.are.equal(1, ring:advance(2))
    assert.are.equal(1, ring:enter(1))
    assert.are.equal(1, ring:advance(2))
    assert.are.equal("done done", statuses(ops))
  end)

  it("may be driven by finalisers, in the middle of anything", function()
    local ring = opened.ring { entries = 4 }
    local runs = 0
    local function again()
      setmetatable({}, { __gc = function()
        runs = runs + 1
        if runs < 10000 then
          again()
          ring:enter()
          ring:peek()
          ring:advance(1)
          uring.enter()
          uring.advance(1)
        end
      end })
    end
    again()
    local done = 0
    uring.run(function()
      for _ = 1, 8 do
        uring.spawn(function()
          for i = 1, helper.times(300) do
            assert.are.equal(0, uring.op.nop())
            assert.are.equal(0, uring.prepare("nop"):await())
            local op = ring:prepare "nop"
            if i % 7 == 0 then
              collectgarbage "step"
            end
            assert.are.equal(0, op:await())
            done = done + 1
          end
        end)
      end
    end)
    assert.are.equal(8 * helper.times(300), done)
    assert.is_true(runs > 0)
    runs = 10000
    collectgarbage()
  end)

  it("loses nothing where entering fails", function()
    for seed = 1, helper.times(50) do
      local ring <close> = uring.ring {
        entries = 4, cq_entries = 8, driver = "fault", fault = { seed = seed, rate = 0.5 },
      }
      math.randomseed(seed)
      local ops, given = {}, 0
      local failures = { [errno.EINTR] = true, [errno.EAGAIN] = true, [errno.EBUSY] = true }
      local function try(n, _, number)
        assert(n or number == nil or failures[number], number)
        return n or 0
      end
      for i = 1, 60 do
        ops[i] = ring:prepare("nop")
        local dice = math.random(6)
        if dice == 1 then
          try(ring:enter())
        elseif dice == 2 then
          try(ring:enter(math.random(3), 1))
        elseif dice == 3 then
          given = given + try(ring:advance(math.random(5)))
        elseif dice == 4 then
          try(ring:peek())
        elseif dice == 5 and i % 3 == 0 then
          ops[i]:cancel()
        end
      end
      for _ = 1, 1000 do
        try(ring:enter())
        given = given + try(ring:advance(64))
      end
      for i, op in ipairs(ops) do
        assert.are.equal("done", op:status(), ("operation %d, seed %d"):format(i, seed))
      end
      local stats = ring:stats()
      assert.are.same({ 60, 0, 0, 0 }, { stats.completed, stats.in_flight, stats.backlog, stats.unknown })
      assert.is_true(given <= 60 + stats.cancelled and given >= 40, given)
    end
  end)
end)

describe("step", function()
  limited(before_each, after_each)

  it("turns a ring once", function()
    local ring = opened.ring()
    local ops = nops(ring, 2)
    assert.is_nil(ring:step(0))
    assert.are.equal("done done", statuses(ops))
    assert.is_nil(ring:step(0))
  end)

  it("waits until something happens, or for so long", function()
    local ring = opened.ring()
    local op = ring:prepare("timeout", 0.02)
    local began = uring.now()
    for _ = 1, 5 do
      ring:step(0)
    end
    assert.are.equal("submitted", op:status())
    ring:step()
    assert.is_true(uring.now() - began >= 0.02)
    assert.are.equal("done", op:status())
    local _ <close> = ring:prepare("timeout", 60)
    began = uring.now()
    ring:step(0.02)
    local took = uring.now() - began
    assert.is_true(took >= 0.02 and took < 1, took)
  end)

  it("runs tasks and tells when the next one wants to", function()
    local log = {}
    local first = uring.spawn(function()
      log[#log + 1] = "first"
      uring.sleep(0.05)
      log[#log + 1] = "first again"
    end)
    local second = uring.spawn(function()
      log[#log + 1] = "second"
      uring.yield()
      log[#log + 1] = "second again"
    end)
    assert.are.equal(0, uring.step(0)) -- the second is ready
    assert.are.same({ "first", "second" }, log)
    local seconds = uring.step(0)
    assert.are.same({ "first", "second", "second again" }, log)
    assert.is_true(seconds > 0 and seconds <= 0.05, seconds)
    assert.are.equal("returned", second:status())
    uring.step(seconds)
    assert.is_nil(uring.step(0.2))
    assert.are.equal("first again", log[4])
    assert.are.equal("returned", first:status())
  end)

  it("hands over what the tasks have asked for", function()
    local r, w = opened.pipe()
    local task = uring.spawn(function()
      return uring.op.write(w, "data")
    end)
    uring.step(0)
    assert.are.equal("waiting", task:status())
    assert.is_true(testkit.poll(r, 0)) -- the kernel has it
    uring.step(0)
    assert.are.equal(4, task:await())
    assert.are.equal(4, uring.op.read(r, uring.buffer(4)))
  end)

  it("is told by the fd that there is something to do", function()
    local r, w = opened.pipe()
    local had = uring.stats().in_flight
    local fd = uring.fd()
    opened.keep { close = uring.close } -- the bell is a descriptor that the books do not know
    local got
    local task = uring.spawn(function()
      got = uring.op.read(r, uring.buffer(4))
    end)
    assert.is_nil(uring.step(0))
    assert.are.equal(had + 1, uring.stats().in_flight)
    assert.is_false(testkit.poll(fd, 0))
    write_by_other_means(w, "data")
    assert.is_true(testkit.poll(fd, 1))
    assert.is_nil(got)
    for _ = 1, 3 do
      uring.step(0)
    end
    assert.are.equal(4, got)
    assert.are.equal("returned", task:status())
    assert.is_false(testkit.poll(fd, 0))
  end)

  it("is refused inside a task, and where it could never end", function()
    local ring = opened.ring()
    uring.run(function()
      assert.is_truthy(helper.error_of(uring.step, 0):find("cannot step a ring inside a task", 1, true))
      assert.is_truthy(helper.error_of(ring.step, ring, 0):find("cannot step a ring inside a task", 1, true))
    end)
    assert.is_truthy(helper.error_of(ring.step, ring):find("nothing is in flight on this ring", 1, true))
    assert.is_truthy(helper.error_of(ring.step, ring, -1):find("seconds are negative", 1, true))
    assert.is_truthy(helper.error_of(ring.step, ring, 0 / 0):find("seconds are negative", 1, true))
    assert.is_truthy(helper.error_of(ring.step, ring, "x"):find("number expected", 1, true))
    ring:step(0.001)
    local one, two
    one = uring.spawn(function()
      two:await()
    end)
    two = uring.spawn(function()
      one:await()
    end)
    uring.step(0)
    assert.is_truthy(helper.error_of(uring.step):find("deadlock", 1, true))
    one:cancel()
    two:cancel()
    uring.step(0)
    assert.are.same({ "cancelled", "cancelled" }, { one:status(), two:status() })
  end)
end)
