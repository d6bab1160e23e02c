local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno, const = uring.errno, uring.const

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

describe("ring", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local function ring(options)
    return assert(uring.ring(options))
  end

  -- The results of a task that ends soon; one that hangs fails the spec.
  local function soon(task)
    local deadline = uring.now() + (helper.slow and 10 or 2)
    while task:status() == "ready" or task:status() == "waiting" do
      if uring.now() > deadline then
        task:cancel()
        error("still waiting", 2)
      end
      uring.sleep(0.001)
    end
    return task:await()
  end

  -- Does the ring carry out an operation of each kind of result?
  local function works(r)
    local rd, wr = uring.pipe()
    local buffer = uring.buffer(8)
    local read = r:prepare("read", rd:fd(), buffer, 8)
    local write = r:prepare("write", wr:fd(), "hello")
    r:submit()
    assert.are.equal(5, write:await())
    assert.are.equal(5, read:await())
    assert.are.equal("hello", buffer:get(1, 5))
    assert.are.same({ nil, "read: Bad file descriptor", errno.EBADF },
      { r:prepare("read", 1 << 20, buffer, 8):await() })
    rd:close()
    wr:close()
  end

  -- A task waits for an operation of the ring, and another one goes on.
  local function go_on(r)
    local ticks, at_result = 0, nil
    local rd <close>, wr = uring.pipe()
    local buffer = uring.buffer(10)
    uring.run(function()
      local reader = uring.spawn(function()
        local n = r:prepare("read", rd:fd(), buffer, 10):await()
        at_result = ticks
        return n
      end)
      for _ = 1, 5 do
        uring.sleep(0.002)
        ticks = ticks + 1
      end
      assert.is_nil(at_result)
      wr:write("tick")
      assert.are.equal(4, soon(reader))
    end)
    wr:close()
    assert.are.equal(5, at_result)
    assert.are.equal("tick", buffer:get(1, 4))
    assert.are.equal(0, r:stats().in_flight)
  end

  describe("options", function()
    it("may be left out", function()
      local r <close> = uring.ring()
      works(r)
    end)

    it("take the size of both queues, rounded up to powers of two", function()
      local r <close> = ring { entries = 5, cq_entries = 33 }
      local f = r:features()
      assert.are.equal(8, f.entries)
      assert.are.equal(64, f.cq_entries)
      works(r)
    end)

    it("make the completion queue four times the other by default", function()
      local r <close> = ring { entries = 16 }
      assert.are.equal(64, r:features().cq_entries)
    end)

    it("never make the completion queue smaller than the other", function()
      local r <close> = ring { entries = 64, cq_entries = 1 }
      assert.is_true(r:features().cq_entries >= 64)
      works(r)
    end)

    it("clamp what the kernel finds too large", function()
      local r <close> = ring { entries = 1 << 20, cq_entries = 1 << 20 }
      assert.is_true(r:features().entries >= 4096)
      works(r)
    end)

    it("take a bound for the backlog", function()
      local r <close> = ring { entries = 1, backlog = 1 }
      works(r)
    end)

    it("take sqpoll, sq_thread_idle and sq_thread_cpu", function()
      local r <close> = ring { entries = 4, sqpoll = true, sq_thread_idle = 0.5, sq_thread_cpu = 0 }
      assert.is_true(r:features().sqpoll)
      works(r)
    end)

    it("take sqpoll = false for what it is", function()
      local r <close> = ring { sqpoll = false }
      assert.is_false(r:features().sqpoll)
    end)

    it("take a driver", function()
      for _, name in ipairs { "kernel", "fault" } do
        local r <close> = ring { driver = name }
        assert.are.equal(name, r:features().driver)
      end
    end)

    it("take a drain_timeout of any length", function()
      for _, seconds in ipairs { 0, 0.5, 3, math.huge } do
        local r = ring { entries = 1, drain_timeout = seconds }
        works(r)
        r:close()
      end
    end)

    local wrong = {
      { "entries", 0, "integer from 1 to 1048576 expected, got 0" },
      { "entries", -1, "integer from 1 to 1048576 expected, got %-1" },
      { "entries", (1 << 20) + 1, "integer from 1 to 1048576 expected" },
      { "entries", math.maxinteger, "integer from 1 to 1048576 expected" },
      { "entries", 1.5, "integer from 1 to 1048576 expected, got 1.5" },
      { "entries", "8", "integer from 1 to 1048576 expected, got 8" },
      { "entries", true, "integer from 1 to 1048576 expected, got true" },
      { "cq_entries", 0, "integer from 1" },
      { "cq_entries", {}, "integer from 1" },
      { "backlog", 0, "integer from 1" },
      { "backlog", "many", "integer from 1 to 1048576 expected, got many" },
      { "sqpoll", 1, "true or false expected, got 1" },
      { "sqpoll", "yes", "true or false expected, got yes" },
      { "sq_thread_idle", -0.1, "seconds ≥ 0 expected, got %-0.1" },
      { "sq_thread_idle", "2", "seconds ≥ 0 expected, got 2" },
      { "sq_thread_idle", 0 / 0, "seconds ≥ 0 expected" },
      { "sq_thread_cpu", -1, "integer from 0" },
      { "sq_thread_cpu", 0.5, "integer from 0" },
      { "drain_timeout", -1, "seconds ≥ 0 expected, got %-1" },
      { "drain_timeout", false, "seconds ≥ 0 expected, got false" },
      { "drain_timeout", 0 / 0, "seconds ≥ 0 expected" },
      { "driver", "epol", ".+ expected, got epol" },
      { "driver", 1, ".+ expected, got 1" },
      { "fault", 7, "table expected, got 7" },
      { "without", "bind", "table expected, got bind" },
    }
    for _, case in ipairs(wrong) do
      local name, value, message = table.unpack(case)
      it(("refuse %s = %s"):format(name, type(value) == "table" and "{}" or value), function()
        local err = helper.error_of(uring.ring, { [name] = value })
        assert.matches("option '" .. name .. "' of ring: " .. message, err)
      end)
    end

    it("refuse an unknown name, and tell near ones and all there are", function()
      local err = helper.error_of(uring.ring, { entires = 8 })
      assert.matches("unknown option 'entires' of ring", err, 1, true)
      assert.matches("did you mean 'entries'", err, 1, true)
      local known = { "entries", "cq_entries", "backlog", "sqpoll", "sq_thread_idle", "sq_thread_cpu",
        "drain_timeout", "driver", "fault", "without" }
      local listed = err:match "it takes (.*)$"
      for _, name in ipairs(known) do
        assert.matches(" " .. name .. " ", " " .. listed .. " ", 1, true)
      end
    end)

    it("refuse a name that is like none without a guess", function()
      local err = helper.error_of(uring.ring, { zzzzzzzzzz = 8 })
      assert.matches("unknown option 'zzzzzzzzzz' of ring; it takes", err, 1, true)
    end)

    it("refuse what has no name", function()
      assert.matches("options of ring have names", helper.error_of(uring.ring, { 256 }))
      assert.matches("table expected", helper.error_of(uring.ring, 256))
    end)

    it("refuse unknown and wrong fields of fault", function()
      local function refused(fault)
        return helper.error_of(uring.ring, { driver = "fault", fault = fault })
      end
      assert.matches("number from 0 to 1", refused { rate = 1.5 })
      assert.matches("number from 0 to 1", refused { rate = -0.5 })
      assert.matches("number from 0 to 1", refused { rate = 0 / 0 })
      assert.matches("seed", refused { seed = "x" })
      assert.matches("errno", refused { errno = {} })
      assert.matches("unknown field 'sed'.*seed rate errno", refused { sed = 1 })
    end)

    it("refuse unknown operations in without", function()
      local err = helper.error_of(uring.ring, { without = { "raed" } })
      assert.matches("unknown operation 'raed'", err, 1, true)
      assert.matches("did you mean 'read'", err, 1, true)
      assert.matches("without", helper.error_of(uring.ring, { without = { {} } }))
    end)

    it("leave no descriptor behind when they are refused", function()
      local n = testkit.fds()
      for _ = 1, 10 do
        helper.error_of(uring.ring, { entires = 8 })
        helper.error_of(uring.ring, { without = { "raed" } })
      end
      collectgarbage()
      collectgarbage()
      assert.are.equal(n, testkit.fds())
    end)
  end)

  describe("tells", function()
    it("what it is", function()
      local r = ring { entries = 8 }
      assert.are.equal(("ring (8 entries, 0 in flight, fd %d)"):format(r:features().ring_fd), tostring(r))
      local op = r:prepare("timeout", 60)
      r:submit()
      assert.matches("1 in flight", tostring(r))
      op:cancel():await()
      r:close()
      assert.are.equal("ring (closed)", tostring(r))
    end)

    it("its features", function()
      local r <close> = ring { entries = 8 }
      local f = r:features()
      local pipe = io.popen "uname -r"
      assert.are.equal(pipe:read "l", f.kernel)
      pipe:close()
      assert.are.equal("kernel", f.driver)
      assert.are.equal("integer", math.type(f.feature_bits))
      assert.are_not.equal(0, f.feature_bits & 2) -- NODROP
      for _, flag in ipairs { "iopoll", "sqpoll", "submit_all", "coop_taskrun", "taskrun_flag", "single_issuer",
        "defer_taskrun", "no_sqarray" } do
        assert.are.equal("boolean", type(f[flag]), flag)
      end
      assert.is_true(f.defer_taskrun and f.single_issuer) -- the floor is 6.1
    end)

    it("whether it can do an operation", function()
      local r <close> = ring { entries = 8 }
      local all = r:probe()
      local n = 0
      for name, can in pairs(all) do
        n = n + 1
        assert.are.equal("boolean", type(can), name)
        assert.are.equal(can, r:probe(name), name)
      end
      assert.is_true(n >= 20)
      for _, name in ipairs { "nop", "read", "write", "openat", "close", "statx", "accept", "connect" } do
        assert.is_true(all[name], name)
      end
      assert.matches("unknown operation 'raed' (did you mean 'read'", helper.error_of(r.probe, r, "raed"), 1, true)
    end)

    it("the same features and operations of the default ring", function()
      assert.are.equal("kernel", uring.features().driver)
      assert.is_true(uring.probe "read")
      assert.is_true(uring.probe().read)
    end)

    it("everything that is counted", function()
      local r <close> = ring { entries = 8 }
      for name, n in pairs(r:stats()) do
        assert.are.equal("integer", math.type(n), name)
        assert.are.equal(0, n, name)
      end
      for _, name in ipairs { "prepared", "backlog", "in_flight", "completed", "cancelled", "orphaned", "overflowed",
        "leaked", "enters", "tasks", "timers", "bytes_lent" } do
        assert.are.equal(0, r:stats()[name], name)
      end
    end)

    it("how far each operation has come", function()
      local r <close> = ring { entries = 2 }
      local pipes, ops = {}, {}
      local function counted(...)
        local s, values = r:stats(), {}
        for i, name in ipairs { "prepared", "backlog", "in_flight", "completed", "cancelled", "bytes_lent" } do
          values[i] = s[name]
        end
        assert.are.same({ ... }, values)
      end
      for i = 1, 4 do
        pipes[i] = table.pack(uring.pipe())
        ops[i] = r:prepare("read", pipes[i][1]:fd(), uring.buffer(10), 10)
      end
      counted(4, 2, 0, 0, 0, 40)
      assert.are.equal(2, r:submit())
      counted(4, 2, 2, 0, 0, 40)
      assert.are.equal(2, r:submit())
      counted(4, 0, 4, 0, 0, 40)
      assert.are.equal(0, r:submit())
      for i = 1, 2 do
        pipes[i][2]:write("1234567890")
        assert.are.equal(10, ops[i]:await())
      end
      counted(4, 0, 2, 2, 0, 20)
      assert.are.equal("cancelled", (ops[3]:cancel():await()))
      counted(4, 0, 1, 3, 1, 10)
      ops[4] = nil
      collectgarbage()
      collectgarbage()
      assert.are.equal(1, r:stats().orphaned)
      r:prepare("nop"):await()
      counted(5, 0, 0, 5, 2, 0)
      for i = 1, 4 do
        pipes[i][1]:close()
        pipes[i][2]:close()
      end
    end)
  end)

  it("has a table of error numbers, both ways", function()
    assert.are.equal(2, errno.ENOENT)
    assert.are.equal("ENOENT", errno[2])
    assert.are.equal(11, errno.EAGAIN)
    assert.are.equal(errno.EAGAIN, errno.EWOULDBLOCK)
    local n = 0
    for name, number in pairs(errno) do
      if type(name) == "string" then
        n = n + 1
        assert.matches("^E%w+$", name)
        assert.are.equal(number, errno[errno[number]], name)
      end
    end
    assert.is_true(n > 80)
    local _, message, number = uring.op.openat(nil, "/nonexistent", 0)
    assert.are.equal("openat: No such file or directory", message)
    assert.are.equal(errno.ENOENT, number)
  end)

  describe("with a submission thread", function()
    it("works, also after the thread has gone to sleep", function()
      local r <close> = ring { entries = 8, sqpoll = true, sq_thread_idle = 0.01 }
      for _ = 1, 3 do
        works(r)
        uring.sleep(0.05)
      end
    end)

    it("carries out more than fits", function()
      local r <close> = ring { entries = 2, cq_entries = 4, sqpoll = true, sq_thread_idle = 0.01 }
      local ops = {}
      for i = 1, helper.times(1000) do
        ops[i] = r:prepare("nop")
      end
      for i = 1, #ops do
        assert.are.equal(0, ops[i]:await())
      end
      local s = r:stats()
      assert.are.same({ #ops, 0 }, { s.completed, s.in_flight })
    end)

    it("is closed with operations in flight", function()
      local r = ring { entries = 2, sqpoll = true }
      local rd <close>, _wr = uring.pipe()
      local op = r:prepare("read", rd:fd(), uring.buffer(10), 10)
      r:submit()
      r:close()
      assert.are.same({ nil, "read: Operation canceled", errno.ECANCELED }, { op:await() })
    end)

    it("is waited for by a task while others go on", function()
      local r <close> = ring { entries = 2, sqpoll = true, sq_thread_idle = 0.01 }
      go_on(r)
    end)
  end)

  describe("without bind and listen", function()
    local function serve(r)
      local seen = {}
      local function note(...)
        seen[#seen + 1] = { ... }
      end
      local function socket()
        return assert(r:prepare("socket", const.AF_INET, const.SOCK_STREAM | const.SOCK_CLOEXEC):await())
      end
      local fd, other = socket(), socket()
      note(r:prepare("bind", fd, "127.0.0.1:0"):await())
      note(r:prepare("listen", fd, 5):await())
      local address = require "uring.core".local_address(fd)
      note(r:prepare("bind", other, address):await()) -- in use
      note(r:prepare("bind", fd, "127.0.0.1:0"):await()) -- bound already
      note(r:prepare("bind", 1 << 20, "127.0.0.1:0"):await())
      note(r:prepare("listen", 1 << 20, 5):await())
      local accept = r:prepare("accept", fd, 0, { peer = false })
      note(r:prepare("connect", other, address):await())
      local peer = assert(accept:await())
      for _, each in ipairs { fd, other, peer } do
        note(r:prepare("close", each):await())
      end
      return seen
    end

    it("falls back to system calls with the same results", function()
      local native <close> = ring { entries = 8 }
      local fallen <close> = ring { entries = 8, without = { "bind", "listen" } }
      local expected = {
        { 0 }, { 0 },
        { nil, "bind: Address already in use", errno.EADDRINUSE },
        { nil, "bind: Invalid argument", errno.EINVAL },
        { nil, "bind: Bad file descriptor", errno.EBADF },
        { nil, "listen: Bad file descriptor", errno.EBADF },
        { 0 }, { 0 }, { 0 }, { 0 },
      }
      assert.are.same(expected, serve(native))
      assert.are.same(expected, serve(fallen))
      assert.is_true(fallen:probe "bind")
      assert.is_true(fallen:probe "listen")
    end)
  end)

  it("without an operation that has no equivalent says so", function()
    local r <close> = ring { entries = 8, without = { "read", "statx" } }
    assert.is_false(r:probe "read")
    assert.is_false(r:probe().statx)
    assert.is_true(r:probe "write")
    local _, message, number = r:prepare("read", 0, uring.buffer(1), 1):await()
    assert.matches("^read: ", message)
    assert.are.equal(errno.ENOSYS, number)
    assert.are.equal(0, r:stats().bytes_lent)
  end)

  describe("refused by the system", function()
    -- Each process can be refused only once, so each has an interpreter.
    local function refused(number)
      local output, status = script(([[
        local uring, testkit = require "uring", require "testkit"
        testkit.refuse_rings(%d)
        local r, message, number = uring.ring { entries = 8 }
        print(r, message, number)
        print(pcall(uring.op.nop))
        print(pcall(uring.run, function() uring.op.nop() end))
        print(pcall(uring.sleep, 0.01))
        print(pcall(uring.stats))
      ]]):format(number))
      assert.are.equal(0, status, output)
      local lines = {}
      for line in output:gmatch "[^\n]+" do
        lines[#lines + 1] = line
      end
      local message = lines[1]:match("^nil\tio_uring: (.*)\t" .. number .. "$")
      assert.is_truthy(message, output)
      for i = 2, 5 do -- who needs the default ring hears the same
        local again = output:find(message, #lines[1], true)
        assert.is_truthy(again, output)
        if lines[i]:find "^%a+\t" then
          assert.matches("^false\t.*" .. message:sub(1, 20):gsub("%p", "%%%0"), lines[i])
        end
      end
      return message
    end

    it("for lack of permission names the sysctl and the profile", function()
      for _, name in ipairs { "EPERM", "EACCES" } do
        local message = refused(errno[name])
        assert.matches("kernel.io_uring_disabled", message, 1, true)
        assert.matches("seccomp", message, 1, true)
        assert.matches("io_uring_setup", message, 1, true)
      end
    end)

    it("for lack of the system call names the kernel it takes", function()
      local message = refused(errno.ENOSYS)
      assert.matches("6.1", message, 1, true)
      assert.matches("seccomp", message, 1, true)
    end)

    it("for lack of memory names the limit", function()
      local message = refused(errno.ENOMEM)
      assert.matches("ulimit -l", message, 1, true)
      assert.matches("fewer entries", message, 1, true)
    end)

    it("for anything else gives the system's reason", function()
      assert.are.equal("Invalid argument", refused(errno.EINVAL))
    end)

    it("for lack of descriptors names that limit", function()
      local output, status = script [[
        local uring, testkit = require "uring", require "testkit"
        testkit.spare_fds(2)
        local rings, message, number = {}
        repeat
          rings[#rings + 1], message, number = uring.ring { entries = 8 }
        until not rings[1] or message or #rings > 9
        print(message, number)
        for _, r in ipairs(rings) do r:close() end
        assert(uring.op.nop() == 0)
      ]]
      assert.are.equal(0, status, output)
      assert.matches("ulimit -n", output, 1, true)
      assert.matches("\t" .. errno.EMFILE, output, 1, true)
    end)

    it("a large one is made smaller until there is memory for it", function()
      local output, status = script [[
        local uring, testkit = require "uring", require "testkit"
        testkit.refuse_rings(uring.errno.ENOMEM, 32)
        local r <close> = assert(uring.ring { entries = 1024 })
        print(r:features().entries, r:prepare("nop"):await())
      ]]
      assert.are.equal("32\t0\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("closed", function()
    it("raises from every use", function()
      local r = ring { entries = 8 }
      r:close()
      for _, call in ipairs {
        function() r:prepare("nop") end, function() r:submit() end, function() r:features() end,
        function() r:probe() end, function() r:probe("read") end, function() r:fd() end,
      } do
        assert.matches("attempt to use a closed ring", helper.error_of(call), 1, true)
      end
    end)

    it("may be closed again", function()
      local r = ring { entries = 8 }
      local n = testkit.fds()
      for _ = 1, 3 do
        r:close()
        assert.are.equal(n - 1, testkit.fds())
      end
    end)

    it("keeps its counters", function()
      local r = ring { entries = 8 }
      r:prepare("nop"):await()
      r:close()
      local s = r:stats()
      assert.are.same({ 1, 1, 0, 0 }, { s.prepared, s.completed, s.in_flight, s.leaked })
    end)

    it("leaves its handles done", function()
      local r = ring { entries = 8 }
      local done, open = r:prepare("nop"), r:prepare("timeout", 60)
      r:submit()
      r:close()
      assert.are.equal("done", done:status())
      assert.are.equal("done", open:status())
      assert.are.equal(0, done:await())
      assert.are.same({ nil, "timeout: Operation canceled", errno.ECANCELED }, { open:await() })
      assert.are.equal("cancelled", (open:cancel():await()))
    end)

    it("is what a variable with <close> ends as", function()
      local kept, op
      do
        local r <close> = ring { entries = 8 }
        kept, op = r, r:prepare("timeout", 60)
        r:submit()
      end
      assert.are.equal("ring (closed)", tostring(kept))
      assert.are.equal("done", op:status())
    end)

    it("is what an error makes of a variable with <close>", function()
      local kept
      local err = helper.error_of(function()
        local r <close> = ring { entries = 8 }
        kept = r
        r:prepare("timeout", 60)
        error "on purpose"
      end)
      assert.matches("on purpose", err)
      assert.are.equal("ring (closed)", tostring(kept))
    end)
  end)

  it("stands beside another without touching it", function()
    local a <close>, b = ring { entries = 4 }, ring { entries = 4 }
    local rd, wr = uring.pipe()
    local buffer = uring.buffer(10)
    local on_a = a:prepare("read", rd:fd(), buffer, 10)
    local on_b = b:prepare("timeout", 60)
    a:submit()
    b:submit()
    works(b)
    works(a)
    b:close()
    assert.are.equal(errno.ECANCELED, select(3, on_b:await()))
    assert.are.equal("submitted", on_a:status())
    assert.matches("lent", helper.error_of(buffer.get, buffer))
    wr:write("data")
    assert.are.equal(4, on_a:await())
    assert.are.equal("data", buffer:get(1, 4))
    rd:close()
    wr:close()
  end)

  it("cannot lend what another has", function()
    local a <close> = ring { entries = 4 }
    local b <close> = ring { entries = 4 }
    local rd <close>, _wr = uring.pipe()
    local buffer = uring.buffer(10)
    local op = a:prepare("read", rd:fd(), buffer, 10)
    local err = helper.error_of(b.prepare, b, "read", rd:fd(), buffer, 10)
    assert.matches(("buffer is lent to the kernel (read on fd %d)"):format(rd:fd()), err, 1, true)
    op:cancel():await()
    assert.are.equal("owned", buffer:status())
  end)

  it("raises where there is nothing to wait for", function()
    local r <close> = ring { entries = 4 }
    local op = r:prepare("nop")
    assert.are.equal(0, op:await())
    assert.are.equal(0, op:await()) -- a result can be had again
  end)

  describe("driven by hand", function()
    it("is waited for by a task while other tasks go on", function()
      local r <close> = ring { entries = 4 }
      go_on(r)
    end)

    it("is waited for by many tasks at once", function()
      local r <close> = ring { entries = 4 }
      local n = helper.times(200)
      uring.run(function()
        local tasks = {}
        for i = 1, n do
          tasks[i] = uring.spawn(function()
            return r:prepare("timeout", (n - i) % 10 / 1000):await()
          end)
        end
        for i = 1, n do
          assert.are.equal(0, soon(tasks[i]))
        end
      end)
      local s = r:stats()
      assert.are.same({ n, 0 }, { s.completed, s.in_flight })
    end)

    it("gives its operation back when the task that waits is cancelled", function()
      local r <close> = ring { entries = 4 }
      local rd <close>, _wr = uring.pipe()
      local buffer = uring.buffer(10)
      uring.run(function()
        local status
        local task = uring.spawn(function()
          local op = r:prepare("read", rd:fd(), buffer, 10)
          local ok, err = pcall(op.await, op)
          status = op:status()
          assert(not ok and err == uring.cancelled)
        end)
        uring.sleep(0.005)
        task:cancel()
        soon(task)
        assert.are.equal("done", status)
        assert.are.equal("owned", buffer:status())
      end)
    end)

    it("may be closed while a task waits for it", function()
      local r = ring { entries = 4 }
      local rd <close>, _wr = uring.pipe()
      uring.run(function()
        local task = uring.spawn(function()
          return r:prepare("read", rd:fd(), uring.buffer(10), 10):await()
        end)
        uring.sleep(0.005)
        r:close()
        assert.are.same({ nil, "read: Operation canceled", errno.ECANCELED }, { soon(task) })
      end)
    end)

    it("may be closed by another while a task waits, and the same operation is waited for by two", function()
      local r = ring { entries = 4 }
      local rd <close>, _wr = uring.pipe()
      uring.run(function()
        local op = r:prepare("read", rd:fd(), uring.buffer(10), 10)
        local a = uring.spawn(op.await, op)
        local b = uring.spawn(op.await, op)
        uring.sleep(0.005)
        r:close()
        assert.are.equal(errno.ECANCELED, select(3, soon(a)))
        assert.are.equal(errno.ECANCELED, select(3, soon(b)))
      end)
    end)

    it("may be waited for outside of tasks while tasks are parked", function()
      local task = uring.spawn(function()
        uring.sleep(0.01)
        return "slept"
      end)
      local r <close> = ring { entries = 4 }
      assert.are.equal(0, r:prepare("timeout", 0.001):await())
      assert.are.equal("slept", task:await())
    end)

    it("is readable where it has completions", function()
      local r <close> = ring { entries = 4 }
      local op = r:prepare("timeout", 0.02)
      r:submit()
      assert.is_false(testkit.poll(r:fd(), 0))
      local started = uring.now()
      assert.is_true(testkit.poll(r:fd(), 1))
      assert.is_true(uring.now() - started < 0.9) -- the completion woke it, not the end of the wait
      assert.are.equal(0, op:await())
      assert.is_false(testkit.poll(r:fd(), 0))
    end)
  end)

  describe("of the default kind", function()
    it("is created at first use, and again after close", function()
      local output, status = script [[
        local testkit = require "testkit"
        local before = testkit.fds()
        local uring = require "uring"
        local function new() return testkit.fds() - before end
        local buffer = uring.buffer(10)
        print("loaded", new())
        uring.close()
        print("closed unused", new())
        print(uring.op.nop(), new())
        local first = uring.stats().completed
        uring.close()
        print("closed", new())
        uring.close()
        print(uring.prepare("nop"):await(), new(), first, uring.stats().completed)
        uring.close()
        print(uring.run(function() uring.sleep(0.001) return "ran" end), new())
        uring.close()
        print("closed", new())
      ]]
      assert.are.equal(0, status, output)
      assert.are.equal("loaded\t0\nclosed unused\t0\n0\t1\nclosed\t0\n0\t1\t1\t1\nran\t1\nclosed\t0\n", output)
    end)

    it("ends its operations when it is closed", function()
      local rd <close>, _wr = uring.pipe()
      local buffer = uring.buffer(10)
      local op = uring.prepare("read", rd:fd(), buffer, 10)
      uring.submit()
      assert.are.equal("lent", buffer:status())
      uring.close()
      assert.are.equal("owned", buffer:status())
      assert.are.same({ nil, "read: Operation canceled", errno.ECANCELED }, { op:await() })
      assert.are.equal(0, uring.op.nop())
    end)
  end)
end)
