-- multishot, ours: the echo server of echo_uring.lua with multishot accept, and multishot recv from one pool.
--   lua5.4 multishot_uring.lua CONNECTIONS BYTES      prints: pid=... port=...
local uring = require "uring"

local connections, bytes = tonumber(arg[1]), tonumber(arg[2])
local copy = arg[3] == "copy"
local send = uring.op.send

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

-- Goes on where a send failed or left something over.
local function send_rest(fd, data, len, sent, err)
  assert(sent, err)
  while sent < len do
    sent = sent + assert(send(fd, copy and data:sub(sent + 1) or data:slice(sent + 1)))
  end
end

local function serve(fd, pool)
  local op <close> = uring.prepare("recv", fd, pool, { multishot = true, copy = copy, reuse = not copy })
  for n, data in op:results() do
    local sent, err = send(fd, data)
    if sent ~= n then send_rest(fd, data, n, sent, err) end
  end
  assert(uring.op.close(fd))
end

uring.run(function()
  local server <close> = assert(uring.listen "127.0.0.1:0")
  local pool <close> = uring.pool { buffers = 256, size = bytes }
  io.write(("pid=%d port=%s\n"):format(pid(), server:address():match "%d+$"))
  io.flush()
  local accept <close> = uring.prepare("accept", server:fd(), { multishot = true })
  local accepted, tasks = 0, {}
  for fd in accept:results() do
    accepted = accepted + 1
    tasks[accepted] = uring.spawn(serve, fd, pool)
    if accepted == connections then break end
  end
  for _, task in ipairs(tasks) do task:await() end
end)
