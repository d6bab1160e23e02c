-- Tasks that send, lock, wait, spawn, shield, fail and unwind together, in scopes and coroutines, and are cancelled at
-- moments that a seed chooses. A value that was sent arrives once, no permit and no lock is lost or doubled, no task
-- outlives its scope, locals stay a task's own; nothing hangs and nothing is left.

local helper = require "spec.support.helper"
local uring = require "uring"

local coroutine = uring.coroutine
local random = math.random
local sync = uring.sync

-- What the tasks of one run share.
local world

-- The error that tasks fail with on purpose.
local failure = setmetatable({}, { __tostring = function() return "a failure on purpose" end })

local function is_meant(err)
  return err == uring.cancelled or err == failure
end

-- Where it is noticed an error may be caught, so what is wrong is noted, too.
local function check(condition, what)
  if not condition then
    world.wrong = world.wrong or debug.traceback(what)
  end
end

-- Calls fn; an error that is meant is raised again or, unless that is a cancellation, now and then dropped.
local function protected(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then return end
  check(is_meant(err), tostring(err))
  if err ~= failure or random(2) == 1 then error(err, 0) end
end

local function fresh()
  world.serial = world.serial + 1
  return world.serial
end

-- Lets some time go by: turns, a moment, an operation.
local function wait()
  local dice = random(6)
  if dice <= 3 then
    for _ = 1, random(3) do uring.yield() end
  elseif dice == 4 then
    uring.sleep(random() / 4000)
  elseif dice == 5 then
    uring.op.nop()
  else
    check(uring.prepare("nop"):await() == 0, "what a nop came to")
  end
end

local function received(value)
  check(not world.received[value], "received twice")
  world.received[value] = true
end

-- A value to send: until that is said to have been done it may not arrive.
local function to_send()
  local value = fresh()
  world.sent[value] = false
  return value
end

local function at_close(fn)
  return setmetatable({}, { __close = fn })
end

-- A <close> variable that awaits or fails.
local function unwinding()
  return at_close(function()
    local dice = random(5)
    if dice <= 2 then
      wait()
    elseif dice <= 4 then
      uring.shield(wait)
    elseif random(3) == 1 then
      error(failure, 0)
    end
  end)
end

-- A context is what is known of the task that runs: `group` counts the tasks of its scope; `shielded` and `held` keep
-- it from waiting for ever; `inner`: it is in a coroutine of its own. This is the body of a task in the scope of
-- `context`, or of `group`.
local some

local function body(context, group, unwinds)
  local locals = uring.locals.mine
  group = group or context.group
  return function()
    local own = { group = group, shielded = context.shielded, held = context.held, inner = context.inner }
    check(uring.locals.mine == locals, "locals are not inherited")
    group.live = group.live + 1
    world.live = world.live + 1
    local _ <close> = at_close(function()
      group.live = group.live - 1
      world.live = world.live - 1
    end)
    local _ <close> = unwinds and unwinding() or nil
    some(own, 3)
    return group
  end
end

-- Calls fn, which opens a scope whose tasks are counted in a group of its own.
local function in_scope(fn, ...)
  local group = { live = 0 }
  local _ <close> = at_close(function() check(group.live == 0, "a task has outlived its scope") end)
  protected(fn, group, ...)
end

-- Runs `some` with parts of the context changed.
local function changed(context, key, value, fn, ...)
  local before = context[key]
  context[key] = value
  local _ <close> = at_close(function() context[key] = before end)
  fn(...)
end

local function any_channel()
  return world.channels[random(#world.channels)]
end

local acts = {
  wait, wait;
  function() -- send
    local value = to_send()
    world.sent[value] = any_channel():send(value) or false
  end;
  function() -- receive
    local value = any_channel():receive()
    if value then received(value) end
  end;
  function() -- without waiting
    local value = to_send()
    world.sent[value] = any_channel():try_send(value) or false
    value = any_channel():try_receive()
    if value then received(value) end
  end;
  function() -- select
    local cases, values = {}, {}
    for i = 1, random(4) do
      cases[i] = any_channel()
      if random(2) == 1 then
        values[i] = to_send()
        cases[i] = { cases[i], values[i] }
      end
    end
    local i, value = sync.select(cases)
    if values[i] then
      world.sent[values[i]] = value or false
    elseif value then
      received(value)
    end
  end;
  function(context) -- semaphore
    if context.inner or context.held and context.shielded then return end
    world.semaphore:acquire()
    world.held = world.held + 1
    check(world.held <= 2, "a permit is doubled")
    local _ <close> = at_close(function()
      world.held = world.held - 1
      world.semaphore:release()
    end)
    changed(context, "held", true, some, context, 2)
  end;
  function(context) -- mutex
    if context.inner or context.held then return end
    world.mutex:lock()
    check(not world.locked, "two have the lock")
    world.locked = true
    local _ <close> = at_close(function()
      world.locked = false
      world.mutex:unlock()
    end)
    changed(context, "held", true, some, context, 2)
  end;
  function(context) -- condition
    if context.shielded or random(2) == 1 then
      world.condition:notify(random(3))
    else
      world.condition:wait()
    end
  end;
  function(context) -- wait group
    if context.shielded or random(2) == 1 then
      world.group:add()
      local _ <close> = at_close(function() world.group:done() end)
      wait()
    else
      world.group:wait()
    end
  end;
  function(context) -- timer
    if context.shielded or random(2) == 1 then
      world.timer:after(random() / 2000)
    else
      check(world.timer:wait(), "the timer is closed")
    end
  end;
  function() -- ticks
    local last = 0
    for i, missed in uring.every(random() / 5000 + 1e-6) do
      check(i == last + missed + 1, "a tick is lost")
      last = i
      if random(2) == 1 then break end
    end
  end;
  function(context) -- shield
    changed(context, "shielded", true, uring.shield, some, context, 2)
  end;
  function(context) -- scope
    in_scope(function(group)
      uring.scope(function(scope)
        for _ = 1, random(3) do scope:spawn(body(context, group)) end
        if random(3) == 1 then scope:deadline(random() / 2000) end
        uring.spawn(body(context, group)):await()
        if random(3) == 1 then scope:cancel() end
      end)
    end)
  end;
  function(context) -- timeout
    in_scope(function(group) uring.timeout(random() / 2000, body(context, group, true)) end)
  end;
  function(context) -- all and race
    in_scope(function(group)
      local list = {}
      for i = 1, random(4) do list[i] = body(context, group) end
      (random(2) == 1 and uring.all or uring.race)(list)
    end)
  end;
  function(context) -- map
    in_scope(function(group)
      local results = uring.map({ 1, 2, 3 }, function(item)
        body(context, group)()
        return -item
      end, { limit = random(3) })
      check(results[1] == -1 and results[2] == -2 and results[3] == -3, "not the results")
    end)
  end;
  function(context) -- a task that others may await and cancel
    local task = uring.spawn(body(context, nil, true))
    world.tasks[random(3)] = task
    if random(2) == 1 then protected(task.await, task) end
    if random(3) == 1 then task:cancel() end
  end;
  function(context) -- one of those
    local task = world.tasks[random(3)]
    if task and (context.shielded or random(2) == 1) then
      task:cancel()
    elseif task and task ~= uring.current() then
      protected(task.await, task)
    end
  end;
  function(context) -- locals
    if context.inner then return end
    local mine = fresh()
    uring.locals.mine = mine
    wait()
    check(uring.locals.mine == mine, "locals have changed")
  end;
  function(context) -- a generator
    local inner = { group = context.group, shielded = context.shielded, held = context.held, inner = true }
    local next_value = coroutine.wrap(function(n)
      for i = 1, n do
        some(inner, 2)
        check(coroutine.yield(i) == i + 1, "not what was resumed with")
      end
    end)
    local n = random(3)
    local value = next_value(n)
    for i = 1, random(n) do
      check(value == i, "not what was yielded")
      value = next_value(i + 1)
    end
  end;
  function(context) -- a coroutine that others may resume and close, as often as not in the midst of an await
    local i = random(3)
    local co = world.coroutines[i]
    if not co or context.shielded then
      local shield = random(2) == 1 and uring.shield or pcall
      co = coroutine.create(function()
        local _ <close> = unwinding()
        shield(function()
          wait()
          coroutine.yield()
          wait()
        end)
      end)
      world.coroutines[i] = co
    end
    if random(3) == 1 then
      pcall(coroutine.close, co)
      world.coroutines[i] = nil
    else
      local ok, err = coroutine.resume(co)
      check(ok or is_meant(err) or tostring(err):find "cannot resume", tostring(err))
    end
  end;
  function() -- closing and collecting
    if random(6) == 1 then any_channel():close() end
    if random(6) == 1 then collectgarbage "step" end
  end;
  function()
    if random(8) == 1 then error(failure, 0) end
  end;
}

function some(context, most)
  for _ = 1, random(most) do
    world.budget = world.budget - 1
    if world.budget < 0 then return end
    acts[random(#acts)](context)
  end
end

-- Ends all: cancels them, and lets those that are shielded get away.
local function finish(scope)
  scope:cancel()
  for _ = 1, 4000 do
    if world.live == 0 then return end
    for _, channel in ipairs(world.channels) do channel:close() end
    if random(2) == 1 then uring.yield() else uring.sleep(0.0001) end
  end
  error "tasks hang"
end

local function one()
  world = {
    budget = random(20, 150), serial = 0, live = 0, sent = {}, received = {}, tasks = {}, coroutines = {},
    channels = { sync.channel(), sync.channel(random(2)) }, semaphore = sync.semaphore(2), held = 0,
    mutex = sync.mutex(), condition = sync.condition(), group = sync.waitgroup(), timer = uring.timer();
  }
  uring.run(function()
    local opened
    uring.spawn(function()
      for _ = 1, random(4, 60) do uring.yield() end
      if random(2) == 1 then uring.sleep(random() / 2000) end
      finish(opened)
    end)
    local context = { group = { live = 0 } }
    local ok, err = pcall(uring.scope, function(scope)
      opened = scope
      for _ = 1, random(5) do scope:spawn(body(context)) end
    end)
    check(ok or is_meant(err), tostring(err))
  end)
  for _, channel in ipairs(world.channels) do
    channel:close()
    for value in channel:values() do received(value) end
  end
  for value, sent in pairs(world.sent) do
    check(sent == (world.received[value] or false), sent and "a value is lost" or "a value that was not sent has come")
  end
  check(world.semaphore:permits() == 2, "a permit is lost")
  check(not world.mutex:is_locked(), "the lock is lost")
  check(world.group:count() == 0, "the group is not what it was")
end

describe("tasks that do anything together", function()
  helper.watch(before_each, after_each)

  -- Who loses a race and fails is told of here.
  before_each(function()
    uring.on_error(function(err) check(is_meant(err), tostring(err)) end)
  end)
  after_each(function()
    uring.on_error(function(err) io.stderr:write(tostring(err), "\n") end)
  end)

  it("lose nothing, double nothing and leave nothing", function()
    for seed = 1, helper.times(1000) do
      math.randomseed(seed)
      one()
      if world.wrong then error(("seed %d: %s"):format(seed, world.wrong)) end
    end
    world = nil
  end)
end)
