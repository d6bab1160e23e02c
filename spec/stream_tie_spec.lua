-- Streams that are tied: what is buffered is written before a read waits.

local helper = require "spec.support.helper"
local uring = require "uring"

local errno = uring.errno
local pack = table.pack

-- Two sockets of which the first is buffered and tied.
local function tied_pair()
  local one, other = assert(uring.socketpair())
  assert.is_true(one:setvbuf("full", 4096))
  assert.are.equal(one, one:tie())
  return one, other
end

-- What has come, without waiting for more.
local function arrived(stream)
  return (uring.timeout(0.02, stream.read_some, stream))
end

-- Every way to read, each with what it gives of "answer\n".
local ways = {
  read = function(s) return s:read() end;
  ["read of several formats"] = function(s)
    local a, b = s:read(3, "l")
    return a .. b
  end;
  lines = function(s) return s:lines()() end;
  ["lines of a format"] = function(s) return (s:lines "L"():gsub("\n", "")) end;
  read_some = function(s) return (s:read_some():gsub("\n", "")) end;
  read_until = function(s) return (s:read_until "\n":gsub("\n", "")) end;
  recv = function(s)
    local buffer = uring.buffer(100)
    return (buffer:get(1, s:recv(buffer)):gsub("\n", ""))
  end;
}

describe("a tied stream", function()
  helper.watch(before_each, after_each)

  for name, ask in pairs(ways) do
    it("has sent what was written before " .. name .. " waits", function()
      uring.run(function()
        local one, other = tied_pair()
        local _ <close> = one
        local _ <close> = other
        uring.spawn(function()
          assert.are.equal("question", other:read())
          other:write "answer\n"
        end)
        assert(one:write("ques", "tion\n"))
        assert.are.equal("answer", ask(one))
      end)
    end)

    it("does so outside of tasks, too: " .. name, function()
      local one, other = tied_pair()
      local _ <close> = one
      local _ <close> = other
      assert(one:write("ques", "tion\n"))
      local task = uring.spawn(function()
        assert.are.equal("question", other:read())
        other:write "answer\n"
      end)
      assert.are.equal("answer", ask(one))
      task:await()
    end)
  end

  it("sends nothing as long as there is something in hand", function()
    uring.run(function()
      local one, other = tied_pair()
      local _ <close> = one
      local _ <close> = other
      other:write "1\n2\n3\n"
      for line in one:lines() do
        one:write("<", line, ">")
        if line == "3" then
          break
        end
        assert.is_nil(arrived(other))
      end
      local reader = uring.spawn(one.read, one)
      assert.are.equal("<1><2><3>", other:read_some()) -- in one piece
      other:write "4\n"
      assert.are.equal("4", reader:await())
    end)
  end)

  it("sends while a part of what is wanted is in hand", function()
    uring.run(function()
      local one, other = tied_pair()
      local _ <close> = one
      local _ <close> = other
      other:write "1\n2"
      assert.are.equal("1", one:read())
      one:write "answer"
      local reader = uring.spawn(one.read, one)
      assert.are.equal("answer", other:read(6))
      other:write "3\n"
      assert.are.equal("23", reader:await())
    end)
  end)

  it("is so until it is untied", function()
    uring.run(function()
      local one, other = tied_pair()
      local _ <close> = one
      local _ <close> = other
      assert.are.equal(one, one:tie(false))
      one:write "x"
      local reader = uring.spawn(one.read_some, one)
      assert.is_nil(arrived(other))
      one:tie(true)
      other:write "y"
      assert.are.equal("y", reader:await())
      reader = uring.spawn(one.read_some, one)
      assert.are.equal("x", other:read(1))
      other:write "z"
      assert.are.equal("z", reader:await())
    end)
  end)

  it("fails to read where it fails to write", function()
    uring.run(function()
      local one, other = tied_pair()
      other:close()
      one:write "x"
      local result = pack(one:read())
      assert.is_nil(result[1])
      assert.are.equal("recv: Broken pipe", result[2])
      assert.are.equal(errno.EPIPE, result[3])
      assert.is_truthy(helper.error_of(one:lines()):find "Broken pipe$")
    end)
    local one, other = tied_pair()
    other:close()
    one:write "x"
    assert.are.equal(errno.EPIPE, select(3, one:read("n", 5, "l")))
  end)

  -- A tied stream whose peer takes nothing: its buffer cannot be sent.
  local function stuck()
    local one, other = tied_pair()
    one:setvbuf("full", 1 << 22)
    one:write(("x"):rep(1 << 22))
    return one, other
  end

  it("loses nothing where it is cancelled while it writes", function()
    uring.run(function()
      local one, other = stuck()
      local _ <close> = one
      local _ <close> = other
      for i = 1, 5 do
        local reader = uring.spawn(one.read, one, 4)
        uring.sleep(i == 1 and 0 or 0.002)
        reader:cancel()
        assert.are.equal(uring.cancelled, select(2, pcall(reader.await, reader)))
      end
      local reader = uring.spawn(one.read, one, 4)
      assert.are.equal(1 << 22, #other:read(1 << 22))
      other:write "done"
      assert.are.equal("done", reader:await())
    end)
  end)

  it("gives up when its time is up", function()
    uring.run(function()
      local one, other = stuck()
      local _ <close> = one
      local _ <close> = other
      one:timeout(0.02)
      assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(one:read()))
      assert.are.same({ n = 3, nil, "timeout", errno.ETIMEDOUT }, pack(one:read(1, 2)))
      assert.are.equal(1 << 22, #assert(uring.all { function()
        return other:read(1 << 22)
      end, function()
        return one:timeout(nil):flush()
      end }[1]))
    end)
  end)

  it("can be closed while it writes", function()
    uring.run(function()
      local one, other = stuck()
      local readers = { uring.spawn(one.read, one), uring.spawn(one.read_some, one) }
      uring.sleep(0.005)
      other:close()
      one:close()
      for _, reader in ipairs(readers) do
        assert.is_nil((reader:await()))
      end
    end)
  end)

  it("waits in line where another task writes", function()
    uring.run(function()
      local one, other = stuck()
      local _ <close> = one
      local _ <close> = other
      local writer = uring.spawn(one.flush, one)
      local reader = uring.spawn(one.read, one, "l", 2)
      uring.sleep(0.005)
      other:write "a\nbc"
      assert.are.equal(1 << 22, #other:read(1 << 22))
      assert.are.equal(one, writer:await())
      local a, bc = reader:await()
      assert.are.equal("a bc", a .. " " .. bc)
    end)
  end)

  it("may be a file, which is written before it is read anyway", function()
    local file <close> = assert(uring.open(helper.tmpname(), "w+"))
    file:tie():write "hello"
    assert.is_nil(file:read(1))
    assert.are.equal(0, file:seek "set")
    assert.are.equal("hello", file:read())
    helper.cleanup()
  end)

  it("must be open", function()
    local one, other = tied_pair()
    one:close()
    other:close()
    assert.is_truthy(helper.error_of(one.tie, one):find("attempt to use a closed socket", 1, true))
    assert.is_truthy(helper.error_of(one.tie):find "uring.stream expected")
  end)
end)
