-- Processes that several tasks talk to, wait for, signal, close and let go of at once, at moments that a seed chooses.
-- What they write is what they were given, from its beginning on, all who wait are told the same, and nothing is left
-- of them.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local testkit = helper.testkit
local random, wait = math.random, moments.wait
local process = uring.process

local SIZE = 150000

local text
do
  local parts = {}
  for i = 1, SIZE do parts[i] = string.char(i * i * 7919 % 65521 % 251) end
  text = table.concat(parts)
end

-- Calls a function, now and then for a moment only.
local function attempt(fn, ...)
  local results
  if random(3) == 1 then
    results = table.pack(pcall(uring.timeout, random() / 1000, fn, ...))
  else
    results = table.pack(pcall(fn, ...))
  end
  if not results[1] then
    local err = results[2]
    if err == uring.cancelled then error(err, 0) end
    assert(tostring(err):find "closed" or tostring(err):find "detached", err)
  end
  return table.unpack(results, 1, results.n)
end

local function feed(p)
  local at = 1
  while at <= SIZE do
    local n = random(5) == 1 and random(40000) or random(900)
    local ok, done, why = attempt(p.stdin.write, p.stdin, text:sub(at, at + n - 1))
    if not ok or not done and why ~= "timeout" then
      return
    elseif not done then
      return p.stdin:close() -- how much of it is written nobody knows
    end
    at = at + n
    if random(8) == 1 then wait(0.001) end
    if random(20) == 1 then break end
  end
  attempt(p.stdin.close, p.stdin)
end

local function collect(p, got)
  while random(40) > 1 do
    local ok, data, why = attempt(p.stdout.read_some, p.stdout, random(20000))
    if ok and data then
      got[#got + 1] = data
    elseif not ok or why ~= "timeout" then
      return
    end
    if random(8) == 1 then wait(0.001) end
  end
end

local function await(p, ends, times)
  for _ = 1, times do
    local ok, done, how, code = attempt(p.wait, p)
    if ok and how ~= "timeout" then
      ends[#ends + 1] = ("%s %s %s"):format(done, how, code)
      assert(how == "exit" or how == "signal", how)
    end
    wait(0.001)
  end
end

local signals = { "TERM", "KILL", "STOP", "CONT", "INT" }

local disturbances = {
  function(p) attempt(p.kill, p, signals[random(#signals)]) end;
  function(p) attempt(p.close, p) end;
  function(p) attempt(p.close, p) end;
  function(p) attempt(p.stdout.close, p.stdout) end;
  function(p) attempt(p.stdin.close, p.stdin) end;
  function() collectgarbage() end;
  function(p)
    if pcall(p.detach, p) then testkit.kill(p:pid(), 9) end
  end;
}

local commands = {
  { "cat" }, { "cat" }, { "cat" },
  { "sh", "-c", "cat; exit 3" },
  { "sh", "-c", "trap '' TERM; cat" },
  { "true" },
  { "head", "-c", "5000" },
  { "sleep", "10" },
}

local function one()
  local got, ends = {}, {}
  uring.run(function()
    local given = { table.unpack(commands[random(#commands)]) }
    given.stdin, given.stdout = "pipe", "pipe"
    given.grace = random(3) == 1 and 0 or 0.002
    given.group = random(2) == 1
    local p = assert(process.spawn(given))
    local tasks = {}
    local function spawn(fn, ...) tasks[#tasks + 1] = uring.spawn(fn, p, ...) end
    if random(5) > 1 then spawn(feed) end
    if random(5) > 1 then spawn(collect, got) end
    for _ = 1, random(0, 3) do spawn(await, ends, random(3)) end
    for _ = 1, random(0, 3) do
      spawn(function(q)
        for _ = 1, random(6) do wait(0.001) end
        if random(4) == 1 then
          tasks[random(#tasks)]:cancel()
        else
          disturbances[random(#disturbances)](q)
        end
      end)
    end
    if random(3) > 1 then
      for _ = 1, random(10) do wait(0.001) end
      local _, done, how, code = pcall(p.close, p)
      if how ~= "detached" and code then ends[#ends + 1] = ("%s %s %s"):format(done, how, code) end
    else -- it is dropped
      for _ = 1, random(10) do wait(0.001) end
      if random(2) == 1 then pcall(p.kill, p, "KILL") end
      for _, task in ipairs(tasks) do task:cancel() end
    end
    p = nil
    for _, task in ipairs(tasks) do
      local ok, err = pcall(task.await, task)
      assert(ok or err == uring.cancelled, err)
    end
  end)
  for i = 2, #ends do assert(ends[i] == ends[1], ends[1] .. " and " .. ends[i]) end
  local output = table.concat(got)
  assert(output == text:sub(1, #output), "not what it was given")
end

local function run()
  local script = ({ "cat", "cat >&2", "head -c 5000", "cat & cat", "exec sleep 5", "cat; sleep 5" })[random(6)]
  local input = text:sub(1, random(SIZE))
  local given = { "sh", "-c", script, input = random(6) > 1 and input or nil }
  given.grace = random(3) == 1 and 0 or 0.002
  given.timeout = random() / 200
  if random(4) == 1 then given.max = random(SIZE) end
  local limit = random(3) == 1 and random() / 300 or 10
  local result, why, errno, part = uring.timeout(limit, process.run, given)
  result = result or part
  assert(result or why == "timeout" or errno, why)
  for _, name in ipairs { "stdout", "stderr" } do
    local output = result and result[name]
    assert(not output or #output <= (given.max or SIZE))
    assert(not output or script == "cat & cat" or output == text:sub(1, #output), "not what it was given")
    if script == "cat" and name == "stdout" and result and result.ok then assert(output == (given.input or "")) end
  end
end

describe("processes that many use at once", function()
  helper.watch(before_each, after_each)

  local function seeds(n, fn)
    if not helper.can_spawn() then return pending "no process can be spawned here" end
    for seed = 1, helper.times(n) do
      math.randomseed(seed)
      local ok, err = pcall(streams.run, fn)
      if not ok then error(("seed %d: %s"):format(seed, tostring(err)), 0) end
    end
    helper.collect()
    helper.eventually(function() return not testkit.children() end, "one is left")
  end

  it("write what they were given, and end", function() seeds(100, one) end)
  it("run to their end, or what was given up is ended", function() seeds(60, run) end)
end)
