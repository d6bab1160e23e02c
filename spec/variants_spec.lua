--- What a probe cannot see: flags that a kernel may not know are tried at first use, and done without where it refuses
-- them. `without` makes this kernel refuse them.

local uring = require "uring"
local helper = require "spec.support.helper"
local const = uring.const

local function collect(op)
  local list = {}
  for _, data in op:results() do list[#list + 1] = data end
  return table.concat(list), #list
end

describe("what a probe cannot see", function()
  helper.watch(before_each, after_each)

  local function stream_of(text)
    local a, b = assert(uring.socketpair())
    assert(a:write(text))
    a:close()
    return b
  end

  local function received(ring, options, incremental)
    local pool <close> = assert(ring:pool { buffers = 4, size = 8, incremental = incremental or false })
    local text = ("0123456789"):rep(20)
    local b <close> = stream_of(text)
    local op <close> = ring:prepare("recv", b:fd(), pool, options)
    local got, pieces = collect(op)
    assert.are.equal(text, got)
    return pieces, pool:stats().incremental
  end

  it("is untried at first, then known", function()
    local ring <close> = uring.ring { entries = 8 }
    assert.are.equal("untried", ring:features().variants.recv_multishot)
    assert.are.equal("untried", ring:features().variants.incremental_pool)
    received(ring, { multishot = true, copy = true }, true)
    assert.is_true(ring:features().variants.recv_multishot)
    assert.is_true(ring:features().variants.incremental_pool)
    assert.are.equal("untried", ring:features().variants.accept_multishot)
  end)

  it("multishot recv is done one by one where it is refused, and asked for once", function()
    local ring <close> = uring.ring { entries = 8, without = { "recv_multishot" } }
    assert.are.equal(25, (received(ring, { multishot = true, copy = true })))
    assert.is_false(ring:features().variants.recv_multishot)
    local rearmed = ring:stats().rearmed
    assert.are.equal(26, rearmed) -- once for the refusal, once for each result
    received(ring, { multishot = true, copy = true })
    assert.are.equal(25, ring:stats().rearmed - rearmed)
  end)

  it("read_multishot becomes read where there is no such opcode", function()
    local ring <close> = uring.ring { entries = 8, without = { "read_multishot" } }
    assert.is_false(ring:probe "read_multishot")
    local pool <close> = assert(ring:pool { buffers = 2, size = 4 })
    local r, w = assert(uring.pipe())
    assert(w:write "hello world")
    w:close()
    local op <close> = ring:prepare("read_multishot", r:fd(), pool, { copy = true })
    assert.are.equal("hello world", (collect(op)))
    r:close()
  end)

  it("multishot accept goes on", function()
    local ring <close> = uring.ring { entries = 8, without = { "accept_multishot" } }
    local listener <close> = assert(uring.listen "127.0.0.1:0")
    local op <close> = ring:prepare("accept", listener:fd(), const.SOCK_CLOEXEC, { multishot = true })
    ring:submit()
    for _ = 1, 10 do
      local client <close> = assert(uring.connect(listener:address()))
      local fd = assert(op:await())
      assert.is_true(client:fd() ~= fd)
      uring.op.close(fd)
    end
    assert.is_false(ring:features().variants.accept_multishot)
  end)

  it("a timer that repeats itself goes on, so often as it was asked to", function()
    local ring <close> = uring.ring { entries = 8, without = { "timeout_multishot" } }
    local op <close> = ring:prepare("timeout", 0.001, { multishot = true })
    for _ = 1, 5 do assert.are.equal(0, (op:await())) end
    local counted, fired = ring:prepare("timeout", 0.001, 3, { multishot = true }), 0
    for _ in counted:results() do fired = fired + 1 end
    assert.are.equal(3, fired)
  end)

  it("multishot poll goes on", function()
    local ring <close> = uring.ring { entries = 8, without = { "poll_multishot" } }
    local r, w = assert(uring.pipe())
    local op <close> = ring:prepare("poll_add", r:fd(), const.POLLIN, { multishot = true })
    assert(w:write "x")
    for _ = 1, 3 do assert.are.equal(const.POLLIN, (op:await())) end
    r:close()
    w:close()
  end)

  it("multishot recvmsg comes in a form of its own: it fails", function()
    local ring <close> = uring.ring { entries = 8, without = { "recvmsg_multishot" } }
    local pool <close> = assert(ring:pool { buffers = 2, size = 256 })
    local b <close> = stream_of "x"
    local op <close> = ring:prepare("recvmsg", b:fd(), { data = pool }, { multishot = true })
    local n, message, errno = op:await()
    assert.is_nil(n)
    assert.are.equal("recvmsg: Invalid argument", message)
    assert.are.equal(uring.errno.EINVAL, errno)
  end)

  it("what is wrong stays wrong", function()
    local ring <close> = uring.ring { entries = 8 }
    local pool <close> = assert(ring:pool { buffers = 2, size = 4 })
    local b <close> = stream_of "x"
    local op <close> = ring:prepare("recv", b:fd(), pool, nil, const.MSG_WAITALL, { multishot = true, copy = true })
    assert.are.equal(1, (op:await())) -- refused as multishot, not as recv
    local other <close> = ring:prepare("recv", 1000000, pool, { multishot = true })
    assert.are.equal(uring.errno.EBADF, select(3, other:await()))
  end)

  it("incremental pools become plain ones", function()
    local ring <close> = uring.ring { entries = 8, without = { "incremental_pool" } }
    local _, incremental = received(ring, { multishot = true, copy = true }, true)
    assert.is_false(incremental)
    assert.is_false(ring:features().variants.incremental_pool)
  end)

  it("bundles become single buffers, in tables all the same", function()
    local ring <close> = uring.ring { entries = 8, without = { "bundle" } }
    assert.is_false(ring:features().variants.bundle)
    assert.are.equal(25, (received(ring, { multishot = true, bundle = true, copy = true })))
    local pool <close> = assert(ring:pool { buffers = 4, size = 8 })
    local b <close> = stream_of "0123456789"
    local op <close> = ring:prepare("recv", b:fd(), pool, { bundle = true })
    local n, list = op:await()
    assert.are.equal(8, n)
    assert.are.equal(1, #list)
    assert.are.equal("01234567", list[1]:get())
  end)

  it("names that are none raise", function()
    assert.are.equal("unknown operation 'recv_multishoot' (did you mean 'read_multishot'?)",
      helper.error_of(uring.ring, { without = { "recv_multishoot" } }))
  end)
end)
