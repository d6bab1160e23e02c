--- Commands on strings, and on keys whatever they hold.
--
-- Each is `{ least, most, fn }`: how many arguments it takes, and the function that
-- gives its reply.  It is called with the first two arguments, all words of the
-- command, and the client's session.

local glob = require "kv.glob"
local resp = require "kv.resp"
local store = require "kv.store"
local uring = require "uring"

local MANY <const> = resp.ARGS_MAX
local OK, NIL = resp.OK, resp.NIL
local integer, integer_of, bulk, refuse = resp.integer, resp.integer_of, resp.bulk, resp.refuse

local commands = {}

--
-- Strings
--

commands.GET = { 1, 1, function(key) return bulk(store.string(key)) end }

local units = { EX = 1, PX = 1000 }

local function set_options(args)
  local given, i = {}, 4
  while args[i] do
    local name = args[i]:upper()
    if units[name] and not given.seconds then
      i = i + 1
      given.seconds = integer_of(args[i] or refuse "ERR syntax error") / units[name]
      if given.seconds <= 0 then
        refuse "ERR invalid expire time in 'set' command"
      end
    elseif name == "NX" or name == "XX" then
      given[name] = true
    else
      refuse "ERR syntax error"
    end
    i = i + 1
  end
  return given.NX and given.XX and refuse "ERR syntax error" or given
end

commands.SET = { 2, 6, function(key, value, args)
  local seconds
  if args[4] then
    local given = set_options(args)
    local there = store.get(key) ~= nil
    if given.NX and there or given.XX and not there then
      return NIL
    end
    seconds = given.seconds
  end
  store.put(key, value)
  store.expire(key, seconds and uring.now() + seconds)
  return OK
end }

-- Gives a key a new string in the place of its own; the deadline stays.
local function change(key, fn)
  local value = fn(store.string(key))
  store.put(key, value)
  return value
end

local function add(key, n)
  return integer(change(key, function(value)
    local old = integer_of(value or "0")
    local new = old + n
    if (new < old) ~= (n < 0) then
      refuse "ERR increment or decrement would overflow"
    end
    return tostring(new)
  end))
end

commands.INCR = { 1, 1, function(key) return add(key, 1) end }
commands.DECR = { 1, 1, function(key) return add(key, -1) end }
commands.INCRBY = { 2, 2, function(key, n) return add(key, integer_of(n)) end }
commands.DECRBY = { 2, 2, function(key, n)
  local by = integer_of(n)
  return by == math.mininteger and refuse "ERR decrement would overflow" or add(key, -by)
end }

commands.APPEND = { 2, 2, function(key, more)
  return integer(#change(key, function(value)
    value = value or ""
    if #value + #more > resp.BULK_MAX then
      refuse "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    end
    return value .. more
  end))
end }

commands.STRLEN = { 1, 1, function(key) return integer(#(store.string(key) or "")) end }

commands.MGET = { 1, MANY, function(_, _, args)
  local replies = {}
  for i = 2, #args do
    local value = store.get(args[i])
    replies[i - 1] = type(value) == "string" and bulk(value) or NIL
  end
  return resp.array(replies)
end }

commands.MSET = { 2, MANY, function(_, _, args)
  if #args % 2 == 0 then
    refuse "ERR wrong number of arguments for 'mset' command"
  end
  for i = 2, #args, 2 do
    store.put(args[i], args[i + 1])
    store.expire(args[i], nil)
  end
  return OK
end }

--
-- Keys
--

commands.DEL = { 1, MANY, function(_, _, args)
  return resp.count(args, 2, function(key) return store.get(key) ~= nil and store.remove(key) end)
end }

commands.EXISTS = { 1, MANY, function(_, _, args)
  return resp.count(args, 2, function(key) return store.get(key) ~= nil end)
end }

commands.TYPE = { 1, 1, function(key)
  local value = store.get(key)
  return "+" .. (type(value) == "table" and value.type or value and "string" or "none") .. "\r\n"
end }

commands.KEYS = { 1, 1, function(pattern)
  local matches, found = glob(#pattern <= 1024 and pattern or refuse "ERR pattern is too long"), {}
  store.sweep()
  for key in store.keys() do
    if matches(key) then
      found[#found + 1] = key
    end
  end
  return resp.bulks(found)
end }

commands.EXPIRE = { 2, 2, function(key, seconds)
  seconds = integer_of(seconds)
  if store.get(key) == nil then
    return integer(0)
  end
  store.expire(key, uring.now() + seconds)
  return integer(1)
end }

commands.PERSIST = { 1, 1, function(key)
  local expires = store.get(key) ~= nil and store.deadline(key)
  store.expire(key, nil)
  return integer(expires and 1 or 0)
end }

-- What is left of the key's time, in parts of a second.
local function time_left(key, parts)
  if store.get(key) == nil then
    return integer(-2)
  end
  local deadline = store.deadline(key)
  return integer(deadline and math.floor((deadline - uring.now()) * parts + 0.5) or -1)
end

commands.TTL = { 1, 1, function(key) return time_left(key, 1) end }
commands.PTTL = { 1, 1, function(key) return time_left(key, 1000) end }

commands.DBSIZE = { 0, 0, function() return integer(store.size()) end }

commands.FLUSHALL = { 0, 1, function()
  store.clear()
  return OK
end }

return commands
