--- Reading directories, one or a tree of them.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local options = require "uring.options"

local errnos, failure = core.errno, core.failure
local refuse, zero_byte = arguments.refuse, arguments.zero_byte

local M = {}

local STATS, FOLLOW, NOFOLLOW = 1, 2, 4 -- c/directory.c
local AHEAD = 8 -- directories read ahead, unless told otherwise
local PERMISSIONS = 4095

--
-- One directory
--

-- The next part of what is read of it, or nil.
local Reading = {}
Reading.__index = Reading

function Reading.__close(self)
  if self.job then
    self.job:close()
    self.job = nil
  end
end

local function next_entry(self)
  while self.at >= #self.names do
    local job = self.job
    if not job then
      return nil
    end
    local names, types, _, more = job:await()
    if not names then
      self.job = nil
      error(types, 0)
    end
    self.names, self.types, self.job, self.at = names, types, more, 0
  end
  self.at = self.at + 1
  return self.names[self.at], self.types[self.at]
end

--- Iterates over a directory, in no order: `for name, type in fs.readdir(path)`.
-- "." and ".." are left out; `type` is as `lstat` has it.  Some hundred entries are
-- read at a time, in a thread.
-- @string path
-- @return an iterator, with what the loop closes; nil, "path: reason", errno
-- @raise in the loop, should the directory fail to be read on
function M.readdir(path)
  if refuse("readdir", 1, path) then
    return zero_byte(path)
  end
  local names, types, _, more = core.read_directory(path):await()
  if not names then
    return nil, types, _
  end
  local reading = setmetatable({ names = names, types = types, job = more, at = 0 }, Reading)
  return next_entry, reading, nil, reading
end

--- The names in a directory, sorted.
-- @string path
-- @treturn table a list of strings; nil, "path: reason", errno
-- @treturn table name → type
function M.list(path)
  if refuse("list", 1, path) then
    return zero_byte(path)
  end
  local list, kinds = {}, {}
  local job = core.read_directory(path)
  while job do
    local names, types, errno, more = job:await()
    if not names then
      return nil, types, errno
    end
    table.move(names, 1, #names, #list + 1, list)
    for i, name in ipairs(names) do
      kinds[name] = types[i]
    end
    job = more
  end
  table.sort(list)
  return list, kinds
end

--
-- A tree
--

local Walk = {}
Walk.__index = Walk

local function close_frame(frame)
  if frame.job then
    frame.job:close()
  end
  for _, job in pairs(frame.ahead) do
    job:close()
  end
end

function Walk.__close(self)
  for i = #self.frames, 1, -1 do
    close_frame(self.frames[i])
  end
  self.frames = {}
end

local function join(directory, name)
  return directory:sub(-1) == "/" and directory .. name or directory .. "/" .. name
end

local function identity(device, number)
  return device .. ":" .. number
end

-- Begins to read directories that come next in a frame, as many as may be.
local function read_ahead(self, frame)
  local at = math.max(frame.looked, frame.at)
  while self.ahead < self.limit and at < #frame.names do
    at = at + 1
    if frame.types[at] == "directory" then
      frame.ahead[at] = core.read_directory(join(frame.path, frame.names[at]), self.flags)
      self.ahead = self.ahead + 1
    end
  end
  frame.looked = at
end

-- Is a directory inside of itself?
local function is_cycle(self, id)
  for _, frame in ipairs(self.frames) do
    if frame.id == id then
      return true
    end
  end
end

local function by_name(names, types, stats)
  local order = {}
  for i = 1, #names do
    order[i] = i
  end
  table.sort(order, function(a, b) return names[a] < names[b] end)
  local sorted = { {}, {}, stats and {} }
  for to, from in ipairs(order) do
    sorted[1][to], sorted[2][to] = names[from], types[from]
    if stats then
      sorted[3][to] = stats[from]
    end
  end
  return sorted[1], sorted[2], sorted[3]
end

-- All that is left of a directory, in order.
local function read_all(names, types, stats, job)
  while job do
    local more_names, more_types, more_stats, more = job:await()
    if not more_names then
      return nil, more_types, more_stats
    end
    local n = #names
    table.move(more_names, 1, #more_names, n + 1, names)
    table.move(more_types, 1, #more_types, n + 1, types)
    if stats then
      table.move(more_stats, 1, #more_stats, n + 1, stats)
    end
    job = more
  end
  return by_name(names, types, stats)
end

-- Waits for a part of a directory; the frame has it then.  True; or nil,
-- message, errno.
local function take_part(self, frame, job)
  frame.job = job -- to be closed with the walk, should this not come to its end
  local names, types, stats, more, device, number = job:await()
  frame.job = nil
  if not names then
    return nil, types, stats
  end
  local id = identity(device, number)
  if not frame.id and is_cycle(self, id) then
    if more then
      more:close()
    end
    return failure(frame.path, errnos.ELOOP)
  end
  if self.sort then
    frame.job, more = more, nil
    names, types, stats = read_all(names, types, stats, frame.job)
    frame.job = nil
    if not names then
      return nil, types, stats
    end
  end
  frame.id, frame.names, frame.types, frame.stats, frame.job = id, names, types, stats, more
  frame.at, frame.looked = 0, 0
  read_ahead(self, frame)
  return true
end

local function new_frame(path)
  return {
    path = path;
    id = nil;         -- of the directory, once it is open
    names = {}, types = {}, stats = nil;
    at = 0;           -- the entry that was last given out
    looked = 0;       -- up to here directories are read ahead
    ahead = {};       -- index of an entry → the job that reads it
    job = nil;        -- for the part of the directory that follows
  }
end

-- Goes into the directory that was given out last.
local function enter(self, frame)
  local job = frame.ahead[frame.at]
  local path = join(frame.path, frame.names[frame.at])
  if job then
    frame.ahead[frame.at] = nil
    self.ahead = self.ahead - 1
  else
    job = core.read_directory(path, self.flags)
  end
  local inner = new_frame(path)
  inner.job = job
  self.frames[#self.frames + 1] = inner
  local ok, message, errno = take_part(self, inner, job)
  if not ok then
    self.frames[#self.frames] = nil
    return path, "error", message, errno
  end
end

local function info_of(frame, at)
  local info = frame.stats and frame.stats[at] or nil
  if info then
    info.mode = info.mode & PERMISSIONS
  end
  return info
end

-- Does not go into the directory that is given out next.
local function leave_out(self, frame)
  local job = frame.ahead[frame.at]
  self.enter = false
  if job then
    job:close()
    frame.ahead[frame.at] = nil
    self.ahead = self.ahead - 1
  end
end

-- The next entry of the frame on the top; false: there is none; or an error of
-- the directory.
local function step(self, frame)
  if frame.at >= #frame.names and frame.job then
    local ok, message, errno = take_part(self, frame, frame.job)
    if not ok then
      frame.names, frame.at = {}, 0
      return frame.path, "error", message, errno
    end
  end
  if frame.at >= #frame.names then
    self.frames[#self.frames] = nil
    return false
  end
  frame.at = frame.at + 1
  local path, kind = join(frame.path, frame.names[frame.at]), frame.types[frame.at]
  self.enter = kind == "directory"
  if self.enter and self.descend and not self.descend(path) then
    leave_out(self, frame)
  end
  return path, kind, info_of(frame, frame.at)
end

local function next_path(self)
  if self.enter then -- what was given out last is a directory
    self.enter = false
    local path, kind, message, errno = enter(self, self.frames[#self.frames])
    if path then
      return path, kind, message, errno
    end
  end
  while true do
    local frame = self.frames[#self.frames]
    if not frame then
      return nil
    end
    local path, kind, info, errno = step(self, frame)
    if path then
      return path, kind, info, errno
    end
  end
end

local walk_options = {
  sort = "boolean", stat = "boolean", follow = "boolean", limit = "integer", descend = "function";
}

--- Iterates over a tree: `for path, type, info, errno in fs.walk "src"`.
--
-- A directory comes before what is in it.  Directories that come next are read
-- ahead, in threads; what is held at a time is what is left of the parts of the
-- directories from the top down to here, and of those read ahead.  Links are not
-- followed.  One that cannot be read, or is gone by then, is told of, with the
-- type "error", and the walk goes on.
-- @string path of a directory, which is not given out itself
-- @tab[opt] o `sort`: in each directory by name, so that the order is always the
--   same; `stat`: `info` is what `lstat` tells, nil for what is gone; `follow`:
--   links are what they point to, and a directory inside of itself is an error;
--   `descend(path)`: is the directory gone into?; `limit`: so many directories read
--   ahead, by default 8
-- @return an iterator, with what the loop closes: path, type and with `stat` a
--   table; of an error its message and errno.  nil, "path: reason", errno
function M.walk(path, o)
  if refuse("walk", 1, path) then
    return zero_byte(path)
  end
  o = options.check("walk", o or {}, walk_options)
  if o.limit and o.limit < 0 then
    error("option 'limit' of walk: it is negative", 2)
  end
  local self = setmetatable({
    sort = o.sort;
    descend = o.descend;
    flags = ((o.stat or o.follow) and STATS or 0) | (o.follow and FOLLOW or NOFOLLOW);
    limit = o.limit or AHEAD;
    ahead = 0;     -- jobs that read ahead
    frames = {};   -- from the top down to here
    enter = false; -- the entry given out last is a directory to be gone into
  }, Walk)
  local top = new_frame(path)
  self.frames[1] = top
  local ok, message, errno = take_part(self, top, core.read_directory(path, self.flags & ~NOFOLLOW))
  if not ok then
    return nil, message, errno
  end
  return next_path, self, nil, self
end

return M
