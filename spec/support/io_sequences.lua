--- Random sequences of calls on files, for a library that has `io`'s face.
--
-- A sequence is data: contents of files and a list of calls, made from a seed.
-- `run` carries it out with a library and returns all that could be seen of it:
-- results, errors, and what the files hold at the end.  So the same sequence on
-- two libraries must come to the same.
--
-- What C leaves open is left out: two handles on one file, files that are
-- dropped without being closed, and reading right after writing (glibc may then
-- lose what was written): there is a seek in between.

local uring = require "uring"

local M = {}

-- ------------------------------------------------------------------ chance

local Chance = {}
Chance.__index = Chance

-- xorshift64*, so that a seed means the same wherever it is used.
function Chance:bits()
  local x = self.x
  x = x ~ (x >> 12)
  x = x ~ (x << 25)
  x = x ~ (x >> 27)
  self.x = x
  return (x * 0x2545F4914F6CDD1D) >> 11
end

function Chance:upto(n)
  return self:bits() % n + 1
end

function Chance:one_of(list)
  return list[self:upto(#list)]
end

function Chance:percent(n)
  return self:upto(100) <= n
end

local function new_chance(seed)
  local chance = setmetatable({ x = seed * 0x9E3779B97F4A7C15 | 1 }, Chance)
  for _ = 1, 8 do
    chance:bits()
  end
  return chance
end

-- ---------------------------------------------------------------- contents

local numerals = {
  "0", "1", "-1", "+1", "- 1", "+-1", "007", "12345678901234567890", "9223372036854775807", "9223372036854775808",
  "-9223372036854775808", ".5", "5.", ".", "-.5", "-.", "1..2", "1.5.5", "1e5", "1E5", "1e", "1e+", "1e-", "1e+5",
  "1e-5", "1e5e5", "1e400", "0x", "0X", "0x1", "0XaBcDeF", "-0x10", "0x1p4", "0x1P-4", "0x1p", "0x1p+", "0x.8", "0x8.",
  "0x.", "0x.p1", "0x1e5", "0xg", "0x1.8p1", "0xffffffffffffffff", "0x1ffffffffffffffff", "00x1", "inf", "nan", "0b1",
  "1_000", "1,5", "1a", "0xp1", "e5", "x1", "", "--1", "1-1", "0x1p4p4", "0x-1", "+", "-", "1\0", "\0001",
}

local function digits(chance)
  local length = chance:one_of { 5, 30, 198, 199, 200, 201, 202, 300 }
  local prefix = chance:one_of { "", "", "-", "0x", "0.", "0e", "1e" }
  return prefix .. chance:one_of { "0", "1", "9" }:rep(length)
end

local function numeral(chance)
  return chance:percent(10) and digits(chance) or chance:one_of(numerals)
end

-- Lengths around the sizes that buffers have.
local function length(chance)
  if chance:percent(85) then
    return chance:upto(60) - 1
  end
  return chance:one_of { 512, 1024, 4096, 8192, 16384, 65536 } + chance:upto(5) - 3
end

local pieces = {
  function(chance) return ("x"):rep(length(chance)) .. "\n" end;
  function(chance) return chance:one_of { "\n", "\n\n", "\r\n", "\r", "\0", "\0\n", " ", "\t", "\xff", "\n\r" } end;
  function(chance) return numeral(chance) .. chance:one_of { "\n", " ", "\t", "\v", "\f", "", "\r\n", ",", "\0" } end;
  function(chance) return ("a line of words %d\n"):format(chance:upto(1000)) end;
  function(chance)
    local bytes = {}
    for i = 1, chance:upto(40) do
      bytes[i] = string.char(chance:upto(256) - 1)
    end
    return table.concat(bytes)
  end;
}

local function contents(chance)
  if chance:percent(8) then
    return ""
  end
  local parts = {}
  local only = chance:percent(30) and chance:one_of(pieces)
  for i = 1, chance:upto(12) do
    parts[i] = (only or chance:one_of(pieces))(chance)
  end
  return table.concat(parts)
end

-- ------------------------------------------------------------------- calls

local modes = { "r", "r", "rb", "w", "wb", "a", "ab", "r+", "r+", "r+b", "w+", "w+", "w+b", "a+", "a+", "a+b" }
local bad_modes = { "", "x", "rw", "r++", "+", "rt", "br", "R", "wx", true, {}, 5 }
local formats = { "l", "l", "L", "n", "n", "a", "*l", "*L", "*n", "*a", "line", "number", "all", 0, 0, 1, 2, 3.0 }
local bad_formats = { "", "x", "*", "**l", " l", 1.5, "1", true, {}, false, 0 / 0, 2 ^ 63 }

-- "a" where reading fails is a success to io, which goes on to look at the next
-- format: no wrong one comes after it.
local function formats_of(chance)
  local list, all = {}, false
  for i = 1, chance:one_of { 0, 1, 1, 1, 1, 1, 2, 2, 3, 4 } do
    if chance:percent(3) and not all then
      list[i] = chance:one_of(bad_formats)
    elseif chance:percent(15) then
      list[i] = length(chance)
    else
      list[i] = chance:one_of(formats)
    end
    all = all or type(list[i]) == "string" and list[i]:find "^%*?a" ~= nil
  end
  return list
end

local function values(chance)
  local list = {}
  for i = 1, chance:one_of { 0, 1, 1, 1, 1, 1, 2, 3 } do
    if i == 1 and chance:percent(2) then -- io writes what is before a wrong one, ours nothing
      list[i] = chance:one_of { true, {}, false }
    elseif chance:percent(15) then
      list[i] = chance:one_of { 0, 1, -1, 1.0, 0.1, 1e100, 1 / 0, -1 / 0, math.maxinteger, math.mininteger, 2 ^ 53,
        -0.0, 1e15, 123456.789e3 }
    else
      list[i] = chance:one_of(pieces)(chance)
    end
  end
  return list
end

local function seek_arguments(chance)
  if chance:percent(5) then
    return chance:one_of { { "x" }, { "" }, { 5 }, { true }, { "set", "x" }, { "set", 1.5 }, { "set", {} },
      { "set", -1 },
      { "cur", math.mininteger }, { "end", -100000000 }, { "set", "1" }, { "set", "0x2" }, { "set", 2.0 }, {} }
  end
  local whence = chance:one_of { "set", "set", "set", "cur", "cur", "end" }
  local offset = chance:percent(80) and length(chance) or nil
  if offset and (whence == "end" or whence == "cur" and chance:percent(50)) then
    offset = -offset
  end
  return { whence, offset }
end

local function vbuf_arguments(chance)
  if chance:percent(10) then
    return chance:one_of { {}, { "x" }, { 5 }, { true }, { "no", "x" }, { "full", 1.5 }, { "line", {} } }
  end
  return { chance:one_of { "no", "full", "line" }, chance:percent(50) and chance:one_of { 1, 100, 1024, 65536 } or nil }
end

-- What a sequence can do: name → how often, and the arguments.  `slot` calls
-- are about one of the handles.
local calls = {
  open = { 6, slot = true, function(chance)
    return { chance:percent(5) and chance:one_of(bad_modes) or chance:one_of(modes) }
  end };
  open_else = { 1, function(chance)
    local path = chance:one_of { "nope", "dir", "nope/nope", "", 5, true, {} }
    local mode = chance:one_of(modes)
    return { path, path == 5 and "r" or mode } -- a file called 5 would be made where the specs run
  end };
  read = { 22, slot = true, formats_of };
  write = { 12, slot = true, values };
  seek = { 10, slot = true, seek_arguments };
  setvbuf = { 3, slot = true, vbuf_arguments };
  flush = { 3, slot = true };
  close = { 2, slot = true };
  lines = { 3, slot = true, formats_of };
  step = { 8, slot = true };
  loop = { 2, slot = true, formats_of };
  tostring = { 1, slot = true };
  type = { 1, slot = true };
  scoped = { 1, slot = true };
  io_input = { 1, slot = true };
  io_output = { 1, slot = true };
  io_input_else = { 1, function(chance)
    return { chance:one_of { "other", "other", "other", "nope", "dir", true, {}, print } }
  end };
  io_output_name = { 1, function(chance)
    return { chance:one_of { "out", "out", "out", "dir", "nope/nope", true, {} } }
  end };
  io_read = { 5, formats_of };
  io_write = { 5, values };
  io_lines = { 2, function(chance) return { "other", table.unpack(formats_of(chance)) } end };
  io_lines_else = { 1, function(chance)
    return { chance:one_of { "nope", "dir", true, {} }, table.unpack(formats_of(chance)) }
  end };
  io_lines_default = { 1, formats_of };
  io_loop = { 2, function(chance) return { "other", table.unpack(formats_of(chance)) } end };
  io_close = { 1 };
  io_close_else = { 1, slot = true };
  io_type_else = { 1, function(chance) return { chance:one_of { 5, "x", true, {}, print } } end };
  io_flush = { 1 };
  tmpfile = { 1, slot = true };
}

local drawn = {}
do
  local names = {}
  for name in pairs(calls) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    for _ = 1, calls[name][1] do
      drawn[#drawn + 1] = name
    end
  end
end

local SLOTS = 3

--- The sequence of a seed.
-- @treturn table { seed, files = { name = contents }, calls = { { name, slot, arguments }, … } }
function M.make(seed)
  local chance = new_chance(seed)
  local sequence = { seed = seed, files = {}, calls = {} }
  for _, name in ipairs { "1", "2", "3", "other", "out" } do
    sequence.files[name] = contents(chance)
  end
  for slot = 1, SLOTS do
    sequence.calls[slot] = { "open", slot, { chance:one_of(modes) } }
  end
  for i = SLOTS + 1, SLOTS + chance:upto(40) do
    local name = chance:one_of(drawn)
    local call = calls[name]
    local slot = chance:upto(SLOTS)
    sequence.calls[i] = { name, slot, call[2] and call[2](chance) or {} }
  end
  return sequence
end

-- ------------------------------------------------------------------ running

-- The handles in hand, by slot; iterators likewise.  Methods are called with
-- the colon and by their names, since messages name them.
local does = {}

local function name_in(world, name)
  return type(name) == "string" and name ~= "" and world.dir .. "/" .. name or name
end

local function put(world, slot, file, ...)
  if world.lib.type(file) then
    world.files[slot] = file
  end
  return file, ...
end

function does.open(world, slot, mode)
  if world.files[slot] then
    pcall(world.files[slot].close, world.files[slot])
  end
  return put(world, slot, world.lib.open(world.dir .. "/" .. slot, mode))
end

function does.open_else(world, _, name, mode)
  local file, message, errno = world.lib.open(name_in(world, name), mode)
  if file then
    file:close()
  end
  return file and "a file", message, errno
end

function does.tmpfile(world, slot)
  if world.files[slot] then
    pcall(world.files[slot].close, world.files[slot])
  end
  return put(world, slot, world.lib.tmpfile())
end

-- Lua 5.4 gives true, later versions and ours the file.
local function flushed(ok, message, errno)
  return ok and "flushed", message, errno
end

function does.flush(world, slot)
  return flushed(world.files[slot]:flush())
end

-- Closing twice is no error in ours.
local function close(world, close_it, file)
  if world.lib.type(file) == "closed file" then
    return "it was closed"
  end
  return close_it(file)
end

function does.close(world, slot)
  return close(world, function(file) return file:close() end, world.files[slot])
end

-- Ours also tells how many bytes were written before it failed.
local function first_three(a, b, c)
  return a, b, c
end

-- Before a file is read.
local function after_writing(world, file)
  if world.wrote[file] and world.lib.type(file) == "file" then
    file:seek("cur", 0)
  end
  world.wrote[file] = nil
end

function does.write(world, slot, ...)
  world.wrote[world.files[slot]] = true
  return first_three(world.files[slot]:write(...))
end

function does.read(world, slot, ...)
  after_writing(world, world.files[slot])
  return world.files[slot]:read(...)
end

for _, method in ipairs { "seek", "setvbuf" } do
  local code = ("return function(world, slot, ...) return world.files[slot]:%s(...) end"):format(method)
  does[method] = assert(load(code, "=calls"))()
end

function does.lines(world, slot, ...)
  local iterator, a, b, c = world.files[slot]:lines(...)
  world.iterators[slot], world.iterated[slot] = iterator, world.files[slot]
  return type(iterator), a, b, c
end

function does.step(world, slot)
  local iterator = world.iterators[slot]
  if world.iterated[slot] then
    after_writing(world, world.iterated[slot])
  end
  if not iterator then
    return "no iterator"
  end
  return iterator()
end

-- All of a loop's values, up to a number of rounds: a format "a" never ends.
local function loop(next, a, b, closing)
  local seen, rounds = {}, 0
  for x, y, z in next, a, b, closing do
    rounds = rounds + 1
    seen[#seen + 1] = ("%q %q %q"):format(x, y, z)
    if rounds == 50 then
      break
    end
  end
  return table.concat(seen, "\n")
end

function does.loop(world, slot, ...)
  after_writing(world, world.files[slot])
  return loop(world.files[slot]:lines(...))
end

function does.tostring(world, slot)
  return (tostring(world.files[slot]):gsub("%(.*%)", function(inside)
    return inside == "(closed)" and inside or "(open)"
  end))
end

function does.type(world, slot)
  return world.lib.type(world.files[slot])
end

function does.scoped(world, slot)
  do
    local file <close> = world.files[slot]
    file:write ""
  end
  return world.lib.type(world.files[slot])
end

function does.io_input(world, slot)
  return world.lib.input(world.files[slot]), world.lib.input()
end

function does.io_output(world, slot)
  return world.lib.output(world.files[slot]), world.lib.output()
end

-- Before its file is opened again.
local function close_default(world, which)
  local file = world[which]
  if world.lib.type(file) == "file" then
    file:close()
  end
end

function does.io_input_else(world, _, name)
  close_default(world, "input")
  world.input = world.lib.input(name_in(world, name))
  return world.lib.type(world.input)
end

function does.io_output_name(world, _, name)
  close_default(world, "output")
  world.output = world.lib.output(name_in(world, name))
  return world.lib.type(world.output)
end

function does.io_read(world, _, ...)
  after_writing(world, world.lib.input())
  return world.lib.read(...)
end

function does.io_write(world, _, ...)
  world.wrote[world.lib.output()] = true
  return first_three(world.lib.write(...))
end

function does.io_lines(world, slot, name, ...)
  local iterator, a, b, file = world.lib.lines(world.dir .. "/" .. name, ...)
  world.iterators[slot], world.iterated[slot] = iterator, file
  world.others[#world.others + 1] = file
  return type(iterator), a, b, world.lib.type(file)
end

function does.io_lines_else(world, _, name, ...)
  local iterator, a, b, file = world.lib.lines(name_in(world, name), ...)
  world.others[#world.others + 1] = file
  return type(iterator), a, b, world.lib.type(file), iterator()
end

function does.io_lines_default(world, slot, ...)
  local iterator, a, b, c = world.lib.lines(nil, ...)
  world.iterators[slot], world.iterated[slot] = iterator, world.lib.input()
  return type(iterator), a, b, c
end

function does.io_loop(world, _, name, ...)
  return loop(world.lib.lines(world.dir .. "/" .. name, ...))
end

function does.io_close(world)
  return close(world, function() return world.lib.close() end, world.lib.output())
end

function does.io_close_else(world, slot)
  return close(world, world.lib.close, world.files[slot])
end

function does.io_type_else(world, _, value)
  return world.lib.type(value)
end

function does.io_flush(world)
  return flushed(world.lib.flush())
end

-- What must be the same in both: without places, addresses and names of types.
local function comparable(world, value)
  if world.lib.type(value) then
    for slot, file in pairs(world.files) do
      if file == value then
        return "the file in slot " .. slot
      end
    end
    return "a file"
  elseif type(value) == "string" then
    return (value:gsub(world.dir_pattern, "DIR"):gsub(world.type_pattern, "FILE*"))
  elseif value ~= value then
    return "nan"
  elseif math.type(value) == "float" then
    return ("float %a"):format(value)
  end
  return value
end

local function outcome(world, ok, ...)
  local results = table.pack(ok, ...)
  for i = 1, results.n do
    results[i] = comparable(world, results[i])
  end
  return results
end

local function carry_out(world, call)
  local name, slot = call[1], call[2]
  if calls[name].slot and name ~= "open" and name ~= "tmpfile" and not world.files[slot] then
    return { n = 1, "no file" }
  end
  local arguments = call[3]
  return outcome(world, pcall(does[name], world, slot, table.unpack(arguments, 1, #arguments)))
end

local function slurp(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function escape(s)
  return (s:gsub("%p", "%%%0"))
end

-- The files of a sequence in a folder of its own.
local function set_up(sequence)
  local dir = os.tmpname()
  os.remove(dir)
  for _, path in ipairs { dir, dir .. "/dir" } do
    assert(uring.op.mkdirat(nil, path, 448)) -- 0700
  end
  for name, bytes in pairs(sequence.files) do
    local file <close> = assert(io.open(dir .. "/" .. name, "wb"))
    file:write(bytes)
  end
  return dir
end

local function close_all(world)
  local lib = world.lib
  for _, list in ipairs { world.files, world.others, { world.input }, { world.output } } do
    for _, file in pairs(list) do
      if lib.type(file) == "file" then
        file:close()
      end
    end
  end
  lib.input(lib.stdin)
  lib.output(lib.stdout)
end

--- Carries a sequence out.
-- @tab sequence of `make`
-- @tab lib the library: `io`, or one that has its face
-- @string type_name how messages name the type of its files
-- @treturn {table} what came of each call, and at the end a table name → contents
function M.run(sequence, lib, type_name)
  local dir = set_up(sequence)
  local world = {
    lib = lib, dir = dir, dir_pattern = escape(dir), type_pattern = escape(type_name);
    files = {}, iterators = {}, iterated = {}, others = {}, wrote = {};
  }
  world.input = lib.input(dir .. "/other")
  world.output = lib.output(dir .. "/out")
  local seen = {}
  for i, call in ipairs(sequence.calls) do
    seen[i] = carry_out(world, call)
  end
  close_all(world)
  local left = {}
  for name in pairs(sequence.files) do
    left[name] = slurp(dir .. "/" .. name)
  end
  seen[#seen + 1] = left
  assert(uring.fs.remove(dir, { recursive = true }))
  return seen
end

-- ---------------------------------------------------------------- shrinking

local function without(list, first, last)
  local rest = {}
  for i, item in ipairs(list) do
    if i < first or i > last then
      rest[#rest + 1] = item
    end
  end
  return rest
end

local function with_calls(sequence, list)
  return { seed = sequence.seed, files = sequence.files, calls = list }
end

-- Leaves out runs of calls that the failure does not need, long ones first.
local function fewer_calls(sequence, fails)
  local size = #sequence.calls // 2
  while size >= 1 do
    local first = 1
    while first <= #sequence.calls do
      local smaller = with_calls(sequence, without(sequence.calls, first, first + size - 1))
      if fails(smaller) then
        sequence = smaller
      else
        first = first + size
      end
    end
    size = size // 2
  end
  return sequence
end

local function with_file(sequence, name, bytes)
  local files = {}
  for other, contents_of in pairs(sequence.files) do
    files[other] = contents_of
  end
  files[name] = bytes
  return { seed = sequence.seed, files = files, calls = sequence.calls }
end

local function shorter_file(sequence, name, fails)
  for _, cut in ipairs { 2, 1 } do -- from the end, then from the beginning
    local size = #sequence.files[name]
    while size >= 1 do
      local bytes = sequence.files[name]
      local smaller = with_file(sequence, name, cut == 2 and bytes:sub(1, -size - 1) or bytes:sub(size + 1))
      if #bytes >= size and fails(smaller) then
        sequence = smaller
      else
        size = size // 2
      end
    end
  end
  return sequence
end

--- The shortest sequence that still fails, as far as leaving things out finds it.
-- @func fails sequence → boolean
function M.shrink(sequence, fails)
  sequence = fewer_calls(sequence, fails)
  local names = {}
  for name in pairs(sequence.files) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    sequence = shorter_file(sequence, name, fails)
  end
  return sequence
end

-- ------------------------------------------------------------------ reports

local function show(value)
  if type(value) == "string" and #value > 120 then
    return ("%q … %q (%d bytes)"):format(value:sub(1, 60), value:sub(-20), #value)
  elseif type(value) == "string" or type(value) == "number" then
    return ("%q"):format(value)
  end
  return tostring(value)
end

local function show_list(list)
  local shown = {}
  for i = 1, list.n or #list do
    shown[i] = show(list[i])
  end
  return table.concat(shown, ", ")
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

M.same = same

--- A sequence with what came of it, for people: calls, and where they differ.
function M.report(sequence, expected, got)
  local lines = { ("seed %d"):format(sequence.seed) }
  for name, bytes in pairs(sequence.files) do
    if bytes ~= "" then
      lines[#lines + 1] = ("  file %s: %s"):format(name, show(bytes))
    end
  end
  for i, call in ipairs(sequence.calls) do
    lines[#lines + 1] = ("  %d. %s %s(%s)"):format(i, call[2], call[1], show_list(call[3]))
    if not same(expected[i], got[i]) then
      lines[#lines + 1] = "     expected " .. show_list(expected[i])
      lines[#lines + 1] = "     got      " .. show_list(got[i])
    end
  end
  local last = #sequence.calls + 1
  for name, bytes in pairs(expected[last]) do
    if got[last][name] ~= bytes then
      lines[#lines + 1] = ("  at the end %s has %s\n     expected %s"):format(name, show(got[last][name]), show(bytes))
    end
  end
  return table.concat(lines, "\n")
end

return M
