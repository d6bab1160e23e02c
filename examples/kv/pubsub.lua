--- Publish and subscribe: a subscriber has an inbox, and a task that sends what is in it.

local resp = require "kv.resp"
local uring = require "uring"

-- What may wait for a subscriber: messages, and their bytes.
local INBOX, INBOX_BYTES = 1024, 32 << 20

local M = {}

local commands = {}
M.commands = commands

local topics = {} -- by name, the sessions that have subscribed

--- Adds to a new session what this needs of it.
function M.join(session)
  session.topics, session.topic_count = {}, 0 -- it has subscribed to
  session.inbox, session.unsent = nil, 0      -- messages, and their bytes
  session.gone = false
  return session
end

local function deliver(session)
  local stream = session.stream
  for message in session.inbox:values() do
    if session.gone or not stream:write(message) or session.gone or not stream:flush() then
      return
    end
    session.unsent = session.unsent - #message
  end
end

-- False where too much waits already.
local function post(session, message)
  if session.unsent + #message > INBOX_BYTES or not session.inbox:try_send(message) then
    return false
  end
  session.unsent = session.unsent + #message
  return true
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
  if not session.topics[topic] then
    session.topic_count = session.topic_count + 1
    topics[topic][session], session.topics[topic] = true, true
  end
  return push("subscribe", topic, resp.integer(session.topic_count))
end

local function unsubscribe(session, topic)
  if session.topics[topic] then
    session.topic_count = session.topic_count - 1
    session.topics[topic], topics[topic][session] = nil, nil
    topics[topic] = next(topics[topic]) and topics[topic] -- the last one takes it away
  end
  return push("unsubscribe", topic, resp.integer(session.topic_count))
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
  local message = push("message", topic, resp.bulk(text))
  local count, slow = 0, {}
  for session in pairs(topics[topic] or {}) do
    if post(session, message) then
      count = count + 1
    else
      slow[#slow + 1] = session
    end
  end
  for _, session in ipairs(slow) do
    if not session.gone then
      uring.op.shutdown(session.stream:fd(), "rw")
    end
  end
  return resp.integer(count)
end }

--- The session ends.
function M.leave(session)
  session.gone = true
  for topic in pairs(session.topics) do
    unsubscribe(session, topic)
  end
  if session.inbox then
    session.inbox:close()
  end
end

return M
