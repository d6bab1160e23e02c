-- The key-value server of the examples: beside redis-server, by redis-cli and
-- redis-benchmark, and by clients that nobody wishes for.

local helper = require "spec.support.helper"
local uring = require "uring"

local process = uring.process
local times = helper.times

-- Why a program that a spec needs is not there; nil: it is.
local function lacks(program)
  if not os.execute("command -v " .. program .. " >/dev/null 2>&1") then
    return program .. " is not installed"
  end
end

-- A spec that needs a program.
local function it_with(program, name, fn)
  local why = lacks(program)
  if why then
    pending(name .. ": " .. why)
  else
    it(name, fn)
  end
end

-- Calls fn with the address of a server, and the process; then that is to end, soon, with
-- status 0, and to have complained of nothing else than `given.complaint`.
local function with_server(fn, given)
  given = given or {}
  uring.run(function()
    local command = (given.prefix or "") .. "exec lua5.4 examples/kv_server.lua 127.0.0.1:0"
      .. (given.arguments or "")
    local server <close> = assert(process.spawn { "sh", "-c", command, stdout = "pipe", stderr = "pipe" })
    local complaints = uring.spawn(function() return server.stderr:read "a" end)
    local address = (server.stdout:read "l" or complaints:await()):match "^listening on (.+)$"
    local ok, err, message = xpcall(uring.timeout, debug.traceback, helper.slow and 50 or 20, fn, address, server)
    assert(ok, err)
    assert.are_not.equal("timeout", message)
    local started = uring.now()
    if not given.ends then
      assert(server:kill "TERM")
    end
    local _, how, status = server:wait()
    local text = complaints:await():gsub(given.complaint or "$", "")
    assert.are.equal("", text)
    assert.are.equal("exit 0", how .. " " .. status)
    assert.is_true(uring.now() - started < (helper.slow and 20 or 2), "it took long to end")
  end)
end

-- Calls fn with the address of Debian's own.
local function with_redis(fn)
  uring.run(function()
    local path = helper.tmpname()
    os.remove(path)
    local _ <close> = assert(process.spawn { "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
      "--appendonly", "no", stdout = "null", grace = 0 })
    helper.eventually(function()
      local stream = uring.connect("unix:" .. path)
      return stream and stream:close()
    end)
    fn("unix:" .. path)
  end)
end

local function connect(address)
  return assert(uring.connect(address))
end

-- A command as redis-cli sends it.
local function encoded(...)
  local parts = { ("*%d\r\n"):format(select("#", ...)) }
  for _, word in ipairs { ... } do
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#tostring(word), word)
  end
  return table.concat(parts)
end

-- One reply as it came; nil: there are no more.
local function read_reply(stream)
  local line = stream:read "L"
  local kind, n = (line or ""):match "^([*$])(%d+)\r\n$"
  if kind == "$" then
    return line .. stream:read(tonumber(n) + 2)
  elseif kind == "*" then
    local parts = {}
    for i = 1, tonumber(n) do
      parts[i] = read_reply(stream)
    end
    return line .. table.concat(parts)
  end
  return line
end

-- Sends a command and gives the reply.
local function ask(stream, ...)
  assert(stream:write(encoded(...)))
  return read_reply(stream)
end

-- Sends bytes and gives what comes back until the server ends the connection.
local function all_of(address, bytes)
  local stream <close> = connect(address)
  assert(stream:write(bytes))
  return stream:read "a"
end

local function resident(server)
  return helper.resident(server:pid())
end

-- It is to have grown by less than so many MiB.  A sanitizer keeps what is freed for a while.
local function bounded(server, before, mib)
  local grown = (resident(server) - before) // (1 << 20)
  assert.is_true(grown < (helper.slow and mib + 300 or mib), ("it has grown by %d MiB"):format(grown))
end

--
-- Beside redis-server
--

-- Commands that both are to answer alike.
local SESSION = [[
ping
ping hello
echo hello
set s one
get s
get none
get
set s
set s two nx
set n1 1 nx
set n2 1 xx
set s three xx
set s four ex
set s four ex 0
set s four ex x
set s four nx xx
set s four what
set s four ex 100
ttl s
persist s
persist s
ttl s
ttl none
pttl none
expire s 100
expire none 100
expire s x
ttl s
append s five
append new value
ttl s
set s six
ttl s
strlen s
strlen none
incr n1
incr n1
decr n1
incrby n1 40
decrby n1 2
incrby n1 x
incrby n1 1.5
incr s
set big 9223372036854775807
incr big
decrby big -9223372036854775808
set big -9223372036854775808
decr big
incrby big 0x10
mset a 1 b 2 c 3
mset a 1 b
mget a b none c
exists a b none a
del a b none
dbsize
lpush l 1 2 3
rpush l 4 5
llen l
lrange l 0 -1
lrange l 1 2
lrange l -2 100
lrange l 5 2
lrange l -100 0
lrange none 0 1
lrange l x 1
lpop l
rpop l
lpop none
lpop l
lpop l
lpop l
lpop l
exists l
hset h f 1 g 2
hset h f 3
hset h f
hget h f
hget h none
hget none f
hlen h
hdel h f none
hgetall h
sadd t a b a
sadd t b c
scard t
sismember t a
sismember t x
srem t a x
srem t b c
exists t
type s
type h
type none
get h
lpush s 1
hset s f 1
sadd h x
append h x
mget s h
incr h
select 0
select 99
nonsense a b
config get save
flushall
dbsize
]]

local function lines_of(text)
  return text:gmatch "[^\n]+"
end

if not helper.can_spawn() then
  describe("the key-value server", function()
    it("is spawned", function() pending "this valgrind knows no pidfd" end)
  end)
  return
end

describe("the key-value server", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it_with("redis-server", "answers as redis-server does", function()
    with_server(function(address)
      with_redis(function(other)
        local ours <close> = connect(address)
        local theirs <close> = connect(other)
        for line in lines_of(SESSION) do
          local words = {}
          for word in line:gmatch "%S+" do
            words[#words + 1] = word
          end
          local expected = ask(theirs, table.unpack(words))
          assert.are.equal(line .. "\n" .. expected, line .. "\n" .. ask(ours, table.unpack(words)))
          ours:write(line, "\r\n")
          theirs:write(line, "\r\n")
          expected = read_reply(theirs)
          assert.are.equal(line .. "\n" .. expected, line .. "\n" .. read_reply(ours))
        end
      end)
    end)
  end)

  it_with("redis-server", "does to keys what redis-server does, whatever the order", function()
    local keys, words = { "a", "b", "c", "d" }, { "1", "-7", "x", "", "0", "two words", "\0\r\n\xff" }
    local arguments = { -- besides the key
      get = 0, set = 1, incr = 0, decrby = 1, append = 1, strlen = 0, del = 0, exists = 0, type = 0, lpush = 1,
      rpush = 1, lpop = 0, rpop = 0, llen = 0, lrange = 2, hset = 2, hget = 1, hdel = 1, hlen = 0, sadd = 1, srem = 1,
      scard = 0, sismember = 1, expire = 1, persist = 0, ttl = 0, mget = 0, mset = 1, dbsize = -1;
    }
    local known = {}
    for name in pairs(arguments) do
      known[#known + 1] = name
    end
    table.sort(known)
    math.randomseed(20)
    with_server(function(address)
      with_redis(function(other)
        local ours <close> = connect(address)
        local theirs <close> = connect(other)
        for _ = 1, times(4000) do
          local name = known[math.random(#known)]
          local command = { name }
          for i = 0, arguments[name] do
            command[i + 2] = i == 0 and keys[math.random(#keys)] or words[math.random(#words)]
          end
          if name == "expire" then
            command[3] = tostring(math.random(1000, 2000))
          end
          local text = ("%q "):rep(#command):format(table.unpack(command))
          local expected = ask(theirs, table.unpack(command))
          assert.are.equal(text .. expected, text .. ask(ours, table.unpack(command)))
        end
      end)
    end)
  end)

  it_with("redis-server", "refuses what redis-server refuses, in its words", function()
    local wrong = { "*1\r\n$-1\r\n", "*1\r\n$99999999999\r\n", "*1\r\nfoo\r\n", "*x\r\n", "*1\r\n$x\r\n", 'get "x\r\n',
      "get 'x'y\r\n", "*99999999999999999999\r\n", "*1\r\n\r\n", "*+1\r\n$4\r\nPING\r\n", "* 1\r\n", "*\r\n",
      "*1\r\n$\r\n", ("x"):rep(70000), "*" .. ("1"):rep(70000), "*1\r\n$" .. ("1"):rep(70000) }
    with_server(function(address)
      with_redis(function(other)
        for _, bytes in ipairs(wrong) do
          local prefix = bytes:sub(1, 40)
          assert.are.equal(prefix .. all_of(other, bytes), prefix .. all_of(address, bytes))
        end
      end)
    end)
  end)

  --
  -- Debian's clients
  --

  it_with("redis-cli", "is spoken to by redis-cli", function()
    with_server(function(address)
      local port = address:match "%d+$"
      local function cli(...)
        local result = assert(process.run { "redis-cli", "-p", port, ... })
        assert.are.equal("", result.stderr)
        return result.stdout
      end
      assert.are.equal("OK\n", cli("SET", "key with space", "value \1\n"))
      assert.are.equal('"value \\x01\\n"\n', cli("--no-raw", "GET", "key with space"))
      assert.are.equal('1) "key with space"\n', cli("--no-raw", "KEYS", "*w?th*[a-e]"))
      assert.are.equal("(integer) 3\n", cli("--no-raw", "RPUSH", "list", "a", "b", "c"))
      assert.are.equal("a\nb\nc\n", cli("LRANGE", "list", "0", "-1"))
      local result = assert(process.run { "redis-cli", "-p", port, input = "set a 1\nincr a\nget a\nget list\ninfo\n" })
      assert.is_truthy(result.stdout:find("OK\n2\n2\nWRONGTYPE ", 1, true), result.stdout)
      assert.is_truthy(result.stdout:find("connected_clients:1\r\n", 1, true), result.stdout)
    end)
  end)

  it_with("redis-benchmark", "is what redis-benchmark asks for", function()
    with_server(function(address)
      local result = assert(process.run { "redis-benchmark", "-p", address:match "%d+$", "-q", "-P", "16",
        "-n", tostring(times(1000)), "-t", "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,lrange,mset" })
      assert.are.equal("", result.stderr)
      assert.is_true(result.ok)
      assert.is_nil(result.stdout:find("ERR", 1, true))
    end)
  end)

  --
  -- Commands in pieces
  --

  local PIPELINE = encoded("SET", "a", "1\r\n2") .. "get a\r\n" .. encoded("INCR", "n") .. "\r\n*0\r\n"
    .. encoded("MGET", "a", "none", "n") .. encoded("ECHO", "") .. 'echo "x y"\n' .. encoded("DEL", "a", "n")
  local REPLIES = "+OK\r\n$4\r\n1\r\n2\r\n:1\r\n*3\r\n$4\r\n1\r\n2\r\n$-1\r\n$1\r\n1\r\n$0\r\n\r\n$3\r\nx y\r\n:2\r\n"

  it("takes commands that come in two pieces, wherever they are cut", function()
    with_server(function(address)
      local stream <close> = connect(address)
      stream:nodelay(true)
      for at = 1, #PIPELINE - 1, helper.slow and 7 or 1 do
        assert(stream:write(PIPELINE:sub(1, at)))
        uring.sleep(0.001)
        assert(stream:write(PIPELINE:sub(at + 1)))
        assert.are.equal(REPLIES, stream:read(#REPLIES))
      end
    end)
  end)

  it("takes commands byte by byte", function()
    with_server(function(address)
      local stream <close> = connect(address)
      stream:nodelay(true)
      for at = 1, #PIPELINE do
        assert(stream:write(PIPELINE:sub(at, at)))
        uring.sleep(0.0005)
      end
      assert.are.equal(REPLIES, stream:read(#REPLIES))
    end)
  end)

  it("answers what is complete while the rest is on its way", function()
    with_server(function(address)
      local stream <close> = connect(address)
      assert(stream:write("PING\r\nPI"))
      assert.are.equal("+PONG\r\n", stream:read(7))
      assert(stream:write("NG\r\n*2\r\n$4\r\nECHO\r\n$100\r\nthe first of"))
      assert.are.equal("+PONG\r\n", stream:read(7))
    end)
  end)

  it("takes values of any bytes and sizes", function()
    with_server(function(address)
      local stream <close> = connect(address)
      for _, size in ipairs { 0, 1, 2, 4095, 4096, 4097, 16383, 16384, 16385, 65536, 1 << 20, 5000000 } do
        local value = ("\0\r\n\xff$*:"):rep(size // 7 + 1):sub(1, size)
        assert.are.equal("+OK\r\n", ask(stream, "SET", "k", value))
        assert.is_true(("$%d\r\n%s\r\n"):format(size, value) == ask(stream, "GET", "k"))
      end
    end)
  end)

  --
  -- Limits
  --

  it("refuses what is too much, before it has come", function()
    with_server(function(address)
      local prefix = "-ERR Protocol error: "
      assert.are.equal(prefix .. "invalid bulk length\r\n", all_of(address, "*2\r\n$4\r\nECHO\r\n$16777217\r\nx"))
      assert.are.equal(prefix .. "invalid multibulk length\r\n", all_of(address, "*65537\r\n$4\r\n"))
      assert.are.equal(prefix .. "bulk is not followed by an end of line\r\n",
        all_of(address, "*1\r\n$4\r\nPINGxx\r\n"))
      local stream <close> = connect(address) -- five of the largest are more than a command may have
      local value = ("x"):rep(16 << 20)
      stream:write("*6\r\n$4\r\nMGET\r\n")
      for _ = 1, 3 do
        assert(stream:write("$16777216\r\n", value, "\r\n"))
      end
      assert(stream:write "$16777213\r\n")
      assert.are.equal(prefix .. "invalid bulk length\r\n", stream:read "a")
    end)
  end)

  it("holds no more of a line without an end than a line may have", function()
    with_server(function(address, server)
      local before = resident(server)
      local clients = {}
      for i = 1, 20 do
        clients[i] = connect(address)
        uring.spawn(function() clients[i]:write(("x"):rep(10 << 20)) end) -- it fails on the way
      end
      for _, client in ipairs(clients) do
        assert.are.equal("-ERR Protocol error: too big inline request\r\n", client:read "l" .. "\n")
        client:close()
      end
      bounded(server, before, 20)
    end)
  end)

  it("has no room for what is only announced", function()
    with_server(function(address, server)
      local before = resident(server)
      local clients = {}
      for i = 1, 50 do
        clients[i] = connect(address)
        clients[i]:write("*2\r\n$4\r\nECHO\r\n$16777216\r\nx")
      end
      uring.sleep(0.1)
      bounded(server, before, 20)
      for _, client in ipairs(clients) do
        client:close()
      end
    end)
  end)

  it("does not read on for a client that does not", function()
    with_server(function(address, server)
      local slow <close> = connect(address)
      local other <close> = connect(address)
      local value = ("x"):rep(100000)
      ask(other, "SET", "k", value)
      local before = resident(server)
      local count = times(2000)
      local writer = uring.spawn(function()
        local command = encoded("GET", "k")
        for _ = 1, count do
          assert(slow:write(command))
        end
      end)
      for _ = 1, 50 do -- others are served meanwhile
        assert.are.equal("+PONG\r\n", ask(other, "PING"))
        uring.sleep(0.005)
      end
      bounded(server, before, 20)
      local reply = ("$%d\r\n%s\r\n"):format(#value, value)
      for _ = 1, count do
        assert.is_true(reply == slow:read(#reply))
      end
      writer:await()
    end)
  end)

  it("disconnects a subscriber that does not take its messages", function()
    with_server(function(address, server)
      local slow <close> = connect(address)
      local publisher <close> = connect(address)
      ask(slow, "SUBSCRIBE", "news")
      local before, text = resident(server), ("x"):rep(10000)
      local taken = 0
      repeat
        local reply = ask(publisher, "PUBLISH", "news", text)
        taken = taken + 1
      until reply == ":0\r\n" or taken > 10000
      assert.is_true(taken > 1000 and taken < 10000, "messages taken: " .. taken)
      bounded(server, before, 60)
      helper.eventually(function()
        return ask(publisher, "INFO"):find("connected_clients:1\r\n", 1, true)
      end)
    end)
  end)

  --
  -- Clients
  --

  it("serves fifty at a time", function()
    with_server(function(address)
      local count = times(200)
      local tasks = {}
      for i = 1, 50 do
        tasks[i] = uring.spawn(function()
          local stream <close> = connect(address)
          for j = 1, count do
            assert(stream:write(encoded("INCR", "n"), encoded("SET", "k" .. i, j), encoded("GET", "k" .. i)))
            assert.is_truthy(read_reply(stream):find "^:%d+\r\n$")
            assert.are.equal("+OK\r\n", read_reply(stream))
            assert.are.equal(("$%d\r\n%d\r\n"):format(#tostring(j), j), read_reply(stream))
          end
        end)
      end
      for _, task in ipairs(tasks) do
        task:await()
      end
      local stream <close> = connect(address)
      assert.are.equal((":%d\r\n"):format(50 * count + 1), ask(stream, "INCR", "n"))
    end)
  end)

  it("answers all that came before the client's end was closed", function()
    with_server(function(address)
      local stream <close> = connect(address)
      assert(stream:write(PIPELINE:rep(100), "PING\r\nPIN"))
      assert(stream:shutdown "w")
      assert.are.equal(REPLIES:rep(100) .. "+PONG\r\n", stream:read "a")
      assert.are.equal("+OK\r\n", all_of(address, "QUIT\r\nPING\r\n"))
    end)
  end)

  it("survives clients that vanish", function()
    with_server(function(address)
      local value = ("x"):rep(100000)
      local stream <close> = connect(address)
      ask(stream, "SET", "k", value)
      local halves = { "", "*", "*2\r\n$3\r\nGET\r\n", encoded("SET", "a", value):sub(1, 50000),
        encoded("GET", "k"):rep(50), encoded("SUBSCRIBE", "c") }
      for i = 1, times(60) do
        local client <close> = connect(address)
        client:sockopt("linger", i % 2 == 0 and 0) -- every other one with a reset
        assert(client:write(halves[i % #halves + 1]))
        uring.sleep(i % 3 * 0.001)
      end
      helper.eventually(function()
        return ask(stream, "INFO"):find("connected_clients:1\r\n", 1, true)
      end)
      assert.are.equal(":0\r\n", ask(stream, "PUBLISH", "c", "x"))
    end)
  end)

  it("hands messages to who has subscribed", function()
    with_server(function(address)
      local publisher <close> = connect(address)
      local one <close> = connect(address)
      local two <close> = connect(address)
      assert.are.equal(encoded("subscribe", "a", "1"):gsub("%$1\r\n1\r\n$", ":1\r\n"), ask(one, "SUBSCRIBE", "a"))
      assert.are.equal(encoded("subscribe", "a", "1"):gsub("%$1\r\n1\r\n$", ":1\r\n"), ask(two, "SUBSCRIBE", "a", "b"))
      assert.are.equal(encoded("subscribe", "b", "2"):gsub("%$1\r\n2\r\n$", ":2\r\n"), read_reply(two))
      for i = 1, times(500) do
        assert.are.equal(":2\r\n", ask(publisher, "PUBLISH", "a", "m" .. i))
        assert.are.equal(":1\r\n", ask(publisher, "PUBLISH", "b", i))
      end
      for i = 1, times(500) do
        assert.are.equal(encoded("message", "a", "m" .. i), read_reply(one))
        assert.are.equal(encoded("message", "a", "m" .. i), read_reply(two))
        assert.are.equal(encoded("message", "b", i), read_reply(two))
      end
      assert.is_truthy(ask(one, "GET", "a"):find "^%-ERR Can't execute 'get'")
      assert.are.equal("*2\r\n$4\r\npong\r\n$0\r\n\r\n", ask(one, "PING"))
      assert.are.equal(encoded("unsubscribe", "a", "0"):gsub("%$1\r\n0\r\n$", ":0\r\n"), ask(one, "UNSUBSCRIBE"))
      assert.are.equal("$-1\r\n", ask(one, "GET", "a"))
      assert.are.equal(":1\r\n", ask(publisher, "PUBLISH", "a", ""))
    end)
  end)

  it("forgets keys when their time has come", function()
    with_server(function(address)
      local stream <close> = connect(address)
      ask(stream, "SET", "a", "1", "PX", "30")
      ask(stream, "SET", "b", "1", "PX", "30")
      assert.is_truthy(ask(stream, "PTTL", "a"):find "^:%d%d?\r\n")
      uring.sleep(0.05)
      assert.are.equal("$-1\r\n", ask(stream, "GET", "a"))
      assert.are.equal("*0\r\n", ask(stream, "KEYS", "*"))
      assert.are.equal(":0\r\n", ask(stream, "DBSIZE"))
      ask(stream, "SET", "c", "1", "PX", "30")
      helper.eventually(function() return ask(stream, "DBSIZE") == ":0\r\n" end)
    end)
  end)

  --
  -- The end
  --

  it("ends with whoever is there, and answers them", function()
    with_server(function(address, server)
      local idle <close> = connect(address)
      local busy <close> = connect(address)
      ask(idle, "SUBSCRIBE", "c")
      ask(busy, "PING")
      assert(busy:write(PIPELINE))
      uring.sleep(0.02)
      server:kill "TERM"
      assert.are.equal(REPLIES, busy:read "a")
      assert.are.equal("", idle:read "a")
      assert.is_nil(uring.connect(address))
    end, { ends = true })
  end)

  it("does not wait for ever for clients that take nothing", function()
    with_server(function(address, server)
      local slow <close> = connect(address)
      local subscriber <close> = connect(address)
      ask(slow, "SET", "k", ("x"):rep(1 << 20))
      ask(subscriber, "SUBSCRIBE", "c")
      for _ = 1, 20 do
        ask(slow, "PUBLISH", "c", ("x"):rep(1 << 20))
      end
      assert(slow:write(encoded("GET", "k"):rep(20)))
      local jammed <close> = connect(address) -- by replies that are collected
      local command = encoded("ECHO", ("x"):rep(4000))
      repeat
        local written = uring.timeout(0.2, jammed.write, jammed, command)
      until not written
      local started = uring.now()
      server:kill "TERM"
      server:wait()
      local seconds = uring.now() - started
      assert.is_true(seconds > 0.4 and seconds < (helper.slow and 10 or 2), "it has taken seconds: " .. seconds)
    end, { arguments = " 0.5", ends = true })
  end)

  it("waits for descriptors where they are used up", function()
    with_server(function(address)
      local clients, served = {}, 0
      for i = 1, 40 do
        clients[i] = connect(address)
        uring.spawn(function()
          served = ask(clients[i], "PING") and served + 1 or served
          clients[i]:close()
        end)
        if i <= 4 then
          uring.sleep(0.01)
        end
      end
      helper.eventually(function() return served == 40 end)
    end, { prefix = "ulimit -n 24; ", complaint = "kv_server.lua: accept: Too many open files\n" })
  end)
end)
