local helper = require "spec.support.helper"

-- Fails every single request for memory of a workload, one after the other,
-- from the first to the last.  In an interpreter of its own, since a failing
-- request makes Lua collect, and busted's heap is large.

local function under_valgrind()
  local maps = io.open "/proc/self/maps"
  local found = maps:read "a":find("vgpreload", 1, true)
  maps:close()
  return found
end

local PREFIX = under_valgrind()
  and "valgrind -q --error-exitcode=99 --leak-check=full --keep-debuginfo=yes --child-silent-after-fork=yes --vgdb=no"
  or ""

local prelude = [[
  local testkit = require "testkit"
  local uring = require "uring"
  local core, const = require "uring.core", uring.const
  uring.on_error(function() end) -- a failed task says so, and that is all
  local path = os.tmpname()

  -- What is counted, with nothing under way.
  local function counts()
    local s = uring.stats()
    return ("tasks %d, timers %d, in flight %d, backlog %d, lent %d, unknown %d, descriptors %d"):format(
      s.tasks, s.timers, s.in_flight, s.backlog, s.bytes_lent, s.unknown, testkit.fds())
  end

  -- Turns until all is as it was; orphans and dropped rings end in their own time.
  local function settled(before)
    for i = 1, 200 do
      collectgarbage()
      if counts() == before then
        return true
      end
      uring.sleep(i > 10 and 0.001 or 0.00001)
    end
  end

  -- Closes what a workload puts into it, whatever becomes of the workload.
  local function descriptors()
    return setmetatable({ false, false, false, false }, { __close = function(self)
      for i = 1, 4 do
        testkit.close(self[i])
        self[i] = false
      end
    end })
  end

  local function is_memory_error(err)
    return type(err) == "string" and err:find "memory" ~= nil
  end

  -- Lets the nth request fail, `times` times in a row, for every n until the
  -- workload gets by without a failure.
  local function sweep(name, times, work, step, reset)
    work()
    work()
    reset()
    for _ = 1, 100 do
      collectgarbage()
      uring.yield()
    end
    local before = counts()
    assert(before:find "tasks 0, timers 0, in flight 0, backlog 0, lent 0, unknown 0", before)
    local n, failed, seen = 1, 0, nil
    local fail = testkit.fail_allocation
    repeat
      fail(n, times)
      local ok, err = pcall(work)
      seen = fail(0)
      reset()
      if not ok then
        failed = failed + 1
        if not is_memory_error(err) then
          error(("%s: request %d: not a memory error: %s"):format(name, n, tostring(err)), 0)
        end
      end
      if not settled(before) then
        error(("%s: request %d (%s):\n  before: %s\n  after:  %s"):format(name, n, tostring(err), before, counts()), 0)
      end
      local again, why = pcall(work)
      if not again then
        error(("%s: after request %d: %s"):format(name, n, tostring(why)), 0)
      end
      if not settled(before) then
        error(("%s: after request %d:\n  before: %s\n  after:  %s"):format(name, n, before, counts()), 0)
      end
      n = n + step
    until n > seen and ok
    assert(n > 1 and failed > 0 or times == 1, name .. ": nothing ever failed")
    print(name, failed > 0 or times == 1)
  end
]]

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 300 env " .. (prefix or ""))
end

describe("out of memory", function()
  -- Once: only C's own requests fail, for Lua collects and asks again.
  -- Twice: Lua's fail, too.  Often: what is done about it fails as well.
  local modes = { once = 1, twice = 2, ["many times"] = 12 }
  local STEP = helper.slow and 3 or 1
  -- A finaliser that Lua has no memory to call is not called again: what that
  -- object owned in C stays.
  local FORGIVING = "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 "

  -- `reset` is done before the counts are looked at.
  local function sweeps(name, work, reset)
    for mode, times in pairs(modes) do
      it(("%s: any request of it failing %s"):format(name, mode), function()
        if times > 2 and os.getenv "URING_GCSTRESS" then
          return pending "finalisers would be called, in vain, while there is no memory"
        end
        local call = "sweep('work', %d, function() %s end, %d, function() %s end) os.remove(path)"
        local prefix = times > 2 and FORGIVING .. PREFIX:gsub("full", "no", 1) or PREFIX
        local output, status = script(prelude .. call:format(times, work, STEP, reset or ""), prefix)
        assert.are.equal("work\ttrue\n", output)
        assert.are.equal(0, status)
      end)
    end
  end

  sweeps("files of uring.io", [[
    local io = uring.io
    local f <close> = assert(io.open(path, "w+"))
    assert(f:write("one\n", 2, " ", 0.5, "\n"))
    assert(f:seek("set") == 0)
    local line, n, x = f:read("L", "n", "n")
    assert(line == "one\n" and n == 2 and x == 0.5)
    assert(f:pwrite("ONE", 0) == f and f:pread(3, 0) == "ONE" and f:stat().size == 10)
    assert(f:truncate(4) == f and f:sync() == f)
    for l in io.lines(path) do
      assert(l == "ONE")
    end
    io.output(path)
    assert(io.write "out")
    assert(io.close())
    assert(io.input(path):read "a" == "out")
    io.input():close()
    local t <close> = assert(io.tmpfile())
    assert(t:write "x")
  ]], "uring.io.input(uring.io.stdin) uring.io.output(uring.io.stdout)")

  sweeps("commands of uring.io", [[
    local f <close> = assert(uring.io.popen "echo hello")
    assert(f:read() == "hello")
    assert(f:close())
    local g <close> = assert(uring.io.popen("read line; test \"$line\" = hello", "w"))
    assert(g:write "hello\n")
    assert(g:close())
  ]])

  sweeps("buffers", [[
    local b <close> = uring.buffer(5000)
    local s = b:slice(1001, 2000)
    s:fill(65)
    b:set(1, "hello")
    assert(b:get(1, 5) == "hello" and b:find("A") == 1001 and #s:get() == 1000)
    local t <close> = uring.buffer(("x"):rep(2000))
    assert(tostring(t):find "2000" and t:status() == "owned")
  ]])

  sweeps("rings", [[
    local a <close> = assert(uring.ring { entries = 4, without = { "bind" } })
    local b <close> = assert(uring.ring { entries = 4, driver = "fault", fault = { rate = 0 } })
    assert(a:prepare("nop"):await() == 0 and b:prepare("nop"):await() == 0)
    assert(a:features().entries == 4 and a:stats().completed == 1 and a:probe().read and tostring(b))
  ]])

  sweeps("operations by hand", [[
    local r <close> = assert(uring.ring { entries = 4 })
    local rd <close>, other = uring.pipe()
    local wr <close> = other
    local one, two, line = uring.buffer(10), uring.buffer(10), ("s"):rep(50)
    local ops = {
      r:prepare("write", wr:fd(), line .. "!"),
      r:prepare("writev", wr:fd(), { "abc", uring.buffer "defg", line .. "?" }),
      r:prepare("read", rd:fd(), one),
      r:prepare("readv", rd:fd(), { two, uring.buffer(5) }),
      r:prepare("statx", nil, path),
      r:prepare("openat", nil, "/nonexistent/" .. line, 0),
      r:prepare("timeout", 0.0001),
    }
    r:submit()
    local idle = r:prepare("timeout", 60)
    local _, cancelled = idle, idle:cancel()
    assert(cancelled:await() == "cancelled")
    assert(ops[1]:await() == 51 and ops[2]:await() == 58 and ops[3]:await() == 10 and ops[4]:await() == 15)
    local n, stat = ops[5]:await()
    assert(n == 0 and stat.type == "file" and ops[6]:await() == nil and ops[7]:await() == 0)
    assert(ops[1]:status() == "done" and tostring(ops[1]) and two:get() == ("s"):rep(10))
    local raw = r:prepare("raw", { opcode = 22, fd = rd:fd(), addr = one, len = 10, off = -1, keep = { line } })
    assert(raw:await() == 10)
  ]])

  sweeps("more operations than there is room for", [[
    local r <close> = assert(uring.ring { entries = 2, backlog = 200 })
    local ops = {}
    for i = 1, 300 do
      ops[i] = r:prepare("nop")
    end
    for i = 1, 300 do
      assert(ops[i]:await() == 0)
    end
    for i = 1, 150 do
      ops[i] = r:prepare("timeout", 60) -- left for close
    end
  ]])

  if helper.can_spawn() then
    sweeps("processes", [[
      assert(not select(2, testkit.children())) -- none that nobody has waited for
      local process <close> = assert(uring.process.spawn {
        "cat", stdin = "pipe", stdout = "pipe", setenv = { A = "x" }, cwd = "/", group = true, grace = 0.01 })
      process.stdin:write "text"
      process.stdin:close()
      assert(process.stdout:read "a" == "text" and process:wait() and tostring(process))
      local sleeper <close> = assert(uring.process.spawn { "sleep", 100, stdin = "null" })
      assert(sleeper:kill())
    ]])

    sweeps("a command run to its end", [[
      local result, message = uring.process.run { "sh", "-c", "cat; echo >&2", input = "text", grace = 0.01 }
      assert(result and result.stdout == "text" and result.stderr == "\n", message)
    ]])
  end

  sweeps("signals", [[
    local name
    do
      local watched <close> = uring.signals { "USR1", "HUP" }
      testkit.kill(testkit.getpid(), 10)
      for other in watched do
        name = other
        break
      end
    end
    assert(name == "USR1" and testkit.disposition(10) == "default")
  ]])

  sweeps("jobs in threads", [[
    uring.run(function()
      local naps = {}
      for i = 1, 20 do
        naps[i] = uring.spawn(core.nap, 0)
      end
      assert(core.nap(0))
      for i = 1, 20 do
        assert(naps[i]:await())
      end
      local done, why = uring.timeout(0.001, core.nap, 0.003)
      assert(done or why == "timeout") -- on a busy machine the thread may be first
    end)
    for _ = 1, 1000 do -- until the thread is done with it
      if uring.stats().jobs == 0 then break end
      uring.sleep(0.001)
    end
    assert(core.nap(0))
  ]])

  sweeps("files by path", [[
    local fs = uring.fs
    uring.run(function()
      assert(fs.writefile(path, "abc", { atomic = false }))
      assert(fs.copy(path, path .. ".copy"))
      assert(fs.readfile(path .. ".copy") == "abc" and fs.stat(path).type == "file")
      for _, kind in fs.readdir "/proc/self/task" do
        assert(kind == "directory")
      end
      for _, _, info in fs.walk("/proc/self/fdinfo", { stat = true, sort = true }) do
        assert(info)
      end
      local watch <close> = assert(fs.watch(path))
      assert(fs.remove(path .. ".copy"))
    end)
  ]], "os.remove(path .. '.copy')")

  sweeps("operations of tasks", [[
    uring.run(function()
      local rd <close>, other = uring.pipe()
      local wr <close> = other
      local reader = uring.spawn(function()
        local buffer = uring.buffer(100)
        local n = assert(uring.op.read(rd:fd(), buffer, 100))
        return buffer:get(1, n)
      end)
      assert(uring.op.write(wr:fd(), "some" .. "thing") == 9)
      assert(reader:await() == "something")
      local n, stat = uring.op.statx(nil, path)
      assert(n == 0 and stat.type == "file")
      local op = uring.prepare("read", rd:fd(), uring.buffer(10), 10)
      assert(op:cancel():await() == "cancelled")
      assert(select(2, uring.op.openat(nil, "/nonexistent/" .. n, 0)))
    end)
  ]])

  sweeps("tasks", [[
    local log = uring.run(function(...)
      local tasks = {}
      for i = 1, 20 do
        tasks[i] = uring.spawn(function(n)
          uring.sleep(0.00001 * n)
          uring.yield()
          return n
        end, i)
      end
      local idle = uring.spawn(function() uring.sleep(60) end)
      local sum = 0
      for i = 1, 20 do
        sum = sum + tasks[i]:await()
      end
      idle:cancel()
      assert(not pcall(idle.await, idle))
      local inner = uring.run(function() return uring.spawn(function() return select("#", 1, 2, 3) end):await() end)
      return sum + inner
    end, 1, 2, 3)
    assert(log == 213)
  ]])

  sweeps("a task that fails", [[
    local ok, err = pcall(uring.run, function()
      for _ = 1, 5 do
        uring.spawn(function() uring.sleep(60) end)
      end
      uring.yield()
      error("on pur" .. "pose")
    end)
    assert(not ok)
    if not err:find "on purpose" then error(err, 0) end
  ]])

  sweeps("streams", [[
    uring.run(function()
      local r <close>, other = uring.pipe()
      local w <close> = other
      r:timeout(60)
      local reader = uring.spawn(function()
        local a, b = assert(r:read("l", "n"))
        local c = assert(r:read_until "#")
        local d = assert(r:read(10000))
        local e = assert(r:read_some(3))
        return a .. b .. c .. #d .. e .. assert(r:read "a")
      end)
      local idle = uring.spawn(function() return r:read "l" end)
      local written, why = w:write("line\n", 12, " x#", ("d"):rep(5000), uring.buffer(("e"):rep(5000)), "some")
      assert(written, why)
      idle:cancel()
      assert(w:setvbuf("full", 50))
      assert(w:write "in the end")
      assert(w:write(" and ", ("more"):rep(20)))
      assert(w:close())
      assert(reader:await() == "line12 x#10000some" .. "in the end and " .. ("more"):rep(20))
    end)
  ]])

  sweeps("streams outside of tasks", [[
    local a <close>, other = uring.socketpair()
    local b <close> = other
    assert(a:write("one\ntwo ", ("x"):rep(9000), "\n"))
    local n = 0
    for line in b:lines() do
      n = n + #line
      if n > 9000 then break end
    end
    assert(n == 9007)
    assert(a:timeout(0.001):read() == nil)
  ]])

  sweeps("tied streams, and those whose peers take nothing", [[
    uring.run(function()
      local a <close>, other = uring.socketpair()
      local b <close> = other
      assert(a:setvbuf "full" and a:tie())
      local peer = uring.spawn(function()
        assert(b:read(4) == "ask\n")
        assert(b:write "1\n2\n")
      end)
      assert(a:write("ask", "\n"))
      local one, two = a:read("l", "n")
      assert(one == "1", two) -- or there was no memory
      assert(two == 2)
      peer:await()
      assert(a:setvbuf("full", 1 << 20))
      local _, why = uring.timeout(0.001, a.write, a, ("x"):rep(1 << 20)) -- it is sent where it cannot be kept
      assert(not why or why == "timeout", why)
      _, why = uring.timeout(0.0001, a.close, a)
      assert(not why or why == "timeout", why)
    end)
  ]])

  sweeps("buffered files", [[
    local file <close> = assert(uring.open(path, "w+"))
    assert(file:write("12 34\n", ("y"):rep(20000), "\nlast"))
    assert(file:seek "set" == 0)
    local a, b, c = file:read("n", "n", "L")
    assert(a == 12 and b == 34 and c == "\n" and #file:read "a" == 20005)
    assert(file:write "!" and file:seek "cur" == 20012)
    assert(file:close())
  ]], "io.open(path, 'w'):close()")

  sweeps("channels", [[
    local sync = uring.sync or core.sync
    uring.run(function()
      local ch, big, back = sync.channel(), sync.channel(100), sync.channel(1)
      local idle = uring.spawn(function() sync.select { sync.channel(), sync.channel() } end)
      local echo = uring.spawn(function()
        for value in ch:values() do
          back:send(value)
        end
        return select(2, back:receive())
      end)
      for i = 1, 20 do
        assert(ch:send(i))
        local which, value = sync.select { big, back, { sync.channel(), {} } }
        assert(which == 2 and value == i)
      end
      for i = 1, 100 do
        assert(big:try_send { i })
      end
      assert(not big:try_send(0) and #big == 100)
      for i = 1, 100 do
        assert(big:receive()[1] == i)
      end
      idle:cancel()
      ch:close()
      back:close()
      assert(echo:await() == "closed")
    end)
  ]])

  sweeps("semaphores, mutexes, conditions and wait groups", [[
    local sync = uring.sync or core.sync
    uring.run(function()
      local s, m, c, g = sync.semaphore(1), sync.mutex(), sync.condition(), sync.waitgroup(5)
      local inside, told = 0, 0
      for i = 1, 5 do
        uring.spawn(function()
          local _s <close> = s:acquire()
          local _m <close> = m:lock()
          inside = inside + 1
          assert(inside == 1)
          uring.yield()
          inside = inside - 1
          g:done()
        end)
        uring.spawn(function() c:wait() told = told + 1 end)
      end
      g:wait()
      c:notify_all()
      uring.yield()
      assert(told == 5 and s:acquire() == s and not s:try_acquire() and m:try_lock())
      m:unlock()
      assert(tostring(m) and tostring(s) and tostring(c) and tostring(g))
    end)
  ]])

  sweeps("awaits in coroutines", [[
    local sync, co = uring.sync or core.sync, uring.coroutine or core.coroutine
    uring.run(function()
      local ch, closed = sync.channel(), 0
      uring.spawn(function()
        for i = 1, 5 do ch:send { i } end
        ch:close()
      end)
      local function each(depth)
        local _ <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
        if depth > 0 then
          for value in co.wrap(each), depth - 1 do
            co.yield(value)
          end
          return
        end
        for value in ch:values() do
          uring.shield(uring.yield)
          co.yield(value[1])
        end
      end
      local sum = 0
      for value in co.wrap(each), 3 do
        sum = sum + value
        uring.yield() -- it knows again who it is
      end
      assert(sum == 15 and closed == 4)
      local failing = co.create(function()
        uring.sleep(0.00001)
        error("on pur" .. "pose")
      end)
      local ok, err = co.resume(failing)
      assert(not ok)
      uring.yield()
      if not tostring(err):find "on purpose" then error(err, 0) end
    end)
  ]])

  sweeps("scopes", [[
    local result = uring.scope(function(scope)
      uring.locals.user = "ann"
      for i = 1, 3 do
        scope:spawn(function() uring.sleep(0.00001) uring.locals.n = i end):name("task " .. i)
      end
      assert(#uring.tasks() >= 1)
      local _, why = uring.timeout(0.0001, uring.sleep, 60)
      assert(why == "timeout")
      local all = uring.all { function() uring.sleep(0) return uring.locals.user end, function() return "bob" end }
      assert(all[1] == "ann" and all[2] == "bob")
      assert(uring.race { function() uring.sleep(60) end, function() uring.yield() return 5 end } == 5)
      local map = uring.map({ 1, 2, 3 }, function(x) uring.yield() return x * x end, { limit = 2 })
      assert(map[1] == 1 and map[3] == 9)
      return "result"
    end)
    assert(result == "result")
  ]])

  sweeps("a scope that fails", [[
    local ok, err = pcall(uring.scope, function(scope)
      for i = 1, 3 do
        scope:spawn(function() uring.scope(function() uring.sleep(0.00001) error("on pur" .. "pose") end) end)
      end
      scope:deadline(60)
      uring.sleep(60)
    end)
    assert(not ok)
    if not err:find "on purpose" then error(err, 0) end
  ]])

  sweeps("files", [[
    local file <close> = assert(uring.open(path, "w+"))
    assert(file:write("one\n", 2, "\nthree\n"))
    assert(file:seek("set", 0) == 0)
    local lines = {}
    for line in file:lines() do
      lines[#lines + 1] = line
    end
    assert(table.concat(lines, ",") == "one,2,three")
    file:seek("set", 0)
    assert(file:read("l", 2, "a") == "one" and tostring(file):find "file")
    file:close()
    local ok, err = uring.open("/nonexistent/" .. path)
    assert(not ok and (err:find "No such file" or error(err, 0)))
  ]])

  sweeps("sockets", [[
    local listener <close> = assert(uring.listen { "127.0.0.1:0", backlog = 5, nodelay = true })
    local address = assert(listener:address())
    uring.run(function()
      local server = uring.spawn(function()
        local conn <close> = assert(listener:accept())
        assert(conn:write(assert(conn:read "l"), "\n"))
      end)
      local conn <close> = assert(uring.connect(address))
      assert(conn:write "hello\n")
      assert(conn:read "l" == "hello")
      assert(conn:peer() == address)
      server:await()
    end)
  ]])

  sweeps("messages", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair(const.SOCK_DGRAM)
    local a, b = fds[1], fds[2]
    local buffer = uring.buffer(10)
    assert(uring.prepare("sendmsg", a, { data = { "hel", uring.buffer "lo" } }):await() == 5)
    local n, message = uring.prepare("recvmsg", b, { data = { buffer:slice(1, 3), buffer:slice(4) } }):await()
    assert(n == 5 and message.flags == 0 and buffer:get(1, 5) == "hello")
  ]])

  sweeps("direct descriptors", [[
    local r <close> = assert(uring.ring { entries = 8 })
    assert(r:register_files(8))
    local fds <close> = descriptors()
    fds[1] = assert(uring.op.openat(nil, path, const.O_CLOEXEC))
    local n, slots = r:prepare("files_update", { fds[1], fds[1] }):await()
    assert(n == 2 and #slots == 2)
    local open = r:prepare("openat", nil, path, 0, { direct = 7, link = true, skip_success = true })
    local close = r:prepare("close", 7, { fixed_file = true })
    assert(open:await() == 7 and close:await() == 0)
    r:prepare("openat", nil, path, 0, { direct = true }) -- dropped
    r:prepare("pipe", { direct = true })
    r:submit()
    collectgarbage()
    r:prepare("nop"):await()
    local taken = 0
    for slot = 0, 7 do
      taken = taken + (r:prepare("close", slot, { fixed_file = true }):await() and 1 or 0)
    end
    assert(taken == 2, taken)
  ]])

  sweeps("messages of other rings", [[
    local a <close> = assert(uring.ring { entries = 4 })
    local b <close> = assert(uring.ring { entries = 4 })
    local messages <close> = b:messages()
    assert(a:prepare("msg_ring", b, 1, 2):await() == 0)
    local len, data = messages:await()
    assert(len == 1 and data == 2)
    uring.run(function()
      local task = uring.spawn(function() return messages:await() end)
      uring.yield()
      assert(uring.op.msg_ring(b, 3, 4) == 0)
      assert(task:await() == 3)
    end)
    messages:cancel()
    b:messages() -- dropped
    collectgarbage()
    local _again <close> = b:messages()
  ]])

  sweeps("operations with a deadline", [[
    local r <close> = assert(uring.ring { entries = 4 })
    assert(r:prepare("nop", { timeout = 60 }):await() == 0)
    local rd <close>, wr = uring.pipe()
    local _ <close> = wr
    local n, _, number = r:prepare("read", rd:fd(), uring.buffer(1), { timeout = 0 }):await()
    assert(not n and number == uring.errno.ETIMEDOUT)
  ]])

  sweeps("a multishot operation", [[
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local op <close> = uring.prepare("accept", listener:fd(), const.SOCK_CLOEXEC, { multishot = true })
    uring.submit()
    local fds <close> = descriptors()
    for i = 1, 3 do
      local _conn <close> = assert(uring.connect(listener:address()))
      fds[i] = assert(op:await())
    end
  ]])

  sweeps("pools", [[
    local p <close> = assert(uring.pool { buffers = 4, size = 8 })
    local big <close> = assert(uring.pool { buffers = 300, size = 1000, incremental = true })
    local outgoing <close> = assert(uring.pool { buffers = 2, size = 8, outgoing = true })
    assert(#p == 4 and p:stats().provided == 4 and tostring(big):find "300" and p:group() ~= big:group())
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair()
    local a, b = fds[1], fds[2]
    assert(outgoing:push "hello" and uring.prepare("send", b, outgoing):await() == 5)
    do
      local n, x = uring.prepare("recv", a, p):await()
      local _x <close> = x
      assert(n == 5 and x:get() == "hello" and x:slice(2, 3):get() == "el")
    end
    assert(uring.prepare("send", b, ("x"):rep(24)):await() == 24)
    local n, list = uring.prepare("recv", a, p, { bundle = true }):await()
    assert(n == 24 and #list == 3)
    for _, x in ipairs(list) do
      assert(x:get() == "xxxxxxxx")
      x:close()
    end
    assert(uring.prepare("send", b, ("y"):rep(20)):await() == 20)
    n, list = uring.prepare("recv", a, p, { bundle = true, copy = true }):await()
    assert(n <= 20 and list == ("y"):rep(n))
    assert(uring.prepare("send", b, "yyyy"):await() == 4)
    n, list = uring.prepare("recv", a, big, { copy = true }):await()
    assert(n >= 4 and list == ("y"):rep(n))
    collectgarbage()
    local s = p:stats()
    assert(s.provided == 4 and s.out == 0)
  ]])

  sweeps("operations of tasks that take from a pool", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair()
    local a, b = fds[1], fds[2]
    local p <close> = assert(uring.pool { buffers = 1, size = 4 })
    uring.run(function()
      local readers = {}
      for i = 1, 4 do
        readers[i] = uring.spawn(function()
          local n, x = uring.op.recv(a, p)
          local _x <close> = x
          uring.yield()
          return n
        end)
      end
      assert(uring.op.send(b, "1234567812345678") == 16)
      for i = 1, 4 do
        assert(readers[i]:await() == 4)
      end
    end)
  ]])

  sweeps("a multishot recv", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair()
    local a, b = fds[1], fds[2]
    local p <close> = assert(uring.pool { buffers = 20, size = 4 })
    local op <close> = uring.prepare("recv", a, p, { multishot = true })
    assert(uring.prepare("send", b, ("0123"):rep(50)):await() == 200)
    local bytes = 0
    for n, x in op:results() do
      bytes = bytes + n
      assert(x:get() == "0123")
      x:close()
      if bytes == 200 then
        break
      end
    end
    collectgarbage()
    local s = p:stats()
    assert(s.provided == 20 and s.out == 0)
  ]])

  sweeps("a multishot recv that is far ahead of its reader", [[
    local r <close> = assert(uring.ring { entries = 4 })
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair()
    local a, b = fds[1], fds[2]
    local p <close> = assert(r:pool { buffers = 300, size = 4 })
    local op <close> = r:prepare("recv", a, p, { multishot = true, copy = true })
    r:submit()
    assert(uring.prepare("send", b, ("0123"):rep(400)):await() == 1600)
    uring.prepare("shutdown", b, "w"):await()
    assert(r:prepare("timeout", 0.001):await() == 0)
    local bytes = 0
    for n, text in op:results() do -- raises where a result could not be kept
      bytes = bytes + n
      assert(text == "0123")
    end
    assert(bytes == 1600, bytes)
  ]])

  sweeps("a multishot recvmsg", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair(const.SOCK_DGRAM)
    local a, b = fds[1], fds[2]
    local p <close> = assert(uring.pool { buffers = 4, size = 300 })
    for _, reuse in ipairs { false, true } do
      local op <close> = uring.prepare("recvmsg", a, { data = p, control = 64 }, { multishot = true, reuse = reuse })
      for _ = 1, 3 do
        assert(uring.prepare("send", b, "hello"):await() == 5)
        local n, message, x = op:await()
        assert(n == 5 and message.flags == 0 and x:get() == "hello")
        if not reuse then
          x:close()
        end
      end
    end
  ]])

  sweeps("buffers provided by number", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.socketpair()
    local a, b = fds[1], fds[2]
    local r <close> = assert(uring.ring { entries = 4 })
    local memory = uring.buffer(32)
    assert(r:prepare("provide_buffers", memory, 8, 4, 3, 0):await() == 0)
    assert(r:stats().bytes_lent == 32)
    assert(uring.prepare("send", b, "hello"):await() == 5)
    local n, id = r:prepare("recv", a, nil, { buffer_group = 3 }):await()
    assert(n == 5 and memory:get(8 * id + 1, 8 * id + 5) == "hello")
    assert(r:prepare("remove_buffers", 4, 3):await() == 3)
    assert(r:stats().bytes_lent == 0 and memory:status() == "owned")
  ]])

  sweeps("the default ring", [[
    uring.close()
    assert(uring.op.nop() == 0)
    assert(uring.prepare("nop"):await() == 0)
    uring.spawn(function() uring.sleep(60) end)
    uring.spawn(function() uring.op.timeout(60) end)
    uring.yield()
    uring.close()
    uring.yield()
  ]], "uring.close()")

  sweeps("a task on a by-hand ring", [[
    local r <close> = assert(uring.ring { entries = 4 })
    uring.run(function()
      local a = uring.spawn(function() return r:prepare("timeout", 0.0001):await() end)
      local b = uring.spawn(function() return r:prepare("nop"):await() end)
      assert(a:await() == 0 and b:await() == 0)
    end)
  ]])

  sweeps("dropped rings, handles and buffers", [[
    local fds <close> = descriptors()
    fds[1], fds[2] = core.pipe()
    local rd = fds[1]
    do
      local r = assert(uring.ring { entries = 4 })
      for i = 1, 10 do
        r:prepare("read", rd, uring.buffer(10), 10)
        uring.prepare("openat", nil, path, const.O_CLOEXEC)
      end
      r:submit()
      uring.submit()
    end
    collectgarbage()
    uring.yield()
  ]])

  sweeps("listening, serving and connecting to any of several addresses", [[
    local why
    uring.run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local name = "localhost:" .. listener:address():match ":(%d+)$"
      local serving = uring.spawn(listener.serve, listener, function(stream)
        stream:write(stream:read(), "\n")
      end, { on_error = function(err) why = err end })
      local client <close> = assert(uring.connect(name))
      assert(client:write "x\n")
      local answer = client:timeout(0.5):read()
      listener:shutdown(0)
      assert(answer == "x", why or "memory ran out where that was to be told")
      serving:await()
    end)
  ]])

  sweeps("names", [[
    uring.run(function()
      assert(uring.resolve("127.0.0.1", "http")[1] == "127.0.0.1:80")
      assert(uring.resolve("127.0.0.1", 80, { timeout = 5 })[1] == "127.0.0.1:80")
    end)
  ]])

  sweeps("datagrams", [[
    uring.run(function()
      local a <close>, why = uring.udp { "127.0.0.1:0", size = 500, buffers = 2 }
      local b <close>, why_not = uring.udp()
      assert(a, why)
      assert(b, why_not)
      assert(b:send("one", a:address()))
      assert(a:recv(1) == "one")
      assert(b:send("two", a:address()))
      assert(a:datagrams()() == "two")
      assert(b:send("three", a:address()))
      assert(a:recv() == "three")
    end)
  ]])

  sweeps("descriptors through a socket", [[
    uring.run(function()
      local a <close>, b = assert(uring.socketpair())
      local b <close> = b
      assert(a:send_fds("x", { a, b }))
      local data, list = b:recv_fds(3)
      assert(data == "x", list)
      local one <close> = list[1]
      local two <close> = list[2]
      assert(one:write "over one" and two:fd() > 0)
    end)
  ]])

  sweeps("a transfer", [[
    uring.run(function()
      local a <close>, b = assert(uring.socketpair())
      local b <close> = b
      local c <close>, d = assert(uring.socketpair())
      local d <close> = d
      assert(a:write(("x"):rep(40000)))
      assert(a:shutdown())
      local n, why = uring.transfer(b, c, { shutdown = true })
      assert(n == 40000, why)
      assert(#assert(d:read(40000)) == 40000)
    end)
  ]])

  for mode, times in pairs(modes) do
    it(("loading: any request of it failing %s"):format(mode), function()
      local output, status = script(([[
        local testkit = require "testkit"
        local loaded = {}
        for name in pairs(package.loaded) do loaded[name] = true end
        local fds = testkit.fds()
        local n, uring = 1
        local fail = testkit.fail_allocation
        repeat
          for name in pairs(package.loaded) do
            if not loaded[name] then package.loaded[name] = nil end
          end
          fail(n, %d)
          local ok, result = pcall(require, "uring")
          local seen = fail(0)
          if not ok and not result:find "memory" then
            error("request " .. n .. ": " .. result, 0)
          end
          uring = ok and result
          n = n + %d
        until ok and n > seen
        assert(uring.op.nop() == 0)
        assert(uring.run(function() uring.sleep(0.001) return "ran" end) == "ran")
        uring.close()
        collectgarbage()
        assert(testkit.fds() == fds)
        print "loaded"
      ]]):format(times, STEP), PREFIX)
      assert.are.equal("loaded\n", output)
      assert.are.equal(0, status)
    end)
  end
end)
