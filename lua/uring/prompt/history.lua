--- What was entered, from one session to the next: a file in the user's state
-- directory, `$XDG_STATE_HOME/uring/history`, an input a line.  Inputs of several
-- lines have theirs escaped.

local core = require "uring.core"

local op, const = core.op, core.const

local M = {}

local KEPT = 1000 -- inputs; the file may be twice as long

local History = {}
History.__index = History

local function state_directory()
  local state = os.getenv "XDG_STATE_HOME"
  if state and state:find "^/" then -- the specification has relative ones ignored
    return state
  end
  local home = os.getenv "HOME"
  return home and home ~= "" and home .. "/.local/state" or nil
end

local function make_directories(path)
  for slash in path:gmatch "()/" do
    if slash > 1 then
      op.mkdirat(nil, path:sub(1, slash - 1), 448) -- 0700; it may be there
    end
  end
end

local function escape(text)
  return (text:gsub("[\\\n]", { ["\\"] = "\\\\", ["\n"] = "\\n" }))
end

local function unescape(line)
  return (line:gsub("\\(.)", function(c) return c == "n" and "\n" or c end))
end

local function read_all(path)
  local file <close> = io.open(path, "rb")
  local inputs = {}
  if file then
    for line in file:lines() do
      inputs[#inputs + 1] = unescape(line)
    end
  end
  return inputs
end

-- Written whole and then moved into place, so that nothing is lost on the way.
local function rewrite(path, inputs)
  local new = path .. ".new"
  local file = io.open(new, "wb")
  if not file then
    return
  end
  for _, text in ipairs(inputs) do
    file:write(escape(text), "\n")
  end
  if file:close() then
    os.rename(new, path)
  end
end

local function newest(inputs)
  return table.move(inputs, math.max(1, #inputs - KEPT + 1), #inputs, 1, {})
end

--- The history; without a file if there can be none.
-- @treturn History with the inputs there were at [1] …
function M.open()
  local directory = state_directory()
  local path = directory and directory .. "/uring/history"
  local inputs = path and read_all(path) or {}
  if #inputs > 2 * KEPT then
    inputs = newest(inputs)
    rewrite(path, inputs)
  end
  local self = setmetatable(newest(inputs), History)
  self.path = path
  return self
end

local function open_file(self)
  make_directories(self.path)
  local fd = op.openat(nil, self.path, const.O_WRONLY | const.O_CREAT | const.O_APPEND | const.O_CLOEXEC, 384) -- 0600
  if fd then
    self.file = core.descriptor()
    self.file:put(fd)
    self.fd = fd
  end
  return fd
end

--- Adds an input, unless it is the last one over again.  Awaits; a file that
-- cannot be written is done without.
-- @treturn bool was it added?
function History:add(text)
  if text == self[#self] or not text:find "%S" then
    return false
  end
  self[#self + 1] = text
  if self.path and (self.fd or open_file(self)) then
    op.write(self.fd, escape(text) .. "\n")
  end
  return true
end

function History:close()
  if self.fd then
    self.fd = nil
    op.close(self.file:take())
  end
end

return M
