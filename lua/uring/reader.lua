--- Buffered reading: from a source of bytes to Lua's read formats.
--
-- A reader owns at most one Buffer, and only while there are bytes in it that
-- nobody has taken: an idle stream holds none.  The bytes in hand are
-- `buffer[first .. last]`.

local core = require "uring.core"

local CHUNK = 16384      -- bytes asked for at a time
local LINE_MAX = 1 << 20 -- bytes in a line, unless told otherwise

local methods = {}
local Reader = { __index = methods, __name = "uring.reader" }

--- @tparam function fill `fill(buffer)` → bytes read, 0 at the end, or nil, message, errno
-- @int[opt] line_max the most bytes in a line
local function new(fill, line_max)
  return setmetatable({
    fill = fill;
    buffer = nil; -- Buffer, or nil when nothing is in hand
    first = 1;    -- position of the first byte in hand
    last = 0;     -- position of the last one
    line_max = line_max or LINE_MAX;
  }, Reader)
end

--- How many bytes are in hand.
function methods:pending()
  return self.last - self.first + 1
end

-- Puts bytes before those in hand.
local function unread(self, s)
  if #s == 0 then
    return
  end
  if self:pending() > 0 then
    s = s .. self.buffer:get(self.first, self.last)
  end
  self.buffer, self.first, self.last = core.buffer(s), 1, #s
end

-- Gets more bytes when none are in hand.  True; nil at the end; nil, message,
-- errno where reading failed.
local function refill(self)
  local buffer = core.buffer(CHUNK)
  local n, message, errno = self.fill(buffer)
  if not n then
    return nil, message, errno
  elseif self:pending() > 0 then -- another task was faster: ours follow
    local before = self.buffer:get(self.first, self.last)
    self.buffer = nil
    self.first, self.last = 1, 0
    unread(self, before .. (n > 0 and buffer:get(1, n) or ""))
  elseif n == 0 then
    return nil
  else
    self.buffer, self.first, self.last = buffer, 1, n
  end
  return true
end

-- Makes sure that something is in hand.
local function ready(self)
  if self.first <= self.last then
    return true
  end
  self.buffer = nil
  return refill(self)
end

-- Takes up to n bytes of what is in hand.
local function take(self, n)
  local first = self.first
  local to = math.min(first + n - 1, self.last)
  local s = self.buffer:get(first, to)
  self.first = to + 1
  if to == self.last then
    self.buffer = nil
  end
  return s
end

--- Copies what is in hand into a Buffer, as much as it holds.  Raises where
-- the Buffer is closed or lent, and has taken nothing then.
-- @treturn int bytes
function methods:copy(buffer)
  local to = math.min(self.first + #buffer - 1, self.last)
  local size = to - self.first + 1
  buffer:set(1, self.buffer:get(self.first, to))
  self.first = to + 1
  if to == self.last then
    self.buffer = nil
  end
  return size
end

-- What a read has taken so far.  A read that does not come to its end, since
-- its task was cancelled or the source failed, puts it back.
local Taken = {
  __close = function(self)
    if not self.done then
      unread(self.reader, table.concat(self))
    end
  end;
}

--- Up to `max` bytes, as soon as there are any; nil at the end.
function methods:some(max)
  local ok, message, errno = ready(self)
  if not ok then
    return nil, message, errno
  end
  return take(self, max)
end

-- Collects pieces until `want(size)`, given how many bytes there are so far,
-- names none, or the source ends.
local function collect(self, want)
  local taken <close> = setmetatable({ reader = self, done = false }, Taken)
  local have = 0
  local size = want(have)
  while size do
    local s, message, errno = self:some(size)
    if not s and message then
      return nil, message, errno
    elseif not s then
      break
    end
    taken[#taken + 1] = s
    have = have + #s
    size = want(have)
  end
  taken.done = true
  return table.concat(taken)
end

--- `n` bytes, fewer only at the end; nil if there are none.
function methods:bytes(n)
  local ok, message, errno = ready(self)
  if not ok then
    return nil, message, errno
  elseif n == 0 then -- io's way to ask whether the end is reached
    return ""
  elseif n <= self:pending() then
    return take(self, n)
  end
  return collect(self, function(have)
    return have < n and n - have or nil
  end)
end

--- Everything up to the end; "" if that is where it is.
function methods:all()
  return collect(self, function() return math.huge end)
end

-- How many bytes in hand belong to the line, and whether it ends there.
local function line_in_hand(self)
  local newline = self.buffer:find("\n", self.first, self.last)
  return (newline or self.last) - self.first + 1, newline ~= nil
end

-- A line that is not in hand as a whole.
local function long_line(self)
  local taken <close> = setmetatable({ reader = self, done = false }, Taken)
  local have, ended = 0, false
  while not ended do
    local ok, message, errno = ready(self)
    if not ok and message then
      return nil, message, errno
    elseif not ok then
      break
    end
    local size
    size, ended = line_in_hand(self)
    have = have + size
    if have > self.line_max then
      return nil, ("line is longer than %d bytes"):format(self.line_max), core.errno.EMSGSIZE
    end
    taken[#taken + 1] = take(self, size)
  end
  taken.done = true
  return have > 0 and table.concat(taken) or nil
end

--- A line, with its newline if `keep`; nil at the end.
function methods:line(keep)
  local ok, message, errno = ready(self)
  if not ok then
    return nil, message, errno
  end
  local size, ended = line_in_hand(self)
  if ended and size <= self.line_max then
    local line = self.buffer:get(self.first, self.first + size - (keep and 1 or 2))
    self.first = self.first + size
    return line
  end
  local line
  line, message, errno = long_line(self)
  if line and not keep and line:byte(-1) == 10 then
    line = line:sub(1, -2)
  end
  return line, message, errno
end

local formats = {
  l = function(self) return self:line(false) end;
  L = function(self) return self:line(true) end;
  a = function(self) return self:all() end;
}

local function bad_format(i, why)
  error(("bad argument #%d to 'read' (%s)"):format(i, why), 5)
end

-- Reads by the i-th format.
local function read_one(self, i, format)
  if type(format) == "number" then
    local n = math.tointeger(format)
    if not n then
      bad_format(i, "number has no integer representation")
    elseif n < 0 then
      bad_format(i, "negative count")
    end
    return self:bytes(n)
  elseif type(format) ~= "string" then
    bad_format(i, "string expected, got " .. type(format))
  end
  local reader = formats[format:match("^%*?(.)") or ""]
  if not reader then
    bad_format(i, "invalid format")
  end
  return reader(self)
end

--- What `file:read(…)` does: one result a format, up to the first that fails.
function methods:read(...)
  local n = select("#", ...)
  if n <= 1 then
    local s, message, errno = read_one(self, 1, n == 0 and "l" or ...)
    if s == nil and message then
      return nil, message, errno
    end
    return s
  end
  local results = {}
  for i = 1, n do
    local s, message, errno = read_one(self, i, (select(i, ...)))
    if s == nil and message then
      return nil, message, errno
    end
    results[i] = s
    if s == nil then
      return table.unpack(results, 1, i)
    end
  end
  return table.unpack(results, 1, n)
end

--- Forgets what is in hand; tells how many bytes that were.
function methods:discard()
  local n = self:pending()
  self.buffer, self.first, self.last = nil, 1, 0
  return n
end

return { new = new }
