--- What every spec shares.
--
-- `helper.watch(before_each, after_each)` in a describe block counts
-- descriptors, tasks, lent bytes and operations in flight around every spec of
-- it; a difference fails it.

local uring = require "uring"
local assert = require "luassert"
local testkit = require "testkit"

local M = {
  --- true where everything is slow: sanitizers, valgrind, collection stress
  slow = os.getenv "URING_SLOW" ~= nil;
  --- true under valgrind
  valgrind = os.getenv "URING_VALGRIND" ~= nil;
  testkit = testkit;
}

--- False where no process can be spawned: valgrind 3.19 knows no pidfd.
function M.can_spawn()
  return not M.valgrind or uring.process.spawn { "true" } ~= nil
end

local before

local function counts()
  collectgarbage()
  collectgarbage()
  local stats = uring.stats() -- creates the default ring, so it is counted
  return {
    descriptors = testkit.fds(), tasks = stats.tasks, timers = stats.timers,
    bytes_lent = stats.bytes_lent, in_flight = stats.in_flight, backlog = stats.backlog;
  }
end

function M.watch(before_each, after_each)
  before_each(function()
    before = counts()
  end)
  after_each(function()
    -- an orphan ends with its own completion: give those a moment
    for _ = 1, 100 do
      local after = counts()
      local same = true
      for name, n in pairs(before) do
        same = same and after[name] == n
      end
      if same then
        break
      end
      uring.sleep(0.005)
    end
    assert.are.same(before, counts())
  end)
end

--- `n`, or a tenth of it where everything is slow.
function M.times(n)
  return M.slow and math.max(1, n // 10) or n
end

--- Calls fn; the error it raises, as a string.
function M.error_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, "no error was raised")
  return tostring(err)
end

--- Collects everything that can be, finalisers included.
function M.collect()
  collectgarbage()
  collectgarbage()
end

--- Bytes of memory that are resident in a process.
function M.resident(pid)
  for line in io.lines(("/proc/%d/status"):format(pid)) do
    if line:find "^VmRSS" then
      return tonumber(line:match "%d+") * 1024
    end
  end
end

--- Lets the loop turn until the condition holds; raises after two seconds.
function M.eventually(condition, message)
  for _ = 1, 400 do
    if condition() then
      return
    end
    uring.sleep(0.005)
  end
  error(message or "it never happened", 2)
end

--- Runs a chunk in an interpreter of its own, in place.
-- @string chunk
-- @treturn string what it printed, on both streams
-- @treturn int its exit status
function M.script(chunk, prefix)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(chunk)
  file:close()
  local pipe = assert(io.popen((prefix or "") .. " lua5.4 " .. path .. " 2>&1; echo \"status=$?\""))
  local output = pipe:read "a"
  pipe:close()
  os.remove(path)
  local text, status = output:match "^(.*)status=(%d+)%s*$"
  return text, tonumber(status)
end

--- A path for a file of the spec's own, removed by `M.cleanup`.
local paths = {}
function M.tmpname(contents)
  local path = os.tmpname()
  paths[#paths + 1] = path
  if contents then
    local file = assert(io.open(path, "wb"))
    file:write(contents)
    file:close()
  end
  return path
end

function M.cleanup()
  for _, path in ipairs(paths) do
    os.remove(path)
  end
  paths = {}
end

return M
