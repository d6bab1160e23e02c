--- Addresses as the program writes them: which of them are there to be used as
-- they are, and which have names in them.

local core = require "uring.core"
local resolve = require "uring.resolve"

local EINVAL = core.errno.EINVAL

local M = {}

-- What could be the name of a host: what is made of digits and dots alone is a
-- numeric address, or a mistake.
local function is_name(host)
  return #host <= 255 and host:find "^[%w_\x80-\xff][%w_.\x80-\xff-]*$" and not host:find "^[%d.]+$"
end

local function is_service(service)
  return service:find "^%w[%w+._-]*$" and not service:find "^%d+$"
end

local function is_port(service)
  return service:find "^%d%d?%d?%d?%d?$" and tonumber(service) <= 65535
end

-- Host and service of an address with a name in it; nothing: it is malformed.
local function split(address)
  local host, service = address:match "^(.*):([^:]*)$"
  if not host then
    return nil
  elseif is_service(service) then
    if core.address_family(host .. ":0") then -- numeric, localhost or *
      return host:match "^%[(.*)%]$" or (host == "*" and "0.0.0.0" or host), service
    end
  elseif not is_port(service) then
    return nil
  end
  if is_name(host) then
    return host, service
  end
end

--- The numeric addresses that an address stands for.
-- @string address
-- @string[opt="stream"] kind "stream" | "datagram"
-- @treturn table a list in the order to try them; nil, "address: reason", errno
function M.numeric(address, kind)
  local family, message = core.address_family(address)
  if family then
    return { address }
  end
  local host, service = split(address)
  if not host then
    return nil, message, EINVAL
  end
  local list, errno
  list, message, errno = resolve.look_up(host, service, { kind = kind })
  if not list then
    return nil, address .. ": " .. message, errno
  end
  return list
end

--- The same for who connects: localhost is both of its addresses, and no name
-- service is asked for it (RFC 6761).
function M.to_connect(address)
  local port = address:match "^localhost:(%d+)$"
  if port and is_port(port) then
    return { "[::1]:" .. port, "127.0.0.1:" .. port }
  end
  return M.numeric(address)
end

return M
