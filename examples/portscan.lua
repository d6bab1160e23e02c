-- Which ports of this machine does somebody listen at?  It asks a few hundred at a
-- time, and gives each so long to answer.
--
--   make run SCRIPT=examples/portscan.lua                   # 1 to 1024
--   make run SCRIPT=examples/portscan.lua ARGS="1 65535"
--   make run SCRIPT=examples/portscan.lua ARGS="8000 8100 0.1"
--
-- First and last port, and seconds for each (0.5 unless told otherwise).

local uring = require "uring"

local AT_ONCE = 256 -- connections under way

local first = math.tointeger(tonumber(arg[1] or 1))
local last = math.tointeger(tonumber(arg[2] or math.max(1024, first or 0)))
local seconds = tonumber(arg[3] or 0.5)
if #arg > 3 or not first or not last or not seconds or first < 1 or last > 65535 or first > last or seconds <= 0 then
  io.stderr:write("usage: portscan.lua [FIRST [LAST [SECONDS]]]\n")
  os.exit(2)
end

local ports = {}
for port = first, last do
  ports[#ports + 1] = port
end

-- "open", "closed", or what else it is.
local function probe(port)
  local connection, message, errno = uring.connect { "127.0.0.1:" .. port, timeout = seconds }
  if connection then
    -- it may have met itself: a connection from a port to the same port is one
    local is_self = connection:peer() == connection:address()
    connection:close()
    return is_self and "closed" or "open"
  end
  return errno == uring.errno.ECONNREFUSED and "closed" or message
end

local began = uring.now()
local states = uring.run(uring.map, ports, probe, { limit = AT_ONCE })
local open = 0
for i, state in ipairs(states) do
  if state == "open" then
    open = open + 1
    print("127.0.0.1:" .. ports[i])
  elseif state ~= "closed" then
    print(state)
  end
end
print(("%d ports, %d open, %.2f s"):format(#ports, open, uring.now() - began))
