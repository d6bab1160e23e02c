-- echo, cqueues: a TCP echo server, a coroutine for each connection, unbuffered both ways. Serves CONNECTIONS clients,
-- then ends.
--   lua5.4 echo_cqueues.lua CONNECTIONS BYTES      prints: pid=... port=...
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local connections = assert(tonumber(arg[1]), "how many connections?")
local at_most = -assert(tonumber(arg[2]), "how many bytes?") -- a negative count reads what is there, up to that many

local function pid()
  local f <close> = assert(io.open "/proc/self/stat")
  return f:read "n"
end

local function serve(conn)
  conn:setmode("bn", "bn")
  while true do
    local chunk = conn:read(at_most)
    if not chunk then break end
    local ok, err = conn:write(chunk)
    if not ok then error(err) end
  end
  conn:close()
end

local loop = cqueues.new()
local server = assert(socket.listen("127.0.0.1", 0))
assert(server:listen())
local _, _, port = server:localname()
io.write(("pid=%d port=%d\n"):format(pid(), port))
io.flush()
loop:wrap(function()
  for _ = 1, connections do loop:wrap(serve, (assert(server:accept()))) end
  server:close()
end)
assert(loop:loop())
