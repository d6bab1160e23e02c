-- A TCP proxy: what comes is passed on, both ways, through pipes of the kernel
-- where there is much of it.
--
--   make run SCRIPT=examples/proxy.lua ARGS="127.0.0.1:8080 127.0.0.1:80"
--   make run SCRIPT=examples/proxy.lua ARGS="127.0.0.1:8080 example.org:http 50"
--
-- Addresses are those to listen at and to pass on to; the number is how many
-- connections there may be at a time (1000 unless told otherwise): the others wait
-- to be accepted.  A direction that ends is shut down on the other side, and the
-- opposite one goes on.  One that breaks ends both.

local uring = require "uring"

local CONNECT = 5 -- seconds to reach the target

local here, target, most = arg[1], arg[2], math.tointeger(tonumber(arg[3] or 1000))
if #arg < 2 or #arg > 3 or not (here:find ":" and target:find ":") or not most or most < 1 then
  io.stderr:write("usage: proxy.lua HOST:PORT TARGET:PORT [CONNECTIONS]\n")
  os.exit(2)
end

local function complain(message)
  io.stderr:write("proxy.lua: ", tostring(message), "\n")
end

-- One direction.
local function pass(from, to)
  local n, message = uring.transfer(from, to, { shutdown = true })
  if not n then
    error(message, 0) -- and the other direction is cancelled
  end
end

local function relay(client)
  local server <close>, message = uring.connect { target, timeout = CONNECT, nodelay = true }
  if not server then
    error(message, 0) -- the client's connection is closed
  end
  uring.all {
    function() pass(client, server) end,
    function() pass(server, client) end,
  }
end

uring.run(function()
  local listener <close>, message = uring.listen { here, nodelay = true }
  if not listener then
    complain(message)
    os.exit(1)
  end
  print("listening on " .. listener:address())
  io.stdout:flush()
  listener:serve(relay, { max = most, on_error = complain })
end)
