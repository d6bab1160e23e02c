--- io_uring for Lua.
--
-- Three ways in, from the top down: files and sockets (`uring.open`,
-- `uring.listen`, `uring.connect`), operations in a task (`uring.op.read`), and
-- the ring by hand (`uring.ring`, `ring:prepare`, `ring:submit`, `op:await`).
--
-- Misuse raises.  An operation that fails returns nil, "subject: reason", errno.
-- Times are seconds.
-- @module uring

local core = require "uring.core"
local file = require "uring.file"
local socket = require "uring.socket"

local M = {
  _VERSION = "uring scm";

  --- Calls without a handle: `uring.op.read(fd, buffer, length, offset)`
  -- prepares and awaits.  Names and arguments are those of `ring:prepare`.
  op = core.op;
  --- `errno.ENOENT == 2`, `errno[2] == "ENOENT"`.
  errno = core.errno;
  --- The system's constants by their C names: `const.O_RDONLY`.
  const = core.const;
  --- What a cancelled task sees as its error.
  cancelled = core.cancelled;

  ring = core.ring;
  buffer = core.buffer;
  --- `options { fixed_file = true }`: a table of options that is read once, for
  -- calls that are made often.
  options = core.options;
  sleep = core.sleep;
  yield = core.yield;
  shield = core.shield;
  now = core.now;
  current = core.current;
  on_error = core.on_error;
  isatty = core.isatty;

  open = file.open;
  listen = socket.listen;
  connect = socket.connect;
  pipe = socket.pipe;
  socketpair = socket.socketpair;
}

core.on_error(function(err, traceback)
  io.stderr:write("uring: error in a task nobody waits for: ", tostring(err), "\n",
    traceback and traceback .. "\n" or "")
end)

-- The ring's methods on the default ring, which is created at first use.
for name, on_default in pairs(core.on_default) do
  M[name] = on_default
end

--- Starts a task in the current scope; it first runs in the next turn.
-- @func fn
-- @param ... its arguments
-- @treturn Task
function M.spawn(fn, ...)
  return core.spawn(nil, fn, ...)
end

-- The results of one awaited thing are all returned; of several, the first of
-- each.
local function await_each(x, ...)
  if select("#", ...) == 0 then
    return (x:await())
  end
  return (x:await()), await_each(...)
end

--- Waits for operations, tasks and cancellations.
-- @param x whatever has `await`
-- @param ... more of them: waits for all
-- @return the results of one; of several, the first result of each
function M.await(x, ...)
  for i = 1, 1 + select("#", ...) do
    local one = select(i, x, ...)
    local kind = type(one)
    local meta = getmetatable(one)
    local indexable = kind == "table" or kind == "userdata" and type(meta) == "table" and meta.__index
    if not indexable or not one.await then
      error(("bad argument #%d to 'await' (operation or task expected, got %s)"):format(i, kind), 2)
    end
  end
  if select("#", ...) == 0 then
    return x:await()
  end
  return await_each(x, ...)
end

-- The error that leaves the outermost run carries the traceback of the task
-- it comes from, since the stack of the main chunk tells nothing about it.
local function with_traceback(err, traceback)
  if type(err) == "string" and traceback and not core.current() then
    return err .. "\n" .. traceback:gsub("^stack traceback:", "task traceback:")
  end
  return err
end

--- Runs a function as a task and turns the loop until it and all that it
-- spawned have ended.  Inside a task it waits the same way.
-- @func fn
-- @param ... its arguments
-- @return its results
-- @raise its error, or the first error of a task it spawned and nobody awaited
function M.run(fn, ...)
  if type(fn) ~= "function" then
    error(("bad argument #1 to 'run' (function expected, got %s)"):format(type(fn)), 2)
  end
  local scope = core.scope()
  local task = core.spawn(scope, fn, ...)
  local ok, err = pcall(scope.join, scope)
  if not ok then -- interrupted, or cancelled: nothing outlives this call
    scope:cancel()
    scope:join()
    error(err, 0)
  end
  local failed, reason, traceback = scope:failure()
  if failed then
    error(with_traceback(reason, traceback), 0)
  end
  return task:await()
end

--- Closes the default ring: tasks are cancelled and end, operations in flight
-- are cancelled and waited for.  The next use opens a new one.  In a child of
-- fork it forgets the ring that was the parent's.
function M.close()
  core.abandon()
  if core.current() then
    error("cannot close the default ring from inside a task", 2)
  end
  if core.has_default() then
    core.cancel_all()
    core.default():close()
  end
end

return M
