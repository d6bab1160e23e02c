-- What belongs to a task: its name, its locals; and the list of all tasks.

local helper = require "spec.support.helper"
local uring = require "uring"

local locals = uring.locals

local function seen()
  local copy = {}
  for key, value in pairs(locals) do
    copy[key] = value
  end
  return copy
end

local function clear()
  for key in pairs(locals) do
    locals[key] = nil
  end
end

describe("locals", function()
  helper.watch(before_each, after_each)
  after_each(clear)

  it("of the main chunk are its own", function()
    assert.is_nil(locals.x)
    locals.x = 1
    uring.run(function()
      assert.are.equal(1, locals.x)
      locals.x = 2
      locals.y = 3
      assert.are.same({ x = 2, y = 3 }, seen())
    end)
    assert.are.same({ x = 1 }, seen())
    locals.x = nil
    assert.are.same({}, seen())
  end)

  it("are inherited as they are when a task is spawned", function()
    local got = {}
    uring.run(function()
      for i = 1, 5 do
        locals.i = i
        uring.spawn(function()
          got[i] = seen()
          locals.i = -i
          uring.yield()
          assert.are.equal(-i, locals.i)
        end)
      end
      locals.i = "later"
      uring.sleep(0.002)
      assert.are.equal("later", locals.i)
    end)
    assert.are.same({ { i = 1 }, { i = 2 }, { i = 3 }, { i = 4 }, { i = 5 } }, got)
  end)

  it("reach grandchildren, and nil hides what was inherited", function()
    uring.run(function()
      locals.a, locals.b = "a", "b"
      uring.spawn(function()
        locals.a = nil
        uring.spawn(function()
          assert.are.same({ b = "b" }, seen())
          locals.b = "changed"
        end):await()
        assert.are.same({ b = "b" }, seen())
      end):await()
      assert.are.same({ a = "a", b = "b" }, seen())
    end)
  end)

  it("stay with the task through scopes, timeouts and coroutines", function()
    uring.run(function()
      locals.user = "ann"
      uring.timeout(60, function() assert.are.equal("ann", locals.user) end)
      uring.scope(function() assert.are.equal("ann", locals.user) end)
      uring.coroutine.wrap(function()
        uring.yield()
        assert.are.equal("ann", locals.user)
        locals.user = "bob"
      end)()
      assert.are.equal("bob", locals.user)
    end)
  end)

  it("do not grow with writes and spawns", function()
    uring.run(function()
      for i = 1, helper.times(5000) do -- a chain of as many would be too long
        locals.n = i
        uring.spawn(function() return locals.n end)
        if i % 100 == 0 then
          uring.yield()
        end
      end
      assert.are.equal(helper.times(5000), uring.spawn(function() return locals.n end):await())
    end)
  end)

  it("are collected with their task", function()
    local weak = setmetatable({}, { __mode = "v" })
    uring.run(function()
      locals.big = {}
      weak[1] = locals.big
    end)
    helper.collect()
    assert.is_nil(weak[1])
  end)

  it("have any key but nil", function()
    uring.run(function()
      local key = {}
      locals[key], locals[1], locals[false] = 1, 2, 3
      assert.are.equal(6, locals[key] + locals[1] + locals[false])
      assert.is_nil(locals[nil])
      assert.is_false(pcall(function() locals[nil] = 1 end))
      assert.is_false(pcall(function() locals[0 / 0] = 1 end))
    end)
  end)
end)

describe("the name of a task", function()
  helper.watch(before_each, after_each)

  it("is nil until it is set", function()
    uring.run(function()
      local task = uring.current()
      assert.is_nil(task:name())
      assert.are.equal(task, task:name "main")
      assert.are.equal("main", task:name())
      assert.is_truthy(tostring(task):find("^task main %(running, "))
      assert.is_false(pcall(task.name, task, {}))
    end)
  end)

  it("is in its tracebacks, and stays when it has ended", function()
    local task
    local message = helper.error_of(uring.run, function()
      task = uring.spawn(function()
        uring.sleep(0.001)
        error "failed"
      end):name "worker"
      uring.yield()
      assert.is_truthy(task:traceback():find("^task worker\nstack traceback:\n"), task:traceback())
    end)
    assert.is_truthy(message:find("failed\ntask worker\nstack traceback:\n", 1, true), message)
    assert.are.equal("worker", task:name())
    assert.is_truthy(tostring(task):find("^task worker %(failed, "))
  end)
end)

describe("tasks", function()
  helper.watch(before_each, after_each)

  -- What is listed of the task that runs `fn`.
  local function listed(fn, ...)
    local found
    local args = table.pack(...)
    uring.scope(function(scope)
      local task = scope:spawn(fn, table.unpack(args, 1, args.n))
      uring.sleep(0.002)
      for _, entry in ipairs(uring.tasks()) do
        if entry.task == task then
          found = entry
        end
      end
      scope:cancel()
    end)
    return found
  end

  it("outside of any is empty", function()
    assert.are.same({}, uring.tasks())
  end)

  it("tells what each waits for", function()
    local sync = uring.sync
    local r, w = uring.pipe()
    local other
    local mutex, ring = sync.mutex(), uring.ring()
    for waiting, fn in pairs {
      ["sleep"] = function() uring.sleep(60) end;
      ["channel"] = function() sync.channel():receive() end;
      ["select"] = function() sync.select { sync.channel(), { sync.channel(), 1 } } end;
      ["semaphore"] = function() sync.semaphore(0):acquire() end;
      ["condition"] = function() local m <close> = mutex:lock() sync.condition():wait(m) end;
      ["timer"] = function() uring.timer():wait() end;
      ["scope"] = function() uring.run(uring.sleep, 60) end;
      ["timeout"] = function() uring.op.timeout(60) end;
      ["read on fd " .. r:fd()] = function() uring.op.read(r:fd(), uring.buffer(1), 1) end;
      ["poll_add on fd " .. r:fd()] = function() uring.prepare("poll_add", r:fd(), uring.const.POLLIN):await() end;
      ["task other"] = function()
        other = uring.spawn(uring.sleep, 60):name "other"
        other:await()
      end;
    } do
      local entry = listed(fn)
      assert.are.equal(waiting, entry.waiting)
      assert.are.equal("waiting", entry.status)
      assert.is_truthy(entry.where:find("locals_spec.lua:%d+$"), entry.where)
      assert.is_true(entry.since >= 0 and entry.since < 5, entry.since)
    end
    ring:close()
    r:close()
    w:close()
  end)

  it("sees through coroutines that let awaits pass", function()
    local entry = listed(function()
      uring.coroutine.wrap(function()
        uring.coroutine.wrap(function() uring.op.timeout(60) end)()
      end)()
    end)
    assert.are.equal("timeout", entry.waiting)
    entry = listed(function()
      uring.coroutine.wrap(function() uring.sync.channel():receive() end)()
    end)
    assert.are.equal("channel", entry.waiting)
  end)

  it("tells names, and who runs", function()
    uring.run(function()
      uring.current():name "teller"
      local new = uring.spawn(uring.sleep, 0)
      local list = uring.tasks()
      assert.are.equal(2, #list)
      local by_task = {}
      for _, entry in ipairs(list) do by_task[entry.task] = entry end
      local me = by_task[uring.current()]
      assert.are.equal("teller", me.name)
      assert.are.equal("running", me.status)
      assert.is_nil(me.waiting)
      assert.is_nil(me.since)
      assert.are.equal("ready", by_task[new].status)
    end)
  end)

  it("tells since when", function()
    uring.scope(function(scope)
      local task = scope:spawn(uring.sleep, 60)
      uring.sleep(0.05)
      for _, entry in ipairs(uring.tasks()) do
        if entry.task == task then
          assert.is_true(entry.since >= 0.04 and entry.since < 10, entry.since)
        end
      end
      scope:cancel()
    end)
  end)

  it("begins afresh with each item of map, whoever does it", function()
    uring.run(function()
      locals.who = "caller"
      local before_each_item = uring.map({ 1, 2, 3, 4, 5, 6 }, function(item)
        local before = tostring(locals.who) .. tostring(locals.item)
        locals.who = "item"
        locals.item = item
        uring.yield()
        assert(locals.item == item)
        return before
      end, { limit = 2 })
      before_each_item.n = nil
      assert.same({ "callernil", "callernil", "callernil", "callernil", "callernil", "callernil" },
        before_each_item)
      assert.equal("caller", locals.who)
      assert.is_nil(locals.item)
    end)
  end)
end)
