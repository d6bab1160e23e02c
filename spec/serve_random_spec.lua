-- Listeners that serve, accept, shut down and close at moments that a seed chooses, while clients come and go, are
-- reset, half-closed, cancelled or late. Whatever a client reads is what was served, nothing hangs and nothing is left.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

local ways_to_leave = {
  function(stream) assert(stream:close()) end;
  function(stream)
    pcall(stream.sockopt, stream, "linger", 0) -- with a reset
    assert(stream:close())
  end;
  function(stream)
    pcall(stream.shutdown, stream, "w")
    wait()
    pcall(stream.read, stream, "a")
    assert(stream:close())
  end;
  function() -- the collector closes it
    if random(4) == 1 then collectgarbage() end
  end;
}

local function leave(stream)
  ways_to_leave[random(#ways_to_leave)](stream)
end

-- An error that a call on a stream may raise here: the task was cancelled, or the stream is closed.
local function allowed(err)
  return err == uring.cancelled or tostring(err):find("closed", 1, true)
end

-- Echoes lines.
local function handler(stream)
  if random(20) == 1 then error("of a handler", 0) end
  if random(10) == 1 then
    leave(stream)
    return
  end
  if random(3) == 1 then
    stream:setvbuf "full"
    stream:tie()
  end
  if random(8) == 1 then uring.spawn(wait) end
  while true do
    local line = stream:read "L"
    if not line or random(30) == 1 then break end
    if random(4) == 1 then wait() end
    if not stream:write(line) then break end
  end
end

local function client(address)
  local stream, why = uring.connect { address, timeout = random(3) == 1 and random() / 500 or nil }
  if not stream then
    assert(type(why) == "string", why)
    return
  end
  local last = 0
  for i = 1, random(5) do
    if random(4) == 1 then wait() end
    if not stream:write(i, "\n") then break end
    if random(3) > 1 then
      local line = random(6) > 1 and stream:read() or uring.timeout(random() / 1000, stream.read, stream)
      if not line then break end
      assert(tonumber(line) == last + 1, line)
      last = last + 1
    end
  end
  leave(stream)
end

local function told(err)
  assert(err == "of a handler" or allowed(err) or tostring(err):find "Too many open files", err)
end

local ways_to_serve = {
  function(listener)
    local ok, why = listener:serve(handler, { on_error = told, max = random(3) == 1 and random(3) or nil })
    assert(ok == true, why)
  end;
  function(listener)
    for stream in listener:clients() do
      if random(4) == 1 then
        leave(stream)
      else
        local ok, err = pcall(handler, stream)
        stream:close()
        if err == uring.cancelled then error(err, 0) end
        assert(ok or err == "of a handler" or allowed(err), err)
      end
      if random(8) == 1 then break end
    end
  end;
  function(listener)
    for _ = 1, random(6) do
      local stream, why
      if random(3) == 1 then
        stream, why = uring.timeout(random() / 1000, listener.accept, listener)
      else
        stream, why = listener:accept()
      end
      if stream then
        leave(stream)
      elseif why == "closed" then
        break
      else
        assert(why == "timeout", why)
      end
      if random(3) == 1 then wait() end
    end
  end;
}

local function guarded(fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok and not allowed(err) then error(err, 0) end
  if not ok and err == uring.cancelled then error(err, 0) end
end

-- Addresses of one's own.
local count = 0
local addresses = {
  TCP = function() return "127.0.0.1:0" end;
  names = function() return "localhost:0" end;
  unix = function()
    count = count + 1
    return "unix:@uring-serve-random-" .. count
  end;
}

local function one(kind)
  local listener = assert(uring.listen { addresses[kind](), backlog = random(4) == 1 and random(3) or nil })
  local address = listener:address()
  if kind == "names" then address = "localhost:" .. address:match "%d+$" end
  uring.run(function()
    local tasks = {}
    for _ = 1, random(3) do
      tasks[#tasks + 1] = uring.spawn(guarded, ways_to_serve[random(#ways_to_serve)], listener)
    end
    for _ = 1, random(8) do
      tasks[#tasks + 1] = uring.spawn(guarded, function()
        wait()
        client(address)
      end)
    end
    if random(3) == 1 then
      for _ = 1, random(3) do
        tasks[#tasks + 1] = uring.spawn(function()
          for _ = 1, random(6) do wait() end
          tasks[random(#tasks)]:cancel()
        end)
      end
    end
    for _ = 1, random(2) do
      tasks[#tasks + 1] = uring.spawn(guarded, function()
        for _ = 1, random(20) do wait() end
        if random(2) == 1 then
          local n = random(3) == 1 and listener:shutdown(0) or listener:shutdown(random() / 1000)
          assert(math.type(n) == "integer", n)
        else
          assert(listener:close())
        end
      end)
    end
    for _ = 1, 40 do wait() end
    -- the clients and the servers end now that there is no listener
    assert(listener:close())
    uring.sleep(random() / 1000)
    for _, task in ipairs(tasks) do task:cancel() end
    for _, task in ipairs(tasks) do
      local ok, err = pcall(task.await, task)
      assert(ok or err == uring.cancelled, err)
    end
  end)
end

describe("listeners that many use at once", function()
  helper.watch(before_each, after_each)

  for kind in pairs(addresses) do
    it("serve what they serve, and leave nothing: " .. kind, function()
      for seed = 1, helper.times(100) do
        math.randomseed(seed)
        local ok, err = pcall(streams.run, function() return one(kind) end)
        if not ok then error(("seed %d: %s"):format(seed, err), 0) end
      end
    end)
  end
end)
