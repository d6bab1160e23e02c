-- channel, ours: OPS values from one task to another.
--   lua5.4 channel_uring.lua OPS CAPACITY      prints: ops=... wall=... cpu=...
local uring = require "uring"
local sync = uring.sync or require "uring.core".sync

local ops, capacity = tonumber(arg[1]), tonumber(arg[2])
local channel = sync.channel(capacity)

local function send()
  for i = 1, ops do channel:send(i) end
end

local function receive()
  for i = 1, ops do
    if channel:receive() ~= i then error "a value is missing" end
  end
end

uring.run(uring.yield) -- sets the ring up, outside what is measured
local wall, cpu = uring.now(), os.clock()
uring.run(function()
  uring.spawn(send)
  uring.spawn(receive)
end)
print(("ops=%d wall=%.6f cpu=%.6f"):format(ops, uring.now() - wall, os.clock() - cpu))
