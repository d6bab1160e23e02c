-- Streams that are read, written, cancelled, half-closed and closed by several tasks at once, at moments that a seed
-- chooses. What is read is what was written, from its beginning on, whatever happens meanwhile; nothing hangs and
-- nothing is left.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

-- The bytes of a stream tell their places: no part of it is like another that is near.
local PERIOD = 16063
local pattern
do
  local parts = {}
  for i = 1, PERIOD do parts[i] = string.char(i * i * 7919 % 65521 % 251) end
  pattern = table.concat(parts):rep(7)
end

local function bytes(from, size)
  local parts = {}
  while size > 0 do
    local first = from % PERIOD
    local n = math.min(size, #pattern - first)
    parts[#parts + 1] = pattern:sub(first + 1, first + n)
    from, size = from + n, size - n
  end
  return table.concat(parts)
end

local reads = {
  function(r) return r:read(random(6000)) end;
  function(r) return r:read_some(random(9000)) end;
  function(r) return r:read_until(string.char(random(251) - 1)) end;
  function(r)
    local a, b = r:read(random(50), random(50))
    return a and a .. (b or "")
  end;
  function(r)
    local buffer = uring.buffer(random(500))
    local n = r:recv(buffer)
    return n and n > 0 and buffer:get(1, n) or nil
  end;
  function(r)
    return (r:lines(random(300))())
  end;
  function(r) return r:read "a" end;
}

-- Reads now and then until there is nothing more; what it got, by where that
-- begins in the order of reading.
local function reader(r, got)
  while random(200) > 1 do
    local what = reads[random(#reads - (random(10) > 1 and 1 or 0))]
    local results
    if random(8) == 1 then
      results = table.pack(pcall(uring.timeout, random() / 1000, what, r))
    else
      results = table.pack(pcall(what, r))
    end
    local ok, data, why = table.unpack(results)
    if ok and type(data) == "string" then
      got[#got + 1] = data
    elseif ok and why ~= "timeout" then
      return -- the end, or it was closed
    elseif data == uring.cancelled then
      error(data, 0)
    elseif not ok and not tostring(data):find "timeout" then -- `lines` raises what others return
      assert(tostring(data):find "closed", data)
      return
    end
    if random(6) == 1 then wait() end
  end
end

-- Writes on from where the stream is; how far it may have got.
local function writer(w, state)
  while random(30) > 1 do
    local parts, size = {}, 0
    for i = 1, random(4) do
      local n = random(6) == 1 and random(70000) or random(400)
      parts[i] = bytes(state.offered + size, n)
      if random(4) == 1 then parts[i] = uring.buffer(parts[i]) end
      size = size + n
    end
    state.offered = state.offered + size
    local ok, done, why = pcall(w.write, w, table.unpack(parts))
    if not ok then
      if done == uring.cancelled then error(done, 0) end
      assert(tostring(done):find "closed", done)
      return
    elseif not done then
      assert(why, "no reason")
      return
    end
    if random(5) == 1 then
      if not pcall(w.flush, w) then return end
    end
    if random(4) == 1 then wait() end
  end
end

local buffering = { "no", "full", "line" }

local function one(make)
  local w, r = make()
  local got, state = {}, { offered = 0 }
  if random(3) == 1 then assert(w:setvbuf(buffering[random(3)], random(3000))) end
  if random(4) == 1 then r:timeout(random() / 500) end
  if random(4) == 1 then w:timeout(random() / 500) end
  if random(4) == 1 then
    r:tie()
    w:tie()
  end
  uring.run(function()
    local tasks = {
      uring.spawn(function() -- whoever ends lets the other end
        local _ <close> = r
        reader(r, got)
      end);
      uring.spawn(function()
        local _ <close> = w
        writer(w, state)
      end);
    }
    -- who disturbs them
    for _ = 1, random(0, 2) do
      uring.spawn(function()
        for _ = 1, random(6) do wait() end
        local dice = random(6)
        if dice == 1 then
          tasks[random(2)]:cancel()
        elseif dice == 2 then
          pcall(w.shutdown, w, "w")
        elseif dice <= 4 then
          assert(r:close())
        elseif dice == 5 then
          pcall(uring.timeout, random() / 1000, w.close, w)
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
  return table.concat(got), state.offered
end

describe("streams that many use at once", function()
  helper.watch(before_each, after_each)

  for kind, make in pairs(streams.kinds) do
    it("give what was written, and leave nothing: " .. kind, function()
      for seed = 1, helper.times(400) do
        math.randomseed(seed)
        local read, offered = streams.run(function() return one(make) end)
        assert(#read <= offered, seed)
        if read ~= bytes(0, #read) then error(("seed %d: not what was written"):format(seed)) end
      end
    end)
  end
end)
