-- prompt: the echo server of echo_uring.lua, started at the prompt, on a terminal that this program holds the other end
-- of. With "keys" it types a key every 20 ms and waits for its echo; the milliseconds of each go to FILE, a line each.
-- Serves CONNECTIONS clients, then ends.
--   lua5.4 prompt_uring.lua CONNECTIONS BYTES keys|idle [FILE]      prints: pid=... port=...
local testkit = require "testkit"
local uring = require "uring"

local connections, bytes, how, path = arg[1], arg[2], arg[3], arg[4]

local SERVER = [[
function serve(fd)
  local recv, send, buf = uring.op.recv, uring.op.send, uring.buffer(BYTES)
  while true do
    local n = assert(recv(fd, buf))
    if n == 0 then break end
    assert(send(fd, buf, n) == n)
  end
  uring.op.close(fd)
end
listener = uring.listen "127.0.0.1:0"
server = uring.spawn(function()
  local tasks = {}
  for i = 1, CONNECTIONS do
    tasks[i] = uring.spawn(serve, (assert(uring.op.accept(listener:fd(), 0, { peer = false }))))
  end
  for i = 1, CONNECTIONS do tasks[i]:await() end
  print "ALL SERVED"
end)
print(("port=%s."):format(listener:address():match "%d+$"))]]

local lua = arg[-1]
local fd, pid = testkit.terminal(("exec env TERM=xterm LC_ALL=C.UTF-8 XDG_STATE_HOME=/dev/null/none '%s' lua/bin/uring")
  :format(lua))
local text = ""

local function read(seconds)
  local data = testkit.read(fd, seconds)
  text = text .. (data or "")
  return data
end

local function expect(pattern)
  local found
  repeat
    found = text:match(pattern)
    if not found and not read(5) then error("the prompt ended: " .. text, 0) end
  until found
  text = text:match(pattern .. "(.*)$", nil) or ""
  return found
end

expect "1> ()"
testkit.write(fd, "\27[200~" .. SERVER:gsub("%u+", { BYTES = bytes, CONNECTIONS = connections }):gsub("\n", "\r")
  .. "\27[201~")
read(0.2)
testkit.write(fd, "\r")
local port = expect "port=(%d+)%."
io.write(("pid=%d port=%s\n"):format(pid, port))
io.flush()

-- Types a key; the milliseconds until its echo.
local function stroke(key)
  local began = uring.now()
  text = ""
  testkit.write(fd, key)
  while not text:find(key, 1, true) and read(5) do end
  return (uring.now() - began) * 1000
end

local times, served = {}, false
read(0.3)
while not served do
  if how == "keys" then
    times[#times + 1] = stroke(string.char(97 + #times % 26))
    served = text:find "ALL SERVED"
    if #times % 50 == 0 then testkit.write(fd, "\21") end -- an empty line again
  end
  text = ""
  served = served or (read(0.02) and text:find "ALL SERVED")
end
if path then
  local file <close> = assert(io.open(path, "w"))
  file:write(table.concat(times, "\n"), "\n")
end
testkit.write(fd, "\21\4")
while testkit.read(fd, 1) do end
testkit.wait(pid)
