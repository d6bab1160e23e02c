--- What every row is measured with: processes that end, pinning, medians, alternation and the comparison of figures.
--
-- A contender is a program of its own that prints key=value pairs; a *sample* is the table of them: ops, wall (s) and
-- cpu (s, user + system of the process under test) of the measured window, start-up excluded. Figures are drawn from
-- samples, and a ratio is always above 1 where ours is better.

local h = {}

--- Where the benchmarks live, and the interpreter that runs them.
h.dir = arg[0]:match "^(.*)/[^/]*$" or "."
do
  local i = 0
  while arg[i - 1] do i = i - 1 end
  h.lua = os.getenv "LUA" or arg[i]
end

local function number(name, default)
  local given = os.getenv(name)
  local n = tonumber(given or default)
  if not n or n <= 0 then error(("%s=%s: a number above 0 is wanted"):format(name, given), 0) end
  return n
end

--- Rounds of each row, and the seconds one measured window should take.
h.rounds = math.ceil(number("ROUNDS", 5))
h.seconds = number("SECONDS", 1)

--- How much work fills a window, given what one second takes.
function h.scaled(n) return math.max(1, math.floor(n * h.seconds)) end

--- How long any one process may live, in seconds.
h.limit = math.ceil(30 + 10 * h.seconds)

local function quote(s) return "'" .. tostring(s):gsub("'", [['\'']]) .. "'" end

-- Up to the first nil.
local function words(...)
  local list = {}
  for i, word in ipairs { ... } do list[i] = quote(word) end
  return table.concat(list, " ")
end

--- The first line a shell command prints, or nil.
function h.ask(command)
  local p <close> = assert(io.popen(command .. " 2>/dev/null"))
  return p:read "l"
end

-- The processors this process may use, in order: in a container they need not begin at 0.
local function processors()
  local list = {}
  for range in (h.ask "taskset -cp $$" or ""):match("[%d,-]*$"):gmatch "[^,]+" do
    local from, to = range:match "^(%d+)-?(%d*)$"
    for cpu = from, to ~= "" and to or from do list[#list + 1] = cpu end
  end
  return list
end

h.processors = processors()

-- Pins a command to the nth processor allowed (the last where there are fewer); without taskset it runs unpinned.
local function pinned(nth, command)
  local cpu = h.processors[math.min(nth, #h.processors)]
  return cpu and ("taskset -c %d %s"):format(cpu, command) or command
end

-- No process outlives its limit, whatever becomes of the one that started it.
local function limited(command) return ("exec timeout --foreground -k 2 %d %s"):format(h.limit, command) end

-- The first lines of a failure say enough; the rest of a traceback does not.
local function beginning(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do
    lines[#lines + 1] = line
    if #lines == 6 then break end
  end
  return table.concat(lines, "\n")
end

local function parse(text)
  local sample = {}
  for key, value in text:gmatch "([%w_]+)=(%S+)" do sample[key] = tonumber(value) or value end
  return sample
end

--- Command lines: a compiled reference, a contender in Lua (each with its arguments).
function h.bin(name, ...) return words((os.getenv "BENCH_BIN" or "build/bench") .. "/" .. name, ...) end

function h.script(name, ...) return words(h.lua, h.dir .. "/contenders/" .. name .. ".lua", ...) end

--- Runs a command to its end. Returns the sample and what was printed, or nil and why not.
-- @param command as h.bin and h.script make them
-- @param nth processor to pin it to, or nil for none
function h.run(command, nth)
  local p = assert(io.popen(limited(nth and pinned(nth, command) or command) .. " 2>&1"))
  local text = p:read "a"
  local ok, how, code = p:close()
  if ok then return parse(text), text end
  return nil, ("%s: %s %d: %s"):format(command, how, code, beginning(text))
end

--- Runs a server on the first processor and, beside it, what load(pid, port) returns on the second.
-- The server prints pid= and port= when it listens and ends by itself once its clients have left.
-- Returns the load generator's sample, or nil and why not.
function h.serve(server, load)
  local p = assert(io.popen(limited(pinned(1, server))))
  local at = parse(p:read "l" or "")
  local sample, why
  if at.pid and at.port then
    sample, why = h.run(load(at.pid, at.port), 2)
    if not sample then os.execute(("kill %d 2>/dev/null"):format(at.pid)) end
  end
  local ok, how, code = p:close()
  if ok or why then return sample, why end
  return nil, ("%s: %s %d"):format(server, how, code)
end

--- The path of a new file of so many MiB, all of it in the page cache.
function h.cached_file(mib)
  local path = os.tmpname()
  local fill = ("dd if=/dev/zero of='%s' bs=1M count=%d conv=fsync"):format(path, mib)
  if not os.execute(fill .. " 2>/dev/null") then error("cannot write " .. path, 0) end
  os.execute(("cat '%s' >/dev/null"):format(path))
  return path
end

--- The path of a new file of so many MiB of lines of 20 to 100 bytes, all of it in the page cache.
function h.cached_text(mib)
  local path = os.tmpname()
  local f <close> = assert(io.open(path, "w"))
  local size, i = 0, 0
  while size < mib * 1048576 do
    i = i + 1
    local line = ("line %10d %s\n"):format(i, ("x"):rep(i * 7919 % 81))
    assert(f:write(line))
    size = size + #line
  end
  return path
end

--- What a contender needs: the name of a Lua module, or of a command behind an exclamation mark.
-- Returns nothing when it is there, else a sentence.
function h.missing(needs)
  if not needs then return nil end
  local command = needs:match "^!(.*)"
  local try = command and "command -v " .. quote(command) or words(h.lua, "-e", ("require %q"):format(needs))
  if os.execute(try .. " >/dev/null 2>&1") then return nil end
  return (command or needs) .. " is not installed"
end

function h.median(list)
  local v = table.move(list, 1, #list, 1, {})
  table.sort(v)
  local mid = (#v + 1) / 2
  return (v[math.floor(mid)] + v[math.ceil(mid)]) / 2
end

--- What can be read from a sample, by name: `of` is the value, `label` its unit with the row's operation filled in, and
-- `compare` sets ours beside a peer's.
h.figures = {
  rate = {
    label = "%s/s",
    of = function(sample) return sample.ops / sample.wall end,
    compare = function(ours, peer) return ours / peer end,
  },
  cpu = {
    label = "cpu us/%s",
    of = function(sample) return sample.cpu / sample.ops * 1e6 end,
    compare = function(ours, peer) return peer / ours end,
  },
  memory = { -- resident, user memory
    label = "bytes/%s",
    of = function(sample) return sample.bytes / sample.ops end,
    compare = function(ours, peer) return peer / ours end,
  },
  extra = { -- not a ratio: how many milliseconds one of ours lasts longer
    label = "ms/%s",
    of = function(sample) return sample.wall / sample.ops * 1e3 end,
    compare = function(ours, peer) return ours - peer end,
  },
}

local function measure(contender)
  local sample, why = contender.measure()
  if sample and sample.ops and sample.wall and sample.cpu then
    table.insert(contender.samples, sample)
  else
    contender.why, contender.failed = why or "it printed no result", true
  end
end

--- Measures a row: each contender in turn, h.rounds times over, so that what disturbs one disturbs its neighbours.
-- Fills in `samples` of each contender, or `why` it has none; one that fails is not tried again.
function h.measure(row)
  for _, c in ipairs(row.contenders) do
    c.samples, c.why = {}, h.missing(c.needs)
  end
  for _ = 1, h.rounds do
    for _, c in ipairs(row.contenders) do
      if not c.why then measure(c) end
    end
  end
end

--- The median of a figure over a contender's rounds.
function h.value(figure, contender)
  local values = {}
  for i, sample in ipairs(contender.samples) do values[i] = h.figures[figure].of(sample) end
  return h.median(values)
end

--- Ours beside a peer: the median over the rounds of the comparison within each, then the lowest and the highest.
function h.compare(figure, ours, peer)
  local f, list = h.figures[figure], {}
  for i = 1, math.min(#ours.samples, #peer.samples) do
    list[i] = f.compare(f.of(ours.samples[i]), f.of(peer.samples[i]))
  end
  return h.median(list), math.min(table.unpack(list)), math.max(table.unpack(list))
end

return h
