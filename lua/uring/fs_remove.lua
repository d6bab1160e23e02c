--- Removing files and trees.

local core = require "uring.core"
local arguments = require "uring.fs_arguments"
local options = require "uring.options"

local op, const, errnos, failure = core.op, core.const, core.errno, core.failure
local prepare = core.on_default.prepare
local refuse, zero_byte = arguments.refuse, arguments.zero_byte

local M = {}

local NOFOLLOW = 4    -- c/directory.c
local IN_FLIGHT = 32  -- files being removed
local ATTEMPTS = 3    -- of a directory into which others put something meanwhile

local remove_tree

-- Files of one directory that are being removed.  What has been asked for is
-- done, so it is waited for, whatever happens.
local Removing = {}
Removing.__index = Removing

function Removing.__close(self)
  core.shield(function()
    for i = self.first, self.last do
      self[i]:await()
    end
  end)
end

-- Waits for the one that was asked for first.
local function await_first(self)
  local operation, path = self[self.first], self.paths[self.first]
  local ok, _, errno = operation:await()
  self[self.first], self.paths[self.first] = nil, nil
  self.first = self.first + 1
  if not ok and errno ~= errnos.ENOENT then
    return failure(path, errno)
  end
  return true
end

local function ask(self, path)
  if self.last - self.first + 1 >= IN_FLIGHT then
    local ok, message, errno = await_first(self)
    if not ok then
      return nil, message, errno
    end
  end
  self[self.last + 1] = prepare("unlinkat", nil, path, 0)
  self.paths[self.last + 1] = path
  self.last = self.last + 1
  return true
end

-- Removes what a part of a directory has told of.
local function remove_entries(directory, names, types)
  local removing <close> = setmetatable({ first = 1, last = 0, paths = {} }, Removing)
  for i, name in ipairs(names) do
    local path = directory .. "/" .. name
    local ok, message, errno
    if types[i] == "directory" then
      ok, message, errno = remove_tree(path)
    else
      ok, message, errno = ask(removing, path)
    end
    if not ok then
      return nil, message, errno
    end
  end
  while removing.first <= removing.last do
    local ok, message, errno = await_first(removing)
    if not ok then
      return nil, message, errno
    end
  end
  return true
end

-- Closes whatever job is in it.
local Holder = { __close = function(self)
  if self.job then
    self.job:close()
  end
end }

local function empty(path)
  local holder <close> = setmetatable({ job = core.read_directory(path, NOFOLLOW) }, Holder)
  while holder.job do
    local names, types, errno, more = holder.job:await()
    if not names then
      return nil, types, errno
    end
    holder.job = more
    local ok, message, code = remove_entries(path, names, types)
    if not ok then
      return nil, message, code
    end
  end
  return true
end

function remove_tree(path)
  for attempt = 1, ATTEMPTS do
    local ok, why, errno = empty(path)
    if not ok then
      if errno == errnos.ENOENT then
        return true
      end
      return nil, why, errno
    end
    ok, why, errno = op.unlinkat(nil, path, const.AT_REMOVEDIR)
    if ok or errno == errnos.ENOENT then
      return true
    elseif errno ~= errnos.ENOTEMPTY or attempt == ATTEMPTS then
      return nil, path .. why:match ":.*", errno
    end
  end
end

local known = { recursive = "boolean" }

--- Removes a file or an empty directory, or with `recursive` a tree.  Links are
-- removed and not followed.
-- @string path
-- @tab[opt] o `recursive`: with all that is in it; what others have removed
--   meanwhile is no failure
-- @treturn boolean true; nil, "path: reason", errno
function M.remove(path, o)
  if refuse("remove", 1, path) then
    return zero_byte(path)
  end
  o = options.check("remove", o or {}, known)
  local ok, _, errno = op.unlinkat(nil, path, 0)
  if errno == errnos.EISDIR or errno == errnos.EPERM then -- of POSIX, where it is a directory
    if o.recursive then
      return remove_tree(path)
    end
    local code
    ok, _, code = op.unlinkat(nil, path, const.AT_REMOVEDIR)
    errno = code == errnos.ENOTDIR and errno or code
  end
  if not ok then
    return failure(path, errno)
  end
  return true
end

return M
