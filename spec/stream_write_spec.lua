-- Writing to streams: vectors, buffers, short writes of every size, several
-- writers, slow readers, cancelling and closing, what is left to be written.

local helper = require "spec.support.helper"
local streams = require "spec.support.streams"
local uring = require "uring"

local errno, const, op = uring.errno, uring.const, uring.op

local function pack(...)
  return table.pack(...)
end

local run, tcp, kinds, close = streams.run, streams.tcp, streams.kinds, streams.close

local function text(n, seed)
  local parts, size = {}, 0
  for i = 1, n do
    parts[i] = ("%d,"):format(i * 7919 + (seed or 0))
    size = size + #parts[i]
    if size >= n then
      break
    end
  end
  return table.concat(parts):sub(1, n)
end

local function slurp(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

for kind, make in pairs(kinds) do
  describe("writing to a " .. kind, function()
    helper.watch(before_each, after_each)

    it("sends vectors of any shape", function()
      run(function()
        for _, sizes in ipairs {
          { 0 }, { 1, 0, 1 }, { 10, 20 }, { 8191, 1 }, { 8192, 1 }, { 8193, 0, 7 }, { 100000, 1, 100000 },
          { 3, 70000, 0, 0, 70000, 3 },
        } do
          local w, r = make()
          local values, expected = {}, {}
          for i, size in ipairs(sizes) do
            local s = text(size, i)
            expected[i] = s
            values[i] = i % 3 == 2 and uring.buffer(s) or s
          end
          values[#values + 1], expected[#expected + 1] = 42, "42"
          local reader = uring.spawn(function() return r:read "a" end)
          assert.are.equal(w, w:write(table.unpack(values)))
          w:close()
          assert.is_true(reader:await() == table.concat(expected), table.concat(sizes, " "))
          r:close()
        end
        local w, r = make()
        local many, expected = {}, {}
        for i = 1, 3000 do -- more than one vector takes
          many[i] = ("%06d"):format(i)
          expected[i] = many[i]
        end
        local reader = uring.spawn(function() return r:read "a" end)
        assert.are.equal(w, w:write(table.unpack(many)))
        w:close()
        assert.is_true(reader:await() == table.concat(expected))
        r:close()
      end)
    end)

    it("goes on after short writes of any size", function()
      run(function()
        local w, r = make()
        if kind ~= "pipe" then
          op.setsockopt(w:fd(), const.SOL_SOCKET, const.SO_SNDBUF, 4096)
        end
        local data = text(400000)
        local cut = { data:sub(1, 100000), uring.buffer(data:sub(100001, 200001)), data:sub(200002, 200002),
          data:sub(200003) }
        local reader = uring.spawn(function()
          local parts, size = {}, 1
          while true do
            local part = r:read_some(size)
            if not part then break end
            parts[#parts + 1] = part
            size = size % 5000 + 37
          end
          return table.concat(parts)
        end)
        assert.are.equal(w, w:write(table.unpack(cut)))
        w:close()
        assert.is_true(reader:await() == data)
        r:close()
      end)
    end)

    it("is one call's after the other's, in their order", function()
      run(function()
        local w, r = make()
        local big = ("x"):rep(100000)
        local writers = {}
        for i = 1, 5 do
          writers[i] = uring.spawn(function()
            assert.are.equal(w, w:write(i, big, "\n"))
            assert.are.equal(w, w:write("second ", i, "\n"))
          end)
        end
        local reader = uring.spawn(function() return r:read "a" end)
        for i = 1, 5 do
          writers[i]:await()
        end
        w:close()
        local seen = {}
        for line in reader:await():gmatch "[^\n]+" do
          seen[#seen + 1] = #line > 100 and "big " .. line:sub(1, 1) or line
          assert.is_true(#line < 100 or line:sub(2) == big)
        end
        assert.are.same({ "big 1", "big 2", "big 3", "big 4", "big 5", "second 1", "second 2", "second 3", "second 4",
          "second 5" }, seen)
        r:close()
      end)
    end)

    it("waits for a slow reader, and memory stays bounded", function()
      run(function()
        local w, r = make()
        local chunk = ("y"):rep(1 << 16)
        local sent = 0
        local writer = uring.spawn(function()
          for _ = 1, 400 do
            assert(w:write(chunk))
            sent = sent + #chunk
          end
        end)
        local most = 0
        local got = 0
        for _ = 1, 40 do
          uring.sleep(0.0005)
          got = got + #r:read_some(1000)
          most = math.max(most, sent - got)
        end
        assert.is_true(most < 8 << 20, most)
        assert.are.equal("waiting", writer:status())
        writer:cancel()
        pcall(writer.await, writer)
        close(w, r)
      end)
    end)

    it("cancelled, leaves the stream usable", function()
      run(function()
        local w, r = make()
        local writers = {}
        for i = 1, 3 do
          writers[i] = uring.spawn(w.write, w, ("z"):rep(10000000), "and more")
        end
        uring.sleep(0.002)
        for i = 1, 3 do
          assert.are.equal("waiting", writers[i]:status())
          writers[i]:cancel()
        end
        collectgarbage()
        for i = 1, 3 do
          assert.is_false(pcall(writers[i].await, writers[i]))
        end
        r:limit { line = 1 << 30 }
        local reader = uring.spawn(function() return r:read_until "END" end)
        assert.are.equal(w, w:write("END"))
        assert.is_truthy(reader:await():find "^z+END$")
        close(w, r)
      end)
    end)

    it("has a limit of time, and tells how much was written", function()
      run(function()
        local w, r = make()
        w:timeout(0.02)
        local data = ("t"):rep(20000000)
        local ok, message, number, sent = w:write(data)
        assert.is_nil(ok)
        assert.are.same({ "timeout", errno.ETIMEDOUT }, { message, number })
        assert.is_true(sent > 0 and sent < #data)
        w:timeout(0.2)
        local first = uring.spawn(function() return w:write(data) end)
        uring.yield()
        w:timeout(0.02) -- of those that begin from now on: over while the first still writes
        assert.are.same({ n = 4, nil, "timeout", errno.ETIMEDOUT, 0 }, pack(w:write "in line"))
        local _, _, _, more = first:await()
        local reader = uring.spawn(function() return #r:read "a" end)
        w:close()
        assert.are.equal(sent + more, reader:await())
        r:close()
      end)
    end)

    it("closed by another task, tells everybody in line", function()
      run(function()
        local w, r = make()
        local results = {}
        local tasks = {}
        for i = 1, 3 do
          tasks[i] = uring.spawn(function() results[i] = pack(w:write(("c"):rep(9000000))) end)
        end
        uring.sleep(0.002)
        assert.is_true(w:close())
        uring.await(table.unpack(tasks))
        for i = 1, 3 do
          assert.are.same({ "closed", errno.ECANCELED }, { results[i][2], results[i][3] })
          assert.is_true(i == 1 and results[i][4] > 0 or results[i][4] == 0)
        end
        r:close()
      end)
    end)

    it("buffered, is written when it has to be", function()
      run(function()
        local w, r = make()
        local function there()
          r:timeout(0.002)
          local s = r:read_some()
          r:timeout(nil)
          return s or ""
        end
        assert.is_true(w:setvbuf("full", 10))
        assert.are.equal(w, w:write "12345")
        assert.are.equal(w, w:write("678", 90))
        assert.are.equal("", there())
        assert.are.equal(w, w:flush())
        assert.are.equal("1234567890", there())
        assert.are.equal(w, w:write "12345")
        assert.are.equal(w, w:write "678901") -- does not fit
        assert.are.equal("12345678901", there())
        assert.are.equal(w, w:write("a", ("b"):rep(100), uring.buffer "c"))
        assert.are.equal("a" .. ("b"):rep(100) .. "c", there())
        assert.is_true(w:setvbuf("line", 100))
        assert.are.equal(w, w:write "no newline")
        assert.are.equal("", there())
        assert.are.equal(w, w:write(" and one\nx"))
        assert.are.equal("no newline and one\nx", there())
        assert.are.equal(w, w:write "left")
        assert.is_true(w:setvbuf "no")
        assert.are.equal("left", there())
        assert.are.equal(w, w:write "at once")
        assert.are.equal("at once", there())
        assert.is_true(w:setvbuf "full")
        assert.are.equal(w, w:write "at the end")
        close(w)
        assert.are.equal("at the end", r:read "a")
        r:close()
      end)
    end)

    it("buffered and dropped, is written by the collector", function()
      local w, r = make()
      w:setvbuf "full"
      w:write "left behind"
      w = nil -- luacheck: ignore
      helper.collect()
      assert.are.equal("left behind", r:read "a")
      r:close()
    end)

    it("refuses bad arguments, and has written nothing then", function()
      local w, r = make()
      for _, wrong in ipairs { true, {}, print, io.stdout } do
        assert.is_truthy(helper.error_of(function() w:write("x", 1, wrong) end)
          :find("bad argument #3 to 'write' (string expected, got ", 1, true))
      end
      local closed, lent = uring.buffer(4), uring.buffer(4)
      closed:close()
      assert.is_truthy(helper.error_of(w.write, w, "x", closed):find("closed buffer", 1, true))
      do
        local source <close> = uring.pipe()
        local _op <close> = uring.prepare("read", source:fd(), lent)
        assert.is_truthy(helper.error_of(w.write, w, "x", lent):find("lent to the kernel", 1, true))
      end
      for _, wrong in ipairs { "none", "", 5 } do
        assert.is_truthy(helper.error_of(function() w:setvbuf(wrong) end)
          :find("bad argument #1 to 'setvbuf' (invalid option '" .. wrong .. "')", 1, true))
      end
      assert.is_truthy(helper.error_of(function() w:setvbuf() end)
        :find("bad argument #1 to 'setvbuf' (string expected, got no value)", 1, true))
      assert.is_truthy(helper.error_of(function() w:setvbuf("full", "x") end)
        :find("bad argument #2 to 'setvbuf' (number expected, got string)", 1, true))
      w:close()
      assert.are.equal("", r:read "a")
      r:close()
    end)

    it("keeps what is being sent from the collector", function()
      run(function()
        local w, r = make()
        local tasks = {}
        for i = 1, 3 do
          tasks[i] = uring.spawn(function()
            w:write(("%d"):format(i):rep(300000), uring.buffer(("%d"):format(i):rep(10)), ("."):rep(100000))
          end)
        end
        local parts = {}
        for _ = 1, 100000 do
          local part = r:read_some(20000)
          parts[#parts + 1] = part
          if part:sub(-1) == "." and #parts > 60 then
            break
          end
          collectgarbage "step"
        end
        uring.spawn(function()
          uring.await(table.unpack(tasks))
          w:close()
        end)
        parts[#parts + 1] = r:read "a"
        local expected = {}
        for i = 1, 3 do
          expected[i] = ("%d"):format(i):rep(300010) .. ("."):rep(100000)
        end
        assert.is_true(table.concat(parts) == table.concat(expected))
        r:close()
      end)
    end)
  end)
end

describe("a connection that is reset", function()
  helper.watch(before_each, after_each)

  it("tells who reads and who writes", function()
    run(function()
      for _ = 1, 3 do
        local client, server = tcp()
        server:setvbuf "full"
        server:write "never arrives"
        local linger = string.pack("i4i4", 1, 0)
        assert(op.setsockopt(client:fd(), const.SOL_SOCKET, const.SO_LINGER, linger))
        local reader = uring.spawn(function() return pack(server:read "l") end)
        uring.yield()
        client:close()
        assert.are.same({ n = 3, nil, "recv: Connection reset by peer", errno.ECONNRESET }, reader:await())
        local ok, message, number = server:flush()
        assert.is_nil(ok)
        assert.are.same({ "send: Broken pipe", errno.EPIPE }, { message, number })
        ok, message, number = server:close()
        assert.is_nil(ok)
        assert.are.same({ "send: Broken pipe", errno.EPIPE }, { message, number })
        assert.is_true(server:close())
      end
    end)
  end)
end)

describe("a buffered file", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("is not written before it has to be", function()
    local path = helper.tmpname ""
    local file = assert(uring.open(path, "w"))
    file:write("some", "thing", 1)
    assert.are.equal("", slurp(path))
    file:flush()
    assert.are.equal("something1", slurp(path))
    file:write "more"
    assert.are.equal(14, file:seek())
    assert.are.equal("something1more", slurp(path))
    file:write "!"
    file:setvbuf "no"
    assert.are.equal("something1more!", slurp(path))
    file:write "?"
    assert.are.equal("something1more!?", slurp(path))
    file:close()
  end)

  it("is written however many bytes come at a time", function()
    for _, size in ipairs { 1, 7, 15, 16, 17, 31, 1000 } do
      local path = helper.tmpname ""
      local file = assert(uring.open(path, "w"))
      file:setvbuf("full", 16)
      local data = text(helper.times(2000), size)
      for i = 1, #data, size do
        assert.are.equal(file, file:write(data:sub(i, i + size // 2 - 1), data:sub(i + size // 2, i + size - 1)))
      end
      file:close()
      assert.is_true(slurp(path) == data, "pieces of " .. size)
    end
  end)

  it("that is dropped is written, at the end of the state, too", function()
    local path = helper.tmpname ""
    local output, status = helper.script(([[
      local uring = require "uring"
      local dropped = uring.open(%q, "w")
      dropped:write "dropped "
      dropped = nil
      collectgarbage() collectgarbage()
      kept = uring.open(%q, "a")
      uring.run(function() kept:write("kept ", 1) end)
    ]]):format(path, path))
    assert.are.same({ "", 0 }, { output, status })
    assert.are.equal("dropped kept 1", slurp(path))
  end)

  for _, ending in ipairs { "os.exit(0, true)", "os.exit(0)" } do
    it("that is being written at " .. ending .. " is written once", function()
      for i = 0, 3 do
        local path = helper.tmpname ""
        local output, status = helper.script(([[
          local uring = require "uring"
          uring.run(function()
            local file = uring.open(%q, "w")
            file:write "once"
            uring.spawn(function() file:flush() end)
            for _ = 1, %d do uring.yield() end
            %s
          end)
        ]]):format(path, i, ending))
        assert.are.same({ "", 0 }, { output, status })
        assert.are.equal("once", slurp(path))
      end
    end)
  end

  it("is read where it was written, and written where it was read", function()
    local path = helper.tmpname "0123456789"
    local file <close> = assert(uring.open(path, "r+"))
    assert.are.equal("01", file:read(2))
    assert.are.equal(file, file:write "ab")
    assert.are.equal("45", file:read(2))
    assert.are.equal(6, file:seek())
    assert.are.equal(file, file:write "c")
    assert.are.equal("789", file:read "a")
    assert.are.equal(10, file:seek())
    assert.are.equal("01ab45c789", slurp(path))
  end)

  it("tells its position to whoever shares it", function()
    local path = helper.tmpname "one\ntwo\nthree\n"
    local file = assert(uring.open(path))
    assert.are.equal("one", file:read())
    assert.are.equal(file, file:flush())
    local at = require "uring.core".seek(file:fd(), "cur")
    assert.are.equal(4, at) -- as a program that inherits it would find it
    assert.are.equal("two", file:read())
    file:close()
  end)

  it("reports what could not be written when it is flushed and closed", function()
    local file = assert(uring.open("/dev/full", "w"))
    file:setvbuf "full"
    assert.are.equal(file, file:write "x")
    local full = { n = 3, nil, "No space left on device", errno.ENOSPC }
    assert.are.same(full, pack(file:flush()))
    assert.are.same(full, pack(file:close()))
    assert.is_true(file:close())
  end)

  it("that was opened for reading refuses to be written", function()
    local file <close> = assert(uring.open(helper.tmpname "x"))
    assert.are.same({ n = 4, nil, "Bad file descriptor", errno.EBADF, 0 }, pack(file:write "y"))
    assert.are.equal(file, file:write "")
    assert.are.equal("x", file:read "a")
  end)

  it("is used by several tasks at once", function()
    local path = helper.tmpname ""
    run(function()
      local file <close> = assert(uring.open(path, "w"))
      file:setvbuf("full", 100)
      local tasks = {}
      for i = 1, 10 do
        tasks[i] = uring.spawn(function()
          for n = 1, 50 do
            assert(file:write(i, " ", n, "\n"))
            if n % 7 == 0 then uring.yield() end
          end
        end)
      end
      uring.await(table.unpack(tasks))
    end)
    local last, count = {}, 0
    for line in io.lines(path) do
      local i, n = line:match "^(%d+) (%d+)$"
      assert.are.equal((last[i] or 0) + 1, tonumber(n))
      last[i] = tonumber(n)
      count = count + 1
    end
    assert.are.equal(500, count)
  end)

  -- A limit of 64 KB on files stands for a disk that is full.
  for _, mode in ipairs { "w", "r+", "a", "a+" } do
    for _, buffering in ipairs { "no", "full" } do
      it(("to a disk that gets full says so, and overwrites nothing: %q, %q"):format(mode, buffering), function()
        local path = helper.tmpname "before\n"
        local output = helper.script(([[
          local uring = require "uring"
          local lines = {}
          for i = 1, 20000 do lines[i] = ("%%06d\n"):format(i) end
          local text = table.concat(lines)
          uring.run(function()
            local file = assert(uring.open(%q, %q))
            file:setvbuf(%q)
            local ok, message = file:write(text:sub(1, 40000))
            if ok then ok, message = file:write(text:sub(40001)) end
            if ok then ok, message = file:flush() end
            print(ok, message, file:seek())
            uring.op.close(file:fd()) -- what is left cannot be written by anybody
          end)
          local written = io.open(%q):read "a"
          print(#written, written == (%q .. text):sub(1, #written))
        ]]):format(path, mode, buffering, path, mode:find "a" and "before\n" or ""),
          "trap '' XFSZ; ulimit -f 128;")
        assert.are.equal("nil\tFile too large\t65536\n65536\ttrue\n", output)
      end)
    end
  end
end)
