-- A server that ends well.  On INT or TERM it accepts nobody any more, whoever is
-- being served gets all of the answer, within a deadline, and it exits with 0.  A
-- second signal ends it at once.
--
--   make run SCRIPT=examples/graceful.lua                        # 127.0.0.1:7080, 10 seconds
--   make run SCRIPT=examples/graceful.lua ARGS="127.0.0.1:0 2"   # any free port, 2 seconds
--   curl -N http://127.0.0.1:7080/30                             # an answer of 30 lines, slowly
--
-- Its exit status is 1 if the deadline has cut answers off.

local uring = require "uring"

local PAUSE = 0.1         -- seconds between two lines of an answer
local HEAD_MAX = 8192     -- bytes of a request
local PATIENCE = 30       -- seconds to send one

local address = arg[1] or "127.0.0.1:7080"
local grace = tonumber(arg[2] or 10)
if #arg > 2 or not address:find ":" or not grace or grace < 0 then
  io.stderr:write("usage: graceful.lua [HOST:PORT | unix:PATH [SECONDS]]\n")
  os.exit(2)
end

local function say(...)
  io.stdout:write(string.format(...), "\n")
  io.stdout:flush()
end

-- How many lines a request asks for; nil: it is none.
local function read_request(connection)
  local count
  local size = 0
  for line in connection:lines() do
    size = size + #line
    count = count or tonumber(line:match "^GET /(%d*) ") or 10
    if line == "" or line == "\r" then
      return count
    elseif size > HEAD_MAX then
      return nil
    end
  end
end

-- A page that takes its time.
local function serve(connection)
  local count = uring.timeout(PATIENCE, read_request, connection)
  if not count then
    return
  end
  local size = #("line %6d\n"):format(0) * count
  connection:write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ", size, "\r\n\r\n")
  for i = 1, count do
    uring.sleep(PAUSE)
    if not connection:write(("line %6d\n"):format(i)) then
      return -- the client has left
    end
  end
end

local cut = uring.run(function()
  local listener <close> = assert(uring.listen(address))
  local signals <close> = uring.signals { "INT", "TERM" }
  say("listening on %s", listener:address())

  local serving = uring.spawn(function()
    local ok, message = listener:serve(serve)
    signals:close() -- if accepting has failed, that is the end, too
    return ok, message
  end)

  local name = signals:wait()
  signals:close() -- from here on they do what they always do
  listener:close()
  say("%s: no new connections", name or "error")
  local count = listener:shutdown(grace)
  assert(serving:await())
  say(count == 0 and "all have been served" or "%d cut off", count)
  return count
end)
os.exit(cut == 0, true)
