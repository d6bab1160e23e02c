-- Datagrams.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local LARGEST = 65507 -- bytes of data in a datagram over IPv4

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

local function close(...)
  for _, x in ipairs { ... } do
    assert.is_true(x:close())
  end
end

describe("udp", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local addresses = {
    IPv4 = "127.0.0.1:0", IPv6 = "[::1]:0", ["unix sockets"] = "unix:@uring-udp-spec-",
  }
  local count = 0

  -- An address of one's own.
  local function address_of(template)
    count = count + 1
    return template:find "^unix" and template .. count or template
  end

  for name, template in pairs(addresses) do
    describe("over " .. name, function()
      it("carries datagrams, with the address of who sent them", function()
        run(function()
          local a = assert(uring.udp(address_of(template)))
          local b = assert(uring.udp(address_of(template)))
          for _, data in ipairs { "hello", "", "\0\1\2", ("x"):rep(8000) } do
            assert.are.equal(#data, a:send(data, b:address()))
            assert.are.same({ n = 3, data, a:address(), false }, pack(b:recv()))
          end
          assert.are.equal(5, a:send(uring.buffer "again", b:address()))
          assert.are.same({ n = 3, "again", a:address(), false }, pack(b:recv(1)))
          close(a, b)
        end)
      end)

      it("connected, hears one peer, and needs no address", function()
        run(function()
          local a = assert(uring.udp(address_of(template)))
          local b = assert(uring.udp { address_of(template), connect = a:address() })
          local c = assert(uring.udp(address_of(template)))
          assert.are.equal(a:address(), b:peer())
          assert.are.equal(4, b:send "ping")
          assert.are.same({ n = 3, "ping", b:address(), false }, pack(a:recv()))
          assert.are.equal(a, a:connect(b:address()))
          assert.are.equal(4, a:send "pong")
          assert.are.equal("pong", (b:recv()))
          local n = c:send("from nobody", b:address())
          if n then -- a unix socket refuses it
            assert.are.same(failure("timeout", errno.ETIMEDOUT), pack(b:recv(0.02)))
          end
          close(a, b, c)
        end)
      end)

      it("iterates over datagrams, in order and all of them", function()
        run(function()
          local a = assert(uring.udp(address_of(template)))
          local b = assert(uring.udp(address_of(template)))
          local i, total = 0, helper.times(200)
          uring.spawn(function()
            for k = 0, total do
              assert(b:send(("y"):rep(k % 50) .. k, a:address()))
              uring.yield()
            end
          end)
          for data, peer, cut in a:datagrams() do
            assert.are.equal(("y"):rep(i % 50) .. i, data)
            assert.are.equal(b:address(), peer)
            assert.is_false(cut)
            i = i + 1
            if i > total then
              a:close()
            end
          end
          assert.are.equal(total + 1, i)
          close(a, b)
        end)
      end)
    end)
  end

  -- By then those who send have filled the other's socket, and wait.
  local FILLED = helper.slow and 0.2 or 0.01

  it("over unix sockets sends what it is given when there was no room at first", function()
    run(function()
      for _, connects in ipairs { true, false } do
        local a = assert(uring.udp(address_of "unix:@uring-udp-spec-"))
        local b = assert(uring.udp { address_of "unix:@uring-udp-spec-", connect = connects and a:address() or nil })
        local total = 60 -- many more than may wait
        local senders = {}
        for i = 1, 3 do
          senders[i] = uring.spawn(function()
            for k = i, total, 3 do
              assert.are.equal(#("datagram " .. k), b:send("datagram " .. k, not connects and a:address() or nil))
            end
          end)
        end
        uring.sleep(FILLED)
        assert.are.equal("waiting", senders[1]:status())
        local missing = {}
        for k = 1, total do missing["datagram " .. k] = true end
        for _ = 1, total do
          local data = assert(a:recv())
          assert.is_true(missing[data])
          missing[data] = nil
        end
        assert.is_nil(next(missing))
        close(a, b)
      end
    end)
  end)

  it("over unix sockets is closed, or cancelled, while it waits for room", function()
    run(function()
      for _, connects in ipairs { true, false } do
        local a = assert(uring.udp(address_of "unix:@uring-udp-spec-"))
        local b = assert(uring.udp { address_of "unix:@uring-udp-spec-", connect = connects and a:address() or nil })
        local function fill()
          while true do
            local n, message, number = b:send("x", not connects and a:address() or nil)
            if not n then return n, message, number end
          end
        end
        local task, cancelled = uring.spawn(fill), uring.spawn(fill)
        uring.sleep(FILLED)
        cancelled:cancel()
        assert.is_false((pcall(cancelled.await, cancelled)))
        assert.are.equal("waiting", task:status())
        close(b)
        assert.are.same(failure("closed", errno.ECANCELED), pack(task:await()))
        close(a)
      end
    end)
  end)

  it("over unix sockets says that the other is gone, while it waits for room", function()
    run(function()
      local a = assert(uring.udp(address_of "unix:@uring-udp-spec-"))
      local b = assert(uring.udp { connect = a:address() })
      local task = uring.spawn(function()
        while true do
          local n, message, number = b:send "x"
          if not n then return n, message, number end
        end
      end)
      uring.sleep(FILLED)
      close(a)
      assert.are.same(failure("send: Connection refused", errno.ECONNREFUSED), pack(task:await()))
      close(b)
    end)
  end)

  it("that is closed since another task was cancelled receives from nobody else", function()
    run(function()
      for _, seconds in ipairs { false, 1 } do
        local a = assert(uring.udp "127.0.0.1:0")
        local first = uring.spawn(a:datagrams())
        uring.yield()
        local second = uring.spawn(a.recv, a, seconds or nil)
        uring.sleep(0.002)
        first:cancel()
        assert.is_false((pcall(first.await, first)))
        close(a)
        local other <close> = assert(uring.udp "127.0.0.1:0") -- has its number, maybe
        assert.are.equal(5, other:send("other", other:address()))
        assert.are.same(failure("closed", errno.ECANCELED), pack(second:await()))
        assert.are.equal("other", (other:recv(1)))
      end
    end)
  end)

  it("that is closed while a name is asked for connects nobody else", function()
    run(function()
      local a = assert(uring.udp "127.0.0.1:0")
      local task = uring.spawn(a.connect, a, "127.0.0.1:discard")
      uring.yield()
      close(a)
      local other <close> = assert(uring.udp "127.0.0.1:0") -- has its number, maybe
      assert.are.same(failure("closed", errno.ECANCELED), pack(task:await()))
      assert.is_nil((other:peer()))
    end)
  end)

  it("takes the largest datagram there is, and none of no bytes for an end", function()
    run(function()
      local a = assert(uring.udp "127.0.0.1:0")
      local b = assert(uring.udp "127.0.0.1:0")
      local data = ("0123456789"):rep(6551):sub(1, LARGEST)
      for _, iterates in ipairs { false, true } do
        local receive = iterates and a:datagrams() or function() return a:recv(2) end
        assert.are.equal(LARGEST, b:send(data, a:address()))
        assert.are.equal(0, b:send("", a:address()))
        assert.are.equal(3, b:send("end", a:address()))
        local got, peer, cut = receive()
        assert.is_true(got == data)
        assert.are.equal(b:address(), peer)
        assert.is_false(cut)
        assert.are.same({ n = 3, "", b:address(), false }, pack(receive()))
        assert.are.same({ n = 3, "end", b:address(), false }, pack(receive()))
      end
      assert.are.same(failure("sendmsg: Message too long", errno.EMSGSIZE),
        pack(b:send(("x"):rep(LARGEST + 1), a:address())))
      close(a, b)
    end)
  end)

  it("tells of datagrams that are cut short", function()
    run(function()
      local a = assert(uring.udp { "127.0.0.1:0", size = 10 })
      local b = assert(uring.udp "127.0.0.1:0")
      for _, receive in ipairs { function() return a:recv() end, a:datagrams() } do
        for _, case in ipairs { { "0123456789", false }, { "0123456789+", true }, { ("z"):rep(3000), true } } do
          b:send(case[1], a:address())
          assert.are.same({ n = 3, case[1]:sub(1, 10), b:address(), case[2] }, pack(receive()))
        end
      end
      close(a, b)
    end)
  end)

  it("waits for so long and no longer", function()
    run(function()
      local a = assert(uring.udp { "127.0.0.1:0", timeout = 0.02 })
      local function takes(seconds, ...)
        local began = uring.now()
        assert.are.same(failure("timeout", errno.ETIMEDOUT), pack(a:recv(...)))
        local took = uring.now() - began
        assert.is_true(took >= seconds and took < seconds + 1, took)
      end
      takes(0.02)
      takes(0.04, 0.04)
      takes(0, 0)
      assert.are.equal(a, a:timeout(0.03))
      takes(0.03)
      assert.are.equal(a, a:timeout())
      local b = assert(uring.udp())
      b:send("first", a:address())
      assert.are.equal("first", a:datagrams()())
      takes(0.02, 0.02) -- also where it receives on and on
      b:send("later", a:address())
      assert.are.equal("later", (a:recv(1)))
      b:send("now", a:address())
      uring.sleep(0.01)
      assert.are.equal("now", (a:recv(0)))
      close(a, b)
    end)
  end)

  it("tells who is connected that nobody is there", function()
    run(function()
      local gone = assert(uring.udp "127.0.0.1:0")
      local address = gone:address()
      gone:close()
      local a = assert(uring.udp { connect = address })
      assert.are.equal(1, a:send "x")
      assert.are.same(failure("recvmsg: Connection refused", errno.ECONNREFUSED), pack(a:recv(1)))
      assert.are.same(failure("timeout", errno.ETIMEDOUT), pack(a:recv(0.01)))
      assert.are.equal(1, a:send "x")
      uring.sleep(0.01)
      assert.matches("Connection refused", helper.error_of(a:datagrams()))
      close(a)
    end)
  end)

  it("has many in flight: senders and receivers at the same time", function()
    run(function()
      local a = assert(uring.udp "127.0.0.1:0")
      local got, tasks = {}, {}
      for i = 1, 20 do
        tasks[i] = uring.spawn(function()
          local data = assert(a:recv(5))
          got[data] = true
        end)
      end
      uring.map({ n = 20 }, function(_, i)
        local b <close> = assert(uring.udp())
        assert.are.equal(#tostring(i), b:send(tostring(i), a:address()))
      end)
      uring.await(table.unpack(tasks))
      for i = 1, 20 do
        assert.is_true(got[tostring(i)])
      end
      close(a)
    end)
  end)

  it("is cancelled without losing a datagram", function()
    run(function()
      local a, b = assert(uring.udp "127.0.0.1:0"), assert(uring.udp())
      for _, flow in ipairs { false, true } do
        if flow then
          b:send("start", a:address())
          assert.are.equal("start", a:datagrams()())
        end
        for steps = 0, 6 do
          local got
          local task = uring.spawn(function() got = a:recv() end)
          for _ = 1, steps do
            uring.yield()
          end
          b:send(tostring(steps), a:address())
          task:cancel()
          pcall(task.await, task)
          assert.are.equal(tostring(steps), got or (a:recv(1)))
        end
      end
      -- who waits beside somebody who is cancelled goes on
      local got
      local one = uring.spawn(function() return a:recv() end)
      local two = uring.spawn(function() got = a:recv() end)
      uring.sleep(0.005)
      one:cancel()
      uring.sleep(0.005)
      b:send("for two", a:address())
      two:await()
      assert.are.equal("for two", got)
      close(a, b)
    end)
  end)

  it("closed, ends what waits for it", function()
    run(function()
      local a, b = assert(uring.udp "127.0.0.1:0"), assert(uring.udp "127.0.0.1:0")
      local results, loops = {}, 0
      uring.spawn(function() results[1] = pack(a:recv()) end)
      uring.spawn(function() results[2] = pack(a:recv(5)) end)
      uring.spawn(function()
        for _ in b:datagrams() do
          loops = loops + 100
        end
        loops = loops + 1
      end)
      uring.sleep(0.01)
      close(a, b)
      uring.sleep(0.01)
      assert.are.same(failure("closed", errno.ECANCELED), results[1])
      assert.are.same(failure("closed", errno.ECANCELED), results[2])
      assert.are.equal(1, loops)
      assert.is_true(a:close())
      assert.matches("udp %(closed%)", tostring(a))
      for _, name in ipairs { "recv", "address", "peer", "datagrams", "fd", "timeout" } do
        assert.matches("closed udp socket", helper.error_of(a[name], a), nil, name)
      end
      assert.matches("closed udp socket", helper.error_of(a.send, a, "x"))
    end)
  end)

  it("collected, lets go of everything", function()
    run(function()
      for _ = 1, 3 do
        local a, b = assert(uring.udp "127.0.0.1:0"), assert(uring.udp())
        b:send("x", a:address())
        assert.are.equal("x", a:datagrams()())
        b:send("y", a:address())
      end
    end)
    helper.collect()
  end)

  it("joins multicast groups, and leaves them", function()
    run(function()
      local group = "239.255.77.77"
      local a = assert(uring.udp { "0.0.0.0:0", reuseaddr = true })
      assert.are.equal(a, a:join(group, "lo"))
      local b = assert(uring.udp { "127.0.0.1:0", ttl = 3 })
      assert.are.equal(3, b:sockopt "ttl")
      assert.are.equal(b, b:sockopt("multicast_ttl", 1))
      assert.are.equal(1, b:sockopt "multicast_ttl")
      assert.is_true(b:sockopt "multicast_loop")
      local to = group .. a:address():match ":%d+$"
      if b:send("to all", to) then -- there may be no route
        assert.are.same({ n = 3, "to all", b:address(), false }, pack(a:recv(1)))
        assert.are.equal(a, a:leave(group, "lo"))
        b:send("to all", to)
        assert.are.same(failure("timeout", errno.ETIMEDOUT), pack(a:recv(0.02)))
      end
      assert.are.same(failure("nowhere: not a numeric address", errno.EINVAL), pack(a:join "nowhere"))
      assert.are.same(failure("no-such-if: No such device", errno.ENODEV), pack(a:join(group, "no-such-if")))
      assert.are.same(failure("127.0.0.1: Invalid argument", errno.EINVAL), pack(a:join "127.0.0.1"))
      local six = assert(uring.udp "[::]:0")
      assert.are.equal(six, six:join("ff02::77", 1))
      assert.are.equal(six, six:leave("ff02::77", 1))
      assert.are.equal(six, six:sockopt("multicast_ttl", 4))
      assert.are.equal(4, six:sockopt "multicast_ttl")
      close(a, b, six)
    end)
  end)

  it("sends to everybody only where that was asked for", function()
    local a = assert(uring.udp { broadcast = true })
    local b = assert(uring.udp())
    assert.is_true(a:sockopt "broadcast")
    assert.is_false(b:sockopt "broadcast")
    assert.are.equal(b, b:sockopt("broadcast", true))
    assert.is_true(b:sockopt "broadcast")
    close(a, b)
  end)

  it("shares a port where that was asked for", function()
    local a = assert(uring.udp { "127.0.0.1:0", reuseport = true })
    local b = assert(uring.udp { a:address(), reuseport = true })
    assert.are.same(failure(a:address() .. ": Address already in use", errno.EADDRINUSE), pack(uring.udp(a:address())))
    close(a, b)
  end)

  it("takes names", function()
    run(function()
      local a = assert(uring.udp "localhost:0")
      local b = assert(uring.udp { connect = "localhost:" .. a:address():match ":(%d+)$" })
      b:send "hi"
      assert.are.equal("hi", (a:recv(1)))
      assert.are.same(failure("name.invalid:80: Name or service not known", errno.ENOENT),
        pack(uring.udp { connect = "name.invalid:80" }))
      close(a, b)
    end)
  end)

  it("returns what fails, raises on what is wrong", function()
    local a = assert(uring.udp "127.0.0.1:0")
    assert.are.same(failure("send: Destination address required", errno.EDESTADDRREQ), pack(a:send "x"))
    assert.are.same(failure("nowhere: the port is missing", errno.EINVAL), pack(a:send("x", "nowhere")))
    assert.are.same(failure("nowhere: the port is missing", errno.EINVAL), pack(a:connect "nowhere"))
    assert.are.same(failure("getpeername: Transport endpoint is not connected", errno.ENOTCONN), pack(a:peer()))
    for _, case in ipairs {
      { a.send, { a, 5 }, "#1 to 'send' (string expected, got number)" };
      { a.send, { a, "x", 5 }, "#2 to 'send' (address expected, got number)" };
      { a.recv, { a, -1 }, "#1 to 'recv' (seconds expected)" };
      { a.recv, { a, "1" }, "#1 to 'recv' (seconds expected)" };
      { a.timeout, { a, 0 / 0 }, "#1 to 'timeout' (seconds expected)" };
      { a.connect, { a }, "#1 to 'connect' (address expected, got nil)" };
      { a.join, { a }, "#1 to 'join' (address of a group expected, got nil)" };
      { a.leave, { a, "x", {} }, "#2 to 'leave' (interface expected, got table)" };
      { a.sockopt, { a, "ttl", "x" }, "option 'ttl' of a socket: integer expected, got string" };
      { uring.udp, { 5 }, "#1 to 'udp' (address expected, got number)" };
      { uring.udp, { { sise = 5 } }, "unknown option 'sise' of udp (did you mean 'size'?)" };
      { uring.udp, { { size = 0 } }, "option 'size' of udp is 0, not 1 or more" };
      { uring.udp, { { buffers = -1 } }, "option 'buffers' of udp is -1, not 1 or more" };
      { uring.udp, { { timeout = -1 } }, "option 'timeout' of udp is negative" };
    } do
      local message = helper.error_of(case[1], table.unpack(case[2], 1, 3))
      assert.is_truthy(message:find(case[3], 1, true), message)
    end
    close(a)
  end)
end)
