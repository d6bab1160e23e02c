-- Streams and listeners: TCP, unix sockets, pipes, socketpairs.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local errno, op = uring.errno, uring.op

local function pack(...)
  return table.pack(...)
end

local function failure(text, number)
  return { n = 3, nil, text, number }
end

-- Runs fn as a task; a hang becomes a failure.
local function run(fn)
  return uring.run(function()
    local dog = uring.spawn(function()
      uring.sleep(helper.slow and 30 or 4)
      error("it hangs", 0)
    end)
    local results = pack(uring.run(fn))
    dog:cancel()
    return table.unpack(results, 1, results.n)
  end)
end

-- A listener, a client of it and the server's end of that connection.
local function connection(address)
  local listener = assert(uring.listen(address))
  local client = assert(uring.connect(listener:address()))
  local server = assert(listener:accept())
  return client, server, listener
end

local function close(...)
  for _, stream in ipairs { ... } do
    assert.is_true(stream:close())
  end
end

-- A reproducible text of n bytes with a pattern in it.
local function text(n)
  local parts, size = {}, 0
  for i = 1, n do
    local part = ("%d:"):format(i * 7919)
    parts[i] = part
    size = size + #part
    if size >= n then
      break
    end
  end
  return table.concat(parts):sub(1, n)
end

local addresses = {
  ["TCP over IPv4"] = "127.0.0.1:0";
  ["TCP over IPv6"] = "[::1]:0";
  ["an abstract unix socket"] = "unix:@uring-stream-spec";
  ["a unix socket"] = "unix:";
}

-- A path for a unix socket; removed afterwards.
local function address_of(name)
  if name ~= "unix:" then
    return name
  end
  local path = helper.tmpname()
  os.remove(path)
  return "unix:" .. path
end

-- Two streams connected to each other, of each kind that there is.
local pairs_of = {
  socketpair = function() return assert(uring.socketpair()) end;
  pipe = function()
    local reader, writer = assert(uring.pipe())
    return writer, reader
  end;
}
for name, address in pairs(addresses) do
  pairs_of[name] = function()
    local client, server, listener = connection(address_of(address))
    listener:close()
    return client, server
  end
end

describe("connections", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  for name, template in pairs(addresses) do
    describe("by " .. name, function()
      it("are made and used", function()
        local address = address_of(template)
        run(function()
          local listener <close> = assert(uring.listen(address))
          uring.spawn(function()
            local server <close> = assert(listener:accept())
            assert.are.equal("hello", server:read())
            assert.are.equal(server, server:write("you said ", "hello", "\n"))
          end)
          local client <close> = assert(uring.connect(listener:address()))
          assert.are.equal(client, client:write "hello\n")
          assert.are.equal("you said hello\n", client:read "L")
          assert.is_nil(client:read())
        end)
      end)

      it("know their addresses", function()
        local address = address_of(template)
        local client, server, listener = connection(address)
        local bound = listener:address()
        if address:find "^unix" then
          assert.are.equal(address, bound)
          assert.are.equal("", client:address())
        else
          assert.is_truthy(bound:match ":[1-9]%d*$")
          assert.are_not.equal(bound, client:address())
        end
        assert.are.equal(bound, client:peer())
        assert.are.equal(bound, server:address())
        assert.are.equal(client:address(), server:peer())
        close(client, server, listener)
      end)

      it("work outside of tasks", function()
        local client, server, listener = connection(address_of(template))
        assert.are.equal(client, client:write("one\ntwo\n"))
        assert.are.equal("one", server:read "l")
        assert.are.equal("two", server:read "l")
        server:write("three")
        close(server, listener)
        assert.are.equal("three", client:read "a")
        close(client)
      end)

      it("are served by the hundred", function()
        local count = helper.times(100)
        local address = address_of(template)
        local served = {}
        run(function()
          local listener = assert(uring.listen(address))
          local bound = listener:address()
          uring.spawn(function()
            for connected in listener:clients() do
              uring.spawn(function()
                local number = connected:read "l"
                served[#served + 1] = number
                connected:write(number, " done")
                connected:close()
              end)
            end
          end)
          local clients = {}
          for i = 1, count do
            clients[i] = uring.spawn(function()
              local client <close> = assert(uring.connect(bound))
              client:write(i, "\n")
              return client:read "a"
            end)
          end
          for i = 1, count do
            assert.are.equal(i .. " done", clients[i]:await())
          end
          assert.is_true(listener:close())
        end)
        assert.are.equal(count, #served)
      end)

      it("refused, the message names the address", function()
        local address = address_of(template)
        local listener = assert(uring.listen(address))
        local bound = listener:address()
        close(listener)
        local gone = bound:find "^unix:/" and { "No such file or directory", errno.ENOENT } -- it is removed
          or { "Connection refused", errno.ECONNREFUSED }
        assert.are.same(failure(bound .. ": " .. gone[1], gone[2]), pack(uring.connect(bound)))
      end)

      it("taken, the message names the address", function()
        local listener = assert(uring.listen(address_of(template)))
        local bound = listener:address()
        assert.are.same(failure(bound .. ": Address already in use", errno.EADDRINUSE), pack(uring.listen(bound)))
        close(listener)
      end)
    end)
  end

  it("to a unix socket that is not there fail", function()
    assert.are.same(failure("unix:/nonexistent/s: No such file or directory", errno.ENOENT),
      pack(uring.connect "unix:/nonexistent/s"))
    assert.are.same(failure("unix:/nonexistent/s: No such file or directory", errno.ENOENT),
      pack(uring.listen "unix:/nonexistent/s"))
  end)

  it("take options", function()
    local listener = assert(uring.listen { "127.0.0.1:0", backlog = 3, nodelay = true, reuseport = true })
    local twin = assert(uring.listen { listener:address(), reuseport = true })
    local client = assert(uring.connect { listener:address(), nodelay = true })
    close(client, twin, listener)
    local path = address_of "unix:"
    listener = assert(uring.listen { path, nodelay = true, backlog = 1 })
    client = assert(uring.connect { path, nodelay = true })
    close(client, listener)
  end)

  it("with unknown options or wrong types raise", function()
    local message = helper.error_of(uring.listen, { "127.0.0.1:0", baklog = 5 })
    assert.is_truthy(message:find("unknown option 'baklog' of listen (did you mean 'backlog'?)", 1, true), message)
    assert.is_truthy(message:find("backlog keepalive mode nodelay reuseport v6only", 1, true), message)
    message = helper.error_of(uring.connect, { "127.0.0.1:1", backlog = 5 })
    assert.is_truthy(message:find("unknown option 'backlog' of connect", 1, true), message)
    message = helper.error_of(uring.connect, { "127.0.0.1:1", "127.0.0.1:2" })
    assert.is_truthy(message:find("unknown option '2' of connect", 1, true), message)
    message = helper.error_of(uring.listen, { "127.0.0.1:0", backlog = "5" })
    assert.is_truthy(message:find("option 'backlog' of listen: integer expected, got string", 1, true), message)
    message = helper.error_of(uring.listen, { "127.0.0.1:0", reuseport = 1 })
    assert.is_truthy(message:find("option 'reuseport' of listen: boolean expected, got number", 1, true), message)
    message = helper.error_of(uring.listen, {})
    assert.is_truthy(message:find("bad argument #1 to 'listen' (there is no address at [1])", 1, true), message)
    for _, wrong in ipairs { 5, true, print } do
      message = helper.error_of(uring.connect, wrong)
      assert.is_truthy(message:find("bad argument #1 to 'connect' (address expected, got " .. type(wrong), 1, true))
      message = helper.error_of(uring.listen, wrong)
      assert.is_truthy(message:find("bad argument #1 to 'listen' (address expected, got " .. type(wrong), 1, true))
    end
    assert.is_truthy(helper.error_of(uring.listen):find("got nil", 1, true))
    for _, backlog in ipairs { -1, 1.5, 1 << 40 } do
      message = helper.error_of(uring.listen, { "127.0.0.1:0", backlog = backlog })
      assert.is_truthy(message:find("backlog", 1, true), message)
    end
    collectgarbage()
  end)

  it("to malformed addresses give EINVAL", function()
    for address, why in pairs {
      ["nonsense"] = "the port is missing"; [""] = "the port is missing";
      ["127.0.0.1:99999"] = "the port is not a number from 0 to 65535";
      ["1.2.3.4.5:80"] = "the host is not a numeric address"; ["[::1"] = "the bracket is not closed";
      ["[x]:1"] = "not an IPv6 address"; ["unix:"] = "the path of the unix socket is missing";
    } do
      assert.are.same(failure(address .. ": " .. why, errno.EINVAL), pack(uring.connect(address)))
      assert.are.same(failure(address .. ": " .. why, errno.EINVAL), pack(uring.listen { address }))
    end
  end)

  it("that a cancelled task was making are let go", function()
    local before = helper.testkit.fds()
    local listener = assert(uring.listen { "127.0.0.1:0", backlog = 0 })
    local waiting = {}
    run(function()
      local tasks = {}
      for i = 1, 6 do -- more than the backlog takes: some hang in connect
        tasks[i] = uring.spawn(function()
          local client = assert(uring.connect(listener:address()))
          waiting[#waiting + 1] = client
        end)
      end
      uring.sleep(0.02)
      local cancelled = 0
      for _, task in ipairs(tasks) do
        if task:status() == "waiting" then
          task:cancel()
          cancelled = cancelled + 1
        end
      end
      assert.is_true(cancelled > 0)
    end)
    local made = #waiting
    close(table.unpack(waiting))
    close(listener)
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, helper.testkit.fds())
    assert.is_true(made < 6)
  end)
end)

describe("streams", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  for kind, make in pairs(pairs_of) do
    describe("of " .. kind, function()
      it("read lines, bytes and all the rest", function()
        local w, r = make()
        w:write "first\nsecond\n\nabcdefthe rest\nof it"
        w:close()
        assert.are.equal("first", r:read())
        assert.are.equal("second\n", r:read "L")
        assert.are.equal("", r:read "l")
        assert.are.equal("", r:read(0))
        assert.are.equal("abc", r:read(3))
        assert.are.same({ n = 2, "d", "ef" }, pack(r:read(1, 2)))
        assert.are.equal("the rest\nof it", r:read "*a")
        assert.are.equal("", r:read "a")
        assert.are.same({ n = 1, nil }, pack(r:read "l"))
        assert.are.same({ n = 1, nil }, pack(r:read(5)))
        assert.are.same({ n = 1, nil }, pack(r:read(0)))
        assert.are.same({ n = 1, nil }, pack(r:read_some()))
        assert.are.same({ n = 2, "", nil }, pack(r:read("a", 1, "l")))
        r:close()
      end)

      it("move megabytes to a slow reader", function()
        local size = helper.times(20) * 100000
        local data = text(size)
        local w, r = make()
        run(function()
          uring.spawn(function()
            assert.are.equal(w, w:write(data))
            w:close()
          end)
          local parts, n = {}, 0
          while true do
            local part = r:read_some(100000)
            if not part then
              break
            end
            assert.is_true(#part >= 1 and #part <= 100000)
            n = n + 1
            parts[n] = part
            if n % 10 == 0 then
              uring.sleep(0.0005)
            end
          end
          assert.is_true(table.concat(parts) == data, "what arrived is not what was sent")
        end)
        r:close()
      end)

      it("write strings, numbers and Buffers in one go", function()
        local w, r = make()
        local buffer = uring.buffer("buffer")
        assert.are.equal(w, w:write("a", 1, 2.5, "b", -7))
        assert.are.equal(w, w:write(buffer))
        assert.are.equal(w, w:write("x", buffer, 5))
        assert.are.equal(w, w:write())
        assert.are.equal(w, w:write(""))
        assert.are.equal(w, w:write("\0", "\n"))
        w:close()
        assert.are.equal("a12.5b-7bufferxbuffer5\0\n", r:read "a")
        assert.are.equal("owned", buffer:status())
        r:close()
      end)

      it("iterate over lines", function()
        local w, r = make()
        w:write "one\ntwo\n\nlast without newline"
        w:close()
        local lines = {}
        for line in r:lines() do
          lines[#lines + 1] = line
        end
        assert.are.same({ "one", "two", "", "last without newline" }, lines)
        r:close()

        w, r = make()
        w:write "abcdefg\n"
        w:close()
        local pieces = {}
        for two, one in r:lines(2, 1) do
          pieces[#pieces + 1] = two .. "|" .. tostring(one)
        end
        assert.are.same({ "ab|c", "de|f", "g\n|nil" }, pieces)
        r:close()
      end)

      it("give what is there, with read_some and recv", function()
        local w, r = make()
        w:write "abcdef"
        assert.are.equal("ab", r:read_some(2))
        assert.are.equal("cdef", r:read_some())
        w:write "line\nmore"
        assert.are.equal("line", r:read "l")
        local buffer = uring.buffer(3)
        assert.are.equal(3, r:recv(buffer)) -- from what was read ahead
        assert.are.equal("mor", buffer:get())
        assert.are.equal("e", r:read_some())
        w:write "direct"
        assert.are.equal(3, r:recv(buffer))
        assert.are.equal("dir", buffer:get())
        assert.are.equal(3, r:recv(buffer:slice()))
        w:close()
        assert.are.equal(0, r:recv(buffer))
        assert.are.equal("ect", buffer:get())
        r:close()
      end)

      it("wait for bytes that come in pieces", function()
        local w, r = make()
        run(function()
          uring.spawn(function()
            for _, piece in ipairs { "li", "ne", "\nab", "cd", "e" } do
              w:write(piece)
              uring.sleep(0.001)
            end
            w:close()
          end)
          assert.are.equal("line", r:read())
          assert.are.equal("abcd", r:read(4))
          assert.are.equal("e", r:read(4))
          assert.is_nil(r:read(4))
        end)
        r:close()
      end)

      it("closed by another task, end its read with 'closed'", function()
        local w, r = make()
        for _, reading in ipairs {
          function(stream) return stream:read() end, function(stream) return stream:read(10) end,
          function(stream) return stream:read_some() end, function(stream) return stream:recv(uring.buffer(4)) end,
        } do
          run(function()
            local results
            local task = uring.spawn(function() results = pack(reading(r)) end)
            uring.sleep(0.002)
            assert.are.equal("waiting", task:status())
            assert.is_true(r:close())
            task:await()
            assert.are.same(failure("closed", errno.ECANCELED), results)
          end)
          w:close()
          w, r = make()
        end
        close(w, r)
      end)

      it("closed by another task, end its write with 'closed'", function()
        local w, r = make()
        run(function()
          local results
          local task = uring.spawn(function() results = pack(w:write(("x"):rep(6000000))) end)
          uring.sleep(0.01)
          assert.are.equal("waiting", task:status())
          assert.is_true(w:close())
          task:await()
          assert.are.same({ nil, "closed", errno.ECANCELED }, { results[1], results[2], results[3] })
          assert.is_true(results[4] > 0 and results[4] < 6000000)
        end)
        r:close()
      end)

      it("closed while a reader has had a part of what it wants, end its read", function()
        local w, r = make()
        run(function()
          local results
          local task = uring.spawn(function() results = pack(r:read(100)) end)
          uring.sleep(0.002)
          w:write(("x"):rep(50))
          assert.is_true(r:close())
          task:await()
          -- the end comes too early for 100 bytes: those there are, or the reason
          if results[1] then
            assert.are.same({ n = 1, ("x"):rep(50) }, results)
          else
            assert.are.same(failure("closed", errno.ECANCELED), results)
          end
        end)
        w:close()
      end)

      it("tell a writer that nobody reads any more", function()
        local w, r = make()
        r:close()
        local results
        for _ = 1, 10 do -- over TCP the reset has to arrive first
          results = pack(w:write(("x"):rep(1000)))
          if not results[1] then
            break
          end
          uring.sleep(0.001)
        end
        assert.is_nil(results[1])
        assert.is_true(results[3] == errno.EPIPE or results[3] == errno.ECONNRESET)
        assert.is_truthy(results[2]:find(results[3] == errno.EPIPE and "Broken pipe" or "Connection reset by peer", 1,
          true), results[2])
        assert.are.equal(0, results[4])
        w:close()
      end)

      it("print themselves", function()
        local w, r = make()
        assert.is_truthy(tostring(r):match("^%a+ %(.+, fd " .. r:fd() .. "%)$"), tostring(r))
        w:close()
        assert.is_truthy(tostring(w):match "^%a+ %(closed%)$")
        r:close()
      end)

      it("closed once, stay closed", function()
        local w, r = make()
        local fd = w:fd()
        assert.are.equal("integer", math.type(fd))
        assert.is_true(w:close())
        local taken = {}
        repeat -- somebody else gets the number
          taken[#taken + 1] = assert(op.openat(nil, "/dev/null"))
        until taken[#taken] == fd or #taken == 20
        assert.are.equal(fd, taken[#taken])
        assert.is_true(w:close())
        for _, other in ipairs(taken) do
          assert.are.equal(0, op.close(other)) -- it was not closed with it
        end
        r:close()
      end)

      it("raise when they are used closed", function()
        local w, r = make()
        close(w, r)
        for name, argument in pairs {
          read = "l", read_some = 1, recv = uring.buffer(1), write = "x", lines = "l", shutdown = "w", fd = false,
          peer = false, address = false, seek = "cur";
        } do
          local message = helper.error_of(function() return r[name](r, argument or nil) end)
          assert.is_truthy(message:find "attempt to use a closed %a+$", name .. ": " .. message)
        end
      end)

      it("raise from lines once they are closed", function()
        local w, r = make()
        w:write "a\nb\n"
        local message = helper.error_of(function()
          for _ in r:lines() do
            r:close()
          end
        end)
        assert.is_truthy(message:find("closed", 1, true), message)
        w:close()
      end)

      it("close at the end of a block", function()
        local w, r = make()
        do
          local _w <close> = w
          local _r <close> = r
        end
        assert.is_truthy(tostring(w):find("closed", 1, true))
        assert.is_truthy(tostring(r):find("closed", 1, true))
      end)

      it("dropped, have their descriptors closed", function()
        local before = helper.testkit.fds()
        do
          local w, r = make()
          w:write "x"
          assert.are.equal("x", r:read(1))
          assert.are.equal(before + 2, helper.testkit.fds())
        end
        collectgarbage()
        collectgarbage()
        assert.are.equal(before, helper.testkit.fds())
      end)

      it("share the bytes among several readers and lose none", function()
        local w, r = make()
        local count = helper.times(600)
        local seen, total = {}, 0
        run(function()
          for _ = 1, 3 do
            uring.spawn(function()
              for line in r:lines() do
                seen[line] = (seen[line] or 0) + 1
                total = total + 1
                if total % 7 == 0 then
                  uring.yield()
                end
              end
            end)
          end
          uring.spawn(function()
            for i = 1, count, 3 do
              w:write("line " .. i .. "\n", "line " .. i + 1 .. "\n", "line " .. i + 2 .. "\n")
              if i % 5 == 0 then
                uring.yield()
              end
            end
            w:close()
          end)
        end)
        assert.are.equal(count, total)
        for i = 1, count do
          assert.are.equal(1, seen["line " .. i], "line " .. i)
        end
        r:close()
      end)

      it("give a reader that comes second what the first has left", function()
        local w, r = make()
        local got = {}
        run(function()
          for i = 1, 2 do
            uring.spawn(function()
              local first = r:read()
            got[#got + 1] = first
              uring.sleep(0.01) -- the other gets its bytes meanwhile
              for line in r:lines() do
                got[#got + 1] = line
              end
              got[i + 100] = true
            end)
          end
          uring.sleep(0.002)
          w:write "a1\na2\na3\n"
          uring.sleep(0.002)
          w:write "b1\nb2\nb3\n"
          uring.sleep(0.03)
          w:close()
        end)
        assert.is_true(got[101] and got[102])
        got[101], got[102] = nil, nil
        table.sort(got)
        assert.are.equal("a1 a2 a3 b1 b2 b3", table.concat(got, " "))
        r:close()
      end)

      it("keep for the next what a cancelled reader had", function()
        local w, r = make()
        run(function()
          for _, want in ipairs { 10, "l", "L" } do
            local task = uring.spawn(function() r:read(want) end)
            uring.yield()
            w:write "part"
            uring.sleep(0.002)
            assert.are.equal("waiting", task:status())
            task:cancel()
            pcall(task.await, task)
            assert.are.equal("cancelled", task:status())
            w:write " two\n"
            assert.are.equal("part two", r:read "l")
          end
        end)
        close(w, r)
      end)

      it("are closed by a cancelled task that leaves their block", function()
        local w, r = make()
        run(function()
          local task = uring.spawn(function()
            local _r <close> = r
            r:read()
          end)
          uring.sleep(0.002)
          local before = helper.testkit.fds()
          task:cancel()
          pcall(task.await, task)
          assert.are.equal("cancelled", task:status())
          assert.are.equal(before - 1, helper.testkit.fds())
        end)
        w:close()
      end)

      it("hold no memory of the kernel's when idle", function()
        local w, r = make()
        w:write "x\n"
        assert.are.equal("x", r:read())
        assert.are.equal(0, uring.stats().bytes_lent)
        close(w, r)
      end)

      it("limit the length of a line", function()
        local w, r = make()
        run(function()
          uring.spawn(function()
            w:write(("x"):rep(1 << 20), "\n")
            w:write(("y"):rep(1 << 21))
            w:close()
          end)
          local results = pack(r:read "L")
          if results[1] then -- exactly the limit, with or without its newline
            assert.are.equal((1 << 20) + 1, #results[1])
            results = pack(r:read "l")
          end
          assert.is_nil(results[1])
          assert.are.equal("line is longer than 1048576 bytes", results[2])
          assert.are.equal(errno.EMSGSIZE, results[3])
          r:close()
        end)
      end)

      it("refuse bad arguments", function()
        local w, r = make()
        w:write "line\nabc"
        assert.are.equal("line", r:read()) -- there is more in hand
        for _, wrong in ipairs { 0, -1, 1.5, "x", true } do
          assert.is_truthy(helper.error_of(r.read_some, r, wrong)
            :find("bad argument #1 to 'read_some' (positive integer expected)", 1, true))
        end
        for _, wrong in ipairs { "x", "", "*", "N", true, {}, 1.5 } do
          assert.is_truthy(helper.error_of(r.read, r, wrong):find("bad argument", 1, true))
        end
        assert.is_truthy(helper.error_of(r.read, r, -1):find("bad argument", 1, true))
        for _, wrong in ipairs { true, {}, print, io.stdout } do
          assert.is_truthy(helper.error_of(w.write, w, wrong):find("bad argument", 1, true))
          assert.is_truthy(helper.error_of(w.write, w, "x", wrong):find("bad argument", 1, true))
        end
        assert.is_truthy(helper.error_of(w.write, w, nil):find("got nil", 1, true))
        for _, wrong in ipairs { "x", 5, true, {} } do
          assert.is_truthy(helper.error_of(r.recv, r, wrong):find("Buffer expected", 1, true))
        end
        local closed = uring.buffer(4)
        closed:close()
        assert.is_truthy(helper.error_of(r.recv, r, closed):find("closed buffer", 1, true))
        assert.are.equal("abc", run(function() return r:read_some(3) end)) -- none of this took anything
        close(w, r)
      end)
    end)
  end
end)

describe("sockets", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("end one direction with shutdown", function()
    for _, kind in ipairs { "socketpair", "TCP over IPv4", "TCP over IPv6", "an abstract unix socket" } do
      local a, b = pairs_of[kind]()
      assert.are.equal(a, a:write "question")
      assert.are.equal(a, a:shutdown())
      assert.are.equal("question", b:read "a")
      assert.are.equal(b, b:write "answer")
      assert.are.equal(b, b:shutdown "w")
      assert.are.equal("answer", a:read "a")
      assert.are.same({ nil, "send: Broken pipe", errno.EPIPE, 0 }, { a:write "x" })
      close(a, b)
    end
  end)

  it("shut down for reading are at their end", function()
    local a, b = uring.socketpair()
    assert.are.equal(a, a:shutdown "r")
    assert.is_nil(a:read())
    assert.are.equal(b, b:shutdown "rw")
    assert.is_truthy(helper.error_of(a.shutdown, a, "x"):find("'r', 'w' or 'rw' expected", 1, true))
    close(a, b)
    local r, w = uring.pipe()
    assert.are.same(failure("shutdown: Socket operation on non-socket", errno.ENOTSOCK), pack(r:shutdown()))
    assert.are.same(failure("getpeername: Socket operation on non-socket", errno.ENOTSOCK), pack(r:peer()))
    assert.are.same(failure("getsockname: Socket operation on non-socket", errno.ENOTSOCK), pack(r:address()))
    close(r, w)
  end)

  it("reset by the peer tell the reader", function()
    local client, server, listener = connection "127.0.0.1:0"
    core.setsockopt(server:fd(), uring.const.SOL_SOCKET, uring.const.SO_RCVBUF, 4096)
    client:write "never read"
    uring.sleep(0.002)
    server:close() -- with bytes unread: a reset
    uring.sleep(0.002)
    assert.are.same(failure("recv: Connection reset by peer", errno.ECONNRESET), pack(client:read()))
    close(client, listener)
  end)

  it("are read and written at the same time", function()
    local a, b = uring.socketpair()
    local data = text(helper.times(10) * 100000)
    run(function()
      local tasks = {}
      for _, ends in ipairs { { a, b }, { b, a } } do
        uring.spawn(function()
          assert.are.equal(ends[1], ends[1]:write(data))
          ends[1]:shutdown "w"
        end)
        tasks[#tasks + 1] = uring.spawn(function() return ends[2]:read "a" == data end)
      end
      assert.are.same({ true, true }, { uring.await(tasks[1], tasks[2]) })
    end)
    close(a, b)
  end)
end)

describe("listeners", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("closed by another task, end its accept with 'closed'", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local results
      local task = uring.spawn(function() results = pack(listener:accept()) end)
      uring.sleep(0.002)
      assert.are.equal("waiting", task:status())
      assert.is_true(listener:close())
      task:await()
      assert.are.same(failure("closed", errno.ECANCELED), results)
    end)
  end)

  it("closed by another task, end the loop over clients", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local count = 0
      local task = uring.spawn(function()
        for client in listener:clients() do
          count = count + 1
          client:close()
        end
        return "ended"
      end)
      for _ = 1, 3 do
        uring.connect(listener:address()):close()
      end
      uring.sleep(0.005)
      assert.are.equal(3, count)
      listener:close()
      assert.are.equal("ended", task:await())
    end)
  end)

  it("closed within it, end the loop over clients", function()
    local listener = assert(uring.listen "127.0.0.1:0")
    local client = assert(uring.connect(listener:address()))
    local count = 0
    for accepted in listener:clients() do
      count = count + 1
      accepted:close()
      listener:close()
    end
    assert.are.equal(1, count)
    client:close()
  end)

  it("are shared by several that accept", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local got = {}
      for i = 1, 3 do
        uring.spawn(function()
          got[i] = assert(listener:accept())
        end)
      end
      local clients = {}
      for i = 1, 3 do
        clients[i] = assert(uring.connect(listener:address()))
      end
      uring.sleep(0.005)
      assert.are.equal(3, #got)
      close(table.unpack(got))
      close(table.unpack(clients))
      close(listener)
    end)
  end)

  it("closed, are closed", function()
    local listener = assert(uring.listen "127.0.0.1:0")
    assert.is_truthy(tostring(listener):match("^listener %(127%.0%.0%.1:0, fd " .. listener:fd() .. "%)$"))
    assert.is_true(listener:close())
    assert.is_true(listener:close())
    assert.are.equal("listener (closed)", tostring(listener))
    for _, name in ipairs { "accept", "clients", "address", "fd" } do
      assert.is_truthy(helper.error_of(listener[name], listener):find("attempt to use a closed listener", 1, true))
    end
  end)

  it("dropped, have their descriptor closed", function()
    local before = helper.testkit.fds()
    assert(uring.listen "127.0.0.1:0")
    assert.are.equal(before + 1, helper.testkit.fds())
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, helper.testkit.fds())
  end)

  it("that a cancelled task closes by leaving the block are closed", function()
    run(function()
      local address
      local task = uring.spawn(function()
        local listener <close> = assert(uring.listen "127.0.0.1:0")
        address = listener:address()
        listener:accept()
      end)
      for _ = 1, 1000 do
        if address then break end
        uring.sleep(0.001)
      end
      task:cancel()
      pcall(task.await, task)
      assert.are.equal("cancelled", task:status())
      assert.are.same(failure(address .. ": Connection refused", errno.ECONNREFUSED), pack(uring.connect(address)))
    end)
  end)
end)

describe("what a stream has in hand", function()
  helper.watch(before_each, after_each)

  it("is not lost to a Buffer that cannot take it", function()
    local r, w = uring.pipe()
    local source <close> = uring.pipe()
    w:write "line\nthe rest"
    assert.are.equal("line", r:read())
    local closed, lent = uring.buffer(8), uring.buffer(8)
    closed:close()
    assert.is_truthy(helper.error_of(r.recv, r, closed):find("closed buffer", 1, true))
    do
      local _op <close> = uring.prepare("read", source:fd(), lent)
      assert.is_truthy(helper.error_of(r.recv, r, lent):find("lent to the kernel", 1, true))
    end
    assert.are.equal(3, r:recv(lent:slice(1, 3)))
    assert.are.equal("the", lent:get(1, 3))
    w:close()
    assert.are.equal(" rest", r:read "a")
    r:close()
  end)
end)

describe("a pipe nobody reads", function()
  it("does not end the process by a signal", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local r, w = uring.pipe()
      r:close()
      print(w:write "x")
      local a, b = uring.socketpair()
      b:close()
      print(a:write "x")
    ]]
    assert.are.equal("nil\twrite: Broken pipe\t32\t0\nnil\tsend: Broken pipe\t32\t0\n", output)
    assert.are.equal(0, status)
  end)
end)
