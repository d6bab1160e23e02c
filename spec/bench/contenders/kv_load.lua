-- Drives a server that speaks RESP with redis-benchmark: SET, then GET, from 50 connections. Ends the server.
--   lua5.4 kv_load.lua PID PORT PIPELINE REQUESTS      prints: ops=... wall=... cpu=...
local pid, port, pipeline, requests = table.unpack(arg)

local function ask(command)
  local p <close> = assert(io.popen(command .. " 2>/dev/null"))
  return p:read "a"
end

-- Seconds that all threads of the server have run.
local function cpu()
  local sum = 0
  for ns in ask(("cat /proc/%d/task/*/schedstat"):format(pid)):gmatch "(%d+) %d+ %d+\n" do sum = sum + tonumber(ns) end
  return sum / 1e9
end

local function benchmark(test, n)
  local csv = ask(("timeout 60 redis-benchmark -p %d -P %d -n %d -t %s --csv"):format(port, pipeline, n, test))
  local rate = csv:match '\n"%u+","([%d.]+)"'
  if not rate then error("redis-benchmark says: " .. csv, 0) end
  return n / tonumber(rate)
end

local listens = false
for _ = 1, 200 do
  listens = ask(("timeout 1 redis-cli -p %d ping"):format(port)):find "PONG"
  if listens then break end
  os.execute "sleep 0.02"
end
if not listens then error("nobody answers on port " .. port, 0) end
benchmark("set,get", requests // 10)
local before = cpu()
local wall = benchmark("set", requests) + benchmark("get", requests)
print(("ops=%d wall=%.6f cpu=%.6f"):format(2 * requests, wall, cpu() - before))
os.execute("kill " .. pid)
