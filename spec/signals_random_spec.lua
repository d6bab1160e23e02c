-- Signals that come while watches for them are opened, waited at, cancelled and closed, at moments that a seed chooses.
-- A watch that stays has every one of them.

local helper = require "spec.support.helper"
local streams = require "spec.support.streams"
local uring = require "uring"

local testkit = helper.testkit
local random = math.random

local numbers = { USR1 = 10, USR2 = 12, WINCH = 28 }
local names = { "USR1", "USR2", "WINCH" }

local function wait()
  local dice = random(4)
  if dice == 1 then
    for _ = 1, random(4) do uring.yield() end
  elseif dice == 2 then
    uring.sleep(random() / 3000)
  elseif dice == 3 then
    uring.op.nop()
  end
end

-- Takes what comes until the watch is closed, now and then for a moment only.
local function take(watch, state)
  while not state.closed do
    local name, why
    if random(2) == 1 then
      name, why = uring.timeout(random() / 2000, function()
        if not state.closed then return watch:wait() end
      end)
    else
      name, why = watch:wait()
    end
    if name then state[name] = state[name] - 1 end
    assert(name or why == nil or why == "timeout" or why == "closed", why)
    if random(4) == 1 then wait() end
  end
end

local function send(watch, state)
  for _ = 1, random(20) do
    local name = names[random(3)]
    state[name] = state[name] + 1
    testkit.kill(testkit.getpid(), numbers[name])
    if random(2) == 1 then wait() end
  end
  while state.USR1 > 0 or state.USR2 > 0 or state.WINCH > 0 do uring.sleep(0.0002) end
  state.closed = true
  watch:close()
end

-- Comes and goes.
local function disturb()
  for _ = 1, random(5) do
    uring.timeout(random() / 1000, function()
      local watch <close> = uring.signals { names[random(3)], names[random(3)] }
      for _ in watch do
        if random(3) == 1 then return end
        if random(4) == 1 then watch:close() end
      end
    end)
  end
end

local function one()
  local state = { USR1 = 0, USR2 = 0, WINCH = 0, closed = false }
  local _safe <close> = uring.signals(names) -- none of them ends the process
  local watch <close> = uring.signals(names)
  uring.run(function()
    for _ = 1, random(3) do uring.spawn(take, watch, state) end
    for _ = 1, random(0, 3) do uring.spawn(disturb) end
    send(watch, state)
  end)
  assert(state.USR1 == 0 and state.USR2 == 0 and state.WINCH == 0, "more than there were")
end

describe("signals that many wait for", function()
  helper.watch(before_each, after_each)

  it("are all told", function()
    for seed = 1, helper.times(150) do
      math.randomseed(seed)
      local ok, err = pcall(streams.run, one)
      if not ok then error(("seed %d: %s"):format(seed, tostring(err)), 0) end
    end
    for _, name in ipairs { "USR1", "USR2" } do
      assert.are.equal("default", testkit.disposition(numbers[name]))
    end
  end)
end)
