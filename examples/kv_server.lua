-- A key-value server that redis-cli can speak to: strings with deadlines, counters,
-- lists, hashes, sets, publish and subscribe.  All of it is in memory.
--
--   make run SCRIPT=examples/kv_server.lua                        # 127.0.0.1:6380
--   make run SCRIPT=examples/kv_server.lua ARGS="127.0.0.1:0 2"   # any free port, 2 seconds
--   redis-cli -p 6380
--
-- A task a connection, in straight-line code.  On INT or TERM it accepts nobody any
-- more, answers what has come, for at most so many seconds (5), and exits with 0.
--
-- The parts are in examples/kv: the protocol (resp.lua), the keys (store.lua), and
-- what the commands do (keys.lua, collections.lua, pubsub.lua).

package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path

local uring = require "uring"
local pubsub = require "kv.pubsub"
local resp = require "kv.resp"
local store = require "kv.store"

local CLIENTS_MAX = 10000 -- connections; more wait until one of these ends

local address = arg[1] or "127.0.0.1:6380"
local grace = tonumber(arg[2] or 5)
if #arg > 2 or not address:find ":" or not grace or grace < 0 then
  io.stderr:write("usage: kv_server.lua [HOST:PORT | unix:PATH [SECONDS]]\n")
  os.exit(2)
end

local commands = {}
for _, part in ipairs { require "kv.keys", require "kv.collections", pubsub.commands } do
  for name, command in pairs(part) do
    commands[name] = command
  end
end

local started = uring.now()
local sessions, clients = {}, 0 -- those who are connected
local stopping = false

--
-- Connections
--

commands.PING = { 0, 1, function(text, _, _, session)
  if session.topic_count > 0 then -- a subscriber cannot tell other replies from messages
    return resp.bulks { "pong", text or "" }
  end
  return text and resp.bulk(text) or "+PONG\r\n"
end }

commands.ECHO = { 1, 1, function(text) return resp.bulk(text) end }

commands.SELECT = { 1, 1, function(n)
  return n == "0" and resp.OK or resp.error "ERR DB index is out of range"
end }

commands.QUIT = { 0, resp.ARGS_MAX, function(_, _, _, session)
  session.leaves = true
  return resp.OK
end }

-- What redis-cli and redis-benchmark ask for when they begin.
commands.COMMAND = { 0, resp.ARGS_MAX, function() return resp.array {} end }
commands.CONFIG = { 2, 2, function(what, name)
  local known = { save = "", appendonly = "no" }
  if what:upper() ~= "GET" then
    return resp.error "ERR only CONFIG GET is there"
  end
  return resp.bulks { known[name] and name, known[name] }
end }

commands.INFO = { 0, resp.ARGS_MAX, function()
  local lines = {
    "# Server", "server_name:" .. uring._VERSION, ("uptime_in_seconds:%d"):format((uring.now() - started) // 1),
    "# Clients", "connected_clients:" .. clients,
    "# Memory", ("used_memory:%d"):format(collectgarbage "count" * 1024 // 1),
    "# Keyspace", "db0:keys=" .. store.size(), "";
  }
  return resp.bulk(table.concat(lines, "\r\n"))
end }

local for_subscribers = { SUBSCRIBE = true, UNSUBSCRIBE = true, PING = true, QUIT = true }

local function unknown(args)
  local text = ("ERR unknown command '%s', with args beginning with: "):format(args[1]:sub(1, 128))
  for i = 2, #args do
    text = #text < 128 and ("%s'%s' "):format(text, args[i]:sub(1, 128)) or text
  end
  return resp.error(text)
end

-- The reply to a command.
local function execute(session, args)
  local name, count = args[1], #args - 1
  local command = commands[name]
  if not command then
    name = name:upper()
    command = commands[name]
  end
  if not command then
    return unknown(args)
  elseif count < command[1] or count > command[2] then
    return resp.error(("ERR wrong number of arguments for '%s' command"):format(name:lower()))
  elseif session.topic_count > 0 and not for_subscribers[name] then
    return resp.error(("ERR Can't execute '%s': only SUBSCRIBE, UNSUBSCRIBE, PING and QUIT are allowed here")
      :format(name:lower()))
  end
  return command[3](args[2], args[3], args, session)
end

-- Answers one command after the other.  Raises where one is refused.
local function converse(session)
  local stream = session.stream
  while not session.leaves do
    local args, complaint = resp.read(stream)
    if not args then
      return complaint and stream:write(resp.error("ERR Protocol error: " .. complaint))
    elseif not stream:write(execute(session, args)) then
      return
    end
  end
end

local Session = {}

function Session:__close()
  pubsub.leave(self)
  self.stream:timeout(1) -- for replies that have not left
  sessions[self], clients = nil, clients - 1
end

-- Serves one client.  Replies leave when the client has no more commands in line, or
-- when there are many of them; while it takes none, none of its commands is read.
local function serve(stream)
  local session <close> = setmetatable(pubsub.join { stream = stream, leaves = false }, Session)
  sessions[session], clients = true, clients + 1
  resp.prepare(stream)
  while not stopping do
    local ok, err = pcall(converse, session)
    if ok then
      return
    end
    stream:write(resp.refusal(err) or error(err, 0))
  end
end

--
-- The server
--

local function complain(message)
  io.stderr:write("kv_server.lua: ", tostring(message), "\n")
end

local function sweep()
  for _ in uring.every(1) do
    store.sweep()
  end
end

-- Every client has said all it had to say: what has come is answered.
local function end_input()
  local list = {}
  for session in pairs(sessions) do
    list[#list + 1] = session
  end
  for _, session in ipairs(list) do
    if sessions[session] then -- it has not left meanwhile
      uring.op.shutdown(session.stream:fd(), "r")
    end
  end
end

uring.run(function()
  local listener <close>, message = uring.listen { address, nodelay = true }
  if not listener then
    complain(message)
    os.exit(1)
  end
  print("listening on " .. listener:address())
  io.stdout:flush()

  local sweeper = uring.spawn(sweep)
  local serving = uring.spawn(listener.serve, listener, serve, { max = CLIENTS_MAX, on_error = complain })
  local signals <close> = uring.signals { "INT", "TERM" }
  signals:wait()
  signals:close() -- from here on they do what they always do
  stopping = true
  listener:close()
  end_input()
  listener:shutdown(grace)
  serving:await()
  sweeper:cancel()
end)
