--- What listening, connecting and datagrams share; pipes and pairs of sockets.

local core = require "uring.core"
local options = require "uring.options"
local socket_options = require "uring.socket_options"
local stream = require "uring.stream"

local op, const = core.op, core.const
local CANCEL_ALL = const.IORING_ASYNC_CANCEL_ALL

local M = {}

--- The address and the options of a call that takes either form.
-- @string subject the call
-- @tparam string|table address
-- @tab known options, for `options.check`
-- @bool[opt] may_lack may the address at [1] be missing?
-- @treturn string the address
-- @treturn table the options
function M.arguments(subject, address, known, may_lack)
  if type(address) == "string" then
    return address, {}
  elseif type(address) ~= "table" then
    error(("bad argument #1 to '%s' (address expected, got %s)"):format(subject, type(address)), 3)
  end
  options.check(subject, address, known, 4)
  if not address[1] and not may_lack then
    error(("bad argument #1 to '%s' (there is no address at [1])"):format(subject), 3)
  end
  return address[1], address
end

--- The message of a step, with the address for its subject.
function M.failed(address, message, errno)
  return nil, address .. ": " .. message:gsub("^[^:]*: ", "", 1), errno
end

--- A socket for a numeric address, in the hands of a Descriptor.
-- @string address
-- @int kind SOCK_*
-- @treturn Descriptor nil, message, errno
-- @treturn int its number
function M.open(address, kind)
  local family, message, errno = core.address_family(address)
  if not family then
    return nil, message, errno
  end
  local socket = core.descriptor() -- made first: see stream.new
  local fd
  fd, message, errno = op.socket(family, kind | const.SOCK_CLOEXEC)
  if not fd then
    return M.failed(address, message, errno)
  end
  socket:put(fd)
  return socket, fd
end

function M.is_unix(address)
  return address:find "^unix:" ~= nil
end

--- Sets options of connections on a new socket: `nodelay`, `keepalive`.
-- @treturn bool true; nil, message, errno
function M.set_options(fd, address, given)
  local ok, message, errno = true, nil, nil
  if M.is_unix(address) then
    return true
  end
  if given.nodelay then
    ok, message, errno = core.sockopt(fd, "nodelay", true)
  end
  if ok and given.keepalive then
    ok, message, errno = socket_options.set_keepalive(fd, given.keepalive, 3)
  end
  return ok, message, errno
end

--- Ends an operation that goes on and on, and waits for its end.  What it has
-- brought and nobody was given is let go of.
function M.stop(flow)
  local _ <close> = flow
end

--- Closes the descriptor of an object that has a `number` and counts operations
-- that are in flight as `busy`.  Closing a descriptor ends nothing that uses it:
-- that is cancelled first.
-- @treturn bool true; nil, message, errno
function M.close(self, descriptor)
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
