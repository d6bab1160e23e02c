-- idle, ours: an echo server whose CONNECTIONS clients are mostly silent, a task for each.
--   lua5.4 idle_uring.lua CONNECTIONS HOW      prints: pid=... port=...
-- HOW: "pool": all receive from one pool; "buffer": each has a Buffer of 4 KB.
local uring = require "uring"

local connections, how = tonumber(arg[1]), arg[2]
local SIZE = 4096

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

local serve = {}

function serve.pool(fd, pool)
  local op <close> = uring.prepare("recv", fd, pool, { multishot = true, reuse = true })
  for _, data in op:results() do assert(uring.op.send(fd, data)) end
  uring.op.close(fd)
end

function serve.buffer(fd)
  local buf = uring.buffer(SIZE)
  while true do
    local n = assert(uring.op.recv(fd, buf))
    if n == 0 then break end
    assert(uring.op.send(fd, buf, n))
  end
  uring.op.close(fd)
end

uring.run(function()
  local server <close> = assert(uring.listen { "127.0.0.1:0", backlog = 4096 })
  local pool = how == "pool" and uring.pool { buffers = 256, size = SIZE } or nil
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  for _ = 1, connections do
    uring.spawn(serve[how], (assert(uring.op.accept(server:fd(), 0, { peer = false }))), pool)
  end
end)
