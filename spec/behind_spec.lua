-- Receives of tasks go to the kernel behind what is sent in the same turn, and behind nothing else.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op

local NOW = const.MSG_DONTWAIT -- fails where nothing is there when the kernel looks

describe("a receive", function()
  local a, b
  after_each(function() -- before the books are checked
    op.close(a)
    if b then op.close(b) end
  end)
  helper.watch(before_each, after_each)
  before_each(function() a, b = core.socketpair() end)

  -- Runs each as a task, all in one turn and in this order; the first two results of each.
  local function in_one_turn(...)
    local tasks, results = {}, {}
    uring.run(function(...)
      for i, fn in ipairs { ... } do tasks[i] = uring.spawn(fn) end
      for i, task in ipairs(tasks) do results[i] = { task:await() } end
    end, ...)
    return table.unpack(results)
  end

  local function receives(fd, into, flags)
    return function() return op.recv(fd, into, nil, flags) end
  end

  local function sends(fd, bytes)
    return function() return op.send(fd, bytes) end
  end

  local function buffers(n)
    local all = {}
    for i = 1, n do all[i] = uring.buffer(1) end
    return all
  end

  it("finds what is sent in its turn", function()
    for _, send in ipairs {
      sends(b, "x"),
      function() return op.sendmsg(b, { data = { "x" } }) end,
      function() return op.write(b, "x") end,
      function() return op.writev(b, { "x" }) end,
    } do
      local buffer = uring.buffer(4)
      local received, sent = in_one_turn(receives(a, buffer, NOW), send)
      assert.are.same({ 1, 1 }, { received[1], sent[1] })
      assert.are.equal("x", buffer:get(1, 1))
    end
  end)

  it("as a message finds it, too", function()
    local buffer = uring.buffer(4)
    local received = in_one_turn(function() return op.recvmsg(a, { data = { buffer } }, NOW) end, sends(b, "xy"))
    assert.are.equal(2, received[1])
  end)

  it("of a handle keeps the order of preparation", function()
    local buffer = uring.buffer(4)
    local receive = uring.prepare("recv", a, buffer, nil, NOW)
    local send = uring.prepare("send", b, "x")
    assert.are.equal(1, send:await())
    assert.are.equal(errno.EAGAIN, (select(3, receive:await())))
  end)

  it("is not overtaken by another", function()
    local into = buffers(3)
    op.send(b, "123")
    in_one_turn(receives(a, into[1]), receives(a, into[2]), function()
      return uring.prepare("recv", a, into[3]):await()
    end)
    assert.are.same({ "1", "2", "3" }, { into[1]:get(), into[2]:get(), into[3]:get() })
  end)

  it("is not overtaken by a read", function()
    local into = buffers(2)
    op.send(b, "12")
    in_one_turn(receives(a, into[1]), function() return op.read(a, into[2]) end)
    assert.are.same({ "1", "2" }, { into[1]:get(), into[2]:get() })
  end)

  it("is not overtaken by the close of its descriptor", function()
    local buffer, fd = uring.buffer(4), b
    op.send(a, "x")
    local received, closed = in_one_turn(receives(fd, buffer), function() return op.close(fd) end)
    b = nil
    assert.are.same({ 1, true }, { received[1], closed[1] ~= nil })
  end)

  it("is waited for by a drained operation", function()
    local order = {}
    op.send(b, "x")
    in_one_turn(function()
      op.recv(a, uring.buffer(4))
      order[#order + 1] = "received"
    end, function()
      op.nop { drain = true }
      order[#order + 1] = "drained"
    end)
    assert.are.same({ "received", "drained" }, order)
  end)

  it("that is cancelled before the kernel has seen it takes nothing", function()
    local buffer = uring.buffer(1)
    op.send(b, "x")
    local before = uring.stats()
    uring.run(function()
      local task = uring.spawn(op.recv, a, uring.buffer(1))
      local other = uring.spawn(op.recv, a, buffer)
      local counted
      uring.spawn(function() -- behind them, in their turn
        counted = uring.stats().prepared - before.prepared
        task:cancel()
      end)
      assert.are.same({ false, uring.cancelled }, { pcall(task.await, task) })
      assert.are.same({ true, 1 }, { pcall(other.await, other) })
      assert.are.equal(2, counted)
    end)
    assert.are.equal("x", buffer:get())
    assert.are.equal(before.in_flight, uring.stats().in_flight)
  end)

  it("is handed over by who enters by hand", function()
    local ring, buffer = core.default(), uring.buffer(4)
    uring.run(function()
      local task = uring.spawn(op.recv, a, buffer)
      uring.spawn(function()
        assert.are.equal(0, ring:stats().in_flight)
        assert.are.equal(1, ring:submit())
        assert.are.equal(1, ring:stats().in_flight)
      end)
      uring.yield()
      op.send(b, "x")
      assert.are.equal(1, task:await())
    end)
  end)

  it("does not come between a send and what is linked to that", function()
    local buffer = uring.buffer(4)
    uring.run(function()
      local task = uring.spawn(op.recv, a, buffer)
      uring.spawn(function()
        local send, nop = uring.prepare("send", b, "x"), uring.prepare("nop")
        uring.link { send, nop }
        assert.are.same({ 1, 0 }, { send:await(), (nop:await()) })
      end)
      assert.are.equal(1, task:await())
    end)
  end)

  it("has its place however many there are", function() -- the default ring has 256 entries
    local n, received, given = 1500, {}, {}
    uring.run(function()
      for _ = 1, n do
        uring.spawn(function()
          local buffer = uring.buffer(2)
          assert(op.recv(a, buffer, nil, const.MSG_WAITALL) == 2)
          received[#received + 1] = buffer:get()
        end)
      end
      for i = 1, n do uring.spawn(op.send, b, string.pack(">I2", i)) end
    end)
    table.sort(received)
    for i = 1, n do given[i] = string.pack(">I2", i) end
    assert.are.same(given, received)
  end)

  it("and sends, as they come, lose nothing", function()
    math.randomseed(7)
    for _ = 1, helper.times(200) do
      local got, given = {}, {}
      uring.run(function()
        local buffer = uring.buffer(64)
        for i = 1, math.random(20) do
          local dice = math.random(5)
          if dice <= 2 then
            given[#given + 1] = string.char(96 + i)
            uring.spawn(op.send, b, given[#given])
          elseif dice == 3 then
            uring.spawn(op.nop)
          else
            uring.spawn(function()
              local one = buffer:slice(i, i)
              local ok, n = pcall(uring.timeout, math.random() / 2000, op.recv, a, one)
              if ok and n == 1 then got[#got + 1] = one:get() end
            end)
          end
          if math.random(4) == 1 then uring.yield() end
        end
      end)
      while true do -- what nobody has received
        local rest = uring.buffer(64)
        local n = op.recv(a, rest, nil, NOW)
        if not n then break end
        got[#got + 1] = rest:get(1, n)
      end
      assert.are.equal(table.concat(given), table.concat(got))
    end
  end)
end)

describe("a stream's receive", function()
  helper.watch(before_each, after_each)

  it("ends with the stream that is closed in its turn", function()
    for _, kind in ipairs { "socketpair", "pipe" } do
      local first, second = assert(uring[kind]())
      uring.run(function()
        local task = uring.spawn(first.read, first, 1)
        uring.spawn(function() first:close() end)
        assert.are.same({ true, nil, "closed", errno.ECANCELED }, { pcall(task.await, task) })
      end)
      second:close()
    end
  end)

  it("finds what is written in its turn, and keeps it when it is cancelled", function()
    local first, second = assert(uring.socketpair())
    uring.run(function()
      local task = uring.spawn(first.read, first, 3)
      uring.spawn(second.write, second, "xyz")
      uring.spawn(function() task:cancel() end)
      assert.are.same({ false, uring.cancelled }, { pcall(task.await, task) })
      assert.are.equal("xyz", first:read(3))
    end)
    first:close()
    second:close()
  end)
end)
