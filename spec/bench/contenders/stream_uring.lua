-- bundle, ours: receives one stream of small messages and counts the bytes.
--   lua5.4 stream_uring.lua BYTES HOW      prints: pid=... port=...
-- HOW: "bundle": one operation that fills many buffers of a pool at once; "multishot": one that fills one at a time;
-- "plain": one recv for each.
local uring = require "uring"

local bytes, how = tonumber(arg[1]), arg[2]

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

local receive = {}

function receive.plain(fd)
  local recv, buf, total = uring.op.recv, uring.buffer(bytes), 0
  while true do
    local n = assert(recv(fd, buf))
    if n == 0 then return total end
    total = total + n
  end
end

local function from_pool(fd, options)
  local pool <close> = uring.pool { buffers = 1024, size = bytes }
  local op <close> = uring.prepare("recv", fd, pool, options)
  local total = 0
  for n in op:results() do total = total + n end
  return total
end

function receive.multishot(fd)
  return from_pool(fd, { multishot = true, reuse = true })
end

function receive.bundle(fd)
  return from_pool(fd, { multishot = true, bundle = true, copy = true })
end

uring.run(function()
  local server <close> = assert(uring.listen "127.0.0.1:0")
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  local fd = assert(uring.op.accept(server:fd(), 0, { peer = false }))
  assert(receive[how](fd) > 0)
  uring.op.close(fd)
end)
