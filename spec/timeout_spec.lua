-- timeout: everything inside has ended when it returns, and each deadline is told
-- from the others.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno, op = uring.errno, uring.op

local function pack(...)
  return table.pack(...)
end

local TIMEOUT = { n = 3, nil, "timeout", errno.ETIMEDOUT }

describe("timeout", function()
  helper.watch(before_each, after_each)

  it("gives the results of what is in time", function()
    local function body(...)
      uring.sleep(0.001)
      return ...
    end
    assert.are.same({ n = 4, nil, 2, false, nil }, pack(uring.timeout(10, body, nil, 2, false, nil)))
    uring.run(function()
      assert.are.same({ n = 0 }, pack(uring.timeout(10, body)))
      assert.are.same({ n = 1, "never late" }, pack(uring.timeout(math.huge, body, "never late")))
    end)
    assert.are.equal(0, uring.stats().timers)
  end)

  it("gives nil, timeout, ETIMEDOUT when the time has come", function()
    local began = uring.now()
    assert.are.same(TIMEOUT, pack(uring.timeout(0.02, uring.sleep, 60)))
    local took = uring.now() - began
    assert.is_true(took >= 0.02 and took < 5, took)
    uring.run(function()
      assert.are.same(TIMEOUT, pack(uring.timeout(0.002, uring.sleep, 60)))
    end)
  end)

  it("of no time at all begins nothing", function()
    local ran = false
    assert.are.same(TIMEOUT, pack(uring.timeout(0, function() ran = true end)))
    assert.is_false(ran)
  end)

  it("returns when all that was started inside has ended", function()
    local ended = 0
    local function child()
      local _guard <close> = setmetatable({}, { __close = function()
        uring.shield(uring.sleep, 0.01)
        ended = ended + 1
      end })
      uring.sleep(60)
    end
    assert.are.same(TIMEOUT, pack(uring.timeout(0.003, function()
      uring.spawn(child)
      uring.scope(function(scope)
        scope:spawn(child)
        child()
      end)
    end)))
    assert.are.equal(3, ended)
  end)

  it("lets results win that come late", function()
    assert.are.equal("caught", uring.timeout(0.002, function()
      pcall(uring.sleep, 60)
      return "caught"
    end))
    assert.are.equal("shielded", uring.timeout(0.002, function()
      return uring.shield(function()
        uring.sleep(0.01)
        return "shielded"
      end)
    end))
    assert.are.equal("busy", uring.timeout(0.002, function()
      local until_then = uring.now() + 0.005
      repeat until uring.now() > until_then
      return "busy"
    end))
    assert.are.equal("returned", uring.timeout(0.002, function()
      uring.spawn(uring.sleep, 60)
      return "returned"
    end))
  end)

  it("rethrows errors, in time and late", function()
    uring.run(function()
      local object = {}
      local ok, err = pcall(uring.timeout, 10, error, object)
      assert.is_false(ok)
      assert.are.equal(object, err)
      ok, err = pcall(uring.timeout, 0.002, function()
        local _guard <close> = setmetatable({}, { __close = function() error(object) end })
        uring.sleep(60)
      end)
      assert.is_false(ok)
      assert.are.equal(object, err)
      ok, err = pcall(uring.timeout, 10, error)
      assert.is_false(ok)
      assert.is_nil(err)
    end)
  end)

  it("tells an inner deadline from an outer one", function()
    local inner
    assert.are.same({ n = 1, "outer goes on" }, pack(uring.timeout(10, function()
      inner = pack(uring.timeout(0.002, uring.sleep, 60))
      uring.sleep(0.001)
      return "outer goes on"
    end)))
    assert.are.same(TIMEOUT, inner)
    inner = "never came back"
    assert.are.same(TIMEOUT, pack(uring.timeout(0.005, function()
      inner = pack(uring.timeout(10, uring.sleep, 60))
    end)))
    assert.are.equal("never came back", inner)
  end)

  it("tells them apart where both have come", function()
    for _, first in ipairs { 0.001, 0.002, 0.003 } do
      local inner
      local outer = pack(uring.timeout(0.002, function()
        inner = pack(uring.timeout(first, function()
          local until_then = uring.now() + 0.006 -- both are due in one turn
          repeat until uring.now() > until_then
          uring.sleep(60)
        end))
        uring.sleep(60)
      end))
      assert.are.same(TIMEOUT, outer)
      assert.is_nil(inner) -- the outer one is what ended it
    end
  end)

  it("nests deeply", function()
    local function nest(depth)
      if depth == 0 then
        return uring.sleep(60)
      end
      return uring.timeout(depth == 25 and 0.005 or 60, nest, depth - 1)
    end
    local result
    assert.are.equal("out", uring.timeout(60, function()
      result = pack(nest(50))
      return "out"
    end))
    -- the 25th expires; those around it hand out what it gave
    assert.are.same(TIMEOUT, result)
  end)

  it("passes the cancellation of its caller on", function()
    local after = false
    uring.run(function()
      local task = uring.spawn(function()
        uring.timeout(60, uring.sleep, 60)
        after = true
      end)
      uring.sleep(0.002)
      task:cancel()
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.are.equal(uring.cancelled, err)
    end)
    assert.is_false(after)
  end)

  it("waits for the terminal completion of what it cancels", function()
    local r, w = uring.pipe()
    local buffer = uring.buffer(8)
    assert.are.same(TIMEOUT, pack(uring.timeout(0.003, op.read, r:fd(), buffer, 8)))
    assert.are.equal("owned", buffer:status())
    w:write("kept")
    assert.are.equal(4, uring.timeout(10, op.read, r:fd(), buffer, 8))
    assert.are.equal("kept", buffer:get(1, 4))
    r:close()
    w:close()
  end)

  it("costs no operation", function()
    local before = uring.stats().prepared
    for _ = 1, 20 do
      uring.timeout(0.0005, uring.sleep, 60)
    end
    assert.are.equal(before, uring.stats().prepared)
  end)

  it("of a thousand tasks, each its own", function()
    local n = helper.times(1000)
    local late = 0
    uring.run(function()
      for i = 1, n do
        uring.spawn(function()
          local result, why = uring.timeout(i % 2 == 0 and 0.01 or 60, function()
            uring.sleep(i % 2 == 0 and 60 or 0.001)
            return true
          end)
          assert.are.equal(i % 2 == 1, result == true)
          late = late + (why == "timeout" and 1 or 0)
        end)
      end
    end)
    assert.are.equal(n // 2, late)
  end)

  it("wants seconds and a function", function()
    local f = uring.sleep
    for _, case in ipairs {
      { nil, f, "bad argument #1 to 'timeout' (number expected, got nil)" };
      { "1", f, "bad argument #1 to 'timeout' (number expected, got string)" };
      { -1, f, "bad argument #1 to 'timeout' (seconds are negative)" };
      { 0 / 0, f, "bad argument #1 to 'timeout' (seconds are negative)" };
      { 1, nil, "bad argument #2 to 'timeout' (function expected, got nil)" };
    } do
      local message = helper.error_of(uring.timeout, case[1], case[2])
      assert.is_truthy(message:find(case[3], 1, true), message)
    end
  end)
end)

describe("scope:deadline", function()
  helper.watch(before_each, after_each)

  it("can be moved, to later and to earlier", function()
    local began = uring.now()
    assert.are.same(TIMEOUT, pack(uring.scope(function(scope)
      scope:deadline(0.001)
      scope:deadline(0.02)
      uring.sleep(60)
    end)))
    assert.is_true(uring.now() - began >= 0.02)
    assert.are.same(TIMEOUT, pack(uring.scope(function(scope)
      scope:deadline(60)
      scope:deadline(0.001)
      uring.sleep(60)
    end)))
    assert.are.equal("off", uring.scope(function(scope)
      scope:deadline(0.001)
      scope:deadline(math.huge)
      uring.sleep(0.005)
      return "off"
    end))
  end)

  it("wants seconds", function()
    uring.scope(function(scope)
      for _, bad in ipairs { -1, 0 / 0, "x" } do
        assert.is_false(pcall(scope.deadline, scope, bad))
      end
    end)
    assert.are.equal(0, uring.stats().timers)
  end)
end)
