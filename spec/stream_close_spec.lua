-- Closing streams whose peers take nothing.

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
