-- nop, ours: OPS nops awaited by IN_FLIGHT tasks.
--   lua5.4 nop_uring.lua OPS IN_FLIGHT      prints: ops=... wall=... cpu=...
local uring = require "uring"

local ops, in_flight = tonumber(arg[1]), tonumber(arg[2])
local each = (ops + in_flight - 1) // in_flight
local nop = uring.op.nop

local function task()
  for _ = 1, each do nop() end
end

uring.run(nop) -- sets the ring up, outside what is measured
local wall, cpu = uring.now(), os.clock()
uring.run(function()
  for _ = 1, in_flight do uring.spawn(task) end
end)
print(("ops=%d wall=%.6f cpu=%.6f"):format(each * in_flight, uring.now() - wall, os.clock() - cpu))
