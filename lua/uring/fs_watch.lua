--- Being told of what happens to files: inotify(7), read through the ring.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local options = require "uring.options"
local fs_path = require "uring.fs_path"
local fs_walk = require "uring.fs_walk"

local errnos, path_call, failure = core.errno, core.path, core.failure
local refuse, zero_byte = arguments.refuse, arguments.zero_byte

local M = {}

local BUFFER = 65536
local HEADER = "=i4I4I4I4" -- wd, mask, cookie, length of the name

-- Names of events, and inotify's bits.
local kinds = {
  { "overflow", 0x4000 }, { "unmounted", 0x2000 }, { "created", 0x100 }, { "deleted", 0x200 },
  { "moved_from", 0x40 }, { "moved_to", 0x80 }, { "modified", 0x2 }, { "attributes", 0x4 },
  { "written", 0x8 }, { "closed", 0x10 }, { "opened", 0x20 }, { "accessed", 0x1 },
  { "self_deleted", 0x400 }, { "self_moved", 0x800 },
}
local bit_of = {}
for _, kind in ipairs(kinds) do
  bit_of[kind[1]] = kind[2]
end

local IS_DIRECTORY, IGNORED, ONLY_DIRECTORY = 0x40000000, 0x8000, 0x01000000
local DEFAULT = { "created", "deleted", "moved_from", "moved_to", "modified", "written", "attributes",
  "self_deleted", "self_moved" }
local FOR_RECURSION = bit_of.created | bit_of.moved_to | bit_of.moved_from

local methods = {}
local Watch = { __index = methods, __name = "uring.watch" }

local function kind_of(mask)
  for _, kind in ipairs(kinds) do
    if mask & kind[2] ~= 0 then
      return kind[1]
    end
  end
end

local function add(self, path, only_directory)
  if not self.fd then -- closed meanwhile
    return failure(path, errnos.ECANCELED)
  end
  local mask = self.mask | (self.recursive and FOR_RECURSION or 0) | (only_directory and ONLY_DIRECTORY or 0)
  local wd, message, errno = path_call.watch(path, self.fd, mask)
  if not wd then
    return nil, message, errno
  end
  self.paths[wd] = path
  return true
end

-- Watches the directories of a tree.  What is found in one that is new was made
-- before it was watched: an event of it is `missed`.
local function add_tree(self, path, missed)
  local ok, message, errno = add(self, path, true)
  if not ok then
    return nil, message, errno
  end
  local next_entry, walk, _, closing = fs_walk.walk(path)
  local _closed <close> = closing
  if not next_entry then
    return nil, walk, _
  end
  for found, kind in next_entry, walk do
    if kind == "directory" then
      ok, message, errno = add(self, found, true)
      if not ok and errno ~= errnos.ENOENT and errno ~= errnos.ENOTDIR then
        return nil, message, errno
      end
    end
    if missed and kind ~= "error" then
      missed(found, kind)
    end
  end
  return true
end

local function put(self, event)
  self.last = self.last + 1
  self.events[self.last] = event
end

-- A directory has come into a tree that is watched.
local function directory_came(self, path)
  local ok, message, errno = add_tree(self, path, function(found, kind)
    if self.mask & bit_of.created ~= 0 then
      put(self, { kind = "created", path = found, directory = kind == "directory" })
    end
  end)
  if not ok and self.fd and errno ~= errnos.ENOENT and errno ~= errnos.ENOTDIR then
    put(self, { kind = "error", path = path, message = message, errno = errno })
  end
end

local function forget_tree(self, path)
  for wd, watched in pairs(self.paths) do
    if watched == path or watched:sub(1, #path + 1) == path .. "/" then
      self.paths[wd] = nil
      path_call.unwatch(self.fd, wd)
    end
  end
end

-- Takes in one event of inotify's.
local function take(self, wd, mask, cookie, name)
  local directory = self.paths[wd]
  local kind = kind_of(mask)
  if mask & IGNORED ~= 0 then
    self.paths[wd] = nil
    return
  elseif kind ~= "overflow" and not directory then
    return -- of one that is not watched any more
  end
  local path = directory and name ~= "" and directory .. "/" .. name or directory
  if mask & (self.mask | bit_of.overflow | bit_of.unmounted) ~= 0 then
    put(self, {
      kind = kind, path = path, name = name ~= "" and name or nil;
      directory = mask & IS_DIRECTORY ~= 0, cookie = cookie ~= 0 and cookie or nil;
    })
  end
  if self.recursive and mask & IS_DIRECTORY ~= 0 then
    if kind == "moved_from" then
      forget_tree(self, path)
    elseif kind == "created" or kind == "moved_to" then
      directory_came(self, path)
    end
  end
end

local function parse(self, data)
  local at = 1
  while at <= #data and self.fd do
    local wd, mask, cookie, length, from = HEADER:unpack(data, at)
    take(self, wd, mask, cookie, data:sub(from, from + length - 1):match "^[^\0]*")
    at = from + length
  end
end

-- Reads on, one task at a time: what has come is for whoever waits, in its order.
-- Nobody is cancelled between reading it and having it in hand.
local function read_on(self)
  local _turn <close> = self.turn:lock()
  if self.first <= self.last or not self.fd or not next(self.paths) then
    return true -- who had the turn before has changed that
  end
  local buffer <close> = core.buffer(BUFFER)
  local operation = core.on_default.prepare("read", self.fd, buffer, BUFFER)
  self.operation = operation
  local n, _, errno = operation:await()
  self.operation = nil
  if not self.fd then
    return true
  elseif not n then
    return failure("watch", errno)
  end
  core.shield(parse, self, buffer:get(1, n))
  return true
end

local function next_event(self)
  while self.first > self.last do
    if not self.fd then
      return nil
    elseif not next(self.paths) then
      return nil -- there is nothing left to watch
    end
    local ok, message, errno = read_on(self)
    if not ok then
      return nil, message, errno
    elseif not self.fd and self.first > self.last then
      return nil, "closed", errnos.ECANCELED
    end
  end
  local event = self.events[self.first]
  self.events[self.first] = nil
  self.first = self.first + 1
  return event
end

--- Waits for something to happen.
-- @treturn table `kind`, a name as in `events`, or "overflow": events were lost, or
--   "unmounted", or with `recursive` "error", a directory that cannot be watched, with
--   `message` and `errno`; `path`; `name` in a directory that is watched;
--   `directory`: it is one; `cookie`, which a "moved_from" and its "moved_to" have in
--   common.  nil when nothing is left to watch; nil, "closed", ECANCELED; nil,
--   message, errno
function methods:next()
  return next_event(self)
end

--- Iterates over what happens, until it is closed or nothing is left to watch.
function methods:each()
  return next_event, self
end

--- Watches one more path.
-- @string path
-- @treturn boolean true; nil, "path: reason", errno
function methods:add(path)
  if refuse("add", 1, path) then
    return zero_byte(path)
  elseif not self.fd then
    error("attempt to use a closed watch", 2)
  end
  if self.recursive then
    local info, message, errno = fs_path.stat(path)
    if not info then
      return nil, message, errno
    elseif info.type == "directory" then
      return add_tree(self, path)
    end
  end
  return add(self, path)
end

--- Ends it.  Who waits gets nil, "closed".  Idempotent.
function methods:close()
  if not self.fd then
    return
  end
  self.fd = nil
  local operation = self.operation
  if operation then
    core.shield(function() operation:cancel():await() end)
  end
  local _closed <close> = self.owner
end

Watch.__close = methods.close

function Watch.__tostring(self)
  return ("watch (%s)"):format(self.fd and "open" or "closed")
end

local watch_options = { recursive = "boolean", events = "table" }

local function mask_of(events)
  local mask = 0
  for i, name in ipairs(events or DEFAULT) do
    local bit = bit_of[name]
    if not bit or name == "overflow" or name == "unmounted" then
      local names = {}
      for _, kind in ipairs(kinds) do
        names[#names + 1] = kind[1]
      end
      error(("option 'events' of watch: unknown event %s at [%d]; there are %s"):format(
        type(name) == "string" and ("%q"):format(name) or type(name), i, table.concat(names, " ", 3)), 3)
    end
    mask = mask | bit
  end
  return mask
end

--- Tells of what happens to a file, or in a directory.
-- @string path
-- @tab[opt] o `recursive`: of a directory also in those inside of it, and in those
--   that come; `events`: a list of what to tell of, of "created", "deleted",
--   "moved_from", "moved_to", "modified", "written" (closed after it was opened to be
--   written), "attributes", "self_deleted", "self_moved", which is the default, and
--   "opened", "closed", "accessed"
-- @treturn Watch `for event in watch:each()`; nil, "path: reason", errno
function M.watch(path, o)
  if refuse("watch", 1, path) then
    return zero_byte(path)
  end
  o = options.check("watch", o or {}, watch_options)
  local mask = mask_of(o.events)
  local owner = core.descriptor()
  local self = setmetatable({
    mask = mask;
    recursive = o.recursive;
    owner = owner;       -- of inotify's descriptor,
    fd = nil;            -- which is this; nil once it is closed
    paths = {};          -- watch descriptor → path
    events = {}, first = 1, last = 0; -- read and not taken
    turn = core.sync.mutex(); -- of who reads
    operation = nil;     -- the read under way
  }, Watch)
  local fd, message, errno = path_call.inotify()
  if not fd then
    return nil, message, errno
  end
  owner:put(fd)
  self.fd = fd
  local ok
  ok, message, errno = self:add(path)
  if not ok then
    self:close()
    return nil, message, errno
  end
  return self
end

return M
