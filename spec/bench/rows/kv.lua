--- kv: the key-value server of the examples beside redis-server, each on the first processor in turn, driven by
-- redis-benchmark on the second: SET and GET from 50 connections, one command at a time.

local SERVERS = {
  uring = [[LUA examples/kv_server.lua 127.0.0.1:$port >/dev/null]],
  redis = [[redis-server --port $port --save "" --appendonly no --loglevel warning >/dev/null]],
}
-- It says where it will listen; whoever drives it waits for that.
local START = [[sh -c 'port=$((20000 + $$ %% 10000)); echo pid=$$ port=$port; exec %s']]

return function(h, pipeline)
  pipeline = pipeline or 1
  local requests = h.scaled(pipeline == 1 and 25000 or 150000)
  local function serve(name)
    local server = START:format(SERVERS[name]:gsub("^LUA", h.lua))
    return function()
      return h.serve(server, function(pid, port) return h.script("kv_load", pid, port, pipeline, requests) end)
    end
  end
  return {
    title = ("SET and GET by redis-benchmark, 50 connections, %d at a time"):format(pipeline),
    unit = "request",
    contenders = {
      { name = "uring", needs = "!redis-benchmark", measure = serve "uring" },
      { name = "redis-server", needs = "!redis-server", measure = serve "redis" },
    },
    budgets = { { peer = "redis-server", figure = "rate", at_least = pipeline == 1 and 0.8 or 0.4 } },
  }
end
