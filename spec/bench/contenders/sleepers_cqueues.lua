-- sleepers, cqueues: COUNT coroutines that sleep from 1 to 100 ms at once, TIMES over.
--   lua5.4 sleepers_cqueues.lua COUNT TIMES      prints: ops=... wall=... cpu=...
local cqueues = require "cqueues"

local count, times = tonumber(arg[1]), tonumber(arg[2])

local wall, cpu = cqueues.monotime(), os.clock()
for _ = 1, times do
  local loop = cqueues.new()
  for i = 1, count do
    loop:wrap(cqueues.sleep, (i % 100 + 1) / 1000)
  end
  assert(loop:loop())
end
print(("ops=%d wall=%.6f cpu=%.6f"):format(count * times, cqueues.monotime() - wall, os.clock() - cpu))
