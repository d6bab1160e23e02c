-- What rummelplatz does, done here: setup, completions with data, control flow,
-- teardown, several operations on one ring, messages.  And that its faults are
-- not here.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, new_ring = opened.pipe, opened.ring
local collect, error_of = helper.collect, helper.error_of

local function nothing() end

local function operation(setup, on_completion, on_teardown)
  return uring.operation {
    setup = function(_, submit) return setup(submit) end;
    on_completion = function(_, ...) return (on_completion or nothing)(...) end;
    on_teardown = function(_, ...) return (on_teardown or nothing)(...) end;
  }
end

describe("rummelplatz", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      assert.are.equal(0, uring.stats().in_flight)
      check()
    end)
  end)

  -- Its own example: a timer that counts to three and leaves one to be torn down.
  it("runs its example", function()
    local log = {}
    local timeout_op = uring.operation {
      setup = function(_, submit)
        log[#log + 1] = "setup with 0"
        submit(0, "timeout", 0.001)
      end;
      on_completion = function(_, completion, submit)
        log[#log + 1] = "got " .. completion.data
        if completion.data == 3 then
          submit(completion.data + 1, "timeout", 3600, 10)
          return "exit"
        end
        submit(completion.data + 1, "timeout", 0.001)
        return "continue"
      end;
      on_teardown = function(_, completion)
        log[#log + 1] = "teardown " .. completion.data
      end;
    }
    local ring = new_ring { entries = 128 }
    assert.are.same({}, timeout_op:run(ring))
    assert.are.same({ "setup with 0", "got 0", "got 1", "got 2", "got 3", "teardown 4" }, log)
  end)

  it("serves connections with data of each, from one multishot accept", function()
    local fd, address = opened.listen()
    local echoed = 0
    local server = uring.operation {
      setup = function(_, submit)
        submit({ kind = "accept" }, "accept", fd, 0, { multishot = true })
      end;
      on_completion = function(_, completion, submit)
        local data = completion.data
        if data.kind == "accept" then
          local connection = { kind = "recv", fd = completion.result, buffer = uring.buffer(64) }
          submit(connection, "recv", connection.fd, connection.buffer)
        elseif data.kind == "recv" and completion.result == 0 then
          data.kind = "close"
          submit(data, "close", data.fd)
        elseif data.kind == "recv" then
          data.kind = "send"
          submit(data, "send", data.fd, data.buffer, completion.result)
        elseif data.kind == "send" then
          echoed = echoed + 1
          data.kind = "recv"
          submit(data, "recv", data.fd, data.buffer)
        end
      end;
      on_teardown = function(_, completion)
        if completion.data.kind == "recv" or completion.data.kind == "send" then
          op.close(completion.data.fd)
        end
      end;
    }
    uring.run(function()
      local running = uring.spawn(server.run, server)
      for i = 1, 8 do
        local client <close> = assert(uring.connect(address))
        client:write(("message %d\n"):format(i))
        assert.are.equal(("message %d"):format(i), client:read "l")
        client:write "again\n"
        assert.are.equal("again", client:read "l")
      end
      running:cancel()
      assert.are.equal(uring.cancelled, select(2, pcall(running.await, running)))
    end)
    assert.are.equal(16, echoed)
  end)

  describe("lets on_completion say", function()
    it("continue, exit, a warning or an error", function()
      local warnings = operation(function(submit)
        for _, answer in ipairs { "continue", "warn", "exit" } do
          submit(answer, "nop")
        end
      end, function(completion) return completion.data, "careful" end):run()
      assert.are.same({ "careful" }, warnings)
      local err = {}
      local failing = operation(function(submit) submit("error", "nop") end, function(completion)
        return completion.data, err
      end)
      local ok, got = pcall(failing.run, failing)
      assert.are.same({ false, true }, { ok, got == err })
    end)
  end)

  it("pushes several at once, all or none, and past the SQ into a bounded backlog", function()
    local ring = new_ring { entries = 4, backlog = 6 }
    local count = 0
    operation(function(submit)
      submit.all { { 1, "nop" }, { 1, "nop" }, { 1, "nop" }, { 1, "nop" }, { 1, "nop" }, { 1, "nop" } }
      assert.is_true(ring:stats().backlog <= 6)
      error_of(submit.all, { { 100, "nop" }, { 100, "read" } })
      local seven = {}
      for i = 1, 7 do
        seven[i] = { 100, "nop" }
      end
      error_of(submit.all, seven)
    end, function(completion) count = count + completion.data end):run(ring)
    assert.are.equal(6, count)
  end)

  it("composes several operations on one ring, each with completions and data of its own", function()
    local function counting(name, limit)
      return uring.operation {
        name = name;
        count = 0;
        setup = function(_, submit) submit(name, "timeout", 0.001) end;
        on_completion = function(self, completion, submit)
          assert.are.equal(name, completion.data)
          self.count = self.count + 1
          if self.count == limit then
            return "exit"
          end
          submit(name, "timeout", 0.001)
        end;
        on_teardown = function(self, completion)
          assert.are.equal(name, completion.data)
          self.torn_down = (self.torn_down or 0) + 1
        end;
      }
    end
    local ring = new_ring()
    local mine, other = counting("mine", 5), counting("other", 1000)
    assert.are.same({}, uring.run_operations({ mine, other }, ring))
    assert.are.equal(5, mine.definition.count) -- its exit has ended both
    assert.is_true(other.definition.count >= 1)
    assert.are.equal(1, (mine.definition.torn_down or 0) + other.definition.torn_down)
    assert.are.equal("operation loop (mine)", tostring(mine))
    assert.is_true(ring:fd() >= 0) -- the ring can be embedded
  end)

  describe("with messages from another ring", function()
    it("upsets no count of what is in flight", function()
      local ring = new_ring()
      local messages = ring:messages()
      local before = ring:stats()
      for i = 1, 3 do
        assert.are.equal(0, op.msg_ring(ring, i, i * 10))
      end
      for i = 1, 3 do
        assert.are.same({ n = 2, i, i * 10 }, table.pack(messages:await()))
      end
      local after = ring:stats()
      assert.are.same({ before.in_flight, before.completed, before.unknown },
        { after.in_flight, after.completed, after.unknown })
    end)

    it("has them among the completions of an operation", function()
      local ring = new_ring()
      local got, torn_down = {}, {}
      local receiver = operation(function(submit)
        submit("message", ring:messages())
        submit("never", "timeout", 3600)
        submit("tick", "timeout", 0.001)
      end, function(completion, submit)
        if completion.data == "message" then
          assert.are.equal("messages", completion.name)
          assert.is_true(completion.more)
          got[#got + 1] = { completion.result, completion[2] }
          return #got == 3 and "exit"
        end
        submit("tick", "timeout", 0.001)
      end, function(completion) torn_down[completion.data] = (torn_down[completion.data] or 0) + 1 end)
      uring.run(function()
        local running = uring.spawn(receiver.run, receiver, ring)
        uring.sleep(0.002)
        for i = 1, 3 do
          assert.are.equal(0, op.msg_ring(ring, i, i * 10))
        end
        running:await()
      end)
      assert.are.same({ { 1, 10 }, { 2, 20 }, { 3, 30 } }, got)
      assert.are.equal(1, torn_down.never)
      assert.are.equal(1, torn_down.message)
      assert.are.equal(0, ring:stats().in_flight)
    end)
  end)

  describe("has no such faults here:", function()
    it("data lives on after a completion with F_MORE, whatever the callback gives back", function()
      local weak = setmetatable({}, { __mode = "v" })
      local seen = 0
      operation(function(submit)
        local data = { "state" }
        weak[1] = data
        submit(data, "timeout", 0.001, 4, { multishot = true })
      end, function(completion)
        collect()
        seen = seen + 1
        assert.are.equal("state", completion.data[1])
        assert.are.equal(weak[1], completion.data)
        assert.are.equal(seen < 4, completion.more)
        if seen % 2 == 0 then
          return nil -- gives nothing back
        end
        return "continue", completion.data -- gives it back, also the last time
      end):run()
      assert.are.equal(4, seen)
      collect()
      assert.is_nil(weak[1]) -- and is not leaked with the last
    end)

    it("a completion with F_MORE is not the end in the teardown either", function()
      local r, w = pipe()
      local more, last = 0, 0
      operation(function(submit)
        submit("poll", "poll_add", r, const.POLLIN, { multishot = true })
        submit("nop", "nop")
      end, function(completion)
        if completion.data == "nop" then
          op.write(w, "x")
          return "exit"
        end
      end, function(completion)
        assert.are.equal("poll", completion.data)
        if completion.more then
          more = more + 1
        else
          last = last + 1
        end
      end):run()
      assert.are.equal(1, last)
      assert.is_true(more <= 1)
    end)

    it("a full queue does not keep the teardown from its cancelling", function()
      local ring = new_ring { entries = 2, backlog = 16 }
      local r = pipe()
      local torn_down = 0
      operation(function(submit)
        for i = 1, 4 do
          submit(i, "read", r, uring.buffer(1))
        end
        submit(nil, "nop")
      end, function(_, submit)
        for i = 5, 12 do
          submit(i, "read", r, uring.buffer(1)) -- the SQ is full, and so is half the backlog
        end
        return "exit"
      end, function(completion)
        assert.are.equal(errno.ECANCELED, completion.errno)
        torn_down = torn_down + completion.data
      end):run(ring)
      assert.are.equal(78, torn_down) -- each of them once
      assert.are.equal(0, ring:stats().in_flight)
      assert.are.equal(0, ring:stats().backlog)
    end)

    it("what never left the backlog is torn down and not leaked", function()
      local weak = setmetatable({}, { __mode = "k" })
      local ring = new_ring { entries = 1, backlog = 64 }
      local r = pipe()
      local torn_down = 0
      operation(function(submit)
        for _ = 1, 20 do
          local data = {}
          weak[data] = true
          submit(data, "read", r, uring.buffer(1))
        end
        assert.is_true(ring:stats().backlog > 10)
        submit(nil, "nop"):cancel()
      end, function() return "exit" end, function() torn_down = torn_down + 1 end):run(ring)
      assert.are.equal(20, torn_down)
      collect()
      assert.is_nil(next(weak))
      assert.are.equal(0, ring:stats().bytes_lent)
    end)

    it("a setup that fails is torn down", function()
      local torn_down = 0
      assert.are.equal("no", error_of(function()
        operation(function(submit)
          submit(nil, "timeout", 3600)
          error("no", 0)
        end, nil, function() torn_down = torn_down + 1 end):run()
      end))
      assert.are.equal(1, torn_down)
    end)

    it("the teardown ends when all are in, and not at a time-out", function()
      local path = os.tmpname()
      os.remove(path)
      assert(os.execute("mkfifo " .. path))
      local torn_down = {}
      operation(function(submit)
        -- a thread of the kernel waits in it
        submit("open", "openat", nil, path, const.O_RDONLY | const.O_CLOEXEC, { async = true })
        submit("timeout", "timeout", 0.01)
      end, function() return "exit" end, function(completion)
        torn_down[#torn_down + 1] = completion.errno or completion.result
        if completion.result then
          op.close(completion.result)
        end
      end):run()
      os.remove(path)
      assert.are.same({ errno.ECANCELED }, torn_down)
    end)

    it("descriptors that come in the teardown are in somebody's hands", function()
      local fd, address = opened.listen()
      local clients, delivered = {}, 0
      operation(function(submit)
        submit("accept", "accept", fd, 0, { multishot = true })
        submit("nop", "nop")
      end, function(completion)
        if completion.data == "nop" then
          for i = 1, 4 do
            clients[i] = uring.connect(address)
          end
          return "exit"
        end
        op.close(completion.result)
      end, function(completion)
        if completion.result then
          delivered = delivered + 1
          op.close(completion.result)
        end
      end):run()
      for i = 1, 4 do
        clients[i]:close()
      end
      assert.are.equal(4, delivered)
    end)

    it("warnings are returned, and nothing is printed", function()
      local output, status = helper.script [[
        local uring = require "uring"
        local warnings = uring.operation {
          setup = function(_, submit) submit(nil, "nop") end;
          on_completion = function() return "warn", "careful" end;
        }:run()
        os.exit(warnings[1] == "careful" and 7 or 1)
      ]]
      assert.are.equal("", output)
      assert.are.equal(7, status)
    end)
  end)
end)
