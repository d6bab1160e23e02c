--- Copying files and trees.
--
-- What there is to do is a stack of directories and of ranges of files, what is
-- being done a queue of jobs, a few at a time (see c/copy.h).  The job that
-- was begun first is awaited first; what it found goes onto the stack.  So a
-- tree is gone through in depth, and little of it is known at any time.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local options = require "uring.options"

local errnos = core.errno
local refuse, zero_byte = arguments.refuse, arguments.zero_byte

local M = {}

local EXCLUSIVE, PRESERVE, FOLLOW = 1, 2, 4 -- c/copy_file.h
local FILES = 64        -- of a directory that one job copies
local IN_FLIGHT = 8     -- jobs, unless told otherwise
local ATTEMPTS = 10     -- of one job that alone finds no descriptor, and then
local FIRST_PAUSE = 0.001 -- seconds before the first is repeated, doubled each time

local known = {
  recursive = "boolean", overwrite = "boolean", preserve = "boolean", follow = "boolean",
  limit = "integer", on_error = "function";
}

local Copy = {}
Copy.__index = Copy

-- Jobs change what others see: they are stopped and waited for, whatever happens.
-- Of the first the result may have been taken already.
function Copy.__close(self)
  for i = self.first, self.last do
    self.running[i].job:stop()
  end
  core.shield(function()
    for i = self.first, self.last do
      local job = self.running[i].job
      local ok, part = pcall(job.await, job)
      if ok and type(part) == "userdata" then
        part:close()
      end
    end
  end)
  for part in pairs(self.parts) do
    part:close()
  end
end

-- A part holds two descriptors as long as something is to be done with it.
local function hold(self, part)
  self.parts[part] = (self.parts[part] or 0) + 1
end

local function release(self, part)
  self.parts[part] = self.parts[part] - 1
  if self.parts[part] == 0 then
    self.parts[part] = nil
    part:close()
  end
end

local begin = {}  -- kind of item → function(self, item) → job
local ended = {}  -- kind of item → function(self, item, what its job came to …)

local function push(self, item)
  self.waiting[#self.waiting + 1] = item
end

-- Out of descriptors, or of threads, which those that run may give back.
local function is_shortage(errno)
  return errno == errnos.EMFILE or errno == errnos.ENFILE or errno == errnos.EAGAIN
end

-- An item has failed: true if it is to be tried again.
local function is_worth_another_try(self, item, errno)
  if not is_shortage(errno) then
    return false
  elseif self.first <= self.last then
    self.limit = math.max(1, self.limit // 2)
    return true
  end
  item.attempts = (item.attempts or 0) + 1
  if item.attempts > ATTEMPTS then
    return false
  end
  core.sleep(FIRST_PAUSE * 2 ^ (item.attempts - 1))
  return true
end

local function fail(self, from, to, errno)
  if errno == errnos.ECANCELED then
    return
  end
  local _, message = core.failure(from .. " -> " .. to, errno)
  if self.on_error then
    self.on_error(message, errno, from, to)
  elseif not self.message then
    self.message, self.errno = message, errno
  end
end

function begin.file(self, item)
  return core.copy_file(item.from, item.to, self.flags)
end

function ended.file(self, item, bytes, errno)
  if bytes then
    self.files, self.bytes = self.files + 1, self.bytes + bytes
  elseif errno == errnos.EISDIR and self.recursive then
    item.kind = "directory"
    push(self, item)
  elseif is_worth_another_try(self, item, errno) then
    push(self, item)
  else
    fail(self, item.from, item.to, errno)
  end
end

function begin.directory(self, item)
  return core.copy_directory(item.from, item.to, self.flags, self.device, self.number)
end

-- Files `first` to `last` of a part; where there are many, in halves that are
-- copied side by side.
local function push_range(self, item, part, first, last)
  for at = first, last, FILES do
    hold(self, part)
    push(self, {
      kind = "range", from = item.from, to = item.to, part = part;
      first = at, last = math.min(at + FILES - 1, last), attempts = item.attempts;
    })
  end
end

-- A job has copied `next - first` files of a range and has come to its end, or
-- has had enough, or failed at the next one.
local function range_ended(self, item, part, next, last, bytes, errno)
  self.bytes = self.bytes + bytes
  if errno and is_worth_another_try(self, item, errno) then
    push_range(self, item, part, next + 1, last)
  elseif errno then
    local name = part:name(next + 1)
    fail(self, item.from .. "/" .. name, item.to .. "/" .. name, errno)
    push_range(self, item, part, next + 2, last)
  elseif next < last then
    local middle = (next + 1 + last) // 2
    push_range(self, item, part, next + 1, middle)
    push_range(self, item, part, middle + 1, last)
  end
end

local function part_ended(self, item, part, next, bytes, errno)
  local last = math.min(FILES, part:count())
  hold(self, part)
  self.files = self.files + next
  push_range(self, item, part, last + 1, part:count())
  range_ended(self, item, part, next, last, bytes, errno)
  for _, name in ipairs(part:directories()) do
    push(self, { kind = "directory", from = item.from .. "/" .. name, to = item.to .. "/" .. name })
  end
  if part:is_last() then
    release(self, part)
  else
    push(self, { kind = "next", from = item.from, to = item.to, part = part })
  end
end

function ended.directory(self, item, part, ...)
  if not part then
    if is_worth_another_try(self, item, (...)) then
      table.insert(self.waiting, 1, item) -- what is begun has descriptors, and goes first
    else
      fail(self, item.from, item.to, (...))
    end
    return
  end
  if not self.device then
    self.device, self.number = part:identity()
  end
  self.directories = self.directories + 1
  if part:unfinished() then
    self.unfinished[#self.unfinished + 1] = item
  end
  part_ended(self, item, part, ...)
end

begin["next"] = function(_, item)
  return item.part:next_part()
end

ended["next"] = function(self, item, part, ...)
  if part then
    part_ended(self, item, part, ...)
  elseif is_worth_another_try(self, item, (...)) then
    push(self, item)
    return
  else
    fail(self, item.from, item.to, (...))
  end
  release(self, item.part)
end

function begin.range(_, item)
  return item.part:copy(item.first, item.last)
end

function ended.range(self, item, next, bytes, errno)
  self.files = self.files + next - item.first + 1
  range_ended(self, item, item.part, next, item.last, bytes, errno)
  release(self, item.part)
end

function begin.finish(self, item)
  return core.finish_directory(item.from, item.to, self.flags)
end

function ended.finish(self, item, done, errno)
  if not done then
    fail(self, item.from, item.to, errno)
  end
end

-- Begins what there is to do, as much as may be in flight.
local function fill(self)
  while #self.waiting > 0 and self.last - self.first + 1 < self.limit do
    local item = table.remove(self.waiting)
    item.job = false -- its place is there before the job is
    self.running[self.last + 1] = item
    item.job = begin[item.kind](self, item)
    self.last = self.last + 1
  end
end

local function drive(self)
  while not self.message do
    fill(self)
    local item = self.running[self.first]
    if not item then
      return
    end
    local results = table.pack(item.job:await())
    self.running[self.first] = nil
    self.first = self.first + 1
    item.job = nil
    ended[item.kind](self, item, table.unpack(results, 1, results.n))
  end
end

local function new(from, to, o)
  return setmetatable({
    recursive = o.recursive;
    on_error = o.on_error;
    limit = o.limit or IN_FLIGHT;
    flags = (o.overwrite == false and EXCLUSIVE or 0)
      | (o.preserve and PRESERVE or 0)
      | ((o.follow or o.follow == nil and not o.recursive) and FOLLOW or 0);
    waiting = { { kind = "file", from = from, to = to } };
    running = {}, first = 1, last = 0; -- items with their jobs
    parts = {};                        -- part of a directory → items that need it
    device = nil, number = nil;        -- of the copy of the top directory
    unfinished = {};                   -- directories to see to at the end
    files = 0, directories = 0, bytes = 0;
    message = nil, errno = nil;        -- of the first failure
  }, Copy)
end

--- Copies a file, or with `recursive` a tree.
-- @string from
-- @string to the path of the copy itself; a directory that is there is added to
-- @tab[opt] o `recursive`; `overwrite = false`: what is there stays, EEXIST;
--   `preserve`: permissions in full and times, else permissions are subject to
--   the umask and times are those of the copy; `follow`: what a link points to,
--   by default of `from` itself without `recursive` (links inside of a tree are
--   copied as links); `limit`: so many jobs in flight, by default 8;
--   `on_error(message, errno, from, to)`: is told of what cannot be copied, and the
--   rest is
-- @treturn int how many files were copied; nil, "from -> to: reason", errno
-- @treturn int bytes of their contents
-- @treturn int directories
function M.copy(from, to, o)
  if refuse("copy", 1, from) or refuse("copy", 2, to) then
    return zero_byte(from .. " -> " .. to)
  end
  o = options.check("copy", o or {}, known)
  if o.limit and o.limit < 1 then
    error("option 'limit' of copy: less than one job cannot copy anything", 2)
  end
  local copy <close> = new(from, to, o)
  drive(copy)
  for i = #copy.unfinished, 1, -1 do
    local item = copy.unfinished[i]
    item.kind = "finish"
    if copy.message then
      break
    end
    push(copy, item)
    drive(copy)
  end
  if copy.message then
    return nil, copy.message, copy.errno
  end
  return copy.files, copy.bytes, copy.directories
end

return M
