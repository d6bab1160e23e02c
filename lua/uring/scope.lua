--- Scopes: what starts tasks and waits for them.
--
-- Every function here opens a scope, starts tasks in it and leaves it when the
-- last of them has ended, whatever happens: a failure cancels the others, and so
-- do a deadline, Ctrl-C and the cancellation of the caller.  They differ in what
-- they make of how the tasks ended:
--
-- 1. Somebody failed: the first error is rethrown as it is.
-- 2. Whoever was to return something has: that is returned, even if it was
--    cancelled meanwhile.  Success wins; the caller's own cancellation is raised
--    by its next await.
-- 3. The caller was cancelled: `uring.cancelled` is raised.
-- 4. The scope's deadline has come, or its `cancel` was called: that is what is
--    returned.
--
-- @module uring.scope

local core = require "uring.core"
local options = require "uring.options"

local ETIMEDOUT, ECANCELED = core.errno.ETIMEDOUT, core.errno.ECANCELED

local M = {}

local function check_function(name, i, fn)
  if type(fn) ~= "function" then
    error(("bad argument #%d to '%s' (function expected, got %s)"):format(i, name, type(fn)), 3)
  end
end

local function check_seconds(name, seconds)
  if type(seconds) ~= "number" then
    error(("bad argument #1 to '%s' (number expected, got %s)"):format(name, type(seconds)), 3)
  elseif seconds < 0 or seconds ~= seconds then
    error(("bad argument #1 to '%s' (seconds are negative)"):format(name), 3)
  end
end

-- A new scope; where nothing can be awaited that is the caller's mistake.
local function open()
  local ok, scope = pcall(core.scope)
  if not ok then
    error(scope, type(scope) == "string" and 3 or 0)
  end
  return scope
end

--
-- Leaving
--

-- What a task failed with came from a scope of its own, where others may have
-- failed, too: task → { error, failures }.
local origins = setmetatable({}, { __mode = "k" })

-- The failures of a scope, with those that an inner scope rethrew told apart.
local function unfold(failures)
  local all = {}
  for _, failure in ipairs(failures) do
    local origin = origins[failure.task]
    if origin and rawequal(origin.error, failure.error) then
      table.move(origin.failures, 1, #origin.failures, #all + 1, all)
    else
      all[#all + 1] = failure
    end
  end
  return all
end

local function first_line(err)
  return (tostring(err):match "^[^\n]*")
end

-- What is told of failures from the i-th on, where the error leaves the tasks.
local function others(failures, i)
  local n = #failures - i + 1
  if n < 1 then
    return ""
  end
  local list = {}
  for j = i, math.min(#failures, i + 9) do
    list[#list + 1] = first_line(failures[j].error)
  end
  return ("\n… and %d more task%s failed: %s%s"):format(n, n == 1 and "" or "s", table.concat(list, "; "),
    n > #list and "; …" or "")
end

-- The error that leaves the outermost scope carries the traceback of the task
-- it comes from, since the stack of the main chunk tells nothing about it; and
-- the others, whom nobody else will hear of.
local function outermost(failures)
  local first = failures[1]
  if type(first.error) ~= "string" then
    return first.error
  end
  local traceback = first.traceback
  return first.error .. (traceback and "\n" .. traceback:gsub("^stack traceback:", "task traceback:") or "")
    .. others(failures, 2)
end

local function rethrow(failures)
  local task = core.current()
  if not task then
    error(outermost(failures), 0)
  end
  local err = failures[1].error
  origins[task] = { error = err, failures = failures }
  error(err, 0)
end

-- The loop raised, in the main chunk: Ctrl-C, or a deadlock.  Nothing outlives
-- the call.
local function abort(scope, err)
  scope:cancel()
  scope:join()
  local failures = scope:leave()
  if failures and type(err) == "string" then
    err = err .. others(unfold(failures), 1)
  end
  error(err, 0)
end

-- Waits for everybody in the scope and leaves it; rethrows what failed there.
-- Was the caller cancelled?
local function leave(scope)
  local ok, struck = pcall(scope.join, scope)
  if not ok then
    abort(scope, struck)
  end
  local failures = scope:leave()
  if failures then
    rethrow(unfold(failures))
  end
  return struck
end

-- Starts what there is to start; if that raises, nothing is left of it.
local function start(scope, fill, ...)
  local ok, err = pcall(fill, scope, ...)
  if not ok then
    scope:cancel()
    leave(scope)
    error(err, 0)
  end
end

--
-- One function
--

--- Runs a function as a task and waits until it and all that it spawned have
-- ended.  In the main chunk that turns the loop.
-- @func fn
-- @param ... its arguments
-- @return its results
-- @raise its error, or the first error of a task it spawned and nobody awaited.
--   Leaving the outermost of these functions, an error that is a string carries
--   the traceback of its task and tells of others that failed
function M.run(fn, ...)
  check_function("run", 1, fn)
  local scope = open()
  local task = scope:spawn(fn, ...)
  leave(scope)
  return task:await()
end

--- Runs a function in a scope of its own, which is left when all tasks in it
-- have ended.  The first that fails cancels the others, and fn.
--
-- `scope:spawn(fn, …)` → Task; in a scope that was cancelled it is so at once,
-- unless it is spawned inside `shield`.  `scope:cancel()` cancels all that is in
-- it, fn included.  `scope:deadline(seconds)` does so that long from now.
-- `scope:failures()` → `{ { error = …, traceback = …, task = … }, … }`, in the
-- order in which they failed; an error that somebody awaited is not among them.
-- `scope:status()` → "open", "expired", "cancelled" or "failed".
-- @func fn is called with the scope and the arguments
-- @param ... arguments
-- @return its results; nil, "cancelled", ECANCELED if the scope was cancelled
--   before fn returned; nil, "timeout", ETIMEDOUT if its deadline came
-- @raise the first error
function M.scope(fn, ...)
  check_function("scope", 1, fn)
  local scope = open()
  local task = scope:spawn(fn, scope, ...)
  local struck = leave(scope)
  if not struck and task:status() == "cancelled" then
    if scope:status() == "expired" then
      return nil, "timeout", ETIMEDOUT
    elseif scope:status() == "cancelled" then
      return nil, "cancelled", ECANCELED
    end
  end
  return task:await()
end

--- Runs a function for at most so long.  When the time has come, all that it
-- has started is cancelled, and has ended when this returns.
-- @number seconds
-- @func fn
-- @param ... its arguments
-- @return its results, if it returns, however late; nil, "timeout", ETIMEDOUT if
--   it was cancelled because the time had come
-- @raise its error
function M.timeout(seconds, fn, ...)
  check_seconds("timeout", seconds)
  check_function("timeout", 2, fn)
  local scope = open()
  scope:deadline(seconds)
  local task = scope:spawn(fn, ...)
  local struck = leave(scope)
  if not struck and task:status() == "cancelled" and scope:status() == "expired" then
    return nil, "timeout", ETIMEDOUT
  end
  return task:await()
end

--
-- Several
--

local function length(list)
  return math.type(list.n) == "integer" and list.n or #list
end

local function check_list(name, list)
  if type(list) ~= "table" then
    error(("bad argument #1 to '%s' (table expected, got %s)"):format(name, type(list)), 3)
  end
  local n = length(list)
  for i = 1, n do
    if type(list[i]) ~= "function" and not core.is_task(list[i]) then
      error(("bad argument #1 to '%s' (function or task expected at [%d], got %s)"):format(
        name, i, type(list[i])), 3)
    end
  end
  return n
end

-- A task that exists already is only waited for, by one of ours.
local function await(task)
  return task:await()
end

local function start_each(scope, list, n, tasks)
  for i = 1, n do
    local x = list[i]
    if type(x) == "function" then
      tasks[i] = scope:spawn(x)
    else
      tasks[i] = scope:spawn(await, x)
    end
  end
end

--- Runs functions at the same time and waits for all.  The first failure
-- cancels the others; tasks that were there before it only ceases to wait for.
-- @tab list functions and tasks
-- @treturn table the first result of each, in order, and how many as `n`
-- @raise the first error
function M.all(list)
  local n = check_list("all", list)
  local scope, tasks = open(), {}
  start(scope, start_each, list, n, tasks)
  leave(scope)
  for i = 1, n do
    tasks[i] = (tasks[i]:await())
  end
  tasks.n = n
  return tasks
end

--- Runs functions at the same time until the first has ended.  The others are
-- cancelled, and have ended when this returns; if one of them still fails,
-- `uring.on_error` is told.
-- @tab list functions and tasks, one at least; tasks that were there before are
--   not cancelled
-- @return the results of the first that returned
-- @raise the error of the first to end
function M.race(list)
  local n = check_list("race", list)
  if n == 0 then
    error("bad argument #1 to 'race' (there is nothing to wait for)", 2)
  end
  local scope = open()
  scope:race()
  start(scope, start_each, list, n, {})
  leave(scope)
  local winner = scope:winner()
  if not winner then
    error(core.cancelled, 0)
  end
  return winner:await()
end

-- One of those who map: takes the next item that nobody has, until none is left.
-- To `fn` it is a task of its own each time.
local function work(job)
  local inherited = core.keep_locals()
  while job.next <= job.n do
    local i = job.next
    job.next = i + 1
    job.results[i] = (job.fn(job.list[i], i))
    job.done = job.done + 1
    core.reset_locals(inherited)
  end
end

local function start_workers(scope, job, count)
  for _ = 1, count do
    scope:spawn(work, job)
  end
end

local map_options = { limit = "integer" }

--- Calls a function with every item of a list, many at a time.  The first
-- failure cancels the others, and items that nobody has begun with are left.
-- @tab list
-- @func fn is called with an item and its index
-- @tab[opt] given `limit`: how many calls at most are under way at a time
--   (default: all).  So many tasks share the items; `uring.locals` begin afresh
--   with each
-- @treturn table the first result of each, in order, and how many as `n`
-- @raise the first error; unknown options
function M.map(list, fn, given)
  if type(list) ~= "table" then
    error(("bad argument #1 to 'map' (table expected, got %s)"):format(type(list)), 2)
  end
  check_function("map", 2, fn)
  given = options.check("map", given or {}, map_options)
  local job = { list = list, fn = fn, n = length(list), next = 1, done = 0, results = {} }
  local limit = given.limit or job.n
  if given.limit and limit < 1 then
    error(("option 'limit' of map is %d, not 1 or more"):format(limit), 2)
  end
  local scope = open()
  start(scope, start_workers, job, math.min(limit, job.n))
  leave(scope)
  if job.done < job.n then
    error(core.cancelled, 0)
  end
  job.results.n = job.n
  return job.results
end

--- Ticks without drift: `for i, missed in uring.every(0.1) do`.  Tick i is due
-- i × seconds after the call.  Where the body took longer than that, the latest
-- tick that is due comes at once; those before it are left out, and `missed` is
-- how many.
-- @number seconds more than 0
-- @treturn function an iterator, which awaits
function M.every(seconds)
  check_seconds("every", seconds)
  if seconds == 0 then
    error("bad argument #1 to 'every' (seconds are 0)", 2)
  end
  local start_time, tick = core.now(), 0
  return function()
    local late = (core.now() - start_time) // seconds
    local due = math.max(tick + 1, late)
    core.sleep(math.max(0, start_time + due * seconds - core.now()))
    local missed = due - tick - 1
    tick = due
    return math.tointeger(due), math.tointeger(missed)
  end
end

return M
