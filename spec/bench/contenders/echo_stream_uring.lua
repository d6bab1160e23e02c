-- echo, ours through the stream API, as most programs will write it. Serves CONNECTIONS clients, then ends.
--   lua5.4 echo_stream_uring.lua CONNECTIONS BYTES      prints: pid=... port=...
local uring = require "uring"

local connections, bytes = tonumber(arg[1]), tonumber(arg[2])

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

local function serve(conn)
  while true do
    local chunk = conn:read_some(bytes)
    if not chunk then break end
    local ok, err = conn:write(chunk)
    if not ok then error(err) end
  end
  conn:close()
end

uring.run(function()
  local server <close> = assert(uring.listen "127.0.0.1:0")
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  for _ = 1, connections do uring.spawn(serve, (assert(server:accept()))) end
end)
