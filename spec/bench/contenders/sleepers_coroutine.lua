-- sleepers, the limit: COUNT bare coroutines that yield at once and are resumed once more, TIMES over. No clock, no
-- scheduler: what is left of the row if those cost nothing.
--   lua5.4 sleepers_coroutine.lua COUNT TIMES      prints: ops=... wall=... cpu=...
local count, times = tonumber(arg[1]), tonumber(arg[2])
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local cpu = os.clock()
for _ = 1, times do
  local parked = {}
  for i = 1, count do
    parked[i] = create(yield)
    resume(parked[i])
  end
  for i = 1, count do resume(parked[i]) end
end
cpu = os.clock() - cpu
print(("ops=%d wall=%.6f cpu=%.6f"):format(count * times, cpu, cpu))
