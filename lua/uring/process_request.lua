--- What `uring.process` is asked for: checked, and made ready for the core.

local core = require "uring.core"
local file = require "uring.file"
local options = require "uring.options"
local stream = require "uring.stream"

local M = {}

local FD_MAX = 255        -- of the process; also in child_spawn.c
local GRACE = 2           -- seconds between TERM and KILL, by default
local GRACE_MAX = 1000000 -- seconds

-- Options of one type, and those of several.
local simple = {
  spawn = { cwd = "string", session = "boolean", grace = "number", env = "table", setenv = "table", fds = "table" };
}
simple.run = { input = "string", timeout = "number", max = "integer" }
for name, kind in pairs(simple.spawn) do
  simple.run[name] = kind
end

local of_several_types = { "stdin", "stdout", "stderr", "group" }

local targets = { stdin = 0, stdout = 1, stderr = 2 }

-- Raises; whoever calls in has the blame.
local function fail(message, ...)
  error(message:format(...), 2)
end

--
-- Words
--

local function check_word(what, x)
  if type(x) ~= "string" and type(x) ~= "number" then
    fail("%s: string expected, got %s", what, type(x))
  end
  local word = tostring(x)
  if word:find("\0", 1, true) then
    fail("%s: there is a zero byte in it", what)
  end
  return word
end

local function arguments(subject, given)
  local n = #given
  if n == 0 then
    fail("bad argument #1 to '%s' (there is no command at [1])", subject)
  end
  local list = {}
  for i = 1, n do
    list[i] = check_word(("argument [%d] of %s"):format(i, subject), given[i])
  end
  return list
end

local function check_variable(subject, option, name)
  if type(name) ~= "string" then
    fail("option '%s' of %s: names of variables expected, got %s", option, subject, type(name))
  elseif name == "" or name:find "[=%z]" then
    fail("option '%s' of %s: %q is no name of a variable", option, subject, name)
  end
end

-- This process's variables.
local function inherited()
  local variables = {}
  for _, entry in ipairs(core.environment()) do
    local name, value = entry:match "^([^=]+)=(.*)"
    if name then
      variables[name] = value
    end
  end
  return variables
end

-- A list of "NAME=value"; nil for this process's environment.
local function environment(subject, given)
  if not given.env and not given.setenv then
    return nil
  end
  local variables = {}
  for name, value in pairs(given.env or inherited()) do
    check_variable(subject, "env", name)
    variables[name] = check_word(("option 'env' of %s: %s"):format(subject, name), value)
  end
  for name, value in pairs(given.setenv or {}) do
    check_variable(subject, "setenv", name)
    if value == false then
      variables[name] = nil
    else
      variables[name] = check_word(("option 'setenv' of %s: %s"):format(subject, name), value)
    end
  end
  local list = {}
  for name, value in pairs(variables) do
    list[#list + 1] = name .. "=" .. value
  end
  table.sort(list)
  return list
end

--
-- Descriptors
--

-- The number of what has one; nil: it is something else.
local function number_of(x)
  if math.type(x) == "integer" and x >= 0 then
    return x
  end
  local meta = getmetatable(x)
  if (type(x) == "table" or type(x) == "userdata") and type(meta) == "table" and meta.__index
      and type(x.fd) == "function" then
    return x:fd()
  end
end

local function check_path(what, x, mode)
  local path = x[1]
  mode = x[2] == nil and mode or x[2]
  if type(path) ~= "string" then
    fail("%s: path expected at [1], got %s", what, type(path))
  elseif type(mode) ~= "string" or not mode:find "^[rwa]%+?b*$" then
    fail("%s: invalid mode at [2]", what)
  end
  return { path = path, mode = mode }
end

-- What is to become a descriptor of the process: { path, mode }, { fd, owner },
-- { pipe }, { like }, another of its descriptors, or {}: nothing.
local function check_source(what, x, target, words)
  if words[x] then
    return words[x](target)
  elseif type(x) == "table" and getmetatable(x) == nil then
    return check_path(what, x, target == 0 and "r" or "w")
  end
  local fd = number_of(x)
  if not fd then
    local list = {}
    for word in pairs(words) do
      list[#list + 1] = ("%q"):format(word)
    end
    table.sort(list)
    fail("%s: %s, { path, mode }, a descriptor or what has one expected, got %s", what, table.concat(list, ", "),
      type(x) == "string" and ("%q"):format(x) or type(x) == "number" and tostring(x) or type(x))
  end
  return { fd = fd, owner = x }
end

local function null()
  return { path = "/dev/null", mode = "r+" }
end

-- One that is closed here now is so in the process, whatever is opened meanwhile.
local function inherit(target)
  return core.is_open(target) and { fd = target } or {}
end

local function pipe()
  return { pipe = true }
end

local function like_stdout()
  return { like = 1 }
end

local standard_words = { inherit = inherit, null = null, pipe = pipe }
local words = {
  stdin = standard_words;
  stdout = standard_words;
  stderr = { inherit = inherit, null = null, pipe = pipe, stdout = like_stdout };
  fds = { null = null };
}

local function sources(subject, given, fallback)
  local list = {}
  for name, target in pairs(targets) do
    local x = given[name]
    if x == nil then
      x = fallback[name]
    end
    list[target] = check_source(("option '%s' of %s"):format(name, subject), x, target, words[name])
    list[target].name = name
  end
  for target, x in pairs(given.fds or {}) do
    if math.type(target) ~= "integer" or target < 3 or target > FD_MAX then
      fail("option 'fds' of %s: descriptors from 3 to %d expected, got %s", subject, FD_MAX, tostring(target))
    end
    list[target] = check_source(("option 'fds' of %s: %d"):format(subject, target), x, target, words.fds)
  end
  return list
end

--
-- The plan
--

local methods = {}
local Plan = { __index = methods }

local shut = getmetatable(core.descriptor()).__close

-- Closes what the process has of its own by now, or has not come to have.
function Plan:__close()
  for _, descriptor in ipairs(self.held) do
    shut(descriptor)
  end
  for _, opened in ipairs(self.files) do
    opened:close()
  end
end

local function hold(plan)
  local descriptor = core.descriptor()
  plan.held[#plan.held + 1] = descriptor
  return descriptor
end

-- Opens what becomes one of the descriptors.  Its number; nil where there is
-- none; nil, message, errno.
local function open_source(plan, source)
  if source.path then
    local opened, message, errno = file.open(source.path, source.mode)
    if not opened then
      return nil, message, errno
    end
    plan.files[#plan.files + 1] = opened
    return opened:fd()
  elseif not source.pipe then
    return source.fd
  end
  local ours = {
    stream = stream.new("pipe", ("%s of %s"):format(source.name, plan.arguments[1]));
    descriptor = hold(plan); -- until there is a process
  }
  local theirs = hold(plan)
  local to_read, to_write, errno
  if source.name == "stdin" then
    to_read, to_write, errno = core.pipe(theirs, ours.descriptor)
  else
    to_read, to_write, errno = core.pipe(ours.descriptor, theirs)
  end
  if not to_read then
    return nil, to_write, errno
  end
  plan.pipes[source.name] = ours
  return source.name == "stdin" and to_read or to_write
end

--- Opens files and pipes; awaits.  What another task has closed by then is not
-- given to the process: its number may be somebody else's.
-- @treturn boolean true; nil, message, errno
-- @raise where something has been closed
function methods:open()
  for target, source in pairs(self.wanted) do
    local fd, message, errno = open_source(self, source)
    if message then
      return nil, message, errno
    end
    self.sources[target] = fd
  end
  for target, source in pairs(self.wanted) do
    if source.owner then
      self.sources[target] = number_of(source.owner)
    end
  end
  for target, source in pairs(self.wanted) do
    if source.like then
      self.sources[target] = self.sources[source.like]
    end
  end
  return true
end

local function check_group(subject, given, group)
  if given.group ~= nil then
    group = given.group
  end
  if type(group) ~= "boolean" and (math.type(group) ~= "integer" or group < 1) then
    fail("option 'group' of %s: true, or the number of a group, expected, got %s", subject, tostring(group))
  elseif given.session and type(group) == "number" then
    fail("option 'group' of %s: a process with a session of its own cannot join another group", subject)
  end
  return group
end

local function check_seconds(subject, given, name, max)
  local seconds = given[name]
  if seconds and not (seconds >= 0 and seconds <= max) then
    fail("option '%s' of %s: %s is not from 0 to %.14g seconds", name, subject, tostring(seconds), max)
  end
end

local function check_options(subject, given)
  if type(given) ~= "table" then
    fail("bad argument #1 to '%s' (table expected, got %s)", subject, type(given))
  end
  local known, named = {}, {}
  for name, kind in pairs(simple[subject]) do
    known[name] = kind
  end
  for _, name in ipairs(of_several_types) do
    known[name] = "any" -- and looked at later
  end
  for name, value in pairs(given) do
    if known[name] ~= "any" and not (math.type(name) == "integer" and name >= 1 and name <= #given) then
      named[name] = value
    end
  end
  options.check(subject, named, known)
  check_seconds(subject, given, "grace", GRACE_MAX)
  check_seconds(subject, given, "timeout", math.huge)
end

-- What `run` has besides.
local function check_run(given)
  if given.input and given.stdin ~= nil and given.stdin ~= "pipe" then
    fail "options 'input' and 'stdin' of run exclude each other"
  elseif not given.input and given.stdin == "pipe" then
    fail "option 'stdin' of run: nobody could write to that pipe; give 'input'"
  elseif given.max and given.max < 0 then
    fail "option 'max' of run is negative"
  end
end

local defaults = {
  spawn = function()
    return { stdin = "inherit", stdout = "inherit", stderr = "inherit" }, false
  end;
  run = function(given)
    check_run(given)
    return { stdin = given.input and "pipe" or "null", stdout = "pipe", stderr = "pipe" }, not given.session
  end;
}

--- Checks what was asked for.
-- @string subject "spawn" or "run"
-- @tab given
-- @treturn Plan to be opened, and closed once the process has been started
-- @raise what is wrong with it
function M.plan(subject, given)
  check_options(subject, given)
  local fallback, group = defaults[subject](given)
  group = check_group(subject, given, group)
  return setmetatable({
    arguments = arguments(subject, given);
    environment = environment(subject, given); -- nil: this process's
    cwd = given.cwd and check_word("option 'cwd' of " .. subject, given.cwd);
    group = group == true and 0 or group or nil; -- 0: its own
    session = given.session or false;
    leads = group == true or given.session or false;
    grace = given.grace or GRACE;
    wanted = sources(subject, given, fallback);
    sources = {}; -- its descriptors → ours
    pipes = {};   -- name → the end that is ours, and a stream for it
    held = {};    -- Descriptors
    files = {};
  }, Plan)
end

return M
