-- echo, luv: a TCP echo server in callbacks, as libuv's users write it. Serves CONNECTIONS clients, then ends.
--   lua5.4 echo_luv.lua CONNECTIONS BYTES [try]      prints: pid=... port=...
-- With "try" it writes by try_write first, which few programs do: no request to allocate, but what does not fit is the
-- caller's to write again.
local uv = require "luv"

local left = assert(tonumber(arg[1]), "how many connections?")
local server = uv.new_tcp()

local function write(client, chunk) client:write(chunk) end

local function try_write(client, chunk)
  local n = client:try_write(chunk) or 0
  if n < #chunk then client:write(chunk:sub(n + 1)) end
end

local reply = arg[3] == "try" and try_write or write

local function serve(client)
  client:read_start(function(err, chunk)
    if chunk then
      reply(client, chunk)
    else
      if err then error(err) end
      client:close()
      left = left - 1
      if left == 0 then server:close() end
    end
  end)
end

assert(server:bind("127.0.0.1", 0))
assert(server:listen(128, function(err)
  assert(not err, err)
  local client = uv.new_tcp()
  assert(server:accept(client))
  serve(client)
end))
io.write(("pid=%d port=%d\n"):format(uv.os_getpid(), server:getsockname().port))
io.flush()
uv.run()
