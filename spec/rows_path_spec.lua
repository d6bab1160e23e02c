-- The rows that work on paths and on files as a whole, against the real
-- kernel: what each does, how it fails, what it refuses.

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

local ENOENT = "No such file or directory"

local dir -- a directory of the spec's own, and what it is opened as
local dirfd

local function path(name)
  return dir .. "/" .. name
end

local function write(name, contents)
  local file <close> = assert(io.open(path(name), "wb"))
  file:write(contents)
end

local function slurp(name)
  local file <close> = assert(io.open(path(name), "rb"))
  return file:read "a"
end

local function stat(name)
  local ok, result = op.statx(dirfd, name, const.AT_SYMLINK_NOFOLLOW)
  return ok and result
end

local function open(name, flags)
  return assert(op.openat(dirfd, name, (flags or const.O_RDWR) | const.O_CREAT | const.O_CLOEXEC, 384))
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

describe("rows", function()
  after_each(function() -- before what is watched is counted
    close(dirfd)
    os.execute("rm -rf " .. dir)
  end)
  helper.watch(before_each, after_each)
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(op.mkdirat(nil, dir))
    dirfd = assert(op.openat(nil, dir, const.O_DIRECTORY | const.O_CLOEXEC))
  end)

  describe("that change what paths name", function()
    it("mkdirat makes a directory", function()
      assert.are.same({ n = 1, 0 }, pack(op.mkdirat(dirfd, "sub", tonumber("700", 8))))
      assert.are.equal(tonumber("40700", 8), stat("sub").mode)
      assert.are.same({ n = 1, 0 }, pack(op.mkdirat(nil, path "sub/deeper")))
      assert.are.equal("directory", stat("sub/deeper").type)
      assert.are.same(failure("mkdirat: File exists", errno.EEXIST), pack(op.mkdirat(dirfd, "sub")))
      assert.are.same(failure("mkdirat: " .. ENOENT, errno.ENOENT), pack(op.mkdirat(dirfd, "no/such")))
      assert.are.equal(bad("mkdirat", "path", "there is a zero byte in the path"), error_of("mkdirat", dirfd, "a\0b"))
    end)

    it("unlinkat removes files, and directories when told so", function()
      write("file", "x")
      assert.are.same({ n = 1, 0 }, pack(op.unlinkat(dirfd, "file")))
      assert.is_nil(stat "file")
      assert.are.same(failure("unlinkat: " .. ENOENT, errno.ENOENT), pack(op.unlinkat(dirfd, "file")))
      op.mkdirat(dirfd, "sub")
      assert.are.same(failure("unlinkat: Is a directory", errno.EISDIR), pack(op.unlinkat(dirfd, "sub")))
      assert.are.same({ n = 1, 0 }, pack(op.unlinkat(dirfd, "sub", const.AT_REMOVEDIR)))
      assert.is_nil(stat "sub")
      assert.are.equal(bad("unlinkat", "path", "there is a zero byte in the path"), error_of("unlinkat", dirfd, "f\0"))
    end)

    it("renameat moves, exchanges, and does not replace when told so", function()
      write("a", "A")
      write("b", "B")
      assert.are.same({ n = 1, 0 }, pack(op.renameat(dirfd, "a", dirfd, "b", const.RENAME_EXCHANGE)))
      assert.are.equal("BA", slurp "a" .. slurp "b")
      assert.are.same(failure("renameat: File exists", errno.EEXIST),
        pack(op.renameat(dirfd, "a", nil, path "b", const.RENAME_NOREPLACE)))
      assert.are.same({ n = 1, 0 }, pack(op.renameat(nil, path "a", dirfd, "b")))
      assert.is_nil(stat "a")
      assert.are.equal("B", slurp "b")
      assert.are.same(failure("renameat: " .. ENOENT, errno.ENOENT), pack(op.renameat(dirfd, "a", dirfd, "c")))
      for i, argument in ipairs { "oldpath", "newpath" } do
        assert.are.equal(bad("renameat", argument, "there is a zero byte in the path"),
          error_of("renameat", dirfd, i == 1 and "a\0" or "a", dirfd, i == 2 and "b\0" or "b"))
      end
    end)

    it("symlinkat makes a link to whatever it is told", function()
      assert.are.same({ n = 1, 0 }, pack(op.symlinkat("to nowhere", dirfd, "link")))
      assert.are.equal("link", stat("link").type)
      assert.are.equal(#"to nowhere", stat("link").size)
      write("file", "contents")
      assert.are.same({ n = 1, 0 }, pack(op.symlinkat("file", nil, path "good")))
      assert.are.equal("contents", slurp "good")
      assert.are.same(failure("symlinkat: File exists", errno.EEXIST), pack(op.symlinkat("x", dirfd, "link")))
      assert.are.equal(bad("symlinkat", "target", "there is a zero byte in the path"),
        error_of("symlinkat", "a\0", dirfd, "x"))
      assert.are.equal(bad("symlinkat", "linkpath", "string expected, got no value"), error_of("symlinkat", "a", dirfd))
    end)

    it("linkat gives a file a second name", function()
      write("file", "x")
      assert.are.same({ n = 1, 0 }, pack(op.linkat(dirfd, "file", dirfd, "second")))
      assert.are.equal(2, stat("file").nlink)
      assert.are.equal(stat("file").ino, stat("second").ino)
      op.symlinkat("file", dirfd, "link")
      assert.are.same({ n = 1, 0 }, pack(op.linkat(dirfd, "link", dirfd, "third", const.AT_SYMLINK_FOLLOW)))
      assert.are.equal(3, stat("file").nlink)
      assert.are.same(failure("linkat: File exists", errno.EEXIST), pack(op.linkat(dirfd, "file", dirfd, "second")))
      assert.are.equal(bad("linkat", "newdirfd", "integer expected, got string"),
        error_of("linkat", dirfd, "file", "second"))
    end)

    it("keep both paths while they are in the kernel's hands", function()
      write("from" .. ("m"):rep(100), "x")
      local o = uring.prepare("renameat", dirfd, "from" .. ("m"):rep(100), dirfd, "to" .. ("n"):rep(100))
      assert.are.equal(104 + 102, uring.stats().bytes_lent)
      collectgarbage()
      local rubbish = {}
      for i = 1, 1000 do -- whatever was freed is written over
        rubbish[i] = ("z"):rep(100) .. i
      end
      assert.are.equal(1000, #rubbish)
      assert.are.equal(0, o:await())
      assert.are.equal("x", slurp("to" .. ("n"):rep(100)))
      assert.are.equal(0, uring.stats().bytes_lent)
    end)
  end)

  describe("openat2", function()
    it("opens with flags, mode and resolve", function()
      local fd = assert(op.openat2(dirfd, "new", {
        flags = const.O_RDWR | const.O_CREAT | const.O_CLOEXEC;
        mode = tonumber("640", 8);
        resolve = const.RESOLVE_BENEATH;
      }))
      assert.are.equal(3, op.write(fd, "abc"))
      assert.are.equal("abc", slurp "new")
      assert.are.equal(tonumber("100640", 8), stat("new").mode)
      close(fd)
      fd = assert(op.openat2(nil, path "new", {}, { async = true }))
      close(fd)
    end)

    it("goes nowhere it is told not to", function()
      assert.are.same(failure("openat2: Invalid cross-device link", errno.EXDEV),
        pack(op.openat2(dirfd, "..", { resolve = const.RESOLVE_BENEATH })))
      op.symlinkat("/etc", dirfd, "link")
      assert.are.same(failure("openat2: Too many levels of symbolic links", errno.ELOOP),
        pack(op.openat2(dirfd, "link/passwd", { resolve = const.RESOLVE_NO_SYMLINKS })))
      assert.are.same(failure("openat2: Invalid argument", errno.EINVAL),
        pack(op.openat2(dirfd, "new", { mode = 384 }))) -- without O_CREAT
    end)

    it("takes the fields there are, and integers for them", function()
      assert.are.equal(
        "unknown field 'flag' of the how of openat2 (did you mean 'flags'?); it takes flags mode resolve",
        error_of("openat2", nil, "x", { flag = 0 }))
      assert.are.equal("unknown field '?' of the how of openat2; it takes flags mode resolve",
        error_of("openat2", nil, "x", { 5 }))
      assert.are.equal(bad("openat2", "mode", "integer expected, got string"),
        error_of("openat2", nil, "x", { mode = "644" }))
      assert.are.equal(bad("openat2", "flags", "-1 is out of range"), error_of("openat2", nil, "x", { flags = -1 }))
      assert.are.equal(bad("openat2", "how", "table expected, got no value"), error_of("openat2", nil, "x"))
    end)

    it("closes what nobody asks for", function()
      for _ = 1, 20 do
        uring.prepare("openat2", nil, dir, {})
        uring.submit()
        collectgarbage()
      end -- the watch counts descriptors
    end)
  end)

  describe("that change or advise on a file", function()
    it("fallocate makes room, and holes", function()
      local fd = open "f"
      assert.are.same({ n = 1, 0 }, pack(op.fallocate(fd, 0, 0, 8192)))
      assert.are.equal(8192, stat("f").size)
      assert.are.same({ n = 1, 0 }, pack(op.fallocate(fd, const.FALLOC_FL_KEEP_SIZE, 8192, 4096)))
      assert.are.equal(8192, stat("f").size)
      op.write(fd, "data", nil, 0)
      assert.are.same({ n = 1, 0 },
        pack(op.fallocate(fd, const.FALLOC_FL_PUNCH_HOLE | const.FALLOC_FL_KEEP_SIZE, 0, 4096)))
      assert.are.equal("\0\0\0\0", slurp("f"):sub(1, 4))
      assert.are.same(failure("fallocate: Invalid argument", errno.EINVAL), pack(op.fallocate(fd, 0, 0, 0)))
      close(fd)
      assert.are.same(failure("fallocate: Bad file descriptor", errno.EBADF), pack(op.fallocate(NONE, 0, 0, 1)))
      assert.are.equal(bad("fallocate", "len", "-1 is out of range"), error_of("fallocate", NONE, 0, 0, -1))
    end)

    it("ftruncate sets the size", function()
      write("f", "0123456789")
      local fd = open "f"
      assert.are.same({ n = 1, 0 }, pack(op.ftruncate(fd, 4)))
      assert.are.equal("0123", slurp "f")
      assert.are.same({ n = 1, 0 }, pack(op.ftruncate(fd, 6)))
      assert.are.equal("0123\0\0", slurp "f")
      local readonly = assert(op.openat(dirfd, "f", const.O_RDONLY))
      assert.are.same(failure("ftruncate: Invalid argument", errno.EINVAL), pack(op.ftruncate(readonly, 0)))
      close(fd, readonly)
      assert.are.equal(bad("ftruncate", "len", "-1 is out of range"), error_of("ftruncate", NONE, -1))
    end)

    it("ftruncate does the same where the kernel has no opcode for it", function()
      write("f", "0123456789")
      local fd = open "f"
      local ring <close> = uring.ring { entries = 4, without = { "ftruncate" } }
      assert.is_true(ring:probe "ftruncate")
      assert.are.equal(0, ring:prepare("ftruncate", fd, 4):await())
      assert.are.equal("0123", slurp "f")
      assert.are.same(failure("ftruncate: Bad file descriptor", errno.EBADF),
        pack(ring:prepare("ftruncate", NONE, 4):await()))
      close(fd)
    end)

    it("sync_file_range writes back a part of a file", function()
      local fd = open "f"
      op.write(fd, "data")
      local all = const.SYNC_FILE_RANGE_WAIT_BEFORE | const.SYNC_FILE_RANGE_WRITE | const.SYNC_FILE_RANGE_WAIT_AFTER
      assert.are.same({ n = 1, 0 }, pack(op.sync_file_range(fd, 4, 0, all)))
      assert.are.same(failure("sync_file_range: Invalid argument", errno.EINVAL),
        pack(op.sync_file_range(fd, 4, 0, 8)))
      close(fd)
      local r, w = core.pipe()
      assert.are.same(failure("sync_file_range: Illegal seek", errno.ESPIPE), pack(op.sync_file_range(r, 1, 0, all)))
      close(r, w)
      assert.are.equal(bad("sync_file_range", "offset", "integer expected, got no value"),
        error_of("sync_file_range", NONE, 4))
    end)

    it("fadvise tells how a file will be used", function()
      local fd = open "f"
      assert.are.same({ n = 1, 0 }, pack(op.fadvise(fd, 0, 0, const.POSIX_FADV_SEQUENTIAL)))
      assert.are.same({ n = 1, 0 }, pack(op.fadvise(fd, 0, 4096, const.POSIX_FADV_DONTNEED)))
      assert.are.same(failure("fadvise: Invalid argument", errno.EINVAL), pack(op.fadvise(fd, 0, 0, 77)))
      close(fd)
      local r, w = core.pipe()
      assert.are.same(failure("fadvise: Illegal seek", errno.ESPIPE),
        pack(op.fadvise(r, 0, 0, const.POSIX_FADV_NORMAL)))
      close(r, w)
      assert.are.equal(bad("fadvise", "advice", "integer expected, got string"),
        error_of("fadvise", NONE, 0, 0, "sequential"))
    end)
  end)

  describe("madvise", function()
    it("advises on the pages inside of a Buffer, and on nothing around them", function()
      local buffer = uring.buffer(16384)
      buffer:fill(0x78)
      local part = buffer:slice(101, 12388) -- 4096..12288 lies inside
      assert.are.same({ n = 1, 0 }, pack(op.madvise(part, nil, const.MADV_DONTNEED)))
      assert.are.equal(("x"):rep(4096) .. ("\0"):rep(8192) .. ("x"):rep(4096), buffer:get())
      buffer:fill(0x79)
      assert.are.equal(0, op.madvise(buffer, 8191, const.MADV_DONTNEED))
      assert.are.equal(("\0"):rep(4096) .. ("y"):rep(12288), buffer:get())
      for _, advice in ipairs { "WILLNEED", "SEQUENTIAL", "NORMAL", "POPULATE_WRITE", "COLD" } do
        assert.are.equal(0, op.madvise(buffer, nil, const["MADV_" .. advice]))
      end
      assert.are.equal(("\0"):rep(4096) .. ("y"):rep(12288), buffer:get())
    end)

    it("does nothing to a Buffer that has no whole page", function()
      local buffer = uring.buffer "short"
      assert.are.equal(0, op.madvise(buffer, nil, const.MADV_DONTNEED))
      assert.are.equal("short", buffer:get())
      assert.are.equal(0, op.madvise(uring.buffer(0), nil, const.MADV_DONTNEED))
    end)

    it("fails where the advice is not for this memory", function()
      assert.are.same(failure("madvise: Invalid argument", errno.EINVAL),
        pack(op.madvise(uring.buffer(8192), nil, const.MADV_COLLAPSE)))
    end)

    it("refuses advice that would outlive the Buffer, or take it away", function()
      -- MADV_REMOVE, DONTFORK, DOFORK, WIPEONFORK, HWPOISON, GUARD_INSTALL, unknown
      for _, advice in ipairs { 9, 10, 11, 18, 100, 102, 77, 1000 } do
        assert.are.equal(bad("madvise", "advice", "this advice is not for memory that is shared with Lua"),
          error_of("madvise", uring.buffer(8192), nil, advice))
      end
    end)

    it("is refused while the Buffer is lent", function()
      local r, w = core.pipe()
      local buffer = uring.buffer(8192)
      local o = uring.prepare("read", r, buffer)
      assert.are.equal(("buffer is lent to the kernel (read on fd %d)"):format(r),
        error_of("madvise", buffer, nil, const.MADV_DONTNEED))
      o:cancel():await()
      close(r, w)
    end)
  end)

  describe("extended attributes", function()
    it("are set and read by path", function()
      write("f", "")
      assert.are.same({ n = 1, 0 }, pack(op.setxattr("user.one", "first value", path "f")))
      local buffer = uring.buffer(32)
      assert.are.same({ n = 1, 11 }, pack(op.getxattr("user.one", buffer, path "f")))
      assert.are.equal("first value", buffer:get(1, 11))
      assert.are.equal(11, op.getxattr("user.one", uring.buffer(0), path "f")) -- how many there are
      assert.are.equal(0, op.setxattr("user.one", "longer", path "f", const.XATTR_REPLACE, 4))
      assert.are.equal(4, op.getxattr("user.one", buffer, path "f", 8))
      assert.are.equal("long", buffer:get(1, 4))
      assert.are.same(failure("setxattr: File exists", errno.EEXIST),
        pack(op.setxattr("user.one", "x", path "f", const.XATTR_CREATE)))
      assert.are.same(failure("setxattr: No data available", errno.ENODATA),
        pack(op.setxattr("user.two", "x", path "f", const.XATTR_REPLACE)))
      assert.are.same(failure("getxattr: No data available", errno.ENODATA),
        pack(op.getxattr("user.two", buffer, path "f")))
      assert.are.same(failure("getxattr: Numerical result out of range", errno.ERANGE),
        pack(op.getxattr("user.one", buffer, path "f", 3)))
      assert.are.same(failure("getxattr: " .. ENOENT, errno.ENOENT), pack(op.getxattr("user.one", buffer, path "no")))
    end)

    it("are set and read by descriptor, also from Buffers", function()
      local fd = open "f"
      assert.are.same({ n = 1, 0 }, pack(op.fsetxattr(fd, "user.one", uring.buffer "from a Buffer")))
      local buffer = uring.buffer(32)
      assert.are.same({ n = 1, 13 }, pack(op.fgetxattr(fd, "user.one", buffer)))
      assert.are.equal("from a Buffer", buffer:get(1, 13))
      assert.are.equal("owned", buffer:status())
      assert.are.same(failure("fgetxattr: No data available", errno.ENODATA),
        pack(op.fgetxattr(fd, "user.none", buffer)))
      assert.are.same(failure("fsetxattr: Operation not supported", errno.EOPNOTSUPP),
        pack(op.fsetxattr(fd, "nonsense", "x")))
      close(fd)
      assert.are.same(failure("fgetxattr: Bad file descriptor", errno.EBADF),
        pack(op.fgetxattr(NONE, "user.one", buffer)))
      assert.are.same(failure("fsetxattr: Bad file descriptor", errno.EBADF),
        pack(op.fsetxattr(NONE, "user.one", "x")))
    end)

    it("lend the Buffer, and keep the name, the value and the path", function()
      write("f", "")
      local o = uring.prepare("setxattr", "user.name", "value", path "f")
      assert.are.equal(#"user.name" + #"value" + #path "f", uring.stats().bytes_lent)
      assert.are.equal(0, o:await())
      local buffer = uring.buffer(8)
      o = uring.prepare("getxattr", "user.name", buffer, path "f", 5)
      assert.are.equal("lent", buffer:status())
      assert.are.equal("owned", buffer:slice(6, 8):status())
      assert.are.equal(5, o:await())
      assert.are.equal("value", buffer:get(1, 5))
    end)

    it("have names without zero bytes, and values that are as long as is said", function()
      assert.are.equal(bad("getxattr", "name", "there is a zero byte in the name"),
        error_of("getxattr", "user\0", uring.buffer(1), "x"))
      assert.are.equal(bad("fsetxattr", "length", "3 is more than the 2 bytes there are"),
        error_of("fsetxattr", NONE, "user.x", "ab", 0, 3))
      assert.are.equal(bad("setxattr", "length", "3 is more than the 2 bytes there are"),
        error_of("setxattr", "user.x", uring.buffer "ab", "x", 0, 3))
      assert.are.equal(bad("fgetxattr", "length", "9 is more than the 8 bytes there are"),
        error_of("fgetxattr", NONE, "user.x", uring.buffer(8), 9))
      assert.are.equal(bad("getxattr", "buffer", "Buffer expected, got string"),
        error_of("getxattr", "user.x", "text", "x"))
    end)

    it("cannot be made to overrun a Buffer by raw", function()
      assert.are.equal(bad("raw", "len", "9 is more than the 8 bytes there are"), error_of("raw",
        { opcode = 44, addr = "user.x is a long name", addr2 = uring.buffer(8), len = 9 })) -- GETXATTR
      assert.are.same(failure("raw: Bad file descriptor", errno.EBADF), pack(op.raw { opcode = 43, fd = NONE,
        addr = "user.x", addr2 = uring.buffer(8), len = 8 })) -- FGETXATTR, whose name is shorter
    end)
  end)
end)
