-- A ring inside a loop that is not uring's: libuv's, by way of luv, runs, and
-- watches the ring along with its own timers and sockets.
--
--   make run SCRIPT=examples/embed_luv.lua
--
-- luv has to be installed (on Debian and Ubuntu: apt-get install lua-luv).
-- uring's tasks read files and serve an echo socket; the clients are tasks, and
-- one of them is libuv's own.  All the while a timer of libuv's ticks.

local uring = require "uring"

if #arg > 0 then
  io.stderr:write("usage: embed_luv.lua\n")
  os.exit(2)
end

local found, uv = pcall(require, "luv")
if not found then
  io.stderr:write("embed_luv.lua: luv is not installed\n")
  os.exit(1)
end

--- Embedding -----------------------------------------------------------------

-- A foreign loop needs two things of a ring: a descriptor that is readable when
-- there is something to do, and when to look though it be silent.  step() does
-- what there is to do, runs the tasks that are ready, and returns the latter.
local poll = uv.new_poll(uring.fd())
local timer = uv.new_timer()

local function turn()
  local seconds = uring.step(0) -- 0: the waiting is libuv's
  if seconds then
    timer:start(math.ceil(seconds * 1000), 0, turn)
  else
    timer:stop() -- the descriptor will tell
  end
end

-- Runs fn as a task, and libuv's loop until it has ended; its results.
local function run_in_luv(fn)
  local task = uring.spawn(function()
    local results = table.pack(pcall(fn))
    uv.stop() -- a program that has more for libuv to do would go on
    return table.unpack(results, 1, results.n)
  end)
  poll:start("r", turn)
  timer:start(0, 0, turn) -- what is spawned or prepared outside of a step needs one
  uv.run()
  local results = table.pack(task:await())
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

--- What it does --------------------------------------------------------------

local LINES, CLIENTS = 20, 4

local function echo(accepted)
  local connection <close> = accepted
  for line in connection:lines "L" do
    assert(connection:write(line))
  end
end

-- A client that is a task.  The number of lines that came back.
local function client(address, name)
  local connection <close> = assert(uring.connect(address))
  local same = 0
  for i = 1, LINES do
    local line = ("%s says %d"):format(name, i)
    assert(connection:write(line, "\n"))
    same = same + (connection:read "l" == line and 1 or 0)
    uring.sleep(0.002)
  end
  return same
end

-- A client in libuv's manner, on the same loop; it counts into `counts`.
local function uv_client(address, counts)
  local socket = uv.new_tcp()
  local function say()
    socket:write(("libuv says %d\n"):format(counts.uv + 1))
  end
  socket:connect("127.0.0.1", tonumber(address:match "%d+$"), function(err)
    assert(not err, err)
    say()
    socket:read_start(function(read_err, data)
      assert(not read_err and data, read_err)
      counts.uv = counts.uv + select(2, data:gsub("\n", ""))
      if counts.uv < LINES then
        say()
      else
        socket:close() -- the echo task reads the end of it
      end
    end)
  end)
end

-- How many bytes there are in files.
local function read_files(paths)
  local bytes = 0
  for _, path in ipairs(paths) do
    local file <close> = assert(uring.open(path, "rb"))
    bytes = bytes + #assert(file:read "a")
  end
  return bytes
end

local counts = { ticks = 0, uv = 0 }

uv.new_timer():start(1, 1, function()
  counts.ticks = counts.ticks + 1
end)

run_in_luv(function()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local address = listener:address()
  local reader = uring.spawn(read_files, { arg[0], "/proc/self/status" })
  local clients, served = {}, {}
  for i = 1, CLIENTS do
    clients[i] = uring.spawn(client, address, "task " .. i)
  end
  uv_client(address, counts)
  for i = 1, CLIENTS + 1 do
    served[i] = uring.spawn(echo, assert(listener:accept()))
  end
  uring.await(table.unpack(served)) -- every client has left

  local same = 0
  for _, task in ipairs(clients) do
    same = same + task:await()
  end
  print(("uring's tasks read %d bytes from files"):format(reader:await()))
  print(("%d of %d lines came back to clients that are tasks"):format(same, CLIENTS * LINES))
end)

print(("%d of %d lines came back to libuv's client"):format(counts.uv, LINES))
print(("libuv's timer ticked %d times meanwhile"):format(counts.ticks))
