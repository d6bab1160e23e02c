-- Semaphores, mutexes, conditions and wait groups.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local co = uring.coroutine or core.coroutine
local sync = uring.sync or core.sync

local function pack(...)
  return table.pack(...)
end

local function turns(n)
  for _ = 1, n or 3 do
    uring.yield()
  end
end

-- Spawns n tasks that each do fn(i) and then note i; the list of notes.
local function noting(n, fn)
  local log = {}
  for i = 1, n do
    uring.spawn(function()
      fn(i)
      log[#log + 1] = i
    end)
  end
  turns()
  return log
end

describe("what waits for a sync object", function()
  helper.watch(before_each, after_each)

  -- What blocks, what lets the next one go on, and whether that was taken.
  local kinds = {
    semaphore = function()
      local s = sync.semaphore(0)
      return {
        object = s, wait = s.acquire, wake = function() s:release() end, try = s.try_acquire,
        left = function() return s:permits() end;
      }
    end;
    mutex = function()
      local m = sync.mutex()
      m:lock()
      return {
        object = m, wait = m.lock, wake = function(_, by) (by or m):unlock() end, try = m.try_lock,
        left = function() return m:is_locked() and 0 or 1 end;
      }
    end;
    condition = function()
      local c = sync.condition()
      return { object = c, wait = c.wait, wake = function() c:notify() end }
    end;
    waitgroup = function()
      local g = sync.waitgroup(1)
      return { object = g, wait = g.wait, wake = function() g:done() end, all = true, left = function() return 0 end }
    end;
  }

  for name, new in pairs(kinds) do
    it(("%s: leaves its place when it is cancelled"):format(name), function()
      uring.run(function()
        local k = new()
        local first = uring.spawn(k.wait, k.object)
        local second = uring.spawn(k.wait, k.object)
        turns()
        first:cancel()
        first:cancel()
        k:wake()
        second:await()
        assert.are.equal(uring.cancelled, select(2, pcall(first.await, first)))
        assert.are.equal(0, k.left and k.left() or 0)
      end)
    end)

    it(("%s: has what it was given before it was cancelled"):format(name), function()
      uring.run(function()
        local k, got, after = new(), nil, nil
        local task = uring.spawn(function()
          got = k.wait(k.object)
          after = pack(pcall(uring.yield))
        end)
        turns()
        k:wake()
        task:cancel()
        pcall(task.await, task)
        assert.are.equal(k.object, got)
        assert.are.same({ n = 2, false, uring.cancelled }, after)
        assert.are.equal(0, k.left and k.left() or 0)
      end)
    end)

    it(("%s: is held back by a shield"):format(name), function()
      uring.run(function()
        local k, got = new(), nil
        local task = uring.spawn(function()
          uring.shield(function() got = k.wait(k.object) end)
          uring.yield()
        end)
        turns()
        task:cancel()
        turns()
        assert.is_nil(got)
        k:wake()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
        assert.are.equal(k.object, got)
      end)
    end)

    it(("%s: waits for nothing once it is cancelled"):format(name), function()
      uring.run(function()
        local k, raised = new(), nil
        local task = uring.spawn(function()
          pcall(uring.sleep, 60)
          raised = pack(pcall(k.wait, k.object))
        end)
        turns()
        task:cancel()
        task:await()
        assert.are.same({ n = 2, false, uring.cancelled }, raised)
        k:wake()
        assert.are.equal(name == "waitgroup" and 0 or k.left and 1 or 0, k.left and k.left() or 0)
      end)
    end)

    it(("%s: is not fooled when the program resumes it"):format(name), function()
      uring.run(function()
        local k, thread, got = new(), nil, nil
        local task = uring.spawn(function()
          thread = coroutine.running()
          got = k.wait(k.object)
        end)
        turns()
        for i = 1, 100 do
          assert.is_true(coroutine.resume(thread, i, {}, "junk"))
        end
        assert.is_nil(got)
        k:wake()
        for i = 1, 100 do
          assert.is_true(coroutine.resume(thread, i, {}, "junk"))
        end
        assert.is_nil(got)
        task:await()
        assert.are.equal(k.object, got)
      end)
    end)

    it(("%s: its coroutine closed by the program, the next is served"):format(name), function()
      uring.run(function()
        local k, thread = new(), nil
        local closed = uring.spawn(function()
          thread = coroutine.running()
          k.wait(k.object)
        end)
        local told = uring.spawn(function() return helper.error_of(closed.await, closed) end)
        turns()
        local second = uring.spawn(k.wait, k.object)
        turns()
        coroutine.close(thread)
        if name == "condition" then
          k:wake()
        end
        k:wake()
        second:await()
        assert.matches("cannot resume dead coroutine", told:await())
        assert.are.equal(0, k.left and k.left() or 0)
      end)
    end)

    it(("%s: a coroutine inside of its task closed by the program, the next is served"):format(name), function()
      uring.run(function()
        local k, inner = new(), nil
        local closed = uring.spawn(function()
          inner = uring.coroutine.create(k.wait)
          return uring.coroutine.resume(inner, k.object)
        end)
        turns()
        local second = uring.spawn(k.wait, k.object)
        turns()
        coroutine.close(inner)
        inner = nil
        helper.collect()
        if name == "condition" then
          k:wake()
        end
        k:wake()
        second:await()
        local ok, err = closed:await()
        assert.is_false(ok)
        assert.matches("cannot resume dead coroutine", err)
        assert.are.equal(0, k.left and k.left() or 0)
      end)
    end)

    it(("%s: gone with all that knew it, its task is woken"):format(name), function()
      uring.run(function()
        local thread
        local task = uring.spawn(function()
          thread = coroutine.running()
          local k = new()
          if name == "mutex" then -- of one that ends without unlocking it
            k.object = sync.mutex()
            uring.spawn(function()
              k.object:lock()
              turns()
            end)
            uring.yield()
          end
          k.wait(k.object)
        end)
        local told = uring.spawn(function() return helper.error_of(task.await, task) end)
        turns(6)
        coroutine.close(thread)
        helper.collect()
        assert.matches("cannot resume dead coroutine", told:await())
      end)
    end)

    it(("%s: the main chunk waits and is woken, or told of a deadlock"):format(name), function()
      local k = new()
      if name == "mutex" then -- another's
        k.object = sync.mutex()
        uring.spawn(function()
          k.object:lock()
          uring.sleep(0.002)
          k.object:unlock()
        end)
        uring.yield()
      else
        uring.spawn(function()
          uring.sleep(0.002)
          k:wake()
        end)
      end
      assert.are.equal(k.object, k.wait(k.object))
      if name ~= "mutex" then
        local other = new()
        assert.matches("deadlock", helper.error_of(other.wait, other.object))
      end
    end)

    it(("%s: is in a coroutine inside of its task"):format(name), function()
      uring.run(function()
        local k = new()
        local task = uring.spawn(co.wrap(function() return co.wrap(k.wait)(k.object) end))
        turns()
        k:wake()
        assert.are.equal(k.object, task:await())
      end)
    end)

    it(("%s: checks what it is called on"):format(name), function()
      local k = new()
      for _, wrong in ipairs { {}, 1, io.stdout, sync.channel() } do
        assert.matches("uring." .. name .. " expected", helper.error_of(k.wait, wrong))
      end
      assert.matches("uring." .. name .. " expected", helper.error_of(k.wait))
      assert.matches("0x%x+%)$", tostring(k.object))
    end)
  end
end)

describe("a semaphore", function()
  helper.watch(before_each, after_each)

  it("gives its permits in order, and nobody barges in", function()
    uring.run(function()
      local s = sync.semaphore(2)
      s:acquire()
      assert.are.equal(s, s:try_acquire())
      assert.is_nil(s:try_acquire())
      local log = noting(5, function() s:acquire() end)
      for i = 1, 5 do
        s:release()
        assert.is_nil(s:try_acquire())
        assert.are.equal(0, s:permits())
        turns()
        assert.are.equal(i, log[#log])
        assert.are.equal(i, #log)
      end
      s:release(3)
      assert.are.equal(3, s:permits())
    end)
  end)

  it("serves who waits before it counts", function()
    uring.run(function()
      local s = sync.semaphore(0)
      local log = noting(3, function() s:acquire() end)
      s:release(5)
      assert.are.equal(2, s:permits())
      turns()
      assert.are.same({ 1, 2, 3 }, log)
    end)
  end)

  it("is released as a <close> variable, whatever happens", function()
    uring.run(function()
      local s = sync.semaphore(1)
      for _, fn in ipairs { function() end, function() error "x" end, function() uring.sleep(60) end } do
        local task = uring.spawn(function()
          local _ok, _err = pcall(function()
            local _ <close> = s:acquire()
            assert.are.equal(0, s:permits())
            fn()
          end)
        end)
        turns()
        task:cancel()
        pcall(task.await, task)
        assert.are.equal(1, s:permits())
      end
      -- granted, cancelled, and only then run
      s:acquire()
      local task = uring.spawn(function()
        local _ <close> = s:acquire()
        uring.yield()
      end)
      turns()
      s:release()
      task:cancel()
      pcall(task.await, task)
      assert.are.equal(1, s:permits())
    end)
  end)

  it("lets only so many in, however they come and go", function()
    math.randomseed(7)
    uring.run(function()
      local s, inside, most, done = sync.semaphore(3), 0, 0, 0
      local tasks = {}
      for i = 1, 60 do
        tasks[i] = uring.spawn(function()
          local _ <close> = s:acquire()
          inside = inside + 1
          most = math.max(most, inside)
          local _left <close> = setmetatable({}, { __close = function() inside = inside - 1 end })
          for _ = 1, math.random(0, 3) do
            uring.yield()
          end
          done = done + 1
        end)
      end
      for _ = 1, 30 do
        uring.yield()
        tasks[math.random(#tasks)]:cancel()
      end
      for _, task in ipairs(tasks) do
        pcall(task.await, task)
      end
      assert.are.equal(3, most)
      assert.are.equal(0, inside)
      assert.are.equal(3, s:permits())
      assert.is_true(done > 30)
    end)
  end)

  it("checks its numbers", function()
    assert.matches("number expected", helper.error_of(sync.semaphore))
    assert.matches("negative", helper.error_of(sync.semaphore, -1))
    local s = sync.semaphore(math.maxinteger)
    assert.matches("too many permits", helper.error_of(s.release, s))
    assert.matches("not a number of permits", helper.error_of(s.release, s, 0))
    assert.matches("not a number of permits", helper.error_of(s.release, s, math.mininteger))
    assert.are.equal(math.maxinteger, s:permits())
  end)
end)

describe("a mutex", function()
  helper.watch(before_each, after_each)

  it("goes from hand to hand in order, and nobody barges in", function()
    uring.run(function()
      local m, log = sync.mutex(), {}
      m:lock()
      for i = 1, 5 do
        uring.spawn(function()
          local _ <close> = m:lock()
          log[#log + 1] = i
          uring.yield()
          assert.is_nil(m:try_lock())
        end)
      end
      turns()
      m:unlock()
      assert.is_nil(m:try_lock())
      assert.is_true(m:is_locked())
      m:lock():unlock() -- behind all of them
      assert.are.same({ 1, 2, 3, 4, 5 }, log)
      assert.is_false(m:is_locked())
      assert.matches("mutex %(free", tostring(m))
    end)
  end)

  it("belongs to who has locked it", function()
    local m = sync.mutex()
    assert.matches("not locked", helper.error_of(m.unlock, m))
    m:lock()
    assert.matches("locked by this task already", helper.error_of(m.lock, m))
    assert.is_nil(m:try_lock())
    uring.run(function()
      assert.matches("locked by another task", helper.error_of(m.unlock, m))
      local other = sync.mutex()
      other:lock()
      assert.matches("locked by this task already", helper.error_of(other.lock, other))
      co.wrap(function() -- a coroutine is its task
        assert.matches("locked by this task already", helper.error_of(other.lock, other))
        other:unlock()
        other:lock()
      end)()
      uring.spawn(function()
        assert.matches("locked by another task", helper.error_of(other.unlock, other))
      end):await()
      other:unlock()
    end)
    m:unlock()
    assert.is_false(m:is_locked())
  end)

  it("whose owner has ended says so, and no other task is taken for it", function()
    local m = sync.mutex()
    uring.run(function() m:lock() end)
    for _ = 1, helper.times(200) do
      helper.collect()
      uring.run(function()
        assert.matches("locked by a task that has ended", helper.error_of(m.lock, m))
        assert.matches("locked by another task", helper.error_of(m.unlock, m))
      end)
      if helper.slow then
        break
      end
    end
    assert.matches("locked by a task that has ended", helper.error_of(m.lock, m))
    assert.is_nil(m:try_lock())
  end)

  it("keeps no task that has unlocked it", function()
    local m = sync.mutex()
    local weak = setmetatable({}, { __mode = "v" })
    uring.run(function()
      local _ <close> = m:lock()
      weak[1] = uring.current()
    end)
    helper.collect()
    assert.is_nil(weak[1])
  end)
end)

describe("a condition", function()
  helper.watch(before_each, after_each)

  it("wakes as many as it is told to, in order", function()
    uring.run(function()
      local c = sync.condition()
      c:notify() -- nobody
      local log = noting(6, function() c:wait() end)
      c:notify(0)
      turns()
      assert.are.same({}, log)
      c:notify()
      turns()
      assert.are.same({ 1 }, log)
      c:notify(2)
      turns()
      assert.are.same({ 1, 2, 3 }, log)
      c:notify_all()
      turns()
      assert.are.same({ 1, 2, 3, 4, 5, 6 }, log)
      assert.matches("not a number of tasks", helper.error_of(c.notify, c, -1))
      log = noting(2, function() c:wait() end)
      c:notify(math.maxinteger)
      turns()
      assert.are.same({ 1, 2 }, log)
    end)
  end)

  it("told of nobody does not wake the main chunk", function()
    local c = sync.condition()
    local told = false
    uring.spawn(function()
      c:notify(0)
      uring.sleep(0.005)
      told = true
      c:notify()
    end)
    c:wait()
    assert.is_true(told)
  end)

  it("waits again only for what comes after", function()
    uring.run(function()
      local c, rounds = sync.condition(), 0
      local task = uring.spawn(function()
        while rounds < 3 do
          c:wait()
          rounds = rounds + 1
        end
      end)
      turns()
      c:notify_all()
      c:notify_all()
      c:notify_all()
      turns()
      assert.are.equal(1, rounds)
      for _ = 1, 2 do
        c:notify()
        turns()
      end
      task:await()
    end)
  end)
end)

describe("a wait group", function()
  helper.watch(before_each, after_each)

  it("is waited for until it is at zero", function()
    uring.run(function()
      local g = sync.waitgroup()
      assert.are.equal(g, g:wait())
      g:add(2)
      g:add()
      local log = noting(2, function() g:wait() end)
      g:done()
      g:add(-1)
      turns()
      assert.are.same({}, log)
      assert.are.equal(1, g:count())
      g:done()
      g:add(5) -- who waited has been let go
      turns()
      assert.are.same({ 1, 2 }, log)
      assert.are.equal(5, g:count())
    end)
  end)

  it("lets the main chunk go, too, when it was at zero for a moment", function()
    local g = sync.waitgroup(1)
    uring.spawn(function()
      g:done()
      g:add(1)
    end)
    assert.are.equal(g, g:wait())
    assert.are.equal(1, g:count())
  end)

  it("never falls below zero", function()
    local g = sync.waitgroup(1)
    assert.matches("out of range", helper.error_of(g.add, g, -2))
    assert.matches("out of range", helper.error_of(g.add, g, math.mininteger))
    assert.matches("out of range", helper.error_of(g.add, g, math.maxinteger))
    assert.are.equal(1, g:count())
    g:done()
    assert.matches("out of range", helper.error_of(g.done, g))
    assert.are.equal(0, g:count())
    assert.matches("less than nothing", helper.error_of(sync.waitgroup, -1))
    assert.matches("wait group %(0,", tostring(g))
  end)
end)

describe("channels, locks, coroutines and shields, all at once", function()
  helper.watch(before_each, after_each)

  local random = math.random

  -- Tasks do anything at any depth of coroutines and shields, and are cancelled
  -- at any time; what went into the channels is what came out.
  local function round()
    local chs, m, s = {}, sync.mutex(), sync.semaphore(2)
    local sent, got, tops = {}, {}, {}
    local holding, inside = 0, 0
    for i = 1, 3 do
      chs[i] = sync.channel(random(0, 2))
    end
    local function took(value)
      if value ~= nil then
        assert.is_nil(got[value])
        got[value] = true
      end
    end
    local function count(n)
      holding = holding + n
      assert.is_true(holding <= 1)
    end
    local function enter(n)
      inside = inside + n
      assert.is_true(inside <= 2)
    end
    local function close(fn)
      return setmetatable({}, { __close = function() fn(-1) end })
    end
    local acts = {
      function()
        local value = {}
        if chs[random(3)]:send(value) then
          sent[value] = true
        end
      end,
      function() took((chs[random(3)]:receive())) end,
      function()
        local value, c = {}, random(3)
        local which, result = sync.select { chs[c], { chs[c % 3 + 1], value } }
        if which == 2 then
          sent[value] = true
        else
          took(result)
        end
      end,
      function()
        local _m <close> = m:lock()
        count(1)
        local _ <close> = close(count)
        uring.yield()
      end,
      function()
        local _s <close> = s:acquire()
        enter(1)
        local _ <close> = close(enter)
        uring.yield()
      end,
      function() uring.sleep(random() * 0.0001) end,
      function() assert.are.equal(0, uring.op.nop()) end,
      function()
        if coroutine.running() ~= tops[uring.current()] then
          co.yield(1)
        end
      end,
    }
    local function node(depth)
      for _ = 1, random(4) do
        local kind = depth > 0 and random(5) or 5
        if kind == 1 then
          for _ in co.wrap(node), depth - 1 do -- its yields are for here
            uring.yield()
          end
        elseif kind == 2 then
          local c = co.create(node)
          repeat
            local ok, err = co.resume(c, depth - 1)
            if not ok then
              co.close(c)
              error(err, 0)
            end
          until co.status(c) == "dead"
        elseif kind == 3 then
          uring.shield(node, depth - 1)
        else
          acts[random(#acts)]()
        end
      end
    end
    local tasks = {}
    for i = 1, random(4, 12) do
      tasks[i] = uring.spawn(function()
        tops[uring.current()] = coroutine.running()
        while true do
          node(3)
          uring.yield()
        end
      end)
    end
    for _ = 1, random(30) do
      uring.yield()
      if random(3) == 1 then
        tasks[random(#tasks)]:cancel()
      end
    end
    for _, task in ipairs(tasks) do
      task:cancel()
    end
    -- those in a shield may wait for one another: serve them
    local function is_over()
      for _, task in ipairs(tasks) do
        if task:status() ~= "cancelled" then
          return false
        end
      end
      return true
    end
    for n = 1, 100000 do
      for _, ch in ipairs(chs) do
        took((ch:try_receive()))
        local value = {}
        if n % 2 == 1 and ch:try_send(value) then
          sent[value] = true
        end
      end
      if is_over() then
        break
      end
      uring.yield()
    end
    assert.is_true(is_over())
    for _, task in ipairs(tasks) do
      assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
    end
    for _, ch in ipairs(chs) do
      for value in function() return ch:try_receive() end do
        took(value)
      end
    end
    for value in pairs(sent) do
      assert.is_true(got[value], "lost")
    end
    for value in pairs(got) do
      assert.is_true(sent[value], "from nowhere")
    end
    assert.are.same({ 0, 0, 2, false }, { holding, inside, s:permits(), m:is_locked() })
  end

  for seed = 1, 5 do
    it("loses nothing, seed " .. seed, function()
      math.randomseed(seed)
      for _ = 1, helper.times(60) do
        uring.run(round)
      end
    end)
  end
end)
