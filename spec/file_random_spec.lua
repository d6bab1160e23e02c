-- Files that several tasks use at once, at moments that a seed chooses, cancelled and timed out meanwhile.  What was
-- written is there, once and in one piece, a call that was cancelled is there as a whole or not at all, and nothing
-- moves the place from where another reads.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

-- Calls a method, now and then for a moment only.  What it returned; or "cut", or "closed".
local function call(f, method, ...)
  local results
  if random(3) == 1 then
    results = table.pack(pcall(uring.timeout, random() / 5000, f[method], f, ...))
  else
    results = table.pack(pcall(f[method], f, ...))
  end
  local ok, first, message = table.unpack(results, 1, 3)
  if not ok and first ~= uring.cancelled and tostring(first):find "closed" then
    return "closed"
  elseif not ok then
    error(first, 0)
  elseif first == nil and message == "timeout" then
    return "cut"
  elseif first == nil and message == "closed" then
    return "closed"
  end
  return first, message
end

local buffering = { "no", "full", "line" }

-- Lets tasks run side by side, some of which are cancelled.
local function together(bodies, disturb)
  local tasks = {}
  for i, body in ipairs(bodies) do tasks[i] = uring.spawn(body) end
  for _ = 1, random(0, 2) do
    uring.spawn(function()
      for _ = 1, random(8) do wait(0.00025) end
      if random(3) > 1 then
        tasks[random(#tasks)]:cancel()
      else
        disturb()
      end
    end)
  end
  for _, task in ipairs(tasks) do
    local ok, err = pcall(task.await, task)
    assert(ok or err == uring.cancelled, err)
  end
end

--
-- Records that several tasks write
--

local function record(who, i)
  local body = string.char(96 + who):rep(random(7) == 1 and random(30000) or random(200))
  return ("<%d:%d:%s>\n"):format(who, i, body)
end

local function writer(f, who, state)
  for i = 1, random(12) do
    local text = record(who, i)
    state[who][i] = { text = text, told = false }
    local at = random(#text)
    local parts = { text:sub(1, at), text:sub(at + 1) }
    if random(3) == 1 then parts[2] = uring.buffer(parts[2]) end
    local done, why
    if random(3) == 1 then
      done, why = call(f, "write", text)
    else
      done, why = call(f, "write", table.unpack(parts))
    end
    if done == "closed" then return end
    assert(done, why)
    state[who][i].told = done ~= "cut"
    local dice = random(8)
    if dice == 1 then
      call(f, "flush")
    elseif dice == 2 then
      call(f, "setvbuf", buffering[random(3)], random(3000))
    elseif dice == 3 then
      call(f, "stat")
    elseif dice == 4 then
      call(f, "pread", 10, 0)
    elseif dice == 5 then
      call(f, "seek", "cur", 0)
    end
    if random(3) == 1 then wait(0.00025) end
  end
end

local function check_records(text, state)
  local last = {}
  local at = 1
  while at <= #text do
    local who, i = text:match("^<(%d):(%d+):", at)
    who, i = tonumber(who), tonumber(i)
    assert(who, "no record begins at " .. at)
    local one = state[who][i]
    assert(one and text:sub(at, at + #one.text - 1) == one.text, "a record that is no whole")
    assert((last[who] or 0) < i, "out of order, or twice")
    last[who] = i
    one.seen = true
    at = at + #one.text
  end
  for who, list in ipairs(state) do
    for i, one in ipairs(list) do
      assert(one.seen or not one.told, ("record %d of %d is not there"):format(i, who))
    end
  end
end

local function write_records(path)
  local state = { {}, {}, {} }
  uring.run(function()
    local f <close> = assert(uring.open(path, random(2) == 1 and "w+" or "a+"))
    if random(2) == 1 then assert(f:setvbuf(buffering[random(3)], random(3000))) end
    together({
      function() writer(f, 1, state) end;
      function() writer(f, 2, state) end;
      function() writer(f, 3, state) end;
    }, function()
      if random(2) == 1 then call(f, "close") else collectgarbage() end
    end)
    if random(4) == 1 then
      pcall(uring.timeout, random() / 5000, f.close, f)
    end
  end)
  local file <close> = assert(io.open(path, "rb"))
  check_records(file:read "a", state)
end

--
-- One reads on while others read and write elsewhere
--

local STATIC, SLOT, SLOTS = 30011, 700, 6

local static
do
  local parts = {}
  for i = 1, STATIC do parts[i] = string.char(i * i * 7919 % 65521 % 251) end
  static = table.concat(parts)
end

local formats = {
  function() return random(3000) end, function() return "L" end, function() return random(9000) end;
}

local function reader(f, got)
  while got.n < STATIC - 1 do
    local data, why = call(f, "read", formats[random(3)]())
    if data == "closed" then return end
    if data ~= "cut" then
      assert(data, why)
      data = data:sub(1, STATIC - got.n)
      got.n = got.n + #data
      got[#got + 1] = data
    end
    if random(20) == 1 then return end
    if random(3) == 1 then wait(0.00025) end
  end
end

-- Is it what was written to the slot last, or by one of the calls since that were cancelled?
local function is_whole(slot, data)
  local stamp = data:sub(1, 1)
  return slot.stamps[stamp] and data == stamp:rep(SLOT)
end

local function slots(f, mine)
  for _ = 1, random(15) do
    local i = mine[random(#mine)]
    local offset = STATIC + (i.number - 1) * SLOT
    if random(2) == 1 then
      local stamp = string.char(random(97, 122))
      local data = stamp:rep(SLOT)
      if random(2) == 1 then data = uring.buffer(data) end
      i.stamps[stamp] = true
      local done, why = call(f, "pwrite", data, offset)
      if done == "closed" then return end
      assert(done, why)
      if done ~= "cut" then i.stamps = { [stamp] = true } end
    else
      local data, why = call(f, "pread", SLOT, offset)
      if data == "closed" then return end
      if data ~= "cut" then
        assert(data, why)
        assert(is_whole(i, data), "not what was written")
        i.stamps = { [data:sub(1, 1)] = true }
      end
    end
    local dice = random(9)
    if dice == 1 then
      call(f, "stat")
    elseif dice == 2 then
      call(f, "truncate", STATIC + SLOTS * SLOT)
    elseif dice == 3 then
      call(f, "flush")
    end
    if random(3) == 1 then wait(0.00025) end
  end
end

local function read_and_write(path)
  local got, all = { n = 0 }, {}
  for i = 1, SLOTS do all[i] = { number = i, stamps = { ["-"] = true } } end
  do
    local file <close> = assert(io.open(path, "wb"))
    file:write(static, ("-"):rep(SLOTS * SLOT))
  end
  uring.run(function()
    local f <close> = assert(uring.open(path, "r+"))
    together({
      function() reader(f, got) end;
      function() slots(f, { all[1], all[2] }) end;
      function() slots(f, { all[3], all[4] }) end;
    }, function()
      if random(2) == 1 then call(f, "close") else collectgarbage() end
    end)
  end)
  local text = table.concat(got)
  assert(text == static:sub(1, #text), "not what is there")
  local file <close> = assert(io.open(path, "rb"))
  assert(file:read(STATIC) == static, "what nobody wrote to has changed")
  for i = 1, SLOTS do
    local data = file:read(SLOT)
    assert(is_whole(all[i], data), "not what was written at last")
  end
end

describe("files that many use at once", function()
  helper.watch(before_each, after_each)

  local function seeds(n, one)
    for seed = 1, helper.times(n) do
      math.randomseed(seed)
      local path = helper.tmpname()
      local ok, err = pcall(streams.run, one, path)
      helper.cleanup()
      if not ok then error(("seed %d: %s"):format(seed, tostring(err)), 0) end
    end
  end

  it("have every record that was written, in one piece", function()
    seeds(300, write_records)
  end)

  it("are read on from where reading was", function()
    seeds(300, read_and_write)
  end)
end)
