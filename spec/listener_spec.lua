-- Listeners: options, unix sockets, accepting on and on, serving, shutting down.

local helper = require "spec.support.helper"
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
  local results = pack(uring.timeout(helper.slow and 60 or 10, function()
    fn()
    return "ended"
  end))
  assert.are.equal("ended", results[1], "it hangs")
end

local function close(list)
  for _, x in ipairs(list) do
    assert.is_true(x:close())
  end
end

-- A path that nothing is at; removed afterwards.
local function fresh_path()
  local path = helper.tmpname()
  os.remove(path)
  return path
end

local function exists(path)
  local file = op.statx(nil, path, uring.const.AT_SYMLINK_NOFOLLOW)
  return file ~= nil
end

local function connect(listener)
  return assert(uring.connect(listener:address()))
end

-- Closes with a reset.
local function reset(stream)
  assert.are.equal(stream, stream:sockopt("linger", 0))
  assert.is_true(stream:close())
end

describe("listen", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("takes names, and * for all of IPv4", function()
    for address, pattern in pairs {
      ["localhost:0"] = "^127%.0%.0%.1:%d+$"; ["*:0"] = "^0%.0%.0%.0:%d+$"; ["[::]:0"] = "^%[::%]:%d+$";
    } do
      local listener <close> = assert(uring.listen(address))
      assert.matches(pattern, listener:address())
    end
    local results = pack(uring.listen "127.0.0.1:no-such-service")
    assert.are.same(failure("127.0.0.1:no-such-service: Service not known", errno.ENOENT), results)
  end)

  it("hears IPv4 on [::], unless it is v6only", function()
    run(function()
      for v6only, heard in pairs { [false] = true, [true] = false } do
        local listener <close> = assert(uring.listen { "[::]:0", v6only = v6only })
        assert.are.equal(v6only, listener:sockopt "v6only")
        local client <close> = uring.connect("127.0.0.1:" .. listener:address():match ":(%d+)$")
        assert.are.equal(heard, client ~= nil)
      end
    end)
  end)

  it("hands its options on to connections", function()
    run(function()
      local listener <close> = assert(uring.listen { "127.0.0.1:0", nodelay = true, keepalive = { idle = 9 } })
      local client <close> = connect(listener)
      local server <close> = assert(listener:accept())
      assert.is_true(server:nodelay())
      assert.is_true(server:keepalive())
      assert.are.equal(9, server:sockopt "keepidle")
      assert.are.equal(client:address(), server:peer())
    end)
  end)

  it("refuses options that are wrong", function()
    for given, why in pairs {
      [{ "127.0.0.1:0", backlog = -1 }] = "option 'backlog' of listen is negative";
      [{ "127.0.0.1:0", v6only = 1 }] = "option 'v6only' of listen: boolean expected, got number";
      [{ "127.0.0.1:0", mode = "rw" }] = "option 'mode' of listen: integer expected, got string";
    } do
      assert.is_truthy(helper.error_of(uring.listen, given):find(why, 1, true))
    end
  end)

  it("removes the file of a unix socket when it is closed", function()
    local path = fresh_path()
    local listener = assert(uring.listen("unix:" .. path))
    assert.is_true(exists(path))
    close { listener }
    assert.is_false(exists(path))
    assert.is_true(listener:close())
  end)

  it("leaves a file alone that is not its own any more", function()
    local path = fresh_path()
    local listener = assert(uring.listen("unix:" .. path))
    os.remove(path)
    local other = assert(uring.listen("unix:" .. path))
    close { listener }
    assert.is_true(exists(path))
    assert.is_true(assert(uring.connect("unix:" .. path)):close())
    close { other }
    assert.is_false(exists(path))
  end)

  it("replaces a socket that nobody listens at any more", function()
    local path = fresh_path()
    local fd = op.socket(uring.const.AF_UNIX, uring.const.SOCK_STREAM)
    assert.are.equal(0, op.bind(fd, "unix:" .. path))
    assert.are.equal(0, op.listen(fd, 1))
    assert.are.same(failure("unix:" .. path .. ": Address already in use", errno.EADDRINUSE),
      pack(uring.listen("unix:" .. path)))
    op.close(fd)
    assert.is_true(exists(path)) -- it is left over
    local listener = assert(uring.listen("unix:" .. path))
    local client = connect(listener)
    close { client, listener }
    assert.is_false(exists(path))
  end)

  it("does not replace what somebody listens at, or is no socket", function()
    local path = fresh_path()
    local listener = assert(uring.listen { "unix:" .. path, backlog = 0 })
    local in_use = failure("unix:" .. path .. ": Address already in use", errno.EADDRINUSE)
    for _ = 1, 4 do -- its backlog is full, too, then
      assert.are.same(in_use, pack(uring.listen("unix:" .. path)))
    end
    close { listener }
    local file = helper.tmpname "precious"
    assert.are.same(failure("unix:" .. file .. ": Address already in use", errno.EADDRINUSE),
      pack(uring.listen("unix:" .. file)))
    assert.are.equal("precious", io.open(file):read "a")
  end)

  it("sets the mode of a unix socket's file", function()
    local path = fresh_path()
    for _, mode in ipairs { 384, 511 } do -- 0600, 0777
      local listener = assert(uring.listen { "unix:" .. path, mode = mode })
      local _, st = op.statx(nil, path, 0)
      assert.are.equal(mode, st.mode & 511)
      close { listener }
    end
  end)

  it("leaves nothing behind where it fails", function()
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    for _ = 1, 3 do
      assert.is_nil((uring.listen(listener:address())))
    end
    assert.are.same(failure("192.0.2.1:0: Cannot assign requested address", errno.EADDRNOTAVAIL),
      pack(uring.listen "192.0.2.1:0"))
  end)
end)

describe("clients", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("come in the order in which they connected, with one operation", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local clients = {}
      for i = 1, 20 do
        clients[i] = connect(listener)
      end
      local i = 0
      for server in listener:clients() do
        i = i + 1
        assert.are.equal(clients[i]:address(), server:peer())
        server:close()
        if i == 20 then
          break
        end
      end
      close(clients)
    end)
  end)

  it("that the kernel has accepted are not lost by leaving the loop", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local clients, servers = {}, {}
      for i = 1, 9 do
        clients[i] = connect(listener)
      end
      for _ = 1, 2 do -- one loop, and another after it
        servers[#servers + 1] = listener:clients()()
      end
      uring.sleep(0.01)
      for _ = 1, 3 do -- and accept
        servers[#servers + 1] = assert(listener:accept())
      end
      for server in listener:clients() do
        servers[#servers + 1] = server
        if #servers == 9 then
          break
        end
      end
      for i = 1, 9 do
        assert.are.equal(clients[i]:address(), servers[i]:peer())
      end
      close(clients)
      close(servers)
    end)
  end)

  it("that nobody was given are closed with the listener", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local clients = {}
      for i = 1, 5 do
        clients[i] = connect(listener)
      end
      listener:clients()():close()
      uring.sleep(0.01)
      listener:close()
      for i = 1, 5 do
        local line, message = clients[i]:read()
        assert.is_nil(line)
        assert.is_true(message == nil or message:find "reset" ~= nil, message)
      end
      close(clients)
    end)
  end)

  it("end for everybody who waits for one", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local ended = 0
      for i = 1, 4 do
        uring.spawn(function()
          if i % 2 == 0 then
            for server in listener:clients() do
              server:close()
            end
          else
            assert.are.same(failure("closed", errno.ECANCELED), pack(listener:accept()))
          end
          ended = ended + 1
        end)
      end
      uring.sleep(0.01)
      assert.are.equal(0, ended)
      assert.is_true(listener:close())
      uring.sleep(0.01)
      assert.are.equal(4, ended)
    end)
  end)

  it("are handed to whoever waits, when another who waits is cancelled", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      local got = {}
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = uring.spawn(function()
          for server in listener:clients() do
            got[#got + 1] = server
          end
        end)
      end
      uring.sleep(0.005)
      tasks[1]:cancel()
      tasks[2]:cancel()
      local clients = {}
      for i = 1, 6 do
        clients[i] = connect(listener)
      end
      helper.eventually(function() return #got == 6 end)
      tasks[3]:cancel()
      close(clients)
      close(got)
    end)
  end)

  it("collected with their listener, which nobody has closed", function()
    local clients = {}
    do
      local listener = assert(uring.listen "127.0.0.1:0")
      for i = 1, 3 do
        clients[i] = connect(listener)
      end
      listener:clients()():close()
    end
    helper.collect()
    uring.sleep(0.01)
    close(clients)
  end)

  it("that reset their connection before they are accepted do no harm", function()
    run(function()
      local listener <close> = assert(uring.listen "127.0.0.1:0")
      for _ = 1, 5 do
        reset(connect(listener))
      end
      local client <close> = connect(listener)
      for server in listener:clients() do
        local same = server:peer() == client:address()
        server:close()
        if same then
          break
        end
      end
    end)
  end)
end)

describe("serve", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local function echo(stream)
    for line in stream:lines() do
      stream:write(line, "\n")
    end
  end

  it("runs a task for every connection, and closes it", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local streams = {}
      local serving = uring.spawn(listener.serve, listener, function(stream)
        streams[#streams + 1] = stream
        assert.are.equal(("socket (%s, fd %d)"):format(listener:address(), stream:fd()), tostring(stream))
        echo(stream)
      end)
      local clients = {}
      for i = 1, 10 do
        clients[i] = connect(listener)
      end
      for i = 10, 1, -1 do
        clients[i]:write(i, "\n")
        assert.are.equal(tostring(i), clients[i]:read())
      end
      close(clients)
      listener:close()
      assert.is_true((serving:await()))
      assert.are.equal(10, #streams)
      for _, stream in ipairs(streams) do
        assert.matches("closed", tostring(stream))
      end
    end)
  end)

  it("takes a thousand connections", function()
    local many = helper.slow and 200 or 1000
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local at_once, most = 0, 0
      local serving = uring.spawn(function()
        return listener:serve(function(stream)
          at_once = at_once + 1
          most = math.max(most, at_once)
          echo(stream)
          at_once = at_once - 1
        end)
      end)
      local clients = {}
      uring.map({ n = many }, function(_, i)
        clients[i] = connect(listener)
        clients[i]:write(i, "\n")
        assert.are.equal(tostring(i), clients[i]:read())
      end, { limit = 64 })
      assert.are.equal(many, most)
      close(clients)
      assert.are.equal(0, listener:shutdown(5))
      assert.is_true((serving:await()))
      assert.are.equal(0, at_once)
    end)
  end)

  it("costs at most 2 KB for a connection that is silent, its task included", function()
    if helper.slow then
      return pending "checking costs memory of its own"
    end
    local FIRST, ALL = 1000, 4000
    local path = helper.tmpname [[
      local uring = require "uring"
      require "testkit".limit_fds(1 << 20)
      uring.run(function()
        local listener = assert(uring.listen { "127.0.0.1:0", backlog = 4096 })
        print(listener:address())
        io.stdout:flush()
        listener:serve(function(stream)
          local text = stream:read_some()
          while text do
            stream:write(text)
            text = stream:read_some()
          end
        end)
      end)
    ]]
    helper.testkit.limit_fds(1 << 20)
    if (tonumber(io.popen "ulimit -n":read "l") or math.huge) < ALL + 50 then
      return pending "too few descriptors are allowed"
    end
    run(function()
      local server <close> = assert(uring.process.spawn { "lua5.4", path, stdout = "pipe", grace = 0 })
      local address, clients = server.stdout:read(), {}
      local function up_to(n) -- and each has been served once
        for i = #clients + 1, n do
          clients[i] = assert(uring.connect(address))
          clients[i]:write(i, "\n")
          assert.are.equal(tostring(i), clients[i]:read())
        end
        return helper.resident(server:pid())
      end
      local before = up_to(FIRST)
      local each = (up_to(ALL) - before) / (ALL - FIRST)
      assert.is_true(each <= 2048, each .. " bytes")
      assert.is_true(each >= 1000, each .. " bytes")
      server:kill()
      close(clients)
    end)
  end)

  it("contains the failure of a connection, and that of tasks it has spawned", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local told = {}
      local serving = uring.spawn(function()
        return listener:serve(function(stream)
          local what = stream:read()
          if what == "raise" then
            error("on purpose", 0)
          elseif what == "table" then
            error { code = 7 }
          elseif what == "spawn" then
            uring.spawn(error, "of a child", 0)
          end
          stream:write(what, "\n")
          stream:read()
        end, { on_error = function(err, traceback)
          told[#told + 1] = { err, traceback }
        end })
      end)
      local bystander <close> = connect(listener)
      bystander:write "stay\n"
      assert.are.equal("stay", bystander:read())
      for _, what in ipairs { "raise", "table", "spawn" } do
        local client <close> = connect(listener)
        client:write(what, "\n")
        assert.are.equal(what == "spawn" and "spawn" or nil, client:read())
        client:write "bye\n"
      end
      bystander:write "bye\n"
      assert.is_nil(bystander:read())
      assert.are.equal(0, listener:shutdown(5))
      serving:await()
      assert.are.equal("on purpose", told[1][1])
      assert.matches("listener_spec", told[1][2])
      assert.are.same({ code = 7 }, told[2][1])
      assert.are.equal("of a child", told[3][1])
      assert.are.equal(3, #told)
    end)
  end)

  it("survives an on_error that fails", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local serving = uring.spawn(listener.serve, listener, error, { on_error = error })
      for _ = 1, 3 do
        local client <close> = connect(listener)
        assert.is_nil(client:read())
      end
      assert.are.equal(0, listener:shutdown())
      assert.is_true((serving:await()))
    end)
  end)

  it("tells standard error, where nobody else wants to know", function()
    local output = helper.script [[
      local uring = require "uring"
      uring.run(function()
        local listener = uring.listen "127.0.0.1:0"
        uring.spawn(listener.serve, listener, function() error "bang" end)
        local client <close> = uring.connect(listener:address())
        client:read()
        listener:close()
      end)
    ]]
    assert.matches("uring: error in a connection: .*bang", output)
    assert.matches("stack traceback", output)
  end)

  it("has at most `max` connections at a time, and all in the end", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local at_once, most, served = 0, 0, 0
      local serving = uring.spawn(function()
        return listener:serve(function(stream)
          at_once = at_once + 1
          most = math.max(most, at_once)
          stream:read()
          uring.sleep(0.002)
          served = served + 1
          at_once = at_once - 1
        end, { max = 3 })
      end)
      local clients = {}
      for i = 1, 12 do
        clients[i] = connect(listener)
      end
      helper.eventually(function() return at_once == 3 end)
      uring.sleep(0.02)
      for i = 1, 12 do
        clients[i]:write "go\n"
      end
      helper.eventually(function() return served == 12 end)
      assert.are.equal(3, most)
      -- closed while it waits for room
      close(clients)
      clients = {}
      for i = 1, 4 do
        clients[i] = connect(listener)
      end
      helper.eventually(function() return at_once == 3 end)
      listener:close()
      close(clients)
      assert.is_true((serving:await()))
    end)
  end)

  it("is over for peers that vanish, and resets", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local ends = {}
      local serving = uring.spawn(function()
        return listener:serve(function(stream)
          local line, message = stream:read()
          ends[#ends + 1] = { line, message }
        end)
      end)
      local clients = {}
      for i = 1, 6 do
        clients[i] = connect(listener)
      end
      uring.sleep(0.01)
      for i = 1, 6 do
        if i % 2 == 0 then
          reset(clients[i])
        else
          clients[i]:close()
        end
      end
      helper.eventually(function() return #ends == 6 end)
      for _, one in ipairs(ends) do
        assert.is_nil(one[1])
        assert.is_true(one[2] == nil or one[2] == "recv: Connection reset by peer", one[2])
      end
      assert.are.equal(0, listener:shutdown(1))
      assert.is_true((serving:await()))
    end)
  end)

  it("cancelled, cancels its connections and closes them", function()
    run(function()
      for steps = 0, 12 do
        local listener <close> = assert(uring.listen "127.0.0.1:0")
        local clients = {}
        for i = 1, 3 do
          clients[i] = connect(listener)
        end
        local serving = uring.spawn(listener.serve, listener, function(stream) stream:read() end)
        for _ = 1, steps do
          uring.yield()
        end
        serving:cancel()
        local ok, err = pcall(serving.await, serving)
        assert.is_false(ok)
        assert.are.equal(uring.cancelled, err)
        listener:close()
        for _, client in ipairs(clients) do
          local line = client:read()
          assert.is_nil(line)
        end
        close(clients)
      end
    end)
  end)

  it("works outside of tasks", function()
    local listener = assert(uring.listen "127.0.0.1:0")
    local address = listener:address()
    uring.spawn(function()
      local client <close> = assert(uring.connect(address))
      client:write "hello\n"
      assert.are.equal("hello", client:read())
      listener:close()
    end)
    assert.is_true((listener:serve(echo)))
  end)

  it("raises on what is wrong", function()
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    for _, case in ipairs {
      { {}, "#1 to 'serve' (function expected, got nil)" };
      { { print, 5 }, "#2 to 'serve' (table expected, got number)" };
      { { print, { maks = 5 } }, "unknown option 'maks' of serve (did you mean 'max'?)" };
      { { print, { max = 0 } }, "option 'max' of serve is 0, not 1 or more" };
      { { print, { max = 1.5 } }, "option 'max' of serve: integer expected" };
      { { print, { on_error = 5 } }, "option 'on_error' of serve: function expected" };
    } do
      local message = helper.error_of(listener.serve, listener, table.unpack(case[1], 1, 2))
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
    assert.matches("seconds expected", helper.error_of(listener.shutdown, listener, -1))
    assert.matches("seconds expected", helper.error_of(listener.shutdown, listener, "1"))
    listener:close()
    assert.matches("closed listener", helper.error_of(listener.serve, listener, print))
    assert.matches("closed listener", helper.error_of(listener.clients, listener))
    assert.matches("closed listener", helper.error_of(listener.sockopt, listener, "rcvbuf"))
  end)

  it("waits when descriptors are used up, says so once, and goes on when there are some", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      for _, max in ipairs { 0, 100 } do
        uring.run(function()
          local listener = assert(uring.listen "127.0.0.1:0")
          local told, served = {}, 0
          local serving = uring.spawn(function()
            return listener:serve(function(stream)
              served = served + 1
              stream:read()
            end, { max = max > 0 and max or nil, on_error = function(err) told[#told + 1] = err end })
          end)
          testkit.spare_fds(17) -- eight pairs, and a client
          local clients = {}
          for i = 1, 8 do
            clients[i] = assert(uring.connect(listener:address()))
            while served < i do uring.sleep(0.001) end
          end
          clients[9] = assert(uring.connect(listener:address()))
          uring.sleep(0.05)
          assert(served == 8, served)
          assert(#told == 1 and told[1]:find "Too many open files", told[1])
          clients[1]:close() -- and the server closes its end: it goes on without waiting for the pause to end
          local began = uring.now()
          while served < 9 do uring.sleep(0.001) end
          assert(uring.now() - began < 0.5)
          clients[10] = assert(uring.connect(listener:address()))
          uring.sleep(0.05)
          assert(served == 9, served)
          assert(#told == 2, #told)
          testkit.limit_fds(4096) -- nobody has closed anything: the pause ends
          while served < 10 do uring.sleep(0.001) end
          for i = 2, 10 do clients[i]:close() end
          assert(listener:shutdown(5) == 0)
          assert(serving:await() == true)
        end)
      end
      print "done"
    ]]
    assert.are.equal("done\n", output)
    assert.are.equal(0, status)
  end)
end)

describe("shutdown", function()
  helper.watch(before_each, after_each)

  it("lets connections end by themselves", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local address = listener:address()
      local serving = uring.spawn(listener.serve, listener, function(stream)
        stream:write(stream:read(), "\n")
      end)
      local client <close> = connect(listener)
      uring.sleep(0.01)
      local down = uring.spawn(listener.shutdown, listener, 5)
      uring.sleep(0.01)
      assert.are.equal("waiting", down:status())
      assert.are.equal(errno.ECONNREFUSED, (select(3, uring.connect(address))))
      client:write "still here\n"
      assert.are.equal("still here", client:read())
      assert.are.equal(0, (down:await()))
      assert.is_true((serving:await()))
    end)
  end)

  it("cancels those that are left at the deadline, and tells how many", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local unwound = 0
      local serving = uring.spawn(listener.serve, listener, function(stream)
        local _ <close> = setmetatable({}, { __close = function() unwound = unwound + 1 end })
        if stream:read() == "stay" then
          stream:read()
        end
      end)
      local clients = {}
      for i = 1, 6 do
        clients[i] = connect(listener)
        clients[i]:write(i <= 4 and "stay\n" or "go\n")
      end
      uring.sleep(0.01)
      local began = uring.now()
      assert.are.equal(4, listener:shutdown(0.05))
      local took = uring.now() - began
      assert.is_true(took >= 0.05 and took < 2, took)
      assert.are.equal(6, unwound)
      assert.is_true((serving:await()))
      for i = 1, 6 do
        assert.is_nil((clients[i]:read()))
      end
      close(clients)
      assert.are.equal(0, listener:shutdown(1)) -- again
    end)
  end)

  it("at once, also of those that have not begun", function()
    run(function()
      for steps = 1, 6 do
        local listener = assert(uring.listen "127.0.0.1:0")
        local clients = {}
        for i = 1, 3 do
          clients[i] = connect(listener)
        end
        local serving = uring.spawn(listener.serve, listener, function(stream) stream:read() end)
        for _ = 1, steps do
          uring.yield()
        end
        local count = listener:shutdown(0)
        assert.is_true(count >= 0 and count <= 3)
        if serving:status() ~= "returned" then
          pcall(serving.await, serving)
        end
        close(clients)
      end
    end)
  end)

  it("at once, while another task closes the listener, lets serve return", function()
    run(function()
      for _, max in ipairs { false, 1 } do
        for turns = 0, 3 do
          local listener = assert(uring.listen "127.0.0.1:0")
          local serving = uring.spawn(listener.serve, listener, function() end, { max = max or nil })
          uring.sleep(0.002)
          local closing = uring.spawn(listener.close, listener)
          for _ = 1, turns do
            uring.yield()
          end
          assert.are.equal(0, listener:shutdown(0))
          assert.are.same({ n = 1, true }, pack(serving:await()))
          assert.is_true(closing:await())
        end
      end
    end)
  end)

  it("waits for every call of serve, without a deadline too", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local serving = {}
      for i = 1, 2 do
        serving[i] = uring.spawn(listener.serve, listener, function(stream) stream:read() end)
      end
      local clients = {}
      for i = 1, 4 do
        clients[i] = connect(listener)
      end
      uring.sleep(0.01)
      local down = uring.spawn(listener.shutdown, listener)
      uring.sleep(0.02)
      assert.are.equal("waiting", down:status())
      close(clients)
      assert.are.equal(0, (down:await()))
      assert.is_true((serving[1]:await()))
      assert.is_true((serving[2]:await()))
    end)
  end)

  it("closes from inside a handler, which goes on", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local serving = uring.spawn(listener.serve, listener, function(stream)
        stream:read()
        listener:close()
        stream:write "closed\n"
      end)
      local client <close> = connect(listener)
      client:write "please\n"
      assert.are.equal("closed", client:read())
      assert.is_true((serving:await()))
    end)
  end)
end)

