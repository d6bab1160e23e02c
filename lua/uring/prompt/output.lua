--- What is written while the prompt waits appears above it.
--
-- The line being typed is taken off the screen for the first write, and put back
-- by a task when everybody has written: at once, but not more than so many times
-- a second.  `print`, `warn` and the standard files of `io` and `uring.io` pass here;
-- what reaches the terminal on other ways (a process that was started,
-- `op.write(1, …)`) does not.

local core = require "uring.core"

local M = {}

local PAUSE = 0.02 -- seconds between two times that the line is put back

local Output = {}
Output.__index = Output

-- Somebody is about to write.
local function make_way(self)
  if self.terminal.shown then
    local before = self.terminal:hide()
    if before then
      self.originals.write(io.stdout, before)
    end
    if self.due:permits() == 0 then
      self.due:release()
    end
  end
end

-- Puts the line back, for ever.
local function restore(self)
  while true do
    self.due:acquire()
    if self.later then
      self.later = false
      core.sleep(PAUSE)
    end
    self:fresh_line()
    self.terminal:show()
    core.sleep(PAUSE)
  end
end

-- Notes whether the last of what is written ends a line.
local function note(self, ...)
  local last = select(-1, ...)
  if type(last) == "string" and last ~= "" then
    self.in_line = last:byte(-1) ~= 10
  elseif type(last) == "number" then
    self.in_line = true
  end
end

--- Ends a line that was written in part.
function Output:fresh_line()
  if self.in_line then
    self.originals.write(io.stdout, "\n")
    self.in_line = false
  end
end

local function is_standard(file)
  return file == io.stdout or file == io.stderr
end

local function replace_functions(self)
  local originals = self.originals
  function self.methods.write(file, ...)
    if is_standard(file) and select("#", ...) > 0 then
      make_way(self)
      note(self, ...)
      if file == io.stderr then
        io.stdout:flush()
      end
    end
    return originals.write(file, ...)
  end
  self.io.write = function(...)
    if io.output() == io.stdout and select("#", ...) > 0 then
      make_way(self)
      note(self, ...)
    end
    return originals.io_write(...)
  end
  _G.print = function(...)
    make_way(self)
    self.in_line = false
    return originals.print(...)
  end
  _G.warn = function(...)
    make_way(self)
    return originals.warn(...)
  end
end

-- Somebody is about to write through a stream, which takes a moment.
local function make_way_for_stream(self, ...)
  self.later = true
  make_way(self)
  note(self, ...)
end

--- Watches the standard streams of `uring.io`, too, once an input has loaded it.
function Output:watch_streams()
  local streams = package.loaded["uring.io"]
  if not streams or self.streams then
    return
  end
  local stream_methods, originals = core.stream_meta.__index, self.originals
  local stdout, stderr = streams.stdout, streams.stderr
  self.streams = streams
  originals.stream_write, originals.default_write = stream_methods.write, streams.write
  local write = stream_methods.write
  function stream_methods.write(file, ...)
    if file == stdout or file == stderr then
      make_way_for_stream(self, ...)
    end
    return write(file, ...)
  end
  function streams.write(...)
    if streams.output() == stdout then
      make_way_for_stream(self, ...)
    end
    return originals.default_write(...)
  end
end

--- Begins to watch what is written.
-- @param terminal
-- @treturn Output
function M.watch(terminal)
  local methods = getmetatable(io.stdout).__index
  local self = setmetatable({
    terminal = terminal;
    methods = methods;
    io = io;
    originals = { write = methods.write, io_write = io.write, print = print, warn = warn };
    streams = nil;                  -- uring.io, once it is there
    later = false;                  -- something is being written through them
    in_line = false;                -- the cursor is not where a line begins
    due = core.sync.semaphore(0);   -- the line is to be put back
    task = nil;
  }, Output)
  replace_functions(self)
  self.task = core.spawn_here(restore, self)
  self.task:name "prompt output"
  return self
end

--- Everything as it was.
function Output:close()
  local originals = self.originals
  self.methods.write, self.io.write = originals.write, originals.io_write
  _G.print, _G.warn = originals.print, originals.warn
  if self.streams then
    self.streams.write, core.stream_meta.__index.write = originals.default_write, originals.stream_write
  end
  self.task:cancel()
end

return M
