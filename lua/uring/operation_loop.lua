--- Operations in the callback style: one function begins, one is called for
-- every completion, one for every completion of the teardown.
--
--     local ticker = uring.operation {
--       setup = function(self, submit)
--         submit("tick", "timeout", 0.1)
--       end;
--       on_completion = function(self, completion, submit)
--         self.count = (self.count or 0) + 1
--         if self.count == 10 then return "exit" end
--         submit(completion.data, "timeout", 0.1)
--       end;
--       on_teardown = function(self, completion) end;
--     }
--     local warnings = ticker:run()
--
-- `submit(data, name, …)` prepares the operation `name` as `ring:prepare` does,
-- or an object that prepares itself, and returns its handle; `submit(data, handle)`
-- takes on an operation of this ring that is prepared already.  Its completions
-- come with the data, which is kept until the last of them, whatever the
-- callbacks do.  Those completions are for the callbacks: do not await the handle.
-- `submit.all { { data, name, … }, … }` prepares all or, if one cannot be, none;
-- `submit.link { …, hard = true }` also links them.  Both return a list.
--
-- A completion is a table with what `await` returns, at [1] to [n], and
--
-- - `result`, the first of these; or nil, and `err` and `errno` say why
-- - `flags`, the CQE's
-- - `more`, true if the operation goes on: there are completions to come.  (A
--   zero-copy send has two, if its memory comes back later than its result: the
--   other has `notification`.)
-- - `data`, as it was submitted, or as a callback has replaced it in an earlier
--   completion of the same operation
-- - `name` of the operation, and its `handle`
--
-- `on_completion` returns
--
-- - "continue" or nothing
-- - "warn", w: w is noted, and `run` returns it
-- - "exit": the run ends
-- - "error", e: the run ends, and `run` raises e; so does an error raised
--
-- The run also ends by itself when nothing is in flight, and with the task that
-- it runs in.  However it ends, also in the middle of `setup`: everything still in
-- flight is cancelled, each completion to come is handed to `on_teardown`, and only
-- when all are in, `run` returns or raises.  What a teardown completion brings, a
-- descriptor say, belongs to `on_teardown`; without one it is closed.  An error in
-- `on_teardown` does not keep the rest from being torn down, and is raised in the
-- end, if there is none that came before.
--
-- Callbacks run one after the other in the task that called `run`.  They may await,
-- and the completions that come meanwhile wait for them.  `self` is the table given
-- to `uring.operation`.
-- @module uring.operation_loop

local blame = require "uring.blame"
local core = require "uring.core"

local M = {}

local methods = {}
local Operation = { __index = methods, __name = "uring.operation_loop" }

--
-- A run: some operations on one ring
--

local Run = {}
Run.__index = Run

local handle_types = { ["uring.operation"] = true, ["uring.custom"] = true }

-- Is it an operation that somebody has prepared already?
local function is_handle(x)
  local meta = type(x) ~= "string" and getmetatable(x)
  return type(meta) == "table" and handle_types[meta.__name] == true
end

-- What a completion's operation is called.
local function name_of(what, handle)
  if type(what) == "string" then
    return what
  elseif type(handle) == "table" then
    return tostring(handle.object)
  end
  return (select(4, core.progress(handle)))
end

-- Prepares an operation of the ring.
local function prepare(run, operation, data, what, ...)
  local given = is_handle(what)
  local handle = given and what or run.ring:prepare(what, ...)
  return {
    operation = operation; -- whose callbacks get the completions
    handle = handle;
    op = type(handle) == "table" and handle:operation() or handle; -- the built-in one behind it
    given = given;
    name = name_of(what, handle);
    data = data;
    announced = false;     -- a zero-copy send whose memory is still to come
  }
end

-- The run takes on what was prepared for it.
local function adopt(run, entry)
  run.gathering:add(entry.op, entry)
  return entry.handle
end

local function check_running(run, level)
  if run.ending then
    error("submit: this run of the operation has ended", level)
  end
end

-- Cancels what was prepared here and not yet submitted, all before the next turn.
local function withdraw(entries)
  for _, entry in ipairs(entries) do
    if not entry.given then
      core.request_cancel(entry.op)
    end
  end
  for _, entry in ipairs(entries) do
    if not entry.given then
      getmetatable(entry.handle).__close(entry.handle)
    end
  end
end

-- The list of requests, checked for its form.
local function requests_of(method, list)
  if type(list) ~= "table" then
    error(("bad argument #1 to '%s' (table expected, got %s)"):format(method, type(list)), 3)
  end
  local requests = {}
  for i, request in ipairs(list) do
    if type(request) ~= "table" then
      error(("bad argument #1 to '%s' ({ data, name, … } expected at [%d], got %s)"):format(
        method, i, type(request)), 3)
    end
    requests[i] = table.pack(table.unpack(request, 1, math.max(2, request.n or #request)))
  end
  return requests
end

local function prepare_all(run, operation, requests, link, entries)
  for i, request in ipairs(requests) do
    entries[i] = prepare(run, operation, table.unpack(request, 1, request.n))
  end
  if link then
    local ops = { hard = link.hard }
    for i, entry in ipairs(entries) do
      ops[i] = entry.op
    end
    run.ring:link(ops)
  end
  check_running(run, 0) -- it may have waited for room
end

-- Prepares all of them, and where `link` is given links them; or none.
local function submit_all(run, operation, requests, link)
  local entries = {}
  local ok, err = pcall(prepare_all, run, operation, requests, link, entries)
  if not ok then
    core.shield(withdraw, entries)
    error(err, 0)
  end
  for i, entry in ipairs(entries) do
    entries[i] = adopt(run, entry)
  end
  return entries
end

-- The same for several: there is room for all before the first is prepared, so
-- that none is handed over before the last one is.
local function submit_several(run, operation, requests, link)
  while not core.reserve(run.ring, #requests) do
    core.yield()
  end
  return submit_all(run, operation, requests, link)
end

local function submit_one(run, operation, ...)
  local entry = prepare(run, operation, ...)
  if run.ending then -- it has waited for room
    core.shield(withdraw, { entry })
    check_running(run, 0)
  end
  return adopt(run, entry)
end

-- Calls fn; what it raises is raised where the program has called.
local function call_for(fn, ...)
  local ok, result = pcall(fn, ...)
  if not ok then
    blame(result, 3)
  end
  return result
end

local function new_submit(run, operation)
  return setmetatable({
    all = function(list)
      check_running(run, 3)
      local handles = call_for(submit_several, run, operation, requests_of("all", list))
      return handles
    end;
    link = function(list)
      check_running(run, 3)
      local handles = call_for(submit_several, run, operation, requests_of("link", list), list)
      return handles
    end;
  }, {
    __call = function(_, ...)
      check_running(run, 3)
      local handle = call_for(submit_one, run, operation, ...)
      return handle
    end;
  })
end

-- A completion, of what the await has returned.
local function completion_of(entry, result, ...)
  local failed = result == nil
  return {
    n = 1 + select("#", ...);
    result = result;
    err = failed and (...) or nil;
    errno = failed and select(2, ...) or nil;
    name = entry.name;
    handle = entry.handle;
    flags = entry.op:flags();
    more = false;
    data = entry.data;
    notification = entry.announced or nil;
    result, ...;
  }
end

-- Takes the completion that the operation has, and with the last one lets go of
-- it.  What cannot be had, because `complete` of a program's own operation raises
-- or memory is out, is raised, and can be taken once more.
local function take(run, entry)
  local completion = completion_of(entry, entry.handle:await())
  local more, _, multishot = core.progress(entry.op)
  completion.more = more
  entry.announced = more and not multishot
  if not more then
    run.gathering:remove(entry.op)
  end
  return completion
end

local actions = {}

function actions.continue() end

function actions.exit()
  return true
end

function actions.warn(run, warning)
  if warning == nil then
    error("on_completion returned \"warn\" without a warning", 0)
  end
  run.warnings[#run.warnings + 1] = warning
end

function actions.error(_, err)
  error(err == nil and "on_completion returned \"error\"" or err, 0)
end

-- Hands one completion to its operation.  True: the run is to end, or there is
-- nothing in flight any more.
local function handle_next(run)
  local entry = run.gathering:next()
  if not entry then
    return true
  end
  local completion = take(run, entry)
  local definition = entry.operation.definition
  local action, detail = definition:on_completion(completion, run.submits[entry.operation])
  entry.data = completion.data
  local act = actions[action or "continue"]
  if not act then
    error(("on_completion returned %s: \"continue\", \"exit\", \"warn\" or \"error\" expected"):format(
      type(action) == "string" and ("%q"):format(action) or type(action)), 0)
  end
  return act(run, detail)
end

-- The first error of a teardown is kept.
local function try(run, fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok and not run.failed then
    run.failed, run.failure = true, err
  end
  return ok, err
end

-- What the operation still has to come is closed, and nobody is told.
local function drop(run, entry)
  run.gathering:remove(entry.op)
  getmetatable(entry.handle).__close(entry.handle)
end

local function tear_down_one(run, entry)
  local definition = entry.operation.definition
  if not definition.on_teardown then
    try(run, drop, run, entry)
    return
  end
  local taken, completion = try(run, take, run, entry)
  if taken then
    try(run, definition.on_teardown, definition, completion)
    entry.data = completion.data
  else
    try(run, drop, run, entry)
  end
end

-- Operations of the program's own want to be told that they are cancelled.
local function tell_cancelled(run)
  for _, entry in ipairs(run.gathering:tables()) do
    if entry.handle ~= entry.op then
      try(run, entry.handle.cancel, entry.handle)
    end
  end
end

local function tear_down(run)
  run.gathering:cancel()
  try(run, tell_cancelled, run)
  for entry in run.gathering.next, run.gathering do
    tear_down_one(run, entry)
  end
end

-- Closed with the function that runs it, whatever ends that.
function Run.__close(run, err)
  run.ending = true
  core.shield(tear_down, run)
  if err == nil and run.failed then
    error(run.failure, 0)
  end
end

local function drive(operations, ring)
  local run <close> = setmetatable({
    submits = {};         -- operation → its `submit`
    ring = ring or core.default();
    gathering = core.gathering(); -- of what was submitted, until its last completion
    warnings = {};
    ending = false;       -- nothing can be submitted any more
    failed = false;       -- so has something in the teardown, and this is what
    failure = false;      -- it raised
  }, Run)
  for _, operation in ipairs(operations) do
    local submit = new_submit(run, operation)
    run.submits[operation] = submit
    operation.definition:setup(submit)
  end
  repeat until handle_next(run)
  return run.warnings
end

--
-- The module
--

local function check_ring(method, i, ring)
  local meta = getmetatable(ring)
  if ring ~= nil and not (type(ring) == "userdata" and meta and meta.__name == "uring.ring") then
    error(("bad argument #%d to '%s' (ring expected, got %s)"):format(i, method, type(ring)), 3)
  end
end

--- Runs the operation: `setup`, then `on_completion` until it ends.
-- @tparam[opt] Ring ring the default ring unless given
-- @treturn table the warnings, in order
-- @raise what a callback raised, or returned with "error"
function methods:run(ring)
  check_ring("run", 1, ring)
  return drive({ self }, ring)
end

--- Runs several operations on one ring.  The first that ends the run, by "exit" or
-- an error, ends it for all.
-- @tparam table operations of `uring.operation`, set up in this order
-- @tparam[opt] Ring ring the default ring unless given
-- @treturn table the warnings of all, in order
-- @raise what a callback raised, or returned with "error"
function M.run(operations, ring)
  if type(operations) ~= "table" then
    error(("bad argument #1 to 'run_operations' (table expected, got %s)"):format(type(operations)), 2)
  end
  check_ring("run_operations", 2, ring)
  local list = {}
  for i, operation in ipairs(operations) do
    if getmetatable(operation) ~= Operation then
      error(("bad argument #1 to 'run_operations' (an operation expected at [%d], got %s)"):format(
        i, type(operation)), 2)
    end
    list[i] = operation
  end
  return drive(list, ring)
end

function Operation.__tostring(self)
  local name = self.definition.name
  return ("operation loop (%s)"):format(name ~= nil and tostring(name) or tostring(self.definition))
end

local callbacks = { "setup", "on_completion", "on_teardown" }

--- Makes an operation of its callbacks.
-- @tparam table definition `setup(self, submit)`, `on_completion(self, completion,
--   submit)` and, if wanted, `on_teardown(self, completion)`; a `name` for messages;
--   and whatever the callbacks keep there
-- @treturn Operation
-- @raise callbacks that are missing or no functions
function M.new(definition)
  if type(definition) ~= "table" then
    error(("bad argument #1 to 'operation' (table expected, got %s)"):format(type(definition)), 2)
  end
  for _, name in ipairs(callbacks) do
    local callback = definition[name]
    if type(callback) ~= "function" and (callback ~= nil or name ~= "on_teardown") then
      error(("bad argument #1 to 'operation' (%s is no function but %s)"):format(name, type(callback)), 2)
    end
  end
  return setmetatable({ definition = definition }, Operation)
end

return M
