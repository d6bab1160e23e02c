-- spawn, ours: OPS tasks that do nothing, each awaited before the next is spawned.
--   lua5.4 spawn_uring.lua OPS      prints: ops=... wall=... cpu=...
local uring = require "uring"

local ops = tonumber(arg[1])
local spawn = uring.spawn

local function empty() end

uring.run(empty) -- sets the ring up, outside what is measured
local wall, cpu = uring.now(), os.clock()
uring.run(function()
  for _ = 1, ops do spawn(empty):await() end
end)
print(("ops=%d wall=%.6f cpu=%.6f"):format(ops, uring.now() - wall, os.clock() - cpu))
