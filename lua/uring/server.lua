--- Serving: a task for each connection.
--
-- The tasks of one call of `serve` are in a scope of its own, which tells of
-- failures and goes on.  So whatever a handler starts is contained, and serve
-- returns when all of it has ended.

local core = require "uring.core"
local latest = require "uring.replaced".latest
local options = require "uring.options"
local scope = require "uring.scope"

local cancelled, spawn = core.cancelled, core.spawn_finishing
local ETIMEDOUT = core.errno.ETIMEDOUT

local known = { max = "integer", on_error = "function" }

-- The task of a connection.
local function attend(self, connection)
  self.connections[connection] = nil
  return latest(self.handler)(connection)
end

-- A connection has ended: there is room for another, and maybe a descriptor.
local function finish(self, connection, err)
  local closed, why = pcall(connection.close, connection)
  if not closed then
    err = why
  end
  self.running = self.running - 1
  if err == cancelled then
    self.cancelled = self.cancelled + 1
  end
  self.timer:set(0)
  if not closed then
    error(err, 0)
  end
end

local function complain(err, traceback)
  io.stderr:write("uring: error in a connection: ", tostring(err), "\n", traceback and traceback .. "\n" or "")
end

-- A task has failed.  One that had no memory to begin has not taken its
-- connection: that is dropped here, and closed when it is collected.
local function told(self, err, traceback)
  for connection, task in pairs(self.connections) do
    if task and task:status() == "failed" then
      self.connections[connection] = nil
      self.running = self.running - 1
      self.timer:set(0)
    end
  end
  self.on_error(err, traceback)
end

local function wait(self, seconds)
  self.timer:after(seconds)
  self.timer:wait()
end

local function wait_for_room(self)
  while self.max and self.running >= self.max and self.listener.descriptor do
    self.timer:set(nil)
    self.timer:wait()
  end
end

-- Where accepting raises, nobody is served any more.
local Accepting = {
  __close = function(self, err)
    if err ~= nil then
      self.scope:cancel()
    end
  end;
}

-- Accepts until that fails for good.
local function run(connections, self, next_connection)
  self.scope = connections
  local _ <close> = setmetatable({ scope = connections }, Accepting)
  connections:report_to(function(err, traceback)
    told(self, err, traceback)
  end)
  local function pause(seconds)
    wait(self, seconds)
  end
  local function tell(message)
    pcall(self.on_error, message)
  end
  local connection, message, errno
  repeat
    wait_for_room(self)
    connection, message, errno = next_connection(self.listener, self.max ~= nil, pause, tell)
    if connection then
      self.connections[connection] = false -- not lost, should there be no memory for a task
      self.connections[connection] = spawn(connections, finish, self, connection, attend, self, connection)
      self.running = self.running + 1
    end
  until not connection
  if message == "closed" then
    return true
  end
  return nil, message, errno
end

-- Every task has ended.  Those that were cancelled before they first ran have
-- closed nothing.
local function leave(self)
  self.listener.servers[self] = nil
  for connection in pairs(self.connections) do
    self.cancelled = self.cancelled + 1
    connection:close()
  end
  self.ended:set(0)
end

local M = {}

--- See `serve` of listeners.
function M.serve(listener, handler, given, next_connection)
  if type(handler) ~= "function" then
    error(("bad argument #1 to 'serve' (function expected, got %s)"):format(type(handler)), 3)
  end
  if given ~= nil and type(given) ~= "table" then
    error(("bad argument #2 to 'serve' (table expected, got %s)"):format(type(given)), 3)
  end
  given = options.check("serve", given or {}, known, 4)
  if given.max and given.max < 1 then
    error(("option 'max' of serve is %d, not 1 or more"):format(given.max), 3)
  end
  local self = {
    listener = listener;
    handler = handler;
    max = given.max;
    on_error = given.on_error or complain;
    running = 0;           -- connections
    cancelled = 0;         -- those that were
    connections = {};      -- whose task has not run yet → the task
    timer = core.timer();  -- what the accepting task waits for besides
    ended = core.timer();  -- when there is nobody left
    scope = nil;
  }
  listener.servers[self] = true
  local _ <close> = setmetatable({}, { __close = function() core.shield(leave, self) end })
  local ok, message, errno = scope.scope(run, self, next_connection)
  if ok or errno == ETIMEDOUT and not listener.descriptor then -- the deadline of `shutdown`, while it accepted
    return true
  end
  return nil, message, errno
end

--- The listener was closed: who waits for room looks again.
function M.wake(listener)
  for self in pairs(listener.servers) do
    self.timer:set(0)
  end
end

--- Waits until nobody is served any more; after so many seconds those that are
-- left are cancelled.
-- @treturn int how many were cancelled
function M.finish(listener, seconds)
  local list, count = {}, 0
  for self in pairs(listener.servers) do
    list[#list + 1] = self
    if seconds and self.scope then -- without a scope it has not begun
      self.scope:deadline(seconds)
    end
  end
  for _, self in ipairs(list) do
    self.ended:wait()
    count = count + self.cancelled
  end
  return count
end

return M
