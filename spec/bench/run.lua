--- Runs the benchmarks beside their peers: lua5.4 spec/bench/run.lua [row ...], all rows without names.
--
-- Prints what each row gives and writes all samples and comparisons as JSON. Started by `make bench`, which compiles
-- the references and sets LUA_PATH, LUA_CPATH and BENCH_BIN (where they are). Also from the environment: ROUNDS (5),
-- SECONDS (1: about how long a measured window lasts), BENCH_JSON (build/bench/results.json), LUA.
-- Ends with 0 also where a budget is missed; with 1 where a contender that is installed failed.

package.path = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/?.lua;" .. package.path
local h = require "harness"
local json = require "support.json"

local NAMES = { "nop", "echo", "secho", "multishot", "bundle", "idle", "sidle", "pingpong", "spingpong", "randread",
  "fixed", "lines", "slurp", "puts", "copy", "startup", "spawn", "sleepers", "channel", "parked", "growth", "prompt",
  "keys", "first_prompt", "kv", "kv16" }
local LINE = "%-9s %-14s %-15s %10s %10s %7s  %-13s %-8s %s"

local function say(...)
  print((LINE:format(...):gsub("%s+$", "")))
  io.flush()
end

local function short(n)
  if n >= 1e6 then return ("%.2f M"):format(n / 1e6) end
  if n >= 1e4 then return ("%.1f k"):format(n / 1e3) end
  return ("%.3f"):format(n)
end

local function chosen()
  local known, rows = {}, {}
  for _, name in ipairs(NAMES) do known[name] = true end
  for _, name in ipairs(arg) do
    if not known[name] then error(("no row '%s'; there are %s"):format(name, table.concat(NAMES, ", ")), 0) end
    rows[#rows + 1] = name
  end
  return #rows > 0 and rows or NAMES
end

local function budget_for(row, peer, figure)
  for _, b in ipairs(row.budgets) do
    if b.peer == peer and b.figure == figure then return b end
  end
end

local function verdict(budget, ratio)
  if not budget then return "", nil end
  local met = budget.at_least and ratio >= budget.at_least or budget.at_most and ratio <= budget.at_most
  return budget.at_least and (">= %.2f"):format(budget.at_least) or ("<= %.2f"):format(budget.at_most),
    met and "ok" or "short"
end

-- One line of the table and one entry of the JSON.
local function compare(row, figure, ours, peer)
  local budget = budget_for(row, peer.name, figure)
  local ratio, low, high = h.compare(figure, ours, peer)
  local wanted, judged = verdict(budget, ratio)
  local mine, theirs = h.value(figure, ours), h.value(figure, peer)
  say(row.name, peer.name, h.figures[figure].label:format(row.unit), short(mine), short(theirs), ("%.2f"):format(ratio),
    ("%.2f..%.2f"):format(low, high), wanted, judged or "")
  return {
    peer = peer.name, figure = figure, ours = mine, theirs = theirs, ratio = ratio, low = low, high = high,
    at_least = budget and budget.at_least, at_most = budget and budget.at_most, verdict = judged,
  }
end

local function comparisons(row)
  local ours, list = row.contenders[1], {}
  for _, c in ipairs(row.contenders) do
    if c.why then
      say(row.name, c.name, c.failed and "FAILED" or c.why, "", "", "", "", "", "")
    elseif c ~= ours and not ours.why then
      for _, figure in ipairs(row.figures or { "rate", "cpu" }) do list[#list + 1] = compare(row, figure, ours, c) end
    elseif c ~= ours then
      say(row.name, c.name, "alone", "", short(h.value("rate", c)), "", "", "", "")
    end
  end
  return list
end

-- The row as measured, for the JSON.
local function record(row)
  local out = { title = row.title, unit = row.unit, contenders = {}, comparisons = comparisons(row) }
  for i, c in ipairs(row.contenders) do
    out.contenders[i] = { name = c.name, samples = c.samples, why = c.why, failed = c.failed }
  end
  return out
end

local function run(name)
  local row = require("rows." .. name)(h)
  row.name = name
  local ok, err = pcall(function()
    if row.setup then row.setup() end
    h.measure(row)
  end)
  if row.teardown then row.teardown() end
  if not ok then error(err, 0) end
  return record(row)
end

local function machine()
  return {
    kernel = h.ask "uname -r" or "unknown",
    cpu = h.ask "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo" or "unknown",
    processors = #h.processors,
    load = tonumber((h.ask "cat /proc/loadavg" or ""):match "^%S+"), -- of what else is running
    lua = _VERSION,
    liburing = h.ask "pkg-config --modversion liburing" or "unknown",
  }
end

local function write(results)
  local path = os.getenv "BENCH_JSON" or "build/bench/results.json"
  local folder = path:match "^(.*)/[^/]*$"
  if folder then os.execute(("mkdir -p '%s'"):format(folder)) end
  local f <close> = assert(io.open(path, "w"))
  assert(f:write(json.encode(results), "\n"))
  return path
end

-- Tells the reasons, which are too long for the table; returns whether there was none.
local function all_well(results)
  local well = true
  for _, name in ipairs(NAMES) do
    local row = results.rows[name] or { contenders = {} }
    for _, c in ipairs(row.contenders) do
      if c.failed then
        io.stderr:write(("\n%s, %s: %s\n"):format(name, c.name, c.why))
        well = false
      end
    end
  end
  return well
end

local function main()
  local rows = chosen()
  local results = { date = os.date "!%Y-%m-%dT%H:%M:%SZ", rounds = h.rounds, seconds = h.seconds, machine = machine(),
    rows = {} }
  local m = results.machine
  print(("kernel %s, %d x %s, load %s, liburing %s"):format(m.kernel, m.processors, m.cpu, m.load, m.liburing))
  print(("medians of %d rounds of about %g s; a ratio above 1 is in our favour\n"):format(h.rounds, h.seconds))
  say("row", "peer", "figure", "ours", "peer's", "ratio", "low..high", "budget", "verdict")
  for _, name in ipairs(rows) do results.rows[name] = run(name) end
  print("\nwritten to " .. write(results))
  return all_well(results)
end

local ok, result = xpcall(main, function(err) return type(err) == "string" and err or debug.traceback(err) end)
if not ok then io.stderr:write("bench: ", tostring(result), "\n") end
os.exit(ok and result, true)
