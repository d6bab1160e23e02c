-- Operations of the program's own: objects that prepare themselves.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, socketpair, new_ring = opened.pipe, opened.socketpair, opened.ring
local collect, error_of = helper.collect, helper.error_of

local MORE = 2 -- IORING_CQE_F_MORE

local function pack(...)
  return table.pack(...)
end

-- An object whose prepare is fn(sqe), with its methods; it keeps a diary.
local function object(fn, methods)
  local self = methods or {}
  self.told = {}
  function self.prepare(_, sqe)
    self.told[#self.told + 1] = "prepare"
    return fn(sqe)
  end
  return self
end

-- The same, and it notes what it is told.
local function noting(fn)
  return object(fn, {
    complete = function(self, result)
      self.told[#self.told + 1] = result
      return "completed", result
    end;
    cancel = function(self)
      self.told[#self.told + 1] = "cancel"
    end;
  })
end

describe("an operation of the program's own", function()
  helper.watch(before_each, function(check)
    after_each(function()
      helper.cleanup()
      opened.close()
      check()
    end)
  end)

  describe("is prepared", function()
    it("as a built-in, with its arguments and options, and awaited like one", function()
      local r, w = pipe()
      local buffer = uring.buffer(16)
      op.write(w, "hello, world")
      local reading = object(function(sqe) sqe:read(r, buffer, 5, -1, { async = true }) end)
      assert.are.equal(5, uring.await(reading))
      assert.are.equal("hello", buffer:get(1, 5))
      local handle = uring.prepare(reading)
      assert.are.equal("prepared", handle:status())
      assert.are.equal("lent", buffer:status())
      assert.are.equal(1, uring.submit())
      assert.are.equal(5, handle:await())
      assert.are.equal(", wor", buffer:get(1, 5))
      assert.are.equal("done", handle:status())
      assert.are.equal("owned", buffer:status())
      assert.are.equal(5, handle:await()) -- as often as one likes
      assert.is_true(handle:notification())
    end)

    it("field by field, as raw has them", function()
      local r, w = pipe()
      local buffer = uring.buffer(8)
      op.write(w, "fields")
      local by_field = object(function(sqe)
        assert.are.equal(0, sqe.len) -- what is not set is 0
        sqe.opcode = const.IORING_OP_READ
        sqe.fd = r
        sqe.addr = buffer
        sqe.len = 6
        sqe.off = -1
        sqe.flags = sqe.flags | const.IOSQE_ASYNC
      end)
      local handle = uring.prepare(by_field)
      assert.are.equal("lent", buffer:status())
      assert.are.equal(6, handle:await())
      assert.are.equal("fields", buffer:get(1, 6))
    end)

    it("on any ring, in and outside of tasks", function()
      local ring = new_ring()
      local nop = object(function(sqe) sqe:nop() end, { complete = function(_, result) return "nop", result end })
      assert.are.same({ n = 2, "nop", 0 }, pack(ring:prepare(nop):await()))
      assert.are.same({ n = 2, "nop", 0 }, pack(uring.prepare(nop):await()))
      uring.run(function()
        assert.are.same({ n = 2, "nop", 0 }, pack(ring:prepare(nop):await()))
        assert.are.same({ n = 2, "nop", 0 }, pack(uring.await(nop)))
        assert.are.same({ n = 3, "nop", 0, "nop" }, pack(uring.await(nop, op and uring.prepare "nop", nop)))
      end)
    end)

    it("by a userdata, too", function()
      local timer <close> = uring.timer()
      local methods = getmetatable(timer).__index
      function methods.prepare(self, sqe)
        assert.are.equal(timer, self)
        sqe:nop()
      end
      local ok, result = pcall(uring.await, timer)
      methods.prepare = nil
      assert.are.same({ true, 0 }, { ok, result })
      assert.is_truthy(error_of(uring.await, timer):find("operation or task expected, got userdata", 1, true))
    end)

    it("while there is no room waits for it, and is kept meanwhile", function()
      uring.run(function()
        local done = 0
        local nop = object(function(sqe) sqe:nop() end, { complete = function() done = done + 1 end })
        local handles = {}
        for i = 1, 4600 do -- more than the queue and the backlog take
          handles[i] = uring.prepare(nop)
        end
        for i = 1, 4600 do
          handles[i]:await()
        end
        assert.are.equal(4600, done)
      end)
    end)

    it("with what it keeps", function()
      local kept = setmetatable({}, { __mode = "k" })
      local r, w = pipe()
      local handle = uring.prepare(object(function(sqe)
        local thing = {}
        kept[thing] = true
        sqe.opcode = const.IORING_OP_POLL_ADD
        sqe.fd = r
        sqe.rw_flags = const.POLLIN
        sqe.keep = { thing }
      end))
      uring.submit()
      collect()
      assert.is_not_nil(next(kept))
      op.write(w, "x")
      assert.are.equal(const.POLLIN, handle:await())
      collect()
      assert.is_nil(next(kept))
    end)
  end)

  describe("that is not prepared properly", function()
    local function refuses(expected, fn)
      local before = uring.stats().prepared
      local bad = object(fn)
      local message = error_of(uring.prepare, bad)
      assert.is_truthy(message:find((expected:gsub("$OBJECT", (tostring(bad):gsub("%%", "%%%%")))), 1, true), message)
      assert.are.equal(before, uring.stats().prepared)
      assert.is_truthy(error_of(uring.await, bad):find("", 1, true))
      assert.are.equal(before, uring.stats().prepared)
    end

    it("by none, by two and by three SQEs raises, and nothing has happened", function()
      local buffer = uring.buffer(4)
      local r = pipe()
      refuses("$OBJECT: prepare has filled no SQE", function() end)
      refuses("$OBJECT: prepare has filled two SQEs", function(sqe)
        sqe:read(r, buffer)
        sqe:nop()
      end)
      refuses("$OBJECT: prepare has filled two SQEs", function(sqe)
        sqe:read(r, buffer)
        sqe.len = 3
      end)
      refuses("$OBJECT: prepare has filled 3 SQEs", function(sqe)
        for _ = 1, 3 do sqe:nop() end
      end)
      assert.are.equal("owned", buffer:status())
    end)

    it("by an error is not prepared at all", function()
      local buffer = uring.buffer(4)
      refuses("thought better of it", function(sqe)
        sqe:read(0, buffer)
        error "thought better of it"
      end)
      assert.are.equal("owned", buffer:status())
      local err = {}
      local ok, got = pcall(uring.prepare, object(function() error(err) end))
      assert.is_false(ok)
      assert.are.equal(err, got)
    end)

    it("by bad arguments raises as the built-in does", function()
      refuses("bad argument 'fd' to 'read' (integer expected, got no value)", function(sqe) sqe:read() end)
      refuses("unknown operation 'raed' (did you mean 'read'", function(sqe) sqe:raed(0) end)
      refuses("unknown option 'asinc' of nop", function(sqe) sqe:nop { asinc = true } end)
      refuses("unknown field 'lenght' of raw (did you mean 'len'", function(sqe)
        sqe.opcode = 0
        sqe.lenght = 4
      end)
      refuses("bad argument 'opcode' to 'raw'", function(sqe) sqe.fd = 4 end)
      refuses("call it as sqe:nop(…), inside prepare", function(sqe) sqe.nop() end)
      local r = pipe()
      local buffer = uring.buffer(4)
      local first = uring.prepare("read", r, buffer)
      refuses(("buffer is lent to the kernel (read on fd %d)"):format(r), function(sqe) sqe:read(r, buffer) end)
      assert.are.equal("cancelled", first:cancel():await())
    end)

    it("tells the place of the program's, not the library's", function()
      local message = error_of(function()
        uring.prepare(object(function(sqe) sqe:read() end))
      end)
      assert.is_truthy(message:find "^[^\n]*custom_spec%.lua:%d+: bad argument 'fd'", message)
      message = error_of(function()
        uring.prepare(object(function(sqe) sqe:raed() end))
      end)
      assert.is_truthy(message:find "^[^\n]*custom_spec%.lua:%d+: unknown operation", message)
    end)

    it("because the SQE is kept for later raises then", function()
      local kept
      local nop = object(function(sqe)
        kept = sqe
        sqe:nop()
      end)
      assert.are.equal(0, uring.await(nop))
      assert.is_truthy(error_of(function() kept:nop() end):find("only inside prepare", 1, true))
      assert.is_truthy(error_of(function() kept.fd = 3 end):find("only inside prepare", 1, true))
    end)

    it("because it is no such object raises", function()
      local ring = new_ring()
      for _, bad in ipairs { {}, { prepare = 1 }, ring, uring.buffer(1) } do
        assert.is_truthy(error_of(uring.prepare, bad):find("object with a method 'prepare' or string", 1, true))
        assert.is_truthy(error_of(uring.await, bad):find("operation or task expected", 1, true))
      end
      assert.is_truthy(error_of(uring.await, 3):find("operation or task expected, got number", 1, true))
      assert.is_truthy(error_of(uring.prepare, object(function() end), 3):find("an object has no arguments", 1, true))
      ring:close()
      assert.is_truthy(error_of(ring.prepare, ring, object(function(sqe) sqe:nop() end)):find("closed ring", 1, true))
    end)
  end)

  describe("makes of its result", function()
    it("what it likes: any number of values, nil among them", function()
      for _, values in ipairs { { n = 0 }, { n = 1, nil }, { n = 3, nil, "x", nil }, { n = 2, false, 1 } } do
        local nop = object(function(sqe) sqe:nop() end, {
          complete = function() return table.unpack(values, 1, values.n) end;
        })
        local handle = uring.prepare(nop)
        assert.are.same(values, pack(handle:await()))
        assert.are.same(values, pack(handle:await()))
      end
    end)

    it("given -errno where it failed", function()
      local failing = noting(function(sqe) sqe:read(987654, uring.buffer(1)) end)
      assert.are.same({ n = 2, "completed", -errno.EBADF }, pack(uring.await(failing)))
      assert.are.same({ "prepare", -errno.EBADF }, failing.told)
      local plain = object(function(sqe) sqe:read(987654, uring.buffer(1)) end)
      assert.are.same({ n = 3, nil, "read: Bad file descriptor", errno.EBADF }, pack(uring.await(plain)))
    end)

    it("given what the operation adds", function()
      local stat = object(function(sqe) sqe:statx(nil, "/") end, {
        complete = function(_, result, flags, info) return result, flags, info.type end;
      })
      assert.are.same({ n = 3, 0, 0, "directory" }, pack(uring.await(stat)))
      local failing = object(function(sqe) sqe:statx(nil, "/nope") end, {
        complete = function(...) return select("#", ...), (select(2, ...)) end;
      })
      assert.are.same({ n = 2, 3, -errno.ENOENT }, pack(uring.await(failing)))
    end)

    it("or raises, and so does every await", function()
      local err = {}
      local handle = uring.prepare(object(function(sqe) sqe:nop() end, { complete = function() error(err) end }))
      for _ = 1, 2 do
        local ok, got = pcall(handle.await, handle)
        assert.is_false(ok)
        assert.are.equal(err, got)
      end
    end)

    it("once, however many await it", function()
      local r, w = pipe()
      local count = 0
      local handle = uring.prepare(object(function(sqe) sqe:read(r, uring.buffer(4)) end, {
        complete = function(_, result)
          count = count + 1
          return count, result
        end;
      }))
      uring.run(function()
        local tasks = {}
        for i = 1, 5 do
          tasks[i] = uring.spawn(handle.await, handle)
        end
        uring.yield()
        op.write(w, "data")
        for i = 1, 5 do
          assert.are.same({ n = 2, 1, 4 }, pack(tasks[i]:await()))
        end
      end)
      assert.are.same({ n = 2, 1, 4 }, pack(handle:await()))
    end)

    it("taking its time, and everybody waits for that", function()
      local count = 0
      local slow = object(function(sqe) sqe:nop() end, {
        complete = function()
          count = count + 1
          uring.sleep(0.005)
          return "slow"
        end;
      })
      local handle = uring.prepare(slow)
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = uring.spawn(handle.await, handle)
      end
      uring.sleep(0)
      assert.are.equal("slow", handle:await()) -- outside of tasks
      for i = 1, 3 do
        assert.are.equal("slow", tasks[i]:await())
      end
      assert.are.equal(1, count)
    end)

    it("taking its time and then raising, which everybody gets", function()
      uring.run(function()
        local handle = uring.prepare(object(function(sqe) sqe:nop() end, {
          complete = function()
            uring.sleep(0.002)
            error("failed", 0)
          end;
        }))
        for _ = 1, 3 do
          local a, b = uring.spawn(pcall, handle.await, handle), uring.spawn(pcall, handle.await, handle)
          assert.are.same({ n = 2, false, "failed" }, pack(a:await()))
          assert.are.same({ n = 2, false, "failed" }, pack(b:await()))
        end
      end)
    end)

    it("of a zero-copy send once, before the memory is back", function()
      local a, b = socketpair()
      local sending = noting(function(sqe) sqe:send_zc(a, "zero-copy") end)
      local handle = uring.prepare(sending)
      local _, n = handle:await()
      if n == -errno.EOPNOTSUPP then -- unix sockets have it only on some kernels
        n = 9
        op.send(a, "zero-copy")
      end
      assert.are.equal(9, n)
      handle:await()
      assert.is_true(handle:notification())
      handle:await()
      assert.are.equal(2, #sending.told)
      assert.are.equal(9, op.read(b, uring.buffer(16)))
    end)
  end)

  describe("with many results", function()
    local function ticking(methods)
      return object(function(sqe) sqe:timeout(0.001, 3, { multishot = true }) end, methods)
    end

    it("makes something of each, and the loop ends with the last", function()
      local seen = {}
      local handle = uring.prepare(ticking {
        complete = function(_, result, flags)
          seen[#seen + 1] = flags & MORE ~= 0
          return #seen, result
        end;
      })
      local count = 0
      for i, result in handle:results() do
        count = count + 1
        assert.are.equal(count, i)
        assert.are.equal(0, result)
      end
      assert.are.equal(3, count)
      assert.are.same({ true, true, false }, seen)
      assert.are.equal(3, handle:await()) -- the last again
      assert.are.equal(3, #seen)
    end)

    it("gives them to await, one by one", function()
      local handle = uring.prepare(ticking { complete = function(self, result)
        self.count = (self.count or 0) + 1
        return self.count, result
      end })
      for i = 1, 3 do
        assert.are.equal(i, (handle:await()))
      end
      assert.are.equal(3, (handle:await()))
    end)

    it("gives each of them to one of those who await it", function()
      local count = 0
      local handle = uring.prepare(ticking { complete = function()
        count = count + 1
        return count
      end })
      uring.run(function()
        local tasks, got = {}, {}
        for i = 1, 3 do
          tasks[i] = uring.spawn(handle.await, handle)
        end
        for i = 1, 3 do
          got[#got + 1] = tasks[i]:await()
        end
        table.sort(got)
        assert.are.same({ 1, 2, 3 }, got)
      end)
    end)

    it("without complete is iterated like a built-in", function()
      local count = 0
      for result in uring.prepare(ticking()):results() do
        assert.are.equal(0, result)
        count = count + 1
      end
      assert.are.equal(3, count)
      local failing = object(function(sqe) sqe:poll_add(987654, const.POLLIN, { multishot = true }) end)
      assert.is_truthy(error_of(function()
        for _ in uring.prepare(failing):results() do
          error "a result"
        end
      end):find("poll_add: Bad file descriptor", 1, true))
    end)

    it("lets complete judge a failure", function()
      local failing = noting(function(sqe) sqe:poll_add(987654, const.POLLIN, { multishot = true }) end)
      local got
      for _, result in uring.prepare(failing):results() do
        got = result
      end
      assert.are.equal(-errno.EBADF, got)
      assert.are.same({ "prepare", -errno.EBADF }, failing.told)
    end)

    it("is cancelled by leaving the loop, and told so", function()
      local r, w = pipe()
      local polling = noting(function(sqe) sqe:poll_add(r, const.POLLIN, { multishot = true }) end)
      local handle = uring.prepare(polling)
      op.write(w, "x")
      for _, mask in handle:results() do -- luacheck: ignore 512
        assert.are.equal(const.POLLIN, mask)
        break
      end
      assert.are.equal("done", handle:status())
      assert.are.same({ "prepare", const.POLLIN, "cancel" }, polling.told)
    end)

    it("ends the loop when it is cancelled, after it was told of that", function()
      local r, w = pipe()
      local polling = noting(function(sqe) sqe:poll_add(r, const.POLLIN, { multishot = true }) end)
      local handle = uring.prepare(polling)
      uring.run(function()
        uring.spawn(function()
          op.write(w, "x")
          uring.sleep(0.002)
          handle:cancel()
        end)
        local count = 0
        for _ in handle:results() do
          count = count + 1
        end
        assert.are.equal(1, count)
      end)
      assert.are.same({ "prepare", const.POLLIN, "cancel", -errno.ECANCELED }, polling.told)
    end)

    it("accepts connections, and closes those that nobody took", function()
      local fd, address = opened.listen()
      local accepting = object(function(sqe) sqe:accept(fd, 0, { multishot = true }) end, {
        complete = function(_, result) return result >= 0 and result or nil end;
      })
      uring.run(function()
        local handle <close> = uring.prepare(accepting)
        local clients = {}
        for i = 1, 4 do
          clients[i] = assert(uring.connect(address))
        end
        local taken = handle:await()
        assert.is_true(taken >= 0)
        op.close(taken)
        for i = 1, 4 do
          clients[i]:close()
        end
      end)
    end)
  end)

  describe("and cancellation:", function()
    it("is told once, whoever asks how often", function()
      local r = pipe()
      local reading = noting(function(sqe) sqe:read(r, uring.buffer(4)) end)
      local handle = uring.prepare(reading)
      uring.submit()
      local c = handle:cancel()
      assert.are.equal("cancelling", handle:status())
      assert.are.equal("cancelling", c:status())
      assert.are.same({ "prepare", "cancel" }, reading.told)
      assert.are.same({ n = 1, "cancelled" }, pack(handle:cancel():await()))
      assert.are.equal("cancelled", c:await())
      assert.are.same({ "prepare", "cancel", -errno.ECANCELED }, reading.told)
      assert.are.same({ n = 2, "completed", -errno.ECANCELED }, pack(handle:await()))
      assert.are.equal(3, #reading.told)
    end)

    it("that comes too late delivers the result, through complete", function()
      local r, w = pipe()
      op.write(w, "data")
      local reading = noting(function(sqe) sqe:read(r, uring.buffer(4)) end)
      local handle = uring.prepare(reading)
      uring.submit()
      uring.yield()
      assert.are.same({ n = 3, "completed", "completed", 4 }, pack(handle:cancel():await()))
      assert.are.same({ n = 3, "completed", "completed", 4 }, pack(handle:cancel():await()))
      assert.are.same({ n = 2, "completed", 4 }, pack(handle:await()))
      assert.are.same({ "prepare", 4 }, reading.told) -- nothing was cancelled
    end)

    it("at every step loses nothing and tells everything once", function()
      local outcomes = {}
      for _, asynchronous in ipairs { false, true } do
        for turns = 0, 4 do
          for written = 0, 4 do
            local r, w = pipe()
            local buffer = uring.buffer(4)
            local reading = noting(function(sqe) sqe:read(r, buffer, 4, -1, { async = asynchronous }) end)
            uring.run(function()
              local handle = uring.prepare(reading)
              for i = 0, turns do
                if i == written then
                  core.op.write(w, "data")
                end
                uring.yield()
              end
              local outcome, _, n = handle:cancel():await()
              outcomes[outcome] = (outcomes[outcome] or 0) + 1
              assert.are.equal("owned", buffer:status())
              assert.are.equal("done", handle:status())
              assert.are.equal(outcome == "completed" and 4 or nil, n)
              if outcome == "cancelled" and written <= turns then
                assert.are.equal(4, op.read(r, buffer)) -- it is still there
              end
              local results = 0
              for _, what in ipairs(reading.told) do
                results = results + (type(what) == "number" and 1 or 0)
              end
              assert.are.equal(1, results)
            end)
            opened.close()
          end
        end
      end
      assert.is_true(outcomes.cancelled > 0 and outcomes.completed > 0)
    end)

    it("before it is submitted, and in the backlog", function()
      local ring = new_ring { entries = 2, backlog = 64 }
      local r = pipe()
      local handles, objects = {}, {}
      for i = 1, 12 do
        objects[i] = noting(function(sqe) sqe:read(r, uring.buffer(1)) end)
        handles[i] = ring:prepare(objects[i])
      end
      for _, i in ipairs { 12, 1, 5 } do
        assert.are.equal("prepared", handles[i]:status())
        handles[i]:cancel()
        assert.are.same({ "prepare", "cancel" }, objects[i].told)
      end
      for i = 1, 12 do
        handles[i]:cancel():await()
        assert.are.equal(3, #objects[i].told)
      end
    end)

    it("of the task that awaits it tells the object, and the result that was faster is delivered", function()
      local seen = {}
      for turns = 0, 5 do
        local r, w = pipe()
        local reading = noting(function(sqe) sqe:read(r, uring.buffer(4)) end)
        local outcome, value
        uring.run(function()
          local task = uring.spawn(function()
            outcome, value = pcall(uring.await, reading)
          end)
          uring.yield()
          uring.yield()
          helper.testkit.write(w, "data")
          for _ = 1, turns do
            uring.yield()
          end
          task:cancel()
          pcall(task.await, task)
        end)
        if outcome then
          assert.are.equal("completed", value)
          assert.are.equal(4, reading.told[#reading.told])
        else
          assert.are.equal(uring.cancelled, value)
          assert.are.same({ "prepare", "cancel" }, reading.told)
          assert.are.equal(4, op.read(r, uring.buffer(8)))
        end
        seen[outcome] = true
        opened.close()
      end
      assert.are.same({ [true] = true, [false] = true }, seen)
    end)

    it("of one of the tasks that await it is that of the operation", function()
      local r = pipe()
      local reading = noting(function(sqe) sqe:read(r, uring.buffer(4)) end)
      uring.run(function()
        local handle = uring.prepare(reading)
        local a, b = uring.spawn(handle.await, handle), uring.spawn(handle.await, handle)
        uring.sleep(0.002)
        a:cancel()
        assert.are.same({ n = 2, "completed", -errno.ECANCELED }, pack(b:await()))
        assert.are.equal(uring.cancelled, select(2, pcall(a.await, a)))
      end)
      table.sort(reading.told, function(x, y) return tostring(x) < tostring(y) end)
      assert.are.same({ -errno.ECANCELED, "cancel", "prepare" }, reading.told)
    end)

    it("of a task whose await never began is not the operation's", function()
      local r, w = pipe()
      local reading = noting(function(sqe) sqe:read(r, uring.buffer(4)) end)
      uring.run(function()
        local handle = uring.prepare(reading)
        local task = uring.spawn(function()
          pcall(uring.sleep, 60)
          handle:await()
        end)
        uring.yield()
        task:cancel()
        pcall(task.await, task)
        assert.are.same({ "prepare" }, reading.told)
        op.write(w, "data")
        assert.are.same({ n = 2, "completed", 4 }, pack(handle:await()))
      end)
    end)

    it("by leaving a block waits for the memory, gives up the result and tells", function()
      local r, w = pipe()
      local buffer = uring.buffer(4)
      local reading = noting(function(sqe) sqe:read(r, buffer) end)
      local kept
      do
        local handle <close> = uring.prepare(reading)
        kept = handle
        uring.submit()
      end
      assert.are.equal("done", kept:status())
      assert.are.equal("owned", buffer:status())
      assert.are.same({ "prepare", "cancel" }, reading.told)
      assert.are.same({ n = 3, nil, "read: Operation canceled", errno.ECANCELED }, pack(kept:await()))
      assert.are.equal("cancelled", kept:cancel():await())
      op.write(w, "data")
      assert.are.equal(4, op.read(r, buffer))
    end)

    it("whose hook raises cancels all the same", function()
      local r = pipe()
      local buffer = uring.buffer(4)
      local bad = object(function(sqe) sqe:read(r, buffer) end, { cancel = function() error("no", 0) end })
      local handle = uring.prepare(bad)
      assert.are.equal("no", error_of(handle.cancel, handle))
      assert.are.equal("cancelling", handle:status())
      assert.are.equal("cancelled", handle:cancel():await()) -- it was told
      assert.are.equal("owned", buffer:status())
      assert.are.equal("no", error_of(function()
        local _handle <close> = uring.prepare(bad)
      end))
      assert.are.equal("owned", buffer:status())
      assert.is_truthy(error_of(uring.run, function()
        local task = uring.spawn(uring.await, bad)
        uring.sleep(0.002)
        task:cancel()
        task:await()
      end):find "^no\n")
      assert.are.equal("owned", buffer:status())
    end)

    it("of many results at once ends with them", function()
      local r = pipe()
      local polling = noting(function(sqe) sqe:poll_add(r, const.POLLIN, { multishot = true }) end)
      local handle = uring.prepare(polling)
      uring.submit()
      local c = handle:cancel()
      assert.is_truthy(error_of(c.await, c):find("through its results", 1, true))
      for _ in handle:results() do
        error "a result"
      end
      assert.are.equal("cancelled", c:await())
      assert.are.same({ "prepare", "cancel", -errno.ECANCELED }, polling.told)
    end)
  end)

  describe("is kept", function()
    it("with all it has until the terminal completion, whatever becomes of the handle", function()
      local r, w = pipe()
      local finalised = false
      local weak = setmetatable({}, { __mode = "v" })
      local buffer = uring.buffer(4)
      do
        local reading = setmetatable(noting(function(sqe) sqe:read(r, buffer) end), {
          __gc = function() finalised = true end;
        })
        weak[1] = reading
        uring.prepare(reading)
      end
      uring.submit()
      collect() -- drops the handle: an orphan, being cancelled
      assert.is_not_nil(weak[1])
      assert.is_false(finalised)
      assert.are.equal("lent", buffer:status())
      helper.eventually(function()
        collect()
        return finalised
      end)
      assert.are.equal("owned", buffer:status())
      op.write(w, "data")
      assert.are.equal(4, op.read(r, buffer)) -- nobody has taken it
    end)

    it("besides what the operation keeps by itself", function()
      local r, w = pipe()
      local weak = setmetatable({}, { __mode = "v" })
      local handle
      do
        local writing = object(function(sqe)
          sqe:write(w, ("%d bytes"):format(5)) -- a string of which there is no other
        end)
        weak[1] = writing
        handle = uring.prepare(writing)
      end
      collect()
      assert.is_not_nil(weak[1])
      assert.are.equal(7, uring.stats().bytes_lent)
      assert.are.equal(7, handle:await())
      assert.are.equal(0, uring.stats().bytes_lent)
      local buffer = uring.buffer(7)
      op.read(r, buffer)
      assert.are.equal("5 bytes", buffer:get())
      handle = nil -- luacheck: ignore 311
      collect()
      assert.is_nil(weak[1])
    end)

    it("and is not told of a result that nobody will have", function()
      local fd, address = opened.listen()
      local accepting = noting(function(sqe) sqe:accept(fd) end)
      uring.prepare(accepting)
      uring.submit()
      local client = uring.connect(address)
      collect()
      helper.eventually(function() return uring.stats().in_flight == 0 end)
      client:close()
      assert.are.same({ "prepare" }, accepting.told) -- and the descriptor is closed
    end)

    it("through collections at the worst moments", function()
      local r, w = pipe()
      uring.run(function()
        for i = 1, helper.times(50) do
          local buffer = uring.buffer(8)
          local handle = uring.prepare(setmetatable({
            prepare = function(_, sqe)
              sqe:read(r, buffer)
              collect()
            end;
            complete = function(_, result)
              collect()
              return result
            end;
            cancel = function() collect() end;
          }, { __gc = function() collectgarbage "step" end }))
          collect()
          if i % 2 == 0 then
            op.write(w, "data")
          end
          uring.yield()
          collect()
          local outcome, n = handle:cancel():await()
          collect()
          if outcome == "completed" then
            assert.are.equal("data", buffer:get(1, n))
          elseif i % 2 == 0 then
            assert.are.equal(4, op.read(r, buffer))
          end
        end
      end)
    end)

    it("when the ring is closed around it", function()
      local r = pipe()
      local ring = new_ring()
      local buffer = uring.buffer(4)
      local reading = noting(function(sqe) sqe:read(r, buffer) end)
      local handle = ring:prepare(reading)
      ring:submit()
      ring:close()
      assert.are.equal("owned", buffer:status())
      assert.are.same({ n = 2, "completed", -errno.ECANCELED }, pack(handle:await()))
      assert.are.equal("cancelled", handle:cancel():await())
    end)
  end)

  it("can be linked, by option and by its operation", function()
    local r, w = pipe()
    local buffer = uring.buffer(8)
    local writing = object(function(sqe) sqe:write(w, "first", { link = true }) end)
    local first = uring.prepare(writing)
    local second = uring.prepare(object(function(sqe) sqe:read(r, buffer) end))
    assert.are.equal(5, (second:await()))
    assert.are.equal(5, (first:await()))
    local a = uring.prepare(object(function(sqe) sqe:write(w, "second") end))
    local b = uring.prepare(object(function(sqe) sqe:read(r, buffer) end))
    uring.link { a:operation(), b:operation() }
    assert.are.same({ n = 2, 6, 6 }, pack(uring.await(a, b)))
    assert.are.equal("second", buffer:get(1, 6))
  end)

  it("can be named where an operation is asked for", function()
    local r = pipe()
    local handle = uring.prepare(noting(function(sqe) sqe:poll_add(r, const.POLLIN) end))
    uring.submit()
    assert.are.equal(0, op.cancel(handle:operation()))
    assert.are.same({ n = 2, "completed", -errno.ECANCELED }, pack(handle:await()))
  end)

  it("says what it is", function()
    local named = setmetatable(object(function(sqe) sqe:nop() end), { __tostring = function() return "my nop" end })
    local handle = uring.prepare(named)
    assert.are.equal("operation (my nop, prepared)", tostring(handle))
    assert.are.equal("cancellation (my nop, cancelling)", tostring(handle:cancel()))
    handle:await()
    assert.are.equal("operation (my nop, done)", tostring(handle))
  end)

  it("with all its memory refused at every single request stays consistent", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      local r, w = uring.pipe()
      local buffer = uring.buffer(4)
      local reading = {
        prepare = function(_, sqe) sqe:read(r:fd(), buffer, 4) end;
        complete = function(_, result) return "read", result end;
        cancel = function() end;
      }
      local function work()
        w:write "data"
        local kind, n = uring.await(reading)
        assert(kind == "read" and n == 4)
        local handle <close> = uring.prepare(reading)
        assert(handle:cancel():await() == "cancelled")
      end
      local function empty() -- what a failed round has left in the pipe
        local left <const> = uring.buffer(64)
        while testkit.poll(r:fd(), 0) do
          uring.op.read(r:fd(), left)
        end
      end
      local failed = 0
      for _, times in ipairs { 1, 2 } do
        work()
        for n = 1, 2000 do
          testkit.fail_allocation(n, times)
          local ok, err = pcall(work)
          local seen = testkit.fail_allocation(0)
          if not ok then
            failed = failed + 1
            assert(tostring(err):find "memory", err)
          end
          for _ = 1, 100 do
            collectgarbage()
            if uring.stats().in_flight + uring.stats().bytes_lent == 0 then break end
            uring.sleep(0.0001)
          end
          local stats = uring.stats()
          assert(stats.in_flight == 0 and stats.bytes_lent == 0 and stats.backlog == 0,
            ("request %d (%s): %d in flight, %d lent"):format(n, err, stats.in_flight, stats.bytes_lent))
          empty()
          work()
          if seen < n then break end
        end
      end
      print(failed > 20)
    ]]
    assert.are.equal("true\n", output)
    assert.are.equal(0, status)
  end)
end)

describe("the flags of a result", function()
  helper.watch(before_each, after_each)

  it("are those of the one that was handed out last", function()
    local handle = uring.prepare("timeout", 0.001, 2, { multishot = true })
    assert.are.equal(0, handle:flags())
    handle:await()
    assert.are.equal(MORE, handle:flags() & MORE)
    handle:await()
    assert.are.equal(0, handle:flags() & MORE)
    local nop = uring.prepare "nop"
    nop:await()
    assert.are.equal(0, nop:flags())
  end)
end)
