--- Processes: programs that run beside this one.
--
-- `spawn` starts one, with streams to talk to it; `run` starts one and returns
-- what it had to say.  A process belongs to its object: closing the object ends
-- it, and so does dropping it, or the end of the Lua state.  It is always waited
-- for, so none is left as a zombie; `detach` lets one live on.
--
-- Nothing here needs SIGCHLD.  (A program that ignores it, or that waits for just
-- any child, takes away how a process ended: `wait` then says "No child
-- processes".)
-- @module uring.process

local blame = require "uring.blame"
local core = require "uring.core"
local names = require "uring.signal_names"
local request = require "uring.process_request"
local scope = require "uring.scope"
local stream = require "uring.stream"

local errnos, prepare = core.errno, core.on_default.prepare
local POLLIN = core.const.POLLIN
local KILL = core.signal_names.KILL

local M = {}

local methods = {}
local Process = { __index = methods, __name = "uring.process" }

-- A stream keeps its process: stream → process.  Who has only that is not to
-- see the process end under it.
local processes = setmetatable({}, { __mode = "k" })

--
-- Its end
--

local function check_attached(self)
  if self.detached then
    error("attempt to use a detached process", 3)
  end
end

-- Returns when it has ended, or right after.  Nil, message, errno.
local function await_end(self)
  local fd = self.child:fd()
  if not fd then
    return true
  end
  local poll = prepare("poll_add", fd, POLLIN)
  self.polls[poll] = true
  local ok, message, errno = poll:await()
  self.polls[poll] = nil
  return ok, message, errno
end

-- Nil while it runs; else what `wait` returns.
local function result(self)
  local state, code = self.child:state(not self.ending)
  if state == "running" or state == "stopped" then
    return nil
  end
  self.taken = self.taken or not self.ending
  if not next(self.polls) then
    self.child:close()
  end
  if state == "lost" then
    return table.pack(core.failure(self.name, errnos.ECHILD))
  end
  return table.pack(state == "exit" and code == 0 or nil, state, code)
end

--- Waits until it has ended.  Any number of tasks may wait, at any time; waiting
-- that is cancelled takes nothing away.
-- @treturn bool true if it has exited with 0, else nil; as of `os.execute`
-- @treturn string "exit" or "signal"; or a message, where how it ended is not
--   known
-- @treturn int exit status or number of the signal; or errno
function methods:wait()
  check_attached(self)
  while true do
    local results = result(self)
    if results then
      return table.unpack(results, 1, 3)
    end
    local ok, message, errno = await_end(self)
    check_attached(self)
    if not ok then
      return nil, message, errno
    elseif self.child:state() == "running" then -- a tracer has its end for a moment
      core.sleep(0.01)
    end
  end
end

--- How it is, now.
-- @treturn string "running", "stopped", "exit", "signal"; "lost" where it has
--   ended and how is not known; "detached"
-- @treturn int exit status or number of the signal
function methods:status()
  if self.detached then
    return "detached"
  end
  return self.child:state()
end

--- Its number.
-- @treturn int
function methods:pid()
  return self.number
end

local function send(self, method, signal, group)
  local number = names.number(("bad argument #1 to '%s'"):format(method), signal or "TERM", 3)
  local errno = self.child:kill(number, group)
  if errno == 0 then
    return true
  end
  return core.failure(self.name, errno)
end

--- Sends it a signal.  No other process that has got its number since can be
-- hit.
-- @tparam[opt="TERM"] string|int signal "INT", "SIGINT" or 2
-- @treturn bool true; nil, message, errno: ESRCH if it has been waited for
-- @raise unknown signals
function methods:kill(signal)
  check_attached(self)
  return send(self, "kill", signal, false)
end

--- Sends a signal to its group, as long as nobody has waited for it.
-- @tparam[opt="TERM"] string|int signal
-- @treturn bool true; nil, message, errno
-- @raise unknown signals; where it was spawned without a group of its own
function methods:kill_group(signal)
  check_attached(self)
  if not self.leads then
    error("the process has no group of its own: spawn it with group = true", 2)
  end
  return send(self, "kill_group", signal, true)
end

local function close_streams(self)
  for _, name in ipairs { "stdin", "stdout", "stderr" } do
    if self[name] then
      self[name]:close()
    end
  end
end

-- Nobody takes the record of the process meanwhile: its number, and so that of
-- its group, stays its own until the last of them is dead.
local function terminate(self)
  local child, ended = self.child, nil
  self.ending = true
  if self.grace > 0 then
    child:terminate()
    ended = scope.timeout(self.grace, await_end, self)
  end
  if self.detached then -- meanwhile
    return
  end
  if not ended or self.leads then
    child:kill(KILL, true)
  end
  if not ended then
    await_end(self)
  end
  self.ending = false
end

local function finish(self)
  close_streams(self)
  if self.detached then
    return true
  elseif not self.taken then
    terminate(self)
  end
  if self.detached then -- meanwhile
    return true
  end
  return self:wait()
end

--- Ends it: its streams are closed; if it runs it is sent TERM, and where it
-- has not ended after its grace, KILL; it is waited for.  With a group of its own
-- that is done to the group, which does not outlive it.  One that has been
-- waited for already is left as it is, and so is its group.  Also in a task that
-- is being cancelled.  Idempotent.
-- @return as of `wait`
function methods:close()
  return core.shield(finish, self)
end

--- Lets it live on: closing or dropping the object does not end it any more,
-- and nobody can wait for it; who does is told so by an error.  Its streams stay open.  When it has ended the
-- loop sees to its remains.
-- @treturn int its number
function methods:detach()
  check_attached(self)
  for poll in pairs(self.polls) do
    poll:cancel() -- what has not been handed over is withdrawn before the pidfd is closed
  end
  self.child:detach()
  self.detached = true
  return self.number
end

Process.__close = methods.close

function Process:__tostring()
  local state, code = "detached", nil
  if not self.detached then
    local ours -- in a child of fork it is not
    ours, state, code = pcall(self.child.state, self.child)
    state = ours and state or "the parent's"
  end
  if state == "signal" then
    code = names.name(code)
  end
  return ("process (%s, pid %d, %s%s)"):format(self.name, self.number, state, code and " " .. code or "")
end

--
-- Starting
--

local function plan_for(subject, given)
  local ok, plan = pcall(request.plan, subject, given)
  if not ok then
    blame(plan, 4)
  end
  return plan
end

-- A process, or nil, message, errno.
local function start(plan)
  local ok, message, errno = plan:open()
  if not ok then
    return nil, message, errno
  end
  local child
  child, message, errno = core.spawn(plan.arguments, plan.environment, plan.cwd, plan.sources, plan.group,
    plan.session, plan.grace)
  if not child then
    return nil, message, errno
  end
  local self = setmetatable({
    child = child;               -- which ends it when it is collected
    number = child:pid();
    name = plan.arguments[1];    -- for messages
    grace = plan.grace;          -- seconds between TERM and KILL
    leads = plan.leads;          -- a group of its own
    polls = {};                  -- of the pidfd, by those who wait; one that raised is
                                 -- left, and keeps it open until this is collected
    ending = false;              -- `close` is at it
    taken = false;               -- it has ended, and its number is free for others
    detached = false;
    stdin = nil; stdout = nil; stderr = nil; -- streams, where there are pipes
  }, Process)
  for name, pipe in pairs(plan.pipes) do
    self[name] = stream.open(pipe.stream, pipe.descriptor:take())
    processes[pipe.stream] = self
  end
  return self
end

-- The plan is closed before anybody talks to the process: as long as this
-- process has its ends, too, a pipe has no end.
local function spawn(subject, given)
  local plan <close> = plan_for(subject, given)
  return start(plan)
end

--- Starts a program: `spawn { "grep", "-n", "x", stdin = "pipe", stdout = "pipe" }`.
--
-- The program is looked up in the PATH of this process if there is no slash in
-- its name; no shell is involved.  It has the descriptors that are given to it
-- and no others, no signal is blocked in it, and SIGPIPE is as by default.
--
-- Each of `stdin`, `stdout` and `stderr` is one of:
--
-- - "inherit", the default: this process's own
-- - "pipe": the process object has a stream of that name, for the other end
-- - "null": /dev/null
-- - `{ path, mode }`: a file, with the modes of `io.open`; without a mode "r"
--   for stdin and "w" for the others
-- - a stream (or anything else with `fd`), or the number of a descriptor.  What
--   a stream has read ahead stays in it
-- - for stderr also "stdout": wherever that goes
--
-- Further options: `fds`, the same for descriptors from 3 to 255, without pipes:
-- `fds = { [3] = stream }`.  `env`, the whole environment, `{ NAME = value }`; or
-- `setenv`, changes to this process's: `{ NAME = value, OTHER = false }`.  `cwd`, a
-- directory (a relative name of the program starts from there).  `group`: true
-- for a process group of its own, or the number of one to join.  `session`: true
-- for a session, and thus a group, of its own.  `grace`: seconds between TERM and
-- KILL when it is to end, 2 by default, 0 for KILL at once.
-- @tab given command and arguments, and options
-- @treturn Process with `stdin`, `stdout`, `stderr` where they are pipes; nil,
--   message, errno: "grep: No such file or directory", of the directory
--   or of a file where it was that
-- @raise wrong types, unknown options
function M.spawn(given)
  local process, message, errno = spawn("spawn", given)
  return process, message, errno
end

--
-- From start to end
--

local MAX = 67108864 -- bytes of output, by default: 64 MiB
local CHUNK = 65536

local function give_up(job, message, errno)
  job.failure = job.failure or { message, errno }
  job.scope:cancel()
end

-- What a command has to say on one stream, up to a maximum.
local function collect(job, name)
  local from, parts = job.process[name], job.parts[name]
  while true do
    local data, message, errno = from:read_some(CHUNK)
    if not data then
      return message and give_up(job, message, errno)
    end
    local room = job.room[name]
    parts[#parts + 1] = data:sub(1, room)
    job.room[name] = room - #data
    if #data > room then
      return give_up(job, ("%s: more than %d bytes of output"):format(job.process.name, job.max), errnos.EMSGSIZE)
    end
  end
end

-- Gives a command its input.  One that does not want it has its reasons.
local function feed(job)
  local stdin = job.process.stdin
  local ok, message, errno = stdin:write(job.input)
  if not ok and errno ~= errnos.EPIPE then
    give_up(job, message, errno)
  end
  stdin:close()
end

-- Talks to the process until it has ended.
local function converse(conversation, job)
  job.scope = conversation
  if job.timeout then
    conversation:deadline(job.timeout)
  end
  local tasks = {}
  for name in pairs(job.parts) do
    tasks[#tasks + 1] = conversation:spawn(collect, job, name)
  end
  if job.input then
    tasks[#tasks + 1] = conversation:spawn(feed, job)
  end
  for _, task in ipairs(tasks) do
    task:await()
  end
  job.ending = table.pack(job.process:wait())
end

-- What `run` returns.
local function outcome(job)
  local results = {}
  for name, parts in pairs(job.parts) do
    results[name] = table.concat(parts)
  end
  if job.failure then
    return nil, job.failure[1], job.failure[2], results
  elseif not job.ending then
    return nil, job.process.name .. ": timeout", errnos.ETIMEDOUT, results
  end
  local ok, how, code = table.unpack(job.ending, 1, 3)
  if how ~= "exit" and how ~= "signal" then
    return nil, how, code, results
  end
  results.ok, results.how, results.code = ok, how, code
  return results
end

--- Runs a command and returns what it wrote: `run { "git", "log", "-1" }`.
--
-- Takes the options of `spawn`, but for: `stdin` is "null" unless given, `stdout`
-- and `stderr` are "pipe", and `group` is true (false: none).  And `input`, a
-- string for its standard input; `timeout` in seconds; `max`, how many bytes of
-- each kind of output there may be, 64 MiB by default.  Output is read, and input
-- written, at the same time, so nothing waits for each other.
--
-- It returns when the command has ended and everybody has closed its output.
-- After the timeout, past the maximum, or if the caller is cancelled, the command
-- and its group are ended as by `close`.
-- @tab given command and arguments, and options
-- @treturn table `{ ok = true | nil, how = "exit" | "signal", code = …, stdout = …,
--   stderr = … }`; nil, "cmd: timeout", ETIMEDOUT; nil, "cmd: more than … bytes of
--   output", EMSGSIZE; nil, message, errno
-- @treturn table after these two failures, what there was, as the fourth value
-- @raise wrong types, unknown options
function M.run(given)
  local process <close>, message, errno = spawn("run", given)
  if not process then
    return nil, message, errno
  end
  local job = {
    process = process;
    scope = nil;             -- in which its streams are served
    input = given.input;
    timeout = given.timeout;
    max = given.max or MAX;
    parts = {};              -- name of a stream → what came
    room = {};               -- how much more may come
    failure = nil;           -- message and errno
    ending = nil;            -- what `wait` said
  }
  for _, name in ipairs { "stdout", "stderr" } do
    if process[name] then
      job.parts[name], job.room[name] = {}, job.max
    end
  end
  scope.scope(converse, job)
  return outcome(job)
end

return M
