--- A program on a terminal of its own, driven key by key.

local helper = require "spec.support.helper"
local uring = require "uring"
local testkit = require "testkit"

local M = {}

local Terminal = {}
Terminal.__index = Terminal

local PATIENCE = helper.slow and 30 or 5 -- seconds until what is expected will not come

--- Starts a command of the shell on a new terminal.
-- @string command
-- @int[opt=24] rows
-- @int[opt=80] columns
function M.open(command, rows, columns)
  local fd, pid = testkit.terminal(command, rows or 24, columns or 80)
  return setmetatable({
    fd = fd;
    pid = pid;
    raw = "";        -- all that has come
    text = "";       -- the same without what moves the cursor
    seen = 1;        -- where the next `expect` begins
    ended = false;   -- nobody has the other end any more
  }, Terminal)
end

--- The prompt, with or without readline; a chunk of Lua before it.
function M.prompt(given)
  given = given or {}
  local term = given.plain and "dumb" or "xterm"
  local self = M.open(
    ("%s exec env TERM=%s XDG_STATE_HOME='%s' LC_ALL=C.UTF-8 INPUTRC=/dev/null lua5.4 lua/bin/uring %s")
    :format(given.before or "", term, given.state or "/dev/null/none", given.arguments or ""),
    given.rows, given.columns)
  self:expect "1> "
  return self
end

-- What is seen of it, roughly: no sequences, no carriage returns.
local function plain(raw)
  return (raw:gsub("\27%[[%d;?]*%a", ""):gsub("\27[=>]", ""):gsub("[\r\7]", ""))
end

-- Reads what comes within some time.  False: nothing did.
local function read(self, seconds)
  local data = testkit.read(self.fd, seconds)
  if data == nil then
    self.ended = true
    return false
  end
  self.raw = self.raw .. data
  self.text = plain(self.raw)
  return data ~= ""
end

--- Waits until the text has been written behind what was expected before.
-- @string text
-- @bool[opt] is_pattern
-- @treturn string what stands between
function Terminal:expect(text, is_pattern)
  local deadline = uring.now() + PATIENCE
  while true do
    local first, last = self.text:find(text, self.seen, not is_pattern)
    if first then
      local between = self.text:sub(self.seen, last)
      self.seen = last + 1
      return between
    end
    if self.ended or uring.now() > deadline then
      error(("%q did not come; there is %q"):format(text, self.text:sub(self.seen)), 2)
    end
    read(self, 0.05)
  end
end

--- What has come by then and was not expected yet.
function Terminal:rest(seconds)
  local deadline = uring.now() + seconds
  repeat
    read(self, 0.01)
  until self.ended or uring.now() > deadline
  return self.text:sub(self.seen)
end

--- What comes within some time is expected.
function Terminal:settle(seconds)
  self:rest(seconds)
  self.seen = #self.text + 1
end

--- Writes all at once, as a paste without brackets does.
function Terminal:send(keys)
  assert(testkit.write(self.fd, keys))
end

--- Writes key by key, and reads what comes of each.
function Terminal:type(keys)
  for key in keys:gmatch(utf8.charpattern) do
    testkit.write(self.fd, key)
    read(self, 0.002)
  end
end

--- Types a line and waits for the next prompt.
-- @treturn string what came between
function Terminal:enter(line)
  self:type(line .. "\n")
  return self:expect("%f[%d]%d+>+ ", true)
end

function Terminal:resize(rows, columns)
  testkit.resize(self.fd, rows, columns)
end

--- Waits for the end of the program.
-- @treturn int its status
function Terminal:wait()
  local deadline = uring.now() + PATIENCE
  while not self.ended and uring.now() < deadline do
    read(self, 0.05)
  end
  if not self.ended then
    testkit.kill(self.pid, 9)
  end
  local status = testkit.wait(self.pid)
  testkit.close(self.fd)
  self.pid = nil
  return status
end

function Terminal:__close()
  if self.pid then
    testkit.kill(self.pid, 9)
    testkit.wait(self.pid)
    testkit.close(self.fd)
  end
end

return M
