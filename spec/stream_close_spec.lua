-- Closing streams whose peers take nothing, and those that others read from.

local helper = require "spec.support.helper"
local uring = require "uring"

local SIZE = 1 << 22

local makers = {
  ["a socket"] = uring.socketpair;
  ["a pipe"] = function()
    local reader, writer = uring.pipe()
    return writer, reader
  end;
}

for name, make in pairs(makers) do
  describe("with something buffered, " .. name, function()
    helper.watch(before_each, after_each)

    -- One whose peer takes nothing, and which has more to write than fits.
    local function jammed()
      local stream, peer = make()
      assert(stream:setvbuf("full", SIZE))
      assert(stream:write(("x"):rep(SIZE)))
      return stream, peer
    end

    local function close_within(seconds, stream)
      local started = uring.now()
      local ok, message = uring.timeout(seconds, stream.close, stream)
      assert.is_true(uring.now() - started < seconds + 1)
      return ok, message
    end

    it("is closed all the same where closing is cancelled", function()
      uring.run(function()
        local stream, peer = jammed()
        local _ <close> = peer
        local fds = helper.testkit.fds()
        local ok, message = close_within(0.02, stream)
        assert.is_nil(ok)
        assert.are.equal("timeout", message)
        assert.are.equal(fds - 1, helper.testkit.fds())
        assert.is_true(stream:close())
        local rest = peer:read "a"
        assert.is_true(#rest > 0 and #rest < SIZE)
        assert.is_nil(rest:find "[^x]")
      end)
    end)

    it("is closed by a task that is cancelled while it writes", function()
      uring.run(function()
        local stream, peer = jammed()
        local _ <close> = peer
        local fds = helper.testkit.fds()
        local task = uring.spawn(function()
          local _s <close> = stream
          stream:flush()
        end)
        uring.sleep(0.01)
        task:cancel()
        local _, err = pcall(uring.timeout, 1, task.await, task)
        assert.are.equal(uring.cancelled, err)
        assert.are.equal(fds - 1, helper.testkit.fds())
      end)
    end)

    it("is closed while another task writes", function()
      uring.run(function()
        local stream, peer = jammed()
        local _ <close> = peer
        local task = uring.spawn(stream.flush, stream)
        uring.sleep(0.01)
        assert.are.equal("timeout", select(2, close_within(0.02, stream)))
        assert.is_nil((task:await()))
      end)
    end)

    it("is written by a cancelled task as far as nobody has to be waited for", function()
      uring.run(function()
        for _, size in ipairs { 1, 100, 4096, 4097, 20000 } do
          local stream, peer = make()
          local task = uring.spawn(function()
            local _s <close> = stream
            stream:setvbuf("full", SIZE)
            stream:write(("y"):rep(size))
            uring.sleep(60)
          end)
          uring.sleep(0.002)
          task:cancel()
          pcall(task.await, task)
          assert.are.equal(size, #peer:read "a")
          peer:close()
        end
      end)
    end)

    it("is written as a whole where there is time", function()
      uring.run(function()
        local stream, peer = jammed()
        local reader = uring.spawn(peer.read, peer, "a")
        assert.is_true(close_within(10, stream))
        assert.are.equal(SIZE, #reader:await())
        peer:close()
      end)
    end)

    it("tells that its peer is gone", function()
      uring.run(function()
        local stream, peer = jammed()
        peer:close()
        local ok, message, errno = stream:close()
        assert.is_nil(ok)
        assert.is_truthy(message:find "Broken pipe$")
        assert.are.equal(uring.errno.EPIPE, errno)
        assert.is_true(stream:close())
      end)
    end)
  end)
end

describe("a listener", function()
  helper.watch(before_each, after_each)

  it("shuts down though a client takes nothing", function()
    uring.run(function()
      local listener = assert(uring.listen "127.0.0.1:0")
      local serving = uring.spawn(listener.serve, listener, function(connection)
        connection:setvbuf("full", 1 << 24)
        connection:write(("x"):rep(1 << 24))
      end)
      local client <close> = assert(uring.connect(listener:address()))
      assert.are.equal("x", client:read(1))
      local started = uring.now()
      listener:shutdown(0.02)
      assert.is_true(serving:await())
      assert.is_true(uring.now() - started < 1)
    end)
  end)
end)

describe("a read that is complete when its stream is closed", function()
  helper.watch(before_each, after_each)

  local DATA = ("data"):rep(750) .. "end"

  local reads = {
    read = function(r) return r:read(#DATA) end;
    ["read of several formats"] = function(r)
      local a, b = r:read(#DATA - 100, 100)
      return a .. b
    end;
    read_until = function(r) return r:read_until "end" end;
    read_some = function(r) return r:read_some() end;
    recv = function(r)
      local buffer = uring.buffer(#DATA)
      local n = r:recv(buffer)
      return buffer:get(1, n)
    end;
    lines = function(r)
      return (r:lines(#DATA)())
    end;
  }

  -- The completion of the write comes before that of the read, so that the reader is resumed behind the one who closes.
  local function write_and_close(w, r)
    assert(uring.op.write(w:fd(), DATA) == #DATA)
    assert(r:close())
  end

  for name, make in pairs(makers) do
    for what, read in pairs(reads) do
      it(("has its bytes: %s from %s"):format(what, name), function()
        local w, r = make()
        uring.run(function()
          local reader = uring.spawn(read, r)
          uring.sleep(0.002)
          uring.spawn(write_and_close, w, r)
          assert.are.equal(DATA, (reader:await()))
        end)
        w:close()
      end)
    end

    it("has its bytes outside of tasks, too: from " .. name, function()
      local w, r = make()
      local closer = uring.spawn(function()
        uring.sleep(0.002)
        write_and_close(w, r)
      end)
      assert.are.equal(DATA, r:read(#DATA))
      closer:await()
      w:close()
    end)

    it("and one that wants more has not: from " .. name, function()
      local w, r = make()
      uring.run(function()
        local reader = uring.spawn(r.read, r, #DATA + 1)
        uring.sleep(0.002)
        uring.spawn(write_and_close, w, r)
        assert.are.same({ nil, "closed", uring.errno.ECANCELED }, { reader:await() })
      end)
      w:close()
    end)
  end
end)

describe("a shutdown", function()
  helper.watch(before_each, after_each)

  -- It waits until all is written; whoever reads the last of that closes the stream.
  it("of a stream that is closed in its turn is done, or says so, and reaches no other", function()
    for i = 1, helper.times(100) do
      local stream, peer = uring.socketpair()
      uring.run(function()
        assert(stream:setvbuf("full", 1 << 20))
        assert(stream:write(("x"):rep(500000)))
        local shutting = uring.spawn(stream.shutdown, stream)
        uring.spawn(function()
          local size = 0
          while size < 500000 do size = size + #assert(peer:read_some()) end
          if i % 2 == 0 then uring.yield() end
          stream:close()
        end)
        local done, why = shutting:await()
        assert.is_true(done == stream or why == "closed", why)
      end)
      peer:close()
    end
  end)

  it("takes the names of directions and nothing else", function()
    local stream, peer = uring.socketpair()
    for _, how in ipairs { "x", 1, true, {} } do
      assert.matches("#1 to 'shutdown' %('r', 'w' or 'rw' expected%)", helper.error_of(stream.shutdown, stream, how))
    end
    assert.are.equal(stream, stream:shutdown "rw")
    stream:close()
    peer:close()
  end)
end)
