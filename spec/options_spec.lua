local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local uring = require "uring"

local const, errno = uring.const, uring.errno

describe("options that are read once", function()
  after_each(helper.cleanup)
  after_each(opened.close)
  helper.watch(before_each, after_each)

  it("stand for their table in any call", function()
    local fixed = uring.options { fixed_file = true }
    local path = helper.tmpname "0123456789"
    local fd = assert(uring.op.openat(nil, path, const.O_RDONLY | const.O_CLOEXEC))
    local ring = opened.ring()
    local buffer = uring.buffer(10)
    ring:register_files { -1, fd }
    uring.op.close(fd)
    assert.are.equal(10, ring:prepare("read", 1, buffer, fixed):await()) -- in the place of what is left out
    assert.are.equal("0123456789", buffer:get())
    for _ = 1, 3 do
      assert.are.equal(4, ring:prepare("read", 1, buffer, 4, 3, fixed):await())
      assert.are.equal("3456", buffer:get(1, 4))
      assert.are.equal(4, ring:prepare("read", 1, buffer, 4, 3, 0, fixed):await())
      assert.are.equal(errno.EBADF, select(3, ring:prepare("read", 0, buffer, fixed):await()))
    end
  end)

  it("keep what the table said when they were made", function()
    local t = { multishot = true }
    local options = uring.options(t)
    t.multishot, t.nonsense = nil, 5
    local op = uring.prepare("timeout", 0.001, 2, options)
    options = nil -- luacheck: ignore
    helper.collect()
    local results = 0
    for _ in op:results() do
      results = results + 1
    end
    assert.are.equal(2, results)
  end)

  it("may switch something off, and nothing on", function()
    local listener, address = opened.listen()
    uring.run(function()
      local peers = {}
      for i, options in ipairs { uring.options { peer = false }, uring.options {}, uring.options { peer = true } } do
        local task = uring.spawn(function()
          local fd, peer = uring.op.accept(listener, 0, options)
          uring.op.close(fd)
          return peer
        end)
        local _client <close> = assert(uring.connect(address))
        peers[i] = task:await() or "none"
      end
      assert.are.equal("none", peers[1])
      assert.matches("^127.0.0.1:%d+$", peers[2])
      assert.matches("^127.0.0.1:%d+$", peers[3])
    end)
  end)

  it("are refused by a row as their table is", function()
    local cases = {
      { { "nop" }, { fixed_file = true } },
      { { "nop" }, { multishot = false } },
      { { "read", 0, uring.buffer(1) }, { async = true, multishot = true } },
      { { "openat", nil, "/", 0 }, { buffer_group = 7 } },
    }
    for _, case in ipairs(cases) do
      local call, t = case[1], case[2]
      local n = #call == 1 and 1 or call[1] == "openat" and 4 or 3
      local function refused(options)
        call[n + 1] = options
        return helper.error_of(uring.prepare, table.unpack(call, 1, n + 1))
      end
      local err = refused(uring.options(t))
      assert.are.equal(refused(t), err)
      assert.is_truthy(err:find("unknown option", 1, true), err)
    end
  end)

  it("check names and values when they are made", function()
    local function refused(message, ...)
      local err = helper.error_of(uring.options, ...)
      assert.is_truthy(err:find(message, 1, true), err)
    end
    refused("unknown option 'fixed_fil' of options (did you mean 'fixed_file'?); it takes async ", { fixed_fil = true })
    refused("options of options have names", { true })
    refused("option 'async' of options is true or false, not a number", { async = 1 })
    refused("option 'buffer_group' of options is an integer from 0 to 65535, not a boolean", { buffer_group = true })
    refused("option 'buffer_group' of options is an integer from 0 to 65535, not 65536", { buffer_group = 65536 })
    refused("table expected", 5)
    refused("table expected")
    refused("table expected", uring.options {})
  end)

  it("are the last argument and nothing else", function()
    local options = uring.options { async = true }
    local r, w = opened.pipe()
    local function refused(message, ...)
      local err = helper.error_of(uring.prepare, ...)
      assert.is_truthy(err:find(message, 1, true), err)
    end
    refused("too many arguments to 'nop'", "nop", options, 1)
    refused("too many arguments to 'nop'", "nop", options, options)
    refused("bad argument 'fd_out' to 'splice' (integer expected, got", "splice", r, options, w, nil, 1)
    refused("bad argument 'fd' to 'read' (integer expected, got", "read", options)
    refused("bad argument 'buffer' to 'read'", "read", r, options)
    assert.are.equal(0, uring.op.nop(options))
    assert.are.equal(0, uring.op.nop(options, nil))
  end)

  it("are not mistaken for what comes after them", function()
    local older, newer = uring.options { async = true }, uring.options { fixed_file = true }
    assert.are.equal(0, uring.op.nop(older))
    assert.is_truthy(helper.error_of(uring.prepare, "nop", newer):find("unknown option 'fixed_file' of nop", 1, true))
    newer = nil -- luacheck: ignore
    helper.collect()
    for _ = 1, 100 do -- one of them has its place
      local err = helper.error_of(uring.prepare, "nop", uring.buffer(1))
      assert.is_truthy(err:find("too many arguments to 'nop'", 1, true), err)
    end
    assert.are.equal(0, uring.op.nop(older))
  end)

  it("say what they are", function()
    assert.are.equal("options (async fixed_file)", tostring(uring.options { fixed_file = true, async = false }))
    assert.are.equal("options ()", tostring(uring.options {}))
  end)
end)
