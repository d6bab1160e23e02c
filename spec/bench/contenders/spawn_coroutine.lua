-- spawn, bare: OPS coroutines that do nothing, each created and resumed.
--   lua5.4 spawn_coroutine.lua OPS      prints: ops=... wall=... cpu=...
-- One process that waits for nothing: its wall time is its CPU time.
local ops = tonumber(arg[1])
local create, resume = coroutine.create, coroutine.resume

local function empty() end

local cpu = os.clock()
for _ = 1, ops do resume(create(empty)) end
cpu = os.clock() - cpu
print(("ops=%d wall=%.6f cpu=%.6f"):format(ops, cpu, cpu))
