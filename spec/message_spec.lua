-- Messages between rings: sending and receiving, of data and of files.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local testkit = helper.testkit

local MOST = 4096 -- messages that may wait

describe("messages", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local CANCELLED = { nil, "messages: Operation canceled", errno.ECANCELED }

  -- A process of its own that opens a ring and sends, after a moment.
  local function in_child(target, messages, delay)
    local fd = target:features().ring_fd
    local pid = testkit.fork()
    if pid == 0 then
      local ok, err = pcall(function()
        local ring = uring.ring { entries = 8 }
        for _, message in ipairs(messages) do
          ring:prepare("timeout", delay or 0.01):await()
          local IORING_OP_MSG_RING, SLOT = 40, 0x7fffffff
          assert(ring:prepare("raw", { opcode = IORING_OP_MSG_RING, fd = fd, len = message[1],
            off = message[2] << 32 | SLOT }):await())
        end
      end)
      if not ok then
        io.stderr:write(tostring(err), "\n")
      end
      testkit.exit(ok and 0 or 1)
    end
    return function()
      assert.are.equal(0, testkit.wait(pid))
    end
  end

  it("are a number and a number", function()
    local ring <close> = uring.ring { entries = 8 }
    local messages <close> = ring:messages()
    for _, each in ipairs { { 0, 0 }, { 7, 42 }, { 0x7fffffff, 0xffffffff }, { 1, 0x80000000 } } do
      assert.are.equal(0, op.msg_ring(ring, each[1], each[2]))
      assert.are.same(each, { messages:await() })
    end
    assert.are.equal(0, ring:stats().unknown)
  end)

  it("come in the order in which they were sent", function()
    local ring <close> = uring.ring { entries = 8 }
    local messages <close> = ring:messages()
    for i = 1, 100 do
      assert.are.equal(0, op.msg_ring(ring, i, 1000 + i))
    end
    for i = 1, 100 do
      assert.are.same({ i, 1000 + i }, { messages:await() })
    end
  end)

  it("may be for the ring itself", function()
    local ring <close> = uring.ring { entries = 8 }
    local messages <close> = ring:messages()
    local sent = ring:prepare("msg_ring", ring, 3, 4)
    assert.are.same({ 3, 4 }, { messages:await() })
    assert.are.equal(0, sent:await())
    local home <close> = uring.messages()
    assert.are.equal(0, op.msg_ring(core.default(), 5, 6))
    assert.are.same({ 5, 6 }, { home:await() })
  end)

  it("hit none of the ring's operations", function()
    local ring <close> = uring.ring { entries = 8 }
    local messages <close> = ring:messages()
    local timer = ring:prepare("timeout", 60)
    ring:submit()
    for data = 0, 200 do
      op.msg_ring(ring, 1, data)
      assert.are.same({ 1, data }, { messages:await() })
    end
    assert.are.equal("submitted", timer:status())
    assert.are.equal(1, ring:stats().in_flight)
    timer:cancel():await()
  end)

  it("that are none are not received", function()
    local ring <close> = uring.ring { entries = 8 }
    local messages <close> = ring:messages()
    local function raw(user_data, len)
      assert.are.equal(0, uring.prepare("raw", { opcode = 40, fd = ring:features().ring_fd, len = len,
        off = user_data }):await())
    end
    raw(5 << 32 | 0x7fffffff, 0xffffffff) -- its length is negative
    raw(5 << 32 | 0x7ffffffe, 1)
    raw(-1, 1)
    op.msg_ring(ring, 1, 2)
    assert.are.same({ 1, 2 }, { messages:await() })
    assert.are.equal(3, ring:stats().unknown)
  end)

  describe("have a receiver", function()
    it("that is no operation in flight", function()
      local ring <close> = uring.ring { entries = 8 }
      local before = ring:stats()
      local messages = ring:messages()
      assert.are.equal("submitted", messages:status())
      assert.is_truthy(tostring(messages):find("^operation %(messages, submitted, 0x"))
      op.msg_ring(ring, 1, 2)
      assert.are.same({ 1, 2 }, { messages:await() })
      assert.are.same(0, ring:stats().in_flight)
      messages:cancel()
      assert.are.equal("done", messages:status())
      assert.is_truthy(tostring(messages):find("^operation %(messages, done, 0x"))
      for _, name in ipairs { "prepared", "completed", "cancelled", "orphaned", "unknown", "backlog" } do
        assert.are.equal(before[name], ring:stats()[name], name)
      end
    end)

    it("and not two", function()
      local ring <close> = uring.ring { entries = 8 }
      local other <close> = uring.ring { entries = 8 }
      local messages = ring:messages()
      assert.are.equal("messages: the ring has a receiver already",
        helper.error_of(ring.messages, ring))
      local elsewhere <close> = other:messages()
      messages:cancel()
      local again <close> = ring:messages()
      op.msg_ring(ring, 1, 1)
      assert.are.same(CANCELLED, { messages:await() })
      assert.are.same({ 1, 1 }, { again:await() })
      assert.are.equal("submitted", elsewhere:status())
    end)

    it("or are counted", function()
      local ring <close> = uring.ring { entries = 8 }
      op.msg_ring(ring, 1, 1)
      ring:prepare("nop"):await()
      assert.are.equal(1, ring:stats().unknown)
      do
        local _messages <close> = ring:messages()
      end
      op.msg_ring(ring, 1, 1)
      ring:prepare("nop"):await()
      assert.are.equal(2, ring:stats().unknown)
    end)

    it("that is not linked, targeted or sent", function()
      local ring <close> = uring.ring { entries = 8 }
      local messages <close> = ring:messages()
      local nop = ring:prepare "nop"
      assert.is_truthy(helper.error_of(ring.link, ring, { messages, nop }):find("has been submitted", 1, true))
      assert.is_truthy(helper.error_of(ring.link, ring, { nop, messages }):find("has been submitted", 1, true))
      assert.are.equal(0, nop:await())
      assert.are.equal(errno.ENOENT, select(3, ring:prepare("cancel", messages):await()))
      assert.are.equal("submitted", messages:status())
    end)
  end)

  describe("are waited for", function()
    local function on_home(fn)
      fn(core.default(), uring.messages())
    end
    local function on_another(fn)
      local ring <close> = uring.ring { entries = 8 }
      fn(ring, ring:messages())
    end

    for where, on in pairs { ["on the home ring"] = on_home, ["on another ring"] = on_another } do
      it("in a task, " .. where, function()
        on(function(ring, messages)
          uring.run(function()
            local got = {}
            local task = uring.spawn(function()
              for len, data in messages:results() do
                got[#got + 1] = len .. ":" .. data
                if data == 0 then break end -- leaving the loop closes it
              end
            end)
            uring.yield()
            for i = 5, 0, -1 do
              assert.are.equal(0, op.msg_ring(ring, 10, i))
              if i % 2 == 0 then uring.sleep(0.001) end
            end
            task:await()
            assert.are.equal("10:5 10:4 10:3 10:2 10:1 10:0", table.concat(got, " "))
          end)
          assert.are.equal("done", messages:status())
        end)
      end)

      it("by several tasks, " .. where, function()
        on(function(ring, messages)
          local sum = 0
          uring.run(function()
            for _ = 1, 5 do
              uring.spawn(function()
                local _, data = messages:await()
                sum = sum + data
              end)
            end
            uring.yield()
            for i = 1, 5 do
              op.msg_ring(ring, 0, i)
            end
          end)
          assert.are.equal(15, sum)
          messages:cancel()
        end)
      end)

      it("outside of tasks, " .. where, function()
        if helper.valgrind then
          return pending "valgrind does not notice that the kernel has something for it"
        end
        on(function(ring, messages)
          op.msg_ring(ring, 1, 2)
          assert.are.same({ 1, 2 }, { messages:await() })
          local child = in_child(ring, { { 3, 4 } })
          assert.are.same({ 3, 4 }, { messages:await() })
          child()
          messages:cancel()
        end)
      end)

      it("with nothing else under way, " .. where, function()
        if helper.valgrind then
          return pending "valgrind does not notice that the kernel has something for it"
        end
        on(function(ring, messages)
          local child = in_child(ring, { { 3, 4 }, { 5, 6 } })
          uring.run(function()
            assert.are.same({ 3, 4 }, { messages:await() })
            assert.are.same({ 5, 6 }, { messages:await() })
          end)
          child()
          messages:cancel()
        end)
      end)

      it("by a task that is cancelled, " .. where, function()
        on(function(_, messages)
          uring.run(function()
            local task = uring.spawn(messages.await, messages)
            uring.sleep(0.001)
            task:cancel()
            assert.are.same({ false, core.cancelled }, { pcall(task.await, task) })
          end)
          assert.are.equal("done", messages:status())
        end)
      end)

      it("and cancelled meanwhile, " .. where, function()
        on(function(_, messages)
          uring.run(function()
            local task = uring.spawn(function()
              return messages:await()
            end)
            uring.sleep(0.001)
            assert.are.equal("cancelled", messages:cancel():await())
            assert.are.same(CANCELLED, { task:await() })
          end)
        end)
      end)
    end

    it("where tasks wait for one another and for nothing else, which is a deadlock", function()
      local message = helper.error_of(uring.run, function()
        local a, b
        a = uring.spawn(function() b:await() end)
        b = uring.spawn(function() a:await() end)
        b:await()
      end)
      assert.is_truthy(message:find("deadlock", 1, true), message)
      uring.close()
    end)
  end)

  describe("that nobody has taken", function()
    it("are there after the end", function()
      local ring <close> = uring.ring { entries = 8 }
      local messages = ring:messages()
      for i = 1, 3 do
        op.msg_ring(ring, i, i)
      end
      ring:prepare("nop"):await()
      messages:cancel()
      for i = 1, 3 do
        assert.are.same({ i, i }, { messages:await() })
      end
      assert.are.same(CANCELLED, { messages:await() })
    end)

    it("are not more than a bound", function()
      local ring <close> = uring.ring { entries = 8 }
      local messages = ring:messages()
      for i = 1, MOST do
        assert.are.equal(0, op.msg_ring(ring, 1, i))
      end
      for _ = 1, MOST // 8 do -- some arrive with each turn
        ring:prepare("nop"):await()
      end
      assert.are.equal("submitted", messages:status())
      assert.are.equal(0, op.msg_ring(ring, 1, 0))
      assert.are.equal(0, op.msg_ring(ring, 1, 0))
      ring:prepare("nop"):await()
      assert.are.equal("done", messages:status())
      assert.are.equal(2, ring:stats().unknown)
      local n = 0
      local message = helper.error_of(function()
        for len, data in messages:results() do
          n = n + 1
          assert.are.same({ 1, n }, { len, data })
        end
      end)
      assert.are.equal(MOST, n)
      assert.is_truthy(message:find("messages: No buffer space available", 1, true), message)
      local again <close> = ring:messages()
      op.msg_ring(ring, 5, 5)
      assert.are.same({ 5, 5 }, { again:await() })
    end)
  end)

  describe("end", function()
    it("with their ring", function()
      local ring = uring.ring { entries = 8 }
      local messages = ring:messages()
      ring:close()
      assert.are.equal("done", messages:status())
      assert.are.same(CANCELLED, { messages:await() })
      assert.are.equal("attempt to use a closed ring", helper.error_of(ring.messages, ring))
    end)

    it("with their handle", function()
      local ring <close> = uring.ring { entries = 8 }
      for _ = 1, 3 do
        ring:messages()
        helper.collect()
      end
      local messages <close> = ring:messages()
      op.msg_ring(ring, 1, 2)
      assert.are.same({ 1, 2 }, { messages:await() })
    end)

    it("with both", function()
      for _ = 1, 3 do
        uring.ring({ entries = 8 }):messages()
        helper.collect()
        local messages = uring.ring({ entries = 8 }):messages() -- keeps its ring
        helper.collect()
        assert.are.equal("submitted", messages:status())
      end
      helper.collect()
    end)

    it("with a task that waits for them on a ring that is closed", function()
      local ring = uring.ring { entries = 8 }
      uring.run(function()
        local messages = ring:messages()
        local task = uring.spawn(messages.await, messages)
        uring.sleep(0.001)
        ring:close()
        assert.are.same(CANCELLED, { task:await() })
      end)
    end)

    it("in a child of fork", function()
      local ring <close> = uring.ring { entries = 8 }
      local messages <close> = ring:messages()
      local pid = testkit.fork()
      if pid == 0 then
        local ok, err = pcall(messages.await, messages)
        local told = not ok and err:find("belongs to process", 1, true)
        ok, err = pcall(ring.messages, ring)
        told = told and not ok and err:find("belongs to process", 1, true)
        ring:close()
        told = told and messages:status() == "done"
        testkit.exit(told and 0 or 1)
      end
      assert.are.equal(0, testkit.wait(pid))
      op.msg_ring(ring, 1, 2)
      assert.are.same({ 1, 2 }, { messages:await() })
    end)
  end)

  describe("with files", function()
    local function rings()
      local from, to = uring.ring { entries = 8 }, uring.ring { entries = 8 }
      from:register_files(4)
      to:register_files(8)
      return from, to
    end

    local function text_in(ring, slot)
      local buffer = uring.buffer(16)
      local n = assert(ring:prepare("read", slot, buffer, 16, 0, { fixed_file = true }):await())
      return buffer:get(1, n)
    end

    local function put(ring, slot, text)
      local fd = assert(op.openat(nil, helper.tmpname(text), const.O_RDONLY))
      assert.are.equal(1, ring:register_files_update({ fd }, slot))
      op.close(fd)
    end

    it("go where the kernel likes, which the message tells", function()
      local from, to = rings()
      put(from, 2, "contents")
      local messages <close> = to:messages()
      local seen = {}
      for i = 1, 3 do
        local slot = from:prepare("msg_ring_fd", to, 2, nil, 100 + i):await()
        assert.are.same({ slot, 100 + i }, { messages:await() })
        assert.is_nil(seen[slot])
        seen[slot] = true
        assert.are.equal("contents", text_in(to, slot))
      end
      assert.are.equal("contents", text_in(from, 2)) -- it is there still
      from:close()
      to:close()
    end)

    it("go into a slot", function()
      local from, to = rings()
      put(from, 0, "one")
      put(from, 1, "two")
      local messages <close> = to:messages()
      for source, text in ipairs { [0] = "one", "two" } do
        assert.are.equal(0, from:prepare("msg_ring_fd", to, source, 7, source):await())
        assert.are.same({ 0, source }, { messages:await() })
        assert.are.equal(text, text_in(to, 7))
      end
      from:close()
      to:close()
    end)

    it("go without a word", function()
      local from, to = rings()
      put(from, 0, "silent")
      local messages <close> = to:messages()
      assert.are.equal(0, from:prepare("msg_ring_fd", to, 0, 3, 1, const.IORING_MSG_RING_CQE_SKIP):await())
      assert.are.equal("silent", text_in(to, 3))
      assert.are.equal(0, from:prepare("msg_ring", to, 9, 9):await())
      assert.are.same({ 9, 9 }, { messages:await() })
      -- data that nobody is told of is none
      assert.are.equal(errno.EINVAL,
        select(3, from:prepare("msg_ring", to, 9, 9, const.IORING_MSG_RING_CQE_SKIP):await()))
      from:close()
      to:close()
    end)

    it("are refused", function()
      local from, to = rings()
      put(from, 0, "text")
      local function fails(number, ...)
        local result, message, got = from:prepare("msg_ring_fd", ...):await()
        assert.are.same({ nil, number }, { result, got }, message)
        assert.are.equal("msg_ring_fd", message:match "^[%w_]+")
      end
      fails(errno.EINVAL, from, 0, nil, 1) -- to oneself
      fails(errno.EBADF, to, 1, nil, 1)
      fails(errno.EINVAL, to, 0, 8, 1)
      local bare <close> = uring.ring { entries = 4 }
      fails(errno.ENXIO, bare, 0, 1, 1)
      fails(errno.ENFILE, bare, 0, nil, 1)
      to:close()
      assert.is_truthy(helper.error_of(from.prepare, from, "msg_ring_fd", to, 0, nil, 1)
        :find("attempt to use a closed ring", 1, true))
      assert.is_truthy(helper.error_of(from.prepare, from, "msg_ring_fd", bare, 0, { async = true })
        :find("bad argument 'data' to 'msg_ring_fd' (integer expected, got table)", 1, true))
      from:close()
    end)
  end)
end)
