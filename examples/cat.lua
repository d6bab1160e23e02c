-- cat: files to standard output, read through the ring.  "-", or no argument at
-- all, is standard input.  A file that cannot be read is named on standard
-- error, the others follow, and the exit status is 1.
--
--   make run SCRIPT=examples/cat.lua ARGS="README.md - LICENSE"
--
-- Two buffers take turns: while one is being written, the next bytes are
-- already being read into the other.

local uring = require "uring"
local op = uring.op
local O_RDONLY = uring.const.O_RDONLY

local STDIN, STDOUT = 0, 1
local CHUNK = 128 * 1024

if arg[1] and arg[1]:find "^%-." then
  io.stderr:write("usage: cat.lua [FILE | -]...\n")
  os.exit(2)
end

-- "read: Is a directory" to "Is a directory"
local function reason(message)
  return (message:gsub("^%w+: ", "", 1))
end

-- A write may take less than it is given, so the rest is written again.
local function write_all(fd, buffer, size)
  local written = 0
  while written < size do
    local n, message = op.write(fd, buffer:slice(written + 1, size))
    if not n then -- nobody left to write to: the end of the program
      io.stderr:write("cat.lua: standard output: ", reason(message), "\n")
      os.exit(1)
    end
    written = written + n
  end
end

-- True; or nil, message.
local function copy_out(fd)
  local filling, full = uring.buffer(CHUNK), uring.buffer(CHUNK)
  local reading = uring.prepare("read", fd, filling)
  while true do
    local n, message = reading:await()
    if not n then
      return nil, message
    elseif n == 0 then
      return true
    end
    filling, full = full, filling
    reading = uring.prepare("read", fd, filling)
    write_all(STDOUT, full, n)
  end
end

local function cat(name)
  if name == "-" then
    return copy_out(STDIN)
  end
  local fd, message = op.openat(nil, name, O_RDONLY)
  if not fd then
    return nil, message
  end
  local ok
  ok, message = copy_out(fd)
  op.close(fd)
  return ok, message
end

local names = #arg > 0 and arg or { "-" }

local failed = uring.run(function()
  local failures = 0
  for _, name in ipairs(names) do
    local ok, message = cat(name)
    if not ok then
      io.stderr:write("cat.lua: ", name, ": ", reason(message), "\n")
      failures = failures + 1
    end
  end
  return failures > 0
end)

os.exit(failed and 1 or 0, true)
