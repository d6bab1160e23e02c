local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local errno, fs = uring.errno, uring.fs
local pack = table.pack

local function write(path, s)
  local file = assert(io.open(path, "wb"))
  assert(file:write(s))
  file:close()
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local s = file:read "a"
  file:close()
  return s
end

-- What a shell command prints.
local function shell(command, ...)
  local pipe = assert(io.popen(command:format(...) .. " 2>&1"))
  local s = pipe:read "a"
  pipe:close()
  return s
end

describe("copying", function()
  helper.watch(before_each, after_each)

  local dir, p
  before_each(function()
    dir = assert(fs.tempdir())
    p = function(name) return dir.path .. "/" .. name end
  end)
  after_each(function()
    assert.are.equal(0, uring.stats().jobs)
    assert(dir:close())
  end)

  local function make_tree(top, dirs, files)
    local n = 0
    for i = 1, dirs do
      local path = p(("%s/d%d/e%d"):format(top, i % 7, i))
      assert(fs.makedirs(path))
      for j = 1, files do
        write(path .. "/f" .. j, ("%d %d\n"):format(i, j):rep((i * j) % 300))
        n = n + 1
      end
    end
    return n
  end

  describe("a file", function()
    it("copies what is in it, whatever its size", function()
      for _, size in ipairs { 0, 1, 4096, 65535, 65536, 65537, 1000000, (1 << 24) + 3 } do
        local s = ("0123456789abcde\n"):rep(size // 16 + 1):sub(1, size)
        write(p "a", s)
        assert.are.same({ n = 3, 1, size, 0 }, pack(fs.copy(p "a", p "b")))
        assert.is_true(s == read(p "b"), size)
      end
      assert(fs.copy("/proc/self/status", p "status")) -- which says that it is empty
      assert.is_truthy(read(p "status"):find "^Name:")
    end)

    it("keeps holes", function()
      write(p "a", "begin")
      assert(fs.truncate(p "a", 50000000))
      local file = assert(io.open(p "a", "r+b"))
      file:seek("set", 30000000)
      file:write(("middle"):rep(10000))
      file:close()
      assert.are.equal(1, (fs.copy(p "a", p "b")))
      assert.are.equal("", shell("cmp %s %s", p "a", p "b"))
      assert.is_true(fs.stat(p "b").blocks * 512 < 5000000)
      assert(fs.truncate(p "a", 0))
      assert(fs.truncate(p "a", 1000000)) -- nothing but a hole
      assert(fs.copy(p "a", p "b"))
      assert.are.equal("", shell("cmp %s %s", p "a", p "b"))
    end)

    it("writes over what is there, unless it must not", function()
      write(p "a", "new")
      write(p "b", "older and longer")
      assert.are.same({ n = 3, nil, p "a" .. " -> " .. p "b" .. ": File exists", errno.EEXIST },
        pack(fs.copy(p "a", p "b", { overwrite = false })))
      assert.are.equal("older and longer", read(p "b"))
      assert.is_truthy(fs.copy(p "a", p "b"))
      assert.are.equal("new", read(p "b"))
      assert(fs.link(p "a", p "same"))
      assert.are.equal(errno.EINVAL, select(3, fs.copy(p "a", p "same")))
      assert.are.equal(errno.EINVAL, select(3, fs.copy(p "a", p "a")))
      assert.are.equal("new", read(p "a"))
      assert(fs.mkdir(p "d"))
      assert.are.same({ n = 3, nil, p "a" .. " -> " .. p "d" .. ": Is a directory", errno.EISDIR },
        pack(fs.copy(p "a", p "d")))
      assert.are.equal(errno.EISDIR, select(3, fs.copy(p "d", p "e")))
      assert.are.equal(errno.ENOENT, select(3, fs.copy(p "no", p "e")))
      assert.are.equal(errno.ENOENT, select(3, fs.copy(p "a", p "no/e")))
      assert.is_false(fs.exists(p "e"))
    end)

    it("gives it the permissions it may have, and on demand all, and the times", function()
      write(p "a", "x")
      assert(fs.chmod(p "a", "4751"))
      assert(fs.utime(p "a", 1000.5, 2000.25))
      assert(fs.copy(p "a", p "b"))
      assert.are.equal(tonumber("751", 8) & ~tonumber(shell "umask", 8), fs.stat(p "b").mode)
      assert.is_true(fs.stat(p "b").mtime > 3000)
      assert(fs.utime(p "a", 1000.5, 2000.25)) -- reading it has changed that
      assert(fs.copy(p "a", p "c", { preserve = true }))
      local info = fs.stat(p "c")
      assert.are.same({ tonumber("4751", 8), 1000.5, 2000.25 }, { info.mode, info.atime, info.mtime })
    end)

    it("follows a link by default, or copies it", function()
      write(p "a", "x")
      assert(fs.symlink("a", p "l"))
      assert(fs.utime(p "l", 5, 6, { nofollow = true }))
      assert(fs.copy(p "l", p "b"))
      assert.are.equal("file", fs.lstat(p "b").type)
      assert(fs.copy(p "l", p "c", { follow = false, preserve = true }))
      assert.are.same({ "a", 6.0 }, { fs.readlink(p "c"), fs.lstat(p "c").mtime })
      assert(fs.copy(p "l", p "b", { follow = false })) -- in the place of a file
      assert.are.equal("a", fs.readlink(p "b"))
      assert.are.equal(errno.EINVAL, select(3, fs.copy(p "l", p "l", { follow = false })))
      assert.are.equal(errno.EEXIST, select(3, fs.copy(p "l", p "c", { follow = false, overwrite = false })))
      os.execute("mkfifo " .. p "fifo")
      assert(fs.copy(p "fifo", p "fifo2"))
      assert(fs.copy(p "fifo", p "fifo2"))
      assert.are.equal("fifo", fs.lstat(p "fifo2").type)
    end)
  end)

  describe("a tree", function()
    it("is what diff -r finds no difference in", function()
      local files = make_tree("from", 60, 12)
      write(p "from/large", ("large"):rep(1000000))
      assert(fs.symlink("nowhere", p "from/link"))
      assert(fs.symlink("..", p "from/d1/up"))
      assert(fs.makedirs(p "from/empty/one"))
      for _, limit in ipairs { 1, 2, 8, 64 } do
        local n, bytes, directories = fs.copy(p "from", p "to", { recursive = true, limit = limit })
        assert.are.same({ files + 3, 60 + 7 + 3 }, { n, directories })
        assert.is_true(bytes > 5000000)
        assert.are.equal("", shell("diff -r --no-dereference %s %s", p "from", p "to"))
        assert.is_true(fs.remove(p "to", { recursive = true }))
      end
    end)

    it("with directories larger than what one job reads", function()
      for i = 1, 3000 do
        write(p(i .. ("n"):rep(i % 200)), tostring(i))
      end
      local to = assert(fs.tempdir())
      assert.are.same({ n = 3, 3000, 10893, 1 }, pack(fs.copy(dir.path, to.path, { recursive = true })))
      assert.are.equal("", shell("diff -r %s %s", dir.path, to.path))
      assert(to:close())
    end)

    it("is added to one that is there", function()
      make_tree("from", 10, 3)
      assert(fs.makedirs(p "to/d1"))
      write(p "to/d1/other", "kept")
      assert(fs.symlink("nowhere", p "from/l"))
      assert(fs.copy(p "from", p "to", { recursive = true }))
      assert(fs.copy(p "from", p "to", { recursive = true }))
      assert.are.equal(("Only in %s/d1: other\n"):format(p "to"),
        shell("diff -r --no-dereference %s %s", p "from", p "to"))
      assert.are.equal(errno.EEXIST, select(3, fs.copy(p "from", p "to", { recursive = true, overwrite = false })))
    end)

    it("keeps times and permissions on demand, and is not open to more than the original", function()
      make_tree("from", 8, 2)
      assert(fs.chmod(p "from/d1", "2755"))
      assert(fs.chmod(p "from/d2", "500"))
      local list = "cd %s && find . -printf '%%p %%m %%T@\\n' | sort"
      assert(fs.copy(p "from", p "to", { recursive = true, preserve = true }))
      assert.are.equal(shell(list, p "from"), shell(list, p "to"))
      assert(fs.copy(p "from", p "plain", { recursive = true }))
      assert.are.equal(tonumber("500", 8), fs.stat(p "plain/d2").mode)
      assert(fs.chmod(p "from/d2", "700"))
    end)

    it("is not copied into itself", function()
      make_tree("from", 4, 1)
      local n, message, code = fs.copy(p "from", p "from/d1/copy", { recursive = true })
      assert.is_nil(n)
      assert.are.equal(p "from/d1/copy" .. " -> " .. p "from/d1/copy/d1/copy" .. ": Too many levels of symbolic links",
        message)
      assert.are.equal(errno.ELOOP, code)
    end)

    it("goes on past what cannot be copied, where on_error is there to be told", function()
      local files = make_tree("from", 6, 80)
      assert(fs.mkdir(p "to"))
      assert(fs.makedirs(p "to/d1/e1/f7"))
      assert(fs.makedirs(p "to/d2/e2/f70"))
      write(p "to/d3", "in the way")
      local seen = {}
      local n = fs.copy(p "from", p "to", { recursive = true, on_error = function(message, code, from, to)
        assert.are.equal(from .. " -> " .. to .. ": " .. message:match "[^:]*$":sub(2), message)
        seen[#seen + 1] = code .. " " .. to:sub(#dir.path + 2)
      end })
      table.sort(seen)
      assert.are.same({ "20 to/d3", "21 to/d1/e1/f7", "21 to/d2/e2/f70" }, seen)
      assert.are.equal(files - 80 - 2, n)
      assert.are.equal(errno.EISDIR, select(3, fs.copy(p "from/d1", p "to/d1", { recursive = true })))
      assert.has_error(function()
        fs.copy(p "from", p "to", { recursive = true, on_error = function() error("enough", 0) end })
      end, "enough")
    end)

    it("copies with few descriptors, by fewer jobs, whoever of them gets one", function()
      if helper.valgrind then
        return pending "valgrind has descriptors of its own, below the limit, too"
      end
      local files = make_tree("from", 60, 3)
      local text, status = helper.script(([[
        local uring, testkit = require "uring", require "testkit"
        local fs = require "uring.fs"
        uring.sleep(0)
        local from, to, before = %q, %q, testkit.fds()
        for spare = 6, 16 do
          for limit = 8, 24, 8 do
            if fs.exists(to) then assert(fs.remove(to, { recursive = true })) end
            testkit.spare_fds(spare)
            local n, message, directories = fs.copy(from, to, { recursive = true, limit = limit })
            testkit.limit_fds(1000)
            local what = ("%%d spare, limit %%d: %%s"):format(spare, limit, n and directories or message)
            assert(n == %d and directories == 68, what)
          end
        end
        print(testkit.fds() == before, uring.stats().jobs)
      ]]):format(p "from", p "to", files))
      assert.are.same({ "true\t0\n", 0 }, { text, status })
      assert.are.equal("", shell("diff -r %s %s", p "from", p "to"))
    end)

    it("says that there are no descriptors where even one job finds none", function()
      make_tree("from", 3, 3)
      local text, status = helper.script(([[
        local uring, testkit = require "uring", require "testkit"
        local fs = require "uring.fs"
        uring.sleep(0)
        local free = testkit.fds()
        testkit.spare_fds(1)
        print(fs.copy(%q, %q, { recursive = true }))
        print(testkit.fds() == free, uring.stats().jobs)
      ]]):format(p "from", p "to"))
      assert.are.equal(0, status)
      assert.is_truthy(text:find("Too many open files\t24\ntrue\t0\n", 1, true), text)
    end)

    it("finds no room", function()
      local small = p "small"
      assert(fs.mkdir(small))
      if not os.execute("mount -t tmpfs -o size=200k,mode=755 tmpfs " .. small .. " 2>/dev/null") then
        return pending "mounting is not allowed"
      end
      local ok, err = pcall(function()
        for i = 1, 100 do
          write(p("f" .. i), ("x"):rep(5000))
        end
        assert(fs.mkdir(p "from"))
        os.execute(("mv %s %s"):format(p "f*[0-9]", p "from"))
        local n, message, code = fs.copy(p "from", small .. "/to", { recursive = true })
        assert.is_nil(n)
        assert.are.equal(errno.ENOSPC, code)
        assert.is_truthy(message:find "^.* %-> .*: No space left on device$")
        for name in fs.readdir(small .. "/to") do -- those that are there are whole
          assert.are.equal(5000, fs.stat(small .. "/to/" .. name).size)
        end
        assert.are.equal(errno.ENOSPC, select(3, fs.writefile(small .. "/g", ("x"):rep(300000))))
        assert.are.same({ "to" }, (fs.list(small)))
        assert.are.equal(errno.ENOSPC, select(3, fs.writefile(small .. "/g", ("x"):rep(300000), { atomic = false })))
      end)
      helper.eventually(function() -- a file of an operation is let go of a moment after its completion
        return os.execute("umount " .. small .. " 2>/dev/null")
      end)
      assert(ok, err)
    end)

    it("stops when the task is cancelled, at every step, with no file half copied", function()
      make_tree("from", 30, 8)
      write(p "from/large", ("0123456789"):rep(3000000))
      local sizes = {}
      for path, kind, info in fs.walk(p "from", { stat = true }) do
        sizes[path:sub(#dir.path + 6)] = kind == "file" and info.size or nil
      end
      local cancelled = 0
      for step = 0, helper.times(120) do
        uring.run(function()
          local task = uring.spawn(fs.copy, p "from", p "to", { recursive = true, limit = step % 9 + 1 })
          for _ = 1, step % 7 do
            uring.yield()
          end
          uring.sleep(step * 0.00004)
          task:cancel()
          local ended, err = pcall(task.await, task)
          cancelled = cancelled + (ended and 0 or 1)
          assert(ended or err == uring.cancelled, err)
        end)
        assert.are.equal(0, uring.stats().jobs)
        if fs.exists(p "to") then
          for path, kind, info in fs.walk(p "to", { stat = true }) do
            assert(kind ~= "file" or sizes[path:sub(#dir.path + 4)] == info.size, path)
          end
          assert(fs.remove(p "to", { recursive = true }))
        end
      end
      assert.is_true(cancelled > 0)
    end)

    it("removes a large file that it was copying", function()
      write(p "large", ("0123456789abcdef"):rep(4 << 20))
      uring.run(function()
        local task = uring.spawn(fs.copy, p "large", p "copy")
        helper.eventually(function() return fs.exists(p "copy") end)
        task:cancel()
        if not pcall(task.await, task) then
          assert.is_false(fs.exists(p "copy"))
        end
      end)
    end)
  end)

  it("goes on beside other tasks", function()
    make_tree("from", 40, 10)
    uring.run(function()
      local ticks, longest, last = 0, 0, uring.now()
      local ticker = uring.spawn(function()
        while true do
          uring.sleep(0.0005)
          local now = uring.now()
          longest, last, ticks = math.max(longest, now - last), now, ticks + 1
        end
      end)
      for i = 1, 5 do
        assert(fs.copy(p "from", p("to" .. i), { recursive = true }))
      end
      ticker:cancel()
      assert.is_true(ticks > 3, tostring(ticks))
      assert.is_true(helper.slow or longest < 0.1, tostring(longest))
    end)
  end)

  it("tells of misuse", function()
    for _, case in ipairs {
      { 1, "b" }, { "a" }, { "a", "b", { limit = 0 } }, { "a", "b", { limit = "1" } }, { "a", "b", { deep = true } },
      { "a", "b", { on_error = 1 } },
    } do
      assert.is_truthy(helper.error_of(function()
        fs.copy(table.unpack(case))
      end):find("fs_copy_spec", 1, true))
    end
    write(p "a", "")
    assert(fs.mkdir(p "d"))
    uring.run(function()
      local part, next, bytes = core.copy_directory(p "d", p "e", 0):await()
      assert.are.same({ 0, 0, 0, true }, { next, bytes, part:count(), part:is_last() })
      for _, call in ipairs { { "copy", 0, 1 }, { "copy", 1, 1 }, { "copy", 2, 1 }, { "name", 1 }, { "next_part" } } do
        assert.is_false(pcall(part[call[1]], part, table.unpack(call, 2)))
      end
      part:close()
      part:close()
      assert.is_truthy(helper.error_of(part.count, part):find("it is closed", 1, true))
    end)
  end)
end)
