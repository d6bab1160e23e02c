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
local function new(fill)
  return setmetatable({
    fill = fill;
    buffer = nil; -- Buffer, or nil when nothing is in hand
    first = 1;    -- position of the first byte in hand
    last = 0;     -- position of the last one
    line_max = LINE_MAX;
  }, Reader)
end

--- How many bytes are in hand.
function methods:pending()
  return self.last - self.first + 1
end

-- Gets more bytes when none are in hand.  True; nil at the end; nil, message,
-- errno where reading failed.
local function refill(self)
  local buffer = core.buffer(CHUNK)
  local n, message, errno = self.fill(buffer)
  if not n then
    return nil, message, errno
  elseif n == 0 then
    return nil
  end
  self.buffer, self.first, self.last = buffer, 1, n
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

--- Up to `max` bytes, as soon as there are any; nil at the end.
function methods:some(max)
  local ok, message, errno = ready(self)
  if not ok then
    return nil, message, errno
  end
  return take(self, max)
end

--- `n` bytes, fewer only at the end; nil if there are none.
function methods:bytes(n)
  if n == 0 then -- io's way to ask whether the end is reached
    local ok, message, errno = ready(self)
    if not ok then
      return nil, message, errno
    end
    return ""
  end
  local parts, have = {}, 0
  while have < n do
    local s, message, errno = self:some(n - have)
    if not s then
      if message and have == 0 then
        return nil, message, errno
      end
      break
    end
    parts[#parts + 1] = s
    have = have + #s
  end
  if have == 0 then
    return nil
  end
  return table.concat(parts)
end

--- Everything up to the end; "" if that is where it is.
function methods:all()
  local parts = {}
  while true do
    local s, message, errno = self:some(math.huge)
    if not s then
      if message then
        return nil, message, errno
      end
      return table.concat(parts)
    end
    parts[#parts + 1] = s
  end
end

--- A line, with its newline if `keep`; nil at the end.
function methods:line(keep)
  local parts, have = {}, 0
  while true do
    local ok, message, errno = ready(self)
    if not ok then
      if message then
        return nil, message, errno
      end
      return have > 0 and table.concat(parts) or nil
    end
    local newline = self.buffer:find("\n", self.first, self.last)
    local size = (newline or self.last) - self.first + 1
    have = have + size
    if have > self.line_max then
      return nil, ("line is longer than %d bytes"):format(self.line_max), core.errno.EMSGSIZE
    end
    parts[#parts + 1] = take(self, size)
    if newline then
      local line = table.concat(parts)
      return keep and line or line:sub(1, -2)
    end
  end
end

local formats = {
  l = function(self) return self:line(false) end;
  L = function(self) return self:line(true) end;
  a = function(self) return self:all() end;
}

local function read_one(self, format)
  if math.type(format) == "integer" then
    if format < 0 then
      error("bad argument to 'read' (negative count)", 4)
    end
    return self:bytes(format)
  end
  local reader = type(format) == "string" and formats[format:match("^%*?(.)") or ""]
  if not reader then
    error("bad argument to 'read' (invalid format)", 4)
  end
  return reader(self)
end

--- What `file:read(…)` does: one result a format, up to the first that fails.
function methods:read(...)
  local n = select("#", ...)
  if n <= 1 then
    return read_one(self, n == 0 and "l" or ...)
  end
  local results = {}
  for i = 1, n do
    local s, message, errno = read_one(self, (select(i, ...)))
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
