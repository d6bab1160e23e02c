--- Names of hosts and services, as the system knows them.

local core = require "uring.core"
local options = require "uring.options"
local scope = require "uring.scope"

local const = core.const
local ETIMEDOUT = core.errno.ETIMEDOUT

local M = {}

local families = { inet = const.AF_INET, inet6 = const.AF_INET6 }
local kinds = { stream = const.SOCK_STREAM, datagram = const.SOCK_DGRAM }

local known = { timeout = "number", family = "string", kind = "string" }

-- One of a few names.
local function choice(given, name, choices)
  local value = given[name]
  if value ~= nil and not choices[value] then
    local names = {}
    for one in pairs(choices) do
      names[#names + 1] = ("'%s'"):format(one)
    end
    table.sort(names)
    error(("option '%s' of resolve: %s expected, got '%s'"):format(name, table.concat(names, " or "), value), 3)
  end
  return value and choices[value]
end

--- Looks up, without checking what it is given.
-- @string host
-- @string service
-- @tab given as for `resolve`
-- @treturn table a list of addresses; nil, reason, errno
function M.look_up(host, service, given)
  return core.getaddrinfo(host, service, families[given.family] or 0, kinds[given.kind or "stream"])
end

--- Asks the system's resolver (/etc/hosts, nsswitch, DNS) for addresses.  It
-- does so in a thread of its own, so nothing else waits; cancelled, the task
-- goes on at once, and what the thread finds is dropped.
-- @string host a name, or a numeric address
-- @tparam string|int service a name of /etc/services, or a port
-- @tab[opt] given `timeout` (seconds), `family` ("inet" | "inet6": only those),
--   `kind` ("stream" | "datagram", which matters to names of services)
-- @treturn table addresses, "93.184.216.34:80", each once, in the order in which
--   to try them; nil, "host: reason", errno: ENOENT where there is no such name
--   or service, EAGAIN where no server answers now, ETIMEDOUT
-- @raise wrong types, unknown options
function M.resolve(host, service, given)
  if type(host) ~= "string" then
    error(("bad argument #1 to 'resolve' (string expected, got %s)"):format(type(host)), 2)
  end
  if type(service) ~= "string" and math.type(service) ~= "integer" then
    error(("bad argument #2 to 'resolve' (string or integer expected, got %s)"):format(type(service)), 2)
  end
  given = options.check("resolve", given or {}, known)
  options.check_not_negative("resolve", given, "timeout")
  choice(given, "family", families)
  choice(given, "kind", kinds)
  local list, message, errno
  if given.timeout then
    list, message, errno = scope.timeout(given.timeout, M.look_up, host, tostring(service), given)
  else
    list, message, errno = M.look_up(host, tostring(service), given)
  end
  if not list then
    return nil, host .. ": " .. message, errno or ETIMEDOUT
  end
  return list
end

return M
