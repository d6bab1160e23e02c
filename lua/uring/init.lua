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
local custom = require "uring.custom"
local scope = require "uring.scope"

local M = {
  _VERSION = "uring scm";

  --- Calls without a handle: `uring.op.read(fd, buffer, length, offset)`
  -- prepares and awaits.  Names and arguments are those of `ring:prepare`.  What
  -- tasks receive is handed over behind what is sent in the same turn.
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
  --- Starts a task in the current scope: `spawn(fn, ...)` → Task.  It first
  -- runs in the next turn.
  spawn = core.spawn_here;
  sleep = core.sleep;
  yield = core.yield;
  shield = core.shield;
  now = core.now;
  --- A deadline that can be moved while tasks wait for it:
  -- `timer([deadline])`, a time of `now`; without one it is never.
  --
  -- `timer:wait()` → `now()` when the deadline has come, at once if it is past;
  -- nil, "closed", ECANCELED if the timer is closed meanwhile.  `timer:set(deadline | nil)`
  -- and `timer:after(seconds)` move it, to earlier and to later.
  -- `timer:deadline()`, `timer:close()`.  A wait costs no operation.
  timer = core.timer;
  run = scope.run;
  scope = scope.scope;
  timeout = scope.timeout;
  all = scope.all;
  race = scope.race;
  map = scope.map;
  every = scope.every;
  --- Values of the running task: `uring.locals.user = "ann"`.  A task that it
  -- spawns has what was set by then, and changes only its own.  The main chunk
  -- has its own.
  locals = core.locals;
  --- `tasks()` → a list of all tasks, each `{ task, name, status, where, waiting,
  -- since }`: `where` is the line it stands at, `waiting` what it waits for
  -- ("recv on fd 5", "sleep", "channel", "task fetcher" …), `since` for how many
  -- seconds, to within some milliseconds.
  tasks = core.tasks;
  --- `operations()` → a list of all operations that are prepared or in flight, each
  -- `{ name, status, ring, lent, fd, task, since, orphan }`: `status` is "prepared",
  -- "submitted", "cancelling" or "resting"; `lent` the bytes lent with it; `task` who
  -- awaits it without a handle, `since` for how many seconds; `orphan` is true where
  -- nobody will ask for its result.
  operations = core.operations;
  current = core.current;
  on_error = core.on_error;
  isatty = core.isatty;

  --- What tasks hand to each other and wait for one another with: `channel`,
  -- `select`, `semaphore`, `mutex`, `condition`, `waitgroup`.  First come, first
  -- served; no descriptors, no system calls.
  sync = core.sync;
  --- The functions of `coroutine`, where an await inside of a coroutine passes
  -- through `resume` and `wrap` to the task that runs it.
  coroutine = core.coroutine;
}

-- What is loaded when it is first used: its module, and its name there, if it is
-- not the module itself.
local later = {
  readiness = { "uring.readiness", "new" };
  operation = { "uring.operation_loop", "new" };
  run_operations = { "uring.operation_loop", "run" };
  waiter = { "uring.waiter", "new" };
  dump = { "uring.dump" };

  --- Lua's `io`, with files that do not block the loop: see `uring.io`.
  io = { "uring.io" };
  open = { "uring.file", "open" };
  --- Files and directories by path, see `uring.fs`.
  fs = { "uring.fs" };
  listen = { "uring.sockets", "listen" };
  connect = { "uring.sockets", "connect" };
  resolve = { "uring.resolve", "resolve" };
  udp = { "uring.sockets", "udp" };
  pipe = { "uring.sockets", "pipe" };
  socketpair = { "uring.sockets", "socketpair" };
  transfer = { "uring.sockets", "transfer" };
  --- Programs that run beside this one: `process.spawn { "cat", stdin = "pipe" }` →
  -- a process with streams, `wait`, `kill`; `process.run { "ls", "-l" }` → what it
  -- had to say.  See `uring.process`.
  process = { "uring.process" };
  --- `for name in uring.signals { "INT", "TERM" } do`: see `uring.signals`.
  signals = { "uring.signals", "signals" };
}

local function load(_, name)
  local from = later[name]
  if not from then
    return nil
  end
  local value = require(from[1])
  if from[2] then
    value = value[from[2]]
  end
  M[name] = value
  return value
end

setmetatable(M, {
  __index = load;
  __pairs = function()
    for name in pairs(later) do
      load(M, name)
    end
    return next, M
  end;
})

core.on_error(function(err, traceback)
  io.stderr:write("uring: error in a task nobody waits for: ", tostring(err), "\n",
    traceback and traceback .. "\n" or "")
end)

-- The ring's methods on the default ring, which is created at first use.
for name, on_default in pairs(core.on_default) do
  M[name] = on_default
end

-- The results of one awaited thing are all returned; of several, the first of
-- each.
local function await_each(x, ...)
  if select("#", ...) == 0 then
    return (x:await())
  end
  return (x:await()), await_each(...)
end

-- What there is to await in x: x itself, or the operation it prepares.
local function awaitable(x, i)
  local kind = type(x)
  local meta = getmetatable(x)
  local indexable = kind == "table" or kind == "userdata" and type(meta) == "table" and meta.__index
  if indexable and x.await then
    return x
  elseif custom.is_custom(x) then
    return M.prepare(x)
  end
  error(("bad argument #%d to 'await' (operation or task expected, got %s)"):format(i, kind), 3)
end

--- Waits for operations, tasks and cancellations.
-- @param x whatever has `await`; or an object with a method `prepare`, which is
--   an operation of its own making (see `uring.custom`)
-- @param ... more of them: waits for all
-- @return the results of one; of several, the first result of each
function M.await(x, ...)
  x = awaitable(x, 1)
  local n = select("#", ...)
  if n == 0 then
    return x:await()
  end
  local rest = { ... }
  for i = 1, n do
    rest[i] = awaitable(rest[i], i + 1)
  end
  return await_each(x, table.unpack(rest))
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
