-- Operations in the callback style: setup, on_completion, on_teardown.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, socketpair, new_ring = opened.pipe, opened.socketpair, opened.ring
local collect, error_of = helper.collect, helper.error_of

local MORE = 2 -- IORING_CQE_F_MORE

local function nothing() end

-- An operation that only begins, with these callbacks.
local function operation(setup, on_completion, on_teardown)
  return uring.operation {
    setup = function(_, submit) return setup(submit) end;
    on_completion = function(_, ...) return (on_completion or nothing)(...) end;
    on_teardown = on_teardown and function(_, ...) return on_teardown(...) end;
  }
end

describe("an operation in the callback style", function()
  helper.watch(before_each, function(check)
    after_each(function()
      helper.cleanup()
      opened.close()
      assert.are.equal(0, uring.stats().in_flight) -- at once, not in a while
      check()
    end)
  end)

  it("runs from setup to exit, and its teardown ends when all are in", function()
    local ticker = uring.operation {
      count = 0;
      torn_down = {};
      setup = function(self, submit)
        self.count = 0
        submit("tick", "timeout", 0.001)
        submit("never", "timeout", 3600)
      end;
      on_completion = function(self, completion, submit)
        self.count = self.count + 1
        assert.are.equal("tick", completion.data)
        assert.are.equal(0, completion.result)
        if self.count == 3 then
          return "exit"
        end
        submit("tick", "timeout", 0.001)
        return "continue"
      end;
      on_teardown = function(self, completion)
        self.torn_down[#self.torn_down + 1] = completion
      end;
    }
    assert.are.same({}, ticker:run())
    assert.are.equal(0, uring.stats().in_flight)
    assert.are.equal(1, #ticker.definition.torn_down)
    local completion = ticker.definition.torn_down[1]
    assert.are.equal("never", completion.data)
    assert.is_nil(completion.result)
    assert.are.equal("timeout: Operation canceled", completion.err)
    assert.are.equal(errno.ECANCELED, completion.errno)
    assert.is_false(completion.more)
    uring.run(function() ticker:run() end) -- and again, in a task
    assert.are.equal(2, #ticker.definition.torn_down)
  end)

  it("ends by itself when nothing is in flight any more", function()
    local torn_down = 0
    local count = 0
    operation(function(submit)
      submit(1, "nop")
      submit(2, "nop")
    end, function(completion, submit)
      count = count + completion.data
      if count == 3 then
        submit(10, "nop")
      end
    end, function() torn_down = torn_down + 1 end):run()
    assert.are.equal(13, count)
    assert.are.equal(0, torn_down)
    assert.are.same({}, operation(nothing):run())
  end)

  it("runs on any ring, in and outside of tasks", function()
    local function run(ring)
      local r, w = pipe()
      local buffer = uring.buffer(4)
      local names = {}
      operation(function(submit)
        submit("reading", "read", r, buffer)
        submit("waiting", "timeout", 3600)
        submit("writing", "write", w, "data")
      end, function(completion)
        names[#names + 1] = completion.data
        return #names == 2 and "exit" or "continue"
      end):run(ring)
      table.sort(names)
      assert.are.same({ "reading", "writing" }, names)
      assert.are.equal("data", buffer:get())
    end
    local ring = new_ring { entries = 4 }
    run()
    run(ring)
    uring.run(function()
      run()
      run(ring)
      local a, b = uring.spawn(run, ring), uring.spawn(run)
      a:await()
      b:await()
    end)
    assert.are.equal(0, ring:stats().in_flight)
  end)

  describe("is told of a completion", function()
    local function completion_of(...)
      local request, got = table.pack(...), nil
      operation(function(submit)
        submit("data", table.unpack(request, 1, request.n))
      end, function(completion) got = completion end):run()
      return got
    end

    it("all that await would return, and more", function()
      local done = completion_of("statx", nil, "/")
      assert.are.equal(0, done.result)
      assert.are.equal("directory", done[2].type)
      assert.are.equal(2, done.n)
      assert.are.equal("statx", done.name)
      assert.are.equal("data", done.data)
      assert.are.equal(0, done.flags)
      assert.is_false(done.more)
      assert.are.equal("done", done.handle:status())
      assert.is_nil(done.err)
      assert.is_nil(done.errno)
    end)

    it("and why it failed", function()
      local failed = completion_of("read", 987654, uring.buffer(1))
      assert.is_nil(failed.result)
      assert.are.equal("read: Bad file descriptor", failed.err)
      assert.are.equal(errno.EBADF, failed.errno)
      assert.are.equal(3, failed.n)
      assert.are.equal("data", failed.data)
    end)

    it("once for every result of a multishot operation, with the same data", function()
      local data, seen = {}, {}
      operation(function(submit)
        submit(data, "timeout", 0.001, 3, { multishot = true })
      end, function(completion)
        assert.are.equal(data, completion.data)
        assert.are.equal(0, completion.result)
        seen[#seen + 1] = completion.more
      end):run()
      assert.are.same({ true, true, false }, seen)
    end)

    it("of many in the order in which they come", function()
      local seen = {}
      operation(function(submit)
        for i = 1, 1000 do
          submit(i, "nop")
        end
      end, function(completion) seen[#seen + 1] = completion.data end):run()
      assert.are.equal(1000, #seen)
      for i = 1, 1000 do
        assert.are.equal(i, seen[i])
      end
    end)

    it("twice of a zero-copy send whose memory comes back later", function()
      local listener = opened.keep(uring.listen "127.0.0.1:0")
      local client = opened.keep(uring.connect(listener:address()))
      local server = opened.keep(listener:accept())
      local seen = {}
      operation(function(submit)
        submit("sent", "send_zc", client:fd(), "zero-copy")
      end, function(completion)
        seen[#seen + 1] = { completion.result, completion.data, completion.more, completion.notification or false }
      end):run()
      assert.are.equal(9, op.recv(server:fd(), uring.buffer(16)))
      if #seen == 1 then -- both came at once
        assert.are.same({ { 9, "sent", false, false } }, seen)
      else
        assert.are.same({ { 9, "sent", true, false }, { 9, "sent", false, true } }, seen)
      end
    end)
  end)

  describe("has data", function()
    it("that is kept until the last completion, whatever the callbacks do", function()
      local weak = setmetatable({}, { __mode = "v" })
      local r, w = pipe()
      local count = 0
      operation(function(submit)
        local data = { "state" }
        weak[1] = data
        submit(data, "poll_add", r, const.POLLIN, { multishot = true })
        op.write(w, "x")
      end, function(completion, submit)
        collect()
        if completion.name == "nop" then
          return
        end
        count = count + 1
        assert.are.equal("state", completion.data[1])
        assert.are.equal(weak[1], completion.data)
        if count == 3 then
          completion.handle:cancel()
        elseif completion.more then
          op.read(r, uring.buffer(1))
          op.write(w, "x")
          submit(nil, "nop") -- others come and go
          submit(nil, "nop"):cancel()
          return "warn", "nothing given back"
        end
      end):run()
      assert.are.equal(4, count)
      collect()
      assert.is_nil(weak[1])
    end)

    it("which is dropped after it", function()
      local weak = setmetatable({}, { __mode = "v" })
      operation(function(submit)
        local data = {}
        weak[1] = data
        submit(data, "nop")
        submit(nil, "timeout", 0.002)
      end, function(completion)
        if completion.name == "timeout" then
          collect()
          assert.is_nil(weak[1])
        end
      end):run()
    end)

    it("that can be replaced for the completions to come", function()
      local seen = {}
      operation(function(submit)
        submit(1, "timeout", 0.001, 4, { multishot = true })
      end, function(completion)
        seen[#seen + 1] = completion.data
        completion.data = completion.data * 2
      end):run()
      assert.are.same({ 1, 2, 4, 8 }, seen)
    end)

    it("of any kind, nil too", function()
      local seen = {}
      operation(function(submit)
        submit(nil, "nop")
        submit(false, "nop")
        submit("x", "nop")
      end, function(completion) seen[#seen + 1] = tostring(completion.data) end):run()
      assert.are.same({ "nil", "false", "x" }, seen)
    end)
  end)

  describe("submits", function()
    it("what it may wait for, cancel and look at, by its handle", function()
      local cancelled
      operation(function(submit)
        local handle = submit("never", "timeout", 3600)
        assert.are.equal("prepared", handle:status())
        submit(handle, "nop")
      end, function(completion)
        if completion.name == "nop" then
          completion.data:cancel()
        else
          cancelled = completion.errno
        end
      end):run()
      assert.are.equal(errno.ECANCELED, cancelled)
    end)

    it("operations that are prepared already", function()
      local r, w = pipe()
      local nop = uring.prepare "nop"
      local polling = uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
      local own = uring.prepare { prepare = function(_, sqe) sqe:nop() end }
      local names, message = {}, nil
      operation(function(submit)
        assert.are.equal(nop, submit(1, nop))
        assert.are.equal(polling, submit(2, polling))
        assert.are.equal(own, submit(3, own))
        message = error_of(submit, 4, nop) -- it has been taken on
        op.write(w, "x")
      end, function(completion)
        names[completion.data] = completion.name:gsub("0x%x+", "")
        return names[1] and names[2] and names[3] and "exit"
      end):run()
      assert.are.same({ "nop", "poll_add", "table: " }, names)
      assert.is_truthy(message:find("gathered already", 1, true), message)
      assert.are.equal("done", polling:status())
      local elsewhere = new_ring():prepare "nop"
      operation(function(submit)
        submit(nil, "nop")
        assert.is_truthy(error_of(submit, nil, elsewhere):find("an operation of another ring", 1, true))
      end):run()
    end)

    it("operations of the program's own", function()
      local nop = setmetatable({
        prepare = function(_, sqe) sqe:nop() end;
        complete = function(_, result) return "completed", result end;
      }, { __tostring = function() return "my nop" end })
      local got
      operation(function(submit) submit(7, nop) end, function(completion) got = completion end):run()
      assert.are.same({ "my nop", 7, "completed", "completed", 0, 2 },
        { got.name, got.data, got.result, got[1], got[2], got.n })
    end)

    it("and an error of theirs ends the run, with what else there is torn down", function()
      local torn_down = {}
      local err = {}
      local bad = {
        prepare = function(_, sqe) sqe:nop() end;
        complete = function() error(err) end;
      }
      local ok, got = pcall(function()
        operation(function(submit)
          submit("bad", bad)
          submit("never", "timeout", 3600)
        end, nothing, function(completion)
          torn_down[#torn_down + 1] = completion.data
        end):run()
      end)
      assert.is_false(ok)
      assert.are.equal(err, got)
      assert.are.same({ "never" }, torn_down)
      -- in the teardown itself, too
      torn_down = {}
      local r = pipe()
      bad.prepare = function(_, sqe) sqe:read(r, uring.buffer(1)) end
      ok, got = pcall(function()
        operation(function(submit)
          submit("bad", bad)
          submit("never", "timeout", 3600)
          submit(nil, "nop")
        end, function() return "exit" end, function(completion)
          torn_down[#torn_down + 1] = completion.data
        end):run()
      end)
      assert.is_false(ok)
      assert.are.equal(err, got)
      assert.are.same({ "never" }, torn_down)
    end)

    it("and what cannot be prepared raises there, and changes nothing", function()
      local count = 0
      operation(function(submit)
        local before = uring.stats().prepared
        local message = error_of(submit, nil, "read")
        assert.is_truthy(message:find("bad argument 'fd' to 'read'", 1, true), message)
        message = error_of(submit, nil, "raed")
        assert.is_truthy(message:find("unknown operation 'raed' (did you mean 'read'", 1, true), message)
        message = error_of(submit, nil)
        assert.is_truthy(message:find("string expected, got", 1, true), message)
        message = error_of(submit, nil, {})
        assert.is_truthy(message:find("object with a method 'prepare'", 1, true), message)
        message = error_of(function() submit(nil, "read") end)
        assert.is_truthy(message:find "^[^\n]*operation_loop_spec%.lua:%d+: bad argument 'fd'", message)
        message = error_of(submit, nil, { prepare = function() error("no", 0) end })
        assert.are.equal("no", message)
        assert.are.equal(before, uring.stats().prepared)
        submit(nil, "nop")
      end, function() count = count + 1 end):run()
      assert.are.equal(1, count)
    end)

    it("from other tasks, too, while it runs, and not after", function()
      local seen = {}
      local submit_later
      uring.run(function()
        local run = uring.spawn(function()
          operation(function(submit)
            submit_later = submit
            submit("first", "timeout", 0.01)
          end, function(completion) seen[#seen + 1] = completion.data end):run()
        end)
        uring.yield()
        submit_later("second", "timeout", 0.001)
        run:await()
      end)
      assert.are.same({ "second", "first" }, seen)
      for _, submit in ipairs { submit_later, submit_later.all, submit_later.link } do
        local message = error_of(submit, {}, "nop")
        assert.is_truthy(message:find("this run of the operation has ended", 1, true), message)
      end
    end)

    it("nothing during the teardown", function()
      local message
      operation(function(submit)
        submit(submit, "timeout", 3600)
        submit(nil, "nop")
      end, function() return "exit" end, function(completion)
        message = error_of(completion.data, nil, "nop")
      end):run()
      assert.is_truthy(message:find("this run of the operation has ended", 1, true), message)
    end)

    it("more than there is room for, and waits for room", function()
      local count = 0
      uring.run(function()
        operation(function(submit)
          for i = 1, 4600 do
            submit(i, "nop")
          end
        end, function() count = count + 1 end):run()
      end)
      assert.are.equal(4600, count)
      local ring = new_ring { entries = 2, backlog = 4 }
      count = 0
      operation(function(submit)
        for i = 1, 100 do
          submit(i, "nop")
        end
      end, function() count = count + 1 end):run(ring)
      assert.are.equal(100, count)
    end)
  end)

  describe("submits several at once:", function()
    it("all of them", function()
      local sum, handles = 0, nil
      operation(function(submit)
        handles = submit.all { { 1, "nop" }, { 2, "nop", { async = true } }, { 4, "timeout", 0.001 } }
        assert.are.equal(0, #submit.all {})
      end, function(completion) sum = sum + completion.data end):run()
      assert.are.equal(7, sum)
      assert.are.equal(3, #handles)
      assert.are.equal("done", handles[3]:status())
    end)

    it("or none, if one cannot be prepared", function()
      for _, ring in ipairs { core.default(), new_ring() } do
        local r, w = pipe()
        local buffer = uring.buffer(8)
        local seen = {}
        operation(function(submit)
          for _, bad in ipairs { { 3, "read" }, { 3, "read", r, buffer }, { 3, {} }, { 3 } } do
            local message = error_of(submit.all, {
              { 0, "write", w, "never" }, { 1, "read", r, buffer }, { 2, "write", w, "never" }, bad, { 4, "nop" },
            })
            assert.is_truthy(message:find "bad argument" or message:find "lent", message)
            assert.are.equal("owned", buffer:status())
          end
          submit("still running", "nop")
        end, function(completion) seen[#seen + 1] = completion.data end, function()
          error "there is nothing to be torn down"
        end):run(ring)
        assert.are.same({ "still running" }, seen)
        assert.is_false(helper.testkit.poll(r, 0)) -- nothing was written
      end
    end)

    it("also where there is hardly any room", function()
      local ring = new_ring { entries = 2, backlog = 8 }
      local r, w = pipe()
      local count, message = 0, nil
      local function run()
        operation(function(submit)
          for _ = 1, 10 do
            submit(nil, "nop")
          end
          for _ = 1, 5 do
            submit.all { { nil, "nop" }, { nil, "nop" }, { nil, "nop" }, { nil, "nop" }, { nil, "nop" } }
            error_of(submit.all, { { nil, "write", w, "never" }, { nil, "nop" }, { nil, "nop" }, { nil, "read" } })
          end
          local nine = {}
          for i = 1, 9 do
            nine[i] = { nil, "nop" }
          end
          message = error_of(submit.all, nine)
        end, function() count = count + 1 end):run(ring)
      end
      run()
      assert.are.equal(35, count)
      assert.is_truthy(message:find("more operations at once than the backlog takes", 1, true), message)
      uring.run(run)
      assert.are.equal(70, count)
      assert.is_false(helper.testkit.poll(r, 0))
    end)

    it("and waits for room in a task like everybody else", function()
      local count = 0
      uring.run(function()
        operation(function(submit)
          for _ = 1, 6 do
            local many = {}
            for i = 1, 1000 do
              many[i] = { i, "nop" }
            end
            submit.all(many)
          end
        end, function() count = count + 1 end):run()
      end)
      assert.are.equal(6000, count)
    end)

    it("linked, each after the other", function()
      local r, w = pipe()
      local buffer = uring.buffer(8)
      local seen = {}
      operation(function(submit)
        submit.link { { "write", "write", w, "linked" }, { "read", "read", r, buffer } }
      end, function(completion) seen[#seen + 1] = completion.data .. " " .. completion.result end):run()
      assert.are.same({ "write 6", "read 6" }, seen)
      assert.are.equal("linked", buffer:get(1, 6))
    end)

    it("linked, and a failure cancels what follows, unless it is a hard link", function()
      for _, hard in ipairs { false, true } do
        local codes = {}
        operation(function(submit)
          submit.link { { 1, "read", 987654, uring.buffer(1) }, { 2, "nop" }, hard = hard }
        end, function(completion) codes[completion.data] = completion.errno or 0 end):run()
        assert.are.same({ errno.EBADF, hard and 0 or errno.ECANCELED }, codes)
      end
    end)

    it("linked or not at all", function()
      local _, w = pipe()
      operation(function(submit)
        assert.is_truthy(error_of(submit.link, { { 1, "write", w, "x" } }):find "not two operations to link")
        error_of(submit.link, { { 1, "write", w, "x" }, { 2, "read" } })
        assert.are.equal(0, #submit.all {})
      end, function() error "a completion" end, function() error "a teardown" end):run()
    end)

    it("of the program's own as well", function()
      local nop = { prepare = function(_, sqe) sqe:nop() end }
      local sum = 0
      operation(function(submit)
        submit.all { { 1, nop }, { 2, "nop" } }
        submit.link { { 4, nop }, { 8, nop } }
        error_of(submit.all, { { 16, nop }, { 32, { prepare = nothing } } })
      end, function(completion) sum = sum + completion.data end):run()
      assert.are.equal(15, sum)
    end)

    it("refuses lists that are none", function()
      operation(function(submit)
        assert.is_truthy(error_of(submit.all):find("bad argument #1 to 'all' (table expected, got nil)", 1, true))
        assert.is_truthy(error_of(submit.link, 3):find("bad argument #1 to 'link' (table expected", 1, true))
        assert.is_truthy(error_of(submit.all, { "nop" }):find("expected at [1], got string", 1, true))
      end):run()
    end)
  end)

  describe("answers", function()
    local function answering(...)
      local answer = table.pack(...)
      local torn_down = 0
      return function(on_end)
        local run = operation(function(submit)
          submit(nil, "nop")
          submit(nil, "timeout", 3600)
        end, function(completion)
          if completion.name == "nop" then
            return table.unpack(answer, 1, answer.n)
          end
        end, function() torn_down = torn_down + 1 end)
        local results = table.pack(pcall(run.run, run))
        on_end(torn_down)
        return table.unpack(results, 1, results.n)
      end
    end

    local function torn_down_once(n)
      assert.are.equal(1, n)
    end

    it("\"exit\", and the run ends", function()
      local ok, warnings = answering "exit"(torn_down_once)
      assert.is_true(ok)
      assert.are.same({}, warnings)
    end)

    it("\"error\", and it is raised after the teardown", function()
      local err = {}
      local ok, got = answering("error", err)(torn_down_once)
      assert.is_false(ok)
      assert.are.equal(err, got)
      ok, got = answering "error"(torn_down_once)
      assert.is_false(ok)
      assert.are.equal("on_completion returned \"error\"", got)
    end)

    it("what there is not, which is an error", function()
      local ok, got = answering "contine"(torn_down_once)
      assert.is_false(ok)
      assert.are.equal('on_completion returned "contine": "continue", "exit", "warn" or "error" expected', got)
      ok, got = answering {}(torn_down_once)
      assert.is_false(ok)
      assert.is_truthy(got:find("on_completion returned table", 1, true))
      ok, got = answering "warn"(torn_down_once)
      assert.is_false(ok)
      assert.are.equal("on_completion returned \"warn\" without a warning", got)
    end)

    it("\"warn\", and goes on; run returns the warnings in order", function()
      local warnings = operation(function(submit)
        for i = 1, 4 do
          submit(i, "nop")
        end
      end, function(completion)
        if completion.data ~= 2 then
          return "warn", { completion.data }
        end
      end):run()
      assert.are.same({ { 1 }, { 3 }, { 4 } }, warnings)
    end)

    it("by raising, which ends it, too, with the place in the traceback", function()
      local torn_down = 0
      local message = error_of(uring.run, function()
        operation(function(submit)
          submit(nil, "timeout", 3600)
          submit(nil, "nop")
        end, function()
          local function where_it_happened()
            error "raised"
          end
          where_it_happened()
        end, function() torn_down = torn_down + 1 end):run()
      end)
      assert.is_truthy(message:find "operation_loop_spec%.lua:%d+: raised")
      assert.is_truthy(message:find("where_it_happened", 1, true), message)
      assert.are.equal(1, torn_down)
    end)
  end)

  describe("is torn down", function()
    it("from a setup that fails half-way", function()
      local r = pipe()
      local buffer = uring.buffer(1)
      local torn_down = {}
      local message = error_of(function()
        operation(function(submit)
          submit("reading", "read", r, buffer)
          submit("waiting", "timeout", 3600)
          error("half-way", 0)
        end, function() error "a completion" end, function(completion)
          torn_down[#torn_down + 1] = completion.data
        end):run()
      end)
      assert.are.equal("half-way", message)
      table.sort(torn_down)
      assert.are.same({ "reading", "waiting" }, torn_down)
      assert.are.equal("owned", buffer:status())
    end)

    it("with every connection that was accepted and not yet delivered", function()
      local fd, address = opened.listen()
      local clients, accepted, torn_down = {}, 0, 0
      operation(function(submit)
        submit("accepting", "accept", fd, 0, { multishot = true })
        for i = 1, 5 do
          clients[i] = uring.connect(address)
        end
      end, function(completion)
        accepted = accepted + 1
        op.close(completion.result)
        return "exit" -- at the first
      end, function(completion)
        assert.are.equal("accepting", completion.data)
        if completion.result then
          torn_down = torn_down + 1
          op.close(completion.result) -- may await
          assert.is_true(completion.more)
        else
          assert.are.equal(errno.ECANCELED, completion.errno)
          assert.is_false(completion.more)
        end
      end):run()
      assert.are.equal(1, accepted)
      assert.are.equal(4, torn_down)
      for i = 1, 5 do
        clients[i]:close()
      end
    end)

    it("and without on_teardown closes what nobody takes", function()
      local fd, address = opened.listen()
      local clients = {}
      operation(function(submit)
        submit(nil, "accept", fd, 0, { multishot = true })
        submit(nil, "read", (pipe()), uring.buffer(1))
        for i = 1, 5 do
          clients[i] = uring.connect(address)
        end
      end, function(completion)
        op.close(completion.result)
        return "exit"
      end):run()
      for i = 1, 5 do
        clients[i]:close()
      end
    end)

    it("with results that were faster than the cancelling", function()
      local r, w = pipe()
      local buffer = uring.buffer(8)
      local got
      operation(function(submit)
        submit("reading", "read", r, buffer)
        submit(nil, "nop")
      end, function()
        op.write(w, "data") -- it has come when this returns
        return "exit"
      end, function(completion) got = buffer:get(1, completion.result) end):run()
      assert.are.equal("data", got)
    end)

    it("to the end, whatever on_teardown raises", function()
      local r, w = pipe()
      local buffers, seen = {}, 0
      local message = error_of(function()
        operation(function(submit)
          for i = 1, 5 do
            buffers[i] = uring.buffer(1)
            submit(i, "read", r, buffers[i])
          end
          submit(nil, "nop")
        end, function() return "exit" end, function()
          seen = seen + 1
          error("failed " .. seen, 0)
        end):run()
      end)
      assert.are.equal("failed 1", message)
      assert.are.equal(5, seen)
      for i = 1, 5 do
        assert.are.equal("owned", buffers[i]:status())
      end
      op.write(w, "x")
      assert.is_true(helper.testkit.poll(r, 0)) -- nobody reads it any more
    end)

    it("and an error of the run comes before one of the teardown", function()
      local message = error_of(function()
        operation(function(submit)
          submit(nil, "timeout", 3600)
          submit(nil, "nop")
        end, function() return "error", "of the run" end, function() error "of the teardown" end):run()
      end)
      assert.are.equal("of the run", message)
    end)

    it("when the ring is closed from a callback", function()
      local ring = new_ring()
      local r = pipe()
      local torn_down = {}
      local seen = {}
      local message = error_of(function()
        operation(function(submit)
          submit("reading", "read", r, uring.buffer(1))
          submit("nop", "nop")
        end, function(completion, submit)
          seen[#seen + 1] = completion.errno or 0
          if completion.data == "nop" then
            ring:close()
            submit("again", "nop")
          end
        end, function(completion) torn_down[#torn_down + 1] = completion.errno end):run(ring)
      end)
      assert.is_truthy(message:find("closed ring", 1, true), message)
      assert.are.same({ 0 }, seen)
      assert.are.same({ errno.ECANCELED }, torn_down)
    end)

    it("when an error strikes while it waits", function()
      local main = coroutine.running()
      local torn_down = 0
      local striker = uring.spawn(function()
        uring.sleep(0.002)
        debug.sethook(main, function()
          debug.sethook(main)
          error("struck", 0)
        end, "crl", 1)
      end)
      local message = error_of(function()
        operation(function(submit) submit(nil, "timeout", 3600) end, nothing,
          function() torn_down = torn_down + 1 end):run()
      end)
      striker:await()
      assert.are.equal("struck", message)
      assert.are.equal(1, torn_down)
    end)
  end)

  describe("in a task that is cancelled", function()
    -- Cancels the task that runs it after some turns; what it came to.
    local function cancelled_after(turns, setup, on_completion, ring)
      local torn_down = {}
      local status, err
      uring.run(function()
        local task = uring.spawn(function()
          operation(setup, on_completion, function(completion)
            uring.sleep(0.0005) -- it may await all the same
            torn_down[#torn_down + 1] = completion.data
          end):run(ring)
        end)
        for _ = 1, turns do
          uring.yield()
        end
        task:cancel()
        err = select(2, pcall(task.await, task))
        status = task:status()
      end)
      return status, torn_down, err
    end

    it("while it waits is torn down first", function()
      for _, ring in ipairs { core.default(), new_ring() } do
        for turns = 1, 5 do
          local r = pipe()
          local status, torn_down, err = cancelled_after(turns, function(submit)
            submit("reading", "read", r, uring.buffer(4))
            submit("waiting", "timeout", 3600)
          end, nothing, ring)
          table.sort(torn_down)
          assert.are.equal("cancelled", status)
          assert.are.equal(uring.cancelled, err)
          assert.are.same({ "reading", "waiting" }, torn_down)
          assert.are.equal(0, ring:stats().in_flight)
        end
      end
    end)

    it("inside a callback, too", function()
      local status, torn_down = cancelled_after(3, function(submit)
        submit("never", "timeout", 3600)
        submit("nop", "nop")
      end, function() uring.sleep(60) end)
      assert.are.equal("cancelled", status)
      assert.are.same({ "never" }, torn_down)
    end)

    it("inside its setup, too", function()
      local status, torn_down = cancelled_after(1, function(submit)
        submit("never", "timeout", 3600)
        uring.sleep(60)
      end)
      assert.are.equal("cancelled", status)
      assert.are.same({ "never" }, torn_down)
    end)

    it("before it begins, never does", function()
      local status, torn_down = cancelled_after(0, function() error "it has begun" end)
      assert.are.equal("cancelled", status)
      assert.are.same({}, torn_down)
    end)

    it("at every step of a busy one leaves nothing behind", function()
      for turns = 1, 12 do
        local r, w = pipe()
        local buffer = uring.buffer(1)
        local status = cancelled_after(turns, function(submit)
          submit("reading", "read", r, buffer)
          op.write(w, "x")
        end, function(completion, submit)
          if completion.data == "reading" then
            submit("writing", "write", w, "x")
          else
            submit("reading", "read", r, buffer)
          end
        end)
        assert.are.equal("cancelled", status)
        assert.are.equal("owned", buffer:status())
        opened.close()
      end
    end)
  end)

  it("may await in its callbacks, which are never entered twice", function()
    local inside, seen = 0, 0
    uring.run(function()
      operation(function(submit)
        for i = 1, 10 do
          submit(i, "timeout", 0.001)
        end
      end, function(completion)
        inside = inside + 1
        assert.are.equal(1, inside)
        uring.sleep(0.002)
        inside = inside - 1
        seen = seen + completion.data
      end):run()
    end)
    assert.are.equal(55, seen)
  end)

  it("can run another in a callback", function()
    local inner, outer = 0, 0
    operation(function(submit) submit(nil, "nop") end, function()
      outer = outer + 1
      operation(function(submit)
        submit(nil, "nop")
        submit(nil, "timeout", 3600)
      end, function()
        inner = inner + 1
        return "exit"
      end):run()
    end):run()
    assert.are.same({ 1, 1 }, { outer, inner })
  end)

  it("keeps going through collections at the worst moments", function()
    local r, w = pipe()
    local count = 0
    operation(function(submit)
      collect()
      submit({ 0 }, "read", r, uring.buffer(4))
      collect()
      op.write(w, "data")
    end, function(completion, submit)
      collect()
      count = count + 1
      if count == helper.times(40) then
        return "exit"
      end
      op.write(w, "data")
      submit({ completion.data[1] + completion.result }, "read", r, uring.buffer(4))
      collect()
      submit.all { { { 0 }, "nop" }, { { 0 }, "nop" } }
    end, function() collect() end):run()
    assert.are.equal(helper.times(40), count)
  end)

  it("prints nothing", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local noisy = uring.operation {
        setup = function(_, submit)
          submit(1, "nop")
          submit(2, "read", 987654, uring.buffer(1))
          submit(3, "timeout", 3600)
        end;
        on_completion = function(_, completion)
          if completion.data == 1 then return "warn", "careful" end
          return "error", "no"
        end;
        on_teardown = function() error "not even this" end;
      }
      pcall(noisy.run, noisy)
      uring.run(function() pcall(noisy.run, noisy) end)
      os.exit(uring.stats().in_flight == 0 and 0 or 1)
    ]]
    assert.are.equal("", output)
    assert.are.equal(0, status)
  end)

  it("survives a program that closes the coroutine it runs in", function()
    local output, status = helper.script [[
      local uring = require "uring"
      pcall(uring.run, function()
        local co
        local task = uring.spawn(function()
          co = coroutine.running()
          uring.operation {
            setup = function(_, submit) submit(nil, "timeout", 3600) end;
            on_completion = function() end;
          }:run()
        end)
        uring.yield()
        uring.yield()
        for _ = 1, 3 do coroutine.resume(co, "bogus") end
        pcall(coroutine.close, co)
        co = nil
        collectgarbage() collectgarbage()
        pcall(task.await, task)
      end)
      for _ = 1, 100 do
        collectgarbage()
        if uring.stats().in_flight == 0 then break end
        uring.sleep(0.001)
      end
      print(uring.stats().tasks, uring.stats().in_flight)
    ]]
    assert.are.equal("0\t0\n", output)
    assert.are.equal(0, status)
  end)

  it("with all its memory refused at every single request stays consistent", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      local r, w = uring.pipe()
      local buffer = uring.buffer(4)
      local loop = uring.operation {
        setup = function(_, submit)
          submit("reading", "read", r:fd(), buffer)
          submit.all { { "a", "nop" }, { "b", "nop" } }
          submit("never", "timeout", 3600)
        end;
        on_completion = function(self, completion)
          if completion.data == "b" then return "exit" end
        end;
        on_teardown = function() end;
      }
      local function work()
        loop:run()
      end
      local failed = 0
      for _, times in ipairs { 1, 2 } do
        work()
        for n = 1, 3000 do
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
          work()
          if seen < n then break end
        end
      end
      print(failed > 20)
    ]]
    assert.are.equal("true\n", output)
    assert.are.equal(0, status)
  end)

  it("says what it is", function()
    local definition = { setup = nothing, on_completion = nothing }
    assert.are.equal(("operation loop (%s)"):format(tostring(definition)), tostring(uring.operation(definition)))
    definition.name = "echo"
    assert.are.equal("operation loop (echo)", tostring(uring.operation(definition)))
  end)

  it("refuses what is none", function()
    assert.is_truthy(error_of(uring.operation):find("table expected, got nil", 1, true))
    assert.is_truthy(error_of(uring.operation, {}):find("setup is no function but nil", 1, true))
    assert.is_truthy(error_of(uring.operation, { setup = nothing }):find("on_completion is no function", 1, true))
    assert.is_truthy(error_of(uring.operation, { setup = nothing, on_completion = nothing, on_teardown = 3 })
      :find("on_teardown is no function but number", 1, true))
    local empty = operation(nothing)
    for _, bad in ipairs { 3, {}, uring.buffer(1) } do
      assert.is_truthy(error_of(empty.run, empty, bad):find("bad argument #1 to 'run' (ring expected", 1, true))
      assert.is_truthy(error_of(uring.run_operations, { empty }, bad):find("bad argument #2 to 'run_op", 1, true))
    end
    assert.is_truthy(error_of(uring.run_operations):find("table expected, got nil", 1, true))
    assert.is_truthy(error_of(uring.run_operations, { empty, 3 }):find("expected at [2], got number", 1, true))
    local ring = new_ring()
    ring:close()
    local one = operation(function(submit) submit(nil, "nop") end)
    assert.is_truthy(error_of(one.run, one, ring):find("closed ring", 1, true))
  end)
end)

describe("several operations", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      check()
    end)
  end)

  -- One that ticks and notes it.
  local function ticking(diary, name, seconds, last)
    return uring.operation {
      name = name;
      setup = function(self, submit)
        self.count = 0
        diary[#diary + 1] = name .. " setup"
        submit(name, "timeout", seconds)
        submit(name, "timeout", 3600)
      end;
      on_completion = function(self, completion, submit)
        assert.are.equal(name, completion.data)
        self.count = self.count + 1
        if self.count == last then
          diary[#diary + 1] = name .. " exit"
          return "exit"
        end
        submit(name, "timeout", seconds)
        return "warn", name
      end;
      on_teardown = function(_, completion)
        assert.are.equal(name, completion.data)
        diary[#diary + 1] = name .. " torn down"
      end;
    }
  end

  it("run on one ring, and the first that exits ends it for all", function()
    for _, ring in ipairs { core.default(), new_ring() } do
      local diary = {}
      local slow, fast = ticking(diary, "slow", 3600, 1), ticking(diary, "fast", 0.001, 3)
      local warnings = uring.run_operations({ slow, fast }, ring)
      assert.are.same({ "fast", "fast" }, warnings)
      assert.are.same({ "slow setup", "fast setup", "fast exit" }, { table.unpack(diary, 1, 3) })
      local torn_down = { table.unpack(diary, 4) }
      table.sort(torn_down)
      assert.are.same({ "fast torn down", "slow torn down", "slow torn down" }, torn_down)
      assert.are.equal(0, ring:stats().in_flight)
    end
  end)

  it("are all torn down when a later setup fails", function()
    local diary = {}
    local failing = uring.operation {
      setup = function() error("no", 0) end;
      on_completion = nothing;
    }
    assert.are.equal("no", error_of(uring.run_operations, { ticking(diary, "first", 3600, 1), failing,
      ticking(diary, "third", 3600, 1) }))
    assert.are.same({ "first setup", "first torn down", "first torn down" }, diary)
  end)

  it("end when none has anything in flight", function()
    local seen = {}
    local function one(name)
      return operation(function(submit) submit(name, "nop") end, function(completion)
        seen[#seen + 1] = completion.data
      end)
    end
    assert.are.same({}, uring.run_operations { one "a", one "b" })
    assert.are.same({ "a", "b" }, seen)
    assert.are.same({}, uring.run_operations {})
  end)

  it("with an error of one are torn down, each by its own", function()
    local diary = {}
    local err = {}
    local failing = operation(function(submit) submit(nil, "nop") end, function() return "error", err end)
    local ok, got = pcall(uring.run_operations, { ticking(diary, "first", 3600, 1), failing })
    assert.is_false(ok)
    assert.are.equal(err, got)
    assert.are.same({ "first setup", "first torn down", "first torn down" }, diary)
  end)

  it("echo to one another over a socket", function()
    local a, b = socketpair()
    local function echoing(fd, first)
      return uring.operation {
        setup = function(self, submit)
          self.buffer = uring.buffer(16)
          if first then
            submit("send", "send", fd, "0")
          end
          submit("recv", "recv", fd, self.buffer)
        end;
        on_completion = function(self, completion, submit)
          if completion.data == "recv" then
            local n = tonumber(self.buffer:get(1, completion.result)) + 1
            if n == 100 then
              return "exit"
            end
            submit("send", "send", fd, tostring(n))
            submit("recv", "recv", fd, self.buffer)
          end
        end;
      }
    end
    local one, other = echoing(a, true), echoing(b)
    uring.run_operations { one, other }
    assert.are.equal("99", one.definition.buffer:get(1, 2))
    assert.are.equal("98", other.definition.buffer:get(1, 2))
  end)
end)

describe("flags of a completion", function()
  helper.watch(before_each, after_each)

  it("are the CQE's", function()
    local seen = {}
    operation(function(submit) submit(nil, "timeout", 0.001, 2, { multishot = true }) end, function(completion)
      seen[#seen + 1] = completion.flags & MORE
    end):run()
    assert.are.same({ MORE, 0 }, seen)
  end)
end)
