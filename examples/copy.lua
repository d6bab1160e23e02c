-- Copies a tree of files, many at a time.
--
--   make run SCRIPT=examples/copy.lua ARGS="SRC DST"
--
-- SRC is a directory or a file; DST is what the copy will be called and must
-- not exist yet.  Directories, files, symbolic links and permission bits (less
-- the umask, and every directory can be written by its owner) are copied; owners
-- and times are not, and whatever else lives in a tree (sockets, devices ...) is
-- named and left out.  A file that cannot be copied is named on standard error,
-- the others go on, and the exit status is 1.

local uring = require "uring"
local op, const = uring.op, uring.const

local AT_ONCE = 64        -- files in flight
local CHUNK = 128 * 1024  -- bytes a read

-- Opcodes that have no name of their own here go through `raw`, by number.
local MKDIRAT, SYMLINKAT = 37, 38

if #arg ~= 2 or arg[1] == "" or arg[2] == "" then
  io.stderr:write("usage: copy.lua SRC DST\n")
  os.exit(2)
end
local source = arg[1]:gsub("(.)/+$", "%1")
local destination = arg[2]

-- "openat: No such file or directory" to "No such file or directory"
local function reason(message)
  return (message:gsub("^%w+: ", "", 1))
end

-- On a terminal the last line of standard error is the progress: each of its
-- lines is written over the one before.
local is_terminal = uring.isatty(2)
local over = is_terminal and "\r\27[K" or ""

local failures = 0
local function complain(path, message)
  failures = failures + 1
  io.stderr:write(over, "copy.lua: ", path, ": ", reason(message), "\n")
end

--- What is to be copied ------------------------------------------------------

-- Everything below a directory, as a list of { path below it, target of the
-- link }, each directory before what is in it.
--
-- io_uring cannot list a directory, nor can Lua: find can.  It runs before
-- anything is in flight, since waiting for it holds up the loop.  The shell
-- sees the name as one quoted word, whatever is in it, and find sees a path,
-- never an option; names come back with a zero byte after each, the one byte that
-- no path has in it.
local function list(directory)
  local path = directory:find "^/" and directory or "./" .. directory
  local word = "'" .. path:gsub("'", "'\\''") .. "/'"
  local pipe = assert(io.popen("find " .. word .. " -mindepth 1 -printf '%P\\0%l\\0'"))
  local entries = {}
  for name, target in pipe:read("a"):gmatch "(%Z+)%z(%Z*)%z" do
    entries[#entries + 1] = { name, target }
  end
  if not pipe:close() then -- it has said why
    failures = failures + 1
  end
  return entries
end

--- Copying one thing: true; or nil, message ----------------------------------

-- The kernel reads a path from where it is told to; raw only takes a Buffer for
-- that, with the zero at the end that C wants.
local function c_string(s)
  return uring.buffer(s .. "\0")
end

local function make_directory(path, mode)
  -- writable for us, or nothing could be copied into it
  return op.raw { opcode = MKDIRAT, fd = const.AT_FDCWD, addr = c_string(path), len = mode | 448 } -- 0700
end

local function make_link(path, target)
  return op.raw { opcode = SYMLINKAT, fd = const.AT_FDCWD, addr = c_string(target), addr2 = c_string(path), len = 0 }
end

-- A write may take less than it is given, so the rest is written again.
local function write_all(fd, buffer, size, offset)
  local written = 0
  while written < size do
    local n, message = op.write(fd, buffer:slice(written + 1, size), nil, offset + written)
    if not n then
      return nil, message
    end
    written = written + n
  end
  return true
end

local function copy_bytes(from, to, buffer, progress)
  local offset = 0
  while true do
    local n, message = op.read(from, buffer, nil, offset)
    if not n then
      return nil, message
    elseif n == 0 then
      return true
    end
    local ok
    ok, message = write_all(to, buffer, n, offset)
    if not ok then
      return nil, message
    end
    offset = offset + n
    progress.bytes = progress.bytes + n
  end
end

local function copy_file(path, copy, mode, buffer, progress)
  local from, message = op.openat(nil, path, const.O_RDONLY | const.O_CLOEXEC)
  if not from then
    return nil, message
  end
  local to
  to, message = op.openat(nil, copy, const.O_WRONLY | const.O_CREAT | const.O_EXCL | const.O_CLOEXEC, mode)
  local ok
  if to then
    ok, message = copy_bytes(from, to, buffer, progress)
    local closed, why = op.close(to) -- some file systems tell of a full disk only now
    if ok and not closed then
      ok, message = nil, why
    end
  end
  op.close(from)
  return ok, message
end

--- Many at a time ------------------------------------------------------------

-- Calls work(item, buffer) for every item of a list, AT_ONCE at a time: that
-- many tasks share the list, each with a buffer of its own.  Returns when all
-- is done.
local function each(items, work)
  local next_item = 0
  local tasks = {}
  for i = 1, math.min(AT_ONCE, #items) do
    tasks[i] = uring.spawn(function()
      local buffer = uring.buffer(CHUNK)
      while next_item < #items do
        next_item = next_item + 1
        work(items[next_item], buffer)
      end
    end)
  end
  for _, task in ipairs(tasks) do
    task:await()
  end
end

local function show(progress)
  while not progress.finished do
    io.stderr:write(over, ("%d of %d, %.1f MB "):format(progress.done, progress.total, progress.bytes / 1e6))
    uring.sleep(0.1)
  end
  io.stderr:write(over)
end

local function copy_tree(entries, progress)
  -- What each is, and how it may be used.
  each(entries, function(entry)
    local path = source .. "/" .. entry[1]
    local ok, stat = op.statx(nil, path, const.AT_SYMLINK_NOFOLLOW)
    if ok then
      entry.type, entry.mode = stat.type, stat.mode & 511 -- 0777
    else
      complain(path, stat)
    end
  end)

  -- Directories first and in order, so that there is always one to copy into.
  local rest = {}
  for _, entry in ipairs(entries) do
    if entry.type == "directory" then
      local path = destination .. "/" .. entry[1]
      local ok, message = make_directory(path, entry.mode)
      if not ok then
        complain(path, message)
      end
      progress.done = progress.done + 1
    elseif entry.type then
      rest[#rest + 1] = entry
    end
  end

  each(rest, function(entry, buffer)
    local path, copy = source .. "/" .. entry[1], destination .. "/" .. entry[1]
    local ok, message
    if entry.type == "file" then
      ok, message = copy_file(path, copy, entry.mode, buffer, progress)
    elseif entry.type == "link" then
      ok, message = make_link(copy, entry[2])
    else
      message = "is a " .. entry.type .. ", left out"
    end
    if not ok then
      complain(path, message)
    end
    progress.done = progress.done + 1
  end)
end

local function main()
  local progress = { done = 0, total = 1, bytes = 0, finished = false }
  local ok, stat = op.statx(nil, source)
  if not ok then
    return complain(source, stat)
  end
  local mode = stat.mode & 511 -- 0777
  local message
  if stat.type == "file" then
    ok, message = copy_file(source, destination, mode, uring.buffer(CHUNK), progress)
    if not ok then
      complain(source .. " to " .. destination, message)
    end
    return
  elseif stat.type ~= "directory" then
    return complain(source, "is neither a file nor a directory")
  end

  local entries = list(source) -- before there is a DST, which may be inside it
  ok, message = make_directory(destination, mode)
  if not ok then
    return complain(destination, message)
  end
  progress.total = #entries
  if is_terminal then
    uring.spawn(show, progress)
  end
  copy_tree(entries, progress)
  progress.finished = true
end

uring.run(main)
os.exit(failures == 0 and 0 or 1, true)
