-- Descriptors through unix sockets.

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

local function close(...)
  for _, x in ipairs { ... } do
    assert.is_true(x:close())
  end
end

local function close_on_exec(fd)
  for line in io.lines("/proc/self/fdinfo/" .. fd) do
    local flags = line:match "^flags:%s*(%d+)"
    if flags then
      return tonumber(flags, 8) & uring.const.O_CLOEXEC ~= 0
    end
  end
end

describe("descriptors through a unix socket", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("arrive as what they are", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      local path = helper.tmpname "the text of a file\n"
      local file = assert(uring.open(path))
      local listener = assert(uring.listen "127.0.0.1:0")
      local client = assert(uring.connect(listener:address()))
      assert.are.equal(a, a:send_fds("five of them", { r, w, file, listener, client }))
      local data, list, cut = b:recv_fds()
      assert.are.equal("five of them", data)
      assert.are.equal(5, #list)
      assert.is_false(cut)
      close(r, w, file, listener, client) -- the others are open all the same
      list[2]:write "through the pipe\n"
      assert.are.equal("through the pipe", list[1]:read())
      assert.are.equal("the text of a file", list[3]:read())
      assert.are.equal(list[5]:peer(), list[4]:address())
      local server = assert(list[4]:accept())
      server:write "accepted\n"
      assert.are.equal("accepted", list[5]:read())
      for _, x in ipairs(list) do
        assert.is_true(close_on_exec(x:fd()))
      end
      close(server, a, b, table.unpack(list))
    end)
  end)

  it("may be numbers, and the same one twice", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      assert.are.equal(a, a:send_fds("x", { w:fd(), w:fd() }))
      local _, list = b:recv_fds(2)
      assert.are_not.equal(list[1]:fd(), list[2]:fd())
      list[1]:write "1"
      list[2]:write "2\n"
      assert.are.equal("12", r:read())
      close(a, b, r, w, list[1], list[2])
    end)
  end)

  it("are told of where there are more than were asked for, and the rest closed", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      for most = 1, 4 do
        a:send_fds("x", { r, w, r })
        local data, list, cut = b:recv_fds(most)
        assert.are.equal("x", data)
        assert.are.equal(math.min(most, 3), #list)
        assert.are.equal(most < 3, cut)
        close(table.unpack(list))
      end
      close(a, b, r, w)
    end)
  end)

  it("come with the data that they were sent with", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      a:write "before"
      a:send_fds("one", { r })
      a:send_fds("two", { w })
      a:write "after"
      local seen = ""
      local counts = {}
      while seen ~= "beforeonetwoafter" do
        local data, list = b:recv_fds()
        seen = seen .. data
        counts[#counts + 1] = data .. "=" .. #list
        close(table.unpack(list))
      end
      local all = table.concat(counts, " ")
      assert.matches("one=1", all, 1, true)
      assert.matches("two=1", all, 1, true)
      assert.matches("after=0", all, 1, true)
      close(a)
      assert.are.same({ n = 1, nil }, pack(b:recv_fds()))
      close(b, r, w)
    end)
  end)

  it("wait for each other: sender for room, receiver for data", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      local total, got = 60, 0
      local sender = uring.spawn(function()
        for i = 1, total do
          assert(a:send_fds(("%06d"):format(i) .. ("z"):rep(20000), { i % 2 == 0 and r or w }))
        end
      end)
      uring.sleep(0.01)
      assert.are.equal("waiting", sender:status())
      local bytes = 0
      while bytes < total * 20006 do
        local data, list = b:recv_fds(4)
        bytes = bytes + #data
        got = got + #list
        close(table.unpack(list))
      end
      assert.are.equal(total, got)
      sender:await()
      close(a, b, r, w)
    end)
  end)

  it("sends all of the data that goes with them", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local data = ("0123456789"):rep(100000)
      local sender = uring.spawn(function() return a:send_fds(data, { a }) end)
      local first, list = b:recv_fds()
      assert.are.equal(1, #list)
      assert.is_true(first .. b:read(#data - #first) == data)
      assert.are.equal(a, (sender:await()))
      close(a, b, list[1])
    end)
  end)

  it("and their data are not torn by what others write, nor tear it", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local parts, size = {}, 0
      for i = 1, 12 do -- each is more than a socket takes at once
        local letter = string.char(96 + i)
        local data = letter:rep(250000 + i)
        size = size + #data
        uring.spawn(function()
          if i % 3 == 0 then return assert(a:write(data)) end
          return assert(a:send_fds(data, { a }))
        end)
      end
      local count = 0
      while size > 0 do
        local data, list = assert(b:recv_fds())
        parts[#parts + 1] = data
        size = size - #data
        count = count + #list
        close(table.unpack(list))
      end
      assert.are.equal(8, count)
      local all, order = table.concat(parts), {}
      for i = 1, 12 do
        local letter = string.char(96 + i)
        local first, last = all:find(letter .. "+")
        assert.are.equal(250000 + i, last - first + 1)
        order[i] = first
      end
      for i = 2, 12 do assert.is_true(order[i - 1] < order[i]) end
      close(a, b)
    end)
  end)

  it("are what they were when the call was made", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      local data = ("z"):rep(1000000)
      local writer = uring.spawn(a.write, a, data)
      local sender = uring.spawn(a.send_fds, a, "x", { r })
      local buffered = uring.spawn(function()
        uring.yield()
        r:close()
        return assert(w:write "of the pipe")
      end)
      assert.are.equal(#data, #b:read(#data))
      local got, list = b:recv_fds()
      assert.are.same({ "x", 1 }, { got, #list })
      assert(writer:await() and sender:await() and buffered:await())
      assert.are.equal("of the pipe", list[1]:read(11))
      close(a, b, w, list[1])
    end)
  end)

  it("are not left where they could not be sent", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      local writer = uring.spawn(function() pcall(a.write, a, ("z"):rep(1000000)) end)
      local late = uring.spawn(uring.timeout, 0.002, a.send_fds, a, "x", { r })
      local cancelled = uring.spawn(a.send_fds, a, "x", { r })
      local closed = uring.spawn(a.send_fds, a, "x", { w })
      uring.sleep(0.01)
      assert.are.same({ nil, "timeout", n = 3, [3] = errno.ETIMEDOUT }, pack(late:await()))
      cancelled:cancel()
      assert.are.same({ false, uring.cancelled, n = 2 }, pack(pcall(cancelled.await, cancelled)))
      a:close()
      assert.are.same(failure("closed", errno.ECANCELED), pack(closed:await()))
      writer:await()
      close(b, r)
      assert.is_nil((w:write "x")) -- nobody has the other end
      close(w)
    end)
  end)

  it("are nobody's who was cancelled", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      for steps = 0, 6 do
        local got
        local task = uring.spawn(function() got = pack(b:recv_fds()) end)
        for _ = 1, steps do
          uring.yield()
        end
        a:send_fds("x", { r, w })
        task:cancel()
        pcall(task.await, task)
        got = got or pack(b:recv_fds())
        assert.are.equal("x", got[1])
        assert.are.equal(2, #got[2])
        close(table.unpack(got[2]))
      end
      -- sent, and received by nobody
      a:send_fds("x", { r, w })
      close(a, b, r, w)
    end)
  end)

  it("that were received and dropped are closed by the collector", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local r, w = assert(uring.pipe())
      for _ = 1, 3 do
        a:send_fds("x", { r, w })
        b:recv_fds()
      end
      close(a, b, r, w)
    end)
    helper.collect()
  end)

  it("end with the stream that they are waited for on", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local results
      local task = uring.spawn(function() results = pack(b:recv_fds()) end)
      uring.sleep(0.005)
      b:close()
      task:await()
      assert.are.same(failure("closed", errno.ECANCELED), results)
      assert.are.same(failure("sendmsg: Broken pipe", errno.EPIPE), pack(a:send_fds("x", { a })))
      close(a)
    end)
  end)

  it("are waited for as long as the stream's timeout says", function()
    run(function()
      local a, b = assert(uring.socketpair())
      assert.are.equal(b, b:timeout(0.02))
      assert.are.same(failure("timeout", errno.ETIMEDOUT), pack(b:recv_fds()))
      a:send_fds("x", { a })
      local data, list = b:recv_fds()
      assert.are.equal("x", data)
      close(a, b, list[1])
    end)
  end)

  it("are received in turn, where several wait", function()
    run(function()
      local a, b = assert(uring.socketpair())
      local order = {}
      for i = 1, 3 do
        uring.spawn(function()
          local data, list = b:recv_fds(4, 1)
          order[#order + 1] = data
          assert.are.equal(i, i + #list - 1)
          close(table.unpack(list))
        end)
      end
      uring.sleep(0.005)
      for i = 1, 3 do
        a:send_fds(tostring(i), { a })
        uring.sleep(0.002)
      end
      assert.are.same({ "1", "2", "3" }, order)
      close(a, b)
    end)
  end)

  it("are waited for outside of tasks", function()
    local a, b = assert(uring.socketpair())
    uring.spawn(function()
      uring.sleep(0.005)
      a:send_fds("x", { a })
    end)
    local data, list = b:recv_fds()
    assert.are.equal("x", data)
    close(a, b, list[1])
  end)

  it("are for unix sockets", function()
    run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local client = assert(uring.connect(listener:address()))
      assert.are.same(failure("sendmsg: Operation not supported", errno.EOPNOTSUPP),
        pack(client:send_fds("x", { listener })))
      local r, w = assert(uring.pipe())
      assert.are.same(failure("recvmsg: Socket operation on non-socket", errno.ENOTSOCK), pack(r:recv_fds()))
      assert.are.same(failure("sendmsg: Socket operation on non-socket", errno.ENOTSOCK), pack(w:send_fds("x", { r })))
      close(listener, client, r, w)
    end)
  end)

  it("raise where they are no descriptors", function()
    local a, b = assert(uring.socketpair())
    local closed = assert(uring.pipe())
    closed:close()
    local many = {}
    for i = 1, 254 do
      many[i] = a
    end
    for _, case in ipairs {
      { a.send_fds, { a }, "#1 to 'send_fds' (string that is not empty expected, got nil)" };
      { a.send_fds, { a, "" }, "#1 to 'send_fds' (string that is not empty expected, got '')" };
      { a.send_fds, { a, "x" }, "#2 to 'send_fds' (list expected, got nil)" };
      { a.send_fds, { a, "x", a }, "#2 to 'send_fds' (list expected, got" };
      { a.send_fds, { a, "x", {} }, "#2 to 'send_fds' (1 to 253 descriptors expected, got 0)" };
      { a.send_fds, { a, "x", many }, "#2 to 'send_fds' (1 to 253 descriptors expected, got 254)" };
      { a.send_fds, { a, "x", { "5" } }, "descriptor expected, got string" };
      { a.send_fds, { a, "x", { -1 } }, "descriptor expected, got -1" };
      { a.send_fds, { a, "x", { closed } }, "closed" };
      { a.recv_fds, { a, 0 }, "#1 to 'recv_fds' (integer from 1 to 253 expected)" };
      { a.recv_fds, { a, 254 }, "#1 to 'recv_fds' (integer from 1 to 253 expected)" };
      { a.recv_fds, { a, "5" }, "#1 to 'recv_fds' (integer from 1 to 253 expected)" };
      { a.recv_fds, { a, 1, 0 }, "#2 to 'recv_fds' (integer from 1" };
    } do
      local message = helper.error_of(case[1], table.unpack(case[2], 1, 3))
      assert.is_truthy(message:find(case[3], 1, true), message)
    end
    close(a, b)
    assert.matches("closed", helper.error_of(a.send_fds, a, "x", { b }))
    assert.matches("closed", helper.error_of(a.recv_fds, a))
  end)
end)
