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

local ok, message = pcall(uring.run, function()
  uring.map({ table.unpack(arg, first) }, follow, { limit = #arg })
end)
if not ok then
  io.stderr:write("tail.lua: ", tostring(message):match "^[^\n]*", "\n")
  os.exit(1)
end
