-- Sockets of datagrams that several tasks receive from, send to and close at moments that a seed chooses. Whoever
-- receives gets whole datagrams that were sent, each once; nothing hangs and nothing is left.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait

local ways_to_receive = {
  function(u) return u:recv() end;
  function(u) return u:recv(random() / 1000) end;
  function(u) return uring.timeout(random() / 1000, u.recv, u) end;
  function(u) return u:datagrams()() end;
  function(u) return uring.timeout(random() / 1000, u:datagrams()) end;
}

local function receiver(u, state)
  while true do
    local ok, data, peer = pcall(ways_to_receive[random(#ways_to_receive)], u)
    if not ok then
      if data == uring.cancelled then error(data, 0) end
      assert(tostring(data):find("closed", 1, true), data)
      return
    elseif data then
      local i, n, rest = data:match "^(%d+) (%d+) (x*)$"
      assert(i and #rest == tonumber(n), "not what was sent")
      assert(state.sent[i], "not sent, or twice")
      state.sent[i] = nil
    elseif peer == nil or peer == "closed" then
      return
    else
      assert(peer == "timeout", peer)
    end
    if random(5) == 1 then wait() end
  end
end

local function sender(u, to, state)
  for _ = 1, random(30) do
    state.last = state.last + 1
    local i, n = tostring(state.last), random(4) == 1 and random(3000) or random(40)
    local data = ("%s %d %s"):format(i, n, ("x"):rep(n))
    state.sent[i] = true
    local ok, sent, why = pcall(u.send, u, random(4) == 1 and uring.buffer(data) or data, to)
    if not ok then
      if sent == uring.cancelled then error(sent, 0) end
      assert(tostring(sent):find("closed", 1, true), sent)
      return
    end
    assert(sent == #data or not sent and why, sent)
    if random(4) == 1 then wait() end
  end
end

-- Addresses of one's own.
local count = 0
local addresses = {
  UDP = function() return "127.0.0.1:0" end;
  unix = function()
    count = count + 1
    return "unix:@uring-udp-random-" .. count
  end;
}

local function one(address_of)
  local u = assert(uring.udp { address_of(), size = 4000, buffers = random(4) == 1 and random(4) or nil,
    timeout = random(4) == 1 and random() / 500 or nil })
  local to = u:address()
  local connects = random(2) == 1
  local peer = assert(uring.udp { address_of(), connect = connects and to or nil })
  if connects and random(2) == 1 then to = nil end
  local state = { sent = {}, last = 0 }
  uring.run(function()
    local tasks = {}
    local function start(...) tasks[#tasks + 1] = uring.spawn(...) end
    for _ = 1, random(4) do start(receiver, u, state) end
    for _ = 1, random(3) do start(sender, peer, to, state) end
    for _ = 1, random(0, 3) do
      start(function()
        for _ = 1, random(12) do wait() end
        local dice = random(4)
        if dice == 1 then
          assert(u:close())
          local other <close> = assert(uring.udp "127.0.0.1:0") -- which may get the number
          wait()
          assert(not other.flow)
        elseif dice == 2 then
          assert(peer:close())
        elseif dice == 3 then
          tasks[random(#tasks)]:cancel()
        else
          collectgarbage()
        end
      end)
    end
    for _ = 1, 30 do wait() end
    assert(u:close())
    for _, task in ipairs(tasks) do
      local ok, err = pcall(task.await, task)
      assert(ok or err == uring.cancelled, err)
    end
    assert(peer:close())
  end)
end

describe("sockets of datagrams that many use at once", function()
  helper.watch(before_each, after_each)

  for kind, address_of in pairs(addresses) do
    it("give what was sent, and leave nothing: " .. kind, function()
      for seed = 1, helper.times(200) do
        math.randomseed(seed)
        local ok, err = pcall(streams.run, function() return one(address_of) end)
        if not ok then error(("seed %d: %s"):format(seed, err), 0) end
      end
    end)
  end
end)
