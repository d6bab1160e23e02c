-- A chat server: whoever connects says a name, and from then on everybody reads
-- what everybody else writes.
--
--   make run SCRIPT=examples/chat.lua                     # 127.0.0.1:7070
--   make run SCRIPT=examples/chat.lua ARGS="[::1]:7071"
--
-- Then, in other terminals, `nc 127.0.0.1 7070`.  It says where it listens and
-- serves until it is interrupted.  A member has two tasks: one reads its lines,
-- the other writes what it is to see.  Nobody waits for a member who does not
-- read: when BEHIND lines have piled up, that one is shown out.

local uring = require "uring"

local BEHIND = 100   -- lines that may wait for a member
local NAME_MAX = 20  -- bytes of a name
local LINE_MAX = 1000
local PATIENCE = 60  -- seconds to say a name

local address = arg[1] or "127.0.0.1:7070"
if #arg > 1 or not address:find ":" then
  io.stderr:write("usage: chat.lua [HOST:PORT | unix:PATH]\n")
  os.exit(2)
end

local members = {} -- name → what is to be written to that member

-- Everybody but `from` is told.
local function tell(from, ...)
  local text = table.concat { ... }
  for name, inbox in pairs(members) do
    if name ~= from and not inbox:try_send(text) then
      members[name] = nil
      inbox:close() -- the writer ends, and with it the connection
    end
  end
end

local function ask_name(stream)
  stream:write "Your name? "
  local name = uring.timeout(PATIENCE, stream.read, stream, "l")
  name = name and name:match "^%s*(%w[%w_-]*)%s*$"
  if not name or #name > NAME_MAX then
    return nil, "That is no name."
  elseif members[name] then
    return nil, "That is somebody else."
  end
  return name
end

local function write_inbox(stream, inbox)
  for text in inbox:values() do
    if not stream:write(text, "\n") then
      return
    end
  end
end

local function read_lines(stream, name)
  for line in stream:lines() do
    line = line:gsub("%c", "")
    if #line > LINE_MAX then
      return
    elseif line ~= "" then
      tell(name, name, ": ", line)
    end
  end
end

-- The serving task's end closes the stream, whatever it was that ended it.
local function attend(stream)
  local name, why = ask_name(stream)
  if not name then
    stream:write(why, "\n")
    return
  end
  local inbox = uring.sync.channel(BEHIND)
  local others = {}
  for other in pairs(members) do
    others[#others + 1] = other
  end
  table.sort(others)
  members[name] = inbox
  stream:write("Here: ", #others > 0 and table.concat(others, ", ") or "nobody else", "\n")
  tell(name, "* ", name, " has come")
  -- whichever ends first, the reader or the writer, ends the other
  pcall(uring.race, {
    function() write_inbox(stream, inbox) end,
    function() read_lines(stream, name) end,
  })
  if members[name] == inbox then
    members[name] = nil
  end
  tell(name, "* ", name, " has left")
end

uring.run(function()
  local listener <close>, message = uring.listen { address, nodelay = true }
  if not listener then
    io.stderr:write("chat.lua: ", message, "\n")
    os.exit(1)
  end
  print("listening on " .. listener:address())
  io.stdout:flush()
  listener:serve(attend)
end)
