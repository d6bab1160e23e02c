--- Where lines come from: GNU readline, or the terminal or pipe as it is.
--
-- A terminal is polled on the ring, so tasks run on while somebody types; it is
-- read only when something is there, and only while the prompt is.  What is
-- typed while an input runs waits in the kernel, where the input can read it.
--
-- `terminal:read(prompt)` → a line without its end; nil at the end of it all;
-- false if `interrupt` was called.  It awaits; all else does not.  `hide` takes
-- the line off the screen, so that something can be written, and `show` puts it
-- back.

local core = require "uring.core"

local op, const = core.op, core.const
local prepare = core.on_default.prepare

local M = {}

-- Waits until something is there.  False: interrupted.
local function wait(self)
  self.interrupted = false
  self.poll = prepare("poll_add", 0, const.POLLIN)
  self.poll:await()
  self.poll = nil
  return not self.interrupted
end

local function interrupt(self)
  self.interrupted = true
  if self.poll then
    self.poll:cancel()
  end
end

--
-- Without readline
--

local Plain = {}
Plain.__index = Plain

-- Several lines may come at once, and the last may have no end.
local function take_line(self)
  local line, rest = self.text:match "^([^\n]*)\n(.*)$"
  if line then
    self.text = rest
    return line
  elseif self.ended and self.text ~= "" then
    line, self.text = self.text, ""
    return line
  end
end

local function write_prompt(self)
  if self.is_terminal then
    io.stdout:write(self.prompt)
    io.stdout:flush()
  end
end

function Plain:read(prompt)
  self.prompt = prompt
  write_prompt(self)
  local line = take_line(self)
  self.shown = not line
  while not line and not self.ended do
    if not wait(self) then
      self.shown, self.text = false, ""
      if self.is_terminal then
        io.stdout:write "\n" -- behind what was typed, and its ^C
      end
      return false
    end
    local n = op.read(0, self.buffer)
    if n and n > 0 then
      self.text = self.text .. self.buffer:get(1, n)
    else
      self.ended = true
    end
    line = take_line(self)
  end
  self.shown = false
  return line
end

-- What has been typed is the terminal's, and cannot be taken off the screen.
function Plain:hide()
  if self.shown and self.is_terminal then
    self.shown = false
    return "\n"
  end
end

function Plain:show()
  if self.prompt and self.poll and not self.shown then
    write_prompt(self)
    self.shown = true
  end
end

Plain.interrupt = interrupt

function Plain.resize() end

Plain.resume = Plain.show

function Plain.remember() end

function Plain:close()
  self.shown = false
end

local function plain()
  return setmetatable({
    is_terminal = core.isatty(0);
    buffer = core.buffer(4096);
    text = "";            -- read, and not yet asked for
    ended = false;
    prompt = nil;
    shown = false;        -- the prompt is on the screen
    poll = nil;           -- the operation that waits for input
    interrupted = false;
  }, Plain)
end

--
-- With readline
--

local Lines = {}
Lines.__index = Lines

function Lines:read(prompt)
  local readline = self.readline
  local _ <close> = self.closer
  readline.open(prompt, self.complete)
  self.shown = true
  local line = readline.feed(false)
  while line == nil do
    if not wait(self) then
      readline.close(true)
      self.shown = false
      return false
    end
    line = readline.feed(true)
    self.shown = true
  end
  self.shown = false
  return line or nil
end

function Lines:hide()
  self.shown = false
  self.readline.hide()
end

function Lines:show()
  self.readline.show()
  self.shown = self.poll ~= nil
end

Lines.interrupt = interrupt

function Lines:resize()
  self.readline.resize()
end

function Lines:resume()
  self.readline.resume()
end

function Lines:remember(line)
  self.readline.remember(line)
end

function Lines:close()
  self.readline.close()
  self.shown = false
end

-- Readline takes the encoding from the locale, which Lua has not set.
local function set_locale()
  if not os.setlocale("", "ctype") or os.setlocale(nil, "ctype") == "C" then
    os.setlocale("C.UTF-8", "ctype")
  end
end

--- The terminal of this process.
-- @func complete candidates, see `uring.prompt.complete`
function M.open(complete)
  local term = os.getenv "TERM"
  if not (core.isatty(0) and core.isatty(1)) or not term or term == "dumb" then
    return plain()
  end
  local ok, readline = pcall(require, "uring.readline")
  if not ok then
    return plain()
  end
  set_locale()
  local self = setmetatable({
    is_terminal = true;
    readline = readline;
    complete = complete;
    shown = false;
    poll = nil;
    interrupted = false;
  }, Lines)
  self.closer = setmetatable({}, { __close = function() self:close() end })
  return self
end

return M
