-- sleepers, luv: COUNT timers of 1 to 100 ms at once, TIMES over; each is closed by its callback.
--   lua5.4 sleepers_luv.lua COUNT TIMES      prints: ops=... wall=... cpu=...
local uv = require "luv"

local count, times = tonumber(arg[1]), tonumber(arg[2])
local ended = 0

local wall, cpu = uv.hrtime(), os.clock()
for _ = 1, times do
  for i = 1, count do
    local timer = uv.new_timer()
    timer:start(i % 100 + 1, 0, function()
      ended = ended + 1
      timer:close()
    end)
  end
  uv.run()
end
wall, cpu = uv.hrtime() - wall, os.clock() - cpu
if ended ~= count * times then error "a timer is missing" end
print(("ops=%d wall=%.6f cpu=%.6f"):format(count * times, wall * 1e-9, cpu))
