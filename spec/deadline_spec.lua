-- The option `timeout`: an operation with a deadline of its own.
local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

describe("the option timeout", function()
  local opened = {}

  -- Before `watch` counts.
  after_each(function()
    for i = #opened, 1, -1 do table.remove(opened, i):close() end
  end)
  helper.watch(before_each, after_each)

  local function pair()
    local a, b = uring.socketpair()
    opened[#opened + 1], opened[#opened + 2] = a, b
    return a, b
  end

  -- Keeps the loop from turning for some seconds.
  local function spin(seconds)
    local until_then = uring.now() + seconds
    repeat until uring.now() >= until_then
  end

  it("ends an operation that takes longer, with ETIMEDOUT and its name", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      local began = uring.now()
      local n, message, code = uring.op.recv(a:fd(), buffer, { timeout = 0.02 })
      assert.is_nil(n)
      assert.equal("recv: timeout", message)
      assert.equal(errno.ETIMEDOUT, code)
      assert.is_true(uring.now() - began >= 0.02)
      assert.equal("owned", buffer:status())
      b:write "later"
      assert.equal(5, uring.op.recv(a:fd(), buffer, { timeout = 0.02 }))
    end)
  end)

  it("does nothing to one that is faster", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      b:write "now"
      assert.equal(3, uring.op.recv(a:fd(), buffer, { timeout = 5 }))
      assert.equal(0, uring.stats().timers)
    end)
  end)

  it("takes what is there already, where it is 0, and waits for nothing", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      b:write "now"
      assert.equal(3, uring.op.recv(a:fd(), buffer, { timeout = 0 }))
      local n, _, code = uring.op.recv(a:fd(), buffer, { timeout = 0 })
      assert.is_nil(n)
      assert.equal(errno.ETIMEDOUT, code)
    end)
  end)

  it("never comes where it is infinite", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      uring.spawn(function() uring.sleep(0.01) b:write "x" end)
      assert.equal(1, uring.op.recv(a:fd(), buffer, { timeout = math.huge }))
    end)
  end)

  it("works outside of tasks, on handles and on rings of one's own", function()
    local a, b = pair()
    local buffer <close> = uring.buffer(16)
    assert.same({ nil, "recv: timeout", errno.ETIMEDOUT },
      { uring.op.recv(a:fd(), buffer, { timeout = 0.005 }) })
    local handle = uring.prepare("recv", a:fd(), buffer, { timeout = 0.005 })
    assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { handle:await() })
    local ring <close> = uring.ring { entries = 8 }
    handle = ring:prepare("recv", a:fd(), buffer, { timeout = 0.005 })
    assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { handle:await() })
    uring.run(function() -- the same ring, awaited by a task
      handle = ring:prepare("recv", a:fd(), buffer, { timeout = 0.005 })
      assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { handle:await() })
    end)
    b:write "x"
    assert.equal(1, ring:prepare("recv", a:fd(), buffer, { timeout = 1 }):await())
  end)

  it("ends one that was never handed over", function()
    local ring <close> = uring.ring { entries = 8 }
    local a = pair()
    local buffer <close> = uring.buffer(16)
    local handle = ring:prepare("recv", a:fd(), buffer, { timeout = 0 })
    assert.equal(1, ring:stats().prepared)
    assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { handle:await() })
  end)

  it("is read once in Options, and counts from each call", function()
    local a = pair()
    local options = uring.options { timeout = 0.005 }
    assert.equal("options (timeout)", tostring(options))
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      for _ = 1, 3 do
        local began = uring.now()
        local _, _, code = uring.op.recv(a:fd(), buffer, options)
        assert.equal(errno.ETIMEDOUT, code)
        assert.is_true(uring.now() - began >= 0.005)
      end
    end)
  end)

  it("leaves those linked behind it cancelled", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      local ring = uring.ring { entries = 8 }
      local first = ring:prepare("recv", a:fd(), buffer, { timeout = 0.005, link = true })
      local second = ring:prepare("send", b:fd(), "x")
      assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { first:await() })
      local n, _, code = second:await()
      assert.is_nil(n)
      assert.equal(errno.ECANCELED, code)
      ring:close()
    end)
  end)

  it("ends a multishot operation, after what it gave", function()
    local a, b = pair()
    local ring = uring.ring { entries = 8 }
    local pool <close> = ring:pool { size = 64, buffers = 8 }
    local handle = ring:prepare("recv", a:fd(), pool, { multishot = true, copy = true, timeout = 0.03 })
    b:write "one"
    local got, message, code = {}, nil, nil
    for _ = 1, 3 do
      local n, data, failure = handle:await()
      if not n then
        message, code = data, failure
        break
      end
      got[#got + 1] = data
    end
    assert.same({ "one" }, got)
    assert.equal("recv: timeout", message)
    assert.equal(errno.ETIMEDOUT, code)
    ring:close()
  end)

  it("is no deadlock where nothing else could end the operation", function()
    local ring <close> = uring.ring { entries = 8 }
    local pool <close> = ring:pool { size = 64, buffers = 1 }
    local x, y = pair()
    y:write "x"
    local _, kept = ring:prepare("recv", x:fd(), pool):await() -- the only buffer there is
    assert.equal("x", kept:get(1, 1))
    y:write "y"
    local starving = ring:prepare("recv", x:fd(), pool, { timeout = 0.02 })
    assert.same({ nil, "recv: timeout", errno.ETIMEDOUT }, { starving:await() })
    kept:close()
  end)

  it("loses to a result that is there, and to a cancellation that was first", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      local handle = uring.prepare("recv", a:fd(), buffer, { timeout = 0.005 })
      uring.submit()
      local cancelling = handle:cancel()
      spin(0.01) -- the deadline comes before anything is reaped
      assert.equal("cancelled", (cancelling:await()))
      assert.same({ nil, "recv: Operation canceled", errno.ECANCELED }, { handle:await() })
      handle = uring.prepare("recv", a:fd(), buffer, { timeout = 0.005 })
      uring.submit()
      b:write "x"
      spin(0.01)
      assert.equal(1, handle:await())
    end)
  end)

  it("raises cancelled in a task that was cancelled meanwhile", function()
    local a = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(16)
      local task = uring.spawn(function()
        uring.op.recv(a:fd(), buffer, { timeout = 0.005 })
        error "not reached"
      end)
      uring.yield()
      uring.yield()
      task:cancel()
      spin(0.01)
      local ok, why = pcall(task.await, task)
      assert.is_false(ok)
      assert.equal(uring.cancelled, why)
    end)
  end)

  it("is given up with a handle that is dropped and a ring that is closed", function()
    local a = pair()
    local before = uring.stats().timers
    do
      local buffer = uring.buffer(16)
      uring.prepare("recv", a:fd(), buffer, { timeout = 60 })
      uring.submit()
      assert.equal(before + 1, uring.stats().timers)
    end
    collectgarbage()
    collectgarbage()
    uring.sleep(0.01)
    assert.equal(before, uring.stats().timers)
    local ring = uring.ring { entries = 8 }
    local handle = ring:prepare("recv", a:fd(), uring.buffer(16), { timeout = 60 })
    ring:submit()
    ring:close()
    assert.equal(before, uring.stats().timers)
    assert.same({ nil, "recv: Operation canceled", errno.ECANCELED }, { handle:await() })
  end)

  it("keeps many apart, whatever their order", function()
    local count = 200
    uring.run(function()
      local ends = {}
      for i = 1, count do
        uring.spawn(function()
          local a = pair()
          local buffer <close> = uring.buffer(1)
          local after = (i * 37 % count) / count / 20
          local began = uring.now()
          local _, _, code = uring.op.recv(a:fd(), buffer, { timeout = after })
          assert(code == errno.ETIMEDOUT and uring.now() - began >= after)
          ends[#ends + 1] = after
        end)
      end
    end)
    assert.equal(0, uring.stats().timers)
  end)

  it("does not fill the heap with deadlines that are given up", function()
    local a, b = pair()
    uring.run(function()
      local buffer <close> = uring.buffer(1)
      local far = uring.options { timeout = 3600 }
      collectgarbage()
      local before
      for i = 1, 20000 do
        b:write "x"
        assert(uring.op.recv(a:fd(), buffer, far) == 1)
        if i == 1000 then
          collectgarbage()
          before = collectgarbage "count"
        end
      end
      collectgarbage()
      assert.is_true(collectgarbage "count" - before < 64)
      assert.equal(0, uring.stats().timers)
    end)
  end)

  it("refuses what is no number of seconds", function()
    local buffer <close> = uring.buffer(16)
    for _, bad in ipairs { "1", true, {} } do
      assert.has_error(function() uring.op.read(0, buffer, 1, 0, { timeout = bad }) end,
        ("option 'timeout' of read is a number of seconds, not a %s"):format(type(bad)))
    end
    assert.error_matches(function() uring.op.read(0, buffer, 1, 0, { timeout = -1 }) end,
      "option 'timeout' of read is a number of seconds, not %-1")
    assert.error_matches(function() uring.op.read(0, buffer, 1, 0, { timeout = 0 / 0 }) end,
      "option 'timeout' of read is a number of seconds, not %-?nan")
  end)
end)
