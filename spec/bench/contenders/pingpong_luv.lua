-- pingpong, luv: PAIRS unix socketpairs with both ends here, a message of BYTES there and back TRIPS times on each.
--   lua5.4 pingpong_luv.lua PAIRS BYTES TRIPS      prints: ops=... wall=... cpu=...
local uv = require "luv"

local pairs_n, bytes, trips = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local message = ("x"):rep(bytes)

local function pipe(fd)
  local p = uv.new_pipe(false)
  assert(p:open(fd))
  return p
end

-- Calls on_message whenever a whole message has come in.
local function messages(p, on_message)
  local got = 0
  p:read_start(function(err, chunk)
    if not chunk then error(err or "closed too early") end
    got = got + #chunk
    if got == bytes then
      got = 0
      on_message()
    end
  end)
end

local function ping(p)
  local left = trips
  messages(p, function()
    left = left - 1
    if left == 0 then p:close() else p:write(message) end
  end)
  p:write(message)
end

local function pong(p)
  local left = trips
  messages(p, function()
    left = left - 1
    if left == 0 then p:write(message, function() p:close() end) else p:write(message) end
  end)
end

for _ = 1, pairs_n do
  local fds = assert(uv.socketpair("stream", 0, { nonblock = true }, { nonblock = true }))
  pong(pipe(fds[2]))
  ping(pipe(fds[1]))
end
local wall, cpu = uv.hrtime(), os.clock()
uv.run()
print(("ops=%d wall=%.6f cpu=%.6f"):format(pairs_n * trips, (uv.hrtime() - wall) * 1e-9, os.clock() - cpu))
