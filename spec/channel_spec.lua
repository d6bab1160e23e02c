-- Channels and select: order, closing, cancelling at every moment, collection.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local sync = uring.sync or core.sync
local channel = sync.channel

local function script(chunk)
  return helper.script('local uring = require "uring"; local core = require "uring.core"\n' ..
    'local sync = uring.sync or core.sync\n' .. chunk, "timeout --foreground -k 1 30 env ")
end

local function pack(...)
  return table.pack(...)
end

-- Lets every task that is ready run, a few times.
local function turns(n)
  for _ = 1, n or 3 do
    uring.yield()
  end
end

-- Ends a task that is in the way of the end of a run.
local function stop(task)
  task:cancel()
  pcall(task.await, task)
end

describe("a channel", function()
  helper.watch(before_each, after_each)

  it("hands over values of every type", function()
    local values = { false, true, 0, -1, 1.5, math.huge, "", "text", {}, print, function() end,
      coroutine.create(print), io.stdout, math.mininteger, channel() }
    for _, capacity in ipairs { 0, 1, 3, 100 } do
      local ch = channel(capacity)
      local got = uring.run(function()
        uring.spawn(function()
          for _, value in ipairs(values) do
            assert.is_true(ch:send(value))
          end
          ch:close()
        end)
        local list = {}
        for value in ch:values() do
          list[#list + 1] = value
        end
        return list
      end)
      assert.are.equal(#values, #got)
      for i, value in ipairs(values) do
        assert.is_true(rawequal(value, got[i]))
      end
    end
  end)

  it("refuses nil and what is no channel", function()
    local ch = channel(1)
    for _, name in ipairs { "send", "try_send" } do
      assert.matches("nil is what a closed channel gives", helper.error_of(ch[name], ch, nil))
      assert.matches("value expected", helper.error_of(ch[name], ch))
      assert.matches("channel expected", helper.error_of(ch[name], {}, 1))
      assert.matches("channel expected", helper.error_of(ch[name], io.stdout, 1))
    end
    assert.matches("channel expected", helper.error_of(ch.receive, sync.mutex()))
    assert.matches("out of range", helper.error_of(channel, -1))
    assert.matches("out of range", helper.error_of(channel, math.maxinteger))
    assert.matches("number expected", helper.error_of(channel, "x"))
    assert.matches("no integer representation", helper.error_of(channel, 1.5))
    assert.are.equal(0, #ch)
  end)

  it("is a rendezvous without a buffer", function()
    uring.run(function()
      local ch, log = channel(), {}
      assert.is_false(ch:try_send(1))
      local sender = uring.spawn(function()
        log[#log + 1] = "sends"
        ch:send "x"
        log[#log + 1] = "sent"
      end)
      turns()
      assert.are.same({ "sends" }, log)
      assert.are.equal(0, #ch)
      assert.are.equal("x", ch:receive())
      assert.are.same({ "sends" }, log)
      sender:await()
      assert.are.same({ "sends", "sent" }, log)
    end)
  end)

  it("keeps its order round and round the buffer", function()
    for _, capacity in ipairs { 1, 2, 3, 7, 64, 65, 200 } do
      local ch = channel(capacity)
      local sent, received = 0, 0
      math.randomseed(capacity)
      for _ = 1, helper.times(3000) do
        if math.random() < 0.5 then
          if ch:try_send(sent + 1) then
            sent = sent + 1
          else
            assert.are.equal(capacity, #ch)
          end
        else
          local value = ch:try_receive()
          if value then
            received = received + 1
            assert.are.equal(received, value)
          else
            assert.are.equal(0, #ch)
          end
        end
        assert.are.equal(sent - received, #ch)
      end
      assert.is_true(sent > 2 * capacity or helper.slow)
    end
  end)

  it("says how it is", function()
    local ch <close> = channel(3)
    ch:try_send "a"
    assert.matches("^channel %(1 of 3, 0x%x+%)$", tostring(ch))
    ch:close()
    assert.matches("^channel %(1 of 3, closed, 0x%x+%)$", tostring(ch))
    assert.is_true(ch:is_closed())
  end)

  it("lets go of what was received", function()
    local ch = channel(2)
    local weak = setmetatable({ {}, {} }, { __mode = "v" })
    ch:try_send(weak[1])
    ch:try_send(weak[2])
    helper.collect()
    assert.is_truthy(weak[1] and weak[2])
    ch:try_receive()
    helper.collect()
    assert.is_nil(weak[1])
    assert.is_truthy(weak[2])
  end)

  for _, capacity in ipairs { 0, 1, 4 } do
    it(("serves who has waited longest, %d places"):format(capacity), function()
      uring.run(function()
        local ch, log = channel(capacity), {}
        for i = 1, 5 do
          uring.spawn(function()
            local value = ch:receive()
            log[#log + 1] = i .. "=" .. value
          end)
        end
        turns()
        for i = 1, 5 do
          assert.is_true(ch:try_send(i))
          assert.is_nil((ch:try_receive())) -- it is another's already
        end
        turns()
        assert.are.same({ "1=1", "2=2", "3=3", "4=4", "5=5" }, log)
        for i = 1, capacity do
          assert.is_true(ch:try_send(-i))
        end
        for i = 1, 5 do
          uring.spawn(function()
            assert(ch:send(i))
            log[#log + 1] = i
          end)
        end
        turns()
        log = {}
        for i = 1, capacity do
          assert.is_false(ch:try_send "newcomer")
          assert.are.equal(-i, ch:try_receive())
        end
        for i = 1, 5 do
          assert.are.equal(i, ch:try_receive())
        end
        assert.is_nil((ch:try_receive()))
        turns()
        assert.are.same({ 1, 2, 3, 4, 5 }, log)
      end)
    end)

    it(("closes over those who wait, %d places"):format(capacity), function()
      uring.run(function()
        local ch, ended = channel(capacity), {}
        local function note(...)
          ended[#ended + 1] = pack(...)
        end
        for _ = 1, 3 do
          uring.spawn(function() note(ch:receive()) end)
        end
        turns()
        ch:close()
        turns()
        assert.are.same({ { n = 2, nil, "closed" }, { n = 2, nil, "closed" }, { n = 2, nil, "closed" } }, ended)
        for _, name in ipairs { "send", "try_send", "receive", "try_receive" } do
          assert.are.same({ n = 2, nil, "closed" }, pack(ch[name](ch, 1)))
        end
        ch:close()

        ch, ended = channel(capacity), {}
        for i = 1, capacity do
          ch:send(i)
        end
        for _ = 1, 3 do
          uring.spawn(function() note(ch:send "late") end)
        end
        turns()
        ch:close()
        turns()
        assert.are.same({ { n = 2, nil, "closed" }, { n = 2, nil, "closed" }, { n = 2, nil, "closed" } }, ended)
        local left = {}
        for value in ch:values() do
          left[#left + 1] = value
        end
        assert.are.equal(capacity, #left)
        assert.are.same({ n = 2, nil, "closed" }, pack(ch:receive()))
      end)
    end)

    it(("has the main chunk on either side, %d places"):format(capacity), function()
      local ch = channel(capacity)
      local sum = 0
      local task = uring.spawn(function()
        for value in ch:values() do
          sum = sum + value
          uring.sleep(0)
        end
        return "done"
      end)
      for i = 1, 10 do
        assert.is_true(ch:send(i))
      end
      ch:close()
      assert.are.equal("done", task:await())
      assert.are.equal(55, sum)
      ch = channel(capacity)
      uring.spawn(function()
        for i = 1, 10 do
          assert(ch:send(i))
        end
        uring.sleep(0.001)
        ch:close()
      end)
      local list = {}
      for value in ch:values() do
        list[#list + 1] = value
      end
      assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, list)
    end)
  end

  it("tells of a deadlock", function()
    local ch = channel()
    assert.matches("deadlock", helper.error_of(ch.receive, ch))
    assert.matches("deadlock", helper.error_of(ch.send, ch, 1))
    assert.matches("deadlock", helper.error_of(sync.select, { ch, { ch, 1 } }))
    for _, wait in ipairs { function() channel():receive() end, function() channel():send(1) end,
      function() sync.select { channel(), { channel(), 1 } } end } do
      local task
      assert.matches("deadlock: 1 task", helper.error_of(function()
        task = uring.spawn(function()
          helper.collect() -- nobody else has the channel
          wait()
        end)
        task:await()
      end))
      helper.collect()
      assert.are.equal("waiting", task:status())
      stop(task)
      assert.are.equal("cancelled", task:status())
    end
    assert.is_false(ch:try_send(1)) -- the main chunk has left its place
  end)

  it("is one of many between many tasks, and nothing is lost or doubled", function()
    math.randomseed(4)
    for round = 1, helper.times(30) do
      uring.run(function()
        local chs, got, total = {}, {}, 0
        for i = 1, 3 do
          chs[i] = channel(math.random(0, 3))
        end
        local senders, receivers = {}, {}
        for s = 1, 6 do
          senders[s] = uring.spawn(function()
            for i = 1, 20 do
              local value = s * 100 + i
              if math.random() < 0.5 then
                assert(chs[math.random(3)]:send(value))
              else
                assert(select(2, sync.select { { chs[1], value }, { chs[2], value }, { chs[3], value } }))
              end
              total = total + 1
              if math.random() < 0.2 then
                uring.yield()
              end
            end
          end)
        end
        local function take(value)
          if value ~= nil then
            assert(not got[value], "doubled")
            got[value] = true
          end
        end
        for r = 1, 5 do
          receivers[r] = uring.spawn(function()
            while true do
              if math.random() < 0.5 then
                take((select(2, sync.select(chs))))
              else
                take((chs[math.random(3)]:receive()))
              end
              if math.random() < 0.2 then
                uring.yield()
              end
            end
          end)
        end
        -- receivers are cancelled at any time, and others come in their place
        for _ = 1, 10 do
          turns(math.random(3))
          local r = math.random(5)
          receivers[r]:cancel()
          receivers[#receivers + 1] = uring.spawn(function()
            while true do
              take((select(2, sync.select(chs))))
            end
          end)
        end
        for _, sender in ipairs(senders) do
          sender:await()
        end
        for _, ch in ipairs(chs) do
          for value in function() return ch:try_receive() end do
            take(value)
          end
        end
        turns()
        for _, receiver in ipairs(receivers) do
          stop(receiver)
        end
        local n = 0
        for _ in pairs(got) do
          n = n + 1
        end
        assert.are.equal(120, total)
        assert.are.equal(120, n, "round " .. round)
      end)
    end
  end)
end)

describe("cancelling what waits for a channel", function()
  helper.watch(before_each, after_each)

  -- The ways to wait, each with how the other side comes to it.
  local ways = {
    receive = { wait = function(ch) return ch:receive() end, serve = function(ch) return ch:try_send "v" end,
      got = "v" };
    send = { wait = function(ch) return ch:send "v" end, serve = function(ch) return ch:try_receive() end,
      got = true };
    ["select to receive"] = { wait = function(ch) return (select(2, sync.select { ch, channel(), ch })) end,
      serve = function(ch) return ch:try_send "v" end, got = "v" };
    ["select to send"] = { wait = function(ch) return (select(2, sync.select { channel(), { ch, "v" } })) end,
      serve = function(ch) return ch:try_receive() end, got = true };
  }

  for name, way in pairs(ways) do
    it(name .. ": while it waits it leaves its place", function()
      uring.run(function()
        local ch = channel()
        local first = uring.spawn(way.wait, ch)
        local second = uring.spawn(way.wait, ch)
        turns()
        first:cancel()
        first:cancel()
        assert.is_truthy(way.serve(ch)) -- before the first has run
        assert.is_falsy(way.serve(ch))
        assert.are.equal(way.got, second:await())
        assert.are.equal(uring.cancelled, select(2, pcall(first.await, first)))
      end)
    end)

    it(name .. ": what has been granted is delivered", function()
      uring.run(function()
        local ch, got, after = channel(), nil, nil
        local task = uring.spawn(function()
          got = way.wait(ch)
          after = pack(pcall(uring.yield))
        end)
        turns()
        assert.is_truthy(way.serve(ch))
        task:cancel()
        task:cancel()
        pcall(task.await, task)
        assert.are.equal(way.got, got)
        assert.are.same({ n = 2, false, uring.cancelled }, after)
        assert.is_falsy(way.serve(ch))
      end)
    end)

    it(name .. ": closed first is closed", function()
      uring.run(function()
        local ch, got = channel(), "nothing"
        local task = uring.spawn(function() got = way.wait(ch) end)
        turns()
        ch:close()
        task:cancel()
        task:await()
        assert.is_nil(got)
      end)
    end)

    it(name .. ": a shield holds it back", function()
      uring.run(function()
        local ch, got, after = channel(), nil, nil
        local task = uring.spawn(function()
          uring.shield(function() got = way.wait(ch) end)
          after = pack(pcall(way.wait, ch))
        end)
        turns()
        task:cancel()
        turns()
        assert.is_nil(got)
        assert.is_truthy(way.serve(ch))
        pcall(task.await, task)
        assert.are.equal(way.got, got)
        assert.are.same({ n = 2, false, uring.cancelled }, after)
        assert.is_falsy(way.serve(ch))
      end)
    end)

    it(name .. ": one that is cancelled waits for nothing and takes nothing", function()
      uring.run(function()
        local ch, raised = channel(), nil
        local task = uring.spawn(function()
          pcall(uring.sleep, 60)
          raised = pack(pcall(way.wait, ch))
        end)
        turns()
        task:cancel()
        task:await()
        assert.are.same({ n = 2, false, uring.cancelled }, raised)
        assert.is_falsy(way.serve(ch))
      end)
    end)

    it(name .. ": resumed by the program, with and without what it waits for", function()
      uring.run(function()
        local ch, co, got = channel(), nil, nil
        local task = uring.spawn(function()
          co = coroutine.running()
          got = pack(way.wait(ch))
        end)
        turns()
        for i = 1, 100 do
          assert.is_true(coroutine.resume(co, i, "junk", {}, "more", 1, 2, 3, 4, 5, 6, 7, 8, 9))
        end
        helper.collect()
        assert.is_nil(got)
        assert.is_truthy(way.serve(ch))
        for i = 1, 100 do
          assert.is_true(coroutine.resume(co, i, "junk", {}))
        end
        helper.collect()
        task:await()
        assert.are.same({ n = 1, way.got }, got)
      end)
    end)

    it(name .. ": its coroutine closed by the program, its place is nobody's", function()
      for _, collect in ipairs { false, true } do
        uring.run(function()
          local ch, co = channel(), nil
          local closed = uring.spawn(function()
            co = coroutine.running()
            way.wait(ch)
          end)
          turns()
          local next_one = uring.spawn(way.wait, ch)
          local told = uring.spawn(function() return helper.error_of(closed.await, closed) end)
          turns()
          assert.is_true(coroutine.close(co))
          if collect then
            helper.collect()
          end
          assert.is_truthy(way.serve(ch))
          assert.are.equal(way.got, next_one:await())
          assert.matches("cannot resume dead coroutine", told:await())
        end)
      end
    end)
  end

  it("a channel that only a closed coroutine had wakes its task", function()
    uring.run(function()
      for _, wait in ipairs { function() channel():receive() end, function() channel():send(1) end,
        function() sync.select { channel(), { channel(), 1 } } end } do
        local co
        local task = uring.spawn(function()
          co = coroutine.running()
          wait()
        end)
        local told = uring.spawn(function() return helper.error_of(task.await, task) end)
        turns()
        coroutine.close(co)
        helper.collect()
        assert.matches("cannot resume dead coroutine", told:await())
      end
    end)
  end)

  it("the main chunk does not take one whose coroutine was closed for the other side", function()
    local told = {}
    for i, way in ipairs { function(ch) ch:receive() end, function(ch) ch:send "lost" end } do
      for _, main in ipairs { function(ch) return i == 1 and ch:send(1) or ch:receive() end,
        function(ch) return sync.select { i == 1 and { ch, 1 } or ch } end } do
        local ch, co = channel(), nil
        local task = uring.spawn(function()
          co = coroutine.running()
          way(ch)
        end)
        told[#told + 1] = uring.spawn(function() return helper.error_of(task.await, task) end)
        uring.spawn(function() -- in the turn in which that came to wait
          coroutine.close(co)
          uring.sleep(0.001)
          ch:close()
        end)
        main(ch)
        assert.is_true(ch:is_closed())
      end
    end
    for _, task in ipairs(told) do
      assert.matches("cannot resume dead coroutine", task:await())
    end
  end)

  it("values of senders that were cancelled never arrive", function()
    uring.run(function()
      local ch = channel(1)
      ch:send "in the buffer"
      local tasks = {}
      for i = 1, 10 do
        tasks[i] = uring.spawn(function() ch:send(i) end)
      end
      turns()
      for i = 1, 10, 2 do
        stop(tasks[i])
      end
      local got = {}
      for value in function() return ch:try_receive() end do
        got[#got + 1] = value
      end
      assert.are.same({ "in the buffer", 2, 4, 6, 8, 10 }, got)
    end)
  end)

  it("keeps what parked senders have on their stacks", function()
    uring.run(function()
      local ch = channel()
      for i = 1, 5 do
        uring.spawn(function() ch:send { i } end)
      end
      turns()
      for i = 1, 5 do
        helper.collect()
        assert.are.same({ i }, ch:receive())
      end
      -- and what has been handed over and not yet been looked at
      local task = uring.spawn(function() return ch:receive() end)
      turns()
      ch:try_send { "handed over" }
      helper.collect()
      assert.are.same({ "handed over" }, task:await())
    end)
  end)

  it("a finaliser may send, receive and close", function()
    uring.run(function()
      local ch = channel(4)
      local task = uring.spawn(function()
        local list = {}
        for value in ch:values() do
          list[#list + 1] = value
        end
        return #list
      end)
      turns()
      for i = 1, 5 do
        setmetatable({}, { __gc = function()
          ch:try_send(i)
          if i == 5 then
            assert(not pcall(ch.send, channel(), 1)) -- nobody can wait here
          end
        end })
      end
      for _ = 1, 5 do
        helper.collect()
        turns()
      end
      setmetatable({}, { __gc = function() ch:close() end })
      helper.collect()
      assert.are.equal(5, task:await())
    end)
  end)
end)

describe("select", function()
  helper.watch(before_each, after_each)

  it("checks its cases", function()
    local ch = channel()
    local select = sync.select
    for _, wrong in ipairs { {}, { 1 }, { "x" }, { {} }, { { ch } }, { { 1, 2 } }, { ch, { ch, nil } },
      { ch, false }, { io.stdout }, { sync.mutex() } } do
      assert.matches("bad argument #1 to '", helper.error_of(select, wrong))
    end
    assert.matches("table expected", helper.error_of(select))
    local many = {}
    for i = 1, 257 do
      many[i] = ch
    end
    assert.matches("too many cases", helper.error_of(select, many))
    many[257] = nil
    many[256] = { channel(1), "x" }
    assert.are.same({ n = 2, 256, true }, pack(select(many)))
  end)

  it("returns which and what", function()
    local a, b, c = channel(1), channel(1), channel(1)
    b:send(false)
    assert.are.same({ n = 2, 2, false }, pack(sync.select { a, b }))
    assert.are.same({ n = 2, 3, true }, pack(sync.select { a, b, { c, false } }))
    assert.are.equal(false, c:receive())
    a:close()
    assert.are.same({ n = 3, 1, nil, "closed" }, pack(sync.select { a, b }))
    assert.are.same({ n = 3, 2, nil, "closed" }, pack(sync.select { b, { a, 1 } }))
    uring.run(function()
      local task = uring.spawn(function() return pack(sync.select { b, { channel(), 1 }, c }) end)
      turns()
      c:send "late"
      assert.are.same({ n = 2, 3, "late" }, task:await())
      assert.are.equal(0, #b + #c)
      local full = channel(1)
      full:send(0)
      task = uring.spawn(function() return pack(sync.select { b, { full, "x" }, c }) end)
      turns()
      assert.are.equal(0, full:receive())
      assert.are.same({ n = 2, 2, true }, task:await())
      assert.are.equal("x", full:receive())
      task = uring.spawn(function() return pack(sync.select { b, { channel(), "x" }, c }) end)
      turns()
      b:close()
      assert.are.same({ n = 3, 1, nil, "closed" }, task:await())
    end)
  end)

  it("leaves every line that lost", function()
    uring.run(function()
      local a, b, c = channel(), channel(), channel()
      local task = uring.spawn(function() return pack(sync.select { a, a, { b, 1 }, { a, 2 }, c }) end)
      turns()
      assert.is_true(c:try_send "won")
      assert.is_false(a:try_send(1))
      assert.is_nil((a:try_receive()))
      assert.is_nil((b:try_receive()))
      assert.is_false(c:try_send "again")
      assert.are.same({ n = 2, 5, "won" }, task:await())
    end)
  end)

  it("stands in the line of one channel as one that receives and one that sends", function()
    uring.run(function()
      local ch = channel()
      local tasks = {}
      for i = 1, 2 do -- each is what the other waits for
        tasks[i] = uring.spawn(function() return pack(sync.select { ch, { ch, i } }) end)
      end
      local one, two = tasks[1]:await(), tasks[2]:await()
      assert.are.same({ 3, true }, { one[1] + two[1], one[2] == true or two[2] == true })
      assert.is_false(ch:try_send(1))
      assert.is_nil((ch:try_receive()))
      for i = 1, 2 do
        local task = uring.spawn(function() return pack(sync.select { ch, { ch, "mine" } }) end)
        turns()
        if i == 1 then
          assert.are.equal("mine", ch:receive())
          assert.are.same({ n = 2, 2, true }, task:await())
        else
          assert.is_true(ch:send "yours")
          assert.are.same({ n = 2, 1, "yours" }, task:await())
        end
      end
    end)
  end)

  it("waits in line as anybody does", function()
    uring.run(function()
      local ch, log = channel(), {}
      for i = 1, 6 do
        uring.spawn(function()
          local value = i % 2 == 0 and ch:receive() or select(2, sync.select { channel(), ch })
          log[#log + 1] = i .. "=" .. value
        end)
      end
      turns()
      for i = 1, 6 do
        ch:send(i)
      end
      turns()
      assert.are.same({ "1=1", "2=2", "3=3", "4=4", "5=5", "6=6" }, log)
    end)
  end)

  it("starves no case, whoever else selects", function()
    for others = 0, 3 do
      local ready, closed = {}, channel()
      closed:close()
      local counts = { 0, 0, 0 }
      for i = 1, 3 do
        ready[i] = closed
      end
      for _ = 1, 900 do
        local which = sync.select(ready)
        counts[which] = counts[which] + 1
        for _ = 1, others do
          sync.select(ready)
        end
      end
      for i = 1, 3 do
        assert.is_true(counts[i] > 200, ("%d others, case %d: %d of 900"):format(others, i, counts[i]))
      end
    end
  end)

  it("has looked at its cases when it waits", function()
    uring.run(function()
      local a, b = channel(), channel()
      local send = { b, "x" }
      local cases = { a, send }
      local task = uring.spawn(function() return pack(sync.select(cases)) end)
      turns()
      cases[1], cases[2], send[1], send[2] = nil, nil, nil, nil
      helper.collect()
      assert.are.equal("x", b:receive())
      assert.are.same({ n = 2, 2, true }, task:await())
    end)
  end)

  it("is for the main chunk, too", function()
    local a, b = channel(), channel()
    uring.spawn(function()
      uring.sleep(0.001)
      b:send "x"
      assert.are.equal("y", a:receive())
      a:close()
    end)
    assert.are.same({ n = 2, 2, "x" }, pack(sync.select { a, b }))
    assert.are.same({ n = 2, 1, true }, pack(sync.select { { a, "y" }, b }))
    assert.are.same({ n = 3, 2, nil, "closed" }, pack(sync.select { b, a }))
  end)
end)

describe("channels in a process of their own", function()
  local parked = [[
    local ch, other, m, s = sync.channel(), sync.channel(2), sync.mutex(), sync.semaphore(0)
    local g, c = sync.waitgroup(1), sync.condition()
    local main = m:lock()
    for i = 1, 3 do
      uring.spawn(function() ch:receive() end)
      uring.spawn(function() sync.select { ch, other, sync.channel() } end)
      uring.spawn(function() sync.select { other, { sync.channel(), {} } } end)
      uring.spawn(function() sync.channel():send {} end)
      uring.spawn(function() m:lock() end)
      uring.spawn(function() s:acquire() end)
      uring.spawn(function() g:wait() end)
      uring.spawn(function() c:wait() end)
      uring.spawn(function() core.coroutine.wrap(function() ch:receive() end)() end)
      uring.spawn(function() core.coroutine.wrap(function() sync.select { ch, other } end)() end)
    end
    for _ = 1, 3 do uring.yield() end
  ]]

  it("lua_close with tasks in every line", function()
    for _, last in ipairs { "", "ch = nil collectgarbage()", "uring.close()", "os.exit(0, true)",
      "setmetatable({}, { __gc = function() ch:close() other:try_send(1) s:release() g:done() c:notify_all() end })",
      "late = setmetatable({}, { __gc = function() ch:try_send(1) ch:try_send(1) m:unlock() end })",
      "error('on purpose')" } do
      local output, status = script(parked .. "io.stdout:setvbuf 'no' io.write 'parked\\n' " .. last)
      assert.matches("^parked\n", output)
      assert.are.equal(last:find "error" and 1 or 0, status, last .. "\n" .. output)
      assert.is_nil(output:find "AddressSanitizer", output)
    end
  end)

  it("a child of fork inherits lines in which nobody stands", function()
    local output, status = script(parked .. [[
      local testkit = require "testkit"
      local pid = testkit.fork()
      if pid ~= 0 then
        os.exit(testkit.wait(pid) == 0 and 0 or 9, true)
      end
      uring.close()
      assert(not ch:try_send(1) and ch:try_receive() == nil)
      assert(not pcall(ch.send, ch, 1))
      other:send "x"
      other:send "y"
      assert(#other == 2)
      s:release()
      assert(s:permits() == 1)
      m:unlock()
      assert(not m:is_locked())
      g:done() c:notify_all()
      assert(uring.run(function()
        local task = uring.spawn(function() return ch:receive() end)
        ch:send "z"
        return task:await() .. other:receive()
      end) == "zx")
      ch:close()
      collectgarbage() collectgarbage()
      print "child"
    ]])
    assert.are.equal("child\n", output)
    assert.are.equal(0, status)
  end)

  it("a child of fork resumes coroutines of tasks that it has not", function()
    local output, status = script [[
      local testkit, co = require "testkit", uring.coroutine or core.coroutine
      local ch, s, saved = sync.channel(), sync.semaphore(0), {}
      local function save() saved[#saved + 1] = coroutine.running() end
      for _, wait in ipairs {
        function() ch:receive() end, function() sync.channel():send(1) end, function() s:acquire() end,
        function() sync.select { ch, sync.channel() } end, function() uring.sleep(60) end,
        function() uring.op.timeout(60) end, function() uring.timer():wait() end
      } do
        uring.spawn(function() save() wait() end)
        uring.spawn(function() save() co.wrap(function() save() wait() end)() end)
      end
      for _ = 1, 3 do uring.yield() end
      local pid = testkit.fork()
      if pid ~= 0 then
        os.exit(testkit.wait(pid) == 0 and 0 or 9, false)
      end
      uring.close()
      for _ = 1, 2 do
        collectgarbage() collectgarbage()
        for i = 1, #saved do
          local ok, err = coroutine.resume(saved[i], i, "junk")
          if not ok then
            error(i .. ": " .. err)
          end
        end
      end
      print(#saved)
      io.stdout:flush()
      testkit.exit(0)
    ]]
    assert.are.equal("21\n", output)
    assert.are.equal(0, status)
  end)
end)
