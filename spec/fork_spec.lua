local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno = uring.errno

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

-- valgrind's map of the memory does not know that the queues are not there in a
-- child, and it ends itself when something else is mapped in their place.
local function with_new_ring(name, fn)
  if helper.valgrind then
    pending(name .. ": valgrind cannot follow a mapping that a fork leaves out")
  else
    it(name, fn)
  end
end

describe("a child of fork", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  -- Runs fn in a child; what it returned, each as a string.
  local function in_child(fn)
    local path = helper.tmpname()
    local pid = testkit.fork()
    if pid == 0 then
      local results = table.pack(pcall(fn))
      local file = io.open(path, "w")
      for i = 2, results.n do
        file:write(tostring(results[i]), "\n")
      end
      file:close()
      testkit.exit(results[1] and 0 or 3)
    end
    local status = testkit.wait(pid)
    local results = {}
    for line in io.lines(path) do
      results[#results + 1] = line
    end
    assert.are.equal(0, status, table.concat(results, "\n"))
    return table.unpack(results)
  end

  -- The errors of functions called in a child.
  local function errors_in_child(...)
    local fns = { ... }
    return in_child(function()
      local errors = {}
      for i, fn in ipairs(fns) do
        local ok, err = pcall(fn)
        errors[i] = ok and "no error" or tostring(err):gsub("\n.*", "")
      end
      return table.unpack(errors)
    end)
  end

  local function assert_all_refused(...)
    for i = 1, select("#", ...) do
      local message = select(i, ...)
      assert.matches(("this ring belongs to process %d, from before the fork: create one of your own with " ..
        "uring.ring()"):format(testkit.getpid()), message, 1, true)
    end
  end

  it("is refused the parent's ring, and told to create its own", function()
    local r <close> = uring.ring { entries = 8 }
    assert_all_refused(errors_in_child(
      function() r:prepare("nop") end,
      function() r:submit() end,
      function() r:features() end,
      function() r:probe() end,
      function() r:fd() end))
    assert.are.equal(0, r:stats().prepared)
  end)

  it("is refused the parent's handles", function()
    local r <close> = uring.ring { entries = 8 }
    local rd <close>, wr = uring.pipe()
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local sent = r:prepare("read", rd:fd(), uring.buffer(10), 10)
    local multishot = r:prepare("accept", listener:fd(), 0, { multishot = true })
    r:submit()
    local unsent = r:prepare("read", rd:fd(), uring.buffer(10), 10)
    local cancellation = multishot:cancel()
    local next_result = multishot:results()
    assert_all_refused(errors_in_child(
      function() sent:await() end,
      function() sent:cancel() end,
      function() unsent:await() end,
      function() unsent:cancel() end,
      function() multishot:await() end,
      function() next_result(multishot) end,
      function() uring.await(sent) end,
      function() uring.await(sent, unsent) end,
      function() local _op <close> = sent end))
    assert.are.same({ "submitted", "prepared" }, { in_child(function()
      return sent:status(), unsent:status()
    end) })
    assert.are.equal("cancelling", cancellation:status())
    assert.are.equal("submitted", sent:status())
    assert.are.equal("prepared", unsent:status())
    wr:close()
    assert.are.equal(0, sent:await())
    assert.are.equal(0, unsent:await())
  end)

  it("is refused the parent's default ring, and what waits on it", function()
    local task = uring.spawn(uring.sleep, 60)
    uring.sleep(0.001)
    assert_all_refused(errors_in_child(
      function() uring.op.nop() end,
      function() uring.prepare("nop") end,
      function() uring.submit() end,
      function() uring.stats() end,
      function() uring.sleep(0.001) end,
      function() uring.yield() end,
      function() uring.run(function() end) end,
      function() task:await() end))
    task:cancel()
    pcall(task.await, task)
  end)

  it("can look at results that were there before", function()
    local r <close> = uring.ring { entries = 8 }
    local done, failed = r:prepare("nop"), r:prepare("openat", nil, "/nonexistent", 0)
    done:await()
    failed:await()
    assert.are.same({ "done", "0", "nil", "openat: No such file or directory", "2" }, { in_child(function()
      return done:status(), done:await(), failed:await()
    end) })
  end)

  it("sees what is lent as lent, until it lets go of the ring", function()
    local r <close> = uring.ring { entries = 8 }
    local rd <close>, wr = uring.pipe()
    local buffer, free = uring.buffer(10), uring.buffer "mine"
    local op = r:prepare("read", rd:fd(), buffer, 10)
    r:submit()
    local before, message, own, after = in_child(function()
      local lent = buffer:status()
      local _, err = pcall(buffer.get, buffer)
      free:set(1, "MINE")
      r:close()
      return lent, err, free:get(), buffer:status()
    end)
    assert.are.equal("lent", before)
    assert.matches(("buffer is lent to the kernel (read on fd %d)"):format(rd:fd()), message, 1, true)
    assert.are.equal("MINE", own)
    assert.are.equal("owned", after)
    -- none of this is the parent's
    assert.are.equal("mine", free:get())
    assert.are.equal("lent", buffer:status())
    wr:write "data"
    assert.are.equal(4, op:await())
    assert.are.equal("data", buffer:get(1, 4))
    wr:close()
  end)

  it("does not have the parent's queues in its memory", function()
    local r <close> = uring.ring { entries = 8 }
    local function mapped()
      local n = 0
      for line in io.lines "/proc/self/maps" do
        n = n + (line:find("[io_uring]", 1, true) and 1 or 0)
      end
      return n
    end
    assert.is_true(mapped() > 0)
    assert.are.equal("0", in_child(mapped))
    assert.are.equal(0, r:prepare("nop"):await())
  end)

  with_new_ring("works with a ring of its own", function()
    local r <close> = uring.ring { entries = 8 }
    assert.are.same({ "0", "4", "data", "ring (closed)" }, { in_child(function()
      local own = assert(uring.ring { entries = 8 })
      local rd, wr = require "uring.core".pipe()
      local buffer = uring.buffer(4)
      local nop = own:prepare("nop"):await()
      local read = own:prepare("read", rd, buffer, 4)
      own:prepare("write", wr, "data"):await()
      local n = read:await()
      own:close()
      return nop, n, buffer:get(), tostring(own)
    end) })
    assert.are.equal(0, r:prepare("nop"):await())
  end)

  with_new_ring("has a default ring of its own after uring.close()", function()
    local parked = uring.spawn(uring.sleep, 60)
    local rd <close>, _wr = uring.pipe()
    local reading = uring.spawn(function() uring.op.read(rd:fd(), uring.buffer(10), 10) end)
    uring.sleep(0.001)
    local before = uring.stats()
    assert.are.same({ "0", "ran", "0", "1", "slept" }, { in_child(function()
      uring.close()
      local nop = uring.op.nop()
      local ran = uring.run(function() uring.sleep(0.001) return "ran" end)
      local tasks, prepared = uring.stats().tasks, uring.stats().prepared
      local slept = uring.spawn(function() uring.sleep(0.001) return "slept" end):await()
      uring.close()
      return nop, ran, tasks, prepared, slept
    end) })
    assert.are.equal("waiting", parked:status())
    assert.are.equal("waiting", reading:status())
    local after = uring.stats()
    for _, name in ipairs { "prepared", "completed", "in_flight", "unknown", "tasks", "timers" } do
      assert.are.equal(before[name], after[name], name)
    end
    parked:cancel()
    reading:cancel()
    pcall(parked.await, parked)
    pcall(reading.await, reading)
  end)

  with_new_ring("has none of the parent's tasks after uring.close()", function()
    local parked = uring.spawn(uring.sleep, 60)
    uring.sleep(0.001)
    assert.are.same({ "cancelled", "false", "true", "ran", "cancelled" }, { in_child(function()
      uring.close()
      local status = parked:status()
      parked:cancel()
      local ok, err = pcall(parked.await, parked)
      collectgarbage()
      local ran = uring.spawn(function() uring.sleep(0.001) return "ran" end):await()
      return status, ok, err == uring.cancelled, ran, parked:status()
    end) })
    parked:cancel()
    pcall(parked.await, parked)
  end)

  it("closes its copies of the parent's descriptors when it closes the parent's rings", function()
    local r <close> = uring.ring { entries = 8 }
    local op = r:prepare("timeout", 60)
    r:submit()
    assert.are.same({ "-1", "-2", "done" }, { in_child(function()
      local n = testkit.fds()
      r:close()
      local first = testkit.fds() - n
      uring.close()
      return first, testkit.fds() - n, op:status()
    end) })
    assert.are.equal("submitted", op:status())
    assert.are.equal("cancelled", (op:cancel():await()))
  end)

  with_new_ring("leaves the parent's queues alone whatever it does", function()
    local r <close> = uring.ring { entries = 8 }
    local rd <close>, wr = uring.pipe()
    local buffer = uring.buffer(10)
    local op = r:prepare("read", rd:fd(), buffer, 10)
    r:submit()
    local queued = r:prepare("write", wr:fd(), "parent") -- in the queue while the child tries
    for _ = 1, 3 do
      in_child(function()
        for _ = 1, 5 do
          pcall(r.prepare, r, "write", wr:fd(), "child")
          pcall(r.submit, r)
          pcall(op.await, op)
          pcall(queued.cancel, queued)
        end
        local own = uring.ring { entries = 8 }
        own:prepare("nop"):await()
        r:close()
        own:close()
      end)
    end
    local s = r:stats()
    assert.are.same({ 2, 1, 0, 0 }, { s.prepared, s.in_flight, s.completed, s.unknown })
    assert.are.equal(1, r:submit())
    assert.are.equal(6, queued:await())
    assert.are.equal(6, op:await())
    assert.are.equal("parent", buffer:get(1, 6))
    s = r:stats()
    assert.are.same({ 2, 0, 2, 0 }, { s.prepared, s.in_flight, s.completed, s.unknown })
    wr:close()
  end)

  it("of a task cannot await, and the parent's tasks go on", function()
    local message = uring.run(function()
      local ticks = 0
      uring.spawn(function()
        for _ = 1, 5 do
          uring.sleep(0.001)
          ticks = ticks + 1
        end
      end)
      uring.sleep(0.001)
      local path = helper.tmpname()
      local pid = testkit.fork()
      if pid == 0 then
        local _, err = pcall(uring.op.nop)
        local file = io.open(path, "w")
        file:write(tostring(err))
        file:close()
        testkit.exit(0)
      end
      assert.are.equal(0, testkit.wait(pid))
      while ticks < 5 do
        uring.sleep(0.001)
      end
      return io.open(path):read "a"
    end)
    assert_all_refused(message)
  end)

  it("of a task that sleeps hears of it where the loop was started", function()
    local output, status = script [[
      local uring, testkit = require "uring", require "testkit"
      local pid
      local ok, err = pcall(uring.run, function()
        uring.spawn(uring.sleep, 0.01)
        uring.sleep(0.001)
        io.stdout:setvbuf "no"
        pid = testkit.fork()
        uring.sleep(0.001)
        return "slept"
      end)
      if pid == 0 then
        print("child", ok, (err:gsub("process %d+", "process N")))
        uring.close()
        print("own", uring.run(function() uring.sleep(0.001) return "ran" end))
      else
        print("status", testkit.wait(pid))
        print("parent", ok, err)
      end
    ]]
    assert.are.equal(0, status)
    assert.matches("^child\tfalse\t[^\n]*this ring belongs to process N, from before the fork", output)
    assert.matches("own\tran\nstatus\t0\nparent\ttrue\tslept\n$", output)
  end)

  it("of a task uses its own by-hand ring outside of tasks", function()
    local output, status = script [[
      local uring, testkit = require "uring", require "testkit"
      io.stdout:setvbuf "no"
      local pid
      local co = coroutine.wrap(function()
        pid = testkit.fork()
        if pid == 0 then
          local r <close> = uring.ring { entries = 4 }
          print("child", r:prepare("nop"):await())
        end
      end)
      uring.op.nop()
      co()
      if pid ~= 0 then print("status", testkit.wait(pid)) end
    ]]
    assert.are.equal("child\t0\nstatus\t0\n", output)
    assert.are.equal(0, status)
  end)

  describe("and the parent's pools", function()
    local function send(fd, text)
      assert.are.equal(#text, uring.op.send(fd, text))
    end

    it("is refused them", function()
      local r <close> = uring.ring { entries = 8 }
      local p <close> = r:pool { buffers = 2, size = 8 }
      local outgoing <close> = r:pool { buffers = 2, size = 8, outgoing = true }
      local a <close>, other = uring.socketpair()
      local _b <close> = other
      assert_all_refused(errors_in_child(
        function() r:pool() end,
        function() p:group() end,
        function() return #p end,
        function() outgoing:push "x" end,
        function() r:prepare("recv", a:fd(), p) end))
      assert.are.equal(2, p:stats().provided)
    end)

    with_new_ring("takes nothing of them from the parent, whatever it does", function()
      local r <close> = uring.ring { entries = 8 }
      local a <close>, other = uring.socketpair()
      local b <close> = other
      for _, how in ipairs { "the pool", "the ring", "its Buffers", "all by a collection", "nothing" } do
        local p = r:pool { buffers = 2, size = 8 }
        send(b:fd(), "datadata")
        local _, x = r:prepare("recv", a:fd(), p):await()
        local s = x:slice(1, 4)
        local c <close>, another = uring.socketpair()
        local d <close> = another
        local waiting = r:prepare("recv", a:fd(), p)
        local many = r:prepare("recv", c:fd(), p, { multishot = true, copy = true })
        r:submit()
        assert.are.same({ "datadata", "1", "1", "true" }, { in_child(function()
          local text, stats = x:get(), p:stats()
          if how == "the pool" then
            p:close()
          elseif how == "the ring" then
            r:close()
          elseif how == "its Buffers" then
            s:close()
            x:set(1, "changed!"):close()
          elseif how == "all by a collection" then
            p, waiting, many, x, s = nil -- luacheck: ignore
            collectgarbage()
            collectgarbage()
          end
          local own = assert(uring.ring { entries = 4 })
          local q = own:pool { buffers = 2, size = 8 }
          local one, two = require "uring.core".socketpair()
          own:prepare("send", two, "own"):await()
          local n, text_of_own = own:prepare("recv", one, q, { copy = true }):await()
          return text, stats.provided, stats.out, n == 3 and text_of_own == "own"
        end) })
        assert.are.same({ 1, 1, "datadata" }, { p:stats().provided, p:stats().out, x:get() })
        send(b:fd(), "one")
        local n, y = waiting:await()
        assert.are.same({ 3, "one" }, { n, y:get() })
        assert.are.equal("datadata", x:get())
        x:close()
        y:close()
        send(d:fd(), "two")
        assert.are.same({ 3, "two" }, { many:await() })
        send(d:fd(), "three")
        assert.are.same({ 5, "three" }, { many:await() })
        many:cancel()
        assert.is_nil((many:await()))
        s:close()
        assert.are.same({ 2, 0 }, { p:stats().provided, p:stats().out })
        p:close()
      end
    end)

    with_new_ring("leaves an operation that starves to the parent", function()
      local r <close> = uring.ring { entries = 8 }
      local a <close>, other = uring.socketpair()
      local b <close> = other
      local p <close> = r:pool { buffers = 1, size = 4 }
      send(b:fd(), "1234abcd")
      local _, x = r:prepare("recv", a:fd(), p):await()
      local waiting = r:prepare("recv", a:fd(), p)
      r:prepare("timeout", 0.002):await()
      assert.are.equal(1, p:stats().starved)
      r:fd() -- there is a bell
      in_child(function()
        x:close()
        r:close()
        local own = assert(uring.ring { entries = 4 })
        assert(own:prepare("nop"):await() == 0)
      end)
      assert.are.same({ "submitted", "1234" }, { waiting:status(), x:get() })
      x:close()
      local n, y = waiting:await()
      assert.are.same({ 4, "abcd" }, { n, y:get() })
      y:close()
    end)

    with_new_ring("leaves what is provided by number lent in the parent", function()
      local r <close> = uring.ring { entries = 8 }
      local memory = uring.buffer(16)
      assert.are.equal(0, (r:prepare("provide_buffers", memory, 8, 2, 1, 0):await()))
      assert.are.same({ "lent", "owned" }, { in_child(function()
        local before = memory:status()
        r:close()
        return before, memory:status()
      end) })
      assert.are.equal("lent", memory:status())
      assert.are.equal(2, (r:prepare("remove_buffers", 2, 1):await()))
      assert.are.equal("owned", memory:status())
    end)
  end)

  describe("exits normally", function()
    -- Everything there is, prepared, in flight and in the backlog; then a fork, and lua_close on both sides.
    local parent = [[
      local uring, testkit = require "uring", require "testkit"
      io.stdout:setvbuf "no"
      local rd, wr = uring.pipe()
      r = uring.ring { entries = 4 }
      local buffer = uring.buffer(10)
      ops = {}
      local first = r:prepare("read", rd:fd(), buffer, 10)
      assert(r:submit() == 1)
      for i = 1, 50 do
        ops[#ops + 1] = r:prepare("timeout", 60)
        ops[#ops + 1] = r:prepare("write", rd:fd(), ("x"):rep(10000))
        if i == 10 then r:submit() end
      end
      do local dropped = uring.ring { entries = 4, driver = "fault", fault = { rate = 0 } }
        for i = 1, 10 do dropped:prepare("timeout", 60) end
        dropped:submit()
        keep = dropped
      end
      local other, kept = uring.pipe()
      uring.spawn(function() uring.op.read(other:fd(), uring.buffer(10), 10) end)
      uring.spawn(function() uring.sleep(60) return kept end)
      uring.spawn(function() ops[1]:await() end)
      pool = uring.pool { buffers = 1, size = 4 }
      one, two = require "uring.core".socketpair()
      uring.op.send(two, "12345678")
      received = select(2, uring.op.recv(one, pool))
      starving = uring.prepare("recv", one, pool, { multishot = true })
      uring.sleep(0.001)
      uring.spawn(uring.yield) -- has not begun at the fork
      local pid = testkit.fork()
      if pid == 0 then
        %s
      end
      local status = testkit.wait(pid)
      wr:write "0123456789"
      print("parent", status, first:await(), buffer:get())
      assert(r:stats().unknown == 0)
      os.exit(0, true)
    ]]
    local children = {
      ["at once"] = "os.exit(0, true)",
      ["after a collection"] = "r, ops, keep = nil collectgarbage() collectgarbage() os.exit(0, true)",
      ["after uring.close()"] = "uring.close() os.exit(0, true)",
      ["after uring.close() and a collection"] =
        "uring.close() r, ops, keep = nil collectgarbage() collectgarbage() os.exit(0, true)",
      ["after closing the parent's rings"] = "r:close() keep:close() os.exit(0, true)",
      ["after using its own"] = "uring.close() local o = uring.ring {} o:prepare('nop'):await() " ..
        "for i = 1, 10 do o:prepare('timeout', 60) end o:submit() uring.op.nop() os.exit(0, true)",
      ["from a task of its own"] = "uring.close() uring.run(function() uring.sleep(0) os.exit(0, true) end)",
    }
    for name, child in pairs(children) do
      it(name, function()
        local output, status = script(parent:format(child))
        assert.are.equal("parent\t0\t10\t0123456789\n", output)
        assert.are.equal(0, status)
      end)
    end

    it("with tasks that waited for room", function()
      local output, status = script [[
        local uring, testkit = require "uring", require "testkit"
        for i = 1, 3 do -- older than the ring
          uring.spawn(function()
            local ops = {}
            for n = 1, 5000 do ops[n] = uring.prepare("timeout", 60) end
          end)
        end
        uring.yield() uring.yield()
        assert(uring.stats().tasks == 3 and uring.stats().backlog > 4000)
        local pid = testkit.fork()
        if pid == 0 then
          uring.close()
          uring.op.nop()
          collectgarbage() collectgarbage()
          os.exit(0, true)
        end
        print(testkit.wait(pid))
      ]]
      assert.are.equal("0\n", output)
      assert.are.equal(0, status)
    end)
  end)

  with_new_ring("of a child is one, too", function()
    local r <close> = uring.ring { entries = 4 }
    local status = in_child(function()
      local own = assert(uring.ring { entries = 4 })
      own:prepare("nop"):await()
      local pid = testkit.fork()
      if pid == 0 then
        local _, err = pcall(own.prepare, own, "nop")
        local _, older = pcall(r.prepare, r, "nop")
        local newest = assert(uring.ring { entries = 4 })
        local fine = err:find("from before the fork", 1, true) and older:find("from before the fork", 1, true)
          and newest:prepare("nop"):await() == 0
        testkit.exit(fine and 7 or 1)
      end
      local code = testkit.wait(pid)
      assert(own:prepare("nop"):await() == 0)
      return code
    end)
    assert.are.equal("7", status)
    assert.are.equal(0, r:prepare("nop"):await())
  end)

  with_new_ring("hears the errors of its own system, not the parent's", function()
    assert.are.same({ "nil", "openat: No such file or directory", tostring(errno.ENOENT) }, { in_child(function()
      uring.close()
      return uring.op.openat(nil, "/nonexistent", 0)
    end) })
  end)
end)
