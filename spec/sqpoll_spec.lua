local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit

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

  -- Nothing but what the thread itself puts into the CQ is looked at, for two
  -- seconds at most.
  local function comes(ring)
    local began = uring.now()
    repeat
      local result = ring:peek()
      if result then
        return result
      end
    until uring.now() - began > 2
  end

  -- The kernel counts in its ticks, of 4 ms mostly: around one, two and more.
  for _, idle in ipairs { 0.001, 0.005, 0.012 } do
    it(("that sleeps after %g s misses nothing, however close"):format(idle), function()
      local ring <close> = sqpoll(idle)
      local rounds, asleep, enters = helper.times(150), 0, ring:stats().enters
      math.randomseed(1)
      for i = 1, rounds do
        local wait = math.random() * 1.5 * (idle + 0.005)
        local began = uring.now()
        if i % 2 == 0 then
          uring.sleep(wait)
        else -- to the moment
          repeat until uring.now() - began >= wait
        end
        asleep = asleep + (ring:needs_wakeup() and 1 or 0)
        local op = ring:prepare "nop"
        ring:submit()
        assert.are.equal(0, comes(ring), ("round %d"):format(i))
        assert.are.equal(1, ring:advance())
        assert.are.equal("done", op:status())
      end
      assert.is_true(asleep > 0 and asleep < rounds, asleep)
      assert.is_true(ring:stats().enters - enters >= asleep)
    end)
  end

  it("that is awake is handed operations without a system call", function()
    local ring <close> = sqpoll(2)
    ring:wake()
    local enters = ring:stats().enters
    for _ = 1, helper.times(100) do
      local op = ring:prepare "nop"
      ring:submit()
      assert.are.equal(0, comes(ring))
      ring:advance()
      assert.are.equal(0, op:await())
    end
    assert.is_true(ring:stats().enters - enters < helper.times(100) / 2)
  end)

  it("that sleeps is left asleep where there is nothing for it", function()
    local ring <close> = sqpoll(0.001)
    assert.is_true(is_asleep(ring, true))
    for _ = 1, 100 do
      ring:peek()
      ring:step(0)
      ring:submit()
    end
    assert.is_true(ring:needs_wakeup())
  end)

  it("is used after it was closed by nobody", function()
    local ring = sqpoll(0.01)
    ring:close()
    for _, method in ipairs { "uses_sqpoll", "needs_wakeup", "wake", "iowq_max_workers", "iowq_affinity",
      "register_ring_fd", "unregister_ring_fd" } do
      assert.is_truthy(helper.error_of(ring[method], ring):find("closed ring", 1, true))
    end
  end)
end)

-- How many threads of this process have a name that begins so, and what /proc
-- says of the last of them.
local function threads(prefix)
  local pipe = assert(io.popen(("grep -sl '^%s' /proc/%d/task/*/comm"):format(prefix, testkit.getpid())))
  local n, last = 0, nil
  for path in pipe:lines() do
    n, last = n + 1, path:gsub("comm$", "status")
  end
  pipe:close()
  return n, last
end

describe("a ring that is attached to another", function()
  helper.watch(before_each, after_each)

  it("shares the thread that submits, and keeps it when the other is closed", function()
    helper.eventually(function()
      return threads "iou-sqp" == 0 -- of specs before this one
    end)
    local first = uring.ring { entries = 8, sqpoll = true, sq_thread_idle = 0.001 }
    local second <close> = uring.ring { entries = 8, sqpoll = true, sq_thread_idle = 0.001, attach = first }
    local third <close> = uring.ring { entries = 8, sqpoll = true, attach = second }
    assert.is_false(first:features().attached)
    assert.is_true(second:features().attached)
    local function all_work(...)
      for _ = 1, helper.times(20) do
        for _, ring in ipairs { ... } do
          assert.are.equal(0, ring:prepare("nop"):await())
        end
        uring.sleep(0.001)
      end
    end
    all_work(first, second, third) -- by now it has its name
    assert.are.equal(1, (threads "iou-sqp"))
    first:close()
    all_work(second, third)
    assert.are.equal(1, (threads "iou-sqp"))
  end)

  it("need have no such thread", function()
    local first = uring.ring { entries = 8 }
    local second <close> = uring.ring { entries = 8, attach = first }
    assert.is_true(second:features().attached)
    first:close()
    assert.are.equal(0, second:prepare("nop", { async = true }):await())
  end)

  it("needs one that is open, and of its kind", function()
    local plain <close> = uring.ring { entries = 8 }
    local closed = uring.ring { entries = 8 }
    closed:close()
    local function refused(message, options)
      assert.is_truthy(helper.error_of(uring.ring, options):find(message, 1, true))
    end
    refused("option 'attach' of ring: ring expected, got 5", { attach = 5 })
    refused("option 'attach' of ring: ring expected, got buffer", { attach = uring.buffer(1) })
    refused("attempt to use a closed ring", { attach = closed })
    refused("it takes a ring that has sqpoll, too", { attach = plain, sqpoll = true })
  end)
end)

describe("a ring with a registered descriptor", function()
  helper.watch(before_each, after_each)

  it("says so, and works as before", function()
    local ring <close> = uring.ring { entries = 8 }
    assert.is_false(ring:features().registered_ring)
    for _ = 1, 3 do
      assert.is_true(ring:register_ring_fd())
      assert.is_true(ring:register_ring_fd())
      assert.is_true(ring:features().registered_ring)
      local op = ring:prepare("timeout", 0.001)
      assert.are.equal(1, ring:enter(nil, 1))
      assert.are.equal(1, ring:advance())
      assert.are.equal(0, op:await())
      local other <close> = uring.ring { entries = 8 } -- has a number of its own
      assert.is_true(other:register_ring_fd())
      assert.are.equal(0, other:prepare("nop"):await())
      assert.is_true(ring:unregister_ring_fd())
      assert.is_true(ring:unregister_ring_fd())
      assert.is_false(ring:features().registered_ring)
      assert.are.equal(0, ring:prepare("nop"):await())
      assert.are.equal(0, other:prepare("nop"):await())
    end
  end)

  it("gives its place back when it is closed or dropped", function()
    for i = 1, 40 do -- there are 16 places
      local ring = uring.ring { entries = 2 }
      assert.is_true(ring:register_ring_fd())
      assert.are.equal(0, ring:prepare("nop"):await())
      if i % 2 == 0 then
        ring:close()
      end
      ring = nil -- luacheck: ignore
      helper.collect()
    end
    local rings = {}
    local ok, message, number
    for i = 1, 17 do
      rings[i] = uring.ring { entries = 2 }
      ok, message, number = rings[i]:register_ring_fd()
    end
    assert.are.same({ nil, "register_ring_fd: Device or resource busy", uring.errno.EBUSY }, { ok, message, number })
    for _, ring in ipairs(rings) do
      assert.are.equal(0, ring:prepare("nop"):await())
      ring:close()
    end
  end)

  it("is left to the parent by a child of fork", function()
    local ring <close> = uring.ring { entries = 8 }
    ring:register_ring_fd()
    local op = ring:prepare "nop"
    local pid = testkit.fork()
    if pid == 0 then
      local refused = not pcall(ring.submit, ring) and not pcall(ring.unregister_ring_fd, ring)
      ring:close()
      local own = uring.ring { entries = 8 }
      local works = own:register_ring_fd() and own:prepare("nop"):await() == 0
      testkit.exit(refused and works and 0 or 1)
    end
    assert.are.equal(0, testkit.wait(pid))
    assert.are.equal(0, op:await())
  end)

  it("is never another thread's ring of the same number", function()
    local ring <close> = uring.ring { entries = 8 }
    ring:register_ring_fd()
    local op = ring:prepare "nop"
    local ok, result, message, number = testkit.in_thread(function()
      local theirs <close> = assert(uring.ring { entries = 8 })
      assert(theirs:register_ring_fd())
      return ring:submit()
    end)
    assert.is_true(ok, result)
    assert.are.same({ nil, "submit: File exists", uring.errno.EEXIST }, { result, message, number })
    assert.are.equal(0, op:await())
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

  -- In a process that has none yet: those that are there stay where they are.
  it("can be kept to some processors", function()
    local output, status = helper.script([[
      local uring = require "uring"
      local testkit = require "testkit"
      local ring = uring.ring { entries = 8 }
      local from, to = { uring.pipe() }, { uring.pipe() }
      local ops = {}

      local function allowed(path)
        local file <close> = assert(io.open(path))
        return file:read "a":match "Cpus_allowed_list:%s*(%S+)"
      end

      -- Occupies one more; where each may run, sorted.
      local function workers()
        ops[#ops + 1] = ring:prepare("splice", from[1]:fd(), nil, to[2]:fd(), nil, 1)
        ring:submit()
        local list = {}
        for _ = 1, 500 do
          local pipe = io.popen("grep -sl '^iou-wrk' /proc/" .. testkit.getpid() .. "/task/*/comm")
          list = {}
          for path in pipe:lines() do
            list[#list + 1] = allowed(path:gsub("comm$", "status"))
          end
          pipe:close()
          if #list >= #ops then
            break
          end
          uring.sleep(0.01)
        end
        table.sort(list)
        return table.concat(list, " ")
      end

      local everywhere = allowed "/proc/self/status"
      local first = everywhere:match "^%d+"
      assert(ring:iowq_affinity { tonumber(first) })
      local kept = workers()
      assert(kept == first, kept)
      assert(ring:iowq_affinity())
      local all = { first, everywhere }
      table.sort(all)
      local both = workers()
      assert(both == table.concat(all, " "), both)
      ring:close()
      print "done"
    ]], "timeout --foreground -k 1 30")
    assert.are.same({ "done\n", 0 }, { output, status })
  end)

  it("are kept to processors by their numbers", function()
    local ring <close> = uring.ring { entries = 8 }
    for _, wrong in ipairs { "x", -1, 0.5, 1024, false } do
      assert.is_truthy(helper.error_of(ring.iowq_affinity, ring, { 0, wrong })
        :find("number of a processor expected at [2], got " .. tostring(wrong), 1, true))
    end
    assert.is_truthy(helper.error_of(ring.iowq_affinity, ring, {}):find("nothing in the table", 1, true))
    assert.is_truthy(helper.error_of(ring.iowq_affinity, ring, 0):find("table expected", 1, true))
  end)
end)
