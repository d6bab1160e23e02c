-- What ringbahn's Drive does, done here: preparing with back-pressure, submitting
-- as a step that may do nothing, the eager hint, handing completions back.  And
-- that its faults are not here.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local pipe, new_ring = opened.pipe, opened.ring
local error_of = helper.error_of

describe("ringbahn's Drive", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      check()
    end)
  end)

  describe("poll_prepare", function()
    it("calls prepare once with an SQE, and gives its completion to who prepared", function()
      local calls = 0
      local event = {
        prepare = function(_, sqe)
          calls = calls + 1
          sqe:nop()
        end;
        complete = function(self, result) return self, result end;
      }
      local handle = uring.prepare(event)
      assert.are.equal(1, calls)
      local who, result = handle:await()
      assert.are.equal(event, who)
      assert.are.equal(0, result)
      assert.are.equal(1, calls)
    end)

    it("suspends who finds no room, and wakes everybody in turn", function()
      uring.run(function()
        local done, most = {}, 0
        local tasks = {}
        for t = 1, 4 do
          tasks[t] = uring.spawn(function()
            local handles = {}
            for i = 1, 2500 do -- 10,000 in all: more than the queue and the backlog hold
              handles[i] = uring.prepare "nop"
              most = math.max(most, uring.stats().backlog)
            end
            for i = 1, 2500 do
              assert.are.equal(0, handles[i]:await())
            end
            done[#done + 1] = t
          end)
        end
        for t = 1, 4 do
          tasks[t]:await()
        end
        assert.are.equal(4, #done)
        assert.is_true(most > 1000 and most <= 4096, most) -- it did fill, and stayed bounded
      end)
    end)

    it("calls an event's prepare once, however long it waits for room", function()
      uring.run(function()
        local calls, done = 0, 0
        local event = {
          prepare = function(_, sqe)
            calls = calls + 1
            sqe:nop()
          end;
          complete = function() done = done + 1 end;
        }
        local handles = {}
        for i = 1, 5000 do
          handles[i] = uring.prepare(event)
        end
        for i = 1, 5000 do
          handles[i]:await()
        end
        assert.are.same({ 5000, 5000 }, { calls, done })
      end)
    end)

    it("outside of tasks makes room instead", function()
      local ring = new_ring { entries = 2, backlog = 2 }
      local handles = {}
      for i = 1, 50 do
        handles[i] = ring:prepare "nop"
      end
      for i = 1, 50 do
        assert.are.equal(0, handles[i]:await())
      end
    end)

    it("prepares several at once, all or none", function()
      local r, w = pipe()
      local buffer = uring.buffer(4)
      local write, read = uring.prepare("write", w, "data"), uring.prepare("read", r, buffer)
      uring.link { write, read }
      assert.are.equal(2, uring.submit())
      assert.are.same({ 4, 4 }, { uring.await(write, read) })
      local one = uring.prepare "nop"
      assert.is_truthy(error_of(uring.link, { one, read }):find("done already", 1, true))
      assert.are.equal(0, one:await())
    end)
  end)

  describe("poll_submit", function()
    it("is a step: how many were taken, and nothing where there is nothing", function()
      local ring = new_ring()
      assert.are.equal(0, ring:submit())
      local a, b = ring:prepare "nop", ring:prepare "nop"
      assert.are.equal(2, ring:submit())
      assert.are.equal(0, ring:submit())
      assert.are.same({ 0, 0 }, { uring.await(a, b) })
    end)

    it("may be left to the driver", function()
      local ring = new_ring()
      local handle = ring:prepare "nop"
      assert.are.equal("prepared", handle:status())
      assert.are.equal(0, handle:await()) -- whose turn submits
      uring.run(function()
        assert.are.equal(0, uring.prepare("nop"):await())
      end)
    end)

    it("is hinted at by eager, which hands over at once", function()
      local ring = new_ring()
      local patient = ring:prepare "nop"
      assert.are.equal("prepared", patient:status())
      local eager = ring:prepare("nop", { eager = true })
      assert.are.equal("submitted", eager:status())
      assert.are.equal("submitted", patient:status()) -- in order
      assert.are.equal(0, ring:submit())
      assert.are.equal("prepared", ring:prepare("nop", { eager = false }):status())
      assert.are.same({ 0, 0 }, { uring.await(patient, eager) })
    end)
  end)

  describe("complete", function()
    it("hands a completion back to its operation", function()
      local ring = new_ring()
      local handle = ring:prepare "nop"
      ring:enter(nil, 1)
      local result, flags, user_data, name = ring:peek()
      assert.are.same({ 0, 0, handle:user_data(), "nop" }, { result, flags, user_data, name })
      assert.are.equal("submitted", handle:status())
      assert.are.equal(1, ring:advance(1))
      assert.are.equal("done", handle:status())
      assert.are.equal(0, handle:await())
    end)

    it("ignores what belongs to nobody", function()
      local ring, other = new_ring(), new_ring()
      assert.are.equal(0, other:prepare("msg_ring", ring, 1, 2):await())
      assert.are.equal(0, ring:prepare("nop"):await())
      assert.are.equal(1, ring:stats().unknown)
      assert.are.equal(0, ring:stats().in_flight)
    end)
  end)

  describe("has no such faults here:", function()
    it("no wake-up is lost when one who waits for room goes away", function()
      uring.run(function()
        local greedy = uring.spawn(function()
          local handles = {}
          for i = 1, 6000 do
            handles[i] = uring.prepare "nop"
          end
          return #handles
        end)
        local tasks = {}
        for t = 1, 20 do
          tasks[t] = uring.spawn(function()
            return uring.prepare("nop"):await()
          end)
        end
        uring.yield()
        for t = 1, 20, 2 do
          tasks[t]:cancel()
        end
        for t = 2, 20, 2 do
          assert.are.equal(0, tasks[t]:await())
        end
        for t = 1, 20, 2 do
          pcall(tasks[t].await, tasks[t])
        end
        assert.are.equal(6000, greedy:await())
      end)
    end)

    it("a prepare that raises leaves the driver as it was, not lost", function()
      local ring = new_ring { entries = 1 }
      for _ = 1, 5 do
        error_of(ring.prepare, ring, { prepare = function(_, sqe)
          sqe:nop()
          error "no"
        end })
        error_of(ring.prepare, ring, { prepare = function() end })
        error_of(ring.prepare, ring, "read", -1)
      end
      assert.are.equal(0, ring:stats().prepared)
      assert.are.equal(0, ring:prepare("nop"):await())
    end)

    it("an SQE has nothing of the one before it", function()
      local ring = new_ring { entries = 1 }
      local file = opened.keep(assert(uring.open("/proc/self/status")))
      local r, w = pipe()
      ring:register_files { r }
      local buffer = uring.buffer(8)
      op.write(w, "12345678")
      for _ = 1, 3 do
        assert.are.equal(1, ring:prepare("read", 0, buffer, 1, { fixed_file = true, async = true }):await())
        -- with a fixed_file of before, or its place, this would read the pipe
        assert.are.equal(8, ring:prepare("read", file:fd(), buffer, 8, 0):await())
        assert.are.equal("Name:\t", buffer:get(1, 6))
        -- a personality of before would be refused
        local handle = ring:prepare("raw", { opcode = 0, personality = 77 })
        assert.are.equal(errno.EINVAL, select(3, handle:await()))
        assert.are.equal(0, ring:prepare("nop"):await())
      end
    end)

    it("what submitting comes to is told, and what was published stays in flight", function()
      local seen = {}
      for seed = 1, 20 do
        local ring <close> = uring.ring { entries = 4, driver = "fault", fault = { seed = seed, rate = 0.5 } }
        local handles = {}
        for i = 1, 4 do
          handles[i] = ring:prepare "nop"
        end
        for _ = 1, 3 do
          local n, message, code = ring:submit()
          if not n then
            assert.is_truthy(message:find "^submit: ")
            seen[errno[code]] = true
          end
        end
        for i = 1, 4 do
          assert.are.equal(0, handles[i]:await())
        end
        assert.are.equal(0, ring:stats().in_flight)
      end
      assert.is_not_nil(next(seen))
    end)

    it("nothing is in flight after the end of the driver", function()
      local r = pipe()
      local ring = uring.ring { entries = 4 }
      local buffer = uring.buffer(4)
      local poll = ring:prepare("poll_add", r, const.POLLIN)
      local read = ring:prepare("read", r, buffer)
      ring:submit()
      assert.are.equal(2, ring:stats().in_flight)
      ring:close()
      assert.are.equal(0, ring:stats().in_flight)
      assert.are.equal("owned", buffer:status())
      assert.are.same({ "done", "done" }, { poll:status(), read:status() })
    end)
  end)
end)
