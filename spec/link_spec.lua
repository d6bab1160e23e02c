local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

describe("linked operations", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local function cancelled(op)
    local result, message, code = op:await()
    assert.is_nil(result)
    assert.are.equal(errno.ECANCELED, code, message)
  end

  -- Two ways to say the same: an option, and ring:link.
  local ways = {
    ["by the option link"] = function(ring, ...)
      local ops, calls = {}, { ... }
      for i, call in ipairs(calls) do
        if i < #calls then
          call[#call + 1] = { link = true }
        end
        ops[i] = ring:prepare(table.unpack(call))
      end
      return table.unpack(ops)
    end;
    ["by ring:link"] = function(ring, ...)
      local ops = {}
      for i, call in ipairs { ... } do
        ops[i] = ring:prepare(table.unpack(call))
      end
      ring:link(ops)
      return table.unpack(ops)
    end;
  }

  for how, group in pairs(ways) do
    describe(how, function()
      it("run one after the other", function()
        local ring <close> = uring.ring { entries = 8 }
        local path = helper.tmpname ""
        local fd = uring.op.openat(nil, path, uring.const.O_RDWR)
        local back = uring.buffer(6)
        for _ = 1, 50 do
          back:fill(0)
          local w1, w2, r = group(ring, { "write", fd, "abc", 3, 0 }, { "write", fd, "def", 3, 3 },
            { "read", fd, back, 6, 0 })
          assert.are.equal("prepared", w1:status())
          assert.are.equal(3, ring:submit())
          assert.are.equal(6, r:await())
          assert.are.equal("abcdef", back:get())
          assert.are.equal(3, w1:await())
          assert.are.equal(3, w2:await())
        end
        uring.op.close(fd)
      end)

      it("are cancelled where one before them fails", function()
        local ring <close> = uring.ring { entries = 8 }
        local first, second, third = group(ring, { "fsync", 1000000 }, { "nop" }, { "nop" })
        ring:submit()
        assert.are.equal(errno.EBADF, select(3, first:await()))
        cancelled(second)
        cancelled(third)
      end)

      it("stay together in a queue that is nearly full", function()
        local ring <close> = uring.ring { entries = 4 }
        for before = 0, 9 do
          local others = {}
          for i = 1, before do
            others[i] = ring:prepare "nop"
          end
          local first, second, third = group(ring, { "fsync", 1000000 }, { "nop" }, { "nop" })
          local after = ring:prepare "nop"
          assert.are.equal(errno.EBADF, select(3, first:await()))
          cancelled(second)
          cancelled(third)
          assert.are.equal(0, after:await())
          for i = 1, before do
            assert.are.equal(0, others[i]:await())
          end
        end
      end)

      it("are withdrawn together with one that is cancelled before it is submitted", function()
        local ring <close> = uring.ring { entries = 8 }
        for which = 1, 3 do
          local ops = { group(ring, { "nop" }, { "nop" }, { "nop" }) }
          local after = ring:prepare "nop"
          ops[which]:cancel()
          for i = 1, 3 do
            if i < which then
              assert.are.equal(0, ops[i]:await())
            else
              cancelled(ops[i])
            end
          end
          assert.are.equal(0, after:await())
        end
      end)

      it("give back what they lend when their handles are dropped", function()
        local ring <close> = uring.ring { entries = 8 }
        local r, w = uring.pipe()
        do
          local _a, _b = group(ring, { "read", r:fd(), uring.buffer(8) }, { "write", w:fd(), "text" })
          ring:submit()
        end
        collectgarbage()
        collectgarbage()
        for _ = 1, 200 do
          if ring:stats().in_flight == 0 then break end
          ring:prepare("timeout", 0.001):await()
        end
        assert.are.equal(0, ring:stats().bytes_lent)
        assert.are.equal(2, ring:stats().orphaned)
        r:close()
        w:close()
      end)

      it("have a time limit in link_timeout", function()
        local ring <close> = uring.ring { entries = 8 }
        local r, w = uring.pipe()
        local buffer = uring.buffer(4)
        local read, limit = group(ring, { "read", r:fd(), buffer }, { "link_timeout", 0.01 })
        assert.are.equal(errno.ECANCELED, select(3, read:await()))
        assert.are.equal(0, limit:await()) -- its time was up
        w:write "data"
        read, limit = group(ring, { "read", r:fd(), buffer }, { "link_timeout", 10 })
        assert.are.equal(4, read:await())
        cancelled(limit) -- it was not needed
        assert.are.equal("data", buffer:get())
        r:close()
        w:close()
      end)
    end)
  end

  it("stay together where the last of them is linked on, and a cancel request comes between", function()
    local ring <close> = uring.ring { entries = 4 }
    local r, w = uring.pipe()
    local waits = ring:prepare("read", r:fd(), uring.buffer(4))
    ring:submit()
    local others = {}
    for i = 1, 4 do
      others[i] = ring:prepare "nop"
    end
    local first = ring:prepare("read", 1000000, uring.buffer(4), { link = true })
    local second, third = ring:prepare "nop", ring:prepare "nop"
    others[1]:await() -- now they are in the queue, not submitted
    assert.are.equal("prepared", second:status())
    waits:cancel()
    ring:link { second, third }
    assert.are.equal(errno.EBADF, select(3, first:await()))
    cancelled(second)
    cancelled(third)
    cancelled(waits)
    r:close()
    w:close()
  end)

  it("go on after a failure where the link is hard", function()
    local ring <close> = uring.ring { entries = 8 }
    local first = ring:prepare("fsync", 1000000, { hardlink = true })
    local second = ring:prepare "nop"
    assert.are.equal(errno.EBADF, select(3, first:await()))
    assert.are.equal(0, second:await())
    first, second = ring:prepare("fsync", 1000000), ring:prepare "nop"
    ring:link { first, second, hard = true }
    assert.are.equal(errno.EBADF, select(3, first:await()))
    assert.are.equal(0, second:await())
  end)

  it("wait for the last of the group, and nothing waits for ever", function()
    local ring <close> = uring.ring { entries = 8 }
    local first = ring:prepare("nop", { link = true })
    assert.are.equal(0, ring:submit())
    assert.are.equal("prepared", first:status())
    assert.is_truthy(helper.error_of(first.await, first):find("waits for the one to follow it", 1, true))
    local second = ring:prepare "nop"
    assert.are.equal(2, ring:submit())
    assert.are.equal(0, first:await())
    assert.are.equal(0, second:await())
  end)

  it("are as many as the ring has entries, and no more", function()
    local ring <close> = uring.ring { entries = 4 }
    local ops = {}
    for i = 1, 3 do
      ops[i] = ring:prepare("nop", { link = true })
    end
    assert.is_truthy(helper.error_of(ring.prepare, ring, "nop", { link = true })
      :find("longer than the ring has entries (4)", 1, true))
    ops[4] = ring:prepare "nop"
    for i = 1, 4 do
      assert.are.equal(0, ops[i]:await())
    end
  end)

  it("are completed past the bound of the backlog", function()
    local ring <close> = uring.ring { entries = 8, backlog = 1 }
    local ops = {}
    for i = 1, 4 do
      ops[i] = ring:prepare("nop", i < 4 and { link = true } or {})
    end
    for i = 1, 4 do
      assert.are.equal(0, ops[i]:await())
    end
  end)

  it("are no operations that the kernel lacks", function()
    local ring <close> = uring.ring { entries = 8, without = { "listen", "fsync" } }
    local fd = uring.op.socket(uring.const.AF_INET, uring.const.SOCK_STREAM)
    local message = "an operation that this kernel lacks cannot be linked"
    for _, call in ipairs { { "listen", fd }, { "fsync", fd } } do
      local linked = { call[1], call[2], { link = true } }
      assert.is_truthy(helper.error_of(ring.prepare, ring, table.unpack(linked)):find(message, 1, true))
      local first = ring:prepare("nop", { link = true })
      assert.is_truthy(helper.error_of(ring.prepare, ring, table.unpack(call)):find(message, 1, true))
      local second = ring:prepare "nop"
      assert.are.equal(0, first:await())
      assert.are.equal(0, second:await())
      local one, other = ring:prepare "nop", ring:prepare(table.unpack(call))
      assert.is_truthy(helper.error_of(ring.link, ring, { one, other }):find(message, 1, true))
      assert.are.equal(0, one:await())
      other:await()
    end
    uring.op.close(fd)
  end)

  it("cannot be awaited without a handle", function()
    local message = "nop: an operation that is linked to the next needs a handle: use prepare"
    assert.is_truthy(helper.error_of(uring.op.nop, { link = true }):find(message, 1, true))
    uring.run(function()
      assert.is_truthy(helper.error_of(uring.op.nop, { hardlink = true }):find(message, 1, true))
    end)
  end)

  it("are refused where they cannot be linked", function()
    local ring <close> = uring.ring { entries = 8 }
    local other <close> = uring.ring { entries = 8 }
    local a, b, c = ring:prepare "nop", ring:prepare "nop", ring:prepare "nop"
    local foreign = other:prepare "nop"
    local function refused(why, ...)
      assert.is_truthy(helper.error_of(ring.link, ring, ...):find(why, 1, true))
    end
    refused("one after the other", { a, c })
    refused("one after the other", { b, a })
    refused("not two operations", { a })
    refused("another ring", { a, foreign })
    refused("operations expected", { a, 5 })
    refused("table expected", 5)
    ring:submit()
    refused("submitted or cancelled", { a, b })
    assert.are.equal(0, c:await())
    refused("done already", { a, b })
    foreign:await()
  end)
end)

describe("a linked operation that is answered without the kernel", function()
  helper.watch(before_each, after_each)

  it("is linked to the next all the same", function()
    local pool <close> = assert(uring.pool { buffers = 1, size = 4 })
    local a, b = assert(uring.socketpair())
    assert(b:write "12345678")
    local _, held = uring.op.recv(a:fd(), pool)
    local starving = uring.prepare("recv", a:fd(), pool)
    assert(uring.prepare("timeout", 0.002):await() == 0)
    local cancel = uring.prepare("cancel", starving, { link = true })
    assert.is_truthy(helper.error_of(cancel.await, cancel):find("waits for the one to follow it", 1, true))
    local nop = uring.prepare "nop"
    assert.are.equal(0, (cancel:await()))
    assert.are.equal(0, (nop:await()))
    assert.are.equal(uring.errno.ECANCELED, select(3, starving:await()))
    held:close()
    a:close()
    b:close()
  end)
end)
