local helper = require "spec.support.helper"
local uring = require "uring"

describe("a ring with a thread that submits", function()
  helper.watch(before_each, after_each)

  local function sqpoll(idle)
    return assert(uring.ring { entries = 8, sqpoll = true, sq_thread_idle = idle })
  end

  -- Waits for the thread to sleep, or to be awake; bounded.
  local function is_asleep(ring, asleep)
    for _ = 1, 2000 do
      if ring:needs_wakeup() == asleep then
        return true
      end
      uring.sleep(0.001)
    end
    return false
  end

  it("says so, and others do not", function()
    local ring <close> = sqpoll(0.01)
    local other <close> = uring.ring { entries = 8 }
    assert.is_true(ring:uses_sqpoll())
    assert.is_false(other:uses_sqpoll())
    assert.is_false(other:needs_wakeup())
    assert.is_true(other:wake()) -- nothing to do
  end)

  it("sleeps when there is nothing, and can be woken", function()
    local ring <close> = sqpoll(0.01)
    assert.is_true(is_asleep(ring, true))
    assert.is_true(ring:wake())
    assert.is_true(is_asleep(ring, false))
  end)

  it("is woken by what is submitted, every time", function()
    local ring <close> = sqpoll(0.001)
    for _ = 1, helper.times(30) do
      assert.is_true(is_asleep(ring, true))
      local op = ring:prepare "nop"
      ring:submit()
      assert.are.equal(0, op:await())
    end
  end)

  it("is used after it was closed by nobody", function()
    local ring = sqpoll(0.01)
    ring:close()
    for _, method in ipairs { "uses_sqpoll", "needs_wakeup", "wake", "iowq_max_workers" } do
      assert.is_truthy(helper.error_of(ring[method], ring):find("closed ring", 1, true))
    end
  end)
end)

describe("the workers of a ring", function()
  helper.watch(before_each, after_each)

  it("have a limit that can be asked for and set", function()
    local ring <close> = uring.ring { entries = 8 }
    local bounded, unbounded = ring:iowq_max_workers()
    assert.is_true(bounded > 0 and unbounded > 0)
    assert.are.same({ bounded, unbounded }, { ring:iowq_max_workers(2, 3) }) -- what they were
    assert.are.same({ 2, 3 }, { ring:iowq_max_workers() })
    assert.is_truthy(helper.error_of(ring.iowq_max_workers, ring, -1):find("out of range", 1, true))
  end)
end)
