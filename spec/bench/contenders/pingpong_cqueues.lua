-- pingpong, cqueues: PAIRS unix socketpairs with both ends here, a message of BYTES there and back TRIPS times on each;
-- a coroutine for each end, unbuffered.
--   lua5.4 pingpong_cqueues.lua PAIRS BYTES TRIPS      prints: ops=... wall=... cpu=...
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local pairs_n, bytes, trips = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local message = ("x"):rep(bytes)

local function ping(s)
  for _ = 1, trips do
    s:write(message)
    if #s:read(bytes) ~= bytes then error "a short read" end
  end
  s:close()
end

local function pong(s)
  for _ = 1, trips do
    if #s:read(bytes) ~= bytes then error "a short read" end
    s:write(message)
  end
  s:close()
end

local loop = cqueues.new()
for _ = 1, pairs_n do
  local a, b = assert(socket.pair())
  a:setmode("bn", "bn")
  b:setmode("bn", "bn")
  loop:wrap(ping, a)
  loop:wrap(pong, b)
end
local wall, cpu = cqueues.monotime(), os.clock()
assert(loop:loop())
print(("ops=%d wall=%.6f cpu=%.6f"):format(pairs_n * trips, cqueues.monotime() - wall, os.clock() - cpu))
