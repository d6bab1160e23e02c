-- idle: the clients. Connects COUNT times to a server on loopback and hears one byte back on each connection, so that
-- all of them are being served; then nobody says anything.
--   lua5.4 idle_load.lua PORT SERVER_PID COUNT
-- Prints ops=COUNT, bytes= that the server's memory grew by, and how long a byte to everybody and back takes.
package.path = arg[0]:match "^(.*)/[^/]*$" .. "/../?.lua;" .. package.path
local resident = require "support.resident"
local uring = require "uring"

local port, server, count = arg[1], arg[2], tonumber(arg[3])

local function everybody_hears(fds)
  local buf = uring.buffer(1)
  for _, fd in ipairs(fds) do assert(uring.op.send(fd, "x") == 1) end
  for _, fd in ipairs(fds) do assert(uring.op.recv(fd, buf) == 1) end
end

uring.run(function()
  local before, fds, streams = resident(server), {}, {}
  for i = 1, count do
    streams[i] = assert(uring.connect("127.0.0.1:" .. port))
    fds[i] = streams[i]:fd()
  end
  everybody_hears(fds)
  local bytes = resident(server) - before
  local wall = uring.now()
  everybody_hears(fds)
  wall = uring.now() - wall
  print(("ops=%d wall=%.6f cpu=%.6f bytes=%d"):format(count, wall, wall, bytes))
  for _, stream in ipairs(streams) do stream:close() end
end)
