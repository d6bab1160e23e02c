--- Datagrams: UDP, and unix sockets of datagrams.

local core = require "uring.core"
local addresses = require "uring.address"
local options = require "uring.options"
local scope = require "uring.scope"
local socket = require "uring.socket"
local socket_options = require "uring.socket_options"

local op, const = core.op, core.const
local ECANCELED, ETIMEDOUT, EAGAIN = core.errno.ECANCELED, core.errno.ETIMEDOUT, core.errno.EAGAIN
local Buffer = getmetatable(core.buffer(0))

local WEAK = { __mode = "k" }
local ON_AND_ON = { multishot = true, copy = true }

local DATAGRAM_MAX = 65535 -- no datagram of UDP is longer (65507 over IPv4)
local HEADER = 144         -- before each message in a buffer of a pool

local methods = socket_options.extend {}
local Udp = { __index = methods, __name = "uring.udp" }

local known = {
  [1] = "string", connect = "string", reuseaddr = "boolean", reuseport = "boolean", broadcast = "boolean",
  v6only = "boolean", ttl = "integer", timeout = "number", size = "integer", buffers = "integer";
}

local function check_open(self)
  if not self.descriptor then
    error("attempt to use a closed udp socket", 3)
  end
end

-- As a failed operation returns: "closed" where it was close that ended it.
local function failed(self, message, errno)
  if not self.descriptor and errno == ECANCELED then
    message = "closed"
  elseif errno == ETIMEDOUT then
    message = "timeout"
  end
  return nil, message, errno
end

local set_before_bind = { "reuseaddr", "reuseport", "broadcast", "v6only", "ttl" }

local function set_up(fd, address, given)
  local ok, message, errno = true, nil, nil
  for _, name in ipairs(set_before_bind) do
    if ok and given[name] ~= nil then
      ok, message, errno = core.sockopt(fd, name, given[name])
    end
  end
  if ok and address then
    ok, message, errno = op.bind(fd, address)
  end
  return ok, message, errno
end

local function check_options(given)
  options.check_not_negative("udp", given, "timeout")
  for _, name in ipairs { "size", "buffers" } do
    if given[name] and given[name] < 1 then
      error(("option '%s' of udp is %d, not 1 or more"):format(name, given[name]), 3)
    end
  end
end

-- The numeric address of one with a name in it.
local function numeric(address)
  local list, message, errno = addresses.numeric(address, "datagram")
  return list and list[1], message, errno
end

-- The numeric addresses of both ends, as far as they are given.
local function both_ends(address, given)
  local here, there, message, errno
  if address then
    here, message, errno = numeric(address)
    if not here then
      return nil, message, errno
    end
  end
  if given.connect then
    there, message, errno = numeric(given.connect)
    if not there then
      return nil, message, errno
    end
  end
  return true, here, there
end

local function open(here, there, given)
  local name = here or there or "0.0.0.0:0"
  local made <close>, fd, errno = socket.open(name, const.SOCK_DGRAM)
  if not made then
    return nil, fd, errno
  end
  local ok, message
  ok, message, errno = set_up(fd, here, given)
  if not ok then
    return socket.failed(name, message, errno)
  end
  if there then
    ok, message, errno = op.connect(fd, there)
    if not ok then
      return socket.failed(there, message, errno)
    end
  end
  local self = setmetatable({
    number = fd;
    descriptor = core.descriptor();       -- nil: closed
    name = name;
    busy = 0;                             -- operations in flight
    size = given.size or DATAGRAM_MAX;    -- of a datagram; of a longer one the rest is lost
    buffers = given.buffers or 16;        -- of datagrams()
    seconds = given.timeout;              -- that recv waits; nil: for as long as it takes
    spare = nil;                          -- a Buffer that recv is not using
    flow = nil;                           -- the receive that goes on and on
    polls = setmetatable({}, WEAK);       -- that wait for room to send
  }, Udp)
  self.descriptor:put(made:take())
  return self
end

--- A socket of datagrams.
-- @tparam[opt] string|table address the address to receive at ("127.0.0.1:5353",
--   "*:0", "[::]:0", "unix:/run/x.sock"), without it any that the system chooses when
--   the first datagram is sent; or a table with that at [1], or nothing, and the
--   options `connect` (the only peer: `send` needs no address, others are not heard,
--   and it is told when nobody is there), `timeout` (seconds that `recv` waits),
--   `size` (of the longest datagram, default 65535), `buffers` (how many datagrams
--   `datagrams` takes from the kernel ahead of its reader, default 16), `reuseaddr`,
--   `reuseport`, `broadcast`, `v6only`, `ttl`
-- @treturn Udp nil, "address: reason", errno
-- @raise wrong types, unknown options
local function udp(address)
  local given = {}
  if address ~= nil then
    address, given = socket.arguments("udp", address, known, true)
  end
  check_options(given)
  local ok, here, there = both_ends(address, given)
  if not ok then
    return nil, here, there
  end
  return open(here, there, given)
end

local function send_one(self, data, to, flags)
  self.busy = self.busy + 1
  local n, message, errno
  if to then
    n, message, errno = op.sendmsg(self.number, { data = data, to = to }, flags)
  else
    n, message, errno = op.send(self.number, data, nil, flags)
  end
  self.busy = self.busy - 1
  return n, message, errno
end

-- Waits until there is room to send: what the poll of a descriptor returns.
local function poll_for_room(self, fd)
  local poll <close> = core.on_default.prepare("poll_add", fd, const.POLLOUT)
  self.polls[poll] = true
  local mask, message, errno = poll:await()
  self.polls[poll] = nil
  return mask, message, errno
end

-- Waits until a unix socket may have room for one more datagram.  Of the only
-- peer a poll of this socket tells that; of others, that of a socket connected to
-- them.  Where there can be none, the next send says why.
local function wait_for_room(self, to)
  local ok, message, errno = poll_for_room(self, self.number)
  if not ok or not to then
    return ok, message, errno
  end
  local probe <close>, fd, code = socket.open(to, const.SOCK_DGRAM)
  if not probe then
    return nil, fd, code
  end
  if op.connect(fd, to) and self.descriptor then
    return poll_for_room(self, fd)
  end
  return true
end

-- To a unix socket.  The kernel (6.18) takes the data from an operation before it
-- sees that there is no room, and when there is sends a datagram without it.  So
-- no operation that has data waits for room.
local function send_to_unix(self, data, to)
  local n, message, errno
  while self.descriptor do
    n, message, errno = send_one(self, data, to, const.MSG_DONTWAIT)
    if errno ~= EAGAIN then
      return n, message, errno
    end
    if self.descriptor then
      n, message, errno = wait_for_room(self, to)
      if not n then
        return nil, message, errno
      end
    end
  end
  return nil, "closed", ECANCELED
end

--- Sends a datagram.
-- @tparam string|Buffer data it may be empty
-- @string[opt] to where to; not needed where the socket is connected.  A numeric
--   address: names are for `uring.resolve`
-- @treturn int bytes; nil, message, errno
function methods:send(data, to)
  check_open(self)
  if type(data) ~= "string" and getmetatable(data) ~= Buffer then
    error(("bad argument #1 to 'send' (string expected, got %s)"):format(type(data)), 2)
  elseif to ~= nil and type(to) ~= "string" then
    error(("bad argument #2 to 'send' (address expected, got %s)"):format(type(to)), 2)
  end
  if to then
    local family, message, errno = core.address_family(to)
    if not family then
      return nil, message, errno
    end
  end
  local send = socket.is_unix(self.name) and send_to_unix or send_one
  local n, message, errno = send(self, data, to)
  if not n then
    return failed(self, message, errno)
  end
  return n
end

-- Who sent a message; nil: it has no name.
local function sender(message)
  local from = message.from
  return from ~= "" and from or nil
end

local function was_cut(message)
  return message.flags & const.MSG_TRUNC ~= 0
end

local function receive_one(self, seconds)
  local buffer = self.spare or core.buffer(self.size)
  self.spare = nil
  self.busy = self.busy + 1
  local n, message, errno = op.recvmsg(self.number, { data = buffer }, 0, seconds and { timeout = seconds })
  self.busy = self.busy - 1
  if not n then
    return failed(self, message, errno)
  end
  local data = n == 0 and "" or buffer:get(1, n)
  self.spare = buffer
  return data, sender(message), was_cut(message)
end

-- The next of those that the kernel receives on and on.  `false` where that has
-- ended, since a task that waited for it was cancelled: there is no use in waiting
-- for it.
local function take(self, flow)
  local n, message, data = flow:await()
  if n then
    return data or "", sender(message), was_cut(message)
  end
  if self.flow == flow then
    self.flow = nil
  end
  if data == ECANCELED and self.descriptor then
    return false
  end
  return failed(self, message, data)
end

--- Waits for a datagram.
-- @number[opt] seconds at most so long; without it what `timeout` has set
-- @treturn string the data; nil, message, errno; nil, "timeout", ETIMEDOUT
-- @treturn string the address of the sender, nil for a unix socket without a name
-- @treturn bool is it cut short, since it was longer than `size`?
function methods:recv(seconds)
  check_open(self)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds) then
    error("bad argument #1 to 'recv' (seconds expected)", 2)
  end
  seconds = seconds or self.seconds
  while self.flow do
    local data, peer, cut
    if seconds then
      data, peer, cut = scope.timeout(seconds, take, self, self.flow)
    else
      data, peer, cut = take(self, self.flow)
    end
    if data ~= false then
      return data, peer, cut
    elseif not self.descriptor then -- since then
      return failed(self, nil, ECANCELED)
    end
  end
  return receive_one(self, seconds)
end

--- Sets how long `recv` waits.
-- @number[opt] seconds nil: for as long as it takes
-- @treturn Udp
function methods:timeout(seconds)
  check_open(self)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds) then
    error("bad argument #1 to 'timeout' (seconds expected)", 2)
  end
  self.seconds = seconds
  return self
end

-- One operation that receives on and on, into buffers of a pool: as many
-- datagrams as that has buffers are taken from the kernel ahead of the reader.
local function start_flow(self)
  local message = nil
  if not self.pool then
    self.pool, message = core.on_default.pool { buffers = self.buffers, size = self.size + HEADER }
  end
  if not self.pool then
    error(message, 0)
  end
  self.flow = core.on_default.prepare("recvmsg", self.number, { data = self.pool }, 0, ON_AND_ON)
end

--- Iterates over datagrams, until the socket is closed: data, the sender's
-- address, and whether it is cut short, as `recv` has them.  Raises where
-- receiving fails.  What has been received and nobody was given stays for the
-- next who asks, `recv` included.
function methods:datagrams()
  check_open(self)
  return function()
    local data, peer, cut = false, nil, nil
    while data == false and self.descriptor do
      if not self.flow then
        start_flow(self)
      end
      data, peer, cut = take(self, self.flow)
    end
    if data == nil and peer ~= "closed" then
      error(peer, 2)
    end
    return data or nil, peer, cut
  end
end

--- Names the only peer from now on.
-- @string address
-- @treturn Udp nil, message, errno
function methods:connect(address)
  check_open(self)
  if type(address) ~= "string" then
    error(("bad argument #1 to 'connect' (address expected, got %s)"):format(type(address)), 2)
  end
  local there, message, errno = numeric(address)
  if not there then
    return nil, message, errno
  elseif not self.descriptor then -- while the name was asked for
    return failed(self, nil, ECANCELED)
  end
  local ok
  ok, message, errno = op.connect(self.number, there)
  if not ok then
    return socket.failed(address, message, errno)
  end
  return self
end

local function membership(self, name, join, group, interface)
  if type(group) ~= "string" then
    error(("bad argument #1 to '%s' (address of a group expected, got %s)"):format(name, type(group)), 3)
  elseif interface ~= nil and type(interface) ~= "string" and math.type(interface) ~= "integer" then
    error(("bad argument #2 to '%s' (interface expected, got %s)"):format(name, type(interface)), 3)
  end
  local ok, message, errno = core.membership(self.number, join, group, interface)
  if not ok then
    return nil, message, errno
  end
  return self
end

--- Receives what is sent to a multicast group, too.  How far what is sent to one
-- goes is `sockopt("multicast_ttl", n)`, and whether it comes back to this machine
-- `sockopt("multicast_loop", on)`.
-- @string group "239.1.2.3", "ff02::fb"
-- @tparam[opt] string|int interface its name or number; without it the system's choice
-- @treturn Udp nil, message, errno
function methods:join(group, interface)
  check_open(self)
  return membership(self, "join", true, group, interface)
end

--- Leaves a multicast group.
-- @treturn Udp nil, message, errno
function methods:leave(group, interface)
  check_open(self)
  return membership(self, "leave", false, group, interface)
end

--- The address it receives at.
-- @treturn string nil, message, errno
function methods:address()
  check_open(self)
  return core.local_address(self.number)
end

--- The address of the only peer.
-- @treturn string nil, message, errno
function methods:peer()
  check_open(self)
  return core.peer_address(self.number)
end

--- The descriptor.
-- @treturn int
function methods:fd()
  check_open(self)
  return self.number
end

local function close(self, descriptor)
  local flow, pool = self.flow, self.pool
  self.flow, self.pool, self.spare = nil, nil, nil
  if flow then
    socket.stop(flow)
  end
  if pool then
    pool:close()
  end
  return socket.close(self, descriptor)
end

--- Closes.  A receive of another task ends with nil, "closed".  Idempotent.
-- @treturn bool true; nil, message, errno
function methods:close()
  local descriptor = self.descriptor
  if not descriptor then
    return true
  end
  self.descriptor = nil
  for poll in pairs(self.polls) do
    core.request_cancel(poll)
  end
  return core.shield(close, self, descriptor)
end

function Udp:__tostring()
  if not self.descriptor then
    return "udp (closed)"
  end
  return ("udp (%s, fd %d)"):format(self.name, self.number)
end

Udp.__close = methods.close

return { udp = udp }
