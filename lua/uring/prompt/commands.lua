--- What begins with a colon at the prompt.  A command gets the session and the
-- rest of its line; what it returns is printed.

local core = require "uring.core"
local replaced = require "uring.replaced"

local M = {}

-- name → { usage, what it does, function }
local commands = {}

--
-- Tables of text
--

local function seconds_text(seconds)
  if not seconds then
    return ""
  elseif seconds < 1 then
    return ("%.0f ms"):format(seconds * 1000)
  elseif seconds < 120 then
    return ("%.1f s"):format(seconds)
  end
  return ("%d min"):format(seconds // 60)
end

local function bytes_text(bytes)
  if bytes == 0 then
    return ""
  elseif bytes < 10240 then
    return bytes .. " B"
  end
  return ("%.0f KB"):format(bytes / 1024)
end

local function columns(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, utf8.len(cell) or #cell)
    end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = cell .. (" "):rep(widths[i] - (utf8.len(cell) or #cell))
    end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n")
end

--
-- Tasks
--

-- Tasks keep their numbers as long as they live.
local numbers, last_number = setmetatable({}, { __mode = "k" }), 0

local function number_of(task)
  if not numbers[task] then
    last_number = last_number + 1
    numbers[task] = last_number
  end
  return numbers[task]
end

--- The program's tasks, each as `uring.tasks` has it and with its `number`.
function M.tasks(session)
  local list = {}
  for _, t in ipairs(core.tasks()) do
    if not session.own[t.task] then
      t.number = number_of(t.task)
      list[#list + 1] = t
    end
  end
  table.sort(list, function(a, b) return a.number < b.number end)
  return list
end

--- A task by its number or name.
-- @treturn Task nil, message
function M.find_task(session, what)
  local found
  for _, t in ipairs(M.tasks(session)) do
    if tostring(t.number) == tostring(what) or t.name == what then
      found = found or t.task
    end
  end
  if not found then
    return nil, ("there is no task %s; :tasks lists them"):format(tostring(what))
  end
  return found
end

--- Lines that tell of tasks.
function M.describe_tasks(tasks)
  local rows = {}
  for _, t in ipairs(tasks) do
    rows[#rows + 1] = { ("%3d"):format(t.number), t.name or "-", t.waiting or t.status,
      seconds_text(t.since), t.where or "" }
  end
  return columns(rows)
end

commands.tasks = { "[N|name]", "the tasks: what each waits for, since when, and where; of one, its stack",
  function(session, what)
    if what ~= "" then
      local task, message = M.find_task(session, what)
      return task and task:traceback() or message
    end
    local list = M.tasks(session)
    return #list == 0 and "no tasks" or M.describe_tasks(list)
  end }

commands.cancel = { "N|name", "cancels a task", function(session, what)
  local task, message = M.find_task(session, what)
  if not task then
    return message
  end
  task:cancel()
  core.yield() -- so that a task that can end at once has
  return tostring(task)
end }

--
-- Operations
--

commands.ops = { "", "the operations that are prepared or in flight, and the bytes lent with them",
  function(session)
    local rows, lent = {}, 0
    for _, o in ipairs(core.operations()) do
      if not (o.name == "poll_add" and o.fd == session.bell) then
        local who = o.task and (o.task:name() or "task " .. number_of(o.task)) or o.orphan and "nobody" or "a handle"
        rows[#rows + 1] = { o.fd and ("%s on fd %d"):format(o.name, o.fd) or o.name, o.status, bytes_text(o.lent),
          seconds_text(o.since), "for " .. who, o.ring ~= session.ring and "ring " .. o.ring or "" }
        lent = lent + o.lent
      end
    end
    if #rows == 0 then
      return "no operations"
    end
    return ("%s\n%d operation%s, %d bytes lent"):format(columns(rows), #rows, #rows == 1 and "" or "s", lent)
  end }

commands.stats = { "", "counters of the default ring", function(session)
  return session.dump(core.on_default.stats(), { width = 40 })
end }

--
-- Modules
--

-- The module table gets what the new one has, so whoever has it has that; and
-- functions that a server was given have successors.
local function update(old, new)
  for name, value in pairs(new) do
    if type(value) == "function" and type(old[name]) == "function" then
      replaced.replace(old[name], value)
    end
  end
  for name in pairs(old) do
    if new[name] == nil then
      old[name] = nil
    end
  end
  for name, value in pairs(new) do
    old[name] = value
  end
end

commands.reload = { "module", "loads a module anew, into the table that others have of it", function(_, name)
  local old = package.loaded[name]
  if old == nil then
    return ("module '%s' has not been loaded"):format(name)
  elseif name:find "^uring%.?" then
    return ("module '%s' is what you run on"):format(name)
  end
  package.loaded[name] = nil
  local ok, new = pcall(require, name)
  if not ok then
    package.loaded[name] = old
    return ("%s\nthe module is what it was"):format(tostring(new))
  elseif type(old) == "table" and type(new) == "table" then
    update(old, new)
    package.loaded[name] = old
  elseif type(old) == "function" and type(new) == "function" then
    replaced.replace(old, new)
  end
  return "reloaded " .. name
end }

commands.time = { "expression", "its values, and how long it took", function(session, text)
  if text == "" then
    return "what is there to time?"
  end
  local began, cpu = core.now(), os.clock()
  local complete, message = session:evaluate(text)
  if not complete then
    return message
  end
  return ("%.6f s, of which this process computed %.6f s"):format(core.now() - began, os.clock() - cpu)
end }

--
-- Help
--

local order = { "help", "tasks", "cancel", "ops", "stats", "time", "reload" }

local about = [[
An input is Lua: an expression, whose values are shown, or statements; it may take several lines.
It runs as a task, so it can await; Ctrl-C cancels it, or clears the line; Ctrl-D ends.
What it spawns runs on. Locals live on in later inputs, but for those with <close>.
  _                  the first value of the last expression; _2, _3 … are the others
  help(uring.listen) what the documentation says; also help "Task:await"
  task(N or name)    a task of :tasks, to await, cancel or look at
]]

commands.help = { "", "this", function()
  local rows = {}
  for _, name in ipairs(order) do
    local command = commands[name]
    rows[#rows + 1] = { ("  :%s %s"):format(name, command[1]), command[2] }
  end
  return about .. columns(rows)
end }

M.all = commands

--- Carries out a line that begins with a colon.
-- @treturn string what to print, or nil
function M.run(session, line)
  local name, rest = line:match "^%s*:%s*(%a*)%s*(.-)%s*$"
  local command = commands[name]
  if not command then
    return ("there is no command :%s%s; :help lists them"):format(name, core.near(name, order))
  end
  return command[3](session, rest)
end

return M
