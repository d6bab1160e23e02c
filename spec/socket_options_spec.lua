-- Options of sockets, by their names.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

local function failure(text, number)
  return { n = 3, nil, text, number }
end

local function close(...)
  for _, x in ipairs { ... } do
    assert.is_true(x:close())
  end
end

describe("sockopt", function()
  helper.watch(before_each, after_each)

  -- A TCP connection, with its listener.
  local function connection(address)
    local listener = assert(uring.listen(address or "127.0.0.1:0"))
    local client = assert(uring.connect(listener:address()))
    return client, assert(listener:accept()), listener
  end

  it("reads what it has set, in the option's own type", function()
    for _, address in ipairs { "127.0.0.1:0", "[::1]:0" } do
      local client, server, listener = connection(address)
      for name, value in pairs {
        nodelay = true, cork = true, keepalive = true, keepidle = 11, keepintvl = 12, keepcnt = 3, linger = 5,
        user_timeout = 1.25, priority = 3, ttl = 9, tos = 16, oobinline = true, notsent_lowat = 4096, syncnt = 2,
        linger2 = 7, reuseaddr = true, dontroute = true, rcvlowat = 2,
      } do
        assert.are.equal(client, client:sockopt(name, value), name)
        assert.are.equal(value, client:sockopt(name), name)
      end
      for name, value in pairs { nodelay = false, cork = false, keepalive = false, linger = false } do
        assert.are.equal(client, client:sockopt(name, value), name)
        assert.are.equal(value, client:sockopt(name), name)
      end
      assert.are.equal(client, client:sockopt("user_timeout", 0.0001)) -- rounded up, not to 0, which is for ever
      assert.are.equal(0.001, client:sockopt "user_timeout")
      assert.are.equal(client, client:sockopt("linger", 0))
      assert.are.equal(0, client:sockopt "linger")
      assert.are.equal(client, client:sockopt("linger", false))
      assert.are.equal(client, client:sockopt("rcvbuf", 20000))
      assert.are.equal(40000, client:sockopt "rcvbuf") -- the kernel doubles it: socket(7)
      local congestion = server:sockopt "congestion"
      assert.matches("^%w+$", congestion)
      assert.are.equal(server, server:sockopt("congestion", congestion))
      close(client, server, listener)
    end
  end)

  it("tells what a socket is", function()
    local client, server, listener = connection()
    assert.is_true(listener:sockopt "acceptconn")
    assert.is_false(server:sockopt "acceptconn")
    assert.are.equal(uring.const.SOCK_STREAM, client:sockopt "type")
    assert.are.equal(uring.const.AF_INET, client:sockopt "domain")
    assert.are.equal(uring.const.IPPROTO_TCP, client:sockopt "protocol")
    assert.are.equal(0, client:sockopt "error")
    close(client, server, listener)
  end)

  it("has nodelay and keepalive as methods of their own", function()
    local client, server, listener = connection()
    assert.is_false(client:nodelay())
    assert.are.equal(client, client:nodelay(true))
    assert.is_true(client:nodelay())
    assert.are.equal(client, client:nodelay(false))
    assert.is_false(client:nodelay())
    assert.is_false(client:keepalive())
    assert.are.equal(client, client:keepalive(true))
    assert.is_true(client:keepalive())
    assert.are.equal(client, client:keepalive(false))
    assert.are.equal(client, client:keepalive { idle = 20, interval = 5, count = 4 })
    assert.are.same({ true, 20, 5, 4 }, { client:keepalive(), client:sockopt "keepidle", client:sockopt "keepintvl",
      client:sockopt "keepcnt" })
    close(client, server, listener)
  end)

  it("knows who is at the other end of a unix socket", function()
    local a, b = assert(uring.socketpair())
    local mine = a:credentials()
    assert.are.equal(helper.testkit.getpid(), mine.pid)
    assert.are.equal("number", type(mine.uid))
    assert.are.equal("number", type(mine.gid))
    assert.are.same(mine, a:sockopt "peercred")
    close(a, b)
  end)

  it("returns what the kernel refuses", function()
    local r, w = assert(uring.pipe())
    assert.are.same(failure("nodelay: Socket operation on non-socket", errno.ENOTSOCK), pack(r:nodelay()))
    assert.are.same(failure("keepalive: Socket operation on non-socket", errno.ENOTSOCK), pack(w:keepalive(true)))
    local a, b = assert(uring.socketpair())
    local ok, message, code = a:nodelay(true)
    assert.is_nil(ok)
    assert.matches("^nodelay: ", message)
    assert.are.equal("number", type(code))
    assert.are.same(failure("congestion: No such file or directory", errno.ENOENT),
      (function()
        local client, server, listener = connection()
        local results = pack(client:sockopt("congestion", "no-such-algorithm"))
        close(client, server, listener)
        return results
      end)())
    close(r, w, a, b)
  end)

  it("raises on what is wrong, in the name of the caller", function()
    local client, server, listener = connection()
    for _, case in ipairs {
      { client.sockopt, { client }, "string expected" };
      { client.sockopt, { client, "no_delay" }, "unknown option 'no_delay' of a socket (did you mean 'nodelay'?)" };
      { client.sockopt, { client, "nodelay", 1 }, "option 'nodelay' of a socket: boolean expected, got number" };
      { client.sockopt, { client, "rcvbuf", 1.5 }, "option 'rcvbuf' of a socket: integer expected, got number" };
      { client.sockopt, { client, "rcvbuf", "1" }, "option 'rcvbuf' of a socket: integer expected, got string" };
      { client.sockopt, { client, "rcvbuf", 1 << 40 }, "option 'rcvbuf' of a socket: out of range" };
      { client.sockopt, { client, "linger", true }, "option 'linger' of a socket: seconds or false expected" };
      { client.sockopt, { client, "linger", -1 }, "option 'linger' of a socket: out of range" };
      { client.sockopt, { client, "user_timeout", -1 }, "option 'user_timeout' of a socket: out of range" };
      { client.sockopt, { client, "user_timeout", 0 / 0 }, "option 'user_timeout' of a socket: out of range" };
      { client.sockopt, { client, "congestion", 1 }, "option 'congestion' of a socket: string expected" };
      { client.sockopt, { client, "congestion", ("x"):rep(300) }, "option 'congestion' of a socket: too long" };
      { client.sockopt, { client, "peercred", 1 }, "option 'peercred' of a socket can only be read" };
      { client.nodelay, { client, 1 }, "#1 to 'nodelay' (boolean expected, got number)" };
      { client.keepalive, { client, 1 }, "#1 to 'keepalive' (boolean or table expected, got number)" };
      { client.keepalive, { client, { idel = 1 } }, "unknown option 'idel' of keepalive (did you mean 'idle'?)" };
      { client.keepalive, { client, { idle = 0 } }, "option 'idle' of keepalive: positive integer expected, got 0" };
      { client.keepalive, { client, { idle = "x" } }, "option 'idle' of keepalive: positive integer expected, got x" };
    } do
      local _, message = pcall(function() return 1, case[1](table.unpack(case[2], 1, 3)) end)
      assert.is_truthy(tostring(message):find(case[3], 1, true), message)
    end
    local _, message = pcall(function() client:sockopt("nodelay", 1); return 0 end)
    assert.matches("socket_options_spec%.lua:%d+: option", message)
    close(client, server, listener)
    assert.matches("closed", helper.error_of(client.nodelay, client))
    assert.matches("closed", helper.error_of(client.keepalive, client, true))
    assert.matches("closed", helper.error_of(client.credentials, client))
  end)
end)
