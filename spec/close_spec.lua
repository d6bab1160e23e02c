local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno, const = uring.errno, uring.const

-- What the kernel reads for long enough to be caught at it.
local MEGABYTE = 1 << 20
local BIG = (helper.slow and 64 or 128) * MEGABYTE
local big_path = ("/dev/shm/uring-close-%d"):format(testkit.getpid())

local function make_big()
  local file = assert(io.open(big_path, "wb"))
  local chunk = ("0123456789abcdef"):rep(MEGABYTE // 16)
  for _ = 1, BIG // MEGABYTE do
    assert(file:write(chunk))
  end
  file:close()
end

-- Scripts of their own begin with this.
local prelude = ([[
  local uring, testkit = require "uring", require "testkit"
  local big_path, BIG = %q, %d
]]):format(big_path, BIG)

-- What is leaked on purpose is a leak to the sanitizer, too.
local LEAKS = "ASAN_OPTIONS=detect_leaks=0"

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

describe("closing a ring", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)
  setup(make_big)
  teardown(function() os.remove(big_path) end)

  local function ring(options)
    return assert(uring.ring(options))
  end

  local CANCELLED = { nil, "read: Operation canceled", errno.ECANCELED }

  local function fill_is_intact(buffer, byte)
    local expected = string.char(byte):rep(MEGABYTE)
    for at = 1, #buffer, MEGABYTE do
      if buffer:get(at, math.min(at + MEGABYTE - 1, #buffer)) ~= expected then
        return false
      end
    end
    return true
  end

  it("ends when the kernel writes no more into what was lent", function()
    local r = ring { entries = 8 }
    local file <close> = assert(uring.open(big_path))
    local buffer <close> = uring.buffer(BIG)
    local op = r:prepare("read", file:fd(), buffer, BIG, 0, { async = true })
    assert.are.equal(1, r:submit())
    uring.sleep(0.005) -- a worker has begun: from now on nothing can stop it
    r:close()
    assert.are.equal("owned", buffer:status())
    assert.are.equal(0, r:stats().leaked)
    assert.are.equal(0, r:stats().bytes_lent)
    -- whatever would still be written shows on this
    buffer:fill(0xAA)
    assert.are.equal(BIG, op:await())
    uring.sleep(0.3)
    assert.is_true(fill_is_intact(buffer, 0xAA))
  end)

  it("delivers what had been read in full", function()
    local r = ring { entries = 8 }
    local rd <close>, wr = uring.pipe()
    local buffer <close> = uring.buffer(16)
    wr:write "0123456789"
    local op, nop = r:prepare("read", rd:fd(), buffer, 16), r:prepare("nop")
    r:submit()
    r:close()
    assert.are.equal(10, op:await())
    assert.are.equal("0123456789", buffer:get(1, 10))
    assert.are.equal(0, nop:await())
    wr:close()
  end)

  it("waits for many reads that workers are at", function()
    local r = ring { entries = 8 }
    local file <close> = assert(uring.open(big_path))
    local buffer <close> = uring.buffer(BIG)
    local parts, n = {}, 16
    for i = 1, n do
      local slice = buffer:slice((i - 1) * (BIG // n) + 1, i * (BIG // n))
      parts[i] = r:prepare("read", file:fd(), slice, BIG // n, 0, { async = true })
    end
    r:submit()
    uring.sleep(0.002)
    r:close()
    buffer:fill(0x55)
    for i = 1, n do
      local size, _, number = parts[i]:await()
      assert.is_true(size == BIG // n or number == errno.ECANCELED)
    end
    uring.sleep(0.2)
    assert.is_true(fill_is_intact(buffer, 0x55))
    assert.are.equal(0, r:stats().in_flight)
  end)

  it("cancels reads, polls, timeouts and accepts", function()
    local r = ring { entries = 64 }
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local rd, wr = uring.pipe()
    local buffers, ops = {}, {}
    for i = 1, 20 do
      buffers[i] = uring.buffer(100)
      ops[#ops + 1] = r:prepare("read", rd:fd(), buffers[i], 100)
      ops[#ops + 1] = r:prepare("timeout", 60)
      ops[#ops + 1] = r:prepare("accept", listener:fd(), const.SOCK_CLOEXEC)
      ops[#ops + 1] = r:prepare("poll_add", rd:fd(), const.POLLIN)
    end
    while r:stats().in_flight < #ops do
      assert(r:submit())
    end
    local began = uring.now()
    r:close()
    assert.is_true(uring.now() - began < 2)
    for _, op in ipairs(ops) do
      assert.are.equal(errno.ECANCELED, select(3, op:await()))
    end
    for _, buffer in ipairs(buffers) do
      assert.are.equal("owned", buffer:status())
    end
    local s = r:stats()
    assert.are.same({ #ops, #ops, 0, 0, 0 }, { s.completed, s.cancelled, s.in_flight, s.bytes_lent, s.leaked })
    rd:close()
    wr:close()
  end)

  it("ends a multishot operation, and closes what nobody took", function()
    local r = ring { entries = 8 }
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local op = r:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, { multishot = true })
    r:submit()
    local clients = {}
    for i = 1, 3 do
      clients[i] = assert(uring.connect(listener:address()))
    end
    r:prepare("nop"):await()
    r:close()
    local taken = assert(op:await())
    uring.op.close(taken)
    for i = 1, 3 do
      clients[i]:close()
    end
  end)

  it("never hands out what was prepared and not submitted", function()
    local r = ring { entries = 4 }
    local rd <close>, wr = uring.pipe()
    local ops = {}
    for i = 1, helper.times(500) do -- 4 in the queue, the others in the backlog
      ops[i] = r:prepare("write", wr:fd(), "never")
    end
    local unsent = r:prepare("write", wr:fd(), uring.buffer "never")
    r:close()
    for _, op in ipairs(ops) do
      assert.are.same({ nil, "write: Operation canceled", errno.ECANCELED }, { op:await() })
    end
    assert.are.equal(errno.ECANCELED, select(3, unsent:await()))
    wr:close()
    assert.are.equal("", rd:read "a")
    assert.are.same({ 0, 0, 0 }, { r:stats().backlog, r:stats().in_flight, r:stats().bytes_lent })
  end)

  it("ends some in flight and some in the backlog alike", function()
    local r = ring { entries = 4 }
    local rd, wr = uring.pipe()
    local ops = {}
    for i = 1, helper.times(500) do
      ops[i] = r:prepare("read", rd:fd(), uring.buffer(10), 10)
      if i % 7 == 0 then
        r:submit()
      end
    end
    assert.is_true(r:stats().backlog > 0 and r:stats().in_flight > 0)
    r:close()
    for _, op in ipairs(ops) do
      assert.are.same(CANCELLED, { op:await() })
    end
    rd:close()
    wr:close()
  end)

  it("waits for strings, vectors and addresses that are lent", function()
    local r = ring { entries = 8 }
    local rd, wr = uring.pipe()
    local long = ("x"):rep(1 << 20) -- more than the pipe takes
    local ops = {
      r:prepare("write", wr:fd(), long),
      r:prepare("writev", wr:fd(), { long, uring.buffer(1 << 20), long }),
      r:prepare("statx", nil, big_path),
      r:prepare("readv", rd:fd(), { uring.buffer(10), uring.buffer(20) }, nil, { async = true }),
    }
    r:submit()
    long = nil -- luacheck: ignore
    collectgarbage()
    r:close()
    assert.are.equal(0, r:stats().bytes_lent)
    for _, op in ipairs(ops) do
      assert.are.equal("done", op:status())
    end
    rd:close()
    wr:close()
  end)

  it("closes a descriptor that nobody asked for any more", function()
    local n = testkit.fds()
    local r = ring { entries = 8 }
    for _ = 1, 5 do
      r:prepare("openat", nil, big_path, const.O_RDONLY | const.O_CLOEXEC)
      r:prepare("socket", const.AF_INET, const.SOCK_STREAM | const.SOCK_CLOEXEC)
    end
    r:submit()
    r:close()
    collectgarbage()
    collectgarbage()
    assert.are.equal(n, testkit.fds())
  end)

  it("works with drain_timeout at its extremes", function()
    for _, seconds in ipairs { 0.05, 1e9, math.huge } do
      local r = ring { entries = 8, drain_timeout = seconds }
      local rd <close>, _wr = uring.pipe()
      local op = r:prepare("read", rd:fd(), uring.buffer(10), 10)
      r:submit()
      r:close()
      assert.are.same(CANCELLED, { op:await() })
    end
  end)

  it("with operations of tasks in flight wakes those", function()
    local r = ring { entries = 8 }
    local op
    local task = uring.spawn(function()
      op = r:prepare("nop")
      return op:await()
    end)
    assert.are.equal(0, task:await())
    r:close()
    assert.are.equal("done", op:status())
  end)

  describe("past its deadline", function()
    it("leaks what is lent, says so, and never gives it back", function()
      local output, status = script(prelude .. [[
        local r = assert(uring.ring { entries = 8, drain_timeout = 0 })
        local file = assert(uring.open(big_path))
        local buffers, ops = {}, {}
        for i = 1, 4 do
          buffers[i] = uring.buffer(BIG)
          ops[i] = r:prepare("read", file:fd(), buffers[i], BIG, 0, { async = true })
        end
        r:submit()
        uring.sleep(0.005) -- the workers have begun
        local began = uring.now()
        r:close()
        print(uring.now() - began < 0.2)
        local s, lent = r:stats(), 0
        for i = 1, 4 do
          if buffers[i]:status() == "lent" then
            lent = lent + 1
            local ok, message = pcall(buffers[i].get, buffers[i], 1, 1)
            assert(not ok and message:find("buffer is lent to the kernel (read on fd " .. file:fd() .. ")", 1, true))
            assert(not pcall(buffers[i].set, buffers[i], 1, "x"))
            assert(not pcall(buffers[i].fill, buffers[i]))
            assert(not pcall(uring.prepare, "read", file:fd(), buffers[i], BIG, 0))
          end
          assert(ops[i]:status() == "done")
          local n, _, number = ops[i]:await()
          assert(n == BIG or number == uring.errno.ECANCELED)
        end
        print(lent > 0, s.leaked == lent * BIG, s.bytes_lent == lent * BIG)
        r = nil
        for i = 1, 4 do buffers[i], ops[i] = nil end
        collectgarbage() collectgarbage() -- frees none of it: the workers are at it
        uring.sleep(0.1)
        assert(uring.op.nop() == 0)
        print "end"
      ]], LEAKS)
      assert.are.equal("true\ntrue\ttrue\ttrue\nend\n", output)
      assert.are.equal(0, status)
    end)

    it("leaks in lua_close without a crash", function()
      for _, ending in ipairs { "", "os.exit(0, true)" } do
        local output, status = script(prelude .. [[
          r = assert(uring.ring { entries = 8, drain_timeout = 0 })
          file = assert(uring.open(big_path))
          ops = {}
          for i = 1, 3 do
            ops[i] = r:prepare("read", file:fd(), uring.buffer(BIG), BIG, 0, { async = true })
          end
          r:submit()
          uring.sleep(0.005)
          ]] .. ending, LEAKS)
        assert.are.equal("", output)
        assert.are.equal(0, status)
      end
    end)

    it("waits for strings all the same", function()
      local r = ring { entries = 8, drain_timeout = 0 }
      local path = "/dev/shm/uring-close-out-" .. testkit.getpid()
      local file <close> = assert(uring.open(path, "w"))
      os.remove(path)
      local data = ("s"):rep(BIG // 2)
      local op = r:prepare("write", file:fd(), data, #data, 0, { async = true })
      r:submit()
      uring.sleep(0.005)
      r:close()
      assert.are.same({ 0, 0 }, { r:stats().leaked, r:stats().bytes_lent })
      assert.are.equal(#data, op:await())
    end)
  end)

  describe("by dropping it", function()
    -- Turns until there are no more descriptors than n; how long it took.
    local function descriptors_left(n)
      local began = uring.now()
      while testkit.fds() > n and uring.now() - began < 5 do
        uring.sleep(0.01)
        collectgarbage()
      end
      return testkit.fds() - n
    end

    it("never blocks the collector, and is reaped later", function()
      local file <close> = assert(uring.open(big_path))
      local n = testkit.fds()
      local lingered = false
      for _ = 1, helper.slow and 1 or 20 do -- where the machine is busy the kernel may be done before we are
        do
          local r = ring { entries = 8 }
          local _ops = {} -- luacheck: ignore
          for i = 1, 3 do
            _ops[i] = r:prepare("read", file:fd(), uring.buffer(BIG // 4), BIG // 4, 0, { async = true })
          end
          r:submit()
        end
        local began = uring.now()
        collectgarbage()
        collectgarbage()
        local took = uring.now() - began
        lingered = testkit.fds() > n
        assert.is_true(took < 0.05 or helper.slow)
        assert.are.equal(0, descriptors_left(n))
        if lingered then break end
      end
      assert.is_true(lingered or helper.slow)
    end)

    it("cancels what is in flight and closes what comes late", function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local rd, wr = uring.pipe()
      local n = testkit.fds()
      for _ = 1, 10 do
        local r = ring { entries = 2 }
        for _ = 1, 20 do
          r:prepare("accept", listener:fd())
          r:prepare("read", rd:fd(), uring.buffer(10), 10)
          r:prepare("timeout", 60)
          r:prepare("openat", nil, big_path, const.O_RDONLY)
          r:submit()
        end
      end
      collectgarbage()
      collectgarbage()
      assert.are.equal(0, descriptors_left(n))
      -- nothing of it takes what is for somebody else
      wr:write "mine"
      wr:close()
      assert.are.equal("mine", rd:read "a")
      rd:close()
    end)

    it("keeps a ring alive while one of its handles is", function()
      local rd, wr = uring.pipe()
      local op, buffer
      do
        local r = ring { entries = 8 }
        buffer = uring.buffer(4)
        op = r:prepare("read", rd:fd(), buffer, 4)
        r:submit()
      end
      collectgarbage()
      collectgarbage()
      wr:write "data"
      assert.are.equal(4, op:await())
      assert.are.equal("data", buffer:get())
      op = nil -- luacheck: ignore
      rd:close()
      wr:close()
    end)

    it("gives a kept Buffer back", function()
      local file <close> = assert(uring.open(big_path))
      local buffer <close> = uring.buffer(BIG // 2)
      do
        local r = ring { entries = 8 }
        local _op = r:prepare("read", file:fd(), buffer, BIG // 2, 0, { async = true })
        r:submit()
        uring.sleep(0.005)
      end
      collectgarbage()
      collectgarbage()
      local began = uring.now()
      while buffer:status() == "lent" and uring.now() - began < 5 do
        uring.sleep(0.01)
      end
      assert.are.equal("owned", buffer:status())
      buffer:fill(0x33)
      uring.sleep(0.1)
      assert.is_true(fill_is_intact(buffer, 0x33))
    end)
  end)

  describe("by lua_close", function()
    -- A lot of everything on ring `r`; the handles go into the table `ops`.
    local work = [[
      local rd, wr = uring.pipe()
      local file = assert(uring.open(big_path))
      local function work(r, ops, n)
        local function add(...)
          ops[#ops + 1] = r:prepare(...)
        end
        for i = 1, n do
          add("read", rd:fd(), uring.buffer(64), 64)
          add("timeout", 60)
          add("poll_add", rd:fd(), 1)
          add("statx", nil, big_path)
          add("readv", rd:fd(), { uring.buffer(16), uring.buffer(16) })
        end
        add("write", wr:fd(), ("x"):rep(1 << 20))
        for i = 1, 4 do
          add("read", file:fd(), uring.buffer(BIG // 32), BIG // 32, 0, { async = true })
          add("write", wr:fd(), ("y"):rep(1000), 1000, nil, { async = true })
        end
        while r:stats().in_flight < 150 do
          assert(r:submit())
        end
      end
    ]]

    local function survives(chunk, expected)
      local output, status = script(prelude .. work .. chunk)
      assert.are.equal("", (output:gsub("reached\n", "")))
      assert.is_truthy(output:find "reached", "the script got to its end")
      assert.are.equal(expected or 0, status)
    end

    local n = helper.times(500)

    local places = {
      ["a global"] = ("r = uring.ring { entries = 64 } ops = {} work(r, ops, %d)"):format(n),
      ["a local"] = ("local r, ops = uring.ring { entries = 64 }, {} work(r, ops, %d)"):format(n),
      ["a local with <close>"] =
        ("local r <close> = uring.ring { entries = 64 } local ops = {} work(r, ops, %d)"):format(n),
      ["the registry of another ring"] =
        ("b = uring.ring {} a = uring.ring { entries = 2 } ops = {} work(a, ops, %d) work(b, ops, %d)"):format(n, n),
      ["nothing but handles"] = ("ops = {} do local r = uring.ring { entries = 64 } work(r, ops, %d) end"):format(n),
      ["nothing at all"] = ("do local ops = {} work(uring.ring { entries = 64 }, ops, %d) end"):format(n),
      ["the library"] = ("ops = {} work(require 'uring.core'.default(), ops, %d)"):format(n),
    }
    local endings = {
      ["the end"] = { "print 'reached'" },
      ["an exit"] = { "print 'reached' os.exit(0, true)" },
      ["an exit with the collector stopped"] = { "collectgarbage 'stop' print 'reached' os.exit(0, true)" },
      ["an exit in a task"] = {
        "uring.run(function() uring.spawn(function() uring.sleep(9) end) uring.sleep(0.001) " ..
        "print 'reached' os.exit(0, true) end)" },
      ["an exit while a task unwinds"] = {
        "uring.run(function() local t <close> = setmetatable({}, { __close = function() " ..
        "print 'reached' os.exit(0, true) end }) uring.yield() end)" },
    }
    for place, begin in pairs(places) do
      for ending, stop in pairs(endings) do
        it(("survives a ring in %s and %s"):format(place, ending), function()
          survives(begin .. "\n" .. stop[1])
        end)
      end
    end

    it("survives handles older and younger than other rings", function()
      survives(([[
        local keep = {}
        for i = 1, 8 do
          local r, ops = uring.ring { entries = 4 }, {}
          keep[i] = { r, ops }
          work(keep[(i + 1) // 2][1], ops, %d)
        end
        print "reached"
      ]]):format(50))
    end)

    it("survives tasks that wait, older and younger than the default ring", function()
      survives(([[
        for i = 1, 200 do
          uring.spawn(function() uring.op.read(rd:fd(), uring.buffer(10), 10) end)
          uring.spawn(function() uring.sleep(60) end)
        end
        uring.spawn(function() uring.op.read(file:fd(), uring.buffer(BIG), BIG, 0, { async = true }) end)
        uring.sleep(0.001) -- the ring is opened here
        local ops = {}
        work(require "uring.core".default(), ops, %d)
        for i = 1, 200 do
          local t = uring.spawn(function() uring.prepare("read", rd:fd(), uring.buffer(10), 10):await() end)
          uring.spawn(function() t:await() end)
          uring.spawn(function() ops[i]:await() end)
        end
        uring.sleep(0.001)
        uring.spawn(function() error "never runs" end)
        print "reached"
      ]]):format(n))
    end)

    it("survives a slow operation of a task older than the default ring", function()
      survives [[
        local buffer = uring.buffer(BIG)
        uring.spawn(function()
          local f = uring.open(big_path)
          uring.op.read(f:fd(), buffer, BIG, 0, { async = true })
        end)
        uring.sleep(0.001)
        uring.sleep(0.001)
        print "reached"
      ]]
    end)

    it("survives finalisers that use what is closing", function()
      local output, status = script(([[
        -- finalised last, since it is the oldest
        local use
        local oldest = setmetatable({}, { __gc = function() use "oldest" end })
        %s
        %s
        local r, ops = uring.ring { entries = 64 }, {}
        work(r, ops, 100)
        local buffer = uring.buffer(10)
        local reading = uring.prepare("read", rd:fd(), buffer, 10)
        local task = uring.spawn(function() uring.op.read(rd:fd(), uring.buffer(10), 10) end)
        uring.sleep(0.001)
        function use(name)
          local n = 0
          local function try(fn, ...)
            local ok, err = pcall(fn, ...)
            n = n + 1
          end
          try(function() r:prepare("nop") end)
          try(function() r:submit() end)
          try(function() r:close() end)
          try(function() return r:stats(), tostring(r) end)
          try(function() ops[1]:cancel() end)
          try(function() return ops[1]:status(), tostring(ops[1]) end)
          try(function() ops[2]:cancel():await() end)
          try(function() buffer:get() end)
          try(function() buffer:status() end)
          try(function() reading:cancel():await() end)
          try(function() task:cancel() end)
          try(function() task:await() end)
          try(function() return task:status(), task:traceback() end)
          try(function() uring.spawn(function() end) end)
          try(function() uring.run(function() uring.sleep(0) end) end)
          try(function() uring.op.nop() end)
          try(function() uring.sleep(0) end)
          try(function() uring.ring {} end)
          try(function() uring.close() end)
          try(function() rd:close() end)
          print(name, n)
        end
        local youngest = setmetatable({}, { __gc = function() use "youngest" end })
        print "reached"
      ]]):format(prelude, work))
      assert.are.equal("reached\nyoungest\t20\noldest\t20\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("of the default kind", function()
    it("cancels its tasks and lets them unwind", function()
      local rd, wr = uring.pipe()
      local log = {}
      local function parked(name, fn)
        return uring.spawn(function()
          local _unwound <close> = setmetatable({}, { __close = function(_, err)
            log[name] = err == uring.cancelled
          end })
          fn()
          log[name] = "went on"
        end)
      end
      local buffer = uring.buffer(10)
      parked("read", function() uring.op.read(rd:fd(), buffer, 10) end)
      parked("handle", function() uring.prepare("read", rd:fd(), uring.buffer(10), 10):await() end)
      parked("sleep", function() uring.sleep(60) end)
      local inner = parked("task", function() uring.spawn(function() uring.sleep(60) end):await() end)
      parked("other", function() inner:await() end)
      parked("caught", function() pcall(uring.sleep, 60) uring.sleep(60) end)
      parked("scope", function() uring.run(function() uring.sleep(60) end) end)
      uring.sleep(0.002)
      assert.is_true(uring.stats().tasks >= 7)
      local began = uring.now()
      uring.close()
      assert.is_true(uring.now() - began < 2)
      assert.are.same({ read = true, handle = true, sleep = true, task = true, other = true, caught = true,
        scope = true }, log)
      assert.are.equal("owned", buffer:status())
      assert.are.same({ 0, 0 }, { uring.stats().tasks, uring.stats().prepared })
      rd:close()
      wr:close()
    end)

    it("never runs a task that had not begun", function()
      local ran = false
      local task = uring.spawn(function() ran = true end)
      uring.close()
      assert.is_false(ran)
      assert.are.equal("cancelled", task:status())
    end)

    it("raises in a task, and in a coroutine of one", function()
      uring.run(function()
        assert.matches("cannot close the default ring from inside a task", helper.error_of(uring.close))
        local inside = coroutine.wrap(function() return helper.error_of(uring.close) end)
        assert.matches("from inside a task", inside())
        uring.sleep(0.001) -- and all goes on
      end)
      assert.are.equal(0, uring.op.nop())
    end)

    it("raises where it would be closed by a task's error handler", function()
      local seen
      local function default(err, traceback)
        io.stderr:write(tostring(err), "\n", traceback or "", "\n")
      end
      uring.on_error(function() seen = table.pack(pcall(uring.close)) end)
      uring.spawn(error, "nobody waits for this")
      uring.sleep(0.002)
      uring.on_error(default)
      assert.is_false(seen[1])
      assert.are.equal(0, uring.op.nop())
    end)

    it("may be closed at any time in any number", function()
      for i = 1, 20 do
        assert.are.equal(0, uring.op.nop())
        if i % 2 == 0 then
          uring.spawn(uring.sleep, 60)
        end
        uring.close()
      end
    end)

    it("leaves by-hand rings alone", function()
      local r <close> = ring { entries = 4 }
      local op = r:prepare("timeout", 0.005)
      r:submit()
      uring.close()
      assert.are.equal("submitted", op:status())
      assert.are.equal(0, op:await())
    end)
  end)
end)
