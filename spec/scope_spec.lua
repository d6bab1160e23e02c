-- Scopes: no task outlives its scope, the first failure cancels the others and
-- is what leaves it, and nobody's error disappears.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

-- A task that would sleep for ever, and tells how it was ended.
local function sleeper(list, name)
  return function()
    local _guard <close> = setmetatable({}, { __close = function() list[#list + 1] = name end })
    uring.sleep(60)
  end
end

describe("scope", function()
  helper.watch(before_each, after_each)

  it("calls the function with itself and the arguments, and returns what that returns", function()
    local function body(scope, ...)
      assert.is_truthy(tostring(scope):find("^scope %("))
      return ...
    end
    assert.are.same({ n = 3, 1, nil, nil }, pack(uring.scope(body, 1, nil, nil)))
    assert.are.same({ n = 0 }, pack(uring.scope(body)))
    uring.run(function()
      assert.are.same({ n = 2, "a", false }, pack(uring.scope(body, "a", false)))
    end)
  end)

  it("is left when the last child has ended, and not before", function()
    local ended = 0
    local function child(depth)
      uring.sleep(0.002)
      if depth > 0 then
        uring.spawn(child, depth - 1)
      end
      ended = ended + 1
    end
    assert.are.equal("early", uring.scope(function(scope)
      for _ = 1, 5 do
        scope:spawn(child, 3)
      end
      return "early"
    end))
    assert.are.equal(20, ended)
  end)

  it("is where tasks that its function spawns start", function()
    local done
    uring.scope(function()
      uring.spawn(function()
        uring.sleep(0.003)
        done = true
      end)
    end)
    assert.is_true(done)
  end)

  it("cancels the others when one fails, waits for them, and rethrows", function()
    local ended, object = {}, { "an object" }
    uring.run(function()
      local ok, err = pcall(uring.scope, function(scope)
        scope:spawn(sleeper(ended, "a"))
        scope:spawn(sleeper(ended, "b"))
        scope:spawn(function()
          uring.sleep(0.002)
          error(object)
        end)
        sleeper(ended, "fn")()
      end)
      assert.is_false(ok)
      assert.are.equal(object, err)
    end)
    table.sort(ended)
    assert.are.same({ "a", "b", "fn" }, ended)
  end)

  it("rethrows errors that are false, nil or tables as they are", function()
    for _, value in ipairs { { false }, { nil }, { 5 }, { {} } } do
      local function fails(scope)
        scope:spawn(function() error(value[1]) end)
        uring.sleep(60)
      end
      local ok, err = pcall(uring.scope, fails)
      assert.is_false(ok)
      assert.are.equal(value[1], err)
      uring.run(function()
        ok, err = pcall(uring.scope, fails)
        assert.is_false(ok)
        assert.are.equal(value[1], err)
      end)
    end
  end)

  it("rethrows what its function fails with, after its children have ended", function()
    local ended = {}
    local message = helper.error_of(uring.scope, function(scope)
      scope:spawn(sleeper(ended, "child"))
      uring.yield()
      error "of the function"
    end)
    assert.is_truthy(message:find("of the function", 1, true), message)
    assert.is_truthy(message:find("task traceback:", 1, true), message)
    assert.are.same({ "child" }, ended)
  end)

  it("lists everybody who failed, with tracebacks, in order", function()
    local scope
    uring.run(function()
      local ok, err = pcall(uring.scope, function(s)
        scope = s
        for i = 1, 3 do
          s:spawn(function()
            uring.sleep(0.002)
            error("number " .. i, 0)
          end)
        end
      end)
      assert.is_false(ok)
      assert.are.equal("number 1", err)
    end)
    local failures = scope:failures()
    assert.are.equal(3, #failures)
    for i, failure in ipairs(failures) do
      assert.are.equal("number " .. i, failure.error)
      assert.is_truthy(failure.traceback:find("scope_spec.lua", 1, true), failure.traceback)
      assert.are.equal("failed", failure.task:status())
    end
    assert.are.equal("failed", scope:status())
  end)

  it("tells of the others where a string leaves the outermost", function()
    local function fails(n)
      return function()
        for i = 1, n do
          uring.spawn(function()
            uring.yield()
            error("number " .. i, 0)
          end)
        end
      end
    end
    local one = helper.error_of(uring.run, fails(1))
    assert.is_nil(one:find("more task", 1, true), one)
    local two = helper.error_of(uring.run, fails(2))
    assert.is_truthy(two:find("^number 1\n"), two)
    assert.is_truthy(two:find("… and 1 more task failed: number 2", 1, true), two)
    local three = helper.error_of(uring.scope, fails(3))
    assert.is_truthy(three:find("… and 2 more tasks failed: number 2; number 3", 1, true), three)
    local many = helper.error_of(uring.run, fails(30))
    assert.is_truthy(many:find("… and 29 more tasks failed: number 2;", 1, true), many)
    assert.is_nil(many:find("number 30", 1, true), many)
  end)

  it("tells of those in inner scopes, too, with the traceback of the first", function()
    local message = helper.error_of(uring.run, function()
      uring.scope(function()
        uring.scope(function(scope)
          scope:spawn(function()
            local function innermost_place() error "first" end
            uring.yield()
            innermost_place()
          end)
          scope:spawn(function()
            uring.yield()
            error("second", 0)
          end)
        end)
      end)
    end)
    assert.is_truthy(message:find("innermost_place", 1, true), message)
    assert.is_truthy(message:find("… and 1 more task failed: second", 1, true), message)
  end)

  it("leaves alone what somebody awaited", function()
    uring.run(function()
      local result = uring.scope(function(scope)
        local task = scope:spawn(function()
          uring.yield()
          error "awaited"
        end)
        local ok = pcall(task.await, task)
        assert.is_false(ok)
        assert.are.same({}, scope:failures())
        return "fine"
      end)
      assert.are.equal("fine", result)
    end)
  end)

  it("is open, cancelled, expired or failed", function()
    local scope
    uring.scope(function(s)
      scope = s
      assert.are.equal("open", s:status())
    end)
    assert.are.equal("open", scope:status())
    uring.scope(function(s) s:cancel() scope = s end)
    assert.are.equal("cancelled", scope:status())
    uring.scope(function(s) s:deadline(0) scope = s uring.sleep(1) end)
    assert.are.equal("expired", scope:status())
  end)

  it("wants a function", function()
    assert.is_truthy(helper.error_of(uring.scope):find("bad argument #1 to 'scope' (function expected, got nil)", 1, true))
    assert.is_truthy(helper.error_of(uring.run, 1):find("bad argument #1 to 'run' (function expected, got number)", 1, true))
    uring.scope(function(scope)
      assert.is_truthy(helper.error_of(scope.spawn, scope, 5):find("function expected, got number", 1, true))
    end)
  end)

  it("takes nobody in once it has been left", function()
    local scope = uring.scope(function(s) return s end)
    local message = helper.error_of(scope.spawn, scope, function() end)
    assert.is_truthy(message:find("the scope has been left", 1, true), message)
    message = helper.error_of(scope.deadline, scope, 1)
    assert.is_truthy(message:find("the scope has been left", 1, true), message)
  end)

  it("goes on waiting when somebody is spawned as the last one ends", function()
    local ran
    uring.run(function()
      local outer
      local gate = uring.spawn(function() uring.sleep(0.003) end)
      uring.spawn(function() -- runs in the turn in which the scope could be left
        gate:await()
        pcall(outer.spawn, outer, function()
          uring.sleep(0.003)
          ran = true
        end)
      end)
      uring.scope(function(scope)
        outer = scope
        gate:await()
      end)
      assert.is_true(ran)
    end)
  end)

  it("cannot be waited for from inside", function()
    uring.scope(function(scope)
      local message = helper.error_of(scope.join, scope)
      assert.is_truthy(message:find("cannot wait for the scope it belongs to", 1, true), message)
    end)
  end)

  it("is refused where Lua cannot suspend, before anything has started", function()
    uring.run(function()
      local ran = false
      local message = helper.error_of(table.sort, { 2, 1 }, function()
        uring.scope(function() ran = true end)
      end)
      assert.is_truthy(message:find("cannot await inside", 1, true), message)
      uring.yield()
      uring.yield()
      assert.is_false(ran)
    end)
  end)
end)

describe("scope:cancel", function()
  helper.watch(before_each, after_each)

  it("ends the function and all others: nil, cancelled", function()
    local ended = {}
    local result = pack(uring.scope(function(scope)
      scope:spawn(sleeper(ended, "child"))
      scope:spawn(function() scope:cancel() scope:cancel() end)
      sleeper(ended, "fn")()
    end))
    assert.are.same({ n = 3, nil, "cancelled", errno.ECANCELED }, result)
    table.sort(ended)
    assert.are.same({ "child", "fn" }, ended)
  end)

  it("leaves what has been returned: success wins", function()
    assert.are.equal("result", uring.scope(function(scope)
      scope:spawn(uring.sleep, 60)
      scope:cancel()
      return "result"
    end))
    assert.are.equal("caught", uring.scope(function(scope)
      scope:cancel()
      pcall(uring.sleep, 60)
      return "caught"
    end))
  end)

  it("means those that have not run yet, who never do", function()
    local ran = false
    uring.scope(function(scope)
      local task = scope:spawn(function() ran = true end)
      scope:cancel()
      pcall(uring.yield)
      assert.are_not.equal("running", task:status())
    end)
    assert.is_false(ran)
  end)

  it("means those that are spawned later", function()
    local ran, helped = false, nil
    uring.scope(function(scope)
      scope:cancel()
      scope:spawn(function() ran = true end)
      uring.shield(function() -- whoever cleans up may have help
        helped = scope:spawn(function()
          uring.sleep(0.002)
          return "help"
        end):await()
      end)
    end)
    assert.is_false(ran)
    assert.are.equal("help", helped)
  end)

  it("strikes every later await", function()
    local struck = 0
    uring.scope(function(scope)
      scope:cancel()
      for _ = 1, 3 do
        local ok, err = pcall(uring.sleep, 60)
        if not ok and err == uring.cancelled then
          struck = struck + 1
        end
      end
    end)
    assert.are.equal(3, struck)
  end)

  it("waits for __close that awaits in a shield", function()
    local steps = {}
    uring.scope(function(scope)
      scope:spawn(function()
        local _guard <close> = setmetatable({}, { __close = function()
          uring.shield(function()
            uring.sleep(0.005)
            steps[#steps + 1] = "closed"
          end)
        end })
        uring.sleep(60)
      end)
      uring.yield()
      scope:cancel()
    end)
    steps[#steps + 1] = "left"
    assert.are.same({ "closed", "left" }, steps)
  end)

  it("of the caller reaches everybody inside, at any depth", function()
    local ended, after = {}, false
    uring.run(function()
      local task = uring.spawn(function()
        uring.scope(function(scope)
          scope:spawn(sleeper(ended, "one"))
          uring.run(function()
            uring.scope(sleeper(ended, "two"))
          end)
        end)
        after = true
      end)
      uring.sleep(0.003)
      task:cancel()
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.are.equal(uring.cancelled, err)
      assert.are.equal("cancelled", task:status())
    end)
    assert.is_false(after)
    table.sort(ended)
    assert.are.same({ "one", "two" }, ended)
  end)

  it("of the caller does not swallow an error on the way", function()
    uring.run(function()
      local task = uring.spawn(function()
        uring.scope(function()
          local _guard <close> = setmetatable({}, { __close = function() error "while closing" end })
          uring.sleep(60)
        end)
      end)
      uring.yield()
      uring.yield()
      task:cancel()
      local message = helper.error_of(task.await, task)
      assert.is_truthy(message:find("while closing", 1, true), message)
    end)
  end)

  it("of the caller begins nothing", function()
    local ran = false
    uring.run(function()
      local task = uring.spawn(function()
        pcall(uring.sleep, 60)
        for _, open in ipairs { uring.run, uring.scope } do
          local ok, err = pcall(open, function() ran = true end)
          assert.is_false(ok)
          assert.are.equal(uring.cancelled, err)
        end
      end)
      uring.yield()
      uring.yield()
      task:cancel()
      task:await()
    end)
    assert.is_false(ran)
  end)
end)

describe("run", function()
  helper.watch(before_each, after_each)

  it("can be called again after an error, and after Ctrl-C", function()
    for _ = 1, 3 do
      assert.is_false(pcall(uring.run, function()
        uring.spawn(uring.sleep, 60)
        error "again"
      end))
      local ended = {}
      local began, fired = os.time(), false
      local ok, err = pcall(function()
        local co_hook = function() -- what the stock interpreter does at SIGINT
          if not fired and uring.stats().tasks > 1 then
            fired = true
            debug.sethook()
            error("interrupted!", 0)
          end
        end
        debug.sethook(co_hook, "c")
        uring.run(function()
          uring.spawn(sleeper(ended, "child"))
          for _ = 1, 1000 do
            uring.sleep(0.001)
          end
        end)
      end)
      debug.sethook()
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("interrupted!", 1, true), err)
      assert.is_true(os.time() - began < 10)
      assert.are.equal(0, uring.stats().tasks)
    end
    assert.are.equal("well", uring.run(function() return "well" end))
  end)

  it("inside of run inside of run waits for its own", function()
    local order = {}
    uring.run(function()
      uring.run(function()
        uring.spawn(function() uring.sleep(0.004) order[#order + 1] = "inner" end)
      end)
      order[#order + 1] = "between"
      uring.spawn(function() uring.sleep(0.002) order[#order + 1] = "outer" end)
    end)
    assert.are.same({ "inner", "between", "outer" }, order)
  end)

  it("says so where tasks wait for one another, and leaves nothing", function()
    local message = helper.error_of(uring.run, function()
      uring.spawn(function() uring.sync.channel():receive() end)
      uring.sync.channel():receive()
    end)
    assert.is_truthy(message:find("deadlock", 1, true), message)
  end)
end)
