-- Files, with Lua's own io as the oracle: the same calls on the same contents
-- give the same results, errors included.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

local function slurp(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

-- Results that can be compared: the file itself is "the file", and errors
-- are without the place they were raised at.
local function comparable(file, ...)
  local results = table.pack(...)
  for i = 1, results.n do
    if results[i] == file then
      results[i] = "the file"
    end
  end
  if results[1] == false and type(results[2]) == "string" then
    results[2] = results[2]:gsub("^%S+:%d+: ", "")
  end
  return results
end

-- Two files with the same contents, one for each library.
local function twins(contents, mode)
  local ours, theirs = helper.tmpname(contents), helper.tmpname(contents)
  local file, message = uring.open(ours, mode)
  local stock = assert(io.open(theirs, mode))
  return assert(file, message), stock, ours, theirs
end

-- Written out, since the messages for bad arguments name the method.
local methods = {
  read = function(f, ...) return true, f:read(...) end;
  write = function(f, ...) return true, f:write(...) end;
  seek = function(f, ...) return true, f:seek(...) end;
  lines = function(f, ...) return true, f:lines(...) end;
}

-- Does the same to both; the results must be the same.
local function same(file, stock, what, method, ...)
  local expected = comparable(stock, pcall(methods[method], stock, ...))
  local got = comparable(file, pcall(methods[method], file, ...))
  assert.are.same(expected, got, what)
  return expected
end

-- Runs a list of { method, arguments… } on twins in a mode, and compares.
local function compare(contents, mode, calls)
  local file, stock, ours, theirs = twins(contents, mode)
  for i, call in ipairs(calls) do
    same(file, stock, ("%s: call %d, %s"):format(mode or "nil", i, call[1]), table.unpack(call, 1, call.n or #call))
  end
  stock:close()
  assert.is_true(file:close())
  assert.are.equal(slurp(theirs), slurp(ours))
end

local lines = "first line\nsecond\n\nfourth\0with a zero\nlast without newline"

describe("files", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("are opened in every mode that io knows, and in no other", function()
    local names = { "r", "w", "a", "r+", "w+", "a+", "rb", "wb", "ab", "r+b", "w+b", "a+b", "rbb", "r+bb",
      "rb+", "rw", "", "b", "x", "+", "r++", "R", " r", "r ", "rt", "wx", "ra", "rbt" }
    for _, mode in ipairs(names) do
      local path = helper.tmpname "x"
      local ok, stock = pcall(io.open, path, mode)
      local ours, file = pcall(uring.open, path, mode)
      assert.are.equal(ok, ours, "mode " .. mode)
      if ok then
        stock:close()
        file:close()
      else
        assert.is_truthy(stock:find("invalid mode", 1, true))
        assert.is_truthy(file:find("bad argument #2 to '%a*%.?open' %(invalid mode%)"), file)
      end
    end
  end)

  it("are not opened with arguments of the wrong type", function()
    for _, wrong in ipairs { true, {}, print } do
      assert.is_truthy(helper.error_of(uring.open, wrong)
        :find("bad argument #1 to 'open' (string expected, got " .. type(wrong) .. ")", 1, true))
      local message = helper.error_of(uring.open, "/dev/null", wrong)
      assert.is_truthy(message:find("bad argument #2 to 'open' (string expected, got " .. type(wrong), 1, true),
        message)
    end
    assert.is_truthy(helper.error_of(uring.open):find("bad argument #1 to 'open'", 1, true))
  end)

  it("that cannot be opened give io's errors", function()
    local dir = helper.tmpname ""
    for _, case in ipairs {
      { "/nonexistent/file" }, { "/nonexistent/file", "w" }, { "/tmp", "w" }, { "/tmp", "r+" }, { "/tmp", "a" },
      { dir .. "/below" }, { dir .. "/below", "w" }, { "" }, { "", "w" }, { ("x"):rep(300) }, { ("x/"):rep(3000) },
      { "/proc/self/nope:with: colons", "a+" },
    } do
      local expected = pack(io.open(case[1], case[2]))
      assert.are.equal(3, expected.n)
      assert.are.same(expected, pack(uring.open(case[1], case[2])))
    end
    assert.are.same({ n = 3, nil, "/nope: No such file or directory", errno.ENOENT }, pack(uring.open "/nope"))
  end)

  it("with a zero byte in their name do not exist", function()
    local before = helper.testkit.fds()
    local file, message, number = uring.open("/etc\0/passwd")
    assert.is_nil(file)
    assert.is_truthy(message:find("zero byte", 1, true))
    assert.are.equal(errno.EINVAL, number)
    assert.are.equal(before, helper.testkit.fds())
  end)

  it("are created by w and a, truncated by w, kept by r+ and a", function()
    for _, mode in ipairs { "w", "w+", "a", "a+", "r+" } do
      compare("old contents", mode, { { "write", "new" } })
    end
    for _, mode in ipairs { "w", "w+", "a", "a+" } do
      local path = helper.tmpname()
      os.remove(path)
      assert(uring.open(path, mode)):write("made"):close()
      assert.are.equal("made", slurp(path))
    end
    local path = helper.tmpname()
    os.remove(path)
    assert.are.same({ n = 3, nil, path .. ": No such file or directory", errno.ENOENT }, pack(uring.open(path, "r+")))
  end)

  it("are made with the permissions that io gives", function()
    local paths = { helper.tmpname(), helper.tmpname() }
    os.remove(paths[1])
    os.remove(paths[2])
    assert(uring.open(paths[1], "w")):close()
    assert(io.open(paths[2], "w")):close()
    local _, ours = uring.op.statx(nil, paths[1])
    local _, theirs = uring.op.statx(nil, paths[2])
    assert.are.equal(theirs.mode, ours.mode)
  end)

  it("are read by every format", function()
    for _, formats in ipairs {
      { n = 0 }, { "l" }, { "L" }, { "a" }, { "*l" }, { "*L" }, { "*a" }, { "line" }, { "*all" }, { 0 }, { 1 },
      { 5 }, { 1000 }, { "l", "l" }, { "L", 3, "l", "a" }, { "a", "a" }, { "a", "l" }, { "a", 0 }, { "a", 1, "a" },
      { "n" }, { "n", "l" }, { "l", "n", "n" }, { 100, 1, "a" }, { 100, "a" },
      { "l", "l", "l", "l", "l", "l", "l" }, { 3.0 }, { 0, 0, 0 }, { 2, "L", 0 },
    } do
      local call = { n = 1 + (formats.n or #formats), "read", table.unpack(formats, 1, formats.n) }
      compare(lines, "r", { call, { "read", "a" }, { "read", "a" }, { "read", "l" }, { "read", 0 }, { "read", 1 } })
      compare("", "r", { call })
    end
  end)

  it("refuse formats that are none, as io does", function()
    for _, format in ipairs { "x", "", "*", "**l", "5", "*x", "\0l" } do
      compare(lines, "r", { { "read", format }, { "read", "l", format }, { "read", "l" } })
    end
    for _, format in ipairs { true, {}, print } do
      compare(lines, "r", { { "read", format } })
    end
    compare(lines, "r", { { "read", 1.5 }, { "read", 0 / 0 }, { "read", nil, n = 2 }, { "read", "l", nil, n = 3 } })
  end)

  it("read numbers as io does", function()
    local digits = ("1"):rep(199)
    for _, contents in ipairs {
      "", " ", "12", "12 13", "  \t\n-7", "+5", "-", "--1", "0x", "0x1F", "0X.8p1", "0x1p", "1e", "1e+", "1e5",
      "1E-2x", ".5",
      ".", "..", "5.", "1.2.3", "0", "00", "0e1", "inf", "nan", "12abc", "abc", "1e5e5", "9223372036854775807",
      "9223372036854775808", "-9223372036854775808", "0xffffffffffffffff", "0x1ffffffffffffffff", digits .. " 2",
      digits .. "2 3", digits .. "22 3", digits .. "222 3", ("0"):rep(300), " 1\n2\n3", "1,2", "1\0" .. "2",
      "0x-1", "1 nil", "0b1",
      (" "):rep(9000) .. "5", digits .. "." .. digits,
    } do
      for _, format in ipairs { "n", "*n", "number" } do
        compare(contents, "r", { { "read", format }, { "read", format }, { "read", format, "a" }, { "read", "a" } })
      end
      compare(contents, "r", { { "read", "n", "l" }, { "read", "n", "n", "L" }, { "read", 1, "n" }, { "seek" } })
    end
  end)

  it("end as those of io end", function()
    for _, contents in ipairs { "", "\n", "x", "x\n", "\n\n", "x\n\n", "a\0\n", "\r\n" } do
      compare(contents, "r", { { "read", 0 }, { "read", "l" }, { "read", 0 }, { "read", "l" }, { "read", "l" },
        { "read", "a" }, { "read", 0 } })
      compare(contents, "r", { { "read", "L" }, { "read", "L" }, { "read", "L" } })
      compare(contents, "r", { { "read", "a" }, { "read", "a" }, { "read", 1 } })
      compare(contents, "r", { { "read", 1 }, { "read", 0 }, { "read", 1 }, { "read", 1 }, { "read", 0 } })
    end
  end)

  it("see what others append after the end", function()
    local path = helper.tmpname "one\n"
    local file <close> = assert(uring.open(path))
    assert.are.equal("one", file:read())
    assert.is_nil(file:read())
    local other <close> = assert(io.open(path, "a"))
    other:write "two\n"
    other:flush()
    assert.are.equal("two", file:read())
  end)

  it("write what io writes", function()
    compare("", "w", {
      { "write" }, { "write", "" }, { "write", "text" }, { "write", "several", " ", "of", "\n" },
      { "write", 1, " ", -7, " ", 2 ^ 53, " ", math.maxinteger, " ", math.mininteger, "\n" },
      { "write", 1.5, " ", 0.1, " ", 1e100, " ", -0.5, " ", 1 / 3, "\n" },
      { "write", 1.0 }, { "write", " ", 3.0, " ", -0.0, " ", 1e15 }, { "write", 1 / 0, " ", -1 / 0 },
      { "write", "\0\1\255", "\0" }, { "write", ("long"):rep(10000) },
    })
    local path = helper.tmpname ""
    local file = assert(uring.open(path, "w"))
    assert.are.equal(file, file:write("a"):write("b", 1):write())
    file:close()
    assert.are.equal("ab1", slurp(path))
  end)

  it("refuse to write what io does not write", function()
    for _, wrong in ipairs { true, {}, print } do
      local file, stock = twins("", "w")
      for _, values in ipairs { { wrong }, { "x", wrong }, { "x", 5, wrong, "y" } } do
        local _, expected = pcall(function() return stock:write(table.unpack(values)) end)
        local _, got = pcall(function() return file:write(table.unpack(values)) end)
        local position = expected:match "bad argument #(%d)"
        assert.is_truthy(got:find(("bad argument #%s to 'write' (string"):format(position), 1, true), got)
        assert.is_truthy(got:find("got " .. type(wrong), 1, true), got)
      end
      stock:close()
      file:close()
    end
    local file <close> = assert(uring.open(helper.tmpname "", "w"))
    assert.is_truthy(helper.error_of(function() return file:write(nil) end):find("got nil", 1, true))
    assert.is_truthy(helper.error_of(function() return file:write("x", nil) end):find("got nil", 1, true))
  end)

  it("write Buffers, too", function()
    local path = helper.tmpname ""
    local file = assert(uring.open(path, "w"))
    assert.are.equal(file, file:write(uring.buffer "whole", uring.buffer("0123456789"):slice(4, 6), 1.5, "!"))
    file:close()
    assert.are.equal("whole3451.5!", slurp(path))
  end)

  it("cannot be read or written against their mode, with io's errors", function()
    for _, calls in ipairs {
      { "w", { "read", "l" } }, { "w", { "read", "a" } }, { "w", { "read", 0 } }, { "w", { "read", 5 } },
      { "a", { "read", "L" } }, { "w", { "read", "l", "a" } }, { "w", { "read" } },
    } do
      compare("contents", table.unpack({ calls[1], { calls[2] } }))
    end
    local file, stock = twins("contents", "r")
    local expected = pack(stock:write "x")
    local got = pack(file:write "x")
    assert.are.same({ nil, expected[2], expected[3] }, { got[1], got[2], got[3] })
    assert.are.equal("contents", file:read "a")
    file:close()
    stock:close()
  end)

  it("that are directories give io's errors", function()
    for _, format in ipairs { "l", "L", "a", 0, 5 } do
      local file, stock = assert(uring.open "/tmp"), assert(io.open "/tmp")
      assert.are.same({ n = 5, true, true, nil, "Is a directory", errno.EISDIR },
        same(file, stock, "directory", "read", format))
      file:close()
      stock:close()
    end
  end)

  it("know their position", function()
    compare("0123456789", "r", {
      { "seek" }, { "read", 3 }, { "seek" }, { "seek", "cur", 2 }, { "read", 1 }, { "seek", "set" }, { "read", 1 },
      { "seek", "end" }, { "read", 1 }, { "seek", "end", -3 }, { "read", "a" }, { "seek", "set", 100 },
      { "read", "a" }, { "read", 1 }, { "seek", "cur", -95 }, { "read", 2 }, { "seek", "cur" }, { "seek", "set", 3.0 },
    })
    compare(lines, "r", {
      { "read", "l" }, { "seek" }, { "read", "l" }, { "seek", "cur", -3 }, { "read", "L" }, { "seek" },
      { "read", "l", 4 }, { "seek", "cur", 0 }, { "read", "a" }, { "seek" },
    })
    compare("0123456789", "r+", {
      { "read", 2 }, { "seek", "cur" }, { "write", "ab" }, { "seek" }, { "seek", "cur", 1 }, { "read", 2 },
      { "seek", "end", 5 }, { "write", "past the end" }, { "seek", "set" }, { "read", "a" },
    })
    compare("old", "w+", {
      { "seek" }, { "read", "a" }, { "seek", "set" }, { "write", "hello\nworld\n" }, { "seek", "set", 6 },
      { "read", "l" }, { "seek", "cur" }, { "seek", "set", 0 }, { "write", "J" }, { "seek", "set" }, { "read", "a" },
    })
    compare("old", "a+", {
      { "seek" }, { "read", 1 }, { "seek", "set" }, { "write", "appended" }, { "seek" }, { "seek", "set", 1 },
      { "read", "a" }, { "seek", "set" }, { "write", "!" }, { "seek", "set" }, { "read", "a" },
    })
    compare("old", "a", { { "seek" } })
    compare("old", "a", { { "write", "x" }, { "seek" }, { "seek", "set" }, { "write", "y" }, { "seek" } })
    compare("old", "r+", { { "seek", "end" }, { "write", "x" }, { "seek" } })
  end)

  it("seek with io's errors", function()
    compare("0123456789", "r", { { "seek", "set", -1 }, { "seek", "cur", -1 }, { "seek", "end", -11 }, { "seek" } })
    for _, call in ipairs {
      { "seek", "bad" }, { "seek", 5 }, { "seek", "set", "x" }, { "seek", "set", 1.5 }, { "seek", {} },
      { "seek", "set", {} }, { "seek", "" },
    } do
      compare("0123456789", "r", { { "read", 2 }, call, { "seek" } })
    end
  end)

  it("iterate over lines as those of io do", function()
    local function collect(f, ...)
      local all = {}
      for a, b in f:lines(...) do
        all[#all + 1] = { a, b }
      end
      return all
    end
    for _, formats in ipairs { { n = 0 }, { "l" }, { "L" }, { 3 }, { 1, "l" }, { "*L" }, { "l", 2 } } do
      for _, contents in ipairs { lines, "", "\n", "x\n" } do
        local file, stock = twins(contents)
        local n = formats.n or #formats
        assert.are.same(collect(stock, table.unpack(formats, 1, n)), collect(file, table.unpack(formats, 1, n)))
        assert.are.equal("file", tostring(file):match "^%a+") -- still open
        file:close()
        stock:close()
      end
    end
    local file, stock = twins "x\n"
    local ours, theirs = file:lines "z", stock:lines "z"
    local _, expected = pcall(function() return theirs() end)
    local _, got = pcall(function() return ours() end)
    assert.is_truthy(expected:find("invalid format", 1, true))
    assert.is_truthy(got:find("invalid format", 1, true), got)
    file:close()
    stock:close()
    assert.is_truthy(helper.error_of(ours):find("closed", 1, true))
  end)

  it("raise from lines when reading fails", function()
    local directory <close> = assert(uring.open "/tmp")
    local message = helper.error_of(function()
      for _ in directory:lines() do
        error "a line"
      end
    end)
    assert.is_truthy(message:find("Is a directory", 1, true), message)
  end)

  it("raise when they are used closed, with io's words", function()
    local file, stock = twins "x"
    stock:close()
    assert.is_true(file:close())
    for _, call in ipairs { { "read" }, { "read", "a" }, { "write", "x" }, { "seek" }, { "lines" } } do
      same(file, stock, call[1], table.unpack(call))
    end
    assert.are.equal("file (closed)", tostring(file))
  end)

  it("close at the end of a block, and when they are dropped", function()
    local before = helper.testkit.fds()
    local path = helper.tmpname "x"
    local kept
    do
      local file <close> = assert(uring.open(path))
      kept = file
      assert.are.equal(before + 1, helper.testkit.fds())
    end
    assert.are.equal(before, helper.testkit.fds())
    assert.are.equal("file (closed)", tostring(kept))
    uring.open(path)
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, helper.testkit.fds())
  end)

  it("are not inherited by programs", function()
    local file <close> = assert(uring.open(helper.tmpname "x"))
    local pipe <close> = io.popen("ls /proc/self/fd")
    for fd in pipe:lines() do
      assert.are_not.equal(file:fd(), math.tointeger(fd))
    end
  end)

  it("may be megabytes", function()
    local size = helper.times(5) * 1048576
    local parts = {}
    for i = 1, size // 64 do
      parts[i] = ("%063d\n"):format(i)
    end
    local contents = table.concat(parts)
    local path = helper.tmpname ""
    uring.run(function()
      local file <close> = assert(uring.open(path, "w"))
      assert.are.equal(file, file:write(contents))
    end)
    assert.is_true(slurp(path) == contents, "what was written differs")
    uring.run(function()
      local file <close> = assert(uring.open(path))
      assert.is_true(file:read "a" == contents, "what was read differs")
      assert.are.equal(0, file:seek "set")
      local n = 0
      for line in file:lines() do
        n = n + 1
        if line ~= parts[n]:sub(1, -2) then
          error("line " .. n .. " differs")
        end
      end
      assert.are.equal(#parts, n)
      file:seek("set", size // 2)
      assert.is_true(file:read(size) == contents:sub(size // 2 + 1), "the second half differs")
    end)
  end)

  it("may have lines of any length", function()
    local long = ("x"):rep(3 << 20)
    local path = helper.tmpname(long .. "\nshort\n" .. long)
    local file <close> = assert(uring.open(path))
    local line, message = file:read "l"
    assert.is_nil(message)
    assert.is_true(line == long)
    assert.are.equal("short\n", file:read "L")
    assert.is_true(file:read "L" == long)
  end)

  it("are read by many tasks at once", function()
    local count = helper.times(50)
    uring.run(function()
      for i = 1, count do
        uring.spawn(function()
          local path = helper.tmpname()
          local file = assert(uring.open(path, "w+"))
          for n = 1, 20 do
            file:write(i, " ", n, "\n")
          end
          file:seek "set"
          for n = 1, 20 do
            assert.are.equal(i .. " " .. n, file:read())
          end
          file:close()
        end)
      end
    end)
  end)

  it("may be fifos and devices", function()
    local null <close> = assert(uring.open("/dev/null", "r+"))
    assert.are.equal(null, null:write "gone")
    assert.is_nil(null:read(1))
    local zero <close> = assert(uring.open "/dev/zero")
    assert.are.equal(("\0"):rep(100000), zero:read(100000))
    local full <close> = assert(uring.open("/dev/full", "w"))
    local ok, message, number = full:write "x"
    assert.is_nil(ok)
    assert.are.equal("No space left on device", message)
    assert.are.equal(errno.ENOSPC, number)
  end)
end)

-- Random calls on twins.  Between reading and writing there is a seek, since C
-- leaves undefined what happens without.
describe("random sequences on files", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local seed = tonumber(os.getenv "URING_SEED") or 31337
  local sequences = helper.times(200)

  local function pick(list)
    return list[math.random(#list)]
  end

  local pieces = { "12 ", "-0x1p4", "1e", "", "x", "\n", "line\n", "two\nlines\n", "\0", "no newline", "\r\n",
    ("long "):rep(50), "\n\n\n" }

  local function contents()
    local parts = {}
    for i = 1, math.random(0, 12) do
      parts[i] = pick(pieces)
    end
    local s = table.concat(parts)
    return math.random() < 0.1 and s:rep(400) or s -- more than is read at a time
  end

  local function formats()
    local list = {}
    for i = 1, math.random(0, 3) do
      list[i] = pick { "l", "L", "a", "n", "*l", "*L", 0, 1, 2, 7, 100, 20000, "l", "L", 3 }
    end
    return list
  end

  local function values()
    local list = {}
    for i = 1, math.random(0, 3) do
      list[i] = math.random() < 0.7 and pick(pieces) or pick { 0, -1, 42, 1.5, 1e15, math.maxinteger }
    end
    return list
  end

  -- What the next call does: "read" | "write" | "seek".
  local function next_call(mode, last)
    local kind = pick { "read", "read", "write", "seek" }
    local only = mode == "r" and "read" or (mode == "w" or mode == "a") and "write" or nil
    if only and kind ~= "seek" then
      kind = only
    end
    if kind ~= "seek" and last ~= "seek" and last ~= kind then
      kind = "seek"
    end
    if kind == "read" then
      return kind, formats()
    elseif kind == "write" then
      return kind, values()
    end
    local whence = pick { "set", "cur", "end" }
    local offset = whence == "set" and math.random(0, 60) or math.random(-20, 20)
    return kind, pick { {}, { whence }, { whence, offset }, { "set", math.random(0, 10000) } }
  end

  it("give what io gives", function()
    math.randomseed(seed)
    local calls = { read = 0, write = 0, seek = 0 }
    for i = 1, sequences do
      local mode = pick { "r", "r", "w", "a", "r+", "r+", "w+", "a+" }
      local file, stock, ours, theirs = twins(contents(), mode)
      local last = "seek"
      local log = {}
      if mode == "a" then -- where appending begins is asked elsewhere
        file:seek "end"
        stock:seek "end"
      end
      for n = 1, math.random(1, 15) do
        local kind, list = next_call(mode, last)
        log[n] = kind .. "(" .. table.concat(list, ","):sub(1, 40):gsub("%c", "?") .. ")"
        same(file, stock, ("seed %d, sequence %d, %s: %s"):format(seed, i, mode, table.concat(log, " ")),
          kind, table.unpack(list))
        last = kind
        calls[kind] = calls[kind] + 1
      end
      stock:close()
      file:close()
      assert.is_true(slurp(theirs) == slurp(ours), ("seed %d, sequence %d, %s: %s: the files differ")
        :format(seed, i, mode, table.concat(log, " ")))
      helper.cleanup()
    end
    for kind, n in pairs(calls) do
      assert.is_true(n > 0, kind)
    end
  end)
end)

-- The kernel leaves these to a thread, which looks the descriptor up when it gets to it: by then it could be another
-- file's.
describe("a file that is closed by another task", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  for what, call in pairs {
    truncate = function(file) return file:truncate(0) end;
    sync = function(file) return file:sync() end;
  } do
    it(("while it is under %s has nothing done to the next of its number"):format(what), function()
      local first, second = helper.tmpname(("a"):rep(100)), helper.tmpname()
      for i = 1, helper.times(200) do
        local fresh = assert(io.open(second, "w"))
        fresh:write(("b"):rep(100))
        fresh:close()
        uring.run(function()
          local file = assert(uring.open(first, "r+"))
          local busy = uring.spawn(call, file)
          local closing = uring.spawn(file.close, file)
          local opening = uring.spawn(function()
            for _ = 1, i % 3 do uring.yield() end
            return assert(uring.open(second, "r+"))
          end)
          assert.are.equal(file, (busy:await()))
          assert.is_true(closing:await())
          local other <close> = opening:await()
          assert.are.equal(100, other:stat().size)
        end)
      end
      assert.are.equal(what == "truncate" and "" or ("a"):rep(100), slurp(first))
    end)
  end

  it("while it is spliced into a pipe does not have another read in its place", function()
    local first, second = helper.tmpname(("a"):rep(300000)), helper.tmpname(("b"):rep(300000))
    for i = 1, helper.times(30) do
      uring.run(function()
        local file = assert(uring.open(first))
        local sink, to = assert(uring.pipe())
        local reading = uring.spawn(sink.read, sink, "a")
        local busy = uring.spawn(pcall, uring.transfer, file, to)
        local opening = uring.spawn(function()
          for _ = 1, i do uring.yield() end
          assert(file:close())
          return assert(uring.open(second))
        end)
        busy:await()
        to:close()
        assert.is_nil(reading:await():find "b")
        opening:await():close()
        sink:close()
      end)
    end
  end)
end)
