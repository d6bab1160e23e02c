-- parked, ours: COUNT tasks that sleep for longer than anybody looks.
--   lua5.4 parked_uring.lua COUNT      prints: ops=... wall=... cpu=... bytes=...
package.path = arg[0]:match "^(.*)/[^/]*$" .. "/../?.lua;" .. package.path
local resident = require "support.resident"
local uring = require "uring"

local count = tonumber(arg[1])
local sleep, spawn = uring.sleep, uring.spawn

local function park() sleep(1000) end

uring.run(uring.yield) -- sets the ring up, outside what is measured
collectgarbage()
local before, wall, cpu = resident(), uring.now(), os.clock()
uring.run(function()
  for _ = 1, count do spawn(park) end
  sleep(0)
  wall, cpu = uring.now() - wall, os.clock() - cpu
  collectgarbage()
  print(("ops=%d wall=%.6f cpu=%.6f bytes=%d"):format(count, wall, cpu, resident() - before))
  os.exit(true)
end)
