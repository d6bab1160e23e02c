-- pingpong, ours through the stream API: PAIRS unix socketpairs with both ends here, a message of BYTES there and back
-- TRIPS times on each, a task for each end.
--   lua5.4 pingpong_stream_uring.lua PAIRS BYTES TRIPS      prints: ops=... wall=... cpu=...
local uring = require "uring"

local pairs_n, bytes, trips = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local message = ("x"):rep(bytes)

local function ping(stream)
  for _ = 1, trips do
    assert(stream:write(message))
    if #assert(stream:read(bytes)) ~= bytes then error "closed too early" end
  end
end

local function pong(stream)
  for _ = 1, trips do
    assert(stream:write(assert(stream:read(bytes))))
  end
end

uring.run(function()
  local ends, tasks = {}, {}
  for i = 1, pairs_n do ends[i] = { assert(uring.socketpair()) } end
  local wall, cpu = uring.now(), os.clock()
  for _, e in ipairs(ends) do
    tasks[#tasks + 1] = uring.spawn(ping, e[1])
    tasks[#tasks + 1] = uring.spawn(pong, e[2])
  end
  for _, task in ipairs(tasks) do task:await() end
  print(("ops=%d wall=%.6f cpu=%.6f"):format(pairs_n * trips, uring.now() - wall, os.clock() - cpu))
  for _, e in ipairs(ends) do
    e[1]:close()
    e[2]:close()
  end
end)
