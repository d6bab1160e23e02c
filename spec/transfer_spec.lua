-- From one stream to another.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

-- Runs fn as a task; a hang becomes a failure.
local function run(fn)
  local results = pack(uring.timeout(helper.slow and 60 or 10, function()
    fn()
    return "ended"
  end))
  assert.are.equal("ended", results[1], "it hangs")
end

local function close(...)
  for _, x in ipairs { ... } do
    assert.is_true(x:close())
  end
end

-- A reproducible text of n bytes with a pattern in it.
local function text(n)
  local parts = {}
  for i = 1, n // 8 + 1 do
    parts[i] = ("%07d:"):format(i)
  end
  return table.concat(parts):sub(1, n)
end

local SIZES = { 0, 1, 16383, 16384, 16385, 65536, 100000, 300001 }

-- Two ends of a connection: what is written into the first is read from the second.
local makers = {
  ["a socket"] = function() return uring.socketpair() end;
  ["a pipe"] = function()
    local r, w = uring.pipe()
    return w, r
  end;
  ["a TCP connection"] = function()
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local client = assert(uring.connect(listener:address()))
    return client, assert(listener:accept())
  end;
}

describe("transfer", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  -- Writes all of it and ends the stream.
  local function feed(stream, data)
    return uring.spawn(function()
      assert(stream:write(data))
      stream:close()
    end)
  end

  for from_name, make_from in pairs(makers) do
    for to_name, make_to in pairs(makers) do
      it("moves everything from " .. from_name .. " to " .. to_name, function()
        run(function()
          for _, size in ipairs(SIZES) do
            local data = text(size)
            local source, from = make_from()
            local to, sink = make_to()
            feed(source, data)
            local reading = uring.spawn(function() return sink:read "a" end)
            assert.are.equal(size, uring.transfer(from, to))
            to:close()
            assert.is_true(reading:await() == data, size .. " bytes")
            close(from, sink)
          end
        end)
      end)
    end

    it("moves everything from " .. from_name .. " to a file, and from a file to it", function()
      run(function()
        for _, size in ipairs(SIZES) do
          local data = text(size)
          local path = helper.tmpname()
          for _, mode in ipairs { "w", "a" } do
            local file <close> = assert(uring.open(path, mode))
            local source, from = make_from()
            feed(source, data)
            assert.are.equal(size, uring.transfer(from, file))
            from:close()
          end
          assert.is_true(io.open(path):read "a" == data .. data)
          local file <close> = assert(uring.open(path))
          local to, sink = make_from()
          local reading = uring.spawn(function() return sink:read "a" end)
          assert.are.equal(2 * size, uring.transfer(file, to))
          to:close()
          assert.is_true(reading:await() == data .. data)
          close(sink)
        end
      end)
      helper.collect()
    end)
  end

  it("begins with what is in hand, and leaves what it was not asked for", function()
    run(function()
      local source, from = uring.socketpair()
      local to, sink = uring.socketpair()
      local data = text(200000)
      local feeding = feed(source, "head\n" .. data .. "tail\n")
      assert.are.equal("head", from:read())
      local reading = uring.spawn(function() return sink:read(#data) end)
      assert.are.equal(#data, uring.transfer(from, to, #data))
      assert.is_true(reading:await() == data)
      assert.are.equal("tail", from:read())
      feeding:await()
      assert.are.equal(0, uring.transfer(from, to, 5))
      close(from, to, sink)
    end)
  end)

  it("takes a part of a file, from where it stands", function()
    run(function()
      local data = text(200000)
      local path = helper.tmpname("line\n" .. data)
      local file = assert(uring.open(path))
      local to, sink = uring.socketpair()
      assert.are.equal("line", file:read())
      for _, count in ipairs { 10, 100000, 50000, 0, 49990 } do
        local at = file:seek()
        local reading = uring.spawn(function() return count > 0 and sink:read(count) or "" end)
        assert.are.equal(count, uring.transfer(file, to, { count = count }))
        assert.is_true(reading:await() == data:sub(at - 5 + 1, at - 5 + count))
        assert.are.equal(at + count, file:seek())
      end
      assert.are.equal(0, uring.transfer(file, to))
      close(file, to, sink)
    end)
  end)

  it("passes a half-close on where it is told to, and only then", function()
    run(function()
      for _, shutdown in ipairs { false, true } do
        local a, b = makers["a TCP connection"]()
        local c, d = makers["a TCP connection"]()
        a:write "question"
        a:shutdown "w"
        assert.are.equal(8, uring.transfer(b, c, { shutdown = shutdown }))
        if not shutdown then
          c:write "!"
          c:shutdown()
        end
        assert.are.equal(shutdown and "question" or "question!", d:read "a")
        d:write "answer" -- the other direction goes on
        d:close()
        assert.are.equal(6, uring.transfer(c, b))
        assert.are.equal("answer", a:read(6))
        close(a, b, c)
      end
    end)
  end)

  it("waits for a reader that is slow, and holds no more than a pipe of it", function()
    run(function()
      local source, from = makers["a TCP connection"]()
      local to, sink = makers["a TCP connection"]()
      local data = text(8000000)
      local feeding = feed(source, data)
      local moving = uring.spawn(uring.transfer, from, to, { shutdown = true })
      uring.sleep(0.05)
      assert.are.equal("waiting", moving:status())
      assert.is_true(uring.stats().bytes_lent < 9000000) -- what is fed is lent, and little besides
      local got, size = {}, 0
      repeat
        local some = sink:read_some(100000)
        got[#got + 1] = some
        size = size + #(some or "")
        if #got % 10 == 0 then
          uring.sleep(0.001)
        end
      until not some
      assert.are.equal(#data, moving:await())
      assert.is_true(table.concat(got) == data)
      feeding:await()
      close(from, to, sink)
    end)
  end)

  it("tells what has been moved when it fails", function()
    run(function()
      local source, from = makers["a TCP connection"]()
      local to, sink = makers["a TCP connection"]()
      local feeding = uring.spawn(function()
        while source:write(text(100000)) do
          uring.yield()
        end
      end)
      local moving = uring.spawn(uring.transfer, from, to)
      assert.are.equal(text(100000), sink:read(100000))
      sink:sockopt("linger", 0)
      sink:close()
      local moved, message, code, count = moving:await()
      assert.is_nil(moved)
      assert.is_true(code == errno.ECONNRESET or code == errno.EPIPE, message)
      assert.is_true(count >= 100000, count)
      from:sockopt("linger", 0)
      close(from, to)
      feeding:await()
      close(source)
      -- and when the source does
      source, from = makers["a TCP connection"]()
      to, sink = makers["a TCP connection"]()
      source:write "some"
      moving = uring.spawn(uring.transfer, from, to)
      assert.are.equal("some", sink:read(4))
      source:sockopt("linger", 0)
      source:close()
      assert.are.same({ n = 4, nil, "recv: Connection reset by peer", errno.ECONNRESET, 4 }, pack(moving:await()))
      close(from, to, sink)
    end)
  end)

  it("ends with the stream that another task closes", function()
    run(function()
      for which = 1, 2 do
        local source, from = uring.socketpair()
        local to, sink = uring.socketpair()
        local moving = uring.spawn(uring.transfer, from, to)
        local feeding = uring.spawn(function() return source:write(text(4000000)) end)
        uring.sleep(0.01) -- nobody reads: it waits to write
        local victim = which == 1 and from or to
        victim:close()
        if which == 1 then -- it is found out when it is read from again
          to:close()
        end
        local ok, moved, message, code = pcall(moving.await, moving)
        if ok then
          assert.is_nil(moved)
          assert.are.equal(errno.ECANCELED, code, message)
        else
          assert.matches("closed", moved)
        end
        from:close()
        feeding:await()
        source:close()
        to:close()
        sink:close()
      end
    end)
  end)

  it("is cancelled at any time, and leaves no pipe behind", function()
    run(function()
      for steps = 0, 25, 5 do
        local source, from = uring.socketpair()
        local to, sink = uring.socketpair()
        local feeding = uring.spawn(function() return source:write(text(2000000)) end)
        local reading = uring.spawn(function() return sink:read "a" end)
        local moving = uring.spawn(uring.transfer, from, to)
        for _ = 1, steps do
          uring.yield()
        end
        moving:cancel()
        assert.is_false((pcall(moving.await, moving)))
        close(from, to)
        feeding:await()
        reading:await()
        close(source, sink)
      end
    end)
  end)

  it("copies where there is no descriptor for a pipe", function()
    local output, status = helper.script [[
      local uring = require "uring"
      local testkit = require "testkit"
      uring.run(function()
        local source, from = uring.socketpair()
        local to, sink = uring.socketpair()
        testkit.spare_fds(1)
        local data = ("0123456789"):rep(100000)
        uring.spawn(function() source:write(data) source:close() end)
        local reading = uring.spawn(function() return sink:read "a" end)
        assert(uring.transfer(from, to, { shutdown = true }) == #data)
        assert(reading:await() == data)
      end)
      print "done"
    ]]
    assert.are.equal("done\n", output)
    assert.are.equal(0, status)
  end)

  it("leaves descriptors as blocking as they were", function()
    run(function()
      local source, from = makers["a TCP connection"]()
      local to, sink = makers["a TCP connection"]()
      feed(source, text(300000))
      local reading = uring.spawn(function() return sink:read "a" end)
      assert.are.equal(300000, uring.transfer(from, to, { shutdown = true }))
      reading:await()
      for _, stream in ipairs { from, to } do
        for line in io.lines("/proc/self/fdinfo/" .. stream:fd()) do
          local flags = line:match "^flags:%s*(%d+)"
          if flags then
            assert.are.equal(0, tonumber(flags, 8) & 2048) -- O_NONBLOCK
          end
        end
      end
      close(from, to, sink)
    end)
  end)

  for name, make in pairs(makers) do
    it("tears nothing that another task writes: into " .. name, function()
      run(function()
        local source, from = uring.socketpair()
        local to, sink = make()
        local feeding, sizes, total = feed(source, ("."):rep(3000000)), {}, 3000000
        local writing = uring.spawn(function()
          for i = 1, 12 do -- each is more than a pipe or a socket takes at once
            sizes[i] = 300000 + i
            total = total + sizes[i]
            assert(to:write(string.char(96 + i):rep(sizes[i])))
            uring.sleep(0.001)
          end
        end)
        local transferring = uring.spawn(uring.transfer, from, to)
        local parts = {}
        local reading = uring.spawn(function()
          for part in function() return sink:read_some(40000) end do
            parts[#parts + 1] = part
            if #parts % 20 == 0 then uring.sleep(0.001) end
          end
        end)
        feeding:await()
        assert.are.equal(3000000, transferring:await())
        writing:await()
        to:close()
        reading:await()
        local all = table.concat(parts)
        assert.are.equal(total, #all)
        for i, size in ipairs(sizes) do
          local first, last = all:find(string.char(96 + i) .. "+")
          assert.are.equal(size, last - first + 1)
        end
        close(source, from, sink)
      end)
    end)
  end

  it("raises on what is wrong", function()
    local a, b = assert(uring.socketpair())
    for _, case in ipairs {
      { {}, "#1 to 'transfer' (stream expected, got nil)" };
      { { a, 5 }, "#2 to 'transfer' (stream expected, got number)" };
      { { a, b, "5" }, "#3 to 'transfer' (integer or table expected, got string)" };
      { { a, b, 1.5 }, "#3 to 'transfer' (integer or table expected, got number)" };
      { { a, b, -1 }, "#3 to 'transfer' (the count is negative)" };
      { { a, b, { shutdwn = true } }, "unknown option 'shutdwn' of transfer (did you mean 'shutdown'?)" };
      { { a, b, { count = "5" } }, "option 'count' of transfer: integer expected, got string" };
    } do
      local message = helper.error_of(uring.transfer, table.unpack(case[1], 1, 3))
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
    a:close()
    assert.matches("closed", helper.error_of(uring.transfer, a, b))
    assert.matches("closed", helper.error_of(uring.transfer, a, b, 0))
    b:close()
  end)
end)
