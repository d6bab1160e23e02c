-- parked, bare: COUNT coroutines that have yielded, in a table.
--   lua5.4 parked_coroutine.lua COUNT      prints: ops=... wall=... cpu=... bytes=...
package.path = arg[0]:match "^(.*)/[^/]*$" .. "/../?.lua;" .. package.path
local resident = require "support.resident"

local count = tonumber(arg[1])
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local all = {}

local function park() yield() end

collectgarbage()
local before, cpu = resident(), os.clock()
for i = 1, count do
  all[i] = create(park)
  resume(all[i])
end
cpu = os.clock() - cpu
collectgarbage()
print(("ops=%d wall=%.6f cpu=%.6f bytes=%d"):format(#all, cpu, cpu, resident() - before))
