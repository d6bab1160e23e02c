-- A TCP echo server: a task a connection, in straight-line code.
--
--   make run SCRIPT=examples/echo_server.lua                     # 127.0.0.1:7000
--   make run SCRIPT=examples/echo_server.lua ARGS="[::1]:7001"
--   make run SCRIPT=examples/echo_server.lua ARGS="127.0.0.1:0"  # any free port
--
-- It says where it listens and serves until it is interrupted.  What goes wrong
-- with one connection ends that connection and is said on standard error.

local uring = require "uring"

local CHUNK = 16384 -- bytes received at a time

local address = arg[1] or "127.0.0.1:7000"
if #arg > 1 or not address:find ":" then
  io.stderr:write("usage: echo_server.lua [HOST:PORT | unix:PATH]\n")
  os.exit(2)
end

local function complain(...)
  io.stderr:write("echo_server.lua: ", table.concat({ ... }, ": "), "\n")
end

-- Sends back what comes, until the other end has no more to say.  True; or
-- nil, message.
local function echo(connection)
  local buffer = uring.buffer(CHUNK)
  while true do
    local n, message = connection:recv(buffer)
    if not n then
      return nil, message
    elseif n == 0 then
      return true
    end
    local ok
    ok, message = connection:write(buffer:slice(1, n)) -- all of it; nothing is copied
    if not ok then
      return nil, message
    end
  end
end

-- The variable with <close> closes the connection, however this ends.
local function serve(accepted)
  local connection <close> = accepted
  local peer = connection:peer() or "somebody who has left"
  local ok, message = echo(connection)
  if not ok then
    complain(peer, message)
  end
end

uring.run(function()
  local listener <close>, message = uring.listen { address, nodelay = true }
  if not listener then
    complain(message)
    os.exit(1)
  end
  print("listening on " .. listener:address())
  io.stdout:flush()

  while true do
    local connection, why = listener:accept()
    if connection then
      uring.spawn(serve, connection)
    else -- out of descriptors, say: those in use will be free again
      complain("accept", why)
      uring.sleep(0.1)
    end
  end
end)
