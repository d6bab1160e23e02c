-- uring.coroutine: as the stock library in plain use, and with awaits passing
-- through to the task.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local co = uring.coroutine or core.coroutine
local sync = uring.sync or core.sync
local op = uring.op

local function pack(...)
  return table.pack(...)
end

local function turns(n)
  for _ = 1, n or 3 do
    uring.yield()
  end
end

-- A value whose __close calls fn.
local function closing(fn)
  return setmetatable({}, { __close = fn })
end

describe("uring.coroutine in plain use", function()
  helper.watch(before_each, after_each)

  it("has what coroutine has", function()
    for name, value in pairs(coroutine) do
      assert.are.equal(type(value), type(co[name]), name)
    end
    for name in pairs(co) do
      assert.is_truthy(coroutine[name], name)
    end
  end)

  -- A random program over a few coroutines, the same for the same seed; the
  -- list of what happened.
  local function program(c, seed)
    local state = seed
    local function random(n)
      state = (state * 1103515245 + 12345) & 0x7fffffff
      return (state >> 8) % n + 1
    end
    local log, names, all, wraps = {}, {}, {}, {}
    local function name(x)
      if type(x) == "thread" or type(x) == "function" or type(x) == "table" then
        return names[x] or "other " .. type(x)
      end
      return (tostring(x):gsub("to '[^']*'", "to '?'")) -- in other tables, with other names
    end
    local function note(what, ...)
      local parts = { what }
      for i = 1, select("#", ...) do
        parts[#parts + 1] = name((select(i, ...)))
      end
      log[#log + 1] = table.concat(parts, " ")
    end
    local steps, depth = 0, 0
    local act
    local function body(...)
      note("began", ...)
      local _ <close> = closing(function(_, err)
        -- where it can be suspended in a task, and not elsewhere
        note("closes", err, not uring.current() and c.isyieldable())
        if random(6) == 1 then
          error("in close " .. steps)
        end
      end)
      for _ = 1, random(6) do
        act()
      end
      return random(9), nil
    end
    function act()
      steps = steps + 1
      if steps > 150 or depth > 10 then
        return
      end
      depth = depth + 1
      local kind = random(12)
      local target, call = all[random(#all + 1)], wraps[random(#wraps + 1)]
      if kind == 1 then
        local new = c.create(body)
        all[#all + 1] = new
        names[new] = "co" .. #all
      elseif kind == 2 then
        local new = c.wrap(body)
        wraps[#wraps + 1] = new
        names[new] = "wrap" .. #wraps
      elseif kind <= 5 then
        note("resume", pcall(c.resume, target, random(5), nil))
      elseif kind == 6 and call then
        note("call", pcall(call, random(5), "x"))
      elseif kind == 7 then
        if c.isyieldable() then
          depth = depth - 1
          note("yielded", c.yield(steps, nil))
          depth = depth + 1
        else
          note("yield", pcall(c.yield, steps))
        end
      elseif kind == 8 then
        note("close", pcall(c.close, target))
      elseif kind == 9 then
        note("status", pcall(c.status, target))
      elseif kind == 10 then
        local running, main = c.running()
        all[#all + 1] = running
        names[running] = names[running] or "runner" .. #all
        note("running", running, main, c.isyieldable(target))
      elseif kind == 11 then
        depth = depth - 1
        error(random(2) == 1 and "error " .. steps or {}, random(3) - 1)
      else
        note("pcall", pcall(act))
      end
      depth = depth - 1
    end
    -- from inside of a coroutine: the main one is another in a task
    local outer = coroutine.create(function()
      for _ = 1, 60 do
        steps, depth = steps, 0
        note("step", pcall(act))
      end
    end)
    local ok, err
    repeat
      ok, err = coroutine.resume(outer)
      note("outer", ok, err)
    until coroutine.status(outer) == "dead"
    return log
  end

  for _, place in ipairs { "outside of tasks", "in a task" } do
    it("random programs do the same, " .. place, function()
      local interesting = 0
      local function compare()
        for seed = 1, helper.times(150) do
          local want, got = program(coroutine, seed), program(co, seed)
          for i = 1, math.max(#want, #got) do
            assert.are.equal(want[i], got[i], ("seed %d, step %d"):format(seed, i))
          end
          interesting = interesting + #want
        end
      end
      if place == "in a task" then
        uring.run(compare)
      else
        compare()
      end
      assert.is_true(interesting > helper.times(150) * 20)
    end)
  end

  it("says what is wrong as the stock library does", function()
    local function failures(c)
      local list = {}
      local function try(fn, ...)
        list[#list + 1] = pack(pcall(fn, ...))
        local results = list[#list]
        for i = 1, results.n do
          local result = results[i]
          if type(result) == "string" then
            results[i] = result:gsub("to '[^']*'", "to '?'")
          elseif type(result) == "thread" then
            results[i] = "thread"
          end
        end
      end
      local dead = c.create(function() end)
      c.resume(dead)
      local failed = c.create(function() error("on purpose", 0) end)
      try(c.resume, failed)
      local object = {}
      local w = c.wrap(function() error(object) end)
      try(w)
      try(w)
      try(c.wrap(function() error("text", 0) end))
      try(c.wrap(function() error "text" end))
      try(c.wrap(function() string.rep() end))
      try(c.wrap(function() error(nil) end))
      try(c.wrap(function() error(42) end))
      for _, x in ipairs { dead, failed, c.running() } do
        try(c.resume, x)
        try(c.status, x)
        try(c.close, x)
        try(c.resume, x, 1, 2, 3)
      end
      for _, name in ipairs { "resume", "wrap", "status", "close", "create", "isyieldable" } do
        local _, err = pcall(c[name], 1)
        list[#list + 1] = tostring(err):gsub("'[^']*'", "'?'")
      end
      try(c.resume, c.create(function(...) return select("#", ...), ... end), nil, nil)
      local many = c.create(function() return table.unpack({}, 1, 200000) end)
      try(function() return select("#", c.resume(many)) end)
      local self
      self = c.wrap(function() return self() end)
      try(self)
      local inner
      local normal = c.create(function() return c.status(inner), c.resume(inner) end)
      inner = normal
      try(c.resume, normal)
      return list
    end
    local function compare()
      local want, got = failures(coroutine), failures(co)
      for i = 1, math.max(#want, #got) do
        assert.are.same(want[i], got[i], "case " .. i)
      end
    end
    compare()
    uring.run(compare)
  end)

  it("nests as deep outside of tasks", function()
    local function depth(c)
      local n = 0
      local function down()
        n = n + 1
        return c.wrap(down)()
      end
      assert.matches("C stack overflow", helper.error_of(c.wrap(down)))
      return n
    end
    assert.are.equal(depth(coroutine), depth(co))
    assert.is_true(uring.run(depth, co) > 80)
    assert.are.equal("fine", uring.run(function()
      pcall(depth, co)
      return co.wrap(function()
        uring.yield()
        return "fine"
      end)()
    end))
  end)
end)

describe("an await in a coroutine", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("passes through, and yields do not", function()
    uring.run(function()
      local other = 0
      local ticker = uring.spawn(function()
        while true do
          other = other + 1
          uring.yield()
        end
      end)
      local gen = co.wrap(function(a)
        for i = 1, 5 do
          uring.sleep(0.0001)
          local b = co.yield(a + i, nil)
          assert.are.equal("more", b)
          uring.yield()
          b = co.yield(-i)
          assert.are.equal("and more", b)
        end
        uring.yield()
        return "end", nil, nil
      end)
      for i = 1, 5 do
        assert.are.same({ n = 2, 10 + i, nil }, pack(gen(i == 1 and 10 or "and more")))
        assert.are.same({ n = 1, -i }, pack(gen "more"))
      end
      assert.are.same({ n = 3, "end", nil, nil }, pack(gen "and more"))
      assert.is_true(other > 10)
      ticker:cancel()
    end)
  end)

  for _, way in ipairs { "wrap", "resume" } do
    -- Calls fn in so many coroutines inside one another.
    local function inside(depth, fn, ...)
      if depth == 0 then
        return fn(...)
      elseif way == "wrap" then
        return co.wrap(inside)(depth - 1, fn, ...)
      end
      local function check(ok, ...)
        if not ok then
          error((...), 0)
        end
        return ...
      end
      return check(co.resume(co.create(inside), depth - 1, fn, ...))
    end

    it("is any of all there are, at any depth, by " .. way, function()
      local path = helper.tmpname "one\ntwo\n"
      for depth = 1, 30, 7 do
        assert.are.equal("all", uring.run(inside, depth, function()
          uring.sleep(0.0001)
          uring.yield()
          assert.are.equal(0, op.nop())
          assert.are.equal(0, uring.prepare("nop"):await())
          local handle = uring.prepare("timeout", 60)
          uring.submit()
          assert.are.equal("cancelled", handle:cancel():await())
          local file <close> = assert(uring.open(path))
          assert.are.equal("one", file:read())
          local rd <close>, other = uring.pipe()
          local wr <close> = other
          local reader = uring.spawn(function() return rd:read "l" end)
          assert(wr:write "a line\n")
          assert.are.equal("a line", reader:await())
          local child = uring.spawn(function() error("of a child", 0) end)
          assert.are.same({ false, "of a child" }, { pcall(child.await, child) })
          assert.are.equal(7, uring.run(function() return uring.spawn(function() return 7 end):await() end))
          assert.are.equal("shielded", uring.shield(function()
            uring.yield()
            return "shielded"
          end))
          local ch, back = sync.channel(), sync.channel()
          uring.spawn(function()
            for value in ch:values() do
              back:send(value .. "!")
            end
            back:close()
          end)
          ch:send "x"
          assert.are.same({ n = 2, 2, "x!" }, pack(sync.select { { ch, "y" }, back }))
          assert.are.same({ n = 2, 1, true }, pack(sync.select { { ch, "y" }, back }))
          ch:close()
          assert.are.equal("y!", back:receive())
          assert.are.same({ n = 2, nil, "closed" }, pack(back:receive()))
          local timer <close> = uring.timer(uring.now() + 0.0001)
          assert.is_number(timer:wait())
          local m, s, g, c = sync.mutex(), sync.semaphore(0), sync.waitgroup(1), sync.condition()
          m:lock()
          local task = uring.spawn(function()
            s:release()
            uring.yield()
            c:notify()
            g:done()
            m:lock():unlock()
          end)
          s:acquire()
          c:wait()
          g:wait()
          m:unlock()
          task:await()
          return "all"
        end))
      end
    end)

    it("raises through coroutines what it raises, by " .. way, function()
      uring.run(function()
        local closed = {}
        local task = uring.spawn(inside, 4, function()
          local _ <close> = closing(function(_, err)
            closed[1] = err
            closed[2] = uring.shield(function()
              uring.sleep(0.0001)
              return "awaited"
            end)
          end)
          uring.sleep(60)
        end)
        turns()
        task:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
        assert.are.equal("cancelled", task:status())
        if way == "wrap" then
          assert.are.same({ uring.cancelled, "awaited" }, closed)
        end
        for _, err in ipairs { 42, closed } do
          local ok, got = pcall(inside, 5, function()
            uring.yield()
            error(err, 0)
          end)
          assert.is_false(ok)
          assert.are.equal(err, got)
          uring.yield() -- the task knows again which coroutine it is
        end
      end)
    end)
  end

  it("is in pcall, xpcall, close and for, but not where Lua cannot suspend", function()
    uring.run(function()
      local log = {}
      local gen = co.wrap(function()
        local ok, err = pcall(function()
          uring.yield()
          co.yield "in pcall"
          local _ <close> = closing(function()
            uring.yield()
            co.yield "in close"
            log[#log + 1] = "closed"
          end)
          error("on purpose", 0)
        end)
        log[#log + 1] = tostring(ok) .. " " .. err
        xpcall(function()
          uring.yield()
          error "x"
        end, function()
          local _, why = pcall(uring.yield)
          log[#log + 1] = why
        end)
        co.yield "last"
      end)
      for value in gen do
        log[#log + 1] = value
      end
      assert.are.same({ "in pcall", "in close", "closed", "false on purpose" }, { table.unpack(log, 1, 4) })
      assert.are.equal("last", log[#log])

      local function await_in(c)
        local list = { 3, 1, 2 }
        table.sort(list, function(a, b)
          c.wrap(function() uring.sleep(0) end)()
          return a < b
        end)
      end
      assert.matches("cannot await inside table.sort: Lua cannot suspend it", helper.error_of(await_in, co))
      assert.matches("cannot await inside table.sort: Lua cannot suspend it", helper.error_of(co.wrap(await_in), co))
      assert.matches("cannot await inside string.gsub", helper.error_of(co.wrap(function()
        ("x"):gsub("x", function() uring.yield() end)
      end)))
      local function own()
        coroutine.wrap(function() uring.yield() end)()
      end
      assert.matches("coroutine of the program's own.*uring.coroutine has", helper.error_of(own))
      assert.matches("coroutine of the program's own.*uring.coroutine has", helper.error_of(co.wrap(own)))
      assert.matches("coroutine of the program's own", helper.error_of(function()
        coroutine.wrap(function()
          co.wrap(function() uring.yield() end)()
        end)()
      end))
      -- generators without awaits do what they do there
      local list = { 3, 1, 2 }
      table.sort(list, function(a, b)
        return co.wrap(function()
          co.yield(a < b)
        end)()
      end)
      assert.are.same({ 1, 2, 3 }, list)
      local t = setmetatable({}, { __index = function(_, k)
        uring.yield()
        return k
      end })
      assert.are.equal("key", co.wrap(function() return t.key end)())
      uring.yield()
    end)
  end)

  it("tells its state", function()
    uring.run(function()
      local outer, inner, plain
      local ch = sync.channel()
      local task = uring.spawn(function()
        outer = co.create(function()
          inner = co.create(function()
            local value = ch:receive()
            co.yield(value)
            return "end"
          end)
          local _, value = co.resume(inner)
          plain = coroutine.status(inner)
          co.yield(value)
          return select(2, co.resume(inner))
        end)
        local _, a = co.resume(outer)
        local before = co.status(outer)
        local _, b = co.resume(outer)
        return a, b, before, co.status(outer), co.status(inner)
      end)
      turns()
      for _, c in ipairs { outer, inner } do
        assert.are.equal("normal", co.status(c))
        assert.are.same({ false, "cannot resume a coroutine that awaits" }, { co.resume(c, 1, 2) })
        assert.matches("cannot close a coroutine that awaits", helper.error_of(co.close, c))
        assert.matches("receive", debug.traceback(inner))
        for i = 1, 50 do
          assert.are.same({ true }, { coroutine.resume(c, i, "junk", {}) })
        end
      end
      ch:send "value"
      for i = 1, 50 do
        coroutine.resume(inner, i, "junk")
        coroutine.resume(outer, i, "junk")
      end
      assert.are.same({ n = 5, "value", "end", "suspended", "dead", "dead" }, pack(task:await()))
      assert.are.equal("suspended", plain)
    end)
  end)

  it("is of the task that resumes it", function()
    uring.run(function()
      local log, gate = {}, sync.semaphore(0)
      local gen = co.wrap(function()
        for i = 1, 10 do
          local me = uring.current()
          gate:acquire()
          uring.sleep(0.0001)
          assert.are.equal(me, uring.current())
          co.yield(i)
        end
      end)
      for i = 1, 10 do
        local task = uring.spawn(function() log[i] = gen() end)
        if i < 3 then
          turns()
          assert.matches("cannot resume a coroutine that awaits", helper.error_of(gen))
        end
        gate:release()
        task:await()
      end
      assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, log)
    end)
    -- begun outside of tasks, and ended there
    local gen = co.wrap(function()
      uring.sleep(0)
      co.yield(1)
      uring.sleep(0.0001)
      co.yield(2)
      uring.sleep(0)
      return 3
    end)
    assert.are.equal(1, gen())
    assert.are.equal(2, uring.run(gen))
    assert.are.equal(3, gen())
  end)

  it("takes its shields along", function()
    uring.run(function()
      local weak = setmetatable({}, { __mode = "k" })
      local gen = co.wrap(function()
        uring.shield(function()
          co.yield "inside"
          uring.yield()
          co.yield "still"
          uring.shield(co.yield, "twice")
        end)
        co.yield "outside"
        uring.sleep(60)
      end)
      do
        local first = uring.spawn(function()
          gen()
          uring.sleep(60)
        end)
        weak[first] = true
        turns()
        first:cancel() -- it has left the shield with the yield
        assert.are.equal(uring.cancelled, select(2, pcall(first.await, first)))
      end
      helper.collect()
      assert.is_nil(next(weak))
      local log = {}
      local second = uring.spawn(function()
        uring.current():cancel()
        log[1] = gen()
        log[2] = select(2, pcall(uring.yield))
        log[3] = gen()
        log[4] = select(2, pcall(uring.yield))
        log[5] = gen()
        log[6] = select(2, pcall(gen))
        log[7] = select(2, pcall(uring.yield))
      end)
      second:await()
      assert.are.same({ "still", uring.cancelled, "twice", uring.cancelled, "outside", uring.cancelled,
        uring.cancelled }, log)
    end)
    -- left unfinished, in a shield, by a task that goes on
    uring.run(function()
      local task = uring.spawn(function()
        co.wrap(function() uring.shield(co.yield) end)()
        uring.sleep(60)
      end)
      turns()
      task:cancel()
      assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
    end)
    -- without tasks it shields nobody, and yields all the same
    local plain = co.wrap(function() return uring.shield(function() return co.yield(1) end) end)
    assert.are.equal(1, plain())
    assert.are.equal("back", plain "back")
    assert.are.equal(1, uring.run(function()
      return coroutine.wrap(function() uring.shield(coroutine.yield, 1) end)()
    end))
  end)

  it("is cancelled with its operation", function()
    uring.run(function()
      local rd <close>, other = uring.pipe()
      local wr <close> = other
      local got
      local task = uring.spawn(function()
        local lines = co.wrap(function()
          for line in rd:lines() do
            co.yield(line)
          end
        end)
        for line in lines do
          got = line
        end
      end)
      wr:write "one\ntwo\n"
      helper.eventually(function() return got == "two" end)
      task:cancel()
      assert.are.equal(uring.cancelled, select(2, pcall(task.await, task)))
      assert(wr:write "three\n")
      assert.are.equal("three", rd:read())
    end)
  end)

  it("is collected with its task, and not before", function()
    uring.run(function()
      local weak = setmetatable({}, { __mode = "k" })
      local ch = sync.channel()
      do
        local task = uring.spawn(function()
          return co.wrap(function()
            weak[coroutine.running()] = true
            return co.wrap(function()
              weak[coroutine.running()] = true
              return ch:receive()
            end)()
          end)()
        end)
        turns()
        helper.collect()
        local n = 0
        for _ in pairs(weak) do
          n = n + 1
        end
        assert.are.equal(2, n)
        ch:send { "whole" }
        helper.collect()
        assert.are.same({ "whole" }, task:await())
      end
      helper.collect()
      assert.is_nil(next(weak))
      -- one that nobody resumes again
      do
        local gen = co.wrap(function()
          weak[coroutine.running()] = true
          uring.yield()
          co.yield()
        end)
        gen()
      end
      helper.collect()
      assert.is_nil(next(weak))
    end)
  end)

  it("whose coroutine, or task's, the program closes loses nothing of others", function()
    for _, which in ipairs { "inner", "middle", "task" } do
      for _, keep in ipairs { true, false } do
        uring.run(function()
          local ch, cos = sync.channel(), {}
          do
            local task = uring.spawn(function()
              cos.task = coroutine.running()
              local _, err = pcall(co.wrap(function()
                cos.middle = coroutine.running()
                co.wrap(function()
                  cos.inner = coroutine.running()
                  ch:receive()
                end)()
              end))
              return err
            end)
            local told = uring.spawn(function() return select(2, pcall(task.await, task)) end)
            turns()
            coroutine.close(cos[which])
            if not keep then
              cos.task, cos.middle, cos.inner = nil, nil, nil
            end
            helper.collect()
            if which ~= "middle" then
              assert.is_false(ch:try_send "lost")
              assert.matches("cannot resume dead coroutine", told:await())
            else
              task:cancel()
              told:await()
            end
          end
          helper.collect()
          if keep and which ~= "inner" then
            for i = 1, 3 do -- a continuation whose task has long ended
              assert.is_true(coroutine.resume(cos.inner, i))
            end
          end
        end)
      end
    end
  end)

  it("is not in what close closes", function()
    uring.run(function()
      local function await()
        uring.yield()
      end
      local suspended = co.create(function()
        local _ <close> = closing(await)
        co.yield()
      end)
      co.resume(suspended)
      local failed = co.create(function()
        local _ <close> = closing(await)
        uring.yield()
        error "on purpose"
      end)
      assert.is_false((co.resume(failed)))
      for _, c in ipairs { suspended, failed } do
        local ok, err = co.close(c)
        assert.is_false(ok)
        assert.matches("cannot await inside [%w.]*close: Lua cannot suspend it", err)
        uring.yield()
      end
    end)
  end)

  it("leaves tracebacks that tell", function()
    uring.run(function()
      local task = uring.spawn(function()
        co.wrap(function() uring.sleep(60) end)()
      end)
      turns()
      assert.matches("coroutine_spec.lua", task:traceback())
      task:cancel()
      pcall(task.await, task)
      local c = co.create(function()
        uring.yield()
        error "in a coroutine"
      end)
      local ok, err = co.resume(c)
      assert.is_false(ok)
      assert.matches("coroutine_spec.lua:%d+: in a coroutine", err)
      assert.matches("in function 'error'", debug.traceback(c))
    end)
  end)
end)
