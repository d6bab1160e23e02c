-- uring.io beside io: what random sequences (io_oracle_spec) do not reach:
-- special files, standard streams, commands, the end of the process; and what
-- uring.io has besides.

local helper = require "spec.support.helper"
local uring = require "uring"

local uio, errno = uring.io, uring.errno
local pack = table.pack

-- A spec that starts a command.
local function spawning(name, fn)
  if helper.can_spawn() then
    it(name, fn)
  else
    it(name, function() pending "this valgrind knows no pidfd" end)
  end
end

local function slurp(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

-- What a function gives with io and with uring.io, which must be the same;
-- files among its results are "a file".
local function same(fn, ...)
  local function outcome(lib, ...)
    local results = pack(pcall(fn, lib, ...))
    for i = 1, results.n do
      if lib.type(results[i]) then
        results[i] = "a file"
      elseif type(results[i]) == "string" then
        results[i] = results[i]:gsub("uring%.stream", "FILE*")
      end
    end
    return results
  end
  local expected = outcome(io, ...)
  assert.are.same(expected, outcome(uio, ...))
  return expected
end

local function first_three(a, b, c)
  return a, b, c
end

-- Runs a chunk with uring.io in the place of io, and with io; they must print
-- the same and end alike.
local function same_script(chunk, prefix)
  local expected = pack(helper.script(chunk, prefix))
  local got = pack(helper.script("local io = require 'uring'.io; " .. chunk, prefix))
  for _, results in ipairs { expected, got } do
    results[1] = results[1]:gsub("/tmp/lua_%w+", "SCRIPT")
  end
  assert.are.same(expected, got)
  return expected[1], expected[2]
end

-- Runs a chunk with uring.io where standard output is what is after the `>`.
local function script_into(path, chunk, command)
  local script = helper.tmpname("local io = require 'uring'.io; " .. chunk)
  os.execute((command or "%s > %s"):format("lua5.4 " .. script, path))
  return slurp(path)
end

describe("uring.io", function()
  helper.watch(before_each, after_each)
  after_each(function()
    uio.input(uio.stdin)
    uio.output(uio.stdout)
    helper.cleanup()
  end)

  it("has what io has", function()
    for name, value in pairs(io) do
      assert.are.equal(type(value) == "userdata" and "file" or nil, uio.type(uio[name]), name)
      assert.is_truthy(uio[name], name)
    end
    local stock, ours = getmetatable(io.stdin).__index, uio.stdin
    for name in pairs(stock) do
      assert.are.equal("function", type(ours[name]), name)
    end
    assert.are.equal(uring.open, uio.open)
    assert.are.equal(uio, require "uring.io")
  end)

  it("tells files from everything else", function()
    local path = helper.tmpname ""
    local f = uio.open(path)
    assert.are.equal("file", uio.type(f))
    f:close()
    assert.are.equal("closed file", uio.type(f))
    assert.is_nil(uio.type(io.stdin))
    assert.is_nil(io.type(uio.stdin))
    for _, value in ipairs { 1, "x", true, {}, print, coroutine.create(print), uring.buffer(1) } do
      assert.is_nil(uio.type(value))
    end
    assert.is_nil(uio.type(nil))
    local message = helper.error_of(function() uio.type() end)
    assert.is_truthy(message:find("bad argument #1 to 'type' (value expected)", 1, true), message)
    local r, w = uring.pipe()
    assert.are.equal("file", uio.type(r))
    r:close()
    w:close()
    assert.are.equal("closed file", uio.type(r))
  end)

  it("shows files as io does", function()
    local f = uio.open(helper.tmpname "")
    assert.is_truthy(tostring(f):find "^file %(.+%)$")
    f:close()
    assert.are.equal("file (closed)", tostring(f))
  end)

  describe("lines", function()
    it("are four values, the last of them the file that the loop closes", function()
      local path = helper.tmpname "one\ntwo\n"
      local results = pack(uio.lines(path))
      assert.are.equal(4, results.n)
      assert.is_nil(results[2])
      assert.is_nil(results[3])
      assert.are.equal("file", uio.type(results[4]))
      results[4]:close()
      uio.input(path)
      assert.are.equal(1, select("#", uio.lines()))
      uio.input():close()
    end)

    it("close the file at its end, at a break and at an error", function()
      local path = helper.tmpname "one\ntwo\n"
      local next, _, _, file = uio.lines(path)
      assert.are.equal("one", next())
      assert.are.equal("two", next())
      assert.is_nil(next())
      assert.are.equal("closed file", uio.type(file))
      assert.is_truthy(helper.error_of(next):find "file is already closed")
      local before = helper.testkit.fds()
      for line in uio.lines(path) do
        if line then
          break
        end
      end
      pcall(function()
        for _ in uio.lines(path) do
          error "out"
        end
      end)
      assert.are.equal(before, helper.testkit.fds())
    end)

    it("of a handle leave it open", function()
      local f <close> = uio.open(helper.tmpname "one\ntwo\n")
      for _ in f:lines() do end
      assert.are.equal("file", uio.type(f))
      assert.are.equal(0, f:seek "set")
    end)

    it("raise where the file is not to be had, at the caller's place", function()
      for _, path in ipairs { "/nope/nope", "/tmp/\n" } do
        same(function(lib) lib.lines(path) end)
        same(function(lib) lib.input(path) end)
        same(function(lib) lib.output(path .. "/x") end)
      end
      same(function(lib) lib.lines {} end)
      same(function(lib) lib.lines(helper.tmpname "", table.unpack({}, 1, 251)) end)
      same(function(lib) return select("#", lib.lines(helper.tmpname "", table.unpack({}, 1, 250))) end)
    end)
  end)

  it("raises at the caller's place, and names what was called", function()
    local closed = { [io] = io.open "/dev/null", [uio] = uio.open "/dev/null" }
    closed[io]:close()
    closed[uio]:close()
    for _, fn in ipairs {
      function(lib) lib.open() end, function(lib) lib.open {} end, function(lib) lib.open("x", {}) end,
      function(lib) lib.open("x", "q") end, function(lib) lib.input(true) end, function(lib) lib.output(print) end,
      function(lib) lib.close(1) end, function(lib) lib.close(nil) end, function(lib) lib.close {} end,
      function(lib) lib.type() end, function(lib) lib.popen() end, function(lib) lib.popen("x", "rw") end,
      function(lib) lib.popen("x", {}) end, function(lib) lib.popen {} end, function(lib) lib.popen("x", "r+") end,
      function(lib) lib.input(closed[lib]) end,
      function(lib) lib.output(closed[lib]) end, function(lib) closed[lib]:read() end,
      function(lib) closed[lib]:write "x" end, function(lib) closed[lib]:lines() end,
      function(lib) closed[lib]:seek() end, function(lib) closed[lib]:flush() end,
      function(lib) closed[lib]:setvbuf "no" end,
      function(lib) lib.input "/dev/null" lib.read "x" end, function(lib) lib.input "/dev/null" lib.read {} end,
      function(lib) lib.input "/dev/null" lib.input():close() lib.read() end,
      function(lib) lib.input():close() end,
      function(lib) lib.input "/dev/null" lib.input():close() lib.lines() end,
      function(lib) lib.input "/dev/null" lib.input():close() lib.lines(nil, "l") end,
      function(lib) lib.output "/dev/null" lib.write({}) end,
      function(lib) lib.output "/dev/null" lib.write("", nil) end,
      function(lib) lib.output "/dev/null" lib.output():close() lib.write "x" end,
      function(lib) lib.output "/dev/null" lib.close() lib.flush() end,
      function(lib) lib.stdin.read() end, function(lib) lib.stdin.write {} end, function(lib) lib.stdin.close "x" end,
    } do
      same(fn)
      io.input(io.stdin)
      io.output(io.stdout)
      uio.input(uio.stdin)
      uio.output(uio.stdout)
    end
  end)

  it("takes numbers where io takes them for strings", function()
    same(function(lib) return lib.open(12345678) end)
    same(function(lib) return (lib.lines(12345678)) end)
    same(function(lib) return (lib.input(1.5)) end)
    same(function(lib) return (lib.open("/dev/null", 5)) end)
  end)

  describe("temporary files", function()
    it("can be read and written, and have no name", function()
      local f <close> = assert(uio.tmpfile())
      f:write("one\n", "two\n")
      assert.are.equal(0, f:seek "set")
      assert.are.equal("one\ntwo\n", f:read "a")
      assert.are.equal(0, f:stat().nlink)
      assert.are.equal(tonumber("600", 8), f:stat().mode & tonumber("777", 8))
    end)
  end)

  describe("special files", function()
    it("that are directories say so where they are read", function()
      for _, format in ipairs { "l", "L", "n", "a", 0, 1 } do
        same(function(lib)
          local f <close> = lib.open "/tmp"
          return f:read(format)
        end)
      end
      same(function(lib) for _ in lib.lines "/tmp" do end end)
      same(function(lib) return lib.open("/tmp", "w") end)
      same(function(lib) return lib.open("/tmp", "r+") end)
    end)

    it("that are full say so where it is noticed", function()
      for _, mode in ipairs { "no", "full" } do
        for _, last in ipairs { "flush", "seek", "setvbuf", "close" } do
          same(function(lib)
            local f = lib.open("/dev/full", "w")
            f:setvbuf(mode)
            local seen = {}
            local function note(ok, message, number)
              seen[#seen + 1] = pack(ok and true, message, number)
            end
            note(f:write "x")
            note(f:write("y", "z"))
            note(f:write "\n")
            note(f[last](f, last == "setvbuf" and "no" or nil))
            if last ~= "close" then
              f:close()
            end
            return seen
          end)
        end
      end
    end)

    it("that are full say so at the end of a line, where lines are written", function()
      local f = uio.open("/dev/full", "w")
      f:setvbuf "line" -- glibc calls that a success, and forgets the line
      assert.are.equal(f, f:write "x")
      assert.are.equal(errno.ENOSPC, (select(3, f:write "\n")))
      f:close()
    end)

    it("that are full are tried again, as long as they are open", function()
      local f = uio.open("/dev/full", "w")
      f:setvbuf "full"
      f:write "x"
      assert.are.equal(errno.ENOSPC, (select(3, f:flush())))
      assert.are.equal(errno.ENOSPC, (select(3, f:flush())))
      assert.are.same({ n = 3, nil, "No space left on device", errno.ENOSPC }, pack(f:close()))
      assert.is_true(f:close())
    end)

    it("of /proc, whose size is 0, are read to their end", function()
      for _, path in ipairs { "/proc/cpuinfo", "/proc/filesystems", "/proc/version" } do
        assert.are.equal(slurp(path), uio.open(path):read "a")
        local lines = {}
        for line in uio.lines(path, "L") do
          lines[#lines + 1] = line
        end
        assert.are.equal(slurp(path), table.concat(lines))
      end
    end)

    it("that are devices read and write as io's do", function()
      same(function(lib)
        local f <close> = lib.open "/dev/zero"
        return f:read(100000), f:read(0), f:read "n", (f:seek())
      end)
      same(function(lib)
        local f <close> = lib.open("/dev/null", "r+")
        return f:write "x", f:flush() and true, f:read "a", f:read "l", f:seek "end"
      end)
    end)

    it("that are fifos are read as the bytes come, while other tasks run", function()
      local path = os.tmpname()
      os.remove(path)
      assert(os.execute("mkfifo " .. path))
      local got, ticks = {}, 0
      uring.run(function()
        local reader = uring.spawn(function()
          for line in uio.lines(path) do
            got[#got + 1] = line
          end
        end)
        local ticker = uring.spawn(function()
          for _ = 1, 5 do
            uring.sleep(0.01)
            ticks = ticks + 1
          end
        end)
        ticker:await()
        local f = assert(uio.open(path, "w"))
        f:setvbuf "no"
        f:write "one\ntw"
        uring.sleep(0.01)
        assert.are.same({ "one" }, got)
        f:write "o"
        f:close()
        reader:await()
      end)
      os.remove(path)
      assert.are.same({ "one", "two" }, got)
      assert.are.equal(5, ticks)
    end)

    spawning("that cannot seek say so", function()
      same(function(lib)
        local f <close> = lib.popen "printf hello"
        local sought = pack(f:seek("set", 1))
        return sought, pack(f:seek()), f:read "a"
      end)
    end)
  end)

  it("reaches beyond 4 GiB", function()
    local far = 5 << 30
    same(function(lib)
      local path <const> = helper.tmpname ""
      local f <close> = lib.open(path, "w+")
      local at = f:seek("set", far)
      f:write("far\n", 12, " away")
      local after = f:seek()
      f:seek("set", far - 2)
      local zeros, line, number = f:read(2, "l", "n")
      local size = f:seek "end"
      f:seek("cur", -4)
      return at, after, zeros, line, number, size, f:read "a", f:seek("set", 1 << 62), f:read "a"
    end)
  end)

  it("reports what a handle was not opened for", function()
    local path = helper.tmpname "contents"
    for _, mode in ipairs { "r", "w", "a" } do
      same(function(lib)
        local f = lib.open(path, mode)
        local read, wrote, message, number = pack(f:read()), f:write "x"
        return read, wrote and true, message, number, f:write() == f, f:flush() and true, f:close()
      end)
      helper.tmpname()
    end
  end)

  it("writes the rest when it is closed, dropped or left", function()
    local path = helper.tmpname ""
    uio.open(path, "w"):write "closed":close()
    assert.are.equal("closed", slurp(path))
    do
      local f <close> = uio.open(path, "w")
      f:write "left"
    end
    assert.are.equal("left", slurp(path))
    uio.open(path, "w"):write "dropped"
    helper.collect()
    assert.are.equal("dropped", slurp(path))
  end)

  describe("popen", function()
    spawning("gives the three results of close", function()
      for _, command in ipairs { "exit 0", "exit 3", "true", "false", "kill -9 $$", "kill -TERM $$", "exit 255",
        "/nonexistent/command 2>/dev/null", "" } do
        same(function(lib)
          return lib.popen(command):close()
        end)
      end
      same(function(lib)
        local f = lib.popen("cat >/dev/null; exit 7", "w")
        f:write "x"
        return lib.type(f), pack(f:close()), lib.type(f), tostring(f)
      end)
    end)

    spawning("reads what a command prints", function()
      same(function(lib)
        local f <close> = lib.popen "printf 'one\\ntwo\\n0x10 rest'"
        return f:read("l", "L", "n", "a", "a", "l")
      end)
      same(function(lib)
        local f <close> = lib.popen "head -c 1000000 /dev/zero | tr '\\0' x"
        return #f:read "a", pack(f:close())
      end)
      same(function(lib)
        local lines = {}
        local f <close> = lib.popen "seq 1000"
        for line in f:lines() do
          lines[#lines + 1] = line
        end
        return table.concat(lines, " ")
      end)
      same(function(lib)
        local f <close> = lib.popen "true"
        local wrote, message, number = f:write "x"
        return wrote, message, number
      end)
    end)

    spawning("writes what a command reads", function()
      same(function(lib)
        local path = helper.tmpname ""
        local f = lib.popen("cat > " .. path, "w")
        f:write("one\n", 2, ("x"):rep(200000))
        local results = pack(f:close())
        return results, slurp(path)
      end)
      same(function(lib)
        local f <close> = lib.popen("cat >/dev/null", "w")
        return f:read "a"
      end)
    end)

    spawning("ends a command whose output nobody reads", function()
      local f = uio.popen "exec yes"
      assert.are.equal("y", f:read())
      assert.are.same({ n = 3, nil, "signal", 13 }, pack(f:close()))
    end)

    spawning("reports a reader that has left", function()
      same(function(lib)
        local f = lib.popen("exec 0<&-; sleep 0.05; exit 4", "w")
        uring.sleep(0.03)
        return pack(f:close())
      end)
    end)

    spawning("waits for the end of the command while other tasks run", function()
      local ticks = 0
      uring.run(function()
        uring.spawn(function()
          for _ = 1, 5 do
            uring.sleep(0.01)
            ticks = ticks + 1
          end
        end)
        local f = uio.popen "sleep 0.2; echo done"
        assert.are.equal("done", f:read())
        assert.are.same({ n = 3, true, "exit", 0 }, pack(f:close()))
        assert.are.equal(5, ticks)
        local g = uio.popen "exec 1>&-; sleep 0.1; exit 5"
        assert.are.same({ n = 3, nil, "exit", 5 }, pack(g:close()))
      end)
    end)

    spawning("has written what is pending before the command starts", function()
      same(function(lib)
        local path = helper.tmpname ""
        local f <close> = lib.open(path, "w")
        f:write "pending"
        local g <close> = lib.popen("cat " .. path)
        return g:read "a"
      end)
    end)

    spawning("leaves no zombie when it is dropped", function()
      uio.popen "true"
      helper.collect()
      helper.eventually(function()
        uring.sleep(0.01)
        return not os.execute("ps -o stat= --ppid " .. helper.testkit.getpid() .. " | grep -q Z")
      end)
    end)
  end)

  describe("standard streams", function()
    local reads = [[
      io.write(tostring(io.read "l"), "|", tostring(io.read "n"), "|", tostring(io.read(3)), "|")
      for l in io.lines() do io.write("[", l, "]") end
      io.write(tostring(io.read "a"), tostring(io.read "l"), "\n")
      io.stderr:write "err\n"
    ]]

    it("are read from a pipe, a file and nothing", function()
      local path = helper.tmpname "line one\n  0x1F rest\nmore\nlines"
      same_script(reads, "cat " .. path .. " |")
      same_script(reads, "(printf 'line\n1'; sleep 0.05; printf '2 and\n'; sleep 0.05; echo so on) |")
      same_script(reads, "< " .. path)
      same_script(reads, "< /dev/null")
      same_script(reads, "<&-")
    end)

    it("cannot be closed, and say so", function()
      same_script [[
        for _, name in ipairs { "stdin", "stdout", "stderr" } do
          local a, b, c = io[name]:close()
          io.write(tostring(a), tostring(b), tostring(c), io.type(io[name]), "\n")
        end
        io.write(tostring(io.close()), tostring(io.output() == io.stdout), "\n")
        do local f <close> = io.stdout end
        io.write "still open\n"
        collectgarbage()
        io.write "and still\n"
      ]]
    end)

    it("lose nothing, however the process ends", function()
      for _, ending in ipairs {
        "", "os.exit(3)", "os.exit(3, true)", "error 'failed'", "os.exit(true)",
        "require 'uring'.run(os.exit, 4)", "require 'uring'.run(error, 'inside')",
        "io.stdout:setvbuf 'full'; io.write 'more'", "io.stdout:setvbuf('full', 10); io.write 'more and more'",
        "io.stdout:flush(); io.write 'after'", "io.stdout = nil; io.output('/dev/null'); collectgarbage()",
      } do
        local chunk = "io.write 'pending'\n" .. ending
        local path = helper.tmpname ""
        local script = helper.tmpname(chunk)
        os.execute(("lua5.4 %s > %s 2>/dev/null"):format(script, path))
        local expected = slurp(path)
        assert.are.equal(expected, script_into(path, chunk, "%s > %s 2>/dev/null"), ending)
        assert.are.equal(expected, script_into(path, chunk, "%s 2>/dev/null | cat > %s"), ending)
      end
    end)

    it("hold output back in a pipe and a file", function()
      local out = same_script [[
        io.write "line\n"
        io.write "partial"
        os.execute "printf child"
        io.write "after\n"
      ]]
      assert.are.equal("childline\npartialafter\n", out)
    end)

    it("show a prompt on a terminal, and are read line by line", function()
      local script = helper.tmpname [[
        local io = require "uring".io
        io.write "name? "
        local name = io.read()
        os.execute "printf '(child) '"
        io.write("hello, ", name, "\n")
      ]]
      local path = helper.tmpname ""
      -- the name comes only when the prompt has been seen
      local terminal = io.popen(("timeout 10 script -qefc 'lua5.4 %s' %s >/dev/null"):format(script, path), "w")
      helper.eventually(function()
        return slurp(path):find("name? ", 1, true)
      end)
      terminal:write "Ann\n"
      terminal:flush()
      helper.eventually(function()
        return slurp(path):find "hello"
      end)
      terminal:close()
      assert.is_truthy(slurp(path):find("(child) hello, Ann\r\n", 1, true), slurp(path))
    end)

    it("are written in full into a pipe that is read slowly", function()
      local out = script_into(helper.tmpname "", "for i = 1, 50000 do io.write(i, '\\n') end",
        "%s | (sleep 0.1; cat) > %s")
      local n = 0
      for line in out:gmatch "[^\n]+" do
        n = n + 1
        assert(tonumber(line) == n)
      end
      assert.are.equal(50000, n)
    end)

    it("report a reader that has left", function()
      local script = helper.tmpname [[
        local io = require "uring".io
        io.stdout:setvbuf "no"
        local results
        repeat
          results = table.pack(io.write "x\n")
        until not results[1]
        io.stderr:write(results[2], " ", results[3], "\n")
      ]]
      local pipe = io.popen("trap '' PIPE; (lua5.4 " .. script .. " | true) 2>&1")
      local out = pipe:read "a"
      pipe:close()
      assert.are.equal(("Broken pipe %d\n"):format(errno.EPIPE), out)
    end)
  end)

  describe("files, besides what io's have,", function()
    it("read and write at an offset, and stay where they are", function()
      local f <close> = uio.open(helper.tmpname "0123456789", "r+")
      assert.are.equal("01", f:read(2))
      assert.are.equal("567", f:pread(3, 5))
      assert.are.equal("89", f:pread(100, 8))
      assert.are.same({ n = 1 }, pack(f:pread(1, 10)))
      assert.are.equal("", f:pread(0, 3))
      assert.are.equal(f, f:pwrite("ab", 4))
      assert.are.equal(2, f:seek())
      assert.are.equal("23ab6789", f:read "a")
      assert.are.equal(f, f:pwrite("end", 12))
      assert.are.equal("\0\0end", f:read "a")
    end)

    it("read at an offset what has been written before", function()
      local f <close> = uio.open(helper.tmpname "", "w+")
      f:write "pending"
      assert.are.equal("pend", f:pread(4, 0))
      f:write " more"
      f:pwrite("P", 0)
      f:seek "set"
      assert.are.equal("Pending more", f:read "a")
    end)

    it("are cut and stretched", function()
      local path = helper.tmpname ""
      local f <close> = uio.open(path, "w+")
      f:write "0123456789"
      assert.are.equal(f, f:truncate(4))
      assert.are.equal("0123", slurp(path))
      assert.are.equal(10, f:seek())
      f:seek "set"
      assert.are.equal("0", f:read(1))
      assert.are.equal(f, f:truncate(6))
      assert.are.equal("123\0\0", f:read "a")
      assert.are.equal(f, f:truncate(0))
      assert.is_nil(f:read())
      f:seek "set"
      f:write "xyz"
      f:seek("set", 1)
      assert.are.equal(f, f:truncate())
      assert.are.equal("x", slurp(path))
    end)

    it("are brought to the disk, pending bytes too", function()
      local path = helper.tmpname ""
      local f <close> = uio.open(path, "w")
      f:write "synced"
      assert.are.equal(f, f:sync())
      assert.are.equal("synced", slurp(path))
      f:write " data"
      assert.are.equal(f, f:sync "data")
      assert.are.equal("synced data", slurp(path))
    end)

    it("tell their descriptor and their metadata, pending bytes counted", function()
      local path = helper.tmpname "12345"
      local f <close> = uio.open(path, "a")
      assert.are.equal("12345", slurp("/proc/self/fd/" .. f:fd()))
      f:write "678"
      local stat = f:stat()
      assert.are.equal(8, stat.size)
      assert.are.equal(tonumber("600", 8), stat.mode & tonumber("777", 8))
    end)

    spawning("report what cannot be done", function()
      local path = helper.tmpname "12345"
      local reading <close> = uio.open(path)
      local writing <close> = uio.open(path, "a")
      assert.are.same({ n = 3, nil, "Bad file descriptor", errno.EBADF }, pack(first_three(reading:pwrite("x", 0))))
      assert.are.same({ n = 3, nil, "Bad file descriptor", errno.EBADF }, pack(writing:pread(1, 0)))
      assert.are.same({ n = 3, nil, "Invalid argument", errno.EINVAL }, pack(reading:truncate(0)))
      local pipe <close> = uio.popen "echo"
      assert.are.same({ n = 3, nil, "Illegal seek", errno.ESPIPE }, pack(pipe:pread(1, 0)))
      assert.are.same({ n = 3, nil, "Invalid argument", errno.EINVAL }, pack(pipe:sync()))
    end)

    it("refuse arguments that are wrong", function()
      local f = uio.open(helper.tmpname "12345", "r+")
      for _, case in ipairs {
        { "pread", "#1", "number expected, got nil" }, { "pread", "#1", "number expected, got table", {} },
        { "pread", "#1", "negative", -1, 0 }, { "pread", "#2", "number expected, got nil", 1 },
        { "pread", "#2", "negative", 1, -1 }, { "pread", "#2", "no integer representation", 1, 1.5 },
        { "pwrite", "#1", "string expected, got nil", nil, 0 }, { "pwrite", "#1", "string expected, got table", {}, 0 },
        { "pwrite", "#2", "number expected, got nil", "x" }, { "pwrite", "#2", "negative", "x", -1 },
        { "truncate", "#1", "negative", -1 }, { "truncate", "#1", "number expected, got table", {} },
        { "sync", "#1", "invalid option 'x'", "x" }, { "sync", "#1", "string expected, got table", {} },
      } do
        local message = helper.error_of(function() f[case[1]](f, table.unpack(case, 4, 6)) end)
        local text = ("bad argument %s to '%s' ("):format(case[2], case[1])
        assert.is_truthy(message:find(text, 1, true), message)
        assert.is_truthy(message:find(case[3], 1, true), message)
        assert.is_truthy(message:find "io_spec%.lua:%d+:", message)
      end
      f:close()
      for _, method in ipairs { "pread", "pwrite", "truncate", "sync", "stat", "fd" } do
        local message = helper.error_of(function() f[method](f, 1, 0) end)
        assert.is_truthy(message:find("attempt to use a closed file", 1, true), message)
      end
    end)

    it("take Buffers where they take strings", function()
      local f <close> = uio.open(helper.tmpname "", "w+")
      f:pwrite(uring.buffer "from a buffer", 2)
      assert.are.equal("\0\0from a buffer", f:read "a")
    end)
  end)

  describe("among tasks", function()
    spawning("leaves a command behind where the wait for it is cancelled", function()
      uring.run(function()
        local f = uio.popen "sleep 0.1"
        local closing = uring.spawn(f.close, f)
        uring.sleep(0.02)
        closing:cancel()
        assert.are.same({ n = 2, false, uring.cancelled }, pack(pcall(closing.await, closing)))
        assert.are.equal("closed file", uio.type(f))
        assert.is_true(f:close())
        local unwound = uring.spawn(function()
          local g <close> = uio.popen "sleep 0.1"
          g:read()
        end)
        uring.sleep(0.02)
        unwound:cancel()
        assert.is_false(pcall(unwound.await, unwound))
      end)
      helper.collect()
      uring.sleep(0.2)
    end)

    spawning("ends the read of a command that is closed, and one of two closes tells how it ended", function()
      uring.run(function()
        local f = uio.popen "sleep 0.05; exit 3"
        local reading = uring.spawn(f.read, f)
        uring.sleep(0.01)
        local one, other = uring.spawn(f.close, f), uring.spawn(f.close, f)
        assert.are.same({ n = 3, nil, "exit", 3 }, pack(one:await()))
        assert.are.same({ n = 1, true }, pack(other:await()))
        assert.are.same({ n = 3, nil, "closed", errno.ECANCELED }, pack(reading:await()))
      end)
    end)

    spawning("loses nothing to a read that is cancelled or late", function()
      uring.run(function()
        local f <close> = uio.popen "printf abc; sleep 0.05; echo def"
        local reading = uring.spawn(f.read, f)
        uring.sleep(0.02)
        reading:cancel()
        assert.is_false(pcall(reading.await, reading))
        assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(uring.timeout(0.005, f.read, f)))
        assert.are.equal("abcdef", f:read())
      end)
    end)

    it("writes each call's arguments in one piece", function()
      local path = helper.tmpname ""
      for _, mode in ipairs { "no", "full", "line" } do
        uring.run(function()
          local f <close> = uio.open(path, "w")
          f:setvbuf(mode, 100)
          uring.map({ 3, 50, 99, 200, 1, 7 }, function(n)
            for _ = 1, 20 do
              assert(f:write(("a"):rep(n), n, "\n"))
            end
          end)
        end)
        local lines = 0
        for line in uio.lines(path) do
          lines = lines + 1
          local text, n = line:match "^(a+)(%d+)$"
          assert.are.equal(tonumber(n), #text)
        end
        assert.are.equal(120, lines)
      end
    end)

    it("reads at many offsets at a time", function()
      local text = {}
      for i = 1, 3000 do
        text[i] = ("%6d"):format(i)
      end
      local f <close> = uio.open(helper.tmpname(table.concat(text)))
      uring.run(function()
        assert.are.equal(text[1], f:read(6))
        local got = uring.map(text, function(_, i) return f:pread(6, (i - 1) * 6) end, { limit = 64 })
        for i, number in ipairs(text) do
          assert.are.equal(number, got[i])
        end
        assert.are.equal(text[2], f:read(6))
      end)
    end)

    it("survives files that are dropped while they are used", function()
      uring.run(function()
        for _ = 1, helper.times(100) do
          local reading = uring.spawn(function() return uio.open "/dev/zero":read(1 << 20) end)
          local writing = uring.spawn(function() return uio.tmpfile():write(("x"):rep(1 << 18)) end)
          uring.yield()
          reading:cancel()
          writing:cancel()
          collectgarbage()
        end
      end)
    end)

    it("ends the process in the middle of a write", function()
      local path = helper.tmpname ""
      local chunk = [[
        local uring = require "uring"
        local f = io.open(%q, "w")
        uring.run(function()
          for i = 1, 10 do
            uring.spawn(function() f:write(("x"):rep(1000)) f:flush() end)
          end
          uring.yield()
          f:write "y"
          io.write "out"
          os.exit(5)
        end)
      ]]
      local out, status = helper.script("local io = require 'uring'.io; " .. chunk:format(path))
      assert.are.equal("out", out)
      assert.are.equal(5, status)
    end)
  end)
end)
