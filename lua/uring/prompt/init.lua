--- The prompt.
--
-- The main chunk turns the loop and takes signals; a task reads inputs and waits
-- for them; each input is a task of its own.  What an input spawns belongs to no
-- scope that could end with it.  The task that reads is replaced when it has
-- to be: when an input does not end and is left to itself.

local core = require "uring.core"
local chunk = require "uring.prompt.chunk"
local commands = require "uring.prompt.commands"
local complete = require "uring.prompt.complete"
local dump = require "uring.dump"
local history = require "uring.prompt.history"
local output = require "uring.prompt.output"
local replaced = require "uring.replaced"
local terminal = require "uring.prompt.terminal"

local interrupt = core.interrupt

-- Seconds that tasks have to end when the prompt has.
local GRACE = 2

local Session = {}
Session.__index = Session

--
-- Showing
--

-- Everything that the prompt itself says.
function Session:say(text)
  self.output:fresh_line()
  io.stdout:write(text, "\n")
  io.stdout:flush()
end

local function show_values(self, values)
  local texts, lines = {}, false
  for i = 1, values.n do
    texts[i] = dump(values[i])
    lines = lines or texts[i]:find("\n", 1, true)
    _G[i == 1 and "_" or "_" .. i] = values[i]
  end
  local i = math.max(2, values.n + 1)
  while _G["_" .. i] ~= nil do -- of an earlier input
    _G["_" .. i] = nil
    i = i + 1
  end
  self:say(table.concat(texts, lines and "\n" or "\t"))
end

local function error_text(err)
  if type(err) == "string" then
    return err
  elseif type(err) == "table" and not (getmetatable(err) or {}).__tostring then
    return "(error object) " .. dump(err)
  end
  return tostring(err)
end

-- The stack of an input, without what is below it.
local function traceback_of(task)
  local trace = task:traceback()
  return trace and trace:gsub("^task [^\n]*\n", "")
end

local function show_error(self, task, err)
  local trace = traceback_of(task)
  self:say(error_text(err) .. (trace and "\n" .. trace or ""))
end

--
-- Evaluating
--

-- Functions by name, and what has no name yet.
local function functions_of(self)
  local found = {}
  for name, value in next, _G do
    if type(value) == "function" then
      found[name] = value
    end
  end
  for name, value in self.locals:each() do
    if type(value) == "function" then
      found[name] = value
    end
  end
  return found
end

-- A name that stands for another function now: servers that have the old one
-- call the new.
local function note_redefinitions(before, after)
  for name, old in pairs(before) do
    local new = after[name]
    if new and new ~= old then
      replaced.replace(old, new)
    end
  end
end

local function name_task(name, value)
  if core.is_task(value) and type(name) == "string" and name:sub(1, 1) ~= "_" and not value:name() then
    value:name(name)
  end
end

-- Tasks are known by the variables that they are in.
local function name_tasks(self)
  for name, value in next, _G do
    name_task(name, value)
  end
  for name, value in self.locals:each() do
    name_task(name, value)
  end
end

-- Waits for an input; Ctrl-C cancels it.
local function await_input(self, task)
  self.running, self.struck = task, false
  interrupt.foreground(task)
  local results = table.pack(pcall(task.await, task))
  interrupt.foreground(self.task)
  if self.left or self.ended then -- it is this task that was cancelled
    error(core.cancelled, 0)
  end
  self.running = nil
  return results
end

-- Runs a function as an input.
local function run_input(self, fn)
  local before = functions_of(self)
  local task = core.spawn_here(fn)
  task:name(("input %d"):format(self.count))
  local results = await_input(self, task)
  note_redefinitions(before, functions_of(self))
  name_tasks(self)
  if results[1] then
    if results.n > 1 then
      show_values(self, table.pack(table.unpack(results, 2, results.n)))
    end
  elseif results[2] == core.cancelled then
    self:say(self.struck and "interrupted" or "cancelled")
  else
    show_error(self, task, results[2])
  end
end

--- Compiles and runs text.  Nil: its end is missing, and nothing has been done.
function Session:evaluate(text)
  local fn, message, incomplete = self.locals:compile(text, ("=input %d"):format(self.count))
  if incomplete then
    return nil, message
  elseif not fn then
    self:say(message)
  else
    if message then
      self:say("note: " .. message)
    end
    run_input(self, fn)
  end
  return true
end

--
-- Reading
--

local function prompt_text(self, first)
  local own = rawget(_G, first and "_PROMPT" or "_PROMPT2")
  if own ~= nil then
    return tostring(own)
  end
  return self.count .. (first and "> " or ">> ")
end

-- The end of a line, typed, has ended that on the screen, too.
local function read_line(self, first)
  local line = self.terminal:read(prompt_text(self, first))
  self.output.in_line = false
  return line
end

-- Takes an input, with more lines if it needs them; false: interrupted, nil: the
-- end.
local function read_input(self)
  local text = read_line(self, true)
  if not text then
    return text
  elseif text:find "^%s*:%s*%a" then
    return text, true
  end
  while true do
    local fn, message, incomplete = self.locals:compile(text, ("=input %d"):format(self.count))
    if fn or not incomplete then
      return text, true
    end
    local line = read_line(self, false)
    if not line then
      if line == nil then
        self:say(message)
      end
      return line
    end
    text = text .. "\n" .. line
  end
end

local function do_input(self, text)
  if self.history:add(text) then
    self.terminal:remember(text)
  end
  if text:find "^%s*:%s*%a" then
    local said = commands.run(self, text)
    if said then
      self:say(said)
    end
  elseif text:find "%S" then
    self:evaluate(text)
  end
end

local function traced(err)
  return type(err) == "string" and debug.traceback(err, 2) or err
end

-- The task that reads, until the end of input.
local function read_and_do(self)
  interrupt.foreground(self.task)
  while not self.ended do
    self.output:fresh_line()
    local text = read_input(self)
    if text == nil then
      self.ended = "end of input"
    elseif text then
      local ok, err = xpcall(do_input, traced, self, text)
      if self.left or self.ended then
        error(core.cancelled, 0)
      elseif not ok then
        self:say(error_text(err))
      end
      self.count = self.count + 1
    end
  end
end

--
-- Signals
--

-- Ctrl-C: once cancels the input, and a second time leaves it to itself.
local function on_interrupt(self)
  if not self.running then
    self.terminal:interrupt()
  elseif not self.struck then
    self.struck = true
    self.running:cancel()
  else
    self:say(("input %d does not end; it is left to itself (:tasks, :cancel)"):format(self.count))
    self.count = self.count + 1
    self.left = true
    self.task:cancel()
  end
end

local function take_signals(self)
  local caught = interrupt.take()
  self:ring_bell()
  if caught.HUP or caught.TERM then
    self.signalled = true
    self.ended = caught.HUP and "the terminal was closed" or "terminated"
    self.task:cancel()
    return
  end
  if caught.INT then
    on_interrupt(self)
  end
  if caught.CONT then
    self.terminal:resume()
  end
  if caught.WINCH then
    self.terminal:resize()
  end
end

-- A signal must not come between looking for one and entering the kernel: it
-- ends a poll, too.
function Session:ring_bell()
  if not self.poll or self.poll:status() == "done" then
    self.poll = core.on_default.prepare("poll_add", self.bell, core.const.POLLIN)
  end
end

-- Starts the task that reads, and sees to signals until it has ended.
local function watch(self)
  self.running, self.left = nil, false
  self.task = core.spawn_here(read_and_do, self)
  self.task:name "prompt"
  self.own[self.task] = true
  self:ring_bell()
  while not interrupt.wait(self.task) do
    take_signals(self)
  end
  local ok, err = pcall(self.task.await, self.task)
  if not ok and err ~= core.cancelled then
    self:say("the prompt failed: " .. error_text(err) .. "\n" .. self.task:traceback())
    self.failures = self.failures + 1
    self.ended = self.failures > 10 and "the prompt fails again and again" or self.ended
  end
end

--
-- The end
--

local function others(self)
  return commands.tasks(self)
end

-- Waits until the program's tasks have ended, but not for ever.
local function wait_for_tasks(self)
  local deadline = core.now() + GRACE
  while #others(self) > 0 and core.now() < deadline do
    if interrupt.take().INT then
      return
    end
    core.sleep(0.005)
  end
end

-- The terminal has gone, and whoever started us wants us to outlive it (nohup):
-- until the tasks have ended, or a signal comes.
local function outlive(self)
  local keeper = core.spawn_here(function()
    repeat
      local list = others(self)
      for _, t in ipairs(list) do
        pcall(t.task.await, t.task)
      end
    until #list == 0
  end)
  self.own[keeper] = true
  self:ring_bell()
  while not interrupt.wait(keeper) do
    local caught = interrupt.take()
    self:ring_bell()
    if caught.TERM or caught.INT or caught.HUP then
      keeper:cancel()
    end
  end
end

local function finish(self)
  self.terminal:close()
  if self.terminal.is_terminal and not core.isatty(0) and not self.signalled then
    outlive(self)
  end
  local tasks = others(self)
  if #tasks > 0 then
    self:say(("%s; %d task%s still running:\n%s"):format(self.ended, #tasks, #tasks == 1 and " was" or "s were",
      commands.describe_tasks(tasks)))
    for _, t in ipairs(tasks) do
      t.task:cancel()
    end
    wait_for_tasks(self)
    tasks = others(self)
    if #tasks > 0 then
      self:say(("%d of them did not end when cancelled:\n%s"):format(#tasks, commands.describe_tasks(tasks)))
    end
  elseif self.terminal.is_terminal then
    self:say ""
  end
  self.history:close()
  self.output:close()
  if self.poll then
    self.poll:cancel():await()
  end
  interrupt.release()
end

--
-- The beginning
--

-- A task that nobody waits for has failed.
local function report(err, traceback)
  io.stderr:write(error_text(err), "\n", traceback and traceback .. "\n" or "")
end

local function set_globals(self, uring)
  _G.uring = uring
  _G.coroutine = core.coroutine -- those that await; and Ctrl-C knows of them
  function _G.help(what)
    return self:say(require "uring.help".text(what, uring))
  end
  function _G.task(what)
    local found, message = commands.find_task(self, what)
    return found or error(message, 0)
  end
end

local M = {}

--- Runs the prompt until the end of its input, or until a signal ends it.
-- Outside of tasks.
-- @string greeting what it says first
function M.run(greeting)
  local uring = require "uring"
  local self = setmetatable({
    locals = chunk.locals();
    commands = commands.all;
    dump = dump;
    count = 1;             -- the input that comes next
    running = nil;         -- its task
    struck = false;        -- by Ctrl-C
    left = false;          -- to itself, since it did not end
    task = nil;            -- that reads
    own = {};              -- tasks that are the prompt's: task → true
    ended = nil;           -- why
    signalled = false;     -- by a signal
    failures = 0;
    bell = assert(interrupt.note());
    poll = nil;            -- of the bell
    ring = 1;
    history = history.open();
  }, Session)
  self.terminal = terminal.open(function(line, start) return complete.candidates(self, line, start) end)
  self.output = output.watch(self.terminal)
  self.own[self.output.task] = true
  core.on_error(report)
  set_globals(self, uring)
  for _, input in ipairs(self.history) do
    self.terminal:remember(input)
  end
  if self.terminal.is_terminal then
    self:say(greeting)
  end
  while not self.ended do
    watch(self)
  end
  finish(self)
end

return M
