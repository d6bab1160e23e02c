--- Streams: sockets, pipes and files behind one face, with the manners of
-- Lua's own files.
--
-- A stream owns its descriptor.  Dropped without `close`, the descriptor is
-- closed when the stream is collected.  Reads and writes of different tasks
-- may overlap; two readers share the bytes as they come.

local core = require "uring.core"
local new_reader = require "uring.reader".new

local op = core.op
local Buffer = getmetatable(core.buffer(0))
local ECANCELED = core.errno.ECANCELED
local CANCEL_ALL = core.const.IORING_ASYNC_CANCEL_ALL

local whences = { set = true, cur = true, ["end"] = true }

local methods = {}
local Stream = { __index = methods, __name = "uring.stream" }

-- How a kind of descriptor is read and written.
local kinds = {
  socket = { receive = op.recv, send = op.send };
  pipe = { receive = op.read, send = op.write };
  file = { receive = op.read, send = op.write };
}

-- What a failed operation returns: "closed" where it was close that ended it.
-- A file's errors have no subject, as io's have none.
local function failed(self, message, errno)
  if not self.descriptor and errno == ECANCELED then
    return nil, "closed", ECANCELED
  elseif self.kind == "file" then
    message = message:gsub("^[^:]*: ", "", 1)
  end
  return nil, message, errno
end

--- Makes a stream that has no descriptor yet: `open` gives it one.  Made first,
-- so that nothing can fail between getting a descriptor and owning it.
-- @string kind "socket" | "pipe" | "file"
-- @string name for messages and tostring
-- @treturn Stream
local function new(kind, name)
  return setmetatable({
    number = -1;                      -- the descriptor, for operations
    descriptor = core.descriptor();   -- its owner; nil: closed
    kind = kind;
    name = name;
    receive = kinds[kind].receive;
    send = kinds[kind].send;
    reader = nil;                     -- made at the first read
    busy = 0;                         -- operations in flight on it; more after one
                                      -- that raised, which costs a needless cancel
  }, Stream)
end

--- Gives a new stream its descriptor, which it owns from now on.
-- @treturn Stream
local function open(self, fd)
  self.descriptor:put(fd)
  self.number = fd
  return self
end

local function check_open(self)
  if not self.descriptor then
    error(("attempt to use a closed %s"):format(self.kind), 3)
  end
end

-- Receives once into a Buffer.
local function receive(self, buffer)
  if not self.descriptor then -- closed between two receives of one read
    return nil, "closed", ECANCELED
  end
  self.busy = self.busy + 1
  local n, message, errno = self.receive(self.number, buffer)
  self.busy = self.busy - 1
  if n then
    return n
  end
  return failed(self, message, errno)
end

local function reader_of(self)
  local reader = self.reader
  if not reader then
    reader = new_reader(function(buffer) return receive(self, buffer) end,
      self.kind == "file" and math.huge or nil)
    self.reader = reader
  end
  return reader
end

--- Reads as `file:read` does: "l", "L", "a" or a number of bytes, several at
-- once; a line without a format.
-- @return one result a format; nil at the end; nil, message, errno
function methods:read(...)
  check_open(self)
  return reader_of(self):read(...)
end

--- Up to `max` bytes, as soon as there are any.
-- @int[opt=65536] max
-- @treturn string nil at the end; nil, message, errno
function methods:read_some(max)
  check_open(self)
  max = max or 65536
  if math.type(max) ~= "integer" or max < 1 then
    error("bad argument #1 to 'read_some' (positive integer expected)", 2)
  end
  local reader = self.reader
  if reader and reader:pending() > 0 then
    return (reader:some(max))
  end
  local buffer = core.buffer(max)
  local n, message, errno = receive(self, buffer)
  if not n then
    return nil, message, errno
  elseif n == 0 then
    return nil
  end
  return buffer:get(1, n)
end

--- Receives into a Buffer, once.
-- @treturn int bytes; 0 at the end; nil, message, errno
function methods:recv(buffer)
  check_open(self)
  if getmetatable(buffer) ~= Buffer then
    error(("bad argument #1 to 'recv' (Buffer expected, got %s)"):format(type(buffer)), 2)
  end
  if self.reader and self.reader:pending() > 0 then
    return self.reader:copy(buffer)
  end
  return receive(self, buffer)
end

-- Sends all of a string or Buffer.  True; nil, message, errno, bytes sent.
local function send_all(self, data)
  local size, sent = #data, 0
  while sent < size do
    local rest = data
    if sent > 0 then
      rest = type(data) == "string" and data:sub(sent + 1) or data:slice(sent + 1)
    end
    if not self.descriptor then
      return nil, "closed", ECANCELED, sent
    end
    self.busy = self.busy + 1
    local n, message, errno = self.send(self.number, rest)
    self.busy = self.busy - 1
    if not n then
      local _, text = failed(self, message, errno)
      return nil, text, errno, sent
    end
    sent = sent + n
  end
  return true
end

-- Before a file is written: back to where reading looks to be.
local function drop_read_ahead(self)
  if self.kind == "file" and self.reader then
    local ahead = self.reader:discard()
    if ahead > 0 then
      core.seek(self.number, "cur", -ahead)
    end
  end
end

-- The text of a value to write, or nil.
local function text_of(value)
  local kind = type(value)
  if kind == "string" then
    return value
  elseif kind == "number" then
    return math.type(value) == "integer" and tostring(value) or ("%.14g"):format(value)
  end
end

--- Writes all its arguments: strings, numbers, Buffers.
-- @return the stream; or nil, message, errno, bytes written
function methods:write(...)
  check_open(self)
  drop_read_ahead(self)
  local count = select("#", ...)
  local data = ...
  if count > 1 then
    local parts, only_text = {}, true
    for i = 1, count do
      local part = select(i, ...)
      parts[i] = text_of(part)
      only_text = only_text and parts[i] ~= nil
    end
    if not only_text then
      return self:write_each(...)
    end
    data = table.concat(parts)
  elseif count == 0 then
    return self
  end
  if getmetatable(data) ~= Buffer then
    data = text_of(data)
      or error(("bad argument #1 to 'write' (string expected, got %s)"):format(type(...)), 2)
  end
  local ok, message, errno, sent = send_all(self, data)
  if not ok then
    return nil, message, errno, sent
  end
  return self
end

--- Writes its arguments one after the other.
function methods:write_each(...)
  local total = 0
  for i = 1, select("#", ...) do
    local part = select(i, ...)
    local data = text_of(part) or part
    if type(data) ~= "string" and getmetatable(data) ~= Buffer then
      error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, type(part)), 3)
    end
    local ok, message, errno, sent = send_all(self, data)
    if not ok then
      return nil, message, errno, total + sent
    end
    total = total + #data
  end
  return self
end

--- Iterates over lines, or over what the formats ask for.  Raises where
-- reading fails.
function methods:lines(...)
  check_open(self)
  local formats = table.pack(...)
  return function()
    local results = table.pack(self:read(table.unpack(formats, 1, formats.n)))
    if results[1] == nil and results[2] then
      error(results[2], 2)
    end
    return table.unpack(results, 1, results.n)
  end
end

-- Checks as io does, whose messages count the arguments without the file.
local function check_seek(whence, offset)
  local why
  if type(whence) == "number" or type(whence) == "string" and not whences[whence] then
    why = ("bad argument #1 to 'seek' (invalid option '%s')"):format(whence)
  elseif whence ~= nil and type(whence) ~= "string" then
    why = ("bad argument #1 to 'seek' (string expected, got %s)"):format(type(whence))
  elseif offset ~= nil and not tonumber(offset) then
    why = ("bad argument #2 to 'seek' (number expected, got %s)"):format(type(offset))
  elseif offset ~= nil and not math.tointeger(tonumber(offset)) then
    why = "bad argument #2 to 'seek' (number has no integer representation)"
  end
  if why then
    error(why, 3)
  end
end

--- Sets and tells the position of a file, as `file:seek` does.
-- @string[opt="cur"] whence "set" | "cur" | "end"
-- @int[opt=0] offset
-- @treturn int position; nil, message, errno
function methods:seek(whence, offset)
  check_open(self)
  check_seek(whence, offset)
  drop_read_ahead(self)
  local at, message, errno = core.seek(self.number, whence, offset)
  if not at then
    return failed(self, message, errno)
  end
  return at
end

--- Ends one direction of a socket.
-- @string[opt="w"] how "r" | "w" | "rw"
-- @treturn Stream nil, message, errno
function methods:shutdown(how)
  check_open(self)
  local ok, message, errno = op.shutdown(self.number, how or "w")
  if not ok then
    return nil, message, errno
  end
  return self
end

-- Closing a descriptor ends nothing that uses it: that is cancelled first.
local function close(self, descriptor)
  if self.busy > 0 then
    op.cancel_fd(self.number, CANCEL_ALL)
  end
  local ok, message, errno = op.close(self.number)
  descriptor:take() -- now that it is closed: an error before leaves an owner
  if not ok then
    return nil, message, errno
  end
  return true
end

--- Closes, also in a task that is being cancelled.  A read or write of another task ends with nil, "closed".
-- Idempotent.
-- @treturn bool true; nil, message, errno
function methods:close()
  local descriptor = self.descriptor
  if not descriptor then
    return true
  end
  self.descriptor = nil
  self.reader = nil
  return core.shield(close, self, descriptor)
end

--- The descriptor.
-- @treturn int
function methods:fd()
  check_open(self)
  return self.number
end

--- The address of the other end.
-- @treturn string nil, message, errno
function methods:peer()
  check_open(self)
  return core.peer_address(self.number)
end

--- The address of this end.
-- @treturn string nil, message, errno
function methods:address()
  check_open(self)
  return core.local_address(self.number)
end

function Stream:__tostring()
  if not self.descriptor then
    return self.kind .. " (closed)"
  end
  return ("%s (%s, fd %d)"):format(self.kind, self.name, self.number)
end

Stream.__close = methods.close

--- Nothing is held back, so there is nothing to do.
function methods:flush()
  check_open(self)
  return self
end

-- For what works on the descriptor of a stream.

local function is_stream(x)
  return getmetatable(x) == Stream
end

local function kind_of(self)
  check_open(self)
  return self.kind
end

local function is_open(self)
  return self.descriptor ~= nil
end

local function in_hand(self)
  return self.reader and self.reader:pending() or 0
end

-- Waits until the descriptor can be read or written.
local function poll(self, event)
  check_open(self)
  self.busy = self.busy + 1
  local events, message, errno = op.poll_add(self.number, event)
  self.busy = self.busy - 1
  if not events then
    return failed(self, message, errno)
  end
  return events
end

return {
  new = new, open = open, close = close, methods = methods;
  is_stream = is_stream, is_open = is_open, kind = kind_of, in_hand = in_hand, poll = poll;
}
