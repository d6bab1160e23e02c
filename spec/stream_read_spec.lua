-- Reading from streams: every way to cut what arrives, limits, cancelling and
-- closing at each step, several readers.

local helper = require "spec.support.helper"
local streams = require "spec.support.streams"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

local run, kinds, close = streams.run, streams.kinds, streams.close

-- Writes text in pieces of n bytes, each as a read of its own.
local function drip(w, text, n)
  for i = 1, #text, n do
    w:write(text:sub(i, i + n - 1))
    uring.yield()
    uring.yield()
  end
  w:close()
end

for kind, make in pairs(kinds) do
  describe("reading from a " .. kind, function()
    helper.watch(before_each, after_each)

    it("gives the same however it is cut", function()
      local text = "first\n\n  12.5e1 0x10 third\nheader: value\r\n\r\nbody of it\nthe rest\nno newline"
      local function read_it(r)
        return pack(r:read("l", "L", "n", "n", "l")), r:read_until("\r\n\r\n"), r:read(4), pack(r:read("l", 3, "a")),
          pack(r:read "l"), r:read "a"
      end
      local expected = { { n = 5, "first", "\n", 125.0, 16, " third" }, "header: value\r\n\r\n", "body",
        { n = 3, " of it", "the", " rest\nno newline" }, { n = 1, nil }, "" }
      for size = 1, #text do
        run(function()
          local w, r = make()
          uring.spawn(drip, w, text, size)
          assert.are.same(expected, { read_it(r) }, "pieces of " .. size)
          r:close()
        end)
        if size > 20 and helper.slow then
          break
        end
      end
    end)

    it("finds a delimiter that lies across pieces", function()
      for _, delimiter in ipairs { "\n", "ab", "aab", "\r\n.\r\n", ("xy"):rep(50) } do
        local text = "a" .. delimiter .. delimiter:sub(1, -2) .. "q" .. delimiter .. "end"
        for size = 1, helper.slow and 3 or 12 do
          run(function()
            local w, r = make()
            uring.spawn(drip, w, text, size)
            local i = select(2, text:find(delimiter, 1, true))
            local j = select(2, text:find(delimiter, i + 1, true))
            assert.are.equal(text:sub(1, i), r:read_until(delimiter))
            assert.are.equal(text:sub(i + 1, j), r:read_until(delimiter))
            assert.are.equal(text:sub(j + 1), r:read_until(delimiter) or "")
            assert.are.same({ n = 1, nil }, pack(r:read_until(delimiter)))
            r:close()
          end)
        end
      end
    end)

    it("gives up on a delimiter that is too far, and takes nothing", function()
      local w, r = make()
      w:write "0123456789\n"
      assert.are.same({ n = 3, nil, "no delimiter within 5 bytes", errno.EMSGSIZE }, pack(r:read_until("\n", 5)))
      assert.are.same({ n = 3, nil, "no delimiter within 10 bytes", errno.EMSGSIZE }, pack(r:read_until("\n", 10)))
      assert.are.equal("0123456789\n", r:read_until("\n", 11))
      w:write "0123456789"
      assert.are.same({ n = 3, nil, "no delimiter within 10 bytes", errno.EMSGSIZE }, pack(r:read_until("\n", 10)))
      w:close()
      assert.are.equal("0123456789", r:read_until("\n", 11))
      assert.is_nil(r:read_until "\n")
      r:close()
    end)

    it("keeps to its limits, and takes nothing past them", function()
      local w, r = make()
      assert.are.same({ line = 1 << 20, all = 1 << 28 }, r:limit())
      assert.are.same({ line = 5, all = 1 << 28 }, r:limit { line = 5 })
      assert.are.same({ line = 5, all = 8 }, r:limit { all = 8 })
      w:write "123456\n12345\n1234567890"
      local long = { n = 3, nil, "line is longer than 5 bytes", errno.EMSGSIZE }
      for _ = 1, 2 do
        assert.are.same(long, pack(r:read "l"))
        assert.are.same(long, pack(r:read "L"))
        assert.are.same({ n = 3, nil, "no delimiter within 5 bytes", errno.EMSGSIZE }, pack(r:read_until "\n"))
      end
      assert.is_truthy(helper.error_of(r:lines()):find("line is longer than 5 bytes", 1, true))
      assert.are.same({ n = 3, nil, "there are more than 8 bytes", errno.EMSGSIZE }, pack(r:read "a"))
      assert.are.equal("1", r:read(1))
      assert.are.equal("23456\n", r:read "L")
      assert.are.equal("12345", r:read "l")
      w:close()
      assert.are.same({ n = 3, nil, "there are more than 8 bytes", errno.EMSGSIZE }, pack(r:read "a"))
      r:limit { all = 10 }
      assert.are.equal("1234567890", r:read "a")
      r:limit { line = 1 << 40, all = math.maxinteger }
      assert.are.same({ line = math.huge, all = math.huge }, r:limit())
      r:close()
    end)

    it("refuses bad arguments", function()
      local w, r = make()
      w:write "in hand"
      for _, wrong in ipairs { 5, true, {}, "" } do
        assert.is_truthy(helper.error_of(function() r:read_until(wrong) end)
          :find("bad argument #1 to 'read_until' (a string that is not empty expected)", 1, true))
      end
      assert.is_truthy(helper.error_of(function() r:read_until() end):find("bad argument #1 to 'read_until'", 1, true))
      for _, wrong in ipairs { 0, -1, 1.5, "5", true } do
        assert.is_truthy(helper.error_of(function() r:read_until("x", wrong) end)
          :find("bad argument #2 to 'read_until' (positive integer expected)", 1, true))
      end
      assert.is_truthy(helper.error_of(r.limit, r, { lines = 5 }):find(
        "unknown option 'lines' of limit (did you mean 'line'?); it takes all line", 1, true))
      assert.is_truthy(helper.error_of(r.limit, r, { line = "5" }):find("integer expected, got string", 1, true))
      assert.is_truthy(helper.error_of(r.limit, r, { line = 0 })
        :find("option 'line' of limit is not positive", 1, true))
      for _, wrong in ipairs { "5", true, {} } do
        assert.is_truthy(helper.error_of(r.timeout, r, wrong)
          :find("bad argument #1 to 'timeout' (seconds or nil expected, got " .. type(wrong), 1, true))
      end
      for _, wrong in ipairs { -1, 0 / 0, -math.huge } do
        assert.is_truthy(helper.error_of(r.timeout, r, wrong):find("(seconds are negative)", 1, true))
      end
      for _, name in ipairs { "read", "read_some", "read_until", "recv", "write", "flush", "seek", "setvbuf",
        "lines" } do
        for _, wrong in ipairs { 5, "x", {}, io.stdout } do
          assert.is_false(pcall(r[name], wrong))
        end
        assert.is_false(pcall(r[name]))
      end
      assert.are.equal("in hand", r:read_some())
      close(w, r)
    end)

    it("has a limit of time for each single call, and loses nothing by it", function()
      local w, r = make()
      run(function()
        local late = { n = 3, nil, "timeout", errno.ETIMEDOUT }
        assert.are.equal(r, r:timeout(0.01))
        for _, read in ipairs {
          function() return r:read() end, function() return r:read(5) end, function() return r:read "n" end,
          function() return r:read "a" end, function() return r:read_some() end,
          function() return r:read_until "x" end,
          function() return r:recv(uring.buffer(5)) end,
        } do
          local before = uring.now()
          assert.are.same(late, pack(read()))
          local took = uring.now() - before
          assert.is_true(took >= 0.0099 and took < 2, took)
        end
        w:write "par"
        assert.are.same(late, pack(r:read()))
        assert.are.same(late, pack(r:read("l", "l")))
        w:write "t\n"
        assert.are.equal("part", r:read())
        assert.is_truthy(helper.error_of(r:lines()):find "timeout$")
        local task = uring.spawn(r.read, r)
        uring.sleep(0.002)
        w:write "in time\n"
        assert.are.equal("in time", task:await())
        r:timeout(0)
        assert.are.same(late, pack(r:read()))
        w:write "there\n"
        uring.sleep(0.002)
        r:read(0)
        assert.are.equal(r, r:timeout(nil))
        assert.are.equal("there", r:read())
        task = uring.spawn(r.read, r)
        uring.sleep(0.03)
        assert.are.equal("waiting", task:status())
        w:write "late enough\n"
        assert.are.equal("late enough", task:await())
        r:timeout(math.huge)
        w:write "y"
        assert.are.equal("y", r:read(1))
      end)
      r:timeout(0.01)
      assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(r:read())) -- outside of tasks
      w:write "out"
      assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(r:read()))
      w:write "side\n"
      assert.are.equal("outside", r:read())
      close(w, r)
    end)

    it("counts the time in line, too", function()
      local w, r = make()
      run(function()
        local first = uring.spawn(r.read, r)
        uring.yield()
        r:timeout(0.01)
        assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(r:read()))
        assert.are.equal("waiting", first:status())
        w:write "for the first\nmore\n"
        assert.are.equal("more", r:read())
        assert.are.equal("for the first", first:await())
      end)
      close(w, r)
    end)

    it("cancelled at any step, loses nothing", function()
      local text = "one\n2 three\nfour#rest"
      local function steps(r)
        return r:read("l", "n", "l"), r:read_until "#", r:read(4)
      end
      for cut = 0, #text do
        run(function()
          local w, r = make()
          local done = 0
          local function reader()
            local a, b, c = r:read("l", "n", "l")
            assert.are.same({ "one", 2, " three" }, { a, b, c })
            done = 1
            assert.are.equal("four#", r:read_until "#")
            done = 2
            assert.are.equal("rest", r:read(4))
            done = 3
          end
          w:write(text:sub(1, cut))
          local task = uring.spawn(reader)
          uring.sleep(0)
          for _ = 1, 3 do
            uring.yield()
          end
          task:cancel()
          collectgarbage()
          local ok = pcall(task.await, task)
          assert.are.equal(done == 3, ok)
          w:write(text:sub(cut + 1))
          w:close()
          local left = text
          if done >= 1 then left = left:sub(13) end
          if done >= 2 then left = left:sub(6) end
          if done >= 3 then left = "" end
          assert.are.equal(left, r:read "a", "cut at " .. cut)
          r:close()
        end)
      end
      assert.is_function(steps)
    end)

    it("closed at any step, says so", function()
      run(function()
        for _, reading in ipairs {
          function(r) return r:read("l", "l") end, function(r) return r:read_until "#" end,
          function(r) return r:read "a" end,
          function(r) return r:read(100) end, function(r) return r:read "n" end,
        } do
          for _, sent in ipairs { "", "1", "12" } do
            local w, r = make()
            w:write(sent)
            local tasks = {}
            for i = 1, 3 do
              tasks[i] = uring.spawn(reading, r)
            end
            for _ = 1, 3 do
              uring.yield()
            end
            assert.is_true(r:close())
            for i = 1, 3 do
              local results = pack(tasks[i]:await())
              assert.are.same({ n = 3, nil, "closed", errno.ECANCELED }, results)
            end
            w:close()
          end
        end
      end)
    end)

    it("is one reader's after the other's, in their order", function()
      run(function()
        local w, r = make()
        local got, tasks = {}, {}
        for i = 1, 5 do
          tasks[i] = uring.spawn(function()
            local s = r:read(6)
            got[#got + 1] = i .. s
          end)
        end
        uring.yield()
        local text = "aaaaaabbbbbbccccccddddddeeeeee"
        for i = 1, #text do
          w:write(text:sub(i, i))
          uring.yield()
          uring.yield()
        end
        uring.await(table.unpack(tasks))
        assert.are.same({ "1aaaaaa", "2bbbbbb", "3cccccc", "4dddddd", "5eeeeee" }, got)
        close(w, r)
      end)
    end)

    it("goes on for those in line when one of them is cancelled", function()
      run(function()
        for victim = 1, 4 do
          local w, r = make()
          local got, tasks = {}, {}
          for i = 1, 4 do
            tasks[i] = uring.spawn(function()
              local s = r:read "l"
              got[#got + 1] = i .. s
            end)
          end
          uring.yield()
          w:write "half"
          uring.sleep(0.001)
          tasks[victim]:cancel()
          w:write " x\ny\nz\n"
          for i = 1, 4 do
            pcall(tasks[i].await, tasks[i])
          end
          assert.are.equal("cancelled", tasks[victim]:status())
          local order = {}
          for i = 1, 4 do
            if i ~= victim then
              order[#order + 1] = i .. ({ "half x", "y", "z" })[#order + 1]
            end
          end
          assert.are.same(order, got)
          close(w, r)
        end
      end)
    end)

    it("wakes a reader that was given the lane and cancelled at once", function()
      run(function()
        local w, r = make()
        local a = uring.spawn(r.read, r, "l")
        local b = uring.spawn(r.read, r, "l")
        local c = uring.spawn(r.read, r, "l")
        uring.yield()
        uring.spawn(function()
          a:await()
          b:cancel() -- b is ready, and has the lane
        end)
        w:write "1\n"
        uring.sleep(0.002)
        w:write "2\n"
        assert.are.equal("1", a:await())
        local ok, got = pcall(b.await, b)
        if ok then -- it was faster
          assert.are.equal("2", got)
          w:write "3\n"
          assert.are.equal("3", c:await())
        else
          assert.are.equal("2", c:await())
        end
        close(w, r)
      end)
    end)

    it("works outside of tasks while a task reads, too", function()
      local w, r = make()
      local task
      uring.scope(function(scope)
        task = scope:spawn(r.read, r)
        scope:spawn(function()
          uring.sleep(0.002)
          w:write "1\n2\n"
        end)
      end)
      w:write "3\n"
      assert.are.equal("1", task:await())
      assert.are.equal("2", r:read())
      assert.are.equal("3", r:read())
      close(w, r)
    end)

    it("interrupted outside of tasks, keeps the bytes and lets others read", function()
      local w, r = make()
      w:write "part"
      assert.are.equal("", r:read(0))
      local outside = coroutine.running()
      local function interrupt()
        debug.sethook()
        error("interrupted", 0)
      end
      local ok, err
      uring.spawn(function()
        uring.sleep(0.002)
        debug.sethook(outside, interrupt, "", 1)
      end)
      ok, err = pcall(r.read, r, 10)
      assert.is_false(ok)
      assert.are.equal("interrupted", err)
      w:write "s\n"
      assert.are.equal("parts", r:read())
      close(w, r)
    end)

    it("works in coroutines of uring.coroutine", function()
      local w, r = make()
      run(function()
        local lines = uring.coroutine.wrap(function()
          for line in r:lines() do
            uring.coroutine.yield(line)
          end
        end)
        uring.spawn(function()
          for i = 1, 3 do
            uring.sleep(0.001)
            w:write(i, "\n")
          end
          w:close()
        end)
        assert.are.same({ "1", "2", "3", nil }, { lines(), lines(), lines(), lines() })
      end)
      r:close()
    end)

    it("cannot await where Lua cannot suspend, and holds nothing then", function()
      local w, r = make()
      run(function()
        local message = helper.error_of(function()
          table.sort({ 1, 2, 3 }, function(a, b)
            r:read()
            return a < b
          end)
        end)
        assert.is_truthy(message:find("cannot await inside", 1, true), message)
        message = helper.error_of(coroutine.wrap(function() r:read() end))
        assert.is_truthy(message:find("cannot await inside a coroutine", 1, true), message)
        w:write "fine\n"
        assert.are.equal("fine", r:read())
      end)
      close(w, r)
    end)

    it("holds no memory when nothing is in hand", function()
      local w, r = make()
      run(function()
        w:write(("x"):rep(3000), "\n")
        assert.are.equal(3000, #r:read())
        local task = uring.spawn(r.read, r)
        uring.sleep(0.001)
        assert.are.equal(0, uring.stats().bytes_lent) -- it waits, and has no buffer
        w:write "\n"
        assert.are.equal("", task:await())
      end)
      close(w, r)
    end)

    it("takes more at a time where more comes, and less again", function()
      local w, r = make()
      run(function()
        local data = ("0123456789abcdef"):rep(60000)
        uring.spawn(function()
          w:write(data)
          for _ = 1, 50 do
            w:write "tiny"
            uring.yield()
          end
          w:close()
        end)
        local largest, parts = 0, {}
        for _ = 1, 100000 do
          local part = r:read_some(1 << 20)
          if not part then break end
          largest = math.max(largest, #part)
          parts[#parts + 1] = part
        end
        assert.is_true(table.concat(parts) == data .. ("tiny"):rep(50))
        assert.is_true(largest > 4096, largest)
      end)
      r:close()
    end)

    it("collects garbage at the worst moment", function()
      run(function()
        for _ = 1, 5 do
          local w, r = make()
          local task = uring.spawn(function() return r:read("l", "n", "L", 3) end)
          for _, piece in ipairs { "a", "b\n1", "2", " x", "\nqq", "q" } do
            w:write(piece)
            collectgarbage()
            uring.yield()
            collectgarbage()
          end
          assert.are.same({ "ab", 12, " x\n", "qqq" }, { task:await() })
          w, r, task = nil, nil, nil -- luacheck: ignore
          collectgarbage()
          collectgarbage()
        end
      end)
    end)
  end)
end

describe("the pool that streams share", function()
  helper.watch(before_each, after_each)

  it("may be empty", function()
    run(function()
      local n = 300 -- more than it has buffers
      local readers, writers, tasks = {}, {}, {}
      for i = 1, n do
        writers[i], readers[i] = assert(uring.socketpair())
        tasks[i] = uring.spawn(function() return readers[i]:read(10) end)
      end
      uring.yield()
      for i = 1, n do
        uring.spawn(function() writers[i]:write(("%05d"):format(i)) end)
      end
      uring.sleep(0.005)
      for i = 1, n do
        uring.spawn(function() writers[i]:write(("%05d"):format(i)) end)
      end
      for i = 1, n do
        assert.are.equal(("%05d"):format(i):rep(2), tasks[i]:await())
      end
      for i = 1, n do -- all of them have something in hand
        writers[i]:write(("%05d"):format(i))
        assert.are.equal("", readers[i]:read(0))
      end
      for i = 1, n do
        assert.are.equal(("%05d"):format(i), readers[i]:read(5))
        close(readers[i], writers[i])
      end
    end)
  end)

  it("is made anew with a new ring", function()
    local output, status = helper.script [[
      local uring = require "uring"
      for i = 1, 3 do
        local w, r = uring.socketpair()
        w:write(i, "\nrest")
        assert(r:read() == tostring(i))
        if i == 2 then uring.close() end -- with bytes of its pool in hand
        assert(r:read(4) == "rest")
        r:close()
        w:close()
        uring.close()
      end
      print "fine"
    ]]
    assert.are.equal("fine\n", output)
    assert.are.equal(0, status)
  end)

  it("is none of a child's", function()
    local output, status = helper.script [[
      local testkit = require "testkit"
      local uring = require "uring"
      local w, r = uring.socketpair()
      w:write "one\ntwo\n"
      assert(r:read() == "one")
      uring.spawn(function() r:read "a" end)
      uring.yield()
      uring.yield()
      local pid = testkit.fork()
      if pid == 0 then
        uring.close()
        local a, b = uring.socketpair()
        a:write "child\n"
        r:timeout(0.01)
        local line, message = r:read() -- the parent's task is not in line here
        local hand = r:read(4)
        testkit.exit(b:read() == "child" and line == "two" and hand == nil and 0 or 3)
      end
      print(testkit.wait(pid))
      os.exit(0)
    ]]
    assert.are.equal("0\n", output)
    assert.are.equal(0, status)
  end)
end)

describe("what blocks for others", function()
  helper.watch(before_each, after_each)

  it("is waited for where somebody has made a descriptor non-blocking", function()
    run(function()
      for _, make in pairs(kinds) do
        local w, r = make()
        helper.testkit.unblock_descriptor(r:fd())
        helper.testkit.unblock_descriptor(w:fd())
        local task = uring.spawn(function() return r:read "a" end)
        uring.sleep(0.001)
        local data = ("x"):rep(3000000)
        assert.are.equal(w, w:write(data))
        w:close()
        assert.is_true(task:await() == data)
        r:close()
      end
    end)
  end)
end)
