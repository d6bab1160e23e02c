-- Completions that belong to no operation: user_data is slot and generation,
-- and one whose generation is gone is counted and changes nothing.
--
-- They are forged by IORING_OP_MSG_RING, which posts a completion with any
-- user_data and result into a ring.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const = uring.const
local fds = helper.testkit.fds

local MSG_RING = 40
local MSG_RING_FLAGS_PASS = 2
local F_MORE = 2
local NEVER = 0x12345678 -- a generation that no slot reaches here

local pipe = opened.pipe

local function user_data(slot, generation)
  return generation << 32 | slot
end

-- Posts a completion into `target` from `from`, and lets `target` reap it.
local function forge(from, target, data, result)
  local fd = target:features().ring_fd
  local op = from:prepare("raw", { opcode = MSG_RING, fd = fd, off = data, len = result, addr = 0 })
  assert.are.equal(0, (op:await()))
  if from ~= target then
    assert.are.equal(0, target:prepare("nop"):await())
  end
end

-- The counters that a forged completion must leave alone.
local function vital(ring)
  local s = ring:stats()
  return {
    in_flight = s.in_flight, backlog = s.backlog, cancelled = s.cancelled, orphaned = s.orphaned,
    bytes_lent = s.bytes_lent, leaked = s.leaked;
  }
end

local function supported()
  local ring <close> = uring.ring { entries = 1 }
  local fd = ring:features().ring_fd
  return ring:prepare("raw", { opcode = MSG_RING, fd = fd, off = -2, len = 0, addr = 0 }):await() == 0
end

local test = supported() and it or function(name)
  pending(name .. " (no MSG_RING here)")
end

describe("a completion of no operation", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      check()
    end)
  end)

  setup(function()
    math.randomseed(11)
  end)

  local rings = {
    ["by the ring itself"] = function()
      local ring = uring.ring { entries = 16 }
      opened.keep(ring)
      return ring, ring
    end;
    ["by another ring"] = function()
      local from, target = uring.ring { entries = 4 }, uring.ring { entries = 16 }
      opened.keep(from)
      opened.keep(target)
      return from, target
    end;
  }

  for who, make in pairs(rings) do
    describe("posted " .. who, function()
      test("is counted where the slot never was", function()
        local from, target = make()
        target:prepare("nop"):await()
        local before, state = target:stats().unknown, vital(target)
        local datas = {
          user_data(1 << 31, 0), user_data(0xffffffff, 0), user_data(100000, 1), user_data(0x7fffffff, NEVER), -2,
          math.mininteger | 0xffffff, math.maxinteger,
        }
        for i, data in ipairs(datas) do
          forge(from, target, data, 0)
          assert.are.equal(before + i, target:stats().unknown)
        end
        assert.are.same(state, vital(target))
      end)

      test("is counted where the slot is free", function()
        local from, target = make()
        for _ = 1, 5 do
          target:prepare("nop"):await()
        end
        local before, state = target:stats().unknown, vital(target)
        local count = 0
        for slot = 40, 127 do
          forge(from, target, user_data(slot, 0), 0)
          forge(from, target, user_data(slot, 1), -1)
          count = count + 2
        end
        assert.are.equal(before + count, target:stats().unknown)
        assert.are.same(state, vital(target))
      end)

      test("is counted where its generation is over", function()
        local from, target = make()
        -- every slot that is used has had some hundred generations
        for _ = 1, 300 do
          target:prepare("nop"):await()
        end
        local before = target:stats().unknown
        for slot = 0, 3 do
          for generation = 0, 9 do
            forge(from, target, user_data(slot, generation), 77)
          end
        end
        -- slots 1 to 3 were hardly used: their generation 0 may be the one to
        -- come, but nobody is there
        assert.are.equal(before + 40, target:stats().unknown)
        assert.are.equal(0, target:stats().in_flight)
      end)

      test("ends no operation that has the slot after it", function()
        local from, target = make()
        local r, w = pipe()
        for _ = 1, 20 do -- twenty generations of sixteen slots
          local nops = {}
          for i = 1, 16 do
            nops[i] = target:prepare "nop"
          end
          for i = 1, 16 do
            nops[i]:await()
          end
        end
        local ops, buffers = {}, {}
        for i = 1, 8 do
          buffers[i] = uring.buffer(8)
          ops[i] = target:prepare("read", r, buffers[i])
        end
        target:submit()
        local before, state = target:stats().unknown, vital(target)
        for slot = 0, 15 do
          for generation = 0, 9 do
            forge(from, target, user_data(slot, generation), 8)
          end
        end
        assert.are.equal(before + 160, target:stats().unknown)
        assert.are.same(state, vital(target))
        for i = 1, 8 do
          assert.are.equal("submitted", ops[i]:status())
          assert.are.equal("lent", buffers[i]:status())
        end
        uring.op.write(w, ("x"):rep(64))
        for i = 1, 8 do
          assert.are.equal(8, ops[i]:await())
          assert.are.equal("xxxxxxxx", buffers[i]:get())
        end
      end)

      test("ends no operation that has another generation of the slot", function()
        local from, target = make()
        local r, w = pipe()
        local ops, buffers = {}, {}
        for i = 1, 12 do
          buffers[i] = uring.buffer(8)
          ops[i] = target:prepare("read", r, buffers[i])
        end
        target:submit()
        local before, state = target:stats().unknown, vital(target)
        assert.are.equal(12, state.in_flight)
        assert.are.equal(96, state.bytes_lent)
        for slot = 0, 31 do
          forge(from, target, user_data(slot, NEVER), 8)
          forge(from, target, user_data(slot, NEVER), -9)
          forge(from, target, user_data(slot, 0xffffffff), 8)
        end
        assert.are.equal(before + 96, target:stats().unknown)
        assert.are.same(state, vital(target))
        for i = 1, 12 do
          assert.are.equal("submitted", ops[i]:status())
          assert.are.equal("lent", buffers[i]:status())
        end
        for i = 1, 12 do
          uring.op.write(w, ("%08d"):format(i))
          local n = 0
          for k = 1, 12 do
            target:prepare("nop"):await()
            n = n + (ops[k]:status() == "done" and 1 or 0)
          end
          assert.are.equal(i, n)
        end
        for i = 1, 12 do
          assert.are.equal(8, ops[i]:await())
          assert.matches("^%d%d%d%d%d%d%d%d$", buffers[i]:get())
        end
      end)

      test("changes nothing, whatever it says", function()
        local from, target = make()
        local r = pipe()
        local b = uring.buffer(8)
        local op = target:prepare("read", r, b)
        target:submit()
        local before, state = target:stats().unknown, vital(target)
        local count = helper.times(500)
        for _ = 1, count do
          -- any slot, and generations that no slot here has got to
          local data = user_data(math.random(0, 0xffffffff), math.random(1 << 20, 0xfffffffe))
          forge(from, target, data, math.random(-4095, 0x7fffffff))
        end
        assert.are.equal(before + count, target:stats().unknown)
        assert.are.same(state, vital(target))
        assert.are.equal("submitted", op:status())
        assert.are.equal("cancelled", op:cancel():await())
      end)

      test("closes no descriptor, whatever its result", function()
        local from, target = make()
        local listener = uring.listen "127.0.0.1:0"
        opened.keep(listener)
        local accepts = {}
        for i = 1, 4 do
          accepts[i] = target:prepare("accept", listener:fd(), i % 2 == 0 and { multishot = true } or nil)
        end
        target:submit()
        local r, w = pipe()
        local before = fds()
        for slot = 0, 7 do
          for _, fd in ipairs { r, w, listener:fd() } do
            forge(from, target, user_data(slot, NEVER), fd)
          end
        end
        for i = 1, 4 do
          assert.are.equal("submitted", accepts[i]:status())
        end
        accepts = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        for slot = 0, 7 do
          for _, fd in ipairs { r, w, listener:fd() } do
            forge(from, target, user_data(slot, NEVER), fd)
          end
        end
        assert.are.equal(before, fds())
        assert.are.equal(2, uring.op.write(w, "ok"))
        assert.are.equal(0, target:stats().in_flight)
      end)

      test("is not taken for one of many, either", function()
        local from, target = make()
        local r = pipe()
        local poll = target:prepare("poll_add", r, const.POLLIN, { multishot = true })
        target:submit()
        local function forge_more(data)
          local op = from:prepare("raw", {
            opcode = MSG_RING, fd = target:features().ring_fd, off = data, len = 1, addr = 0,
            rw_flags = MSG_RING_FLAGS_PASS, file_index = F_MORE;
          })
          local n, _, code = op:await()
          target:prepare("nop"):await()
          return n, code
        end
        local before = target:stats().unknown
        local n, code = forge_more(user_data(0, NEVER))
        if not n and code == uring.errno.EINVAL then
          poll:cancel():await()
          return pending "no flags for MSG_RING here"
        end
        for slot = 0, 15 do
          assert.are.equal(0, (forge_more(user_data(slot, NEVER))))
        end
        assert.are.equal(before + 17, target:stats().unknown)
        assert.are.equal("submitted", poll:status())
        poll:cancel()
        local result, _, errno = poll:await()
        assert.is_nil(result)
        assert.are.equal(uring.errno.ECANCELED, errno)
      end)

      test("does not reach the successor in a slot that was cancelled and used again", function()
        local from, target = make()
        local r, w = pipe()
        for round = 1, helper.times(200) do
          local first = target:prepare("read", r, uring.buffer(8))
          target:submit()
          assert.are.equal("cancelled", first:cancel():await())
          local b = uring.buffer(8)
          local second = target:prepare("read", r, b)
          target:submit()
          forge(from, target, user_data(0, NEVER - round), 8)
          assert.are.equal("submitted", second:status())
          assert.are.equal("lent", b:status())
          uring.op.write(w, "successr")
          assert.are.equal(8, second:await())
          assert.are.equal("successr", b:get())
        end
      end)
    end)
  end

  test("is ignored by the default ring with tasks waiting", function()
    local from = uring.ring { entries = 4 }
    opened.keep(from)
    local r, w = pipe()
    local before = uring.stats().unknown
    uring.run(function()
      local fd = uring.features().ring_fd
      local b = uring.buffer(8)
      local reader = uring.spawn(function() return uring.op.read(r, b) end)
      local sleeper = uring.spawn(function()
        uring.sleep(0.02)
        return "slept"
      end)
      uring.yield()
      for slot = 0, 31 do
        assert.are.equal(0, from:prepare("raw", {
          opcode = MSG_RING, fd = fd, off = user_data(slot, NEVER), len = 8, addr = 0;
        }):await())
      end
      uring.yield()
      assert.are.equal(before + 32, uring.stats().unknown)
      assert.are.equal("waiting", reader:status())
      assert.are.equal("lent", b:status())
      assert.are.equal("slept", sleeper:await())
      uring.op.write(w, "x")
      assert.are.equal(1, reader:await())
      assert.are.equal("x", b:get(1, 1))
    end)
  end)

  it("is none that the library asked for itself: cancels leave nothing unknown", function()
    local r, w = pipe()
    local before = uring.stats().unknown
    for i = 1, helper.times(300) do
      local op = uring.prepare("read", r, uring.buffer(8))
      uring.submit()
      if i % 3 == 0 then
        uring.op.write(w, "x")
      end
      op:cancel()
      op:cancel()
      op:await()
    end
    assert.are.equal(before, uring.stats().unknown)
    local b = uring.buffer(4096) -- what the cancelled ones left
    uring.op.write(w, "x")
    assert.is_true(uring.op.read(r, b) >= 1)
  end)
end)
