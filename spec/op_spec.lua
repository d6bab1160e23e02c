-- Every row of the table of operations against the real kernel, in each of
-- the ways in which an operation can be asked for.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op

-- A descriptor that is not open. One that was closed may be the next ring's.
local NONE = 1000000

local RWF_NOWAIT = 8 -- of read: fail rather than wait

local function pack(...)
  return table.pack(...)
end

-- What an operation that fails returns, as `pack` has it.
local function failure(text, number)
  return { n = 3, nil, text, number }
end

local function by_hand(ring, name, ...)
  local o = ring:prepare(name, ...)
  ring:submit()
  return o:await()
end

-- The default ring, by its methods on the module.
local default = {
  prepare = function(_, ...) return uring.prepare(...) end;
  submit = function() return uring.submit() end;
}

local ways = {
  ["called in a task"] = function(name, ...)
    return uring.run(op[name], ...)
  end;
  ["called outside of a task"] = function(name, ...)
    return op[name](...)
  end;
  ["by hand in a task"] = function(name, ...)
    return uring.run(by_hand, default, name, ...)
  end;
  ["by hand outside of a task"] = function(name, ...)
    return by_hand(default, name, ...)
  end;
  ["in a task, on a ring of its own"] = function(...)
    return uring.run(function(...)
      local ring <close> = uring.ring { entries = 8 }
      local rescued = false
      local rescuer = uring.spawn(function() -- a hang becomes a failure
        while true do
          uring.sleep(0.3)
          rescued = true
          ring:prepare "nop"
          ring:submit()
        end
      end)
      local results = table.pack(by_hand(ring, ...))
      rescuer:cancel()
      assert.is_false(rescued, "the task was not woken by its operation")
      return table.unpack(results, 1, results.n)
    end, ...)
  end;
  ["outside of a task, on a ring of its own"] = function(name, ...)
    local ring <close> = uring.ring { entries = 8 }
    return by_hand(ring, name, ...)
  end;
}
local function close(...)
  for _, fd in ipairs { ... } do
    assert.are.equal(0, op.close(fd))
  end
end

-- A file with these contents; its descriptor.
local function file(contents)
  return assert(op.openat(nil, helper.tmpname(contents or ""), const.O_RDWR | const.O_CLOEXEC))
end

local function slurp(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

-- A listening socket on a free port; its address.
local function listener(address, backlog)
  local family = address:find "^unix" and const.AF_UNIX or address:find "^%[" and const.AF_INET6 or const.AF_INET
  local fd = assert(op.socket(family, const.SOCK_STREAM | const.SOCK_CLOEXEC))
  assert(op.bind(fd, address))
  assert(op.listen(fd, backlog))
  return fd, core.local_address(fd)
end

local function connected(address)
  local fd = assert(op.socket(const.AF_INET, const.SOCK_STREAM | const.SOCK_CLOEXEC))
  assert(op.connect(fd, address))
  return fd, core.local_address(fd)
end

-- Turns the loop until fn() is true; a hang becomes a failure.
local function eventually(fn)
  for _ = 1, 1000 do
    if fn() then
      return true
    end
    uring.sleep(0.002)
  end
  return false
end

describe("operations", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  for way, call in pairs(ways) do
    describe(way, function()
      it("nop does nothing and says so", function()
        assert.are.same({ n = 1, 0 }, pack(call("nop")))
      end)

      it("openat opens and creates, close closes", function()
        local path = helper.tmpname("abc")
        local fd = call("openat", nil, path, const.O_RDONLY | const.O_CLOEXEC)
        assert.are.equal("integer", math.type(fd))
        assert.is_true(fd > 2)
        local buffer = uring.buffer(8)
        assert.are.equal(3, op.read(fd, buffer, nil, 0))
        assert.are.equal("abc", buffer:get(1, 3))
        assert.are.same({ n = 1, 0 }, pack(call("close", fd)))
        assert.are.same(failure("close: Bad file descriptor", errno.EBADF), pack(call("close", NONE)))

        os.remove(path)
        fd = call("openat", const.AT_FDCWD, path, const.O_WRONLY | const.O_CREAT | const.O_EXCL, tonumber("600", 8))
        assert.is_true(fd > 2)
        local _, stat = op.statx(nil, path)
        assert.are.equal(tonumber("100600", 8), stat.mode)
        close(fd)
        assert.are.same(failure("openat: File exists", errno.EEXIST),
          pack(call("openat", nil, path, const.O_WRONLY | const.O_CREAT | const.O_EXCL, 384)))
        assert.are.same(failure("openat: No such file or directory", errno.ENOENT),
          pack(call("openat", nil, "/nonexistent/file")))
      end)

      it("openat takes a directory to start from", function()
        local dir = call("openat", nil, "/proc/self", const.O_DIRECTORY | const.O_CLOEXEC)
        local fd = call("openat", dir, "comm", const.O_CLOEXEC)
        local buffer = uring.buffer(32)
        local n = op.read(fd, buffer)
        assert.are.equal(slurp("/proc/self/comm"), buffer:get(1, n))
        close(fd, dir)
        assert.are.same(failure("openat: Not a directory", errno.ENOTDIR),
          pack(call("openat", nil, "/proc/self/comm", const.O_DIRECTORY)))
      end)

      it("read fills a Buffer and tells how much", function()
        local fd = file("hello world")
        local buffer = uring.buffer(5)
        assert.are.same({ n = 1, 5 }, pack(call("read", fd, buffer)))
        assert.are.equal("hello", buffer:get())
        assert.are.equal(3, call("read", fd, buffer, 3)) -- goes on where it stood
        assert.are.equal(" wolo", buffer:get())
        assert.are.equal(5, call("read", fd, buffer, 5, 6))
        assert.are.equal("world", buffer:get())
        assert.are.equal(2, call("read", fd, buffer, nil, 9))
        assert.are.equal("ldrld", buffer:get())
        assert.are.equal(3, call("read", fd, buffer)) -- an offset moves nothing
        assert.are.equal("rldld", buffer:get())
        assert.are.equal(0, call("read", fd, buffer))
        assert.are.equal(0, call("read", fd, buffer, 5, 100))
        assert.are.equal(0, call("read", fd, buffer, 0, 0))
        assert.are.equal("rldld", buffer:get())
        close(fd)
        assert.are.same(failure("read: Bad file descriptor", errno.EBADF), pack(call("read", NONE, buffer)))
        assert.are.equal("owned", buffer:status())
      end)

      it("read fills a slice and nothing around it", function()
        local fd = file("0123456789")
        local buffer = uring.buffer("..........")
        assert.are.equal(4, call("read", fd, buffer:slice(4, 7), nil, 2))
        assert.are.equal("...2345...", buffer:get())
        close(fd)
      end)

      it("write takes strings and Buffers", function()
        local path = helper.tmpname("")
        local fd = assert(op.openat(nil, path, const.O_WRONLY))
        assert.are.same({ n = 1, 5 }, pack(call("write", fd, "hello")))
        assert.are.equal(3, call("write", fd, "abcdef", 3))
        assert.are.equal(2, call("write", fd, uring.buffer("XY"), nil, 0))
        assert.are.equal(1, call("write", fd, uring.buffer("ZZZ"):slice(2, 3), 1, 10))
        assert.are.equal(0, call("write", fd, ""))
        assert.are.equal(2, call("write", fd, "\0!"))
        close(fd)
        assert.are.equal("XYllo" .. "abc" .. "\0!" .. "Z", slurp(path))
        assert.are.same(failure("write: Bad file descriptor", errno.EBADF), pack(call("write", NONE, "x")))
      end)

      it("readv scatters, writev gathers", function()
        local path = helper.tmpname("")
        local fd = assert(op.openat(nil, path, const.O_RDWR))
        assert.are.same({ n = 1, 9 }, pack(call("writev", fd, { "one", uring.buffer("two"), "six" }, nil, 0)))
        assert.are.equal("onetwosix", slurp(path))
        assert.are.equal(3, call("writev", fd, { "ONE", "TWO" }, 1, 3)) -- only the first
        assert.are.equal("oneONEsix", slurp(path))
        local a, b, c = uring.buffer(2), uring.buffer(4), uring.buffer("....")
        assert.are.same({ n = 1, 9 }, pack(call("readv", fd, { a, b, c }, nil, 0)))
        assert.are.equal("on|eONE|six.", a:get() .. "|" .. b:get() .. "|" .. c:get())
        assert.are.equal(2, call("readv", fd, { a, b }, 1, 7))
        assert.are.equal("ix|eONE", a:get() .. "|" .. b:get())
        assert.are.equal(0, call("readv", fd, {}, nil, 0))
        assert.are.equal(4, call("readv", fd, { a, c:slice(1, 2) }))
        assert.are.equal("on|eOx.", a:get() .. "|" .. c:get())
        close(fd)
        assert.are.same(failure("readv: Bad file descriptor", errno.EBADF), pack(call("readv", NONE, { a })))
        assert.are.same(failure("writev: Bad file descriptor", errno.EBADF), pack(call("writev", NONE, { "a" })))
      end)

      it("fsync reaches the disk, but not a pipe", function()
        local fd = file("x")
        assert.are.same({ n = 1, 0 }, pack(call("fsync", fd)))
        assert.are.same({ n = 1, 0 }, pack(call("fsync", fd, const.IORING_FSYNC_DATASYNC)))
        close(fd)
        local r, w = core.pipe()
        assert.are.same(failure("fsync: Invalid argument", errno.EINVAL), pack(call("fsync", r)))
        close(r, w)
      end)

      it("statx tells all about a file", function()
        local path = helper.tmpname(("x"):rep(5000))
        local n, stat = call("statx", nil, path)
        assert.are.equal(0, n)
        assert.are.equal("file", stat.type)
        assert.are.equal(5000, stat.size)
        assert.are.equal(1, stat.nlink)
        local pipe <close> = io.popen("stat -c '%i %f %u %g %Y %b %B' " .. path)
        local ino, mode, uid, gid, mtime, blocks = pipe:read "a":match("(%d+) (%x+) (%d+) (%d+) (%d+) (%d+)")
        assert.are.equal(math.tointeger(ino), stat.ino)
        assert.are.equal(tonumber(mode, 16), stat.mode)
        assert.are.equal(math.tointeger(uid), stat.uid)
        assert.are.equal(math.tointeger(gid), stat.gid)
        assert.are.equal(math.tointeger(mtime), math.floor(stat.mtime))
        assert.are.equal(math.tointeger(blocks), stat.blocks)

        local fd = file("four")
        stat = select(2, call("statx", fd, "", const.AT_EMPTY_PATH, const.STATX_SIZE))
        assert.are.equal(4, stat.size)
        close(fd)
        assert.are.equal("directory", select(2, call("statx", nil, "/proc")).type)
        assert.are.equal("char", select(2, call("statx", nil, "/dev/null")).type)
        assert.are.equal("link", select(2, call("statx", nil, "/proc/self", const.AT_SYMLINK_NOFOLLOW)).type)
        assert.are.same(failure("statx: No such file or directory", errno.ENOENT),
          pack(call("statx", nil, "/nonexistent")))
        assert.are.same(failure("statx: No such file or directory", errno.ENOENT), pack(call("statx", nil, "")))
      end)

      it("socket, bind, listen, accept and connect make a connection", function()
        local server = call("socket", const.AF_INET, const.SOCK_STREAM | const.SOCK_CLOEXEC)
        assert.are.equal("integer", math.type(server))
        assert.are.same({ n = 1, 0 }, pack(call("bind", server, "127.0.0.1:0")))
        assert.are.same({ n = 1, 0 }, pack(call("listen", server, 4)))
        local address = core.local_address(server)
        assert.is_truthy(address:match "^127%.0%.0%.1:%d+$")
        local client = call("socket", const.AF_INET, const.SOCK_STREAM, const.IPPROTO_TCP)
        assert.are.same({ n = 1, 0 }, pack(call("connect", client, address)))
        local accepted = pack(call("accept", server, const.SOCK_CLOEXEC))
        assert.are.equal(2, accepted.n)
        assert.are.equal(core.local_address(client), accepted[2])
        assert.are.equal(core.peer_address(accepted[1]), accepted[2])

        local second = connected(address)
        local bare = pack(call("accept", server, { peer = false }))
        assert.are.equal(1, bare.n)
        assert.are.same(failure("connect: Transport endpoint is already connected", errno.EISCONN),
          pack(call("connect", second, address)))
        assert.are.same(failure("bind: Invalid argument", errno.EINVAL), pack(call("bind", server, "127.0.0.1:0")))
        close(server, client, accepted[1], second, bare[1])
        assert.are.same(failure("accept: Bad file descriptor", errno.EBADF), pack(call("accept", NONE)))
        assert.are.same(failure("listen: Bad file descriptor", errno.EBADF), pack(call("listen", NONE)))
        assert.are.same(failure("socket: Address family not supported by protocol", errno.EAFNOSUPPORT),
          pack(call("socket", 12345, const.SOCK_STREAM)))
      end)

      it("connect to nobody is refused", function()
        local server, address = listener "127.0.0.1:0"
        close(server)
        local fd = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
        assert.are.same(failure("connect: Connection refused", errno.ECONNREFUSED), pack(call("connect", fd, address)))
        close(fd)
      end)

      it("accept names peers of IPv6 and unix sockets", function()
        local server, address = listener "[::1]:0"
        local client = assert(op.socket(const.AF_INET6, const.SOCK_STREAM))
        assert.are.equal(0, call("connect", client, address))
        local fd, peer = call("accept", server)
        assert.are.equal(core.local_address(client), peer)
        assert.is_truthy(peer:match "^%[::1%]:%d+$")
        close(server, client, fd)

        server = listener("unix:@uring-op-spec")
        client = assert(op.socket(const.AF_UNIX, const.SOCK_STREAM))
        assert.are.equal(0, call("connect", client, "unix:@uring-op-spec"))
        fd, peer = call("accept", server)
        assert.are.equal("", peer) -- it has no name
        assert.are.equal("unix:@uring-op-spec", core.peer_address(client))
        close(server, client, fd)
      end)

      it("send and recv move bytes, shutdown ends them", function()
        local a, b = core.socketpair()
        local buffer = uring.buffer(8)
        assert.are.same({ n = 1, 5 }, pack(call("send", a, "hello")))
        assert.are.same({ n = 1, 5 }, pack(call("recv", b, buffer)))
        assert.are.equal("hello\0\0\0", buffer:get())
        assert.are.equal(2, call("send", b, "abc", 2))
        assert.are.equal(2, call("send", b, uring.buffer("XY"), 2, const.MSG_NOSIGNAL))
        assert.are.equal(1, call("recv", a, buffer, 1))
        assert.are.equal(3, call("recv", a, buffer, nil, const.MSG_PEEK))
        assert.are.equal(3, call("recv", a, buffer, 8))
        assert.are.equal("bXY", buffer:get(1, 3))
        assert.are.same(failure("recv: Resource temporarily unavailable", errno.EAGAIN),
          pack(call("recv", a, buffer, nil, const.MSG_DONTWAIT)))
        assert.are.same({ n = 1, 0 }, pack(call("shutdown", a, "w")))
        assert.are.equal(0, call("recv", b, buffer))
        assert.are.same(failure("send: Broken pipe", errno.EPIPE), pack(call("send", a, "x")))
        assert.are.equal(1, call("send", b, "x")) -- the other direction still works
        assert.are.equal(0, call("shutdown", b, const.SHUT_RDWR))
        close(a, b)
        assert.are.same(failure("send: Bad file descriptor", errno.EBADF), pack(call("send", NONE, "x")))
        assert.are.same(failure("shutdown: Bad file descriptor", errno.EBADF), pack(call("shutdown", NONE, "rw")))
        local r, w = core.pipe()
        assert.are.same(failure("recv: Socket operation on non-socket", errno.ENOTSOCK), pack(call("recv", r, buffer)))
        close(r, w)
      end)

      it("recv waits with poll_first, too", function()
        local a, b = core.socketpair()
        local buffer = uring.buffer(4)
        assert.are.equal(4, call("send", a, "ping", { poll_first = true }))
        assert.are.equal(4, call("recv", b, buffer, { poll_first = true }))
        assert.are.equal("ping", buffer:get())
        close(a, b)
      end)

      it("sendmsg and recvmsg carry strings, Buffers and tables of them", function()
        local a, b = core.socketpair(const.SOCK_DGRAM)
        local buffer, rest = uring.buffer(4), uring.buffer(8)
        assert.are.same({ n = 1, 3 }, pack(call("sendmsg", a, { data = "abc" })))
        assert.are.same({ n = 2, 3, { flags = 0, control_length = 0 } }, pack(call("recvmsg", b, { data = buffer })))
        assert.are.equal("abc\0", buffer:get())
        assert.are.equal(3, call("sendmsg", a, { data = uring.buffer("xyz") }))
        assert.are.equal(3, call("recvmsg", b, { data = { buffer:slice(1, 1), rest } }))
        assert.are.equal("xbc\0", buffer:get())
        assert.are.equal("yz", rest:get(1, 2))
        assert.are.equal(9, call("sendmsg", a, { data = { "one", uring.buffer("two"), "six" } }))
        local n, message = call("recvmsg", b, { data = buffer })
        assert.are.equal(4, n)
        assert.are.equal("onet", buffer:get())
        assert.are.equal(const.MSG_TRUNC, message.flags)
        assert.are.equal(0, call("sendmsg", a, {}))
        assert.are.equal(0, call("recvmsg", b, {}))
        close(a, b)
        assert.are.same(failure("sendmsg: Bad file descriptor", errno.EBADF),
          pack(call("sendmsg", NONE, { data = "x" })))
        assert.are.same(failure("recvmsg: Bad file descriptor", errno.EBADF),
          pack(call("recvmsg", NONE, { data = buffer })))
      end)

      it("sendmsg says where to, recvmsg where from", function()
        local fds, addresses = {}, {}
        for i = 1, 2 do
          fds[i] = assert(op.socket(const.AF_INET, const.SOCK_DGRAM))
          assert(op.bind(fds[i], "127.0.0.1:0"))
          addresses[i] = core.local_address(fds[i])
        end
        local buffer = uring.buffer(16)
        assert.are.equal(5, call("sendmsg", fds[1], { data = "hello", to = addresses[2] }))
        local n, message = call("recvmsg", fds[2], { data = buffer })
        assert.are.equal(5, n)
        assert.are.same({ from = addresses[1], flags = 0, control_length = 0 }, message)
        assert.are.equal("hello", buffer:get(1, n))
        close(table.unpack(fds))
      end)

      it("sendmsg hands a descriptor over in its control data", function()
        local a, b = core.socketpair()
        local given = file("passed on")
        local header = string.pack("<I8 i4 i4 i4 i4", 20, const.SOL_SOCKET, 1, given, 0) -- SCM_RIGHTS
        assert.are.equal(1, call("sendmsg", a, { data = "!", control = header }))
        local buffer, control = uring.buffer(1), uring.buffer(64)
        local n, message = call("recvmsg", b, { data = buffer, control = control }, 0)
        assert.are.equal(1, n)
        assert.are.equal(24, message.control_length)
        local size, level, kind, fd = string.unpack("<I8 i4 i4 i4", control:get())
        assert.are.same({ 20, const.SOL_SOCKET, 1 }, { size, level, kind })
        assert.are_not.equal(given, fd)
        local text = uring.buffer(16)
        assert.are.equal(9, op.read(fd, text, nil, 0))
        assert.are.equal("passed on", text:get(1, 9))
        close(a, b, given, fd)
      end)

      it("poll_add tells what a descriptor is ready for", function()
        local r, w = core.pipe()
        assert.are.same({ n = 1, const.POLLOUT }, pack(call("poll_add", w, const.POLLIN | const.POLLOUT)))
        assert.are.equal(1, op.write(w, "x"))
        assert.are.same({ n = 1, const.POLLIN }, pack(call("poll_add", r, const.POLLIN | const.POLLOUT)))
        close(w)
        assert.are.equal(const.POLLIN | const.POLLHUP, call("poll_add", r, const.POLLIN))
        close(r)
        assert.are.same(failure("poll_add: Bad file descriptor", errno.EBADF),
          pack(call("poll_add", NONE, const.POLLIN)))
      end)

      it("timeout gives 0 when its time is up", function()
        local start = uring.now()
        assert.are.same({ n = 1, 0 }, pack(call("timeout", 0.02)))
        assert.is_true(uring.now() - start >= 0.02)
        assert.are.same({ n = 1, 0 }, pack(call("timeout", 0)))
        start = uring.now()
        assert.are.equal(0, call("timeout", uring.now() + 0.01, 0, const.IORING_TIMEOUT_ABS))
        assert.is_true(uring.now() - start >= 0.009)
      end)

      it("cancel of nothing there fails", function()
        local done = uring.prepare("nop")
        done:await()
        assert.are.same(failure("cancel: No such file or directory", errno.ENOENT),
          pack(by_hand(default, "cancel", done)))
      end)

      it("cancel_fd of an idle descriptor fails", function()
        local r, w = core.pipe()
        assert.are.same(failure("cancel_fd: No such file or directory", errno.ENOENT), pack(call("cancel_fd", r)))
        assert.are.same({ n = 1, 0 }, pack(call("cancel_fd", r, const.IORING_ASYNC_CANCEL_ALL)))
        close(r, w)
      end)

      it("raw takes any opcode by number", function()
        local fd = file("raw bytes")
        local buffer = uring.buffer(16)
        assert.are.same({ n = 1, 0 }, pack(call("raw", { opcode = const.IORING_OP_NOP })))
        assert.are.same({ n = 1, 9 }, pack(call("raw", { opcode = const.IORING_OP_READ, fd = fd, addr = buffer })))
        assert.are.equal("raw bytes", buffer:get(1, 9))
        assert.are.equal(3, call("raw", { opcode = const.IORING_OP_READ, fd = fd, addr = buffer, len = 3, off = 4 }))
        assert.are.equal("byt", buffer:get(1, 3))
        assert.are.equal(3, call("raw", { opcode = const.IORING_OP_WRITE, fd = fd, addr = "RAW", off = 0 }))
        assert.are.equal(9, call("raw", { opcode = const.IORING_OP_READ, fd = fd, addr = buffer, off = 0 }))
        assert.are.equal("RAW bytes", buffer:get(1, 9))
        assert.are.equal(0, call("raw", { opcode = const.IORING_OP_FALLOCATE, fd = fd, addr = 100, len = 0, off = 0 }))
        assert.are.equal(100, select(2, op.statx(fd, "", const.AT_EMPTY_PATH)).size)
        assert.are.same(failure("raw: Function not implemented", errno.ENOSYS), pack(call("raw", { opcode = 250 })))
        assert.are.same(failure("raw: Bad file descriptor", errno.EBADF),
          pack(call("raw", { opcode = const.IORING_OP_READ, fd = 1000000, addr = buffer })))
        close(fd)
      end)

      it("raw keeps what it is told to keep, and takes paths", function()
        local path = helper.tmpname("x")
        local buffer = uring.buffer(path .. "\0")
        assert.are.equal(0, call("raw", {
          opcode = const.IORING_OP_UNLINKAT, fd = const.AT_FDCWD, addr = buffer, len = 0, keep = { buffer, "text" };
        }))
        assert.is_nil(io.open(path))
      end)

      it("every row takes async and drain", function()
        local fd = file("later")
        local buffer = uring.buffer(8)
        assert.are.same({ n = 1, 0 }, pack(call("nop", { async = true, drain = true })))
        assert.are.equal(5, call("read", fd, buffer, { async = true }))
        assert.are.equal("later", buffer:get(1, 5))
        assert.are.equal(5, call("read", fd, buffer, 8, 0, { async = true, drain = true }))
        assert.are.equal(5, call("read", fd, buffer, 8, 0, 0, { async = false }))
        assert.are.equal(5, call("readv", fd, { buffer }, nil, 0, { async = true }))
        assert.are.equal(2, call("write", fd, "ab", nil, 0, { async = true }))
        assert.are.equal(0, call("statx", nil, "/", { async = true }))
        assert.are.equal(0, call("fsync", fd, { async = true }))
        assert.are.same(failure("openat: No such file or directory", errno.ENOENT),
          pack(call("openat", nil, "/nonexistent", { async = true })))
        assert.are.equal(0, call("close", fd, { async = true }))
      end)

      it("arguments that are nil are left out", function()
        local fd = file("abc")
        local buffer = uring.buffer(3)
        assert.are.equal(3, call("read", fd, buffer, nil, nil, nil, nil))
        assert.are.equal(0, call("fsync", fd, nil, nil))
        assert.are.equal(0, call("nop", nil, nil, nil))
        close(fd)
      end)
    end)
  end

  it("know each row by name and no other", function()
    local names = {}
    for name, there in pairs(uring.probe()) do
      assert.is_true(there, name)
      assert.are.equal("function", type(op[name]), name)
      names[#names + 1] = name
    end
    assert.is_true(#names >= 25)
    assert.is_truthy(helper.error_of(function() return op.no_such_row end):find("unknown operation", 1, true))
  end)

  it("wait for what is not there yet", function()
    local r, w = core.pipe()
    local buffer = uring.buffer(4)
    local order = {}
    uring.run(function()
      uring.spawn(function()
        order[#order + 1] = "reads"
        local n = op.read(r, buffer)
        order[#order + 1] = n
      end)
      uring.spawn(function()
        uring.sleep(0.01)
        order[#order + 1] = "writes"
        op.write(w, "late")
      end)
    end)
    assert.are.same({ "reads", "writes", 4 }, order)
    assert.are.equal("late", buffer:get())
    close(r, w)
  end)

  describe("by hand", function()
    it("are prepared, submitted, done", function()
      local o = uring.prepare("timeout", 0.01)
      assert.are.equal("prepared", o:status())
      assert.is_truthy(tostring(o):match "^operation %(timeout, prepared, ")
      assert.are.equal(1, uring.submit())
      assert.are.equal("submitted", o:status())
      assert.are.equal(0, o:await())
      assert.are.equal("done", o:status())
      assert.are.equal(0, o:await()) -- and again
    end)

    it("reach the kernel only when they are submitted or awaited", function()
      local r, w = core.pipe()
      local o = uring.prepare("write", w, "x")
      assert.are.equal(0, op.nop())
      assert.are.equal("done", o:status()) -- went along with the other's enter
      local ring <close> = uring.ring { entries = 4 }
      o = ring:prepare("write", w, "y")
      assert.are.equal(1, op.read(r, uring.buffer(8)))
      assert.are.equal("prepared", o:status())
      assert.are.equal(1, o:await())
      assert.are.equal(1, op.read(r, uring.buffer(8)))
      close(r, w)
    end)

    it("go on beyond the submission queue", function()
      local ring <close> = uring.ring { entries = 4 }
      local fd = file("")
      local all = {}
      for i = 1, 50 do
        all[i] = ring:prepare("write", fd, ("%02d"):format(i), nil, (i - 1) * 2)
      end
      for i = 1, 50 do
        assert.are.equal(2, all[i]:await())
      end
      local buffer = uring.buffer(100)
      assert.are.equal(100, op.read(fd, buffer, nil, 0))
      assert.are.equal("0102030405", buffer:get(1, 10))
      assert.are.equal("4950", buffer:get(-4))
      close(fd)
    end)

    it("lend and give back", function()
      local r, w = core.pipe()
      local buffer = uring.buffer(100)
      local before = uring.stats().bytes_lent
      local o = uring.prepare("read", r, buffer, 60)
      assert.are.equal("lent", buffer:status())
      assert.are.equal(60, uring.stats().bytes_lent - before)
      assert.are.equal("buffer is lent to the kernel (read on fd " .. r .. ")", helper.error_of(buffer.get, buffer))
      local text = uring.prepare("write", w, "some text")
      assert.are.equal(69, uring.stats().bytes_lent - before)
      assert.are.equal(9, uring.await(o))
      assert.are.equal(9, uring.await(text))
      assert.are.equal("owned", buffer:status())
      assert.are.equal(0, uring.stats().bytes_lent - before)
      close(r, w)
    end)

    it("timeout ends when as many others have completed", function()
      local ring <close> = uring.ring { entries = 8 }
      local start = uring.now()
      local timeout = ring:prepare("timeout", 10, 2)
      ring:submit()
      assert.are.equal(0, ring:prepare("nop"):await())
      assert.are.equal("submitted", timeout:status())
      assert.are.equal(0, ring:prepare("nop"):await())
      assert.are.same({ n = 1, 0 }, pack(timeout:await()))
      assert.is_true(uring.now() - start < 5)
    end)

    it("drain waits for all that came before", function()
      local r, w = core.pipe()
      local order = {}
      uring.run(function()
        uring.spawn(function()
          op.timeout(0.03)
          order[#order + 1] = "timeout"
        end)
        uring.spawn(function()
          op.nop { drain = true }
          order[#order + 1] = "drained"
        end)
        uring.spawn(function()
          op.nop()
          order[#order + 1] = "after"
        end)
      end)
      assert.are.equal("timeout", order[1])
      assert.are.equal(3, #order)
      close(r, w)
    end)

    it("drain keeps nobody from cancelling what came before, or what waits", function()
      local r, w = core.pipe()
      for _, first in ipairs { true, false } do
        local read = uring.prepare("read", r, uring.buffer(4))
        uring.submit()
        local nop = uring.prepare("nop", { drain = true })
        uring.submit()
        if first then
          assert.are.equal("cancelled", read:cancel():await())
          assert.are.equal(0, nop:await())
        else
          assert.are.equal("cancelled", nop:cancel():await())
          assert.are.equal("submitted", read:status())
          assert.are.equal("cancelled", read:cancel():await())
        end
      end
      close(r, w)
    end)

    it("without a kernel that knows bind and listen, these are done all the same", function()
      local ring <close> = uring.ring { entries = 4, without = { "bind", "listen", "openat" } }
      assert.is_true(ring:probe "bind")
      assert.is_false(ring:probe "openat")
      local fd = assert(op.socket(const.AF_INET, const.SOCK_STREAM))
      assert.are.same({ n = 1, 0 }, pack(by_hand(ring, "bind", fd, "127.0.0.1:0")))
      assert.are.same({ n = 1, 0 }, pack(by_hand(ring, "listen", fd, 3)))
      local client = connected(core.local_address(fd))
      assert.are.same(failure("bind: Invalid argument", errno.EINVAL), pack(by_hand(ring, "bind", fd, "127.0.0.1:0")))
      assert.are.same(failure("listen: Bad file descriptor", errno.EBADF), pack(by_hand(ring, "listen", 1000000)))
      local got = pack(by_hand(ring, "openat", nil, "/"))
      assert.are.equal(errno.ENOSYS, got[3])
      assert.is_truthy(got[2]:match "^openat: ")
      close(fd, client)
    end)
  end)

  describe("cancel", function()
    it("ends an operation by its handle", function()
      local r, w = core.pipe()
      local buffer = uring.buffer(4)
      local o = uring.prepare("read", r, buffer)
      uring.submit()
      assert.are.same({ n = 1, 0 }, pack(op.cancel(o)))
      assert.are.same(failure("read: Operation canceled", errno.ECANCELED), pack(o:await()))
      assert.are.equal("owned", buffer:status())
      close(r, w)
    end)

    it("is a method of the handle, too", function()
      local r, w = core.pipe()
      local o = uring.prepare("read", r, uring.buffer(4))
      uring.submit()
      local cancellation = o:cancel()
      assert.are.equal("cancelling", o:status())
      assert.are.equal("cancelled", cancellation:await())
      assert.are.same(failure("read: Operation canceled", errno.ECANCELED), pack(o:await()))
      close(r, w)
    end)

    it("delivers what was faster", function()
      local r, w = core.pipe()
      local buffer = uring.buffer(4)
      op.write(w, "fast")
      local o = uring.prepare("read", r, buffer)
      uring.submit()
      assert.are.same({ n = 2, "completed", 4 }, pack(o:cancel():await()))
      assert.are.equal("fast", buffer:get())
      close(r, w)
    end)

    it("withdraws what was never submitted", function()
      local r, w = core.pipe()
      local o = uring.prepare("write", w, "never")
      assert.are.equal("cancelled", o:cancel():await())
      assert.are.same(failure("write: Operation canceled", errno.ECANCELED), pack(o:await()))
      assert.are.same(failure("read: Resource temporarily unavailable", errno.EAGAIN),
        pack(op.read(r, uring.buffer(8), nil, nil, RWF_NOWAIT)))
      close(r, w)
    end)

    it("never hits an operation of another ring", function()
      local one <close> = uring.ring { entries = 4 }
      local two <close> = uring.ring { entries = 4 }
      local r, w = core.pipe()
      local innocent = one:prepare("read", r, uring.buffer(4))
      local meant = two:prepare("read", r, uring.buffer(4))
      one:submit()
      two:submit()
      local ok, result = pcall(by_hand, one, "cancel", meant) -- raises, or finds nothing
      assert.is_true(not ok or result == nil, "it hit something")
      op.write(w, "data")
      assert.are.equal(4, innocent:await())
      assert.are.equal("cancelled", meant:cancel():await())
      close(r, w)
    end)

    it("cancel_fd ends one operation on a descriptor, or all", function()
      local r, w = core.pipe()
      local ended = {}
      uring.run(function()
        for i = 1, 3 do
          uring.spawn(function()
            ended[i] = pack(op.read(r, uring.buffer(4)))
          end)
        end
        uring.yield()
        uring.yield()
        assert.are.same({ n = 1, 0 }, pack(op.cancel_fd(r)))
        uring.sleep(0.01)
        local n = 0
        for _ in pairs(ended) do n = n + 1 end
        assert.are.equal(1, n)
        assert.are.same({ n = 1, 2 }, pack(op.cancel_fd(r, const.IORING_ASYNC_CANCEL_ALL)))
      end)
      for i = 1, 3 do
        assert.are.same(failure("read: Operation canceled", errno.ECANCELED), ended[i])
      end
      close(r, w)
    end)
  end)

  describe("with many results", function()
    it("poll_add reports every event", function()
      local r, w = core.pipe()
      local poll = uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
      local buffer = uring.buffer(8)
      local seen = 0
      uring.run(function()
        uring.spawn(function()
          for i = 1, 3 do
            op.write(w, "event " .. i)
            uring.sleep(0.005)
          end
        end)
        for events in poll:results() do
          assert.are.equal(const.POLLIN, events)
          assert.are.equal(7, op.read(r, buffer))
          seen = seen + 1
          assert.are.equal("event " .. seen, buffer:get(1, 7))
          if seen == 3 then
            break
          end
        end
      end)
      assert.are.equal(3, seen)
      assert.are.equal("done", poll:status()) -- leaving the loop has ended it
      close(r, w)
    end)

    it("poll_add tells of a cancel by ending the loop", function()
      local r, w = core.pipe()
      local poll = uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
      local seen = {}
      uring.run(function()
        uring.spawn(function()
          op.write(w, "x")
          uring.sleep(0.005)
          poll:cancel()
        end)
        for events in poll:results() do
          seen[#seen + 1] = events
        end
      end)
      assert.are.same({ const.POLLIN }, seen)
      close(r, w)
    end)

    it("poll_add that fails raises in the loop", function()
      local poll = uring.prepare("poll_add", 1000000, const.POLLIN, { multishot = true })
      local message = helper.error_of(function()
        for _ in poll:results() do
          error "a result"
        end
      end)
      assert.is_truthy(message:find("poll_add: Bad file descriptor", 1, true))
    end)

    it("poll_add is awaited one result at a time", function()
      local r, w = core.pipe()
      local poll = uring.prepare("poll_add", r, const.POLLIN, { multishot = true })
      op.write(w, "x")
      assert.are.same({ n = 1, const.POLLIN }, pack(poll:await()))
      op.write(w, "y")
      assert.are.same({ n = 1, const.POLLIN }, pack(poll:await()))
      local message = helper.error_of(function() return poll:cancel():await() end)
      assert.is_truthy(message:find("await a multishot operation through its results", 1, true))
      assert.are.same(failure("poll_add: Operation canceled", errno.ECANCELED), pack(poll:await()))
      close(r, w)
    end)

    it("accept takes one connection after the other", function()
      local server, address = listener "127.0.0.1:0"
      local accept = uring.prepare("accept", server, const.SOCK_CLOEXEC, { multishot = true })
      local accepted, clients = {}, {}
      for i = 1, 3 do
        clients[i] = connected(address)
      end
      for fd, peer in accept:results() do
        assert.is_nil(peer) -- there is one place for the addresses of many
        accepted[#accepted + 1] = core.peer_address(fd)
        close(fd)
        if #accepted == 3 then
          break
        end
      end
      for i = 1, 3 do
        assert.are.equal(core.local_address(clients[i]), accepted[i])
      end
      close(server, table.unpack(clients))
    end)

    it("accept closes the connections nobody took", function()
      local server, address = listener "127.0.0.1:0"
      local before = helper.testkit.fds()
      local clients = {}
      do
        local accept = uring.prepare("accept", server, { multishot = true })
        uring.submit()
        for i = 1, 5 do
          clients[i] = connected(address)
        end
        assert.is_true(eventually(function() return helper.testkit.fds() == before + 10 end))
        assert.are.equal("submitted", accept:status())
      end
      assert.is_true(eventually(function()
        collectgarbage()
        return helper.testkit.fds() == before + 5
      end))
      assert.are.equal(0, op.recv(clients[1], uring.buffer(1)))
      close(server, table.unpack(clients))
    end)
  end)

  describe("that nobody waits for any more", function()
    it("have the descriptor they open closed: openat", function()
      local before = helper.testkit.fds()
      do
        local o = uring.prepare("openat", nil, "/dev/null")
        uring.submit()
        assert.is_true(eventually(function() return o:status() == "done" end))
        assert.are.equal(before + 1, helper.testkit.fds())
      end
      collectgarbage()
      collectgarbage()
      assert.are.equal(before, helper.testkit.fds())
    end)

    it("have the descriptor they open closed: dropped before they end", function()
      local before = helper.testkit.fds()
      local orphaned = uring.stats().orphaned
      for _ = 1, 10 do
        uring.prepare("openat", nil, "/dev/null", 0, { async = true })
        uring.prepare("socket", const.AF_INET, const.SOCK_STREAM)
      end
      uring.submit()
      collectgarbage()
      collectgarbage()
      assert.is_true(uring.stats().orphaned >= orphaned + 20)
      assert.is_true(eventually(function() return uring.stats().in_flight == 0 end))
      assert.are.equal(before, helper.testkit.fds())
    end)

    it("have the connection they accept closed", function()
      local server, address = listener "127.0.0.1:0"
      local before = helper.testkit.fds()
      do
        local o = uring.prepare("accept", server)
        uring.submit()
        local client = connected(address)
        assert.is_true(eventually(function() return o:status() == "done" end))
        assert.are.equal(before + 2, helper.testkit.fds())
        close(client)
      end
      collectgarbage()
      collectgarbage()
      assert.are.equal(before, helper.testkit.fds())
      close(server)
    end)

    it("deliver a descriptor that was awaited only once", function()
      local o = uring.prepare("openat", nil, "/dev/null")
      local fd = o:await()
      o = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      close(fd) -- it is still open: it was handed out
    end)

    it("are cancelled by leaving the block of a <close> variable", function()
      local r, w = core.pipe()
      local buffer = uring.buffer(4)
      do
        local o <close> = uring.prepare("read", r, buffer)
        uring.submit()
        assert.are.equal("submitted", o:status())
      end
      assert.are.equal("owned", buffer:status())
      assert.are.equal(0, uring.stats().in_flight)
      close(r, w)
    end)
  end)
end)
