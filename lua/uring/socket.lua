--- Listening and connecting.

local core = require "uring.core"
local options = require "uring.options"
local stream = require "uring.stream"

local op, const = core.op, core.const
local SOCK_STREAM = const.SOCK_STREAM | const.SOCK_CLOEXEC
local ECANCELED = core.errno.ECANCELED
local CANCEL_ALL = const.IORING_ASYNC_CANCEL_ALL
local NO_PEER = { peer = false }

local M = {}

local methods = {}
local Listener = { __index = methods, __name = "uring.listener" }

local listen_options = {
  [1] = "string", backlog = "integer", reuseport = "boolean", nodelay = "boolean";
}
local connect_options = { [1] = "string", nodelay = "boolean" }

-- The address and the options of a call that takes either form.
local function arguments(subject, address, known)
  if type(address) == "string" then
    return address, {}
  elseif type(address) ~= "table" then
    error(("bad argument #1 to '%s' (address expected, got %s)"):format(subject, type(address)), 3)
  end
  options.check(subject, address, known)
  if not address[1] then
    error(("bad argument #1 to '%s' (there is no address at [1])"):format(subject), 3)
  end
  return address[1], address
end

local function set(fd, level, name)
  return core.setsockopt(fd, level, name, 1)
end

-- The message of a step, with the address for its subject.
local function failed(address, message, errno)
  return nil, address .. ": " .. message:gsub("^[^:]*: ", "", 1), errno
end

-- A socket for an address, in the hands of a Descriptor.
local function open_socket(address)
  local family, message, errno = core.address_family(address)
  if not family then
    return nil, message, errno
  end
  local socket = core.descriptor() -- made first: see stream.new
  local fd
  fd, message, errno = op.socket(family, SOCK_STREAM)
  if not fd then
    return failed(address, message, errno)
  end
  socket:put(fd)
  return socket, fd
end

local function is_unix(address)
  return address:find "^unix:" ~= nil
end

local function set_options(fd, address, given, listening)
  local ok, message, errno = true, nil, nil
  if listening and not is_unix(address) then
    ok, message, errno = set(fd, const.SOL_SOCKET, const.SO_REUSEADDR)
  end
  if ok and given.reuseport then
    ok, message, errno = set(fd, const.SOL_SOCKET, const.SO_REUSEPORT)
  end
  if ok and given.nodelay and not is_unix(address) then
    ok, message, errno = set(fd, const.IPPROTO_TCP, const.TCP_NODELAY)
  end
  return ok, message, errno
end

--- Listens for connections.
-- @tparam string|table address "127.0.0.1:8080", "[::1]:80", "unix:/run/x.sock",
--   "unix:@abstract"; or a table with the address at [1] and the options
--   `backlog` (connections that may wait, default SOMAXCONN), `reuseport`,
--   `nodelay` (inherited by the connections).  Port 0: any free one.
-- @treturn Listener nil, message, errno
-- @raise wrong types, unknown options
function M.listen(address)
  local given
  address, given = arguments("listen", address, listen_options)
  if given.backlog and given.backlog < 0 then
    error("option 'backlog' of listen is negative", 2)
  end
  local socket <close>, fd, errno = open_socket(address)
  if not socket then
    return nil, fd, errno
  end
  local ok, message
  ok, message, errno = set_options(fd, address, given, true)
  if ok then
    ok, message, errno = op.bind(fd, address)
  end
  if ok then
    ok, message, errno = op.listen(fd, given.backlog)
  end
  if not ok then
    return failed(address, message, errno)
  end
  local listener = setmetatable({
    number = fd;
    descriptor = core.descriptor(); -- nil: closed
    name = address;
    busy = 0;                       -- accepts in flight
  }, Listener)
  listener.descriptor:put(socket:take())
  return listener
end

--- Connects.
-- @tparam string|table address as for `listen`; option `nodelay`
-- @treturn Stream nil, message, errno
-- @raise wrong types, unknown options
function M.connect(address)
  local given
  address, given = arguments("connect", address, connect_options)
  local socket <close>, fd, errno = open_socket(address)
  if not socket then
    return nil, fd, errno
  end
  local ok, message
  ok, message, errno = set_options(fd, address, given, false)
  if ok then
    ok, message, errno = op.connect(fd, address)
  end
  if not ok then
    return failed(address, message, errno)
  end
  return stream.open(stream.new("socket", address), socket:take())
end

local function check_open(self)
  if not self.descriptor then
    error("attempt to use a closed listener", 3)
  end
end

--- Waits for a connection.
-- @treturn Stream nil, message, errno; nil, "closed" when another task closes
--   the listener meanwhile
function methods:accept()
  check_open(self)
  local connection = stream.new("socket", self.name)
  self.busy = self.busy + 1
  local fd, message, errno = op.accept(self.number, const.SOCK_CLOEXEC, NO_PEER)
  self.busy = self.busy - 1
  if fd then
    return stream.open(connection, fd)
  elseif not self.descriptor and errno == ECANCELED then
    message = "closed"
  end
  return nil, message, errno
end

--- Iterates over connections, until the listener is closed.  Raises where
-- accepting fails.
function methods:clients()
  check_open(self)
  return function()
    if not self.descriptor then
      return nil
    end
    local connection, message = self:accept()
    if not connection and message ~= "closed" then
      error(message, 2)
    end
    return connection
  end
end

--- The address it listens on, with the port that the system chose.
-- @treturn string
function methods:address()
  check_open(self)
  return core.local_address(self.number)
end

--- The descriptor.
-- @treturn int
function methods:fd()
  check_open(self)
  return self.number
end

-- Closing a descriptor ends nothing that uses it: that is cancelled first.
local function close_listener(self, descriptor)
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

--- Stops listening.  Idempotent.
-- @treturn bool true; nil, message, errno
function methods:close()
  local descriptor = self.descriptor
  if not descriptor then
    return true
  end
  self.descriptor = nil
  return core.shield(close_listener, self, descriptor)
end

function Listener:__tostring()
  if not self.descriptor then
    return "listener (closed)"
  end
  return ("listener (%s, fd %d)"):format(self.name, self.number)
end

Listener.__close = methods.close

-- Two streams of the pair of descriptors that `make` makes.
local function pair(kind, name, make)
  local one, other = stream.new(kind, name), stream.new(kind, name)
  local first <close> = core.descriptor()
  local second <close> = core.descriptor()
  local fd, message, errno = make(first, second)
  if not fd then
    return nil, message, errno
  end
  return stream.open(one, first:take()), stream.open(other, second:take())
end

--- A pipe.
-- @treturn Stream the end to read from; nil, message, errno
-- @treturn Stream the end to write to
function M.pipe()
  return pair("pipe", "pipe", core.pipe)
end

--- Two sockets connected to each other.
-- @treturn Stream nil, message, errno
-- @treturn Stream
function M.socketpair()
  return pair("socket", "socketpair", core.socketpair)
end

return M
