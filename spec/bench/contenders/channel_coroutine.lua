-- channel, bare: OPS values that a coroutine yields and who resumes it gets.
--   lua5.4 channel_coroutine.lua OPS      prints: ops=... wall=... cpu=...
-- One process that waits for nothing: its wall time is its CPU time.
local ops = tonumber(arg[1])
local yield, resume = coroutine.yield, coroutine.resume

local co = coroutine.create(function()
  for i = 1, ops do yield(i) end
end)

local cpu = os.clock()
for i = 1, ops do
  local _, value = resume(co)
  if value ~= i then error "a value is missing" end
end
cpu = os.clock() - cpu
print(("ops=%d wall=%.6f cpu=%.6f"):format(ops, cpu, cpu))
