-- idle, ours through the stream API: an echo server whose CONNECTIONS clients are mostly silent, a task for each.
--   lua5.4 idle_stream_uring.lua CONNECTIONS      prints: pid=... port=...
local uring = require "uring"

local connections = tonumber(arg[1])

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

local function echo(conn)
  while true do
    local chunk = conn:read_some()
    if not chunk then break end
    assert(conn:write(chunk))
  end
end

uring.run(function()
  local server <close> = assert(uring.listen { "127.0.0.1:0", backlog = 4096 })
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  server:serve(echo, { max = connections })
end)
