local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local errno, fs, testkit = uring.errno, uring.fs, helper.testkit
local pack = table.pack

local function touch(path)
  assert(io.open(path, "w")):close()
end

describe("directories", function()
  helper.watch(before_each, after_each)
  after_each(function()
    helper.collect()
    helper.eventually(function() return uring.stats().jobs == 0 end)
  end)

  local dir, p
  before_each(function()
    dir = assert(fs.tempdir())
    p = function(name) return dir.path .. "/" .. name end
  end)
  after_each(function()
    assert(dir:close())
  end)

  -- dirs directories in each of which are files, and one link up.
  local function make_tree(dirs, files)
    local n = 0
    for i = 1, dirs do
      local path = p(("d%d/e%d"):format(i % 7, i))
      assert(fs.makedirs(path))
      for j = 1, files do
        touch(path .. "/f" .. j)
        n = n + 1
      end
      assert(fs.symlink("..", path .. "/up"))
    end
    return n
  end

  -- What find(1) says is beneath a path, sorted.
  local function found(path)
    local pipe = assert(io.popen("cd " .. path .. " && find . -mindepth 1 | LC_ALL=C sort"))
    local s = pipe:read "a"
    pipe:close()
    return s
  end

  -- What a walk says is there, the same way.
  local function walked(path, o)
    local list = {}
    for name, kind in assert(fs.walk(path, o)) do
      assert.are_not.equal("error", kind)
      list[#list + 1] = "." .. name:sub(#path + 1) .. "\n"
    end
    table.sort(list)
    return table.concat(list)
  end

  describe("are read", function()
    it("as names and types", function()
      touch(p "f")
      assert(fs.mkdir(p "d"))
      assert(fs.symlink("x", p "l"))
      os.execute("mkfifo " .. p "p")
      local seen = {}
      for name, kind in fs.readdir(dir.path) do
        seen[name] = kind
      end
      assert.are.same({ f = "file", d = "directory", l = "link", p = "fifo" }, seen)
      local names, kinds = fs.list(dir.path)
      assert.are.same({ { "d", "f", "l", "p" }, seen }, { names, kinds })
      assert.are.same({ n = 3, nil, p "no" .. ": No such file or directory", errno.ENOENT }, pack(fs.readdir(p "no")))
      assert.are.same({ n = 3, nil, p "f" .. ": Not a directory", errno.ENOTDIR }, pack(fs.list(p "f")))
      assert.are.same({ {}, {} }, { fs.list(p "d") })
    end)

    it("in parts, with names of every length", function()
      local expected = {}
      for i = 1, 4000 do
        local name = i .. ("x"):rep(i % 250)
        expected[i] = name
        touch(p(name))
      end
      table.sort(expected)
      assert.are.same(expected, (fs.list(dir.path)))
      local n = 0
      for _, kind in fs.readdir(dir.path) do
        assert(kind == "file")
        n = n + 1
      end
      assert.are.equal(4000, n)
    end)

    it("only as far as the loop goes", function()
      for i = 1, 3000 do
        touch(p(i .. ("y"):rep(100)))
      end
      local before = testkit.fds()
      for n = 1, 3 do
        for _ in fs.readdir(dir.path) do
          n = n - 1
          if n == 0 then
            break
          end
        end
        helper.eventually(function() return testkit.fds() == before end)
      end
      assert.has_error(function()
        for _ in fs.readdir(dir.path) do
          error("stop", 0)
        end
      end, "stop")
    end)
  end)

  describe("are walked", function()
    it("as find does, in any order, in order, and with stats", function()
      local files = make_tree(40, 5)
      assert(fs.mkdir(p "empty"))
      assert.are.equal(found(dir.path), walked(dir.path))
      for _, limit in ipairs { 0, 1, 3, 100 } do
        assert.are.equal(found(dir.path), walked(dir.path, { limit = limit }))
      end
      local last, n = "", 0
      for path, kind, info in fs.walk(dir.path, { sort = true, stat = true }) do
        local key = path:gsub("/", "\0")
        assert.is_true(key > last)
        last = key
        assert.are.equal(kind, info.type)
        assert.is_true(info.mode <= 4095)
        n = n + (kind == "file" and 1 or 0)
      end
      assert.are.equal(files, n)
    end)

    it("of more entries than one part has, and deeply", function()
      assert(fs.mkdir(p "wide"))
      for i = 1, 2500 do
        touch(p("wide/" .. i .. ("z"):rep(60)))
      end
      local deep = p "wide"
      for i = 1, 60 do
        deep = deep .. "/" .. i .. "d"
        assert(fs.mkdir(deep))
      end
      assert.are.equal(found(dir.path), walked(dir.path))
      assert.are.equal(found(dir.path), walked(dir.path, { sort = true }))
      assert.are.equal(found(dir.path), walked(dir.path, { stat = true }))
    end)

    it("by way of links only where that is asked for, and never in circles", function()
      assert(fs.makedirs(p "a/b"))
      touch(p "a/b/f")
      assert(fs.symlink("../..", p "a/b/up"))
      assert(fs.symlink("a", p "to a"))
      assert(fs.symlink("nowhere", p "dangling"))
      local seen, errors = {}, 0
      for path, kind, message, code in fs.walk(dir.path, { follow = true, sort = true }) do
        if kind == "error" then
          errors = errors + 1
          assert.are.equal(path .. ": Too many levels of symbolic links", message)
          assert.are.equal(errno.ELOOP, code)
        else
          seen[#seen + 1] = path:sub(#dir.path + 2) .. " " .. kind
        end
      end
      assert.are.same({ "a directory", "a/b directory", "a/b/f file", "a/b/up directory", "dangling link",
        "to a directory", "to a/b directory", "to a/b/f file", "to a/b/up directory" }, seen)
      assert.are.equal(2, errors)
      assert.are.equal(found(dir.path), walked(dir.path))
      assert.are.equal(walked(p "a"), walked(p "to a"))
    end)

    it("and what cannot be read is told of, and left", function()
      make_tree(10, 1)
      assert(fs.chmod(p "d3", "000"))
      assert(fs.chmod(dir.path, "755"))
      if testkit.getuid() == 0 then
        local text = helper.script(([[
          local testkit, fs = require "testkit", require "uring".fs
          testkit.become_nobody()
          local n = 0
          for path, kind, message, code in fs.walk(%q) do
            if kind == "error" then print(path, message, code) else n = n + 1 end
          end
          print(n)
        ]]):format(dir.path))
        -- 7 directories, and 9 with a file and a link each
        assert.are.equal(("%s\t%s: Permission denied\t13\n%d\n"):format(p "d3", p "d3", 7 + 8 * 3), text)
      end
      assert(fs.chmod(p "d3", "755"))
      assert.are.same({ n = 3, nil, p "no" .. ": No such file or directory", errno.ENOENT }, pack(fs.walk(p "no")))
    end)

    it("while they change", function()
      make_tree(60, 4)
      local errors, n = 0, 0
      for path, kind, _, code in fs.walk(dir.path) do
        n = n + 1
        if kind == "directory" then
          fs.remove(path, { recursive = true })
        elseif kind == "error" then
          errors = errors + 1
          assert.are.equal(errno.ENOENT, code)
        end
      end
      assert.is_true(n > 7)
      assert.are.same({}, (fs.list(dir.path)))
      assert.is_true(errors <= 67)
    end)

    it("as far as descend says, and as the loop goes", function()
      make_tree(30, 3)
      local before = testkit.fds()
      local asked = {}
      for path in fs.walk(dir.path, { descend = function(path) asked[#asked + 1] = path end }) do
        assert.is_truthy(path:sub(#dir.path + 2):find "^d%d$")
      end
      assert.are.equal(7, #asked)
      for stop = 1, 60 do
        local n = 0
        for _ in fs.walk(dir.path, { sort = stop % 2 == 0 }) do
          n = n + 1
          if n == stop then
            break
          end
        end
      end
      helper.eventually(function() return testkit.fds() == before end)
      assert.has_error(function()
        for _ in fs.walk(dir.path, { descend = function() error("no", 0) end }) do
          assert(true)
        end
      end, "no")
    end)

    it("by a task that may be cancelled at every step", function()
      make_tree(40, 3)
      for step = 0, 150 do
        uring.run(function()
          local n = 0
          local task = uring.spawn(function()
            for _ in fs.walk(dir.path, { stat = step % 2 == 0, limit = step % 5 }) do
              n = n + 1
            end
          end)
          for _ = 1, step % 10 do
            uring.yield()
          end
          uring.sleep(step * 0.00002)
          task:cancel()
          pcall(task.await, task)
        end)
      end
      local walk = { fs.walk(dir.path) } -- and one that nobody goes on with
      walk[1](walk[2])
      walk = nil
      assert.is_nil(walk)
    end)

    it("with few descriptors: those that find none are told of", function()
      make_tree(60, 1)
      local text, status = helper.script(([[
        local uring, testkit = require "uring", require "testkit"
        uring.sleep(0)
        testkit.spare_fds(4)
        local n, errors, other = 0, 0, 0
        for path, kind, message, code in uring.fs.walk(%q) do
          n = n + 1
          if kind == "error" then
            errors = errors + 1
            other = other + (code == uring.errno.EMFILE and 0 or 1)
          end
        end
        print(n > 10, other, uring.stats().jobs)
      ]]):format(dir.path))
      assert.are.same({ "true\t0\t0\n", 0 }, { text, status })
    end)
  end)

  it("are read by jobs whose result is for one", function()
    uring.run(function()
      local job = core.read_directory(dir.path)
      local one = uring.spawn(function() return job:await() end)
      uring.yield()
      assert.is_truthy(helper.error_of(job.await, job):find("for who awaits it first", 1, true))
      assert.are.same({}, (one:await()))
      assert.is_truthy(helper.error_of(job.await, job):find("for who awaits it first", 1, true))
      job:stop()
      job:close()
      job:close()
    end)
  end)
end)
