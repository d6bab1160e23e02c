--- Commands on lists, hashes and sets; see `kv.keys`.

local resp = require "kv.resp"
local store = require "kv.store"

local MANY <const> = resp.ARGS_MAX
local integer, bulk = resp.integer, resp.bulk

local commands = {}

--
-- Lists: `items[first]` to `items[first + size - 1]`
--

local function push(key, args, at_head)
  local list = store.table(key, "list")
  for i = 3, #args do
    list.first = at_head and list.first - 1 or list.first
    list.items[at_head and list.first or list.first + list.size] = args[i]
    list.size = list.size + 1
  end
  store.keep(key, list)
  return integer(list.size)
end

local function pop(key, at_head)
  local list = store.table(key, "list")
  local at = at_head and list.first or list.first + list.size - 1
  local item = list.items[at]
  if item then
    list.items[at] = nil
    list.first = at_head and list.first + 1 or list.first
    list.size = list.size - 1
    store.keep(key, list)
  end
  return bulk(item)
end

commands.LPUSH = { 2, MANY, function(key, _, args) return push(key, args, true) end }
commands.RPUSH = { 2, MANY, function(key, _, args) return push(key, args, false) end }
commands.LPOP = { 1, 1, function(key) return pop(key, true) end }
commands.RPOP = { 1, 1, function(key) return pop(key, false) end }
commands.LLEN = { 1, 1, function(key) return integer(store.table(key, "list").size) end }

commands.LRANGE = { 3, 3, function(key, from, args)
  from = resp.integer_of(from)
  local to = resp.integer_of(args[4])
  local list = store.table(key, "list")
  from = list.first + math.max(from < 0 and from + list.size or from, 0)
  to = list.first + math.min(to < 0 and to + list.size or to, list.size - 1)
  return resp.bulks(table.move(list.items, from, to, 1, {}))
end }

--
-- Hashes and sets
--

-- Sets an item of a hash or a set; true if it is new.
local function insert(value, name, item)
  local is_new = value.items[name] == nil
  value.items[name] = item
  value.size = is_new and value.size + 1 or value.size
  return is_new
end

-- Takes the items out of a hash or a set that the arguments name.
local function take(key, args, kind)
  local value = store.table(key, kind)
  local reply = resp.count(args, 3, function(name)
    local there = value.items[name] ~= nil
    value.items[name] = nil
    value.size = there and value.size - 1 or value.size
    return there
  end)
  store.keep(key, value)
  return reply
end

commands.HSET = { 3, MANY, function(key, _, args)
  if #args % 2 == 1 then
    resp.refuse "ERR wrong number of arguments for 'hset' command"
  end
  local hash, added = store.table(key, "hash"), 0
  for i = 3, #args, 2 do
    added = insert(hash, args[i], args[i + 1]) and added + 1 or added
  end
  store.keep(key, hash)
  return integer(added)
end }

commands.HGET = { 2, 2, function(key, field) return bulk(store.table(key, "hash").items[field]) end }
commands.HDEL = { 2, MANY, function(key, _, args) return take(key, args, "hash") end }
commands.HLEN = { 1, 1, function(key) return integer(store.table(key, "hash").size) end }

commands.HGETALL = { 1, 1, function(key)
  local found = {}
  for field, value in pairs(store.table(key, "hash").items) do
    found[#found + 1] = field
    found[#found + 1] = value
  end
  return resp.bulks(found)
end }

commands.SADD = { 2, MANY, function(key, _, args)
  local set = store.table(key, "set")
  local reply = resp.count(args, 3, function(member) return insert(set, member, true) end)
  store.keep(key, set)
  return reply
end }

commands.SREM = { 2, MANY, function(key, _, args) return take(key, args, "set") end }
commands.SCARD = { 1, 1, function(key) return integer(store.table(key, "set").size) end }
commands.SISMEMBER = { 2, 2, function(key, member)
  return integer(store.table(key, "set").items[member] and 1 or 0)
end }

commands.SMEMBERS = { 1, 1, function(key)
  local found = {}
  for member in pairs(store.table(key, "set").items) do
    found[#found + 1] = member
  end
  return resp.bulks(found)
end }

return commands
