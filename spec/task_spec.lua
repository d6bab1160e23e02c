-- Tasks: run, spawn, sleep, yield, await, and what happens to their errors.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local op = uring.op

local function pack(...)
  return table.pack(...)
end

-- What uring does by itself with errors that nobody waits for.
local function to_stderr(err, traceback)
  io.stderr:write("uring: error in a task nobody waits for: ", tostring(err), "\n",
    traceback and traceback .. "\n" or "")
end

-- Calls fn; the list of what on_error was told meanwhile.
local function reports(fn)
  local told = {}
  uring.on_error(function(err, traceback)
    told[#told + 1] = { err, traceback }
  end)
  local ok, err = pcall(fn)
  uring.on_error(to_stderr)
  assert.is_true(ok, err)
  return told
end

-- A value whose __close appends `name` to a list.
local function closing(list, name)
  return setmetatable({}, { __close = function(_, err)
    list[#list + 1] = name
    list.err = err
  end })
end

describe("run", function()
  helper.watch(before_each, after_each)

  it("returns the results of the function, holes and all", function()
    assert.are.same({ n = 0 }, pack(uring.run(function() end)))
    assert.are.same({ n = 3, 1, "two", false }, pack(uring.run(function() return 1, "two", false end)))
    assert.are.same({ n = 3, nil, 1, nil }, pack(uring.run(function() return nil, 1, nil end)))
    assert.are.same({ n = 3, nil, 1, nil }, pack(uring.run(function()
      uring.yield()
      return nil, 1, nil
    end)))
  end)

  it("passes its arguments, holes and all", function()
    assert.are.same({ n = 4, nil, 2, nil, nil }, pack(uring.run(function(...) return ... end, nil, 2, nil, nil)))
    local many = {}
    for i = 1, 200 do
      many[i] = i
    end
    assert.are.same(200, select("#", uring.run(function(...) return ... end, table.unpack(many))))
  end)

  it("returns when all that was spawned has ended", function()
    local ended = {}
    local result = uring.run(function()
      for i = 1, 3 do
        uring.spawn(function()
          uring.sleep(0.01 * i)
          ended[#ended + 1] = i
          uring.spawn(function()
            uring.sleep(0.01)
            ended[#ended + 1] = "grandchild " .. i
          end)
        end)
      end
      return "main"
    end)
    assert.are.equal("main", result)
    assert.are.equal(6, #ended)
    assert.are.equal("grandchild 3", ended[6])
  end)

  it("rethrows an error with the traceback of the task", function()
    local function inner()
      error "deep inside"
    end
    local message = helper.error_of(uring.run, function()
      uring.yield()
      inner()
    end)
    assert.is_truthy(message:match "^[^\n]*task_spec%.lua:%d+: deep inside\ntask traceback:\n", message)
    assert.is_truthy(message:find("in upvalue 'inner'", 1, true), message)
    local _, count = message:gsub("task traceback", "")
    assert.are.equal(1, count)
  end)

  it("rethrows errors that are not strings as they are", function()
    local object = { code = 5 }
    local ok, err = pcall(uring.run, function() error(object) end)
    assert.is_false(ok)
    assert.are.equal(object, err)
    assert.are.same({ n = 2, false, nil }, pack(pcall(uring.run, function() error(nil) end)))
    assert.are.same({ n = 2, false, 42 }, pack(pcall(uring.run, function() error(42) end)))
  end)

  it("works again after an error", function()
    for i = 1, 5 do
      assert.is_false(pcall(uring.run, function() error "x" end))
      assert.are.equal(i, uring.run(function()
        uring.sleep(0)
        return i
      end))
    end
    assert.are.equal(0, uring.stats().tasks)
  end)

  it("nests", function()
    local result = uring.run(function()
      return uring.run(function()
        uring.sleep(0.001)
        return uring.run(function() return "innermost" end)
      end)
    end)
    assert.are.equal("innermost", result)
  end)

  it("nested, leaves the tasks outside running", function()
    local ticks = 0
    uring.run(function()
      local ticker = uring.spawn(function()
        for _ = 1, 3 do
          uring.sleep(0.002)
          ticks = ticks + 1
        end
      end)
      uring.run(function() uring.sleep(0.02) end)
      assert.are.equal(3, ticks)
      assert.are.equal("returned", ticker:status())
    end)
  end)

  it("nested, rethrows to the outer task, once and without a traceback of its own", function()
    local caught
    local result = uring.run(function()
      local ok, err = pcall(uring.run, function() error("inner", 0) end)
      caught = { ok, err }
      return "went on"
    end)
    assert.are.same({ false, "inner" }, caught)
    assert.are.equal("went on", result)
  end)

  it("wants a function", function()
    for _, wrong in ipairs { 5, "x", {}, true } do
      assert.is_truthy(helper.error_of(uring.run, wrong)
        :find("bad argument #1 to 'run' (function expected, got " .. type(wrong) .. ")", 1, true))
    end
    assert.is_truthy(helper.error_of(uring.run):find("function expected", 1, true))
    assert.is_truthy(helper.error_of(uring.spawn, 5):find("function expected, got number", 1, true))
  end)
end)

describe("spawn", function()
  helper.watch(before_each, after_each)

  it("starts the task in a later turn, with its arguments", function()
    local order = {}
    uring.run(function()
      local task = uring.spawn(function(...)
        order[#order + 1] = "task"
        order.args = pack(...)
      end, 1, nil, 3, nil)
      order[#order + 1] = "spawned"
      assert.are.equal("ready", task:status())
      task:await()
      assert.are.equal("returned", task:status())
    end)
    assert.are.same({ "spawned", "task", args = { n = 4, 1, nil, 3, nil } }, order)
  end)

  it("in the main chunk runs when the loop turns", function()
    local ran = false
    local task = uring.spawn(function() ran = true end)
    assert.is_false(ran)
    task:await()
    assert.is_true(ran)
  end)

  it("runs tasks in the order they were spawned", function()
    local order = {}
    uring.run(function()
      for i = 1, 100 do
        uring.spawn(function() order[#order + 1] = i end)
      end
    end)
    assert.are.equal(100, #order)
    for i = 1, 100 do
      assert.are.equal(i, order[i])
    end
  end)

  it("tells what a task does", function()
    local task
    uring.run(function()
      task = uring.spawn(function()
        assert.are.equal("running", task:status())
        uring.sleep(0.01)
      end)
      assert.is_truthy(tostring(task):match "^task %(ready, ")
      uring.sleep(0.002)
      assert.are.equal("waiting", task:status())
      assert.is_truthy(task:traceback():find("task_spec.lua", 1, true))
    end)
    assert.are.equal("returned", task:status())
    assert.is_false(pcall(uring.run, function()
      task = uring.spawn(error, "x")
    end))
    assert.are.equal("failed", task:status())
    uring.run(function()
      task = uring.spawn(uring.sleep, 10)
      task:cancel()
    end)
    assert.are.equal("cancelled", task:status())
  end)

  it("keeps a parked task that nobody refers to", function()
    local done = false
    uring.run(function()
      uring.spawn(function()
        uring.sleep(0.01)
        done = true
      end)
      for _ = 1, 3 do
        collectgarbage()
        uring.yield()
      end
    end)
    assert.is_true(done)
  end)

  it("takes a function of C", function()
    assert.are.equal("5", uring.run(function() return uring.spawn(tostring, 5):await() end))
    uring.run(function() uring.spawn(uring.sleep, 0.001):await() end)
  end)
end)

describe("sleep", function()
  helper.watch(before_each, after_each)

  it("lasts at least as long as it was told", function()
    for _, seconds in ipairs { 0, 0.0001, 0.005, 0.02 } do
      local start = uring.now()
      uring.run(uring.sleep, seconds)
      local took = uring.now() - start
      assert.is_true(took >= seconds, took)
      assert.is_true(took < seconds + (helper.slow and 5 or 0.5), took)
    end
  end)

  it("turns the loop outside of tasks", function()
    local ran = false
    local task = uring.spawn(function()
      uring.sleep(0.005)
      ran = true
    end)
    local start = uring.now()
    uring.sleep(0.02)
    assert.is_true(uring.now() - start >= 0.02)
    assert.is_true(ran)
    task:await()
  end)

  it("wakes in the order of the deadlines", function()
    local order = {}
    local step = helper.slow and 0.03 or 0.004
    local start = uring.now() + step -- one for all, however slowly they begin
    uring.run(function()
      for _, i in ipairs { 5, 2, 8, 1, 7, 3, 6, 4 } do
        uring.spawn(function()
          uring.sleep(math.max(0, start + step * i - uring.now()))
          order[#order + 1] = i
        end)
      end
    end)
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, order)
  end)

  it("refuses what is no time", function()
    for _, wrong in ipairs { -1, -math.huge, 0 / 0 } do
      assert.is_truthy(helper.error_of(uring.sleep, wrong):find("seconds are negative", 1, true))
    end
    assert.is_truthy(helper.error_of(uring.sleep, "x"):find("number expected, got string", 1, true))
    assert.is_truthy(helper.error_of(uring.sleep):find("number expected, got no value", 1, true))
  end)

  it("for ever can be cancelled", function()
    uring.run(function()
      for _, seconds in ipairs { 1e300, math.huge, 1e9 } do
        local task = uring.spawn(uring.sleep, seconds)
        uring.yield()
        uring.yield()
        assert.are.equal("waiting", task:status())
        task:cancel()
      end
    end)
  end)

  it("is no burden: ten thousand at once", function()
    local count = helper.times(10000)
    local woken = 0
    local start = uring.now()
    uring.run(function()
      for i = 1, count do
        uring.spawn(function()
          uring.sleep((i % 100) / 10000)
          woken = woken + 1
        end)
      end
      assert.are.equal(count + 1, uring.stats().tasks)
    end)
    assert.are.equal(count, woken)
    assert.is_true(uring.now() - start >= 0.0099)
    assert.are.equal(0, uring.stats().timers)
  end)

  it("needs no operation", function()
    local before = uring.stats().prepared
    uring.run(function()
      for _ = 1, 10 do
        uring.sleep(0.0001)
      end
    end)
    assert.are.equal(before, uring.stats().prepared)
  end)
end)

describe("now and current", function()
  helper.watch(before_each, after_each)

  it("tell a time that goes on", function()
    local a = uring.now()
    local b = uring.now()
    assert.are.equal("float", math.type(a))
    assert.is_true(b >= a)
  end)

  it("tell who runs", function()
    assert.is_nil(uring.current())
    uring.run(function()
      local me = uring.current()
      assert.are.equal("running", me:status())
      local other
      local task = uring.spawn(function() other = uring.current() end)
      task:await()
      assert.are.equal(task, other)
      assert.are.equal(me, uring.current())
      assert.are_not.equal(me, other)
    end)
    assert.is_nil(uring.current())
  end)
end)

describe("yield", function()
  helper.watch(before_each, after_each)

  it("lets everybody else run in turn", function()
    local order = {}
    uring.run(function()
      for _, name in ipairs { "a", "b", "c" } do
        uring.spawn(function()
          for i = 1, 3 do
            order[#order + 1] = name .. i
            uring.yield()
          end
        end)
      end
    end)
    assert.are.equal("a1 b1 c1 a2 b2 c2 a3 b3 c3", table.concat(order, " "))
  end)

  it("does not keep timers and operations from being served", function()
    local slept, written = false, false
    local r, w = core.pipe()
    uring.run(function()
      uring.spawn(function()
        uring.sleep(0.002)
        slept = true
      end)
      uring.spawn(function()
        op.read(r, uring.buffer(1))
        written = true
      end)
      uring.spawn(function() op.write(w, "x") end)
      local limit = uring.now() + 5
      while not (slept and written) and uring.now() < limit do
        uring.yield()
      end
    end)
    assert.is_true(slept and written)
    op.close(r)
    op.close(w)
  end)

  it("outside of tasks turns the loop once", function()
    local ran = 0
    local task = uring.spawn(function()
      ran = 1
      uring.yield()
      ran = 2
    end)
    uring.yield()
    assert.are.equal(1, ran)
    uring.yield()
    assert.are.equal(2, ran)
    task:await()
  end)

  it("of Lua's own does no harm in a task", function()
    local order = {}
    uring.run(function()
      local task = uring.spawn(function()
        for i = 1, 3 do
          order[#order + 1] = i
          assert.are.same({ n = 0 }, pack(coroutine.yield("dropped", i)))
        end
        return "done"
      end)
      assert.are.equal("done", task:await())
    end)
    assert.are.same({ 1, 2, 3 }, order)
  end)
end)

describe("await of a task", function()
  helper.watch(before_each, after_each)

  it("gives all its results, again and again", function()
    uring.run(function()
      local task = uring.spawn(function() return nil, 2, nil end)
      for _ = 1, 3 do
        assert.are.same({ n = 3, nil, 2, nil }, pack(task:await()))
      end
      assert.are.same({ n = 3, nil, 2, nil }, pack(uring.await(task)))
    end)
  end)

  it("gives every waiter the same", function()
    local got = {}
    uring.run(function()
      local task = uring.spawn(function()
        uring.sleep(0.005)
        return "result", 2
      end)
      for i = 1, 5 do
        uring.spawn(function() got[i] = pack(task:await()) end)
      end
    end)
    for i = 1, 5 do
      assert.are.same({ n = 2, "result", 2 }, got[i])
    end
  end)

  it("rethrows its error to each", function()
    local got = {}
    uring.run(function()
      local task = uring.spawn(function()
        uring.sleep(0.005)
        error({ "object" })
      end)
      for i = 1, 3 do
        uring.spawn(function() got[i] = pack(pcall(task.await, task)) end)
      end
    end)
    for i = 1, 3 do
      assert.is_false(got[i][1])
      assert.are.same({ "object" }, got[i][2])
      assert.are.equal(got[1][2], got[i][2])
    end
  end)

  it("by itself is an error", function()
    local message
    uring.run(function()
      local ok
      ok, message = pcall(function() uring.current():await() end)
      assert.is_false(ok)
    end)
    assert.is_truthy(message:find("a task cannot await itself", 1, true), message)
  end)

  it("outside of tasks turns the loop", function()
    local task = uring.spawn(function()
      uring.sleep(0.005)
      return "later"
    end)
    assert.are.equal("later", task:await())
    assert.are.equal("later", uring.await(task))
  end)

  it("outside of tasks rethrows, and then nobody else is told", function()
    local told = reports(function()
      local task = uring.spawn(function()
        uring.sleep(0.005)
        error("rethrown", 0)
      end)
      assert.are.equal("rethrown", helper.error_of(task.await, task))
    end)
    assert.are.same({}, told)
  end)

  it("waits for several and gives the first result of each", function()
    local r, w = core.pipe()
    uring.run(function()
      local slow = uring.spawn(function()
        uring.sleep(0.01)
        return "slow", "dropped"
      end)
      local none = uring.spawn(function() end)
      local quick = uring.spawn(function() return "quick" end)
      local o = uring.prepare("read", r, uring.buffer(4))
      uring.spawn(function() op.write(w, "abc") end)
      assert.are.same({ n = 4, "slow", nil, "quick", 3 }, pack(uring.await(slow, none, quick, o)))
    end)
    op.close(r)
    op.close(w)
  end)

  it("of what cannot be awaited is an error that names the argument", function()
    local task = uring.spawn(function() end)
    for _, wrong in ipairs { 5, "x", true, {}, print, io.stdout } do
      local message = helper.error_of(uring.await, task, wrong)
      assert.is_truthy(message:find(("bad argument #2 to 'await' (operation or task expected, got %s)")
        :format(type(wrong)), 1, true), message)
    end
    assert.is_truthy(helper.error_of(uring.await):find("bad argument #1 to 'await'", 1, true))
    assert.is_truthy(helper.error_of(uring.await, uring.cancelled):find("operation or task expected", 1, true))
    task:await()
  end)
end)

describe("an error in a task that nobody awaits", function()
  helper.watch(before_each, after_each)

  it("fails the run and cancels the others", function()
    local log = {}
    local start = uring.now()
    local message = helper.error_of(uring.run, function()
      uring.spawn(function()
        local _guard <close> = closing(log, "sibling closed")
        uring.sleep(10)
        log[#log + 1] = "never"
      end)
      uring.spawn(function()
        uring.sleep(0.005)
        error "the culprit"
      end)
      local _guard <close> = closing(log, "main closed")
      uring.sleep(10)
      log[#log + 1] = "never"
    end)
    assert.is_truthy(message:find("the culprit", 1, true))
    assert.is_truthy(message:find("task traceback", 1, true))
    assert.is_true(uring.now() - start < 5)
    table.sort(log)
    assert.are.same({ "main closed", "sibling closed", err = uring.cancelled }, log)
  end)

  it("is the first one, if several fail", function()
    local message = helper.error_of(uring.run, function()
      uring.spawn(function()
        local _guard <close> = setmetatable({}, { __close = function() error("third", 0) end })
        uring.sleep(10)
      end)
      for i, seconds in ipairs { 0.02, 0.005, 0.01 } do
        uring.spawn(function()
          local ok, err = pcall(uring.sleep, seconds)
          error(ok and "failed " .. i or err, 0)
        end)
      end
    end)
    assert.is_truthy(message:find "^failed 2", message)
  end)

  it("is none if somebody awaits it and catches it", function()
    local result = uring.run(function()
      local task = uring.spawn(function()
        uring.yield()
        error "caught"
      end)
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.is_truthy(err:find("caught", 1, true))
      return "fine"
    end)
    assert.are.equal("fine", result)
  end)

  it("that was cancelled is none", function()
    assert.are.equal("fine", uring.run(function()
      local task = uring.spawn(uring.sleep, 10)
      uring.yield()
      task:cancel()
      return "fine"
    end))
  end)

  it("of a nested run leaves the tasks outside alone", function()
    local outside = false
    uring.run(function()
      uring.spawn(function()
        uring.sleep(0.01)
        outside = true
      end)
      assert.is_false(pcall(uring.run, function()
        uring.spawn(error, "inside")
        uring.sleep(10)
      end))
    end)
    assert.is_true(outside)
  end)

  it("of the main chunk is told to on_error", function()
    local told = reports(function()
      uring.spawn(function() error "unheard" end)
      uring.spawn(function() error({ 7 }) end)
      local other = uring.spawn(function()
        uring.sleep(0.005)
        return "not cancelled"
      end)
      assert.are.equal("not cancelled", other:await())
    end)
    assert.are.equal(2, #told)
    assert.is_truthy(told[1][1]:find("unheard", 1, true))
    assert.is_truthy(told[1][2]:find("stack traceback", 1, true))
    assert.are.same({ 7 }, told[2][1])
  end)

  it("of the main chunk goes to stderr by default", function()
    local output, status = helper.script [[
      local uring = require "uring"
      uring.spawn(function() error "unheard" end)
      uring.sleep(0.001)
      print "went on"
    ]]
    assert.are.equal(0, status)
    assert.is_truthy(output:find("uring: error in a task nobody waits for: ", 1, true), output)
    assert.is_truthy(output:find("unheard", 1, true))
    assert.is_truthy(output:find("stack traceback:", 1, true))
    assert.is_truthy(output:find("went on", 1, true))
  end)

  it("is survived by a handler that fails itself", function()
    uring.on_error(function() error "the handler" end)
    local task = uring.spawn(function() error "x" end)
    uring.sleep(0.001)
    uring.on_error(to_stderr)
    assert.are.equal("failed", task:status())
    assert.are.equal(1, uring.run(function() return 1 end))
  end)

  it("unwinds <close> variables that await", function()
    local log = {}
    local message = helper.error_of(uring.run, function()
      local _guard <close> = setmetatable({}, { __close = function()
        uring.sleep(0.002)
        log[#log + 1] = "slept while closing"
      end })
      error("the reason", 0)
    end)
    assert.is_truthy(message:find "^the reason")
    assert.are.same({ "slept while closing" }, log)
  end)
end)

describe("await", function()
  helper.watch(before_each, after_each)

  -- The error of an await inside of something that Lua cannot suspend; the
  -- task goes on afterwards.
  local function message_of(fn)
    local message
    uring.run(function()
      local ok
      ok, message = pcall(fn)
      assert.is_false(ok, "no error was raised")
      uring.yield()
    end)
    return tostring(message)
  end

  local function nap()
    uring.sleep(0)
  end

  local places = {
    ["table.sort"] = function() table.sort({ 3, 2, 1 }, function(a, b)
      nap()
      return a < b
    end) end;
    ["string.gsub"] = function() string.gsub("abc", ".", nap) end;
    ["string.format"] = function() string.format("%s", setmetatable({}, { __tostring = nap })) end;
    ["tostring"] = function() return #tostring(setmetatable({}, { __tostring = nap })) end;
    ["require"] = function()
      package.preload["uring_spec_nap"] = nap
      local _undo <close> = setmetatable({}, { __close = function() package.preload["uring_spec_nap"] = nil end })
      require "uring_spec_nap"
    end;
    ["load"] = function() assert(load(nap)) end;
  }

  for place, fn in pairs(places) do
    it("cannot suspend " .. place .. ", and says so", function()
      local message = message_of(fn)
      assert.is_truthy(message:find("cannot await inside " .. place .. ": Lua cannot suspend it", 1, true), message)
    end)
  end

  it("cannot suspend them for an operation either", function()
    local fds = helper.testkit.fds()
    local before = uring.stats().prepared
    local message = message_of(function()
      string.gsub("a", "a", function() op.openat(nil, "/dev/null") end)
    end)
    assert.is_truthy(message:find("cannot await inside string.gsub", 1, true), message)
    message = message_of(function()
      string.gsub("a", "a", function() uring.spawn(print):await() end)
    end)
    assert.is_truthy(message:find("cannot await inside string.gsub", 1, true), message)
    assert.are.equal(before, uring.stats().prepared)
    assert.are.equal(fds, helper.testkit.fds())
  end)

  it("cannot suspend a finaliser, and says so", function()
    local message
    uring.run(function()
      setmetatable({}, { __gc = function()
        local _, err = pcall(nap)
        message = err
      end })
      collectgarbage()
      collectgarbage()
    end)
    assert.is_truthy(message:find("cannot await inside a __gc finaliser", 1, true), message)
  end)

  it("passes pcall, xpcall, metamethods, iterators and dofile", function()
    local path = helper.tmpname 'require("uring").sleep(0) return "from a file"'
    uring.run(function()
      assert.are.same({ true, 5 }, { pcall(function()
        nap()
        return 5
      end) })
      assert.are.same({ true, 6 }, { xpcall(function()
        nap()
        return 6
      end, print) })
      local object = setmetatable({}, {
        __index = function(_, key)
          nap()
          return key
        end;
        __add = function()
          nap()
          return 7
        end;
        __call = function()
          nap()
          return 8
        end;
      })
      assert.are.equal("name", object.name)
      assert.are.equal(7, object + 1)
      assert.are.equal(8, object())
      local n = 0
      for i in function(_, i)
        nap()
        return i < 3 and i + 1 or nil
      end, nil, 0 do
        n = n + i
      end
      assert.are.equal(6, n)
      assert.are.equal("from a file", dofile(path))
    end)
    helper.cleanup()
  end)

  it("in a coroutine of the program's own says why it cannot", function()
    uring.run(function()
      for _, awaiting in ipairs {
        nap, uring.yield, function() op.nop() end, function() uring.spawn(nap):await() end,
        function() uring.prepare("timeout", 0.001):await() end,
      } do
        local ok, message = coroutine.resume(coroutine.create(awaiting))
        assert.is_false(ok)
        assert.is_truthy(message:find("cannot await inside a coroutine of the program's own", 1, true), message)
      end
    end)
  end)

  it("in a coroutine outside of tasks turns the loop", function()
    local values = {}
    local generator = coroutine.wrap(function()
      for i = 1, 3 do
        uring.sleep(0.001)
        assert.are.equal(0, op.nop())
        coroutine.yield(i)
      end
    end)
    for i in generator do
      values[#values + 1] = i
    end
    assert.are.same({ 1, 2, 3 }, values)
  end)

  it("is not upset by a coroutine in between", function()
    uring.run(function()
      local values = {}
      for i in coroutine.wrap(function()
        for i = 1, 3 do
          coroutine.yield(i)
        end
      end) do
        uring.sleep(0)
        values[#values + 1] = i
      end
      assert.are.same({ 1, 2, 3 }, values)
    end)
  end)

  it("from a spec's own loop while the loop turns is refused", function()
    local message
    uring.run(function()
      local co = coroutine.create(function() return uring.run(nap) end)
      local _, err = coroutine.resume(co)
      message = err
    end)
    assert.is_truthy(tostring(message):find("await", 1, true), message)
  end)

  it("survives a program that resumes the coroutine of a parked task", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local core = require "uring.core"
      local r, w = core.pipe()
      local results = {}
      for _, fn in ipairs {
        function() return uring.op.read(r, uring.buffer(4)) end,
        function() uring.sleep(0.02) return "slept" end,
        function() return uring.prepare("timeout", 0.02):await() end,
        function() return uring.spawn(uring.sleep, 0.02):await() end,
        function() uring.yield() uring.yield() uring.yield() return "yielded" end,
      } do
        uring.run(function()
          local co
          local start = uring.now()
          local task = uring.spawn(function()
            co = coroutine.running()
            return fn()
          end)
          uring.yield()
          for _ = 1, 3 do coroutine.resume(co, "bogus") end
          uring.op.write(w, "data")
          results[#results + 1] = tostring((task:await()))
        end)
      end
      print(table.concat(results, " "))
    ]]
    assert.are.equal("4 slept 0 nil yielded\n", output)
    assert.are.equal(0, status)
  end)

  it("survives a program that closes the coroutine of a parked task", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local core = require "uring.core"
      local r, w = core.pipe()
      local buffer = uring.buffer(4)
      for _, fn in ipairs {
        function() return uring.op.read(r, buffer) end,
        function() uring.sleep(0.005) end,
        function() return uring.prepare("timeout", 0.005):await() end,
      } do
        pcall(uring.run, function()
          local co
          local task = uring.spawn(function()
            co = coroutine.running()
            fn()
          end)
          uring.yield()
          pcall(coroutine.close, co)
          uring.op.write(w, "data")
          pcall(task.await, task)
        end)
      end
      print(uring.stats().tasks, uring.stats().in_flight, buffer:status())
    ]]
    assert.are.equal("0\t0\towned\n", output)
    assert.are.equal(0, status)
  end)
end)

describe("what is called at the end of a task", function()
  helper.watch(before_each, after_each)

  -- Runs fn in a task that finishes; what its end was given, and what became of it.
  local function finishing(fn, finish)
    local got
    local task
    local told = reports(function()
      uring.run(function()
        local s = core.scope()
        s:report_to(function() end)
        task = core.spawn_finishing(s, function(a, b, err, ...)
          assert(select("#", ...) == 0)
          got = { a, b, err }
          if finish then
            finish(err)
          end
        end, "a", "b", fn, "one", "two")
        uring.sleep(0.001)
        task:cancel()
        s:join()
        s:leave()
      end)
    end)
    assert.are.equal(0, #told)
    return got, task
  end

  it("is given what it was to be, and that nothing failed", function()
    local arguments
    local got, task = finishing(function(...) arguments = pack(...) return 1, 2, 3 end)
    assert.are.same({ "a", "b" }, got)
    assert.are.same({ n = 2, "one", "two" }, arguments)
    assert.are.equal("returned", task:status())
    assert.are.same({ n = 0 }, pack(task:await()))
  end)

  it("is given the error, which stays the task's", function()
    local got, task = finishing(function() error("on purpose", 0) end)
    assert.are.same({ "a", "b", "on purpose" }, got)
    assert.are.equal("failed", task:status())
    assert.are.equal("on purpose", helper.error_of(task.await, task))
    assert.matches("task_spec", task:traceback())
  end)

  it("is given the cancellation, and may await all the same", function()
    local slept = 0
    local got, task = finishing(function() uring.sleep(10) end, function()
      uring.shield(uring.sleep, 0.002)
      slept = slept + 1
    end)
    assert.are.same({ "a", "b", uring.cancelled }, got)
    assert.are.equal("cancelled", task:status())
    assert.are.equal(1, slept)
  end)

  it("awaits after a function that has awaited", function()
    local log = {}
    local _, task = finishing(function()
      uring.yield()
      log[#log + 1] = "fn"
    end, function()
      uring.yield()
      log[#log + 1] = "finish"
    end)
    assert.are.same({ "fn", "finish" }, log)
    assert.are.equal("returned", task:status())
  end)

  it("fails the task if it fails, and instead of another error", function()
    for _, fn in ipairs { function() end, function() error("first", 0) end, function() uring.sleep(10) end } do
      local _, task = finishing(fn, function() error("of the end", 0) end)
      assert.are.equal("failed", task:status())
      assert.are.equal("of the end", helper.error_of(task.await, task))
    end
  end)

  it("is not called for one that never began", function()
    local called = false
    uring.run(function()
      local s = core.scope()
      core.spawn_finishing(s, function() called = true end, 1, 2, function() called = true end):cancel()
      s:join()
      s:leave()
    end)
    assert.is_false(called)
  end)

  it("is a function, and so is what comes before", function()
    uring.run(function()
      local s = core.scope()
      assert.matches("function expected", helper.error_of(core.spawn_finishing, s, 1, 2, 3, print))
      assert.matches("function expected", helper.error_of(core.spawn_finishing, s, print, 2, 3))
      s:join()
      s:leave()
    end)
  end)
end)

describe("a deadlock", function()
  helper.watch(before_each, after_each)

  it("of tasks that await one another is an error, not a hang", function()
    local message = helper.error_of(uring.run, function()
      local a, b
      a = uring.spawn(function() b:await() end)
      b = uring.spawn(function() a:await() end)
    end)
    assert.is_truthy(message:find("deadlock: 3 task(s) wait", 1, true)
      or message:find("deadlock: 2 task(s) wait", 1, true), message)
    assert.are.equal(0, uring.stats().tasks)
    assert.are.equal("fine", uring.run(function() return "fine" end))
  end)

  it("of three is one, too, and unwinds them", function()
    local log = {}
    local message = helper.error_of(uring.run, function()
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = uring.spawn(function()
          local _guard <close> = closing(log, i)
          uring.yield()
          tasks[i % 3 + 1]:await()
        end)
      end
    end)
    assert.is_truthy(message:find("deadlock", 1, true), message)
    table.sort(log)
    assert.are.same({ 1, 2, 3, err = uring.cancelled }, log)
  end)

  it("is none while a timer or an operation may still end it", function()
    local r, w = core.pipe()
    uring.run(function()
      local reader = uring.spawn(function() return op.read(r, uring.buffer(1)) end)
      uring.spawn(function()
        uring.sleep(0.01)
        op.write(w, "x")
      end)
      assert.are.equal(1, reader:await())
    end)
    op.close(r)
    op.close(w)
  end)
end)
