-- The ring by hand: prepare, submit and await, what status() and stats() tell,
-- a cancellation that won and one that lost against success.
--
--   make run SCRIPT=examples/ring.lua
--
-- Nothing here is in a task: outside of tasks, await turns the loop until the
-- operation is done.  Inside one, the same await suspends the task instead.

local uring = require "uring"

if #arg > 0 then
  io.stderr:write("usage: ring.lua\n")
  os.exit(2)
end

local function show(what, ...)
  local results = table.pack(...)
  for i = 1, results.n do
    results[i] = tostring(results[i])
  end
  print(("  %-34s %s"):format(what, table.concat(results, ", ")))
end

-- A ring of our own.  <close> cancels what is still in flight and waits until
-- the kernel has let go of all our memory.
local ring <close> = assert(uring.ring { entries = 8 })

-- The two ends of a pipe.  Operations take descriptors: reading:fd().
local from, to = assert(uring.pipe())
local reading <close> = from
local writing <close> = to

print "1. An operation is prepared, submitted and awaited"
do
  local buffer = uring.buffer(16)

  -- prepare fills an SQE (an entry of the submission queue) and lends the
  -- buffer.  The kernel does not know of it yet.
  local read = ring:prepare("read", reading:fd(), buffer)
  show("after prepare, status is", read:status())
  show("and the buffer is", buffer:status())

  -- Until the operation is done, nobody but the kernel gets at the bytes.
  show("buffer:get() raises", select(2, pcall(buffer.get, buffer)))

  -- submit hands over everything prepared, in one system call.
  show("submit handed over", ring:submit())
  show("now status is", read:status())

  -- A string can be lent, too: for writing out it stays where it is.
  ring:prepare("write", writing:fd(), "hello"):await()

  -- await returns the result, an integer ≥ 0, or nil, message, errno.
  local n = assert(read:await())
  show("await returned", n)
  show("now status is", read:status())
  show("the buffer is", buffer:status(), buffer:get(1, n))
end

print "2. Many at once: one submit, and they run side by side"
do
  local began = uring.now()
  local timeouts = {}
  for i = 1, 5 do
    timeouts[i] = ring:prepare("timeout", i / 100) -- seconds
  end
  show("submit handed over", ring:submit())
  for i = 5, 1, -1 do -- in whatever order: a result waits until it is asked for
    assert(timeouts[i]:await())
  end
  show("10, 20 ... 50 ms took, in seconds", ("%.2f"):format(uring.now() - began))

  -- What is awaited need not be submitted first: await does that, too.
  show("a failure is nil, message, errno", ring:prepare("read", 12345, uring.buffer(1)):await())
end

print "3. A cancellation that won"
do
  local buffer = uring.buffer(16)
  local read = ring:prepare("read", reading:fd(), buffer)
  ring:submit()

  -- Nobody writes, so the read waits.  cancel is a request, and returns at
  -- once; the buffer stays with the kernel until the operation itself ends.
  local cancellation = read:cancel()
  show("after cancel, status is", read:status())
  show("and the buffer is still", buffer:status())

  -- Awaiting the cancellation tells how the race went.
  show("the cancellation says", cancellation:await())
  show("the read itself says", read:await())
  show("the buffer is", buffer:status())
end

print "4. A cancellation that lost: success wins"
do
  local buffer = uring.buffer(16)
  ring:prepare("write", writing:fd(), "in time"):await()

  -- The bytes are there when the read is submitted: the kernel is done with
  -- it before anybody has looked, and the cancellation comes too late.
  local read = ring:prepare("read", reading:fd(), buffer)
  ring:submit()
  local cancellation = read:cancel()
  show("after cancel, status is", read:status())

  -- "completed", and then the results: they are delivered, never lost.
  local outcome, n = cancellation:await()
  show("the cancellation says", outcome, n)
  show("and the data is there", buffer:get(1, n))
end

print "5. What the ring has counted"
do
  local stats = ring:stats()
  for _, name in ipairs { "prepared", "completed", "cancelled", "enters", "in_flight", "bytes_lent" } do
    show(name, stats[name])
  end
end
