-- keys: one client that connects and waits.
--   lua5.4 idle_clients.lua PORT MILLISECONDS
local uring = require "uring"

uring.run(function()
  local _ <close> = assert(uring.connect("127.0.0.1:" .. arg[1]))
  uring.sleep(tonumber(arg[2]) / 1000)
  print "ops=1 wall=1 cpu=0"
end)
