local helper = require "spec.support.helper"
local streams = require "spec.support.streams"
local uring = require "uring"

local errno, fs, testkit = uring.errno, uring.fs, helper.testkit
local pack = table.pack

local function octal(digits)
  return tonumber(digits, 8)
end

-- What a file holds, by io's own reading.
local function contents(path)
  local file = assert(io.open(path, "rb"))
  local s = file:read "a"
  file:close()
  return s
end

local function names_in(path)
  return table.concat((fs.list(path)), " ")
end

describe("paths", function()
  helper.watch(before_each, after_each)

  local dir, p
  before_each(function()
    dir = assert(fs.tempdir())
    p = function(name) return dir.path .. "/" .. name end
  end)
  after_each(function()
    assert(dir:close())
  end)

  it("are told of by stat and lstat", function()
    assert(fs.writefile(p "f", "12345", { mode = "640" }))
    assert(fs.symlink("f", p "l"))
    local info = fs.stat(p "f")
    assert.are.same({ "file", 5, octal "640", 1 }, { info.type, info.size, info.mode, info.nlink })
    assert.is_true(math.abs(info.mtime - os.time()) < 60)
    assert.are.equal("float", math.type(info.mtime))
    assert.are.same({ "file", "link", 1 }, { fs.stat(p "l").type, fs.lstat(p "l").type, fs.lstat(p "l").size })
    assert.are.equal("directory", fs.stat(dir.path).type)
    assert.are.same({ n = 3, nil, p "no" .. ": No such file or directory", errno.ENOENT }, pack(fs.stat(p "no")))
    assert.are.same({ n = 3, nil, p "f/x" .. ": Not a directory", errno.ENOTDIR }, pack(fs.lstat(p "f/x")))
  end)

  it("exist, or do not, or cannot be told", function()
    assert(fs.symlink("nowhere", p "dangling"))
    assert.are.same({ true, false, false, false },
      { fs.exists(dir.path), fs.exists(p "a"), fs.exists(p "a/b"), fs.exists(p "dangling") })
    local long = ("x"):rep(300)
    assert.are.same({ n = 3, nil, p(long) .. ": File name too long", errno.ENAMETOOLONG }, pack(fs.exists(p(long))))
  end)

  it("are directories that are made, with all above them, and removed", function()
    assert.are.same({ n = 1, true }, pack(fs.mkdir(p "a", "700")))
    assert.are.equal(octal "700", fs.stat(p "a").mode)
    assert.are.same({ n = 3, nil, p "a" .. ": File exists", errno.EEXIST }, pack(fs.mkdir(p "a")))
    assert.are.same({ n = 3, nil, p "x/y" .. ": No such file or directory", errno.ENOENT }, pack(fs.mkdir(p "x/y")))
    assert.is_true(fs.makedirs(p "x//y/z/"))
    assert.is_true(fs.makedirs(p "x/y/z"))
    assert(fs.writefile(p "f", ""))
    assert.are.same({ n = 3, nil, p "f" .. ": File exists", errno.EEXIST }, pack(fs.makedirs(p "f")))
    assert.are.equal(errno.ENOTDIR, select(3, fs.makedirs(p "f/g/h")))
    assert.are.equal(errno.ENOTEMPTY, select(3, fs.rmdir(p "x")))
    assert.is_true(fs.rmdir(p "x/y/z"))
    assert.are.equal(errno.ENOTDIR, select(3, fs.rmdir(p "f")))
  end)

  it("change names, in one step", function()
    assert(fs.writefile(p "a", "A"))
    assert(fs.writefile(p "b", "B"))
    assert.are.same({ n = 3, nil, p "a" .. " -> " .. p "b" .. ": File exists", errno.EEXIST },
      pack(fs.rename(p "a", p "b", { noreplace = true })))
    assert.is_true(fs.rename(p "a", p "b", { exchange = true }))
    assert.are.same({ "B", "A" }, { contents(p "a"), contents(p "b") })
    assert.is_true(fs.rename(p "a", p "b"))
    assert.are.same({ "b", "B" }, { names_in(dir.path), contents(p "b") })
    assert.are.equal(errno.ENOENT, select(3, fs.rename(p "a", p "c")))
    assert.are.equal(errno.EINVAL, select(3, fs.rename(p "b", p "c", { noreplace = true, exchange = true })))
  end)

  it("are linked, both ways", function()
    assert(fs.writefile(p "a", "A"))
    assert.is_true(fs.link(p "a", p "b"))
    assert.are.equal(2, fs.stat(p "a").nlink)
    assert.is_true(fs.symlink("some where", p "l"))
    assert.are.same({ n = 1, "some where" }, pack(fs.readlink(p "l")))
    assert.are.same({ n = 3, nil, p "a" .. ": Invalid argument", errno.EINVAL }, pack(fs.readlink(p "a")))
    assert.are.same({ n = 3, nil, "x -> " .. p "l" .. ": File exists", errno.EEXIST }, pack(fs.symlink("x", p "l")))
    local long = ("y/"):rep(1500)
    assert(fs.symlink(long, p "long"))
    assert.are.equal(long, fs.readlink(p "long"))
    assert(fs.symlink(dir.path .. "/./b", p "to b"))
    assert.are.equal(p "b", fs.realpath(p "to b"))
    assert.are.equal(errno.ENOENT, select(3, fs.realpath(p "l")))
  end)

  it("have permissions, owners, times and a size", function()
    assert(fs.writefile(p "f", "12345"))
    assert.is_true(fs.chmod(p "f", "4755"))
    assert.are.equal(octal "4755", fs.stat(p "f").mode)
    assert.is_true(fs.chmod(p "f", 256))
    assert.are.equal(256, fs.stat(p "f").mode)
    assert.is_true(fs.chmod(p "f", "600"))
    assert.is_true(fs.utime(p "f", 1000.25, 2000000000.5))
    assert.are.same({ 1000.25, 2000000000.5 }, { fs.stat(p "f").atime, fs.stat(p "f").mtime })
    assert.is_true(fs.utime(p "f", nil, -1.5))
    assert.are.same({ 1000.25, -1.5 }, { fs.stat(p "f").atime, fs.stat(p "f").mtime })
    assert.is_true(fs.utime(p "f", true, nil))
    assert.is_true(math.abs(fs.stat(p "f").atime - os.time()) < 60)
    assert.is_true(fs.truncate(p "f", 2))
    assert.are.equal("12", contents(p "f"))
    assert.is_true(fs.truncate(p "f", 4))
    assert.are.equal("12\0\0", contents(p "f"))
    assert.is_true(fs.truncate(p "f"))
    assert.are.equal(0, fs.stat(p "f").size)
    assert.is_true(fs.chown(p "f", nil, nil))
    assert(fs.symlink("f", p "l"))
    assert.is_true(fs.utime(p "l", 1, 2, { nofollow = true }))
    assert.are.equal(2.0, fs.lstat(p "l").mtime)
    for _, call in ipairs { { fs.chmod, "600" }, { fs.chown, 0, 0 }, { fs.utime, 1, 1 }, { fs.truncate, 1 } } do
      assert.are.same({ n = 3, nil, p "no" .. ": No such file or directory", errno.ENOENT },
        pack(call[1](p "no", table.unpack(call, 2))))
    end
  end)

  it("have extended attributes", function()
    assert(fs.writefile(p "f", ""))
    if select(3, fs.setxattr(p "f", "user.a", "x")) == errno.EOPNOTSUPP then
      return pending "this file system has none"
    end
    assert.is_true(fs.setxattr(p "f", "user.a", "one\0two"))
    assert.is_true(fs.setxattr(p "f", "user.b", ""))
    assert.are.same({ "one\0two", "" }, { fs.getxattr(p "f", "user.a"), fs.getxattr(p "f", "user.b") })
    local names = fs.listxattr(p "f")
    table.sort(names)
    assert.are.same({ "user.a", "user.b" }, names)
    assert.are.equal(errno.EEXIST, select(3, fs.setxattr(p "f", "user.a", "", { create = true })))
    assert.are.equal(errno.ENODATA, select(3, fs.setxattr(p "f", "user.c", "", { replace = true })))
    local file <close> = assert(uring.open(p "f", "r+"))
    assert.is_true(fs.setxattr(file:fd(), "user.a", "by number"))
    assert.are.equal("by number", fs.getxattr(file:fd(), "user.a"))
    assert.is_true(fs.removexattr(p "f", "user.a"))
    assert.are.same({ n = 3, nil, p "f" .. ": No data available", errno.ENODATA }, pack(fs.getxattr(p "f", "user.a")))
    assert.are.same({ n = 3, nil, p "f" .. ": No data available", errno.ENODATA },
      pack(fs.removexattr(p "f", "user.a")))
    assert.are.same({ "user.b" }, fs.listxattr(p "f"))
  end)

  it("are on a file system", function()
    local vfs = fs.statvfs(dir.path)
    assert.is_true(vfs.size >= vfs.free and vfs.free >= vfs.available and vfs.size > 0)
    assert.are.equal(errno.ENOENT, select(3, fs.statvfs(p "no")))
  end)

  it("are strings without zero bytes; modes and options are checked", function()
    local one = { "stat", "lstat", "exists", "readlink", "realpath", "statvfs", "mkdir", "makedirs", "rmdir", "chmod",
      "chown", "utime", "truncate", "listxattr", "removexattr", "getxattr", "setxattr", "readdir", "list", "walk",
      "remove", "readfile", "writefile", "watch" }
    local more = { chmod = { "600" }, removexattr = { "user.x" }, getxattr = { "user.x" }, setxattr = { "user.x", "" },
      writefile = { "" } }
    for _, name in ipairs(one) do
      local err = helper.error_of(function()
        fs[name]({}, table.unpack(more[name] or {}))
      end)
      assert.are.equal(("bad argument #1 to '%s' (string expected, got table)"):format(name), err:match "bad.*")
      assert.is_truthy(err:find("fs_spec", 1, true), err)
      local result = pack(fs[name]("a\0b", table.unpack(more[name] or {})))
      assert.are.same({ 3, errno.EINVAL }, { result.n, result[3] }, name)
    end
    for _, name in ipairs { "rename", "link", "symlink", "copy" } do
      assert.is_truthy(helper.error_of(fs[name], "a", 1):find("string expected, got number", 1, true))
      assert.are.same({ n = 3, nil, "a -> b\0c: there is a zero byte in the path", errno.EINVAL },
        pack(fs[name]("a", "b\0c")))
    end
    for _, mode in ipairs { "8", "", 4096, -1, 1.5, {} } do
      assert.is_truthy(helper.error_of(fs.mkdir, p "d", mode):find("permissions expected", 1, true))
    end
    assert.is_truthy(helper.error_of(fs.chmod, p "d"):find("bad argument #2 to 'chmod'", 1, true))
    assert.is_truthy(helper.error_of(fs.truncate, p "d", -1):find("size in bytes expected, got -1", 1, true))
    for name, call in pairs {
      rename = { "a", "b", { replace = true } }, remove = { "a", { tree = true } }, walk = { "a", { sorted = true } },
      copy = { "a", "b", { modes = true } }, writefile = { "a", "", { atom = true } }, tempdir = { { path = "" } },
      watch = { "a", { event = {} } }, chmod = { "a", "600", { follow = true } },
    } do
      local err = helper.error_of(function()
        fs[name](table.unpack(call))
      end)
      assert.is_truthy(err:find("unknown option .* of " .. name), err)
      assert.is_truthy(err:find("fs_spec", 1, true), err)
    end
  end)

  describe("of whole files", function()
    it("are read, whatever their size", function()
      for _, size in ipairs { 0, 1, 65535, 65536, 65537, 200000, 1 << 21 } do
        local s = ("0123456789abcdef"):rep(size // 16 + 1):sub(1, size)
        assert(fs.writefile(p "f", s, { sync = false }))
        assert.is_true(s == fs.readfile(p "f"), size)
        assert.is_true(s == contents(p "f"), size)
      end
      assert.are.equal(contents "/proc/self/limits", fs.readfile "/proc/self/limits")
      assert.are.same({ n = 3, nil, p "no" .. ": No such file or directory", errno.ENOENT }, pack(fs.readfile(p "no")))
      assert.are.same({ n = 3, nil, dir.path .. ": Is a directory", errno.EISDIR }, pack(fs.readfile(dir.path)))
    end)

    it("are written anew, and whoever has the old one keeps it", function()
      assert(fs.writefile(p "f", "old"))
      assert(fs.chmod(p "f", "604"))
      local old <close> = assert(uring.open(p "f"))
      assert.is_true(fs.writefile(p "f", "new and longer"))
      assert.are.same({ "old", "new and longer" }, { old:read "a", contents(p "f") })
      assert.are.same({ octal "604", "f" }, { fs.stat(p "f").mode, names_in(dir.path) })
    end)

    it("are written in place, or added to", function()
      assert(fs.writefile(p "f", "old"))
      assert(fs.link(p "f", p "g"))
      assert.is_true(fs.writefile(p "f", "new", { atomic = false }))
      assert.is_true(fs.writefile(p "f", "er", { append = true, sync = true }))
      assert.are.equal("newer", contents(p "g"))
      assert.is_true(fs.writefile(p "h", "x", { append = true, mode = "600" }))
      assert.are.equal(octal "600", fs.stat(p "h").mode)
    end)

    it("are found behind links", function()
      assert(fs.mkdir(p "d"))
      assert(fs.writefile(p "d/f", "old"))
      assert(fs.symlink("d/f", p "l"))
      assert.is_true(fs.writefile(p "l", "new"))
      assert.are.same({ "link", "new", "f" }, { fs.lstat(p "l").type, contents(p "d/f"), names_in(p "d") })
    end)

    it("may stand in the directory that is current", function()
      local text, status = helper.script(([[
        local fs = require "uring".fs
        assert(fs.writefile("a", "1") and fs.writefile("./b", "2"))
        io.write(fs.readfile "a", fs.readfile "b", table.concat((fs.list ".")))
      ]]), "cd " .. dir.path .. ";")
      assert.are.same({ "12ab", 0 }, { text, status })
    end)

    it("that cannot be written leave what was there, and nothing else", function()
      assert(fs.writefile(p "f", "old"))
      local text, status = helper.script(([[
        local testkit, fs = require "testkit", require "uring".fs
        testkit.limit_size(100000)
        print(fs.writefile(%q, ("x"):rep(200000)))
        print(fs.writefile(%q, ("x"):rep(200000), { atomic = false }))
        print(fs.copy(%q, %q))
      ]]):format(p "f", p "g", "/proc/self/exe", p "h"))
      local large = "nil\t%s: File too large\t27\n"
      assert.are.equal(large:format(p "f") .. large:format(p "g") .. large:format("/proc/self/exe -> " .. p "h"), text)
      assert.are.equal(0, status)
      assert.are.same({ "old", "f g" }, { contents(p "f"), names_in(dir.path) })
      assert.are.same({ n = 3, nil, "/dev/full: Invalid argument", errno.EINVAL }, pack(fs.writefile("/dev/full", "x")))
      assert.are.same({ n = 3, nil, "/dev/full: No space left on device", errno.ENOSPC },
        pack(fs.writefile("/dev/full", "x", { atomic = false })))
      assert.are.equal(errno.EISDIR, select(3, fs.writefile(dir.path, "x")))
      assert.are.equal(errno.ENOENT, select(3, fs.writefile(p "no/x", "x")))
    end)

    it("are all or nothing when the task is cancelled, wherever it is", function()
      assert(fs.writefile(p "f", "old"))
      local seen = {}
      for step = 0, helper.times(400) do
        uring.run(function()
          local task = uring.spawn(fs.writefile, p "f", "new")
          for _ = 1, step // 4 do
            uring.yield()
          end
          if step % 4 > 0 then
            uring.sleep(step % 50 * 0.00002)
          end
          task:cancel()
          local ended, err = pcall(task.await, task)
          assert(ended or err == uring.cancelled, err)
          seen[ended], seen.last = true, ended
        end)
        assert.are.equal("f", names_in(dir.path))
        assert.are.equal(seen.last and "new" or "old", contents(p "f"))
        assert(fs.writefile(p "f", "old", { atomic = false }))
      end
      assert.is_true(seen[false])
    end)
  end)

  describe("for a while", function()
    it("are directories that are removed with all that is in them", function()
      local path
      uring.run(function()
        local one <close> = assert(fs.tempdir { dir = dir.path, prefix = "pre", suffix = ".d" })
        path = one.path
        assert.is_truthy(path:find "/pre%w+%.d$")
        assert.are.equal(path, tostring(one))
        assert.are.equal(octal "700", fs.stat(path).mode)
        assert(fs.makedirs(path .. "/a/b/c"))
        assert(fs.symlink("/", path .. "/a/root"))
        assert(fs.writefile(path .. "/a/b/f", "x"))
        assert(fs.chmod(path .. "/a/b", "500"))
      end)
      assert.is_false(fs.exists(path))
      assert.are.equal(errno.ENOENT, select(3, fs.tempdir { dir = p "no" }))
    end)

    it("are removed when the task is cancelled, too", function()
      for step = 0, 60 do
        uring.run(function()
          local task = uring.spawn(function()
            local one <close> = assert(fs.tempdir { dir = dir.path })
            assert(fs.writefile(one.path .. "/f", "x", { sync = false }))
            local file <close> = assert(fs.tempfile { dir = one.path })
            file:write "abc"
            uring.sleep(1)
          end)
          for _ = 1, step do
            uring.yield()
          end
          uring.sleep(step % 3 * 0.0001)
          task:cancel()
          pcall(task.await, task)
        end)
        assert.are.equal("", names_in(dir.path))
      end
    end)

    it("are files that only their owner may open", function()
      local file <close>, path = assert(fs.tempfile { dir = dir.path, suffix = ".txt" })
      assert.is_truthy(path:find "/uring%-%w+%.txt$")
      assert.are.equal(octal "600", fs.stat(path).mode)
      assert(file:write "abc")
      assert(file:close())
      assert.are.equal("abc", contents(path))
      assert.are.equal(errno.ENOENT, select(3, fs.tempfile { dir = p "no" }))
    end)
  end)

  describe("removed", function()
    it("are files, links and empty directories", function()
      assert(fs.mkdir(p "d"))
      assert(fs.writefile(p "d/f", ""))
      assert(fs.symlink("d", p "l"))
      assert.is_true(fs.remove(p "l"))
      assert.are.same({ n = 3, nil, p "d" .. ": Directory not empty", errno.ENOTEMPTY }, pack(fs.remove(p "d")))
      assert.is_true(fs.remove(p "d/f"))
      assert.is_true(fs.remove(p "d"))
      assert.are.same({ n = 3, nil, p "d" .. ": No such file or directory", errno.ENOENT }, pack(fs.remove(p "d")))
      assert.are.equal(errno.ENOENT, select(3, fs.remove(p "d", { recursive = true })))
    end)

    it("are trees, of which links are not followed", function()
      assert(fs.mkdir(p "kept"))
      assert(fs.writefile(p "kept/f", ""))
      for i = 1, 30 do
        assert(fs.makedirs(p("tree/" .. i % 5 .. "/" .. i)))
        for j = 1, 50 do
          local file = assert(io.open(p("tree/" .. i % 5 .. "/" .. i .. "/" .. j), "w"))
          file:close()
        end
      end
      assert(fs.symlink(p "kept", p "tree/link"))
      assert(fs.symlink("..", p "tree/1/up"))
      assert.is_true(fs.remove(p "tree", { recursive = true }))
      assert.are.same({ "kept", "f" }, { names_in(dir.path), names_in(p "kept") })
      assert(fs.symlink("kept", p "l"))
      assert.is_true(fs.remove(p "l", { recursive = true }))
      assert.are.equal("f", names_in(p "kept"))
    end)

    it("are trees that others remove, too, at the same time", function()
      for i = 1, 40 do
        assert(fs.makedirs(p("tree/" .. i)))
        for j = 1, 10 do
          io.open(p("tree/" .. i .. "/" .. j), "w"):close()
        end
      end
      uring.run(function()
        local both = { uring.spawn(fs.remove, p "tree", { recursive = true }),
          uring.spawn(fs.remove, p "tree", { recursive = true }) }
        assert.are.same({ true, true }, { both[1]:await(), both[2]:await() })
      end)
      assert.are.equal("", names_in(dir.path))
    end)

    it("are large directories, in spite of cancellations", function()
      assert(fs.mkdir(p "tree"))
      for i = 1, 3000 do
        io.open(p("tree/file " .. i), "w"):close()
      end
      for step = 0, 20 do
        uring.run(function()
          local task = uring.spawn(fs.remove, p "tree", { recursive = true })
          uring.sleep(0.0003 * step)
          task:cancel()
          pcall(task.await, task)
        end)
      end
      fs.remove(p "tree", { recursive = true })
      assert.is_false(fs.exists(p "tree"))
    end)

    it("are not those that are not allowed to be", function()
      if testkit.getuid() ~= 0 then
        return pending "only root can be somebody else"
      end
      assert(fs.makedirs(p "tree/inner"))
      assert(fs.writefile(p "tree/inner/f", ""))
      assert(fs.chmod(dir.path, "777"))
      local text = helper.script(([[
        local testkit, fs = require "testkit", require "uring".fs
        testkit.become_nobody()
        print(fs.remove(%q, { recursive = true }))
        print(fs.writefile(%q, "x"))
        print(fs.copy(%q, %q))
      ]]):format(p "tree", p "tree/g", p "tree/inner/f", p "tree/inner/g"))
      local denied = "nil\t%s: Permission denied\t13\n"
      assert.are.equal(denied:format(p "tree/inner/f") .. denied:format(p "tree/g")
        .. denied:format(p "tree/inner/f" .. " -> " .. p "tree/inner/g"), text)
    end)
  end)
end)

describe("a watch", function()
  helper.watch(before_each, after_each)

  local function watching(o, fn)
    streams.run(function()
      local dir <close> = assert(fs.tempdir())
      local function p(name) return dir.path .. "/" .. name end
      local watch <close> = assert(fs.watch(dir.path, o))
      fn(p, watch, dir)
    end)
  end

  -- The next events, as "kind name".
  local function take(watch, n)
    local seen = {}
    for _ = 1, n do
      local event = assert(watch:next())
      seen[#seen + 1] = event.kind .. " " .. (event.name or "-")
    end
    return seen
  end

  it("tells of what happens in a directory", function()
    watching(nil, function(p, watch)
      assert(fs.writefile(p "f", "x", { atomic = false }))
      assert(fs.rename(p "f", p "g"))
      assert(fs.mkdir(p "d"))
      assert(fs.remove(p "g"))
      assert.are.same({ "created f", "modified f", "written f" }, take(watch, 3))
      local from, to = watch:next(), watch:next()
      assert.are.same({ "moved_from", "moved_to", p "f", p "g" }, { from.kind, to.kind, from.path, to.path })
      assert.are.equal(from.cookie, to.cookie)
      local made = watch:next()
      assert.are.same({ "created", "d", true }, { made.kind, made.name, made.directory })
      assert.are.same({ "deleted g" }, take(watch, 1))
    end)
  end)

  it("tells only of what was asked for", function()
    watching({ events = { "deleted" } }, function(p, watch)
      assert(fs.writefile(p "f", "x"))
      assert(fs.remove(p "f"))
      assert.are.same({ "deleted f" }, take(watch, 1))
    end)
    assert.is_truthy(helper.error_of(fs.watch, "/tmp", { events = { "made" } }):find('unknown event "made"', 1, true))
    assert.are.equal(errno.ENOENT, select(3, fs.watch "/nowhere/at/all"))
  end)

  it("goes into directories, those that come, too", function()
    watching({ recursive = true, events = { "created", "written" } }, function(p, watch)
      assert(fs.makedirs(p "a/b/c"))
      assert(fs.writefile(p "a/b/c/f", "x", { atomic = false }))
      local seen = {}
      repeat
        local event = assert(watch:next())
        seen[event.kind .. " " .. event.path] = true
      until event.kind == "written" or event.path == p "a/b/c/f"
      for _, name in ipairs { "a", "a/b", "a/b/c" } do
        assert.is_true(seen["created " .. p(name)], name)
      end
      assert(fs.rename(p "a/b", p "moved"))
      uring.sleep(0.01)
      assert(fs.writefile(p "moved/c/g", "x", { atomic = false }))
      repeat
        local event = assert(watch:next())
      until event.path == p "moved/c/g"
    end)
  end)

  it("ends when what it watches is gone", function()
    uring.run(function()
      local dir <close> = assert(fs.tempdir())
      local path = dir.path .. "/f"
      assert(fs.writefile(path, ""))
      local watch <close> = assert(fs.watch(path))
      assert(fs.remove(path))
      local kinds = {}
      for event in watch:each() do
        kinds[event.kind] = true
      end
      assert.is_true(kinds.self_deleted)
    end)
  end)

  it("is closed while somebody waits, or with the task that does", function()
    watching(nil, function(_, watch)
      local task = uring.spawn(function() return pack(watch:next()) end)
      uring.sleep(0.002)
      watch:close()
      assert.are.same({ n = 3, nil, "closed", errno.ECANCELED }, (task:await()))
      watch:close()
      assert.are.equal("watch (closed)", tostring(watch))
      assert.is_nil((watch:next()))
      assert.is_truthy(helper.error_of(watch.add, watch, "/tmp"):find("closed watch", 1, true))
    end)
    watching(nil, function(_, watch)
      assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(uring.timeout(0.005, watch.next, watch)))
    end)
  end)

  it("is for any number of tasks, each event for one of them", function()
    watching({ events = { "created" } }, function(p, watch)
      local tasks = {}
      for i = 1, 4 do tasks[i] = uring.spawn(function() return pack(watch:next()) end) end
      uring.sleep(0.002)
      assert(fs.writefile(p "a", "", { atomic = false }))
      assert(fs.writefile(p "b", "", { atomic = false }))
      assert.are.equal("a", tasks[1]:await()[1].name)
      assert.are.equal("b", tasks[2]:await()[1].name)
      watch:close()
      for i = 3, 4 do
        local ended = pack(uring.timeout(2, tasks[i].await, tasks[i]))
        assert.are.same({ n = 3, nil, "closed", errno.ECANCELED }, ended[1])
      end
    end)
    streams.run(function()
      local path = helper.tmpname ""
      local watch <close> = assert(fs.watch(path, { events = { "self_deleted" } }))
      local tasks = {}
      for i = 1, 3 do tasks[i] = uring.spawn(function() return (watch:next()) end) end
      uring.sleep(0.002)
      assert(fs.remove(path))
      assert.are.equal("self_deleted", tasks[1]:await().kind)
      assert.is_nil((uring.timeout(2, tasks[2].await, tasks[2])))
      assert.is_nil((uring.timeout(2, tasks[3].await, tasks[3])))
      assert.are.equal("returned", tasks[3]:status())
    end)
  end)

  it("loses nothing when a wait is cancelled, whenever that is", function()
    watching({ recursive = true, events = { "created" } }, function(p, watch)
      for round = 1, helper.times(60) do
        assert(fs.makedirs(p(round .. "/a/b")))
        for i = 1, 5 do assert(fs.writefile(p(round .. "/" .. i), "", { atomic = false })) end
        local names = { "", "/a", "/a/b", "/1", "/2", "/3", "/4", "/5" }
        local missing = {}
        for _, name in ipairs(names) do missing[p(round .. name)] = true end
        for try = 1, 200 do
          local event = uring.timeout(try < 100 and round * 1e-5 or 1, watch.next, watch)
          if event then missing[event.path] = nil end
          if not next(missing) then break end
        end
        assert.are.same({}, missing)
      end
    end)
  end)

  it("can be closed while a directory that has come is gone through", function()
    for round = 1, helper.times(60) do
      watching({ recursive = true }, function(p, watch)
        local task = uring.spawn(function()
          for event in watch:each() do assert.are_not.equal("error", event.kind) end
        end)
        assert(fs.makedirs(p "a/b/c/d/e"))
        uring.sleep(round * 1e-5)
        watch:close()
        task:await()
      end)
    end
  end)

  it("tells when events were lost", function()
    local limit = tonumber(contents "/proc/sys/fs/inotify/max_queued_events")
    if limit > 20000 or helper.slow then
      return pending "the queue is too long to be filled here"
    end
    watching({ events = { "attributes" } }, function(p, watch)
      io.open(p "a", "w"):close()
      io.open(p "b", "w"):close()
      local many = ("a b "):rep(1000)
      for _ = 1, limit // 2000 + 1 do
        os.execute(("cd %s; chmod 600 %s"):format(p ".", many))
      end
      local seen
      repeat
        seen = assert(watch:next()).kind
      until seen == "overflow"
    end)
  end)
end)
