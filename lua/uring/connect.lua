--- Connecting: to every address that a name has, in the manner of RFC 8305.

local core = require "uring.core"
local addresses = require "uring.address"
local options = require "uring.options"
local scope = require "uring.scope"
local socket = require "uring.socket"
local stream = require "uring.stream"

local op, const = core.op, core.const

-- Seconds until the next address is tried beside those that have not answered
-- (RFC 8305, 5: Connection Attempt Delay).
local ATTEMPT_DELAY = 0.25

local known = {
  [1] = "string", timeout = "number", nodelay = "boolean", keepalive = "boolean|table", bind = "string";
}

-- Binds to the address that the program wants to connect from.
local function bind(fd, given)
  if not given.bind then
    return true
  end
  if given.bind:find ":0$" then -- the port is chosen when the peer is known: see ip(7)
    core.sockopt(fd, "bind_address_no_port", true)
  end
  local ok, message, errno = op.bind(fd, given.bind)
  if not ok then
    return socket.failed(given.bind, message, errno)
  end
  return true
end

-- One attempt: a connected socket in the hands of a Descriptor; nil, message,
-- errno.
local function attempt(address, given)
  local made <close>, fd, errno = socket.open(address, const.SOCK_STREAM)
  if not made then
    return nil, fd, errno
  end
  local ok, message
  ok, message, errno = socket.set_options(fd, address, given)
  if not ok then
    return socket.failed(address, message, errno)
  end
  ok, message, errno = bind(fd, given)
  if not ok then
    return nil, message, errno
  end
  ok, message, errno = op.connect(fd, address, given.limit)
  if not ok then
    return socket.failed(address, message, errno)
  end
  local connected = core.descriptor()
  connected:put(made:take())
  return connected
end

-- The families by turns, beginning with that of the first (RFC 8305, 4).
local function interleaved(list)
  local first, second = {}, {}
  local family = core.address_family(list[1])
  for _, address in ipairs(list) do
    local same = core.address_family(address) == family
    table.insert(same and first or second, address)
  end
  local result = {}
  for i = 1, math.max(#first, #second) do
    result[#result + 1] = first[i]
    result[#result + 1] = second[i]
  end
  return result
end

-- A task of a race: the first to connect wins, and whoever comes later closes
-- what it has.
local function run_attempt(race, address)
  local connected <close>, message, errno = attempt(address, race.given)
  race.running = race.running - 1
  if not connected then
    table.insert(race.failures, message)
    race.errno = errno
  elseif not race.winner_address then
    race.winner_address = address
    race.winner:put(connected:take())
  end
  race.timer:set(0) -- whatever came of it, somebody has to look
end

-- Starts the attempts, each when the one before has failed or taken long.
local function run_race(attempts, race)
  for _, address in ipairs(race.list) do
    race.timer:after(ATTEMPT_DELAY)
    race.running = race.running + 1
    attempts:spawn(run_attempt, race, address)
    race.timer:wait()
    if race.winner_address then
      break
    end
  end
  while race.running > 0 and not race.winner_address do
    race.timer:set(nil)
    race.timer:wait()
  end
  attempts:cancel()
end

local function connect_to_one(list, given)
  local connection = stream.new("socket", list[1])
  local connected <close>, message, errno = attempt(list[1], given)
  if not connected then
    return nil, message, errno
  end
  return stream.open(connection, connected:take())
end

local function connect_to_any(list, given)
  local race = {
    list = interleaved(list), given = given;
    running = 0;                 -- attempts
    failures = {};               -- their messages
    timer = core.timer();        -- when to look again
    winner = core.descriptor();  -- what is connected
    winner_address = nil;
  }
  local winner <close> = race.winner
  scope.scope(run_race, race)
  if not race.winner_address then
    return nil, table.concat(race.failures, "; "), race.errno
  end
  return stream.open(stream.new("socket", race.winner_address), winner:take())
end

-- Of a list, what has the family of the address to connect from.
local function of_family(list, given, address)
  if not given.bind then
    return list
  end
  local family, message, errno = core.address_family(given.bind)
  if not family then
    return nil, message, errno
  end
  local result = {}
  for _, one in ipairs(list) do
    if core.address_family(one) == family then
      result[#result + 1] = one
    end
  end
  if #result == 0 then
    return nil, ("%s: no address of the kind of '%s'"):format(address, given.bind), core.errno.EAFNOSUPPORT
  end
  return result
end

local function connect(address, given)
  local list, message, errno = addresses.to_connect(address)
  if not list then
    return nil, message, errno
  end
  list, message, errno = of_family(list, given, address)
  if not list then
    return nil, message, errno
  elseif #list == 1 then
    return connect_to_one(list, given)
  end
  local connection
  connection, message, errno = connect_to_any(list, given)
  if not connection then
    return nil, address .. ": " .. message, errno
  end
  return connection
end

local M = {}

--- Connects.  Where the address has a name in it, the system's resolver is asked,
-- and all that it knows are tried, IPv6 and IPv4 by turns: the next when the one
-- before has failed, or after 0.25 s beside it.  The first to answer is taken,
-- and the others are closed.
-- @tparam string|table address "127.0.0.1:8080", "[::1]:80", "example.org:https",
--   "unix:/run/x.sock", "unix:@abstract"; or a table with the address at [1] and the
--   options `timeout` (seconds for all of it), `nodelay`, `keepalive` (as the method
--   of streams), `bind` (the numeric address to connect from)
-- @treturn Stream nil, "address: reason", errno; of several addresses the message
--   has all, "name:80: [::1]:80: reason; 127.0.0.1:80: reason", and errno is that of
--   the last to fail; nil, "address: timeout", ETIMEDOUT
-- @raise wrong types, unknown options
function M.connect(address)
  local given
  address, given = socket.arguments("connect", address, known)
  options.check_not_negative("connect", given, "timeout")
  if not given.timeout then
    return connect(address, given)
  elseif core.address_family(address) and not address:find "^localhost:" then -- it is one attempt
    given = setmetatable({ limit = { timeout = given.timeout } }, { __index = given })
    return connect(address, given)
  end
  local connection, message, errno = scope.timeout(given.timeout, connect, address, given)
  if not connection and message == "timeout" then
    message = address .. ": timeout"
  end
  return connection, message, errno
end

return M
