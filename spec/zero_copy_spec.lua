local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

describe("zero-copy sends", function()
  helper.watch(before_each, after_each)

  -- Two ends of a TCP connection.
  local function connection()
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local accepting = uring.spawn(listener.accept, listener)
    local client = assert(uring.connect(listener:address()))
    return client, assert(accepting:await())
  end

  local SIZE = 65536

  it("give the result first, and the memory at the notification", function()
    local a, b = connection()
    local data = uring.buffer(SIZE):fill(65)
    local op = uring.prepare("send_zc", a:fd(), data)
    local sent = op:await()
    assert.is_true(sent > 0)
    assert.are.equal(sent, op:await()) -- as often as it is asked
    local got = b:read(sent)
    assert.are.equal(("A"):rep(sent), got)
    assert.is_true(op:notification())
    assert.are.equal("done", op:status())
    assert.are.equal("owned", data:status())
    data:fill(66)
    a:close()
    b:close()
  end)

  it("block no task on the notification", function()
    uring.run(function()
      local a, b = connection()
      local data = uring.buffer(SIZE):fill(65)
      local total = 0
      for _ = 1, 20 do
        local sent = assert(uring.op.send_zc(a:fd(), data))
        total = total + sent
        assert.are.equal(sent, #b:read(sent))
      end
      assert.is_true(total > 0)
      for _ = 1, 200 do
        if data:status() == "owned" then break end
        uring.sleep(0.005)
      end
      assert.are.equal("owned", data:status())
      a:close()
      b:close()
    end)
  end)

  it("keep strings until the notification", function()
    uring.run(function()
      local a, b = connection()
      for i = 1, helper.times(50) do
        local text = tostring(i):rep(5000)
        local sent = assert(uring.op.send_zc(a:fd(), text))
        local expected = text:sub(1, sent)
        text = nil -- luacheck: ignore
        collectgarbage()
        assert.are.equal(expected, b:read(sent))
      end
      a:close()
      b:close()
    end)
  end)

  it("carry messages", function()
    local a, b = connection()
    local op = uring.prepare("sendmsg_zc", a:fd(), { data = { "one ", uring.buffer "two ", "three" } })
    assert.are.equal(13, op:await())
    assert.are.equal("one two three", b:read(13))
    assert.is_true(op:notification())
    a:close()
    b:close()
  end)

  it("end at once where they fail", function()
    local op = uring.prepare("send_zc", 1000000, "text")
    local n, message, code = op:await()
    assert.is_nil(n)
    assert.are.equal("send_zc: Bad file descriptor", message)
    assert.are.equal(errno.EBADF, code)
    assert.is_true(op:notification())
    local one, other = uring.socketpair() -- unix sockets do not do it
    assert.are.equal(errno.EOPNOTSUPP, select(3, uring.op.send_zc(one:fd(), "text")))
    one:close()
    other:close()
  end)

  it("survive their handle", function()
    local a, b = connection()
    local orphaned = uring.stats().orphaned
    local data = uring.buffer(SIZE):fill(67)
    local sent = uring.prepare("send_zc", a:fd(), data):await()
    collectgarbage()
    collectgarbage()
    assert.are.equal(("C"):rep(sent), b:read(sent))
    for _ = 1, 200 do
      if data:status() == "owned" then break end
      uring.sleep(0.005)
    end
    assert.are.equal("owned", data:status())
    assert.are.equal(orphaned, uring.stats().orphaned) -- it was not given up
    a:close()
    b:close()
  end)

  it("are waited for when their block is left", function()
    local a, b = connection()
    local data = uring.buffer(SIZE)
    local sent
    uring.run(function()
      local reading = uring.spawn(function() return #b:read(1) end)
      do
        local op <close> = uring.prepare("send_zc", a:fd(), data)
        sent = op:await()
      end
      assert.are.equal("owned", data:status())
      assert.are.equal(1, reading:await())
    end)
    b:read(sent - 1)
    a:close()
    b:close()
  end)

  it("tell a cancellation that they had a result", function()
    local a, b = connection()
    local op = uring.prepare("send_zc", a:fd(), "text")
    assert.are.equal(4, op:await())
    local how, n = op:cancel():await()
    assert.are.equal("completed", how)
    assert.are.equal(4, n)
    assert.are.equal("text", b:read(4))
    assert.is_true(op:notification())
    a:close()
    b:close()
  end)
end)
