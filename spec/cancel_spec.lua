-- Cancelling operations and tasks at every step.  Whatever the order of
-- things, an operation ends once, with its result or as cancelled; a result
-- that was faster is delivered; and memory is back before anybody goes on.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local errno, const = uring.errno, uring.const
local fds = helper.testkit.fds

local pipe, listen, new_ring, close_opened = opened.pipe, opened.listen, opened.ring, opened.close
local collect, eventually = helper.collect, helper.eventually

-- Turns a ring a few times without waiting for anything of others.
local function turn(ring, times)
  for _ = 1, times or 1 do
    if ring then
      ring:prepare("nop"):await()
    else
      uring.yield()
    end
  end
end

-- Reads what is in a pipe now, "" where there is nothing.
local function drain(fd)
  local b <close> = uring.buffer(4096)
  local op = uring.prepare("read", fd, b)
  uring.submit()
  uring.yield()
  local outcome, n = op:cancel():await()
  return outcome == "completed" and b:get(1, n) or ""
end

-- Reads what must be there; raises where it was lost, instead of waiting.
local function take(fd, buffer)
  local op = uring.prepare("read", fd, buffer)
  for _ = 1, 200 do
    if op:status() == "done" then
      return op:await()
    end
    uring.sleep(0.001)
  end
  op:cancel():await()
  error("the data was lost", 2)
end

local function fifo()
  local path = helper.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  return path
end

describe("cancelling", function()
  helper.watch(before_each, function(check)
    after_each(function()
      helper.cleanup()
      close_opened()
      check()
    end)
  end)

  setup(function()
    math.randomseed(3)
  end)

  describe("an operation", function()
    it("that is prepared: the kernel never sees it", function()
      local r, w = pipe()
      uring.op.write(w, "data")
      local b = uring.buffer(8)
      local op = uring.prepare("read", r, b)
      assert.are.equal("prepared", op:status())
      local c = op:cancel()
      assert.are.equal("cancelling", op:status())
      assert.are.equal("cancelling", c:status())
      assert.are.equal("cancelled", c:await())
      assert.are.equal("done", op:status())
      assert.are.equal("owned", b:status())
      assert.are.equal("data", drain(r))
    end)

    it("that waits in the backlog, first, last and in between", function()
      local output, status = helper.script([[
        local uring = require "uring"
        local r, w = uring.pipe()
        local ring = uring.ring { entries = 2, backlog = 64 }
        for _, victim in ipairs { 3, 4, 10, 19, 20 } do
          local ops, buffers = {}, {}
          for i = 1, 20 do
            buffers[i] = uring.buffer(1)
            ops[i] = ring:prepare("read", r:fd(), buffers[i])
          end
          assert(ring:stats().backlog >= 16)
          assert(ops[victim]:status() == "prepared")
          local c = ops[victim]:cancel()
          assert(ops[victim]:status() == "cancelling")
          assert(c:await() == "cancelled")
          assert(buffers[victim]:status() == "owned")
          assert(w:write(("x"):rep(19)))
          for i = 1, 20 do
            if i ~= victim then
              assert(ops[i]:await() == 1)
              assert(buffers[i]:get() == "x")
            end
          end
          assert(buffers[victim]:get() == "\0")
          assert(w:write "end")
          assert(r:read(3) == "end") -- nothing was left of the others
        end
        print(ring:stats().in_flight, ring:stats().backlog, ring:stats().bytes_lent)
      ]], "timeout 10")
      assert.are.equal("0\t0\t0\n", output)
      assert.are.equal(0, status)
    end)

    it("that waits in the backlog while what stands before it never ends", function()
      local output, status = helper.script([[
        local uring = require "uring"
        local ring = uring.ring { entries = 2 }
        local silent, _keeps_it_open = uring.pipe()
        local r, w = uring.pipe()
        w:write "x"
        local a = ring:prepare("read", silent:fd(), uring.buffer(1))
        local b = ring:prepare("read", silent:fd(), uring.buffer(1))
        local c = ring:prepare("read", r:fd(), uring.buffer(1))
        print(c:await(), a:status(), b:status())
      ]], "timeout 10")
      assert.are.equal("1\tsubmitted\tsubmitted\n", output)
      assert.are.equal(0, status)
    end)

    it("that is all there is, in the backlog as a whole", function()
      local r, w = pipe()
      local ring = new_ring { entries = 2, backlog = 500 }
      local ops = {}
      for i = 1, 300 do
        ops[i] = ring:prepare("read", r, uring.buffer(1))
      end
      for i = 300, 1, -1 do
        ops[i]:cancel()
      end
      uring.op.write(w, "x")
      for i = 1, 300 do
        local n, _, code = ops[i]:await()
        assert.is_nil(n)
        assert.are.equal(errno.ECANCELED, code)
      end
      assert.are.equal(300, ring:stats().cancelled)
      assert.are.equal("x", drain(r))
    end)

    it("that is submitted", function()
      local r, w = pipe()
      local b = uring.buffer "unchanged"
      local op = uring.prepare("read", r, b)
      uring.submit()
      turn()
      assert.are.equal("submitted", op:status())
      local c = op:cancel()
      assert.are.equal("cancelling", op:status())
      assert.are.equal("lent", b:status())
      assert.are.equal("cancelled", c:await())
      assert.are.equal("done", c:status())
      uring.op.write(w, "data")
      assert.are.equal("unchanged", b:get())
      assert.are.equal("data", drain(r))
    end)

    it("that has completed unseen: its result is delivered", function()
      local r, w = pipe()
      uring.op.write(w, "data")
      local b = uring.buffer(8)
      local op = uring.prepare("read", r, b)
      uring.submit() -- the completion is there, nobody has looked
      assert.are.equal("submitted", op:status())
      assert.are.same({ "completed", 4 }, { op:cancel():await() })
      assert.are.equal("data", b:get(1, 4))
      assert.are.equal(4, op:await())
      assert.are.equal("", drain(r))
    end)

    it("that is done: its result is delivered", function()
      local r, w = pipe()
      uring.op.write(w, "data")
      local b = uring.buffer(8)
      local op = uring.prepare("read", r, b)
      assert.are.equal(4, op:await())
      local before = uring.stats().cancelled
      local c = op:cancel()
      assert.are.equal("done", op:status())
      assert.are.equal("done", c:status())
      assert.are.same({ "completed", 4 }, { c:await() })
      assert.are.same({ "completed", 4 }, { c:await() })
      assert.are.equal(before, uring.stats().cancelled)
    end)

    it("that has failed: its failure is the result", function()
      local r = pipe()
      local op = uring.prepare("write", r, "x")
      uring.submit()
      assert.are.same({ "completed", nil, "write: Bad file descriptor", errno.EBADF }, { op:cancel():await() })
    end)

    it("adds what the opcode adds", function()
      local op = uring.prepare("statx", nil, "/dev/null")
      uring.submit()
      eventually(function() return op:status() == "done" end)
      local outcome, result, stat = op:cancel():await()
      assert.are.equal("completed", outcome)
      assert.are.equal(0, result)
      assert.are.equal("char", stat.type)
    end)

    it("twice, thrice: one cancellation, and each object tells", function()
      local r = pipe()
      for _, submitted in ipairs { false, true } do
        local before = uring.stats()
        local op = uring.prepare("read", r, uring.buffer(8))
        if submitted then
          uring.submit()
        end
        local first, second = op:cancel(), op:cancel()
        turn()
        local third = op:cancel()
        for _, c in ipairs { third, first, second, first } do
          assert.are.equal("cancelled", c:await())
        end
        local n, message, code = op:await()
        assert.is_nil(n)
        assert.are.equal("read: Operation canceled", message)
        assert.are.equal(errno.ECANCELED, code)
        local after = uring.stats()
        assert.are.equal(before.cancelled + 1, after.cancelled)
        assert.are.equal(before.completed + 1, after.completed)
        assert.are.equal(before.unknown, after.unknown)
      end
    end)

    it("is safe to ask for and forget", function()
      local r, w = pipe()
      for i = 1, helper.times(200) do
        local op = uring.prepare("read", r, uring.buffer(8))
        if i % 2 == 0 then
          uring.submit()
        end
        op:cancel()
        op = nil -- luacheck: ignore
        if i % 7 == 0 then
          collectgarbage()
        end
      end
      collect()
      eventually(function() return uring.stats().in_flight == 0 and uring.stats().bytes_lent == 0 end)
      uring.op.write(w, "x")
      assert.are.equal("x", drain(r))
    end)

    it("keeps the cancellation's handle alive", function()
      local r = pipe()
      local before = uring.stats().orphaned
      local c
      do
        local op = uring.prepare("read", r, uring.buffer(8))
        uring.submit()
        c = op:cancel()
      end
      collect()
      assert.are.equal("cancelled", c:await())
      assert.are.equal(before, uring.stats().orphaned)
    end)

    it("shows the reason by tostring", function()
      local r = pipe()
      local op = uring.prepare("read", r, uring.buffer(8))
      local c = op:cancel()
      assert.are.equal("cancellation (read, cancelling)", tostring(c))
      c:await()
      assert.are.equal("cancellation (read, done)", tostring(c))
      assert.matches("^operation %(read, done, ", tostring(op))
    end)

    it("of every kind", function()
      local r, w = pipe()
      local listener = listen()
      local a, z = uring.socketpair()
      opened.keep(a)
      opened.keep(z)
      uring.op.write(w, ("x"):rep(1 << 20)) -- as much as it takes
      for _, call in ipairs {
        { "read", a:fd(), uring.buffer(8) };
        { "readv", a:fd(), { uring.buffer(8), uring.buffer(8) } };
        { "recv", z:fd(), uring.buffer(8) };
        { "recvmsg", z:fd(), { data = uring.buffer(8) } };
        { "write", w, "x" };
        { "writev", w, { "x", uring.buffer "y" } };
        { "poll_add", z:fd(), const.POLLIN };
        { "accept", listener };
        { "timeout", 3600 };
        { "raw", { opcode = const.IORING_OP_READ, fd = z:fd(), addr = uring.buffer(8) } };
      } do
        for _, submitted in ipairs { false, true } do
          local op = uring.prepare(table.unpack(call))
          if submitted then
            uring.submit()
            turn()
            assert.are.equal("submitted", op:status(), call[1])
          end
          assert.are.equal("cancelled", op:cancel():await(), call[1])
          local n, _, code = op:await()
          assert.is_nil(n)
          assert.are.equal(errno.ECANCELED, code, call[1])
        end
      end
      assert.are.equal(0, uring.stats().bytes_lent)
      assert.is_true(#drain(r) > 0)
    end)

    it("that a worker of the kernel carries out: blocked in open", function()
      local path = fifo()
      local before = fds()
      for _ = 1, 3 do
        local op = uring.prepare("openat", nil, path, const.O_RDONLY, 0, { async = true })
        uring.submit()
        uring.sleep(0.01)
        assert.are.equal("submitted", op:status())
        assert.are.equal("cancelled", op:cancel():await())
        assert.are.same({ nil, "openat: Operation canceled", errno.ECANCELED }, { op:await() })
      end
      uring.run(function()
        local task = uring.spawn(uring.op.openat, nil, path, const.O_RDONLY, 0, { async = true })
        uring.sleep(0.01)
        task:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
      end)
      assert.are.equal(before, fds())
    end)

    it("that a worker carries out, and that comes back in time", function()
      local path = fifo()
      local reader = uring.prepare("openat", nil, path, const.O_RDONLY, 0, { async = true })
      uring.submit()
      uring.sleep(0.01)
      local writer = assert(uring.op.openat(nil, path, const.O_WRONLY))
      eventually(function() return reader:status() == "done" end)
      local outcome, fd = reader:cancel():await()
      assert.are.equal("completed", outcome)
      assert.are.equal(0, uring.op.close(fd))
      assert.are.equal(0, uring.op.close(writer))
    end)

    it("that stands before, behind or is one to be drained", function()
      local output, status = helper.script([[
        local uring = require "uring"
        local r, w = uring.pipe()
        for _, order in ipairs { "123", "132", "213", "231", "312", "321" } do
          local ops = {
            uring.prepare("read", r:fd(), uring.buffer(8));
            uring.prepare("nop", { drain = true });
            uring.prepare("read", r:fd(), uring.buffer(8));
          }
          uring.submit()
          uring.yield()
          for digit in order:gmatch "%d" do
            local op = ops[tonumber(digit)]
            op:cancel()
            for _ = 1, 50 do
              if op:status() == "done" then break end
              uring.sleep(0.001)
            end
            if op:status() ~= "done" then
              print(order, digit, op:status())
              os.exit(1)
            end
          end
        end
        print(uring.stats().in_flight, uring.stats().backlog, uring.stats().bytes_lent)
      ]], "timeout 10")
      assert.are.equal("0\t0\t0\n", output)
      assert.are.equal(0, status)
    end)

    it("by the operation `cancel`", function()
      local r = pipe()
      local op = uring.prepare("read", r, uring.buffer(8))
      uring.submit()
      assert.are.equal(0, uring.prepare("cancel", op):await())
      local n, _, code = op:await()
      assert.is_nil(n)
      assert.are.equal(errno.ECANCELED, code)
      assert.are.same({ nil, "cancel: No such file or directory", errno.ENOENT }, { uring.op.cancel(op) })
    end)

    it("of a multishot operation ends its results", function()
      local r, w = pipe()
      local op = uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
      uring.submit()
      uring.op.write(w, "x")
      assert.are.equal(const.POLLIN, op:await())
      op:cancel()
      local count = 0
      for _ in op:results() do
        count = count + 1
      end
      assert.is_true(count <= 1)
      assert.are.equal("done", op:status())
      assert.are.equal("x", drain(r))
    end)
  end)

  describe("a handle that was closed", function()
    it("cancels, and waits until the memory is back", function()
      local r, w = pipe()
      local b = uring.buffer(8)
      do
        local _op <close> = uring.prepare("read", r, b)
        uring.submit()
        assert.are.equal("lent", b:status())
      end
      assert.are.equal("owned", b:status())
      uring.op.write(w, "x")
      assert.are.equal("x", drain(r))
    end)

    it("can be awaited again, whatever it was", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local saved = {}
        local function ended(...)
          local op <close> = uring.prepare(...)
          saved[#saved + 1] = op
          uring.submit()
          for _ = 1, 200 do
            if op:status() == "done" then break end
            uring.sleep(0.005)
          end
        end
        local function awaited(...)
          local op <close> = uring.prepare(...)
          saved[#saved + 1] = op
          op:await()
        end
        ended("statx", nil, "/")
        awaited("statx", nil, "/")
        ended("openat", nil, "/dev/null")
        local l = uring.listen "127.0.0.1:0"
        local clients = { uring.connect(l:address()), uring.connect(l:address()) }
        ended("accept", l:fd())
        awaited("accept", l:fd())
        local a, z = uring.socketpair()
        a:write "xy"
        ended("recvmsg", z:fd(), { data = uring.buffer(1) })
        awaited("recvmsg", z:fd(), { data = uring.buffer(1) })
        for _, op in ipairs(saved) do
          op:await()
          op:cancel():await()
          op:await()
          assert(op:status() == "done")
        end
        -- the descriptor of one whose result nobody took is closed, so its
        -- number is nothing to hand out
        local fd = saved[3]:await()
        assert(fd == nil, "a closed descriptor was handed out")
        print "done"
      ]]
      assert.are.equal("done\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("a race", function()
    it("with data that comes: it is read or it is left, never both, never neither", function()
      local r, w = pipe()
      local counts = { completed = 0, cancelled = 0 }
      uring.run(function()
        for i = 1, helper.times(400) do
          local sent = ("%08d"):format(i)
          local b = uring.buffer(8)
          local op = uring.prepare("read", r, b)
          local writer = uring.spawn(function()
            for _ = 1, math.random(0, 3) do
              uring.yield()
            end
            assert.are.equal(8, uring.op.write(w, sent))
          end)
          if math.random(2) == 1 then
            uring.submit()
          end
          for _ = 1, math.random(0, 4) do
            uring.yield()
          end
          local outcome, n = op:cancel():await()
          counts[outcome] = counts[outcome] + 1
          assert.are.equal("owned", b:status())
          writer:await()
          if outcome == "completed" then
            assert.are.equal(8, n)
            assert.are.equal(sent, b:get())
          else
            assert.are.equal(8, take(r, b))
            assert.are.equal(sent, b:get())
          end
        end
      end)
      assert.are.equal("", drain(r))
      assert.is_true(counts.completed > 0 and counts.cancelled > 0)
    end)

    it("with data from elsewhere, on a ring of its own", function()
      local r, w = pipe()
      local ring = new_ring()
      for i = 1, helper.times(300) do
        local b = uring.buffer(8)
        local op = ring:prepare("read", r, b)
        if i % 3 ~= 0 then ring:submit() end
        local sent = ("%08d"):format(i)
        if i % 2 == 0 then
          uring.op.write(w, sent)
          if i % 4 == 0 then ring:submit() end
        end
        local outcome, n = op:cancel():await()
        if i % 2 ~= 0 then
          assert.are.equal("cancelled", outcome)
          uring.op.write(w, sent)
        end
        if outcome == "completed" then
          assert.are.equal(8, n)
          assert.are.equal(sent, b:get())
          assert.are.equal("", drain(r))
        else
          assert.are.equal(sent, drain(r))
        end
      end
    end)

    it("with a connection: the descriptor is handed out or closed", function()
      local listener, address = listen()
      local other = new_ring()
      local before = fds()
      for i = 1, helper.times(60) do
        local op = uring.prepare("accept", listener)
        if i % 3 > 0 then uring.submit() end
        local client = assert(other:prepare("socket", const.AF_INET, const.SOCK_STREAM):await())
        assert.are.equal(0, other:prepare("connect", client, address):await())
        if i % 3 > 1 then uring.submit() end
        local c = op:cancel()
        if i % 2 == 0 then op = nil end -- luacheck: ignore
        local outcome, fd = c:await()
        if outcome == "cancelled" then
          fd = assert(uring.op.accept(listener))
        end
        assert.are.equal(before + 2, fds())
        uring.op.close(fd)
        uring.op.close(client)
        assert.are.equal(before, fds())
      end
    end)
  end)

  describe("too late", function()
    it("does not hit the operation that has the slot now", function()
      local r1, w1 = pipe()
      local r2, w2 = pipe()
      local kept = {}
      for i = 1, helper.times(200) do
        uring.op.write(w1, "x")
        local first = uring.prepare("read", r1, uring.buffer(1))
        uring.submit()
        local c1 = i % 2 == 0 and first:cancel()
        assert.are.equal(1, first:await())
        local b = uring.buffer(8)
        local second = uring.prepare("read", r2, b)
        local c2 = first:cancel()
        if i % 3 == 0 then uring.submit() end
        local c3 = first:cancel()
        turn(nil, 2)
        assert.are.equal("submitted", second:status())
        assert.are.equal("lent", b:status())
        kept[#kept + 1] = first
        for _, old in ipairs(kept) do
          old:cancel()
        end
        assert.are.equal(errno.ENOENT, (select(3, uring.op.cancel(first))))
        turn()
        assert.are.equal("submitted", second:status())
        uring.op.write(w2, "y")
        assert.are.equal(1, second:await())
        for _, c in ipairs { c2, c3, c1 or nil } do
          assert.are.same({ "completed", 1 }, { c:await() })
        end
        if #kept == 10 then kept = {} end
      end
    end)

    it("does not hit it, though the kernel comes to the request later", function()
      local r1, w1 = pipe()
      local r2, w2 = pipe()
      local ring = new_ring()
      local moment = uring.buffer(string.pack("<i8i8", 0, 20000000)) -- a timespec: 20 ms
      local first = ring:prepare("read", r1, uring.buffer(1))
      ring:submit()
      -- the request waits in the kernel, behind a timeout
      local wait = ring:prepare("raw", {
        opcode = const.IORING_OP_TIMEOUT, fd = -1, addr = moment, len = 1, flags = const.IOSQE_IO_HARDLINK;
      })
      local late = ring:prepare("cancel", first)
      ring:submit()
      uring.op.write(w1, "x")
      assert.are.equal(1, first:await())
      local seconds = {}
      for i = 1, 4 do -- one of them has the slot now
        seconds[i] = ring:prepare("read", r2, uring.buffer(1))
      end
      ring:submit()
      assert.are.equal("submitted", late:status())
      assert.are.same({ nil, "cancel: No such file or directory", errno.ENOENT }, { late:await() })
      assert.are.equal(errno.ETIME, (select(3, wait:await())))
      turn(ring)
      for i = 1, 4 do
        assert.are.equal("submitted", seconds[i]:status())
      end
      uring.op.write(w2, "yyyy")
      for i = 1, 4 do
        assert.are.equal(1, seconds[i]:await())
      end
    end)

    it("does not hit it when the first was cancelled, either", function()
      local r, w = pipe()
      local ring = new_ring()
      for _ = 1, helper.times(200) do
        local first = ring:prepare("read", r, uring.buffer(1))
        ring:submit()
        local c = first:cancel()
        assert.are.equal("cancelled", c:await())
        local b = uring.buffer(1)
        local second = ring:prepare("read", r, b)
        ring:submit()
        first:cancel()
        c = first:cancel()
        turn(ring, 2)
        assert.are.equal("submitted", second:status())
        assert.are.equal("cancelled", c:await())
        uring.op.write(w, "z")
        assert.are.equal(1, second:await())
        assert.are.equal("z", b:get())
      end
    end)
  end)

  describe("a task", function()
    -- What a cancelled task's await raises, as pcall sees it.
    local function is_cancelled(ok, err)
      return not ok and err == uring.cancelled
    end

    -- Everything that a task can wait for; none of it ends by itself.
    local r, w, ring, path, sleeper
    before_each(function()
      r, w = pipe()
      ring = new_ring()
      path = fifo()
      sleeper = nil
    end)

    local function forever()
      uring.sleep(3600)
    end

    local function reading()
      return uring.prepare("read", r, uring.buffer(8))
    end

    local function polling()
      return uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
    end

    local waits = {
      { "an operation without a handle", function() return uring.op.read(r, uring.buffer(8)) end };
      { "an operation's handle", function() return reading():await() end };
      { "an operation through uring.await", function() return uring.await(reading()) end };
      { "the first of two operations", function() return uring.await(reading(), uring.prepare "nop") end };
      { "the second of two operations", function() return uring.await(uring.prepare "nop", reading()) end };
      { "an operation of another ring", function() return ring:prepare("read", r, uring.buffer(8)):await() end };
      { "a multishot operation", function() return polling():await() end };
      { "the results of a multishot operation", function()
        local count = 0
        for _ in polling():results() do
          count = count + 1
        end
        return count
      end };
      { "a worker of the kernel", function() return uring.op.openat(nil, path, 0, 0, { async = true }) end };
      { "a timer", forever };
      { "a timeout of the kernel", function() return uring.op.timeout(3600) end };
      { "another task", function()
        sleeper = uring.spawn(forever)
        return sleeper:await()
      end };
      { "a run inside", function() return uring.run(forever) end };
    }

    for _, case in ipairs(waits) do
      local name, wait = case[1], case[2]

      it("that waits for " .. name .. " ends as cancelled", function()
        local before = uring.stats()
        local log = {}
        uring.run(function()
          local task = uring.spawn(function()
            local _guard <close> = setmetatable({}, { __close = function(_, err)
              log[#log + 1] = err == uring.cancelled and "closed" or tostring(err)
            end })
            wait()
            log[#log + 1] = "went on"
          end)
          uring.sleep(0.005)
          assert.are.equal("waiting", task:status())
          task:cancel()
          task:cancel()
          log[#log + 1] = "asked"
          assert.is_true(is_cancelled(pcall(task.await, task)))
          assert.are.equal("cancelled", task:status())
          if sleeper then -- to wait for a task is not to own it
            assert.are.equal("waiting", sleeper:status())
            sleeper:cancel()
          end
        end)
        assert.are.same({ "asked", "closed" }, log)
        collect()
        eventually(function() return uring.stats().in_flight == 0 end)
        local after = uring.stats()
        assert.are.equal(before.bytes_lent, after.bytes_lent)
        assert.are.equal(before.timers, after.timers)
        assert.are.equal(0, ring:stats().in_flight)
        assert.are.equal(0, ring:stats().bytes_lent)
      end)

      it("that waits for " .. name .. " may catch it, and gets it again", function()
        local log = {}
        local function note(ok, err)
          log[#log + 1] = is_cancelled(ok, err) and "cancelled" or tostring(err)
        end
        uring.run(function()
          local task = uring.spawn(function()
            note(pcall(wait))
            note(pcall(uring.sleep, 0))
            note(pcall(uring.yield))
            note(pcall(uring.op.nop))
            note(pcall(uring.op.read, r, uring.buffer(8)))
            local op <const> = reading()
            note(pcall(op.await, op))
            op:cancel()
            return "its own result"
          end)
          uring.sleep(0.005)
          task:cancel()
          assert.are.equal("its own result", task:await())
          assert.are.equal("returned", task:status())
          if sleeper then
            sleeper:cancel()
          end
        end)
        assert.are.same({ "cancelled", "cancelled", "cancelled", "cancelled", "cancelled", "cancelled" }, log)
      end)
    end

    it("never runs if it has not yet", function()
      local ran = false
      uring.run(function()
        local task = uring.spawn(function() ran = true end)
        assert.are.equal("ready", task:status())
        task:cancel()
        assert.is_true(is_cancelled(pcall(task.await, task)))
        assert.are.equal("cancelled", task:status())
        uring.yield()
      end)
      local outside = uring.spawn(function() ran = true end)
      outside:cancel()
      assert.is_true(is_cancelled(pcall(outside.await, outside)))
      assert.is_false(ran)
    end)

    it("that has ended stays as it ended", function()
      uring.run(function()
        local task = uring.spawn(function() return 1, nil, 3 end)
        assert.are.same({ 1, nil, 3 }, { task:await() })
        task:cancel()
        task:cancel()
        assert.are.equal("returned", task:status())
        assert.are.same({ 1, nil, 3 }, { task:await() })
      end)
    end)

    it("gives back what it lent before it unwinds", function()
      local seen = {}
      local b, v1, v2 = uring.buffer(8), uring.buffer(8), uring.buffer(8)
      uring.run(function()
        local tasks = {
          uring.spawn(function()
            local _guard <close> = setmetatable({}, { __close = function()
              seen[#seen + 1] = b:status() .. b:get()
            end })
            uring.op.read(r, b)
          end);
          uring.spawn(function()
            local ok = pcall(uring.op.readv, r, { v1, v2 })
            seen[#seen + 1] = tostring(ok) .. v1:status() .. v2:status()
          end);
          uring.spawn(function()
            local c = uring.buffer "12345678"
            local op = ring:prepare("read", r, c)
            local ok = pcall(op.await, op)
            seen[#seen + 1] = tostring(ok) .. c:status() .. op:status() .. c:get()
          end);
        }
        uring.sleep(0.005)
        assert.are.equal("lentlentlent", b:status() .. v1:status() .. v2:status())
        for _, task in ipairs(tasks) do
          task:cancel()
        end
        assert.are.equal("lentlentlent", b:status() .. v1:status() .. v2:status())
        for _, task in ipairs(tasks) do
          pcall(task.await, task)
        end
      end)
      table.sort(seen)
      assert.are.same({ "falseowneddone12345678", "falseownedowned", "owned" .. ("\0"):rep(8) }, seen)
      uring.op.write(w, "kept")
      assert.are.equal("kept", drain(r))
    end)

    it("unwinds its <close> variables, innermost first, and they cannot await", function()
      local log = {}
      local function guard(name)
        return setmetatable({}, { __close = function(_, err)
          log[#log + 1] = name .. tostring(err == uring.cancelled)
          local ok, again = pcall(uring.sleep, 0.001)
          log[#log + 1] = is_cancelled(ok, again)
        end })
      end
      uring.run(function()
        local task = uring.spawn(function()
          local _a <close> = guard "a"
          local _b <close> = guard "b"
          do
            local _c <close> = guard "c"
            forever()
          end
        end)
        uring.yield()
        task:cancel()
        pcall(task.await, task)
      end)
      assert.are.same({ "ctrue", true, "btrue", true, "atrue", true }, log)
    end)

    it("may await inside shield while it unwinds", function()
      local log = {}
      uring.run(function()
        local b = uring.buffer(8)
        local task = uring.spawn(function()
          local _guard <close> = setmetatable({}, { __close = function(_, err)
            log[#log + 1] = err == uring.cancelled
            log[#log + 1] = uring.shield(function(goodbye)
              uring.sleep(0.002)
              assert(uring.op.write(w, goodbye))
              return (uring.op.read(r, b))
            end, "goodbye")
            log[#log + 1] = b:get(1, 7)
            log[#log + 1] = is_cancelled(pcall(uring.sleep, 0))
          end })
          forever()
        end)
        uring.yield()
        task:cancel()
        assert.is_true(is_cancelled(pcall(task.await, task)))
      end)
      assert.are.same({ true, 7, "goodbye", true }, log)
    end)

    it("is held back while it is inside shield, by an error too", function()
      local log = {}
      uring.run(function()
        local b = uring.buffer(8)
        local task = uring.spawn(function()
          log[#log + 1] = uring.shield(function() return (uring.op.read(r, b)) end)
          log[#log + 1] = is_cancelled(pcall(uring.yield))
          log[#log + 1] = select(2, pcall(uring.shield, function()
            uring.yield()
            error("oops", 0)
          end))
          -- failures inside are failures, and not taken for the cancellation
          log[#log + 1] = uring.shield(function()
            local op = uring.prepare("read", w, uring.buffer(1))
            return select(3, uring.op.read(w, b)) + select(3, op:await())
          end)
          log[#log + 1] = is_cancelled(pcall(uring.op.nop))
        end)
        uring.sleep(0.002)
        task:cancel()
        uring.sleep(0.002)
        assert.are.equal("waiting", task:status())
        assert.are.equal("lent", b:status())
        uring.op.write(w, "data")
        task:await()
      end)
      assert.are.same({ 4, true, "oops", 2 * errno.EBADF, true }, log)
    end)

    it("gets a result that was faster, and is cancelled at its next await", function()
      local log = {}
      uring.run(function()
        local b = uring.buffer(8)
        local task
        task = uring.spawn(function()
          log[#log + 1] = uring.op.read(r, b)
          log[#log + 1] = b:get(1, 4)
          local ok, err = pcall(uring.op.read, r, b)
          log[#log + 1] = is_cancelled(ok, err)
        end)
        uring.yield()
        uring.op.write(w, "data")
        -- in the same turn as the result, whoever runs first
        task:cancel()
        pcall(task.await, task)
      end)
      assert.are.same(log[1] and { 4, "data", true } or {}, log)
      assert.are.equal(log[1] and "" or "data", drain(r))
    end)

    local readers = {
      ["without a handle"] = function(b) return uring.op.read(r, b) end;
      ["with a handle"] = function(b) return uring.prepare("read", r, b):await() end;
      ["on a ring of its own"] = function(b) return ring:prepare("read", r, b):await() end;
    }

    for how, read in pairs(readers) do
      it("loses no data in a race, however it ends, " .. how, function()
        local counts = { read = 0, left = 0 }
        uring.run(function()
          for i = 1, helper.times(300) do
            local sent = ("%08d"):format(i)
            local b = uring.buffer(8)
            local got
            local task = uring.spawn(function() got = read(b) end)
            local writer = uring.spawn(function()
              for _ = 1, math.random(0, 3) do
                uring.yield()
              end
              uring.op.write(w, sent)
            end)
            for _ = 1, math.random(0, 5) do
              uring.yield()
            end
            task:cancel()
            pcall(task.await, task)
            assert.are.equal("owned", b:status())
            writer:await()
            counts[got and "read" or "left"] = counts[got and "read" or "left"] + 1
            if not got then
              assert.are.equal(8, take(r, b))
            end
            assert.are.equal(sent, b:get())
          end
        end)
        assert.are.equal("", drain(r))
        assert.is_true(counts.read > 0 and counts.left > 0)
      end)
    end

    it("gets the result of a handle that had come unseen", function()
      uring.op.write(w, "data")
      local b = uring.buffer(8)
      local got, err
      uring.run(function()
        local op = uring.prepare("read", r, b)
        local task = uring.spawn(function()
          got = op:await()
          err = select(2, pcall(uring.sleep, 0))
        end)
        uring.spawn(function() -- runs after it, in the same turn
          uring.submit()
          task:cancel()
        end)
        task:await()
      end)
      assert.are.equal(4, got)
      assert.are.equal("data", b:get(1, 4))
      assert.are.equal(uring.cancelled, err)
    end)

    it("takes a descriptor that came at the last moment, or none is left open", function()
      local listener, address = listen()
      uring.run(function()
        ring:prepare("nop"):await() -- whatever descriptors that takes
        local before = fds()
        for i = 1, helper.times(60) do
          local fd
          local task = uring.spawn(function() fd = uring.op.accept(listener) end)
          local client
          if i % 3 == 0 then uring.yield() end
          client = assert(ring:prepare("socket", const.AF_INET, const.SOCK_STREAM):await())
          ring:prepare("connect", client, address):await()
          if i % 2 == 0 then uring.yield() end
          task:cancel()
          pcall(task.await, task)
          if not fd then
            fd = assert(uring.op.accept(listener))
          end
          assert.are.equal(before + 2, fds())
          uring.op.close(fd)
          uring.op.close(client)
          assert.are.equal(before, fds())
        end
      end)
    end)

    it("that cancels itself goes on to its next await", function()
      local log = {}
      uring.run(function()
        local task = uring.spawn(function()
          uring.current():cancel()
          log[#log + 1] = "here"
          local ok, err = pcall(uring.op.nop)
          log[#log + 1] = is_cancelled(ok, err)
          uring.sleep(0)
          log[#log + 1] = "never"
        end)
        assert.is_true(is_cancelled(pcall(task.await, task)))
      end)
      assert.are.same({ "here", true }, log)
    end)

    it("that is ready, and not waiting, goes on to its next await", function()
      local log = {}
      uring.run(function()
        local task = uring.spawn(function()
          uring.yield()
          log[#log + 1] = "once more"
          uring.yield()
          log[#log + 1] = "never"
        end)
        uring.yield() -- it has yielded
        assert.are.equal("ready", task:status())
        task:cancel()
        assert.is_true(is_cancelled(pcall(task.await, task)))
      end)
      assert.is_true(#log <= 1)
      assert.are_not.equal("never", log[#log])
    end)

    it("leaves others that await the same task alone", function()
      uring.run(function()
        local slow = uring.spawn(function()
          uring.sleep(0.02)
          return "done"
        end)
        local a = uring.spawn(function() return slow:await() end)
        local b = uring.spawn(function() return slow:await() end)
        uring.yield()
        a:cancel()
        assert.is_true(is_cancelled(pcall(a.await, a)))
        assert.are.equal("waiting", slow:status())
        assert.are.equal("done", b:await())
      end)
    end)

    it("lets the children of a run inside end first", function()
      local log = {}
      uring.run(function()
        local task = uring.spawn(function()
          uring.run(function()
            uring.spawn(function()
              local _guard <close> = setmetatable({}, { __close = function() log[#log + 1] = "child" end })
              uring.op.read(r, uring.buffer(8))
            end)
            forever()
          end)
        end)
        uring.sleep(0.005)
        task:cancel()
        assert.is_true(is_cancelled(pcall(task.await, task)))
        log[#log + 1] = "parent"
      end)
      assert.are.same({ "child", "parent" }, log)
      assert.are.equal(0, uring.stats().bytes_lent)
    end)

    it("that waits for room in the ring goes without", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local r, _keeps_it_open = uring.pipe()
        uring.run(function()
          local ops, full = {}, nil
          local task = uring.spawn(function()
            for i = 1, 20000 do
              ops[i] = uring.prepare("read", r:fd(), uring.buffer(1))
            end
          end)
          while #ops == 0 do uring.yield() end
          task:cancel()
          local ok, err = pcall(task.await, task)
          print(ok, #ops < 20000 and err == uring.cancelled or #ops == 20000)
          for _, op in ipairs(ops) do op:cancel() end
          for _, op in ipairs(ops) do op:await() end
          print(uring.stats().in_flight, uring.stats().bytes_lent)
        end)
      ]]
      assert.matches("^%a+\ttrue\n0\t0\n$", output)
      assert.are.equal(0, status)
    end)

    it("gets through to the end in hundreds, all at once", function()
      local ended = 0
      uring.run(function()
        local tasks = {}
        for i = 1, helper.times(500) do
          tasks[i] = uring.spawn(function()
            local _guard <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
            if i % 2 == 0 then
              uring.op.read(r, uring.buffer(16))
            else
              uring.sleep(i)
            end
          end)
        end
        uring.yield()
        uring.yield()
        for _, task in ipairs(tasks) do
          task:cancel()
        end
        for _, task in ipairs(tasks) do
          assert.is_true(is_cancelled(pcall(task.await, task)))
        end
      end)
      assert.are.equal(helper.times(500), ended)
    end)

    it("wakes whoever awaits operations of one ring, whoever reaps them", function()
      local output, status = helper.script([[
        local uring = require "uring"
        local ring = uring.ring { entries = 8 }
        local r, w = uring.pipe()
        uring.run(function()
          local read = ring:prepare("read", r:fd(), uring.buffer(8))
          ring:submit()
          local a = uring.spawn(function() return read:await() end)
          local b = uring.spawn(function() return ring:prepare("write", w:fd(), "hi"):await() end)
          print(a:await(), b:await())
        end)
      ]], "timeout 5")
      assert.are.equal("2\t2\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("in any order", function()
    -- What can be made to complete later: prepares it on a ring, makes it
    -- completable, and says at the end what came of it.
    local kinds = {
      read = function()
        local r, w = pipe()
        local b = uring.buffer(1)
        return {
          prepare = function(ring) return ring:prepare("read", r, b) end;
          enable = function() assert.are.equal(1, uring.op.write(w, "x")) end;
          -- after the end: `result` of an operation that was not dropped
          check = function(result, enabled, dropped)
            assert.are.equal("owned", b:status())
            local left = drain(r)
            if result then
              assert.are.equal(1, result)
              assert.are.equal("x", b:get())
              assert.are.equal("", left)
            elseif dropped then
              assert.are.equal(enabled and (b:get() == "x" and "" or "x") or "", left)
            else
              assert.are.equal(enabled and "x" or "", left)
              assert.are.equal("\0", b:get())
            end
          end;
        }
      end;
      send = function()
        local a, z = uring.socketpair()
        opened.keep(a)
        opened.keep(z)
        local ok = 0
        repeat -- until it takes no more
          local n = uring.op.send(a:fd(), ("."):rep(65536), nil, const.MSG_DONTWAIT)
          ok = ok + (n or 0)
        until not n
        return {
          prepare = function(ring) return ring:prepare("send", a:fd(), ("s"):rep(100)) end;
          enable = function()
            local b <close> = uring.buffer(1 << 20)
            local got = 0
            while got < ok do
              got = got + assert(uring.op.recv(z:fd(), b))
            end
          end;
          check = function(result, enabled, dropped)
            if not enabled then
              assert.is_nil(result)
              return
            end
            local left = drain(z:fd())
            if result then
              assert.are.equal(100, result)
              assert.are.equal(("s"):rep(100), left)
            elseif not dropped then
              assert.are.equal("", left)
            else
              assert.is_true(left == "" or left == ("s"):rep(100))
            end
          end;
        }
      end;
      accept = function()
        local listener, address = listen()
        local before = fds()
        local other = new_ring { entries = 4 }
        local client
        return {
          prepare = function(ring) return ring:prepare("accept", listener) end;
          enable = function()
            client = assert(other:prepare("socket", const.AF_INET, const.SOCK_STREAM):await())
            assert.are.equal(0, other:prepare("connect", client, address):await())
          end;
          check = function(result)
            if result then
              assert.are.equal(0, uring.op.close(result))
            end
            if client then
              uring.op.close(client)
            end
            other:close()
            eventually(function()
              return fds() == before
            end, "a descriptor leaked")
          end;
        }
      end;
    }

    -- All orders of the steps in which the operation is prepared first of
    -- what concerns it.
    local function orders(steps)
      local all = {}
      local function permute(prefix, rest)
        if #rest == 0 then
          all[#all + 1] = prefix
        end
        for i = 1, #rest do
          if i == 1 or rest[i] ~= rest[i - 1] then
            local head, tail = { table.unpack(prefix) }, { table.unpack(rest) }
            head[#head + 1] = table.remove(tail, i)
            permute(head, tail)
          end
        end
      end
      permute({}, steps)
      local valid = {}
      for _, order in ipairs(all) do
        local at = {}
        for i, step in ipairs(order) do
          at[step] = at[step] or i
        end
        local prepared = at.prepare
        if prepared < (at.cancel or 99) and prepared < (at.drop or 99) and prepared < (at.submit or 99) then
          -- after the drop there is no handle to cancel
          local last_cancel = 0
          for i, step in ipairs(order) do
            if step == "cancel" then last_cancel = i end
          end
          if last_cancel < (at.drop or 99) then
            valid[#valid + 1] = order
          end
        end
      end
      return valid
    end

    -- Where it stands when it is prepared, and on which ring.
    local places = {
      ["in the submission queue"] = function()
        local ring = new_ring { entries = 8 }
        return ring, function() return {} end
      end;
      ["in the backlog"] = function()
        local ring = new_ring { entries = 1, backlog = 16 }
        return ring, function()
          local kept = {}
          for i = 1, 3 do
            kept[i] = ring:prepare("timeout", 0)
          end
          return kept
        end
      end;
      ["on the default ring"] = function()
        return nil, function() return {} end
      end;
    }

    local function walk(kind, ring, crowd, order, turning)
      local target = ring or { prepare = function(_, ...) return uring.prepare(...) end; submit = uring.submit }
      local case = kinds[kind]()
      local before = (ring or uring):stats()
      local op, c, dropped, enabled
      local cancelled = false
      local kept = crowd()
      local steps = {
        prepare = function() op = case.prepare(target) end;
        submit = function() target:submit() end;
        enable = function()
          enabled = true
          case.enable()
        end;
        cancel = function()
          cancelled = true
          c = op:cancel()
        end;
        drop = function()
          dropped = true
          op, c = nil, nil
          collect()
        end;
      }
      for _, step in ipairs(order) do
        steps[step]()
        if turning then
          turn(ring)
        end
      end
      local result
      if not dropped then
        local n, message, code = op:await()
        if c then
          local outcome, again = c:await()
          assert.are.equal(n and "completed" or "cancelled", outcome)
          assert.are.equal(n, again)
        end
        if not n then
          assert.is_true(cancelled, message)
          assert.are.equal(errno.ECANCELED, code)
        end
        -- once and for all
        assert.are.same({ n, message, code }, { op:await() })
        assert.are.equal("done", op:status())
        result = n
      end
      eventually(function()
        turn(ring)
        local s = (ring or uring):stats()
        return s.in_flight == 0 and s.backlog == 0 and s.bytes_lent == 0
      end, "something is still lent or in flight")
      local after = (ring or uring):stats()
      assert.are.equal(after.prepared - before.prepared, after.completed - before.completed)
      assert.are.equal(before.unknown, after.unknown)
      assert.is_true(after.cancelled - before.cancelled <= 1, "cancelled more than once")
      collect() -- outcomes of dropped handles
      case.check(result, enabled, dropped)
      assert.is_table(kept)
    end

    for kind in pairs(kinds) do
      for place, make in pairs(places) do
        it(kind .. " " .. place, function()
          local all = orders { "cancel", "cancel", "drop", "enable", "prepare", "submit" }
          for _, order in ipairs(orders { "cancel", "cancel", "enable", "prepare", "submit" }) do
            all[#all + 1] = order
          end
          assert.are.equal(24 + 15, #all)
          local stride = helper.slow and 7 or 1
          for i = 1, #all, stride do
            for _, turning in ipairs { false, true } do
              local ring, crowd = make()
              local ok, err = pcall(walk, kind, ring, crowd, all[i], turning)
              if not ok then
                error(("%s%s: %s"):format(table.concat(all[i], ", "), turning and " (turning)" or "", tostring(err)), 0)
              end
              close_opened()
            end
          end
        end)
      end
    end
  end)
end)
