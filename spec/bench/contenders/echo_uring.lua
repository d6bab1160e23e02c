-- echo, ours: a TCP echo server in raw operations, a task and one Buffer for each connection. Serves CONNECTIONS
-- clients, then ends.
--   lua5.4 echo_uring.lua CONNECTIONS BYTES      prints: pid=... port=...
local uring = require "uring"

local connections, bytes = tonumber(arg[1]), tonumber(arg[2])
local recv, send = uring.op.recv, uring.op.send

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

-- Goes on where a send failed or left something over.
local function send_rest(fd, buf, len, sent, err)
  assert(sent, err)
  while sent < len do
    sent = sent + assert(send(fd, buf:slice(sent + 1, len)))
  end
end

local function serve(fd)
  local buf = uring.buffer(bytes)
  while true do
    local n, err = recv(fd, buf)
    if n == 0 then break end
    if not n then error(err) end
    local sent
    sent, err = send(fd, buf, n)
    if sent ~= n then send_rest(fd, buf, n, sent, err) end
  end
  assert(uring.op.close(fd))
end

uring.run(function()
  local server <close> = assert(uring.listen "127.0.0.1:0")
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  for _ = 1, connections do
    uring.spawn(serve, (assert(uring.op.accept(server:fd(), 0, { peer = false }))))
  end
end)
