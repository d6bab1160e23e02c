-- Transfers between streams of every kind, which a seed cancels, times out, limits, and cuts off at either end. What
-- arrives is what was sent, from its beginning on; nothing hangs and nothing is left.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

local DATA
do
  local parts = {}
  for i = 1, 60000 do parts[i] = ("%06d"):format(i) end
  DATA = table.concat(parts)
end

local kinds = {}
for name, make in pairs(streams.kinds) do kinds[#kinds + 1] = { name, make } end
table.sort(kinds, function(a, b) return a[1] < b[1] end)

local function allowed(err)
  return err == uring.cancelled or tostring(err):find("closed", 1, true)
end

-- Runs fn; a closed stream is no failure.
local function guarded(fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok and (err == uring.cancelled or not allowed(err)) then error(err, 0) end
end

local function write(w, size)
  local _ <close> = w
  local at = 0
  while at < size do
    local n = random(3) == 1 and random(80000) or random(500)
    if not w:write(DATA:sub(at + 1, math.min(size, at + n))) then return end
    at = at + n
    if random(4) == 1 then wait() end
  end
  if random(3) == 1 and w:shutdown() then wait() end
end

local function read(r, got)
  local _ <close> = r
  while random(200) > 1 do
    local data = r:read_some(random(3) == 1 and random(200000) or random(900))
    if not data then return end
    got[#got + 1] = data
    if random(6) == 1 then wait() end
  end
end

local function one()
  local w, from = kinds[random(#kinds)][2]()
  local to, r = kinds[random(#kinds)][2]()
  local size = random(4) == 1 and random(#DATA) or random(40000)
  local got, moved, last = {}, 0, nil
  if random(4) == 1 then assert(to:setvbuf("full", random(3000))) end
  if random(4) == 1 then to:timeout(random() / 500) end
  if random(4) == 1 then from:timeout(random() / 500) end
  uring.run(function()
    local tasks = {}
    tasks[1] = uring.spawn(guarded, function()
      local _ <close> = from
      local _ <close> = to
      for _ = 1, random(4) do
        local given = { count = random(3) == 1 and random(60000) or nil, shutdown = random(3) == 1 }
        local n, why, _, part
        if random(5) == 1 then
          n, why, _, part = uring.timeout(random() / 500, uring.transfer, from, to, given)
        else
          n, why, _, part = uring.transfer(from, to, given)
        end
        assert(n or why, "no reason")
        assert(not n or not given.count or n <= given.count, "more than asked for")
        if not n and not part then -- cancelled by the time limit
          last = "timeout"
          return
        end
        moved = moved + (n or part)
        if not n then return end
        if random(3) == 1 then wait() end
      end
      if to:flush() then last = "flushed" end
    end)
    tasks[2] = uring.spawn(guarded, write, w, size)
    tasks[3] = uring.spawn(guarded, read, r, got)
    for _ = 1, random(0, 2) do
      uring.spawn(function()
        for _ = 1, random(8) do wait() end
        local dice = random(9)
        if dice == 1 then
          tasks[random(3)]:cancel()
        elseif dice == 2 then
          pcall(to.shutdown, to, "w")
        elseif dice == 3 then
          pcall(from.shutdown, from, "r")
        elseif dice <= 7 then
          local stream = ({ from, to, w, r })[dice - 3]
          stream:close() -- what is buffered may have nowhere to go
        else
          collectgarbage()
        end
      end)
    end
    for _, task in ipairs(tasks) do
      local ok, err = pcall(task.await, task)
      assert(ok or err == uring.cancelled, err)
    end
  end)
  got = table.concat(got)
  assert(got == DATA:sub(1, #got), "not what was written")
  assert(last == "timeout" or last == nil or #got <= moved, "more than was moved")
end

describe("transfers that are disturbed", function()
  helper.watch(before_each, after_each)

  it("bring what was written, and leave nothing", function()
    for seed = 1, helper.times(300) do
      math.randomseed(seed)
      local ok, err = pcall(streams.run, one)
      if not ok then error(("seed %d: %s"):format(seed, err), 0) end
    end
  end)
end)
