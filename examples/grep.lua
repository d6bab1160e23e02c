-- Looks for a pattern in all files of a tree, many of them at a time.
--
--   make run SCRIPT=examples/grep.lua ARGS="PATTERN DIRECTORY"
--
-- PATTERN is one of Lua's.  Lines are printed as grep -rn prints them, files in
-- the order of their names; files with a zero byte in their first 4 KB are left
-- out.  The exit status is 0 where something was found, 1 where nothing was, 2
-- where something could not be read.

local uring = require "uring"
local fs = uring.fs

local AT_ONCE = 16

local pattern, top = arg[1], arg[2]
if #arg ~= 2 or not pcall(string.find, "", pattern) then
  io.stderr:write("usage: grep.lua PATTERN DIRECTORY\n")
  os.exit(2)
end

local found, failed = false, false

local function complain(message)
  failed = true
  io.stderr:write("grep.lua: ", message, "\n")
end

-- The lines of a file that match, as one string.
local function grep(path)
  local text, message = fs.readfile(path)
  if not text then
    return nil, message
  end
  local lines, number = {}, 0
  if text:sub(1, 4096):find "\0" or not text:find(pattern) then
    return ""
  end
  for line in text:gmatch "[^\n]*\n?" do
    number = number + 1
    line = line:gsub("\n$", "")
    if line:find(pattern) then
      lines[#lines + 1] = ("%s:%d:%s\n"):format(path, number, line)
    end
  end
  return table.concat(lines)
end

local function main()
  local queue, first, last = {}, 1, 0

  -- Waits for the file that was begun first, so that the order is that of the walk.
  local function print_first()
    local path, task = table.unpack(queue[first])
    queue[first] = nil
    first = first + 1
    local lines, message = task:await()
    if not lines then
      return complain(message or path)
    end
    found = found or lines ~= ""
    io.stdout:write(lines)
  end

  local walk, state, _, closing = fs.walk(top, { sort = true })
  if not walk then
    return complain(state)
  end
  for path, type, message in walk, state, nil, closing do
    if type == "error" then
      complain(message)
    elseif type == "file" then
      if last - first + 1 == AT_ONCE then
        print_first()
      end
      last = last + 1
      queue[last] = { path, uring.spawn(grep, path) }
    end
  end
  while first <= last do
    print_first()
  end
end

uring.run(main)
os.exit(failed and 2 or found and 0 or 1, true)
