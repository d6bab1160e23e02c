-- grep -rn: the lines of files, and of the files below directories, that a Lua
-- pattern is found in, many files at a time.  Files with zero bytes in them are
-- left out.  The exit status is 0 if there was such a line, 1 if not, 2 if
-- something could not be read, which is named on standard error.
--
--   make run SCRIPT=examples/grep.lua ARGS="'uring%.run' examples spec"
--
-- One task walks the trees and hands out paths; the others read.  The channel
-- between them is short, so the walk does not run ahead by more than that.

local uring = require "uring"
local io = uring.io

local AT_ONCE = 32 -- files

local pattern = arg[1]
if not pattern or pattern:find "^%-%-" then
  io.stderr:write "usage: grep.lua PATTERN [FILE | DIRECTORY]...\n"
  os.exit(2)
end
if not pcall(string.find, "", pattern) then
  io.stderr:write("grep.lua: ", pattern, ": malformed pattern\n")
  os.exit(2)
end
local places = #arg > 1 and { table.unpack(arg, 2) } or { "." }

local found, failed = false, false

local function complain(message)
  failed = true
  io.stderr:write("grep.lua: ", message, "\n")
end

-- The lines of a file, with their numbers; nil, message.
local function matches(path)
  local file <close>, message = io.open(path)
  if not file then
    return nil, message
  end
  local lines, number = {}, 0
  for line in file:lines() do
    number = number + 1
    if line:find("\0", 1, true) then
      return {}
    elseif line:find(pattern) then
      lines[#lines + 1] = ("%s:%d:%s\n"):format(path, number, line)
    end
  end
  return lines
end

-- All of a file's lines are written at once, so that those of another do not come
-- in between.
local function search(path)
  local ok, lines, message = pcall(matches, path)
  if not ok or not lines then
    complain(ok and message or path .. ": " .. tostring(lines):gsub("^%S+:%d+: ", "", 1))
  elseif lines[1] then
    found = true
    io.write(table.concat(lines))
  end
end

local function search_all(paths)
  for path in paths:values() do
    search(path)
  end
end

-- Hands out what is to be searched.
local function walk(place, paths)
  local stat, message = uring.fs.stat(place)
  if not stat then
    return complain(message)
  elseif stat.type ~= "directory" then
    return paths:send(place)
  end
  for path, type, why in uring.fs.walk(place, { sort = true }) do
    if type == "file" then
      paths:send(path)
    elseif type == "error" then
      complain(why)
    end
  end
end

uring.run(function()
  local paths = uring.sync.channel(AT_ONCE)
  for _ = 1, AT_ONCE do
    uring.spawn(search_all, paths)
  end
  for _, place in ipairs(places) do
    walk(place, paths)
  end
  paths:close()
end)

os.exit(failed and 2 or found and 0 or 1, true)
