--- Descriptors through unix sockets, as methods of streams.

local core = require "uring.core"
local descriptor = require "uring.descriptor"
local listener = require "uring.listener"
local stream = require "uring.stream"

local const = core.const
local EAGAIN, EINTR, ECANCELED = core.errno.EAGAIN, core.errno.EINTR, core.errno.ECANCELED

local DESCRIPTORS_MAX = 253 -- that the kernel takes in one message

local methods = {}

local function check_count(name, i, n, most)
  if math.type(n) ~= "integer" or n < 1 or n > most then
    error(("bad argument #%d to '%s' (integer from 1 to %d expected)"):format(i, name, most), 3)
  end
end

-- Makes the call until it is not told to wait.
local function until_ready(self, wait, call, ...)
  while stream.is_open(self) do
    local result, message, errno, more = call(self:fd(), ...)
    if result then
      return result, message, errno, more
    elseif errno == EAGAIN then
      result, message, errno = wait(self)
      if not result then
        return nil, message, errno
      end
    elseif errno ~= EINTR then
      return nil, message, errno
    end
  end
  return nil, "closed", ECANCELED
end

--- Sends descriptors over a unix socket, with data that goes with them.  They
-- stay open here, too; closed meanwhile, they are sent all the same.
-- @string data at least one byte, which the descriptors arrive with
-- @tab list up to 253 streams, listeners, other objects with `fd`, or numbers
-- @treturn Stream nil, message, errno
-- @raise wrong types, a closed object
function methods:send_fds(data, list)
  self:fd()
  if type(data) ~= "string" or data == "" then
    error(("bad argument #1 to 'send_fds' (string that is not empty expected, got %s)"):format(
      type(data) == "string" and "''" or type(data)), 2)
  elseif type(list) ~= "table" or getmetatable(list) then
    error(("bad argument #2 to 'send_fds' (list expected, got %s)"):format(type(list)), 2)
  end
  if #list < 1 or #list > DESCRIPTORS_MAX then
    error(("bad argument #2 to 'send_fds' (1 to %d descriptors expected, got %d)"):format(DESCRIPTORS_MAX, #list), 2)
  end
  local numbers = {}
  for i, x in ipairs(list) do
    numbers[i] = descriptor.number("send_fds", x)
  end
  local domain, message, errno = core.sockopt(self:fd(), "domain")
  if domain and domain ~= const.AF_UNIX then -- elsewhere they would be left out without a word
    return nil, "sendmsg: Operation not supported", core.errno.EOPNOTSUPP
  elseif not domain then
    return nil, (message:gsub("^[^:]*", "sendmsg")), errno
  end
  local sent <close> = core.passing(numbers)
  return core.stream_pass(self, data, sent)
end

-- What a descriptor that has come is used as.
local function owner_of(received)
  local kind = core.file_kind(received:number())
  if kind == "listener" then
    return listener.new(received, core.local_address(received:number()) or "received")
  end
  local made = stream.new(kind == "datagram" and "socket" or kind or "pipe", "received")
  return stream.open(made, received:take())
end

--- Receives data over a unix socket, with the descriptors that came with it.  Each
-- belongs to what is returned for it: a Stream, or a Listener where it listens.
-- They are closed in programs that are executed (CLOEXEC).  `read` and its like
-- drop descriptors, so what is to come with some is received with this alone;
-- what a read has left in hand is returned first, with none.
-- @int[opt=16] most how many descriptors may come at a time, up to 253: of more
--   the rest is closed
-- @int[opt=65536] bytes of data at most
-- @treturn string data; nil at the end; nil, message, errno
-- @treturn table a list of Streams and Listeners, which may be empty
-- @treturn bool were there more than `most`?
function methods:recv_fds(most, bytes)
  self:fd()
  most, bytes = most or 16, bytes or 65536
  check_count("recv_fds", 1, most, DESCRIPTORS_MAX)
  check_count("recv_fds", 2, bytes, math.maxinteger >> 33)
  if stream.in_hand(self) > 0 then
    return self:read_some(bytes), {}, false
  end
  local owners, list = {}, {}
  for i = 1, most do
    owners[i] = core.descriptor()
  end
  local data, count, cut = until_ready(self, stream.readable, core.receive_descriptors, bytes,
    table.unpack(owners))
  if not data then
    return nil, count, cut
  elseif data == "" and count == 0 then
    return nil
  end
  for i = 1, count do
    list[i] = owner_of(owners[i])
  end
  return data, list, cut
end

--- Adds the methods to those of streams.
local function extend(object)
  for name, method in pairs(methods) do
    object[name] = method
  end
end

return { extend = extend }
