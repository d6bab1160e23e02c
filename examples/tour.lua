-- A guided tour: files, tasks, sockets, cancellation, lent buffers, the ring.
-- It says what it shows as it goes; read it side by side with its output.
--
--   make run

local uring = require "uring"

if #arg > 0 then
  io.stderr:write("usage: tour.lua\n")
  os.exit(2)
end

local chapter = 0
local function title(text)
  chapter = chapter + 1
  print(("\n%d. %s"):format(chapter, text))
end

local function say(...)
  print("   " .. string.format(...))
end

-- A file is read and written like one of Lua's own.  Each of these calls suspends
-- the task that makes it, and no other.
local function files()
  title "Files have the manners of Lua's io"
  local path = os.tmpname()
  local _remove <close> = setmetatable({}, { __close = function() os.remove(path) end })

  do
    local file <close> = assert(uring.open(path, "w"))
    for i = 1, 1000 do
      assert(file:write("line ", i, "\n"))
    end
  end

  local file <close> = assert(uring.open(path))
  local lines, last = 0, nil
  for line in file:lines() do
    lines, last = lines + 1, line
  end
  say("%s: %d lines, and the last is %q", path, lines, last)
  file:seek("set", 7)
  say("from byte 8 on there are %q and, up to the end of that line, %q", file:read(4, "l"))

  local _, message, errno = uring.open "/no/such/file"
  say("what fails returns nil, %q, %d (%s)", message, errno, uring.errno[errno])
end

-- A task is a coroutine that the loop resumes.  Tasks that a function spawns
-- never outlive the uring.run they are in.
local function tasks()
  title "Tasks wait side by side"
  local began = uring.now()
  local sleepers = {}
  for i = 1, 1000 do
    sleepers[i] = uring.spawn(function(n)
      uring.sleep(0.1)
      return n
    end, i)
  end
  local sum = 0
  for _, task in ipairs(sleepers) do
    sum = sum + task:await() -- what its function returned
  end
  say("1000 tasks slept 0.1 s each, in %.2f s altogether; their numbers add up to %d", uring.now() - began, sum)

  local failing = uring.spawn(function() error "out of luck" end)
  local _, err = pcall(failing.await, failing)
  say("a task that fails raises where it is awaited: %s", err)
end

-- One function for a connection, in straight-line code.
local function shout(connection)
  local stream <close> = connection
  for line in stream:lines() do
    stream:write(line:upper(), "\n")
  end
end

local function client(address, n)
  local stream <close> = assert(uring.connect(address))
  for i = 1, 10 do
    stream:write(("hello %d from client %d\n"):format(i, n))
    assert(stream:read "l" == ("HELLO %d FROM CLIENT %d"):format(i, n))
  end
  return 10
end

local function sockets()
  title "A server and its clients, in one script"
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local server = uring.spawn(function()
    for connection in listener:clients() do
      uring.spawn(shout, connection)
    end
  end)
  local address = listener:address()
  say("listening on %s", address)

  local before = uring.stats()
  local clients, answers = {}, 0
  for n = 1, 50 do
    clients[n] = uring.spawn(client, address, n)
  end
  for _, task in ipairs(clients) do
    answers = answers + task:await()
  end
  local after = uring.stats()
  say("50 clients got %d answers, in capitals", answers)
  say("that took %d operations, and the ring was entered %d times for them",
    after.completed - before.completed, after.enters - before.enters)

  listener:close() -- ends the loop over clients()
  server:await()
end

-- Cancelling a task cancels the operation that it waits for.  When the task
-- unwinds the operation has ended, so nothing that it lent is still out.
local function cancellation()
  title "Cancelling loses nothing"
  local near, far = assert(uring.socketpair())
  local here <close> = near
  local there <close> = far

  local reader = uring.spawn(function()
    local _said <close> = setmetatable({}, {
      __close = function(_, err) say("the reader unwinds: its error is %s", err) end;
    })
    return here:read "l"
  end)
  uring.sleep(0.01)
  say("the reader is %s", reader:status())
  reader:cancel()
  local ok, err = pcall(reader.await, reader)
  say("awaiting it raises: %s", not ok and err == uring.cancelled and "uring.cancelled" or err)

  there:write "sent a little later\n"
  say("the next reader gets %q", here:read "l")
end

-- The kernel reads and writes our memory while an operation is in flight.  A
-- Buffer knows that, and lets nobody else near until it has come back.
local function lending()
  title "A buffer lent to the kernel"
  local from, to = assert(uring.pipe())
  local reading <close> = from
  local writing <close> = to
  local buffer = uring.buffer(64)

  local read = uring.prepare("read", reading:fd(), buffer:slice(1, 32))
  say("buffer:get() raises: %s", select(2, pcall(buffer.get, buffer)))
  buffer:set(33, "free")
  say("the half that is not lent can be used: %q", buffer:get(33, 36))

  writing:write "back again"
  local n = assert(read:await())
  say("with the result it is %s: %q", buffer:status(), buffer:get(1, n))
end

-- Underneath it all: prepare fills an entry of the submission queue, submit
-- hands over what is prepared, await waits for the completion.
local function by_hand()
  title "The ring by hand"
  local ring <close> = assert(uring.ring { entries = 8 })
  local from, to = assert(uring.pipe())
  local reading <close> = from
  local writing <close> = to

  local read = ring:prepare("read", reading:fd(), uring.buffer(64))
  say("prepared:  the read is %q", read:status())
  say("submitted: %d operation, and now it is %q", ring:submit(), read:status())
  local waiting = read:cancel()
  say("cancelled: nobody wrote, so that was %q", (waiting:await()))

  local buffer = uring.buffer(64)
  writing:write "success wins"
  read = ring:prepare("read", reading:fd(), buffer)
  ring:submit()
  local outcome, n = read:cancel():await()
  say("too late:  this one was %q with %d bytes, %q", outcome, n, buffer:get(1, n))
end

local features = uring.features()
print(("uring on Linux %s, a ring of %d entries, %s"):format(features.kernel, features.entries, _VERSION))

uring.run(function()
  files()
  tasks()
  sockets()
  cancellation()
  lending()
  by_hand()
end)

local stats = uring.stats()
title "Nothing is left behind"
say("%d operations were prepared and %d have completed", stats.prepared, stats.completed)
say("in flight: %d, bytes lent: %d, tasks: %d", stats.in_flight, stats.bytes_lent, stats.tasks)
