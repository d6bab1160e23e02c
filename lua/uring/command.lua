--- The command `uring`: the stock interpreter's options, for scripts that await.

local M = {}

local usage = [==[
usage: uring [options] [script [args]]
Available options are:
  -e stat   execute string 'stat'
  -i        enter interactive mode after executing 'script'
  -l mod    require library 'mod' into global 'mod'
  -l g=mod  require library 'mod' into global 'g'
  -v        show version information (also --version)
  -W        turn warnings on
  --help    show this
  --types   print type stubs for LuaLS
  --reference  print the reference, in Markdown
  --        stop handling options
  -         stop handling options and execute stdin
Scripts and strings run as a task: they can await. Without any, and on a terminal, there is a prompt.
]==]

local function version()
  return ("%s, on %s"):format(require "uring"._VERSION, _VERSION)
end

-- As the interpreter has it: what is no string has no traceback.
local function message_of(err)
  if type(err) == "number" then
    return tostring(err)
  elseif type(err) == "string" then
    return (err:gsub("\ntask traceback:", "\nstack traceback:", 1))
  end
  local meta = getmetatable(err)
  if type(meta) == "table" and meta.__tostring then
    return tostring(err)
  end
  return ("(error object is a %s value)"):format(type(err))
end

local function complain(message)
  io.stderr:write("uring: ", message, "\n")
  return false
end

--
-- Arguments
--

local takes_value = { e = true, l = true }

local function add_action(options, letter, value)
  options.actions[#options.actions + 1] = { letter, value }
end

-- One argument that begins with a dash.  Returns the index of the next; nil: it
-- is none that there is.
local function parse_option(options, args, i)
  local word = args[i]
  local letter, value = word:match "^%-(%a)(.*)$"
  if word == "--help" or word == "--version" then
    options[word:sub(3)] = true
  elseif word == "--types" or word == "--reference" then
    options.generate = word == "--types" and "uring.doc.types" or "uring.doc.markdown"
  elseif word == "-i" then
    options.interactive = true
  elseif word == "-v" then
    options.version = true
  elseif word == "-W" then
    add_action(options, "W")
  elseif takes_value[letter] then
    if value == "" then
      i = i + 1
      value = args[i]
      if not value then
        return nil, ("'-%s' needs argument"):format(letter)
      end
    end
    add_action(options, letter, value)
  else
    return nil, ("unrecognized option '%s'"):format(word)
  end
  return i + 1
end

local function parse(args)
  local options = { actions = {}, script = nil }
  local i = 1
  while args[i] and args[i]:find "^%-." do
    if args[i] == "--" then
      i = i + 1
      break
    end
    local next_i, message = parse_option(options, args, i)
    if not next_i then
      return nil, message
    end
    i = next_i
  end
  options.script = args[i] and i or nil
  return options
end

-- The table `arg`: the script at 0, as the interpreter has it.
local function set_arg(args, script)
  local shifted, last = {}, #args
  local shift = script or 0
  for i = -32, last do
    if args[i] ~= nil then
      shifted[i - shift] = args[i]
    end
  end
  _G.arg = shifted
end

--
-- Running
--

local actions = {}

function actions.e(chunk)
  _G.uring = _G.uring or require "uring"
  local fn, message = load(chunk, "=(command line)", "t")
  if not fn then
    error(message, 0)
  end
  fn()
end

function actions.l(library)
  local name, module = library:match "^([^=]*)=(.*)$"
  name, module = name or library, module or library
  local ok, result = pcall(require, module)
  if not ok then
    error(result, 0)
  end
  _G[name] = result
end

function actions.W()
  warn "@on"
end

-- Runs what the command line asks for.
local function run_all(options, args)
  for _, action in ipairs(options.actions) do
    actions[action[1]](action[2])
  end
  if options.script then
    local path = args[options.script]
    set_arg(args, options.script)
    local chunk, message = loadfile(path ~= "-" and path or nil)
    if not chunk then
      error(message, 0)
    end
    chunk(table.unpack(_G.arg))
  elseif options.stdin then
    local chunk, message = loadfile()
    if not chunk then
      error(message, 0)
    end
    chunk()
  end
end

-- In a scope that ends with all that was started; before a prompt, in none.
local function run(options, args)
  local core = require "uring.core"
  core.interrupt.strike()
  local ok, err
  if options.interactive then
    local task = core.spawn_here(run_all, options, args)
    ok, err = pcall(task.await, task)
    if not ok and type(err) == "string" then
      err = err .. "\n" .. task:traceback()
    end
  else
    ok, err = pcall(require "uring.scope".run, run_all, options, args)
  end
  core.interrupt.release()
  return ok or complain(message_of(err))
end

local function show(options)
  if options.help then
    io.stdout:write(usage)
  elseif options.generate then
    io.stdout:write(require(options.generate).text(require "uring"))
  elseif options.version then
    print(version())
  end
end

--- Does what the command line says.
-- @tab args as the interpreter's `arg`
-- @treturn bool did all go well?  For `os.exit`
function M.main(args)
  local options, message = parse(args)
  if not options then
    io.stderr:write("uring: ", message, "\n", usage)
    return false
  end
  show(options)
  local idle = not options.script and #options.actions == 0
  if options.help or options.generate or (idle and options.version and not options.interactive) then
    return true
  end
  local isatty = require "uring.core".isatty
  if idle and not options.interactive then
    options.interactive = isatty(0)
    options.stdin = not options.interactive
  end
  set_arg(args, nil)
  if not (idle and options.interactive) and not run(options, args) then
    return false
  end
  if options.interactive then
    require "uring.prompt".run(version() .. "; :help tells what there is")
  end
  return true
end

return M
