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
-- tail -F: the last lines of files, and then whatever is appended to them, until
-- it is interrupted.  A file that is cut is followed from where it ends, one
-- that is replaced (logs are, when they rotate) is opened anew.
--
--   make run SCRIPT=examples/tail.lua ARGS="-n 5 /var/log/syslog /var/log/auth.log"
--
-- Each file has a task of its own, which looks every tenth of a second; none of
-- them holds up another.

local uring = require "uring"
local io = uring.io

local LINES = 10
local EVERY = 0.1         -- seconds
local CHUNK = 64 * 1024   -- bytes a read

local function usage()
  io.stderr:write "usage: tail.lua [-n LINES] FILE...\n"
  os.exit(2)
end

local wanted, first = LINES, 1
if arg[1] == "-n" then
  wanted, first = math.tointeger(tonumber(arg[2])), 3
end
if not arg[first] or arg[first]:find "^%-." or not wanted or wanted < 0 then
  usage()
end

-- Where the last `count` lines begin: backwards from the end, chunk by chunk.
local function start_of_last(file, count)
  local size = file:stat().size
  local at, newlines = size, 0
  while at > 0 do
    local from = math.max(0, at - CHUNK)
    local chunk = assert(file:pread(at - from, from))
    for i = #chunk, 1, -1 do
      if chunk:byte(i) == 10 and from + i < size then -- the last line's own newline counts for nothing
        newlines = newlines + 1
        if newlines == count then
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
  return 0
end

-- Several files say whose lines follow, as tail does.
local several = #arg > first
local speaking

local function show(path, text)
  if several and speaking ~= path then
    io.write(speaking and "\n" or "", "==> ", path, " <==\n")
    speaking = path
  end
  io.write(text)
  io.stdout:flush()
end

-- Shows what there is, from where the file stands.
local function show_rest(path, file)
  for text in file:lines(CHUNK) do
    show(path, text)
  end
end

-- Whether the path is another file by now; not if there is none at the moment.
local function replaced(path, was)
  local other = io.open(path)
  if not other then
    return false
  end
  local is = other:stat()
  other:close()
  return is.ino ~= was.ino or is.dev_minor ~= was.dev_minor or is.dev_major ~= was.dev_major
end

local function follow(path)
  local file = assert(io.open(path))
  file:seek("set", wanted > 0 and start_of_last(file, wanted) or file:stat().size)
  for _ in uring.every(EVERY) do
    show_rest(path, file)
    local stat = file:stat()
    if stat.size < file:seek() then
      file:seek "end"
    elseif replaced(path, stat) then
      show_rest(path, file)
      file:close()
      file = assert(io.open(path))
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
local ok, message = pcall(uring.run, function()
  uring.map({ table.unpack(arg, first) }, follow, { limit = #arg })
end)
if not ok then
  io.stderr:write("tail.lua: ", tostring(message):match "^[^\n]*", "\n")
  os.exit(1)
end
