-- The end of a file, and what is added to it from then on: tail -F.
--
--   make run SCRIPT=examples/tail.lua ARGS="FILE [LINES]"
--
-- Nothing is polled: the program sleeps until the kernel tells of a change.  A
-- file that is cut off is read from its beginning; one that is replaced, as logs
-- are, is followed under its name.  Ctrl-C ends it, with status 0.

local uring = require "uring"
local fs, op, const = uring.fs, uring.op, uring.const

local CHUNK = 65536

local path, lines = arg[1], tonumber(arg[2] or 10)
if #arg < 1 or #arg > 2 or math.type(lines) ~= "integer" or lines < 0 then
  io.stderr:write("usage: tail.lua FILE [LINES]\n")
  os.exit(2)
end

-- Where the last n lines begin, by reading backwards.
local function last_lines(fd, size, n)
  local buffer <close> = uring.buffer(CHUNK)
  local at, seen = size, 0
  while at > 0 and n > 0 do
    local from = math.max(0, at - CHUNK)
    local got = assert(op.read(fd, buffer, at - from, from))
    local text = buffer:get(1, got)
    for i = got, 1, -1 do
      if text:byte(i) == 10 and from + i < size then -- the one that ends the file ends no line before it
        seen = seen + 1
        if seen == n then
          return from + i
        end
      end
    end
    at = from
  end
  return at
end

-- Prints what is in the file from a position on; where it ends then.
local function print_from(fd, at)
  local buffer <close> = uring.buffer(CHUNK)
  while true do
    local n = assert(op.read(fd, buffer, CHUNK, at))
    if n == 0 then
      io.stdout:flush()
      return at
    end
    io.stdout:write(buffer:get(1, n))
    at = at + n
  end
end

local function open()
  return op.openat(nil, path, const.O_RDONLY | const.O_CLOEXEC)
end

local function size_of(fd)
  local _, info = assert(op.statx(fd, "", const.AT_EMPTY_PATH))
  return info.size, info.ino
end

local function follow()
  local directory = path:match "^(.*)/[^/]*$" or "."
  local name = path:match "[^/]*$"
  local fd = assert(open())
  local watch <close> = assert(fs.watch(directory == "" and "/" or directory))
  local size, ino = size_of(fd)
  local at = print_from(fd, last_lines(fd, size, lines))
  for event in watch:each() do
    if event.name == name or event.kind == "overflow" then
      local info = fs.stat(path)
      if info and info.ino ~= ino then -- another file has the name now
        print_from(fd, at)
        op.close(fd)
        fd, at = assert(open()), 0
      end
      size, ino = size_of(fd)
      at = print_from(fd, size < at and 0 or at)
    end
  end
end

uring.run(function()
  if not fs.exists(path) then
    io.stderr:write("tail.lua: ", path, ": No such file or directory\n")
    os.exit(1, true)
  end
  local ended <close> = uring.signals { "INT", "TERM" }
  uring.race { follow, function() ended:wait() end }
end)
