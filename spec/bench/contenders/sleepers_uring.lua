-- sleepers, ours: COUNT tasks that sleep from 1 to 100 ms at once, TIMES over.
--   lua5.4 sleepers_uring.lua COUNT TIMES      prints: ops=... wall=... cpu=...
local uring = require "uring"

local count, times = tonumber(arg[1]), tonumber(arg[2])
local sleep, spawn = uring.sleep, uring.spawn

uring.run(uring.yield) -- sets the ring up, outside what is measured
local wall, cpu = uring.now(), os.clock()
for _ = 1, times do
  uring.run(function()
    for i = 1, count do spawn(sleep, (i % 100 + 1) / 1000) end
  end)
end
print(("ops=%d wall=%.6f cpu=%.6f"):format(count * times, uring.now() - wall, os.clock() - cpu))
