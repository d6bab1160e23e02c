-- pingpong, ours: PAIRS unix socketpairs with both ends here, a message of BYTES there and back TRIPS times on each;
-- raw operations, a task and one Buffer for each end.
--   lua5.4 pingpong_uring.lua PAIRS BYTES TRIPS      prints: ops=... wall=... cpu=...
local uring = require "uring"

local pairs_n, bytes, trips = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local recv, send = uring.op.recv, uring.op.send

-- Goes on where 'op' (send or recv) failed or stopped short of a whole message.
local function rest(op, fd, buf, n, err)
  local moved = assert(n, err)
  while moved < bytes do
    n = assert(op(fd, buf:slice(moved + 1, bytes)))
    assert(n > 0, "closed too early")
    moved = moved + n
  end
end

local function ping(fd, buf)
  for _ = 1, trips do
    local n, err = send(fd, buf)
    if n ~= bytes then rest(send, fd, buf, n, err) end
    n, err = recv(fd, buf)
    if n ~= bytes then rest(recv, fd, buf, n, err) end
  end
end

local function pong(fd, buf)
  for _ = 1, trips do
    local n, err = recv(fd, buf)
    if n ~= bytes then rest(recv, fd, buf, n, err) end
    n, err = send(fd, buf)
    if n ~= bytes then rest(send, fd, buf, n, err) end
  end
end

uring.run(function()
  local ends, tasks = {}, {}
  for i = 1, pairs_n do
    local a, b = assert(uring.socketpair())
    ends[i] = { a = a, b = b, a_buf = uring.buffer(bytes), b_buf = uring.buffer(bytes) }
  end
  local wall, cpu = uring.now(), os.clock()
  for _, e in ipairs(ends) do
    tasks[#tasks + 1] = uring.spawn(ping, e.a:fd(), e.a_buf)
    tasks[#tasks + 1] = uring.spawn(pong, e.b:fd(), e.b_buf)
  end
  for _, task in ipairs(tasks) do task:await() end
  print(("ops=%d wall=%.6f cpu=%.6f"):format(pairs_n * trips, uring.now() - wall, os.clock() - cpu))
  for _, e in ipairs(ends) do
    e.a:close()
    e.b:close()
  end
end)
