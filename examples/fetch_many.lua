-- Many requests, a few at a time: N clients (1000 unless told otherwise) of an
-- HTTP/1.0 server that runs in this script, too.
--
--   make run SCRIPT=examples/fetch_many.lua ARGS=5000
--
-- The exit status is 1 if a request failed.

local uring = require "uring"

local AT_ONCE = 64 -- requests in flight

local count = math.tointeger(tonumber(arg[1] or 1000))
if #arg > 1 or not count or count < 1 then
  io.stderr:write("usage: fetch_many.lua [N]\n")
  os.exit(2)
end

--- The server ----------------------------------------------------------------

-- "/page/12" is 12 hundred bytes.
local function respond(path)
  local hundreds = path:match "^/page/(%d+)$"
  if not hundreds then
    return "404 Not Found", "there is no " .. path .. "\n"
  end
  return "200 OK", ("%-99s\n"):format("page " .. hundreds):rep(tonumber(hundreds))
end

-- The variable with <close> closes the connection, however this ends.
local function answer(accepted)
  local connection <close> = accepted
  local request = connection:read "l"
  local path = request and request:match "^GET (%S+) HTTP/1%.[01]\r?$"
  repeat
    local header = connection:read "l"
  until not header or header == "" or header == "\r" -- the end of the headers
  if path then
    local status, body = respond(path)
    connection:write("HTTP/1.0 ", status, "\r\nContent-Length: ", #body, "\r\n\r\n", body)
  end
end

local function serve(listener)
  for connection in listener:clients() do -- ends when the listener is closed
    uring.spawn(answer, connection)
  end
end

--- A client ------------------------------------------------------------------

-- Status and body; or nil, message.
local function fetch(address, path)
  local connection <close>, message = uring.connect(address)
  if not connection then
    return nil, message
  end
  local ok
  ok, message = connection:write("GET ", path, " HTTP/1.0\r\n\r\n")
  if not ok then
    return nil, message
  end
  local response
  response, message = connection:read "a" -- HTTP/1.0: up to the end of the connection
  if not response then
    return nil, message
  end
  local head, body = response:match "^(.-\r\n)\r\n(.*)$"
  local status = head and tonumber(head:match "^HTTP/1%.[01] (%d+)")
  local length = head and tonumber(head:match "\r\nContent%-Length: (%d+)\r\n")
  if not status or length ~= #body then
    return nil, "the response is cut short"
  end
  return status, body
end

--- Both ----------------------------------------------------------------------

local failures = uring.run(function()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  uring.spawn(serve, listener)

  -- AT_ONCE tasks share the work: that is the limit.
  local address = listener:address()
  local started, running, most, bytes, failed = 0, 0, 0, 0, 0
  local function work()
    while started < count do
      started = started + 1
      local hundreds = started % 100
      running = running + 1
      most = math.max(most, running)
      local status, body = fetch(address, "/page/" .. hundreds)
      running = running - 1
      if status == 200 and #body == hundreds * 100 then
        bytes = bytes + #body
      else
        failed = failed + 1
        io.stderr:write("fetch_many.lua: ", tostring(status or body), "\n")
      end
    end
  end

  local began = uring.now()
  local tasks = {}
  for i = 1, AT_ONCE do
    tasks[i] = uring.spawn(work)
  end
  uring.await(table.unpack(tasks))
  local seconds = uring.now() - began

  print(("%d requests, %d failed, at most %d at a time"):format(count, failed, most))
  print(("%.1f MB in %.2f s: %.0f requests a second"):format(bytes / 1e6, seconds, count / seconds))
  return failed
end)

os.exit(failures == 0 and 0 or 1, true)
