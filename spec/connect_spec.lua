-- Connecting: names, several addresses, deadlines, and what is left behind.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

local function failure(text, number)
  return { n = 3, nil, text, number }
end

-- Runs fn as a task; a hang becomes a failure.
local function run(fn)
  local results = pack(uring.timeout(helper.slow and 60 or 10, function()
    fn()
    return "ended"
  end))
  assert.are.equal("ended", results[1], "it hangs")
end

local function port_of(address)
  return address:match ":(%d+)$"
end

-- An address where nobody answers: the backlog of its listener is full, and what
-- comes is ignored.  Returns what is to be closed, too.
local function blackhole(address)
  local listener = assert(uring.listen { address or "127.0.0.1:0", backlog = 0 })
  local held = { listener }
  for _ = 1, 4 do -- as many as get in
    local client = uring.connect { listener:address(), timeout = 0.03 }
    if not client then
      return listener:address(), held
    end
    held[#held + 1] = client
  end
  error("the backlog has no end")
end

local function close(list)
  for _, x in ipairs(list) do
    assert.is_true(x:close())
  end
end

-- An address at which a connection is refused.
local function refused()
  local listener = assert(uring.listen "127.0.0.1:0")
  local address = listener:address()
  listener:close()
  return address
end

describe("connect", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("knows localhost without asking, by both its addresses", function()
    run(function()
      for _, address in ipairs { "127.0.0.1:0", "[::1]:0" } do
        local listener <close> = assert(uring.listen(address))
        local client <close> = assert(uring.connect("localhost:" .. port_of(listener:address())))
        assert.are.equal(listener:address(), client:peer())
      end
    end)
  end)

  it("takes names of hosts and of services", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local hosts = io.open "/etc/hosts"
      local name = hosts and hosts:read "a":match "\n127[%d.]+%s+(%a[%w.-]*)"
      if name then
        local client <close> = assert(uring.connect(name .. ":" .. port_of(listener:address())))
        assert.matches("^127%.", client:peer())
      end
      assert.are.same(failure("127.0.0.1:1: Connection refused", errno.ECONNREFUSED),
        pack(uring.connect "127.0.0.1:tcpmux"))
    end)
  end)

  it("names every address it has tried", function()
    local port = port_of(refused())
    assert.are.same(failure(("localhost:%s: [::1]:%s: Connection refused; 127.0.0.1:%s: Connection refused"):format(
      port, port, port), errno.ECONNREFUSED), pack(uring.connect("localhost:" .. port)))
    assert.are.same(failure(("127.0.0.1:%s: Connection refused"):format(port), errno.ECONNREFUSED),
      pack(uring.connect("127.0.0.1:" .. port)))
  end)

  it("says that a name is not known, and a service", function()
    assert.are.same(failure("name.invalid:80: Name or service not known", errno.ENOENT),
      pack(uring.connect { "name.invalid:80", timeout = 20 }))
    assert.are.same(failure("localhost:no-such-service: Service not known", errno.ENOENT),
      pack(uring.connect "localhost:no-such-service"))
    assert.are.same(failure("name.invalid:80: Name or service not known", errno.ENOENT),
      pack(uring.listen "name.invalid:80"))
  end)

  it("takes the mistakes of an address for what they are, and asks nobody", function()
    local began = uring.now()
    for address, why in pairs {
      ["localhost"] = "the port is missing"; ["localhost:"] = "the port is not a number from 0 to 65535";
      ["localhost:65536"] = "the port is not a number from 0 to 65535";
      ["a b:80"] = "the host is not a numeric address"; [":80"] = "the host is not a numeric address";
      ["1.2.3:80"] = "the host is not a numeric address"; ["a:b:80"] = "the host is not a numeric address";
      ["a\0b:80"] = "the host is not a numeric address"; ["[localhost]:80"] = "not an IPv6 address";
      ["[fe80::1%nosuchdevice]:80"] = "not an IPv6 address"; ["[::1%]:80"] = "not an IPv6 address";
      ["-a:80"] = "the host is not a numeric address";
      [("x"):rep(300) .. ":80"] = "the host is not a numeric address";
    } do
      local expected = failure(address .. ": " .. why, errno.EINVAL)
      assert.are.same(expected, pack(uring.connect(address)))
      assert.are.same(expected, pack(uring.listen(address)))
      assert.are.same(expected, pack(uring.udp(address)))
    end
    assert.is_true(uring.now() - began < 1)
  end)

  it("reads the interface of an IPv6 address, by name and by number", function()
    for _, scope in ipairs { "lo", "1" } do
      local listener <close> = assert(uring.listen(("[::1%%%s]:0"):format(scope)))
      assert.matches("^%[::1", listener:address())
    end
  end)

  it("gives up after `timeout`, where nobody answers", function()
    local address, held = blackhole()
    run(function()
      local began = uring.now()
      assert.are.same(failure(address .. ": timeout", errno.ETIMEDOUT), pack(uring.connect { address, timeout = 0.05 }))
      local took = uring.now() - began
      assert.is_true(took >= 0.05 and took < 1, took)
      local name = "localhost:" .. port_of(address)
      assert.are.same(failure(name .. ": timeout", errno.ETIMEDOUT), pack(uring.connect { name, timeout = 0.05 }))
    end)
    close(held)
  end)

  it("tries the next address beside one that does not answer, after a quarter of a second", function()
    local address, held = blackhole "[::1]:0"
    local port = port_of(address)
    run(function()
      local other <close> = assert(uring.listen("127.0.0.1:" .. port))
      assert.are.equal("127.0.0.1:" .. port, other:address())
      local began = uring.now()
      local client <close> = assert(uring.connect("localhost:" .. port))
      local took = uring.now() - began
      assert.are.equal("127.0.0.1:" .. port, client:peer())
      assert.is_true(took >= 0.24 and took < 2, took)
      assert.are.equal(0, uring.stats().in_flight) -- the other attempt has ended
    end)
    close(held)
  end)

  it("tries the next address at once when one has failed", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local began = uring.now()
      local client <close> = assert(uring.connect("localhost:" .. port_of(listener:address())))
      assert.are.equal(listener:address(), client:peer())
      assert.is_true(uring.now() - began < 0.2)
    end)
  end)

  it("comes from the address it is told to", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local client <close> = assert(uring.connect { listener:address(), bind = "127.0.0.2:0" })
      assert.matches("^127%.0%.0%.2:%d+$", client:address())
      local server <close> = assert(listener:accept())
      assert.are.equal(client:address(), server:peer())
      -- of a name, only what has its family
      local named <close> = assert(uring.connect { "localhost:" .. port_of(listener:address()), bind = "127.0.0.1:0" })
      assert.are.equal(listener:address(), named:peer())
      assert.are.same(failure(listener:address() .. ": no address of the kind of '[::1]:0'", errno.EAFNOSUPPORT),
        pack(uring.connect { listener:address(), bind = "[::1]:0" }))
      assert.are.same(failure("nowhere: the port is missing", errno.EINVAL),
        pack(uring.connect { listener:address(), bind = "nowhere" }))
      assert.are.same(failure(listener:address() .. ": Address already in use", errno.EADDRINUSE),
        pack(uring.connect { listener:address(), bind = listener:address() }))
    end)
  end)

  it("sets nodelay and keepalive", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local client <close> = assert(uring.connect { listener:address(), nodelay = true,
        keepalive = { idle = 7, interval = 3, count = 2 } })
      assert.is_true(client:nodelay())
      assert.is_true(client:keepalive())
      assert.are.same({ 7, 3, 2 },
        { client:sockopt "keepidle", client:sockopt "keepintvl", client:sockopt "keepcnt" })
      local plain <close> = assert(uring.connect(listener:address()))
      assert.is_false(plain:nodelay())
      assert.is_false(plain:keepalive())
    end)
    local message = helper.error_of(uring.connect, { "127.0.0.1:1", keepalive = { idel = 7 } })
    assert.is_truthy(message:find("unknown option 'idel' of keepalive (did you mean 'idle'?)", 1, true), message)
    message = helper.error_of(uring.connect, { "127.0.0.1:1", keepalive = { idle = 0 } })
    assert.is_truthy(message:find("option 'idle' of keepalive: positive integer expected, got 0", 1, true), message)
    message = helper.error_of(uring.connect, { "127.0.0.1:1", keepalive = 5 })
    assert.is_truthy(message:find("option 'keepalive' of connect: boolean or table expected", 1, true), message)
    message = helper.error_of(uring.connect, { "127.0.0.1:1", timeout = -1 })
    assert.is_truthy(message:find("option 'timeout' of connect is negative", 1, true), message)
  end)

  it("cancelled at any step, leaves nothing behind", function()
    local address, held = blackhole "[::1]:0"
    local name = "localhost:" .. port_of(address)
    run(function()
      local other <close> = assert(uring.listen("127.0.0.1:" .. port_of(address)))
      for _, target in ipairs { name, address, other:address(), "localhost:http" } do
        for steps = 0, 14 do
          local task = uring.spawn(function()
            local client <close> = uring.connect { target, timeout = steps % 2 == 1 and 5 or nil }
            return client and "connected"
          end)
          for _ = 1, steps do
            uring.yield()
          end
          task:cancel()
          local ok, err = pcall(task.await, task)
          assert.is_true(ok or err == uring.cancelled, err)
        end
      end
    end)
    close(held)
    helper.collect()
  end)

  it("closes what has lost when two answer at once", function()
    run(function()
      local six <close> = assert(uring.listen "[::1]:0")
      local four <close> = assert(uring.listen("127.0.0.1:" .. port_of(six:address())))
      for _ = 1, 20 do
        local client <close> = assert(uring.connect("localhost:" .. port_of(six:address())))
        assert.are.equal(six:address(), client:peer())
      end
      assert.is_truthy(four:address())
    end)
  end)

  it("is told what is unreachable", function()
    for _, case in ipairs {
      { "unix:/nonexistent/x", "No such file or directory", errno.ENOENT };
      { "unix:@uring-nobody-is-there", "Connection refused", errno.ECONNREFUSED };
      { "255.255.255.255:80", "Network is unreachable", errno.ENETUNREACH };
    } do
      local results = pack(uring.connect { case[1], timeout = 5 })
      if case[3] ~= errno.ENETUNREACH or results[3] == case[3] then -- it depends on the routes of the machine
        assert.are.same(failure(case[1] .. ": " .. case[2], case[3]), results)
      else
        assert.is_nil(results[1])
      end
    end
  end)

  it("works outside of tasks", function()
    local listener = assert(uring.listen "127.0.0.1:0")
    local client = assert(uring.connect("localhost:" .. port_of(listener:address())))
    close { client, listener }
  end)

  it("leaves nothing behind when descriptors are used up", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      uring.run(function()
        local listener = assert(uring.listen "127.0.0.1:0")
        local name = "localhost:" .. listener:address():match ":(%d+)$"
        for spare = 0, 12 do
          collectgarbage() collectgarbage()
          local before = testkit.fds()
          testkit.spare_fds(spare)
          local client, message = uring.connect(name)
          if client then
            client:close()
          else
            assert(message:find "Too many open files" or message:find "refused" or message:find "not known", message)
          end
          testkit.limit_fds(4096)
          collectgarbage() collectgarbage()
          assert(testkit.fds() == before, "left behind with " .. spare)
        end
      end)
      print "done"
    ]]
    assert.are.equal("done\n", output)
    assert.are.equal(0, status)
  end)
end)
