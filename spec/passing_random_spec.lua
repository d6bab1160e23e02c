-- Descriptors that several tasks send and receive over a pair of unix sockets, which are cancelled, late, half-closed
-- and closed at moments that a seed chooses. What arrives is what was sent; no descriptor is left.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

-- Runs fn; a closed stream is no failure.
local function guarded(fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok and (err == uring.cancelled or not tostring(err):find("closed", 1, true)) then error(err, 0) end
end

local function or_late(fn, ...)
  if random(4) == 1 then return uring.timeout(random() / 1000, fn, ...) end
  return fn(...)
end

local function send(w, state)
  for _ = 1, random(30) do
    local list = {}
    for i = 1, random(4) do
      local r, to = assert(uring.pipe())
      list[i] = random(2) == 1 and r or to
      if random(3) == 1 then
        r:close()
        to:close()
        list[i] = assert(uring.listen "127.0.0.1:0")
      end
    end
    local n = random(8) == 1 and random(200000) or random(30)
    state.sent = state.sent + n
    local ok, why
    if random(5) == 1 then
      ok, why = or_late(w.write, w, ("x"):rep(n))
    else
      ok, why = or_late(w.send_fds, w, ("x"):rep(n), list)
    end
    for _, x in ipairs(list) do
      if random(2) == 1 then assert(x:close()) end
    end
    if not ok and why ~= "timeout" then return end
    if random(4) == 1 then wait() end
  end
end

local function receive(r, state)
  while random(100) > 1 do
    local data, list
    if random(6) == 1 then
      data, list = or_late(r.read, r, random(200)), {}
    else
      data, list = or_late(r.recv_fds, r, random(5), random(3) == 1 and random(100) or nil)
    end
    if data then
      state.got = state.got + #data
      for _, x in ipairs(list) do
        assert(x:fd() >= 0)
        if random(2) == 1 then assert(x:close()) end
      end
    elseif list ~= "timeout" and (list == nil or type(list) == "string") then
      return
    end
    if random(5) == 1 then wait() end
  end
end

local function one()
  local w, r = assert(uring.socketpair())
  local state = { sent = 0, got = 0 }
  if random(4) == 1 then w:setvbuf("full", random(100)) end
  if random(4) == 1 then w:timeout(random() / 500) end
  if random(4) == 1 then r:timeout(random() / 500) end
  if random(4) == 1 then w:sockopt("sndbuf", 4608) end
  uring.run(function()
    local tasks = {}
    for _ = 1, random(3) do tasks[#tasks + 1] = uring.spawn(guarded, send, w, state) end
    local writers = #tasks
    for _ = 1, random(3) do tasks[#tasks + 1] = uring.spawn(guarded, receive, r, state) end
    for _ = 1, random(0, 3) do
      uring.spawn(function()
        for _ = 1, random(10) do wait() end
        local dice = random(6)
        if dice <= 2 then
          tasks[random(#tasks)]:cancel()
        elseif dice == 3 then
          w:close()
        elseif dice == 4 then
          assert(r:close())
        elseif dice == 5 then
          pcall(w.shutdown, w)
        else
          collectgarbage()
        end
      end)
    end
    uring.spawn(function() -- nobody waits for room for ever
      for i = writers + 1, #tasks do pcall(tasks[i].await, tasks[i]) end
      assert(r:close())
    end)
    for i, task in ipairs(tasks) do
      local ok, err = pcall(task.await, task)
      assert(ok or err == uring.cancelled, err)
      if i == writers then w:close() end -- what is buffered may have nowhere to go
    end
  end)
  assert(state.got <= state.sent)
end

describe("descriptors that many pass", function()
  helper.watch(before_each, after_each)

  it("leave nothing", function()
    for seed = 1, helper.times(300) do
      math.randomseed(seed)
      local ok, err = pcall(streams.run, one)
      if not ok then error(("seed %d: %s"):format(seed, err), 0) end
    end
  end)
end)
