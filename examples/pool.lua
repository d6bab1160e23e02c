-- Many connections, few buffers: an echo server whose clients are mostly silent, and whose receive buffers are a pool.
--
--   make run SCRIPT=examples/pool.lua ARGS="500 4"
--
-- Every connection has one multishot recv: the kernel takes a buffer of the pool when data comes, and the server gives
-- it back when it has been sent. So 200 connections do with 8 buffers, and one that says nothing holds none.

local uring = require "uring"

local clients = math.tointeger(tonumber(arg[1] or 200))
local buffers = math.tointeger(tonumber(arg[2] or 8))
if #arg > 2 or not clients or not buffers or clients < 1 or buffers < 1 then
  io.stderr:write("usage: pool.lua [clients [buffers]]\n")
  os.exit(2)
end

-- Sends all of a Buffer. A slice holds the pool's buffer as the Buffer itself does: it is closed, and not left to the
-- collector.
local function send_all(fd, data)
  local sent = 0
  while sent < #data do
    local rest <close> = data:slice(sent + 1)
    sent = sent + assert(uring.op.send(fd, rest))
  end
end

local function serve(fd, pool)
  -- `reuse`: the same Buffer each time; what it held goes back to the pool when the next data is asked for
  local receiving <close> = uring.prepare("recv", fd, pool, { multishot = true, reuse = true })
  for _, data in receiving:results() do
    send_all(fd, data)
  end
  uring.op.close(fd)
end

-- A client: speaks, hears itself, and is silent for a while.
local function talk(address, name)
  local stream <close> = assert(uring.connect(address))
  for i = 1, 3 do
    local line = ("%s says %d"):format(name, i)
    stream:write(line, "\n")
    assert(stream:read "l" == line)
    uring.sleep(math.random() / 100)
  end
end

local pool <close> = assert(uring.pool { buffers = buffers, size = 512 })

uring.run(function()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local accepting = uring.prepare("accept", listener:fd(), { multishot = true }) -- one operation for all clients
  local server = uring.spawn(function()
    for fd in accepting:results() do
      uring.spawn(serve, fd, pool)
    end
  end)

  local talking = {}
  for i = 1, clients do
    talking[i] = uring.spawn(talk, listener:address(), "client " .. i)
  end
  for _, task in ipairs(talking) do
    task:await()
  end
  accepting:cancel() -- ends the results, and with them the server
  server:await()
end)

local stats = pool:stats()
print(("%d clients, %d buffers of %d bytes; %d times one had to wait for a buffer, and nobody lost a byte"):format(
  clients, stats.buffers, stats.size, stats.starved))
