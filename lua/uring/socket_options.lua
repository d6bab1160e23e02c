--- Options of sockets, as methods: of streams, listeners and UDP sockets.  Each
-- finds the socket by the object's `fd`, which raises where it is closed.

local core = require "uring.core"

local M = {}

local keepalive_fields = { idle = "keepidle", interval = "keepintvl", count = "keepcnt" }

-- Checks the table of keepalive.
local function check_fields(value, level)
  for name, n in pairs(value) do
    if not keepalive_fields[name] then
      error(("unknown option '%s' of keepalive%s; it takes count idle interval"):format(tostring(name),
        type(name) == "string" and core.near(name, { "count", "idle", "interval" }) or ""), level + 1)
    elseif math.type(n) ~= "integer" or n < 1 then
      error(("option '%s' of keepalive: positive integer expected, got %s"):format(name, tostring(n)), level + 1)
    end
  end
end

--- Sets keepalive on a descriptor.
-- @int fd
-- @tparam bool|table value
-- @int level of the caller, for errors
-- @treturn bool true; nil, message, errno
function M.set_keepalive(fd, value, level)
  if type(value) ~= "table" then
    return core.sockopt(fd, "keepalive", value)
  end
  check_fields(value, level + 1)
  local ok, message, errno = core.sockopt(fd, "keepalive", true)
  for name, option in pairs(keepalive_fields) do
    if ok and value[name] then
      ok, message, errno = core.sockopt(fd, option, value[name])
    end
  end
  return ok, message, errno
end

local function check_boolean(name, value, besides)
  if value ~= nil and type(value) ~= "boolean" then
    error(("bad argument #1 to '%s' (boolean%s expected, got %s)"):format(name, besides or "", type(value)), 3)
  end
end

local methods = {}

--- Gets or sets an option by its name: that of the kernel without its prefix, in
-- lower case.  Booleans: `acceptconn bind_address_no_port broadcast cork
-- dontroute fastopen_connect freebind keepalive multicast_loop nodelay oobinline
-- quickack reuseaddr reuseport transparent v6only`.  Integers: `busy_poll
-- defer_accept domain error fastopen incoming_cpu keepcnt keepidle keepintvl
-- linger2 mark maxseg mtu mtu_discover multicast_ttl notsent_lowat priority
-- protocol rcvbuf rcvlowat sndbuf syncnt tos ttl type`.  Strings: `bindtodevice
-- congestion`.  `user_timeout`: seconds.  `linger`: seconds, or false.
-- `peercred`: see `credentials`.  On an IPv6 socket `ttl`, `tos`, `mtu`, and the
-- options of multicast are IPv6's own.
-- @string name
-- @param[opt] value
-- @return the value, or the object where one was set; nil, message, errno
-- @raise unknown names, wrong types
function methods:sockopt(name, value)
  local ok, result, message, errno = pcall(core.sockopt, self:fd(), name, value)
  if not ok then
    error(result, 2) -- the core names no place, since it was called by pcall
  elseif value == nil or result == nil then
    return result, message, errno
  end
  return self
end

--- Is what is written sent at once (TCP_NODELAY), and not held back until what
-- was sent before is acknowledged?
-- @bool[opt] on sets it
-- @return the object; without an argument the value; nil, message, errno
function methods:nodelay(on)
  check_boolean("nodelay", on)
  return methods.sockopt(self, "nodelay", on)
end

--- Is the peer asked, on a connection without traffic, whether it is still there?
-- @tparam[opt] bool|table on sets it: true, false or `{ idle =, interval =, count = }`:
--   seconds until the first question, seconds between them, and how many
--   without an answer end the connection
-- @return the object; without an argument the value; nil, message, errno
function methods:keepalive(on)
  if on == nil then
    return methods.sockopt(self, "keepalive")
  end
  if type(on) ~= "table" then
    check_boolean("keepalive", on, " or table")
  end
  local ok, message, errno = M.set_keepalive(self:fd(), on, 2)
  if not ok then
    return nil, message, errno
  end
  return self
end

--- Who is at the other end of a unix socket: the process that connected, or
-- listened.
-- @treturn table `{ pid =, uid =, gid = }`; nil, message, errno
function methods:credentials()
  return core.sockopt(self:fd(), "peercred")
end

--- Adds the methods to those of a kind of object.
-- @tab object its methods
-- @treturn table the same
function M.extend(object)
  for name, method in pairs(methods) do
    object[name] = method
  end
  return object
end

return M
