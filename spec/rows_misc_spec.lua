-- The rows that move bytes between descriptors, act on other operations, on
-- sockets, children, futexes and rings, against the real kernel.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op

local NONE = 1000000 -- a descriptor that is not open

local function failure(text, number)
  return { n = 3, nil, text, number }
end

local function pack(...)
  return table.pack(...)
end

local function close(...)
  for _, fd in ipairs { ... } do
    assert.are.equal(0, op.close(fd))
  end
end

local function error_of(name, ...)
  return helper.error_of(op[name], ...)
end

local function bad(name, argument, why)
  return ("bad argument '%s' to '%s' (%s)"):format(argument, name, why)
end

-- What is in a pipe, at most 64 bytes.
local function drain(r)
  local buffer = uring.buffer(64)
  return buffer:get(1, op.read(r, buffer))
end

-- Prepared and submitted.
local function start(...)
  local o = uring.prepare(...)
  uring.submit()
  return o
end

local NOT_FOUND = "No such file or directory"

-- A connected pair of TCP sockets.
local function connection()
  local server = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
  assert(op.bind(server, "127.0.0.1:0"))
  assert(op.listen(server))
  local client = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
  assert(op.connect(client, core.local_address(server)))
  local peer = assert(op.accept(server))
  close(server)
  return client, peer
end

-- A child of /bin/sh, not waited for; its pid.
local function child(script)
  local pipe = assert(io.popen(script, "r"))
  return math.tointeger(pipe:read "n"), pipe
end

describe("rows", function()
  after_each(helper.cleanup)
  helper.watch(before_each, after_each)

  describe("of pipes", function()
    it("pipe gives its two ends", function()
      local results = pack(op.pipe(const.O_CLOEXEC))
      assert.are.equal(3, results.n)
      assert.are.equal(0, results[1])
      local r, w = results[2], results[3]
      assert.are.equal(5, op.write(w, "hello"))
      assert.are.equal("hello", drain(r))
      close(r, w)
      assert.are.same(failure("pipe: Invalid argument", errno.EINVAL), pack(op.pipe(1)))
      assert.are.equal(bad("pipe", "flags", "-1 is out of range"), error_of("pipe", -1))
    end)

    it("pipe does the same where the kernel has no opcode for it", function()
      local ring <close> = uring.ring { entries = 4, without = { "pipe" } }
      assert.is_true(ring:probe "pipe")
      local zero, r, w = ring:prepare("pipe", const.O_NONBLOCK):await()
      assert.are.equal(0, zero)
      assert.are.same(failure("read: Resource temporarily unavailable", errno.EAGAIN),
        pack(op.read(r, uring.buffer(1), nil, nil, 8))) -- RWF_NOWAIT
      close(r, w)
      assert.are.same(failure("pipe: Invalid argument", errno.EINVAL), pack(ring:prepare("pipe", 1):await()))
    end)

    it("pipe is closed if nobody takes it", function()
      for _ = 1, 10 do
        local o = start("pipe")
        op.nop()
        assert.are.equal("done", o:status())
      end
      collectgarbage() -- the watch counts descriptors
    end)

    it("pipe is closed if its operation is an orphan", function()
      for _ = 1, 10 do
        uring.prepare "pipe"
        collectgarbage()
        uring.prepare "pipe"
        uring.submit()
        collectgarbage()
      end
    end)

    it("splice moves bytes between a pipe and anything else", function()
      local path = helper.tmpname "0123456789"
      local fd = assert(op.openat(nil, path, const.O_RDWR))
      local r, w = core.pipe()
      assert.are.same({ n = 1, 4 }, pack(op.splice(fd, 2, w, nil, 4)))
      assert.are.equal("2345", drain(r))
      assert.are.equal(3, op.splice(fd, -1, w, -1, 3, const.SPLICE_F_MOVE)) -- from where it stands
      assert.are.equal(3, op.splice(fd, nil, w, nil, 3))
      local copy = helper.tmpname "abcdefgh"
      local out = assert(op.openat(nil, copy, const.O_RDWR))
      assert.are.equal(6, op.splice(r, nil, out, 4, 100))
      close(out)
      local file <close> = assert(io.open(copy))
      assert.are.equal("abcd012345", file:read "a")
      assert.are.same(failure("splice: Invalid argument", errno.EINVAL), pack(op.splice(fd, 0, fd, 0, 1)))
      assert.are.same(failure("splice: Illegal seek", errno.ESPIPE), pack(op.splice(r, 0, fd, 0, 1)))
      close(fd)
      assert.are.same(failure("splice: Bad file descriptor", errno.EBADF), pack(op.splice(NONE, nil, w, nil, 1)))
      close(r, w)
      assert.are.equal(bad("splice", "fd_out", "integer expected, got table"), error_of("splice", 0, nil, {}))
    end)

    it("tee copies and takes nothing out", function()
      local r, w = core.pipe()
      local r2, w2 = core.pipe()
      op.write(w, "bytes")
      assert.are.same({ n = 1, 4 }, pack(op.tee(r, w2, 4)))
      assert.are.equal("byte", drain(r2))
      assert.are.equal("bytes", drain(r))
      assert.are.same(failure("tee: Resource temporarily unavailable", errno.EAGAIN),
        pack(op.tee(r, w2, 1, const.SPLICE_F_NONBLOCK)))
      assert.are.same(failure("tee: Invalid argument", errno.EINVAL), pack(op.tee(r, w, 1)))
      close(r, w, r2, w2)
      assert.are.equal(bad("tee", "nbytes", "integer expected, got no value"), error_of("tee", 0, 1))
    end)
  end)

  describe("about another operation", function()
    it("poll_remove ends a poll", function()
      local r, w = core.pipe()
      local poll = start("poll_add", r, const.POLLIN)
      assert.are.same({ n = 1, 0 }, pack(op.poll_remove(poll)))
      assert.are.same(failure("poll_add: Operation canceled", errno.ECANCELED), pack(poll:await()))
      assert.are.same(failure("poll_remove: " .. NOT_FOUND, errno.ENOENT), pack(op.poll_remove(poll)))
      local timeout = start("timeout", 100)
      assert.are.same(failure("poll_remove: " .. NOT_FOUND, errno.ENOENT), pack(op.poll_remove(timeout)))
      timeout:cancel():await()
      close(r, w)
      assert.are.equal(bad("poll_remove", "operation", "operation expected, got nil"), error_of("poll_remove", nil))
    end)

    it("poll_update changes what a poll waits for", function()
      local a, b = core.socketpair()
      local poll = start("poll_add", a, const.POLLIN)
      assert.are.same({ n = 1, 0 }, pack(op.poll_update(poll, const.POLLPRI)))
      op.send(b, "x")
      op.nop()
      assert.are.equal("submitted", poll:status())
      assert.are.equal(0, op.poll_update(poll, const.POLLOUT))
      assert.are.equal(const.POLLOUT, poll:await() & const.POLLOUT)
      assert.are.same(failure("poll_update: " .. NOT_FOUND, errno.ENOENT),
        pack(op.poll_update(poll, const.POLLIN)))
      close(a, b)
    end)

    it("poll_update leaves an operation its name", function()
      local poll = start("poll_add", 0, const.POLLPRI)
      assert.are.equal(bad("poll_update", "flags", "4 is out of range"), error_of("poll_update", poll, 1, 4))
      poll:cancel():await()
    end)

    it("timeout_remove ends a timeout", function()
      local timeout = start("timeout", 100)
      assert.are.same({ n = 1, 0 }, pack(op.timeout_remove(timeout)))
      assert.are.same(failure("timeout: Operation canceled", errno.ECANCELED), pack(timeout:await()))
      assert.are.same(failure("timeout_remove: " .. NOT_FOUND, errno.ENOENT), pack(op.timeout_remove(timeout)))
      assert.are.equal(bad("timeout_remove", "operation", "operation expected, got number"),
        error_of("timeout_remove", 5))
    end)

    it("timeout_update sets another time", function()
      local began = uring.now()
      local timeout = start("timeout", 100)
      assert.are.same({ n = 1, 0 }, pack(op.timeout_update(0.02, timeout)))
      assert.are.equal(0, timeout:await())
      assert.is_true(uring.now() - began >= 0.02 and uring.now() - began < 10)
      assert.are.same(failure("timeout_update: " .. NOT_FOUND, errno.ENOENT), pack(op.timeout_update(1, timeout)))
      assert.are.equal(bad("timeout_update", "seconds", "seconds are negative"),
        error_of("timeout_update", -1, timeout))
    end)

    it("cancel takes flags: all of them, or any", function()
      local r, w = core.pipe()
      local ring <close> = uring.ring { entries = 8 }
      local reads = {}
      for i = 1, 3 do
        reads[i] = ring:prepare("poll_add", r, const.POLLIN)
      end
      ring:submit()
      assert.are.equal(1, ring:prepare("cancel", reads[1], const.IORING_ASYNC_CANCEL_ALL):await())
      assert.are.equal(2,
        ring:prepare("cancel", nil, const.IORING_ASYNC_CANCEL_ANY | const.IORING_ASYNC_CANCEL_ALL):await())
      for i = 1, 3 do
        assert.are.same(failure("poll_add: Operation canceled", errno.ECANCELED), pack(reads[i]:await()))
      end
      close(r, w)
      assert.are.equal(bad("cancel", "operation", "operation expected, got nil"), error_of("cancel", nil))
      assert.are.equal(bad("cancel", "operation", "operation expected, got nil"),
        error_of("cancel", nil, const.IORING_ASYNC_CANCEL_ALL))
    end)

    it("are refused when it belongs to another ring", function()
      local ring <close> = uring.ring { entries = 4 }
      local r, w = core.pipe()
      local poll = ring:prepare("poll_add", r, const.POLLIN)
      local timeout = ring:prepare("timeout", 100)
      ring:submit()
      local message = "the operation belongs to another ring"
      assert.are.equal(message, error_of("poll_remove", poll))
      assert.are.equal(message, error_of("poll_update", poll, 1))
      assert.are.equal(message, error_of("timeout_remove", timeout))
      assert.are.equal(message, error_of("timeout_update", 1, timeout))
      assert.are.equal(message, error_of("cancel", poll))
      close(r, w)
    end)
  end)

  describe("of sockets' options", function()
    -- By the command, and by system calls where the kernel has no command.
    for way, without in pairs { ["by command"] = {}, ["by system call"] = { "getsockopt", "futex_wait" } } do
      it("set and get, " .. way, function()
        local ring <close> = uring.ring { entries = 8, without = without }
        local function call(...)
          return pack(ring:prepare(...):await())
        end
        local a, b = connection()
        assert.are.same({ n = 1, 0 }, call("setsockopt", a, const.SOL_SOCKET, const.SO_KEEPALIVE, 1))
        assert.are.same({ n = 2, 4, 1 }, call("getsockopt", a, const.SOL_SOCKET, const.SO_KEEPALIVE))
        assert.are.same({ n = 2, 4, const.SOCK_STREAM }, call("getsockopt", a, const.SOL_SOCKET, const.SO_TYPE))
        -- of another level than the socket's own
        assert.are.same({ n = 1, 0 }, call("setsockopt", a, const.IPPROTO_TCP, const.TCP_NODELAY, 1))
        assert.are.same({ n = 2, 4, 1 }, call("getsockopt", a, const.IPPROTO_TCP, const.TCP_NODELAY))
        -- as bytes: struct linger
        local linger = string.pack("i4i4", 1, 7)
        assert.are.same({ n = 1, 0 }, call("setsockopt", a, const.SOL_SOCKET, const.SO_LINGER, linger))
        local buffer = uring.buffer(16)
        assert.are.same({ n = 1, 8 }, call("getsockopt", a, const.SOL_SOCKET, const.SO_LINGER, buffer))
        assert.are.equal(linger, buffer:get(1, 8))
        buffer:set(1, string.pack("i4i4", 0, 0))
        assert.are.same({ n = 1, 0 }, call("setsockopt", a, const.SOL_SOCKET, const.SO_LINGER, buffer, 8))
        assert.are.same({ n = 1, 4 }, call("getsockopt", a, const.SOL_SOCKET, const.SO_LINGER, buffer, 4))
        assert.are.same(failure("setsockopt: Protocol not available", errno.ENOPROTOOPT),
          call("setsockopt", a, const.SOL_SOCKET, 9999, 1))
        assert.are.same(failure("getsockopt: Protocol not available", errno.ENOPROTOOPT),
          call("getsockopt", a, const.IPPROTO_TCP, 9999))
        close(a, b)
        assert.are.same(failure("getsockopt: Bad file descriptor", errno.EBADF),
          call("getsockopt", NONE, const.SOL_SOCKET, const.SO_TYPE))
      end)

      it("tell what is queued, " .. way, function()
        local ring <close> = uring.ring { entries = 8, without = without }
        local a, b = connection()
        assert.are.equal(0, ring:prepare("siocinq", b):await())
        op.send(a, "five!")
        op.poll_add(b, const.POLLIN)
        assert.are.equal(5, ring:prepare("siocinq", b):await())
        assert.are.equal("integer", math.type(ring:prepare("siocoutq", a):await()))
        close(a, b)
        assert.are.same(failure("siocinq: Bad file descriptor", errno.EBADF),
          pack(ring:prepare("siocinq", NONE):await()))
        assert.are.same(failure("siocoutq: Bad file descriptor", errno.EBADF),
          pack(ring:prepare("siocoutq", NONE):await()))
      end)
    end

    it("lend their Buffers and keep their strings", function()
      local a, b = core.socketpair()
      local buffer = uring.buffer(8)
      local o = uring.prepare("getsockopt", a, const.SOL_SOCKET, const.SO_LINGER, buffer)
      assert.are.equal(("buffer is lent to the kernel (getsockopt on fd %d)"):format(a),
        helper.error_of(buffer.get, buffer))
      assert.are.equal(8, o:await())
      o = uring.prepare("setsockopt", a, const.SOL_SOCKET, const.SO_LINGER, ("\0"):rep(8))
      assert.are.equal(8, uring.stats().bytes_lent)
      assert.are.equal(0, o:await())
      close(a, b)
    end)

    it("never take the index of a registered file for a descriptor", function()
      local a, b = connection()
      local ring <close> = uring.ring { entries = 4 }
      assert(ring:register_files { a })
      assert.are.same({ n = 2, 4, const.SOCK_STREAM },
        pack(ring:prepare("getsockopt", 0, const.SOL_SOCKET, const.SO_TYPE, { fixed_file = true }):await()))
      assert.are.same(failure("getsockopt: Operation not supported", errno.EOPNOTSUPP),
        pack(ring:prepare("getsockopt", 0, const.IPPROTO_TCP, const.TCP_NODELAY, { fixed_file = true }):await()))
      local old <close> = uring.ring { entries = 4, without = { "siocinq" } }
      assert(old:register_files { a })
      assert.are.same(failure("siocinq: not supported by this kernel (needs 6.7)", errno.ENOSYS),
        pack(old:prepare("siocinq", 0, { fixed_file = true }):await()))
      close(a, b)
    end)

    it("have values that are integers or bytes", function()
      assert.are.equal(bad("setsockopt", "value", "integer, Buffer or string expected, got no value"),
        error_of("setsockopt", NONE, 1, 1))
      assert.are.equal(bad("setsockopt", "value", (1 << 31) .. " is out of range"),
        error_of("setsockopt", NONE, 1, 1, 1 << 31))
      assert.are.equal(bad("setsockopt", "length", "5 is more than the 4 bytes there are"),
        error_of("setsockopt", NONE, 1, 1, "four", 5))
      assert.are.equal(bad("getsockopt", "buffer", "Buffer expected, got string"),
        error_of("getsockopt", NONE, 1, 1, "four"))
    end)
  end)

  describe("of epoll", function()
    it("fail on what is no epoll descriptor", function()
      local r, w = core.pipe()
      assert.are.same(failure("epoll_ctl: Invalid argument", errno.EINVAL), pack(op.epoll_ctl(r, w, "add", 1)))
      assert.are.same(failure("epoll_ctl: Bad file descriptor", errno.EBADF), pack(op.epoll_ctl(NONE, w, "del")))
      assert.are.same(failure("epoll_wait: Invalid argument", errno.EINVAL), pack(op.epoll_wait(r)))
      assert.are.same(failure("epoll_wait: Bad file descriptor", errno.EBADF), pack(op.epoll_wait(NONE, 1)))
      local ring <close> = uring.ring { entries = 4, without = { "epoll_ctl", "epoll_wait" } }
      assert.are.same(failure("epoll_ctl: Invalid argument", errno.EINVAL),
        pack(ring:prepare("epoll_ctl", r, w, 1, 1):await()))
      assert.are.same(failure("epoll_wait: not supported by this kernel (needs 6.15)", errno.ENOSYS),
        pack(ring:prepare("epoll_wait", r):await()))
      close(r, w)
    end)

    it("name what is to be done, and how many events there is room for", function()
      assert.are.equal(bad("epoll_ctl", "op", "'add', 'del' or 'mod' expected"), error_of("epoll_ctl", 0, 0, "ad"))
      assert.are.equal(bad("epoll_wait", "maxevents", "17 is out of range"), error_of("epoll_wait", NONE, 17))
    end)

    it("add, change, wait for and delete descriptors", function()
      local ep = helper.testkit.epoll()
      local a, b = core.socketpair()
      assert.are.same({ n = 1, 0 }, pack(op.epoll_ctl(ep, a, "add", const.EPOLLIN)))
      assert.are.same(failure("epoll_ctl: File exists", errno.EEXIST), pack(op.epoll_ctl(ep, a, 1, const.EPOLLIN)))
      local wait = start("epoll_wait", ep)
      assert.are.equal("submitted", wait:status())
      op.send(b, "x")
      assert.are.same({ n = 2, 1, { { events = const.EPOLLIN, data = a } } }, pack(wait:await()))
      assert.are.equal(0, op.epoll_ctl(ep, a, "mod", const.EPOLLIN | const.EPOLLOUT, -5))
      assert.are.equal(0, op.epoll_ctl(ep, b, "add", const.EPOLLOUT, math.maxinteger))
      local n, events = op.epoll_wait(ep, 16)
      assert.are.equal(2, n)
      table.sort(events, function(x, y) return x.data < y.data end)
      assert.are.same({ { events = const.EPOLLIN | const.EPOLLOUT, data = -5 },
        { events = const.EPOLLOUT, data = math.maxinteger } }, events)
      assert.are.equal(1, (op.epoll_wait(ep, 1)))
      assert.are.equal(0, op.epoll_ctl(ep, a, "del"))
      assert.are.same(failure("epoll_ctl: " .. NOT_FOUND, errno.ENOENT), pack(op.epoll_ctl(ep, a, "del")))
      close(a, b, ep)
    end)
  end)

  describe("waitid", function()
    it("waits for a child and tells how it ended", function()
      local pid, pipe = child "echo $$; exec >&-; exit 7"
      local n, how = op.waitid(const.P_PID, pid, const.WEXITED | const.WNOWAIT)
      assert.are.equal(0, n)
      assert.are.equal(pid, how.pid)
      assert.are.equal(const.CLD_EXITED, how.code)
      assert.are.equal(7, how.status)
      assert.are.equal(17, how.signo) -- SIGCHLD
      assert.are.equal("integer", math.type(how.uid))
      pipe:close()
    end)

    it("waits without blocking the loop, and is cancelled", function()
      local pid, pipe = child "echo $$; exec sleep 100"
      local wait = start("waitid", const.P_PID, pid, const.WEXITED | const.WNOWAIT)
      op.timeout(0.01)
      assert.are.equal("submitted", wait:status())
      assert.are.equal("cancelled", wait:cancel():await())
      wait = start("waitid", const.P_PID, pid, const.WEXITED | const.WNOWAIT)
      os.execute("kill " .. pid)
      local _, how = wait:await()
      assert.are.equal(const.CLD_KILLED, how.code)
      assert.are.equal(15, how.status)
      pipe:close()
    end)

    it("tells that nothing has happened yet", function()
      local pid, pipe = child "echo $$; exec sleep 100"
      local _, how = op.waitid(const.P_PID, pid, const.WEXITED | const.WNOHANG)
      assert.are.equal(0, how.pid)
      os.execute("kill " .. pid)
      pipe:close()
    end)

    it("fails where there is no such child", function()
      assert.are.same(failure("waitid: No child processes", errno.ECHILD),
        pack(op.waitid(const.P_PID, 999999999, const.WEXITED)))
      assert.are.same(failure("waitid: Invalid argument", errno.EINVAL), pack(op.waitid(const.P_ALL, 0, 0)))
      assert.are.equal(bad("waitid", "idtype", "4 is out of range"), error_of("waitid", 4, 0, 4))
    end)
  end)

  describe("of futexes", function()
    local function word(n)
      return uring.buffer(string.pack("=I4", n))
    end

    it("wait until the word is changed and somebody wakes", function()
      local w = word(5)
      local wait = start("futex_wait", w, 5)
      assert.are.equal("submitted", wait:status())
      w:set(1, string.pack("=I4", 6)) -- it is there to be changed
      assert.are.same({ n = 1, 1 }, pack(op.futex_wake(w, 1)))
      assert.are.same({ n = 1, 0 }, pack(wait:await()))
      assert.are.equal(0, op.futex_wake(w, 1)) -- nobody is left
    end)

    it("do not wait where the word is another already", function()
      assert.are.same(failure("futex_wait: Resource temporarily unavailable", errno.EAGAIN),
        pack(op.futex_wait(word(5), 6)))
      assert.are.same(failure("futex_waitv: Resource temporarily unavailable", errno.EAGAIN),
        pack(op.futex_waitv { { word(5), 6 } }))
    end)

    it("wake as many as are asked for, by mask", function()
      local w = word(0)
      local waits = {}
      for i = 1, 4 do
        waits[i] = start("futex_wait", w, 0, i == 4 and 2 or 1)
      end
      assert.are.equal(2, op.futex_wake(w, 2, 1))
      assert.are.equal(1, op.futex_wake(w, 10, 1))
      assert.are.equal("submitted", waits[4]:status())
      assert.are.equal(1, op.futex_wake(w, 10))
      for i = 1, 4 do
        assert.are.equal(0, waits[i]:await())
      end
    end)

    it("wait on several words at once", function()
      local both = uring.buffer(8)
      local first, second = both:slice(1, 4), both:slice(5, 8)
      local wait = start("futex_waitv", { { first, 0 }, { second, 0, const.FUTEX2_SIZE_U32 | const.FUTEX2_PRIVATE } })
      collectgarbage()
      assert.are.equal(1, op.futex_wake(second, 1))
      assert.are.same({ n = 1, 1 }, pack(wait:await())) -- counted from 0
      wait = start("futex_waitv", { { first, 0 }, { second, 0 } })
      assert.are.equal("cancelled", wait:cancel():await())
    end)

    it("keep the memory of a word but do not lend it", function()
      local w = word(1)
      local wait = start("futex_wait", w, 1)
      local waitv = start("futex_waitv", { { w, 1 } })
      assert.are.equal("owned", w:status())
      assert.are.equal(0, uring.stats().bytes_lent)
      w:close()
      collectgarbage()
      assert.are.equal("cancelled", wait:cancel():await())
      assert.are.equal("cancelled", waitv:cancel():await())
    end)

    it("wake by system call where the kernel has no opcode for it", function()
      local ring <close> = uring.ring { entries = 4, without = { "futex_wake", "futex_wait" } }
      local w = word(1)
      local wait = start("futex_wait", w, 1)
      assert.are.equal(1, ring:prepare("futex_wake", w, 1):await())
      assert.are.equal(0, wait:await())
      assert.are.same(failure("futex_wait: not supported by this kernel (needs 6.7)", errno.ENOSYS),
        pack(ring:prepare("futex_wait", w, 1):await()))
    end)

    it("are 32 bits, aligned, in a Buffer", function()
      assert.are.equal(bad("futex_wait", "word", "a word has 4 bytes"), error_of("futex_wait", uring.buffer(3), 0))
      assert.are.equal(bad("futex_wake", "word", "the word is not aligned to 4 bytes"),
        error_of("futex_wake", uring.buffer(8):slice(2, 5), 1))
      for _, kind in ipairs { 0, 1, 3, 6, 128, 134 } do -- other sizes, NUMA
        assert.are.equal(bad("futex_wait", "futex_flags", "FUTEX2_SIZE_U32, with or without FUTEX2_PRIVATE, expected"),
          error_of("futex_wait", word(0), 0, nil, kind))
      end
      assert.are.equal(bad("futex_waitv", "words", "table expected at [1], got number"), error_of("futex_waitv", { 5 }))
      assert.are.equal(bad("futex_waitv", "words", "Buffer expected, got string"),
        error_of("futex_waitv", { { "word", 1 } }))
      assert.are.equal(bad("futex_waitv", "value", "integer expected, got nil"),
        error_of("futex_waitv", { { word(1) } }))
      assert.are.equal(bad("futex_waitv", "words", "a word has 4 bytes"),
        error_of("futex_waitv", { { word(1), 1 }, { uring.buffer(1), 1 } }))
      assert.are.same(failure("futex_waitv: Invalid argument", errno.EINVAL), pack(op.futex_waitv {}))
    end)
  end)

  describe("msg_ring", function()
    it("posts a completion to another ring, and hits none of its operations", function()
      local r, w = core.pipe()
      local ring <close> = uring.ring { entries = 8 }
      local read = ring:prepare("read", r, uring.buffer(4))
      ring:submit()
      for data = 0, 300 do
        assert.are.equal(0, op.msg_ring(ring, 7, data))
      end
      assert.are.same({ n = 1, 0 }, pack(op.msg_ring(ring, 0, (1 << 32) - 1)))
      for _ = 1, 302 do
        ring:prepare("nop"):await()
      end
      assert.are.equal("submitted", read:status())
      assert.are.equal(302, ring:stats().unknown) -- nobody receives them
      assert.are.equal("cancelled", read:cancel():await())
      close(r, w)
    end)

    it("may be for the ring itself", function()
      local ring <close> = uring.ring { entries = 8 }
      assert.are.equal(0, ring:prepare("msg_ring", ring, 1, 2):await())
      ring:prepare("nop"):await()
      assert.are.equal(1, ring:stats().unknown)
    end)

    it("is for a ring that is open", function()
      local ring = uring.ring { entries = 4 }
      assert.are.same(failure("msg_ring: Invalid argument", errno.EINVAL), pack(op.msg_ring(ring, 1, 1, 1 << 31)))
      ring:close()
      assert.are.equal("attempt to use a closed ring", error_of("msg_ring", ring, 1, 1))
      assert.are.equal(bad("msg_ring", "ring", "ring expected, got number"), error_of("msg_ring", 5, 1, 1))
    end)
  end)

  describe("uring_cmd", function()
    it("tells a driver a command by its number", function()
      local client, peer = connection()
      assert.are.equal(5, op.write(client, "12345"))
      local SOCKET_URING_OP_SIOCINQ = 0
      assert.are.same({ n = 1, 5 }, pack(op.uring_cmd(peer, SOCKET_URING_OP_SIOCINQ)))
      assert.are.same({ n = 1, 5 }, pack(op.uring_cmd(peer, SOCKET_URING_OP_SIOCINQ, ("x"):rep(16))))
      close(client, peer)
    end)

    it("fails where there is no such command", function()
      local r, w = core.pipe()
      assert.are.same(failure("uring_cmd: Operation not supported", errno.EOPNOTSUPP), pack(op.uring_cmd(r, 0)))
      close(r, w)
      assert.are.same(failure("uring_cmd: Bad file descriptor", errno.EBADF), pack(op.uring_cmd(NONE, 0)))
      assert.are.equal(bad("uring_cmd", "command", "longer than 16 bytes"),
        error_of("uring_cmd", NONE, 0, ("x"):rep(17)))
    end)
  end)

  describe("recv_zc", function()
    it("fails where there is no such queue of a network card", function()
      local client, peer = connection()
      local zc = start("recv_zc", peer, 0, 0)
      assert.are.same(failure("recv_zc: Invalid argument", errno.EINVAL), pack(zc:await()))
      assert.are.equal("done", zc:status())
      assert.are.same(failure("recv_zc: Invalid argument", errno.EINVAL), pack(start("recv_zc", peer, 7):await()))
      close(client, peer)
    end)

    it("receives into the memory of a network card", function()
      pending "there is no network card here that splits headers from data, which zero-copy receive is made of"
    end)
  end)

  it("fixed_fd_install fails where no file is registered", function()
    assert.are.same(failure("fixed_fd_install: Bad file descriptor", errno.EBADF), pack(op.fixed_fd_install(0)))
    local ring <close> = uring.ring { entries = 4, without = { "fixed_fd_install" } }
    assert.are.same(failure("fixed_fd_install: not supported by this kernel (needs 6.8)", errno.ENOSYS),
      pack(ring:prepare("fixed_fd_install", 0):await()))
  end)

  it("of newer kernels say which", function()
    local without = { "waitid", "futex_waitv", "epoll_wait", "recv_zc" }
    local ring <close> = uring.ring { entries = 4, without = without }
    local calls = { waitid = { 1, 1, 4 }, futex_waitv = { {} }, epoll_wait = { 0 }, recv_zc = { 0, 0 } }
    for i, since in ipairs { "6.7", "6.7", "6.15", "6.15" } do
      local name = without[i]
      assert.is_false(ring:probe(name))
      assert.are.same(failure(("%s: not supported by this kernel (needs %s)"):format(name, since), errno.ENOSYS),
        pack(ring:prepare(name, table.unpack(calls[name])):await()))
    end
  end)
end)
