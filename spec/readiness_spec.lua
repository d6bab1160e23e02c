-- Readiness: waiting until a descriptor can be read or written.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op
local error_of = helper.error_of

local function pack(...)
  return table.pack(...)
end

local CLOSED = { n = 3, nil, "closed", errno.ECANCELED }

-- Takes n bytes out of a pipe or a socket.
local function take(fd, n)
  assert.are.equal(n, op.read(fd, uring.buffer(n)))
end

describe("readiness", function()
  helper.watch(before_each, function(check)
    after_each(function()
      opened.close()
      check()
    end)
  end)

  local function watch(fd)
    return opened.keep(uring.readiness(fd))
  end

  it("tells at once what a descriptor is ready for", function()
    local r, w = opened.pipe()
    local reading, writing = watch(r), watch(w)
    assert.are.same({ n = 2, "w", const.POLLOUT }, pack(writing:wait "w"))
    op.write(w, "x")
    assert.are.same({ n = 2, "r", const.POLLIN }, pack(reading:wait "r"))
    local a, b = opened.socketpair()
    op.write(b, "x")
    assert.are.same({ n = 2, "rw", const.POLLIN | const.POLLOUT }, pack(watch(a):wait "rw"))
    assert.are.same({ n = 2, "r", const.POLLIN }, pack(watch(a):wait()))
  end)

  it("is waited for until it is there", function()
    local a, b = opened.socketpair()
    local ready = watch(a)
    uring.run(function()
      local task = uring.spawn(ready.wait, ready, "r")
      uring.sleep(0.005)
      assert.are.equal("waiting", task:status())
      op.write(b, "x")
      assert.are.equal("r", (task:await()))
    end)
  end)

  it("is how things are now, not how they were", function()
    local a, b = opened.socketpair()
    local ready = watch(a)
    uring.run(function()
      for _ = 1, 3 do
        op.write(b, "x")
        assert.are.equal("r", (ready:wait "r"))
        assert.are.equal("r", (ready:wait "r")) -- it still can be read
        take(a, 1)
        local task = uring.spawn(ready.wait, ready, "r")
        uring.sleep(0.002)
        assert.are.equal("waiting", task:status()) -- nothing to be cleared first
        task:cancel()
        pcall(task.await, task)
      end
    end)
  end)

  it("loses no wake-up, whoever reads in between", function()
    local a, b = opened.socketpair()
    local ready = watch(a)
    uring.run(function()
      local got = 0
      local reader = uring.spawn(function()
        local buffer = uring.buffer(1)
        while got < 200 do
          assert.are.equal("r", (ready:wait "r"))
          got = got + op.read(a, buffer)
          ready:clear "r" -- too late on purpose: more may have come meanwhile
        end
      end)
      for i = 1, 200 do
        op.write(b, "x")
        if i % 7 == 0 then
          uring.yield()
        end
      end
      reader:await()
      assert.are.equal(200, got)
    end)
  end)

  it("of different kinds is waited for by several tasks at once", function()
    local a, b = opened.socketpair()
    while helper.testkit.pollout(a) do
      op.write(a, ("x"):rep(4096))
    end
    local ready = watch(a)
    uring.run(function()
      local r1, r2 = uring.spawn(ready.wait, ready, "r"), uring.spawn(ready.wait, ready, "r")
      local w, rw = uring.spawn(ready.wait, ready, "w"), uring.spawn(ready.wait, ready, "rw")
      uring.sleep(0.005)
      op.write(b, "x")
      assert.are.equal("r", (r1:await()))
      assert.are.equal("r", (r2:await()))
      assert.are.equal("r", (rw:await()))
      assert.are.equal("waiting", w:status())
      local drain = uring.buffer(65536)
      while helper.testkit.poll(b, 0) do
        op.read(b, drain)
      end
      assert.are.equal("w", (w:await()))
    end)
  end)

  it("is asked for once by all who wait for the same", function()
    local a, b = opened.socketpair()
    local ready = watch(a)
    uring.run(function()
      local before, tasks = uring.stats().prepared, {}
      for i = 1, 50 do
        tasks[i] = uring.spawn(ready.wait, ready, "r")
      end
      uring.yield()
      uring.yield()
      assert.are.equal(before + 1, uring.stats().prepared)
      op.write(b, "x")
      for i = 1, 50 do
        assert.are.equal("r", (tasks[i]:await()))
      end
    end)
  end)

  it("tells a hang-up and an error unasked", function()
    local r, w = uring.pipe()
    opened.keep(r)
    opened.keep(w)
    local reading = watch(r)
    w:close()
    assert.are.same({ n = 2, "h", const.POLLHUP }, pack(reading:wait "r"))
    assert.are.equal("h", (reading:wait "p"))
    local r2, w2 = uring.pipe()
    opened.keep(w2)
    local writing = watch(w2)
    r2:close()
    local names = writing:wait "w"
    assert.is_truthy(names:find("e", 1, true), names)
  end)

  it("tells that the other side of a socket writes no more, and of one that has gone", function()
    local a, b = uring.socketpair()
    opened.keep(a)
    opened.keep(b)
    local ready = watch(a)
    uring.run(function()
      local hung_up = uring.spawn(ready.wait, ready, "h")
      uring.sleep(0.002)
      assert.are.equal("waiting", hung_up:status())
      b:shutdown "w"
      assert.are.equal("h", (hung_up:await()))
      local names, mask = ready:wait "r"
      assert.are.equal("rh", names)
      assert.are.equal(const.POLLIN | const.POLLRDHUP, mask)
      b:close()
      names, mask = ready:wait "rw"
      assert.are.equal("rwh", names)
      assert.is_true(mask & const.POLLHUP ~= 0)
    end)
  end)

  it("of what is no pipe and no socket is always there", function()
    local file = opened.keep(assert(uring.open("/proc/self/status")))
    assert.are.equal("rw", (watch(file):wait "rw"))
  end)

  describe("and memory:", function()
    it("what was found is known until it is cleared", function()
      local a, b = opened.socketpair()
      local ready = watch(a)
      assert.are.same({ n = 2, "", 0 }, pack(ready:known()))
      op.write(b, "x")
      ready:wait "r"
      ready:wait "w"
      take(a, 1)
      assert.are.same({ n = 2, "rw", const.POLLIN | const.POLLOUT }, pack(ready:known()))
      ready:clear "r"
      assert.are.equal("w", (ready:known()))
      ready:clear()
      assert.are.equal("", (ready:known()))
    end)
  end)

  describe("and cancellation:", function()
    it("one who is cancelled leaves the others waiting", function()
      local a, b = opened.socketpair()
      local ready = watch(a)
      uring.run(function()
        local tasks = {}
        for i = 1, 5 do
          tasks[i] = uring.spawn(ready.wait, ready, "r")
        end
        uring.sleep(0.002)
        tasks[1]:cancel()
        tasks[4]:cancel()
        uring.sleep(0.005)
        assert.are.equal("cancelled", tasks[1]:status())
        assert.are.equal("waiting", tasks[2]:status())
        op.write(b, "x")
        for _, i in ipairs { 2, 3, 5 } do
          assert.are.equal("r", (tasks[i]:await()))
        end
      end)
    end)

    it("who comes while another is cancelled gets a poll of its own", function()
      local a, b = opened.socketpair()
      local ready = watch(a)
      uring.run(function()
        local first = uring.spawn(ready.wait, ready, "r")
        uring.sleep(0.002)
        first:cancel()
        local second = uring.spawn(ready.wait, ready, "r")
        uring.yield()
        op.write(b, "x")
        assert.are.equal("r", (second:await()))
        pcall(first.await, first)
      end)
    end)

    it("at any step leaves nothing behind", function()
      for turns = 0, 4 do
        local a, b = opened.socketpair()
        local ready = watch(a)
        uring.run(function()
          local task = uring.spawn(ready.wait, ready, "r")
          for _ = 1, turns do
            uring.yield()
          end
          op.write(b, "x")
          task:cancel()
          pcall(task.await, task)
          assert.are.equal("r", (ready:wait "r"))
        end)
        opened.close()
        assert.are.equal(0, uring.stats().in_flight)
      end
    end)
  end)

  describe("that is closed", function()
    it("gives those who wait nil, \"closed\", and the kernel lets go at once", function()
      local a = opened.socketpair()
      local ready = uring.readiness(a)
      uring.run(function()
        local tasks = {}
        for i, interest in ipairs { "r", "r", "p", "rp" } do
          tasks[i] = uring.spawn(ready.wait, ready, interest)
        end
        uring.sleep(0.002)
        assert.are.equal(3, uring.stats().in_flight)
        ready:close()
        assert.are.equal(0, uring.stats().in_flight)
        for _, task in ipairs(tasks) do
          assert.are.same(CLOSED, pack(task:await()))
        end
      end)
    end)

    it("while its kernel has the answer already delivers that", function()
      local a, b = opened.socketpair()
      local ready = uring.readiness(a)
      uring.run(function()
        local task = uring.spawn(ready.wait, ready, "r")
        uring.sleep(0.002)
        op.write(b, "x") -- both complete in this turn
        ready:close()
        assert.are.equal("r", (task:await()))
      end)
    end)

    it("by a task that is cancelled lets go all the same", function()
      local a = opened.socketpair()
      local ready = uring.readiness(a)
      uring.run(function()
        local waiting = uring.spawn(ready.wait, ready, "r")
        local closer = uring.spawn(function()
          local _ready <close> = ready
          uring.sleep(60)
        end)
        uring.sleep(0.002)
        closer:cancel()
        pcall(closer.await, closer)
        assert.are.equal("cancelled", closer:status())
        assert.are.equal(0, uring.stats().in_flight)
        assert.are.same(CLOSED, pack(waiting:await()))
      end)
    end)

    it("cannot be used, but closed again", function()
      local r = opened.pipe()
      local ready = uring.readiness(r)
      ready:close()
      ready:close()
      assert.is_truthy(error_of(ready.wait, ready):find("attempt to use a closed readiness", 1, true))
      assert.is_truthy(error_of(ready.check, ready):find("attempt to use a closed readiness", 1, true))
      assert.are.equal(("readiness (fd %d, closed)"):format(r), tostring(ready))
    end)

    it("leaves the descriptor open", function()
      local r, w = opened.pipe()
      uring.readiness(r):close()
      op.write(w, "x")
      take(r, 1)
    end)
  end)

  it("dropped while the poll is in flight makes an orphan of it", function()
    local a = opened.socketpair()
    uring.run(function()
      local task = uring.spawn(function() uring.readiness(a):wait "r" end)
      uring.sleep(0.002)
      helper.collect()
      assert.are.equal(1, uring.stats().in_flight) -- not under who waits
      task:cancel()
      pcall(task.await, task)
    end)
    helper.eventually(function() return uring.stats().in_flight == 0 end)
  end)

  it("keeps the object that has the descriptor", function()
    local a, b = uring.socketpair()
    opened.keep(b)
    local ready = watch(a)
    local fd = a:fd()
    local weak = setmetatable({ a }, { __mode = "v" })
    a = nil -- luacheck: ignore 311
    helper.collect()
    assert.is_not_nil(weak[1])
    assert.are.equal(("readiness (fd %d)"):format(fd), tostring(ready))
    b:write "x"
    assert.are.equal("r", (ready:wait "r"))
    weak[1]:close()
  end)

  it("outside of tasks turns the loop", function()
    local a, b = opened.socketpair()
    local ready = watch(a)
    local task = uring.spawn(function()
      uring.sleep(0.005)
      op.write(b, "x")
    end)
    assert.are.equal("r", (ready:wait "r"))
    task:await()
  end)

  describe("of a socket", function()
    it("has no error to tell where there is none", function()
      local listener = opened.keep(uring.listen "127.0.0.1:0")
      local client = opened.keep(uring.connect(listener:address()))
      local ready = watch(client)
      assert.are.equal("w", (ready:wait "w"))
      assert.is_true(ready:check())
    end)

    it("tells the error of a connection, to everybody who asks", function()
      local nobody = uring.listen "127.0.0.1:0"
      local address = nobody:address()
      nobody:close()
      local fd = assert(op.socket(const.AF_INET, const.SOCK_DGRAM))
      local ready = uring.readiness(fd)
      assert(op.connect(fd, address))
      op.send(fd, "is anybody there?")
      local names, mask = ready:wait "r"
      assert.is_truthy(names:find("e", 1, true), names)
      assert.is_true(mask & const.POLLERR ~= 0)
      local refused = { n = 3, nil, ("fd %d: Connection refused"):format(fd), errno.ECONNREFUSED }
      uring.run(function()
        local first, second = uring.spawn(ready.check, ready), uring.spawn(ready.check, ready)
        local told = { pack(first:await()), pack(second:await()) }
        assert.are.same(refused, told[1])
        assert.are.same(refused, told[2]) -- though the kernel tells it once
      end)
      ready:clear()
      assert.is_true(ready:check())
      ready:close()
      op.close(fd)
    end)

    it("tells of a connection that was reset", function()
      local listener = opened.keep(uring.listen "127.0.0.1:0")
      local client = opened.keep(uring.connect(listener:address()))
      local server = listener:accept()
      client:write "nobody reads this"
      helper.eventually(function() return helper.testkit.poll(server:fd(), 0) end)
      local ready = watch(client)
      uring.run(function()
        local task = uring.spawn(ready.wait, ready, "r")
        uring.sleep(0.002)
        server:close()
        local names = task:await()
        assert.are.equal("rhe", names)
        local ok, message, code = ready:check()
        assert.is_nil(ok)
        assert.are.equal(("fd %d: Connection reset by peer"):format(client:fd()), message)
        assert.are.equal(errno.ECONNRESET, code)
      end)
    end)

    it("is a plain failure where it is none", function()
      local r = opened.pipe()
      local ok, _, code = watch(r):check()
      assert.is_nil(ok)
      assert.is_true(code == errno.EOPNOTSUPP or code == errno.ENOTSOCK) -- by opcode, by system call
    end)
  end)

  it("of a descriptor that there is not is a failure", function()
    assert.are.same({ n = 3, nil, "poll_add: Bad file descriptor", errno.EBADF },
      pack(watch(987654):wait "r"))
  end)

  it("refuses what it cannot watch and what it does not know", function()
    for _, bad in ipairs { -1, 1.5, "3", {}, false } do
      assert.is_truthy(error_of(uring.readiness, bad):find("descriptor expected", 1, true))
    end
    assert.is_truthy(error_of(uring.readiness):find("descriptor expected, got nil", 1, true))
    local r, w = uring.pipe()
    r:close()
    assert.is_truthy(error_of(uring.readiness, r):find("attempt to use a closed pipe", 1, true))
    local ready = watch(w)
    for _, bad in ipairs { "x", "", "rx", 1, {} } do
      assert.is_truthy(error_of(ready.wait, ready, bad):find("bad argument #1 to 'wait'", 1, true))
      assert.is_truthy(error_of(ready.clear, ready, bad):find("bad argument #1 to 'clear'", 1, true))
    end
    w:close()
  end)
end)
