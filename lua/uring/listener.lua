--- Listening: connections one by one, as they come, or with a task each.
--
-- `accept` asks for one connection.  `clients` and `serve` have the kernel accept
-- on and on (a multishot accept, the listener's `flow`), and from then on
-- `accept` takes from that, too: what the kernel has accepted is handed out by
-- whoever asks next, in order, or closed with the listener.

local core = require "uring.core"
local addresses = require "uring.address"
local options = require "uring.options"
local server = require "uring.server"
local socket = require "uring.socket"
local socket_options = require "uring.socket_options"
local stream = require "uring.stream"

local op, const = core.op, core.const
local errno_of = core.errno
local ECANCELED = errno_of.ECANCELED
local NO_PEER = { peer = false }
local ON_AND_ON = { peer = false, multishot = true }

-- Accepting fails like this when something there is only so much of is used up:
-- it will be free again.
local exhausted = {
  [errno_of.EMFILE] = true, [errno_of.ENFILE] = true, [errno_of.ENOBUFS] = true, [errno_of.ENOMEM] = true;
}
-- And like this when it is the connection that has failed already: see accept(2).
local of_one = {}
for _, name in ipairs {
  "ECONNABORTED", "ECONNRESET", "EPROTO", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOPROTOOPT",
  "ENONET", "ETIMEDOUT", "EINTR", "EAGAIN", "EPERM",
} do
  of_one[errno_of[name] or false] = true
end

-- Seconds to wait when descriptors are used up: from the first to at most the
-- second, doubling.
local PAUSE, PAUSE_MAX = 0.01, 1

local methods = socket_options.extend {}
local Listener = { __index = methods, __name = "uring.listener" }

local known = {
  [1] = "string", backlog = "integer", reuseport = "boolean", nodelay = "boolean",
  keepalive = "boolean|table", v6only = "boolean", mode = "integer";
}

--
-- Making one
--

-- The path of a unix socket that is a file; nil for the others.
local function path_of(address)
  return address:match "^unix:([^@].*)$"
end

-- Device and inode of the socket at a path; nil: there is none.
local function identity(path)
  local ok, st = op.statx(nil, path, const.AT_SYMLINK_NOFOLLOW)
  if ok and st.type == "socket" then
    return ("%d:%d:%d"):format(st.dev_major, st.dev_minor, st.ino)
  end
end

-- Is the file of a unix socket left over from somebody who is gone?  Then nobody
-- answers there.  A socket that does not block tells so at once.
local function is_stale(address)
  local probe <close>, fd = socket.open(address, const.SOCK_STREAM | const.SOCK_NONBLOCK)
  if not probe then
    return false
  end
  local _, _, errno = op.connect(fd, address)
  return errno == errno_of.ECONNREFUSED
end

-- Binds.  In the place of a stale socket: it is removed if it still is the one
-- that did not answer, so a listener that has come meanwhile stays.
local function bind(fd, address)
  local ok, message, errno = op.bind(fd, address)
  local path = path_of(address)
  if ok or errno ~= errno_of.EADDRINUSE or not path then
    return ok, message, errno
  end
  local found = identity(path)
  if found and is_stale(address) and identity(path) == found then
    op.unlinkat(nil, path, 0)
    ok, message, errno = op.bind(fd, address)
  end
  return ok, message, errno
end

local function set_options(fd, address, given)
  local ok, message, errno = socket.set_options(fd, address, given)
  if ok and not socket.is_unix(address) then
    ok, message, errno = core.sockopt(fd, "reuseaddr", true)
  end
  if ok and given.reuseport then
    ok, message, errno = core.sockopt(fd, "reuseport", true)
  end
  if ok and given.v6only ~= nil and address:sub(1, 1) == "[" then
    ok, message, errno = core.sockopt(fd, "v6only", given.v6only)
  end
  return ok, message, errno
end

-- From a new socket to one that listens.  Between bind and listen nobody can
-- connect, so nobody gets in before the mode is set.
local function set_up(fd, address, given)
  local ok, message, errno = set_options(fd, address, given)
  if ok then
    ok, message, errno = bind(fd, address)
  end
  if ok and given.mode and path_of(address) then
    ok, message, errno = core.chmod(path_of(address), given.mode)
  end
  if ok then
    ok, message, errno = op.listen(fd, given.backlog)
  end
  return ok, message, errno
end

--- A listener for a socket that listens already.
-- @tparam Descriptor descriptor its owner; from now on the listener is
-- @string name for messages
-- @treturn Listener
local function new(descriptor, name)
  local listener = setmetatable({
    number = -1;
    descriptor = core.descriptor(); -- nil: closed
    name = name;
    busy = 0;                       -- accepts in flight, each for one connection
    flow = nil;                     -- the accept that goes on and on
    servers = {};                   -- running calls of serve
    path = nil;                     -- of the file to remove at the end,
    identity = nil;                 -- if it still is this
  }, Listener)
  listener.number = descriptor:take()
  listener.descriptor:put(listener.number)
  return listener
end

local function listen(address, given)
  local made <close>, fd, errno = socket.open(address, const.SOCK_STREAM)
  if not made then
    return nil, fd, errno
  end
  local ok, message
  ok, message, errno = set_up(fd, address, given)
  if not ok then
    return socket.failed(address, message, errno)
  end
  local listener = new(made, address)
  listener.path = path_of(address)
  listener.identity = listener.path and identity(listener.path)
  return listener
end

--- Listens for connections.
-- @tparam string|table address "127.0.0.1:8080", "[::1]:80", "localhost:http",
--   "*:8080" (all of IPv4), "[::]:8080" (IPv6 and, unless `v6only`, IPv4),
--   "unix:/run/x.sock", "unix:@abstract"; or a table with the address at [1] and the
--   options `backlog` (connections that may wait, default SOMAXCONN), `reuseport`,
--   `nodelay` and `keepalive` (inherited by the connections), `v6only`, `mode` (of
--   the file of a unix socket: 384 is rw-------).  Port 0: any free one.  Of a name
--   the first address is taken.  A unix socket that nobody listens at any more is
--   replaced; the file is removed on close
-- @treturn Listener nil, "address: reason", errno
-- @raise wrong types, unknown options
local function listen_at(address)
  local given
  address, given = socket.arguments("listen", address, known)
  options.check_not_negative("listen", given, "backlog")
  local list, message, errno = addresses.numeric(address)
  if not list then
    return nil, message, errno
  end
  return listen(list[1], given)
end

--
-- Connections
--

local function check_open(self)
  if not self.descriptor then
    error("attempt to use a closed listener", 3)
  end
end

-- The next connection of those that the kernel accepts on and on.
local function take(self, flow)
  local fd, message, errno = flow:await()
  if not fd and self.flow == flow then
    self.flow = nil -- it has ended; the next who asks starts another
  end
  return fd, message, errno
end

-- As accept.
local function accept(self)
  local connection = stream.new "socket"
  local fd, message, errno
  while self.flow and not fd do
    fd, message, errno = take(self, self.flow)
    if errno and (errno ~= ECANCELED or not self.descriptor) then
      break
    end -- else another task that waited for it was cancelled, and it with that
  end
  if not fd and (not errno or errno == ECANCELED and self.descriptor) then
    self.busy = self.busy + 1
    fd, message, errno = op.accept(self.number, const.SOCK_CLOEXEC, NO_PEER)
    self.busy = self.busy - 1
  end
  if fd then
    return stream.open(connection, fd)
  elseif not self.descriptor and errno == ECANCELED then
    message = "closed"
  end
  return nil, message, errno
end

--- Waits for a connection.
-- @treturn Stream nil, message, errno; nil, "closed", ECANCELED when another task
--   closes the listener meanwhile
function methods:accept()
  check_open(self)
  return accept(self)
end

-- Waits for a connection, and does not give up where another may come: a client
-- that has left already is no reason, and descriptors will be free again.
-- `wait(seconds)` waits for that, `tell(message)` is told once.
-- Stream; nil, message, errno when there is no use in going on.
local function next_connection(self, single, wait, tell)
  local pause = PAUSE
  while self.descriptor do
    if not single and not self.flow then
      self.flow = core.on_default.prepare("accept", self.number, const.SOCK_CLOEXEC, ON_AND_ON)
    end
    local connection, message, errno = accept(self)
    if connection then
      return connection
    elseif exhausted[errno] then
      if tell and pause == PAUSE then
        tell(message)
      end
      wait(pause)
      pause = math.min(2 * pause, PAUSE_MAX)
    elseif not of_one[errno] then
      return nil, message, errno
    end
  end
  return nil, "closed", ECANCELED
end

--- Iterates over connections, until the listener is closed.  Where descriptors
-- are used up it waits for some to be free; raises where the socket itself fails.
-- Connections that the kernel has accepted and nobody has been given stay for the
-- next who asks; `close` closes them.
function methods:clients()
  check_open(self)
  return function()
    local connection, message = next_connection(self, false, core.sleep)
    if not connection and message ~= "closed" then
      error(message, 2)
    end
    return connection
  end
end

--- Serves: runs a function, in a task of its own, for every connection, until the
-- listener is closed and all of them have ended.  When the function returns or
-- fails its connection is closed.  A failure ends that connection and no other,
-- that of a task which it has spawned included.  Where descriptors are used up
-- it waits, longer each time (0.01 s to 1 s), or until a connection has ended.
-- Cancelled, or at the deadline of `shutdown`, it cancels them.
-- @func handler is called with the Stream
-- @tab[opt] given `max` (connections at a time; the others wait to be accepted),
--   `on_error(message, traceback)` (what failed; must not await; default: standard
--   error)
-- @treturn bool true, after `close` or `shutdown`; nil, message, errno when
--   accepting has failed for good
-- @raise wrong types, unknown options, a closed listener
function methods:serve(handler, given)
  check_open(self)
  return server.serve(self, handler, given, next_connection)
end

--- Shuts down: stops listening, and waits until every connection that is being
-- served has ended, for at most so long; those that remain are cancelled.  Not to
-- be called by a handler, which would wait for itself: that may `close`.
-- @number[opt] seconds until they are cancelled; without it they may take as long
--   as they want
-- @treturn int how many were cancelled; nil, message, errno of closing
function methods:shutdown(seconds)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds) then
    error("bad argument #1 to 'shutdown' (seconds expected)", 2)
  end
  local ok, message, errno = self:close()
  local count = server.finish(self, seconds)
  if not ok then
    return nil, message, errno
  end
  return count
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

-- The accept that goes on is ended first; what it has accepted and nobody was
-- given is closed.
local function close(self, descriptor)
  local flow = self.flow
  self.flow = nil
  if flow then
    socket.stop(flow)
  end
  if self.identity and identity(self.path) == self.identity then
    op.unlinkat(nil, self.path, 0)
  end
  return socket.close(self, descriptor)
end

--- Stops listening.  Connections that were accepted stay what they are.
-- Idempotent.
-- @treturn bool true; nil, message, errno
function methods:close()
  local descriptor = self.descriptor
  if not descriptor then
    return true
  end
  self.descriptor = nil
  server.wake(self)
  return core.shield(close, self, descriptor)
end

function Listener:__tostring()
  if not self.descriptor then
    return "listener (closed)"
  end
  return ("listener (%s, fd %d)"):format(self.name, self.number)
end

Listener.__close = methods.close

return { listen = listen_at, new = new }
