-- A key-value server that redis-cli can speak to: strings with deadlines, counters,
-- lists, hashes, sets, publish and subscribe.  All of it is in memory.
--
--   make run SCRIPT=examples/kv_server.lua                        # 127.0.0.1:6380
--   make run SCRIPT=examples/kv_server.lua ARGS="127.0.0.1:0"     # any free port
--   redis-cli -p 6380
--
-- A task a connection, in straight-line code.  On INT or TERM it accepts nobody any
-- more, answers what has come, and exits with 0.
--
-- The parts are in examples/kv: the protocol (resp.lua), the keys (store.lua), and
-- what the commands do (keys.lua, collections.lua).

package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path

local uring = require "uring"
local resp = require "kv.resp"
local store = require "kv.store"

local CLIENTS_MAX = 10000 -- connections; more wait until one of these ends
local INBOX = 1024        -- published messages that may wait for a subscriber
local GRACE = 5           -- seconds for answers that are under way when it ends

local address = arg[1] or "127.0.0.1:6380"
if #arg > 1 or not address:find ":" then
  io.stderr:write("usage: kv_server.lua [HOST:PORT | unix:PATH]\n")
  os.exit(2)
end

local commands = {}
for _, part in ipairs { "kv.keys", "kv.collections" } do
  for name, command in pairs(require(part)) do
    commands[name] = command
  end
end

local started = uring.now()
local sessions, clients = {}, 0 -- those who are connected
local topics = {}               -- of each channel, the sessions that have subscribed

--
-- Publish and subscribe: a subscriber has an inbox, and a task that sends what is in it
--

local function deliver(session)
  local stream = session.stream
  for message in session.inbox:values() do
    if not (stream:write(message) and stream:flush()) then
      return
    end
  end
end

local function push(kind, topic, x)
  return resp.array { resp.bulk(kind), resp.bulk(topic), x }
end

local function subscribe(session, topic)
  if not session.inbox then
    session.inbox = uring.sync.channel(INBOX)
    uring.spawn(deliver, session)
  end
  topics[topic] = topics[topic] or {}
  session.count = topics[topic][session] and session.count or session.count + 1
  topics[topic][session], session.topics[topic] = true, true
  return push("subscribe", topic, resp.integer(session.count))
end

local function unsubscribe(session, topic)
  if session.topics[topic] then
    session.count = session.count - 1
    session.topics[topic], topics[topic][session] = nil, nil
    topics[topic] = next(topics[topic]) and topics[topic] -- the last one takes it away
  end
  return push("unsubscribe", topic, resp.integer(session.count))
end

-- One reply for each topic that the command names.
local function each_topic(session, args, fn)
  local replies = {}
  for i = 2, #args do
    replies[i - 1] = fn(session, args[i])
  end
  return table.concat(replies)
end

commands.SUBSCRIBE = { 1, resp.ARGS_MAX, function(_, _, args, session)
  return each_topic(session, args, subscribe)
end }

commands.UNSUBSCRIBE = { 0, resp.ARGS_MAX, function(_, _, args, session)
  if #args == 1 then
    for topic in pairs(session.topics) do
      args[#args + 1] = topic
    end
  end
  return #args > 1 and each_topic(session, args, unsubscribe) or push("unsubscribe", nil, resp.integer(0))
end }

-- Who does not take what was sent before is disconnected: neither does the sender
-- wait for the slowest, nor do messages pile up.
commands.PUBLISH = { 2, 2, function(topic, text)
  local message, count = push("message", topic, resp.bulk(text)), 0
  for session in pairs(topics[topic] or {}) do
    if session.inbox:try_send(message) then
      count = count + 1
    else
      uring.op.shutdown(session.stream:fd(), "rw")
    end
  end
  return resp.integer(count)
end }

--
-- Connections
--

commands.PING = { 0, 1, function(text, _, _, session)
  if session.count > 0 then -- a subscriber cannot tell other replies from messages
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
  local name = commands[args[1]] and args[1] or args[1]:upper()
  local command = commands[name]
  if not command then
    return unknown(args)
  elseif #args - 1 < command[1] or #args - 1 > command[2] then
    return resp.error(("ERR wrong number of arguments for '%s' command"):format(name:lower()))
  elseif session.count > 0 and not for_subscribers[name] then
    return resp.error(("ERR Can't execute '%s': only SUBSCRIBE, UNSUBSCRIBE, PING and QUIT are allowed here")
      :format(name:lower()))
  end
  local ok, reply = pcall(command[3], args[2], args[3], args, session)
  if not ok and type(reply) == "table" and reply.reply then -- it was refused
    return reply.reply
  end
  return ok and reply or error(reply, 0)
end

local Session = {}

function Session:__close()
  for topic in pairs(self.topics) do
    unsubscribe(self, topic)
  end
  if self.inbox then
    self.inbox:close()
  end
  sessions[self], clients = nil, clients - 1
end

-- Serves one client.  Replies leave when the client has no more commands in line, or
-- when there are many of them; while it takes none, none of its commands is read.
local function serve(stream)
  local session <close> = setmetatable({
    stream = stream;
    count = 0;      -- of the channels it has subscribed to,
    topics = {};    -- their names,
    inbox = nil;    -- and what has been published there
    leaves = false; -- after this reply
  }, Session)
  sessions[session], clients = true, clients + 1
  resp.prepare(stream)
  while not session.leaves do
    local args, complaint = resp.read(stream)
    if not args then
      return complaint and stream:write(resp.error("ERR Protocol error: " .. complaint))
    elseif not stream:write(execute(session, args)) then
      return
    end
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
  listener:close()
  for session in pairs(sessions) do -- what they have sent already is answered
    uring.op.shutdown(session.stream:fd(), "r")
  end
  listener:shutdown(GRACE)
  serving:await()
  sweeper:cancel()
end)
