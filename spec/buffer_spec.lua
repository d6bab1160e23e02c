-- The Buffer object: what it holds, how its positions count, how it ends.
-- What lending does to it is in ownership_spec.lua.

local helper = require "spec.support.helper"
local uring = require "uring"

local CLOSED = "attempt to use a closed buffer"

local all_bytes = {}
for byte = 0, 255 do
  all_bytes[#all_bytes + 1] = string.char(byte)
end
all_bytes = table.concat(all_bytes)

-- Where a Buffer's bytes are, as tostring tells.
local function address(buffer)
  return tonumber(tostring(buffer):match "0x(%x+)%)$", 16)
end

-- A position worth trying in a string of n bytes: around both ends, and far off.
local extremes = { math.mininteger, math.mininteger + 1, -1 << 31, 1 << 31, math.maxinteger - 1, math.maxinteger }
local function position(n)
  if math.random(20) == 1 then
    return extremes[math.random(#extremes)]
  end
  return math.random(-n - 3, n + 3)
end

describe("a Buffer", function()
  helper.watch(before_each, after_each)

  setup(function()
    math.randomseed(42)
  end)

  describe("made of a size", function()
    it("has that many zero bytes", function()
      for _, size in ipairs { 0, 1, 2, 15, 16, 17, 1023, 1024, 4095, 4096, 4097, 65536, 1000003 } do
        local b = uring.buffer(size)
        assert.are.equal(size, #b)
        assert.are.equal(("\0"):rep(size), b:get())
        b:close()
      end
    end)

    it("is zeroed where memory is used again", function()
      for _ = 1, 50 do
        local b <close> = uring.buffer(3000)
        assert.is_nil(b:find "\255")
        b:fill(255)
      end
    end)

    it("takes a float that stands for an integer", function()
      assert.are.equal(16, #uring.buffer(16.0))
    end)

    it("refuses a float that does not, NaN and infinity", function()
      for _, size in ipairs { 1.5, -0.5, 0 / 0, math.huge, -math.huge, 2 ^ 63 } do
        local err = helper.error_of(uring.buffer, size)
        assert.matches("bad argument #1", err, 1, true)
        assert.matches("number has no integer representation", err, 1, true)
      end
    end)

    it("refuses a negative size", function()
      for _, size in ipairs { -1, -4096, math.mininteger } do
        assert.matches("bad argument #1.*size is negative", helper.error_of(uring.buffer, size))
      end
    end)

    it("refuses a size that no memory has", function()
      for _, size in ipairs { (1 << 40) + 1, 1 << 48, 1 << 62, math.maxinteger } do
        assert.matches("bad argument #1.*size is too large", helper.error_of(uring.buffer, size))
      end
    end)

    it("raises where memory is short, and goes on", function()
      if helper.slow then
        return pending "a limit on address space is nothing for sanitizers"
      end
      local output, status = helper.script([[
        local uring = require "uring"
        local ok, err = pcall(uring.buffer, 1 << 31)
        print(ok, err)
        print(#uring.buffer(1 << 20))
      ]], "ulimit -v 600000;")
      assert.are.equal("false\tnot enough memory for a buffer of 2147483648 bytes\n1048576\n", output)
      assert.are.equal(0, status)
    end)

    it("is freed when collected: a loop of large ones does not pile up", function()
      if helper.slow then
        return pending "a limit on address space is nothing for sanitizers"
      end
      local output, status = helper.script([[
        local uring = require "uring"
        for _ = 1, 500 do
          local b = uring.buffer(16 << 20)
          b:set(1, "x")
        end
        print "done"
      ]], "ulimit -v 600000;")
      assert.are.equal("done\n", output)
      assert.are.equal(0, status)
    end)
  end)

  describe("made of a string", function()
    it("holds its bytes, zeros included", function()
      for _, s in ipairs { "", "x", "\0", "a\0b\0", all_bytes, ("0123456789"):rep(10000) } do
        local b = uring.buffer(s)
        assert.are.equal(#s, #b)
        assert.are.equal(s, b:get())
      end
    end)

    it("takes digits as contents and not as a size", function()
      local b = uring.buffer "12"
      assert.are.equal(2, #b)
      assert.are.equal("12", b:get())
    end)

    it("is a copy: the string never changes", function()
      local s = ("abc"):rep(5)
      local b = uring.buffer(s)
      b:fill(0)
      assert.are.equal("abcabcabcabcabc", s)
    end)
  end)

  it("is made of nothing else", function()
    for _, value in ipairs { true, false, {}, print, io.stdout, coroutine.create(print), uring.buffer(1) } do
      assert.matches("bad argument #1.*number expected", helper.error_of(uring.buffer, value))
    end
    assert.matches("bad argument #1.*number expected, got no value", helper.error_of(uring.buffer))
    assert.matches("bad argument #1.*number expected, got nil", helper.error_of(uring.buffer, nil))
  end)

  it("begins on a page where it is as large as one", function()
    local kept = {}
    for i, size in ipairs { 4096, 4097, 8192, 10000, 65536, 1 << 20, 4096, 4096 } do
      kept[i] = uring.buffer(size)
      assert.are.equal(0, address(kept[i]) % 4096)
    end
    kept[1] = uring.buffer(("x"):rep(4096))
    assert.are.equal(0, address(kept[1]) % 4096)
  end)

  it("serves files opened with O_DIRECT", function()
    local path = helper.tmpname(("direct"):rep(4096))
    local fd, message, errno = uring.op.openat(nil, path, uring.const.O_RDONLY | uring.const.O_DIRECT)
    if not fd then
      helper.cleanup()
      assert.are.equal(uring.errno.EINVAL, errno, message)
      return pending "the file system has no O_DIRECT"
    end
    local b = uring.buffer(8192)
    local n = uring.op.read(fd, b, 8192, 4096)
    uring.op.close(fd)
    helper.cleanup()
    assert.are.equal(8192, n)
    assert.are.equal(("direct"):rep(4096):sub(4097, 12288), b:get())
  end)

  describe("tostring", function()
    it("tells size and place", function()
      assert.matches("^buffer %(0 bytes, 0x%x+%)$", tostring(uring.buffer(0)))
      assert.matches("^buffer %(12345 bytes, 0x%x+%)$", tostring(uring.buffer(12345)))
    end)

    it("tells that it is closed", function()
      local b = uring.buffer(4)
      b:close()
      assert.are.equal("buffer (closed)", tostring(b))
    end)
  end)

  describe("get", function()
    it("takes ranges as string.sub does", function()
      for n = 0, 12 do
        local s = all_bytes:sub(98, 97 + n)
        local b = uring.buffer(s)
        for i = -n - 2, n + 2 do
          assert.are.equal(s:sub(i), b:get(i))
          for j = -n - 2, n + 2 do
            if s:sub(i, j) ~= b:get(i, j) then
              assert.are.equal(s:sub(i, j), b:get(i, j), ("(%d, %d) of %d"):format(i, j, n))
            end
          end
        end
      end
    end)

    it("takes any pair of integers as string.sub does", function()
      for _ = 1, helper.times(5000) do
        local n = math.random(0, 300)
        local s = all_bytes:rep(2):sub(1, n)
        local b = uring.buffer(s)
        local i, j = position(n), position(n)
        if s:sub(i, j) ~= b:get(i, j) then
          assert.are.equal(s:sub(i, j), b:get(i, j), ("(%d, %d) of %d"):format(i, j, n))
        end
        b:close()
      end
    end)

    it("takes everything where nothing is said, and nil for either end", function()
      local b = uring.buffer "hello"
      assert.are.equal("hello", b:get())
      assert.are.equal("hello", b:get(nil, nil))
      assert.are.equal("llo", b:get(3, nil))
      assert.are.equal("hel", b:get(nil, 3))
    end)

    it("raises on positions that are no integers", function()
      local b = uring.buffer "hello"
      assert.are.equal("ell", b:get(2.0, 4.0))
      assert.matches("number has no integer representation", helper.error_of(b.get, b, 1.5))
      assert.matches("number has no integer representation", helper.error_of(b.get, b, 1, 2.5))
      assert.matches("number expected", helper.error_of(b.get, b, {}))
      assert.matches("number expected", helper.error_of(b.get, b, 1, true))
    end)
  end)

  describe("set", function()
    it("puts a string at a position and returns the Buffer", function()
      local b = uring.buffer "hello world"
      assert.are.equal(b, b:set(1, "J"))
      assert.are.equal("Jello world", b:get())
      b:set(7, "W"):set(11, "!")
      assert.are.equal("Jello Worl!", b:get())
    end)

    it("counts negative positions from the end", function()
      local b = uring.buffer "hello"
      b:set(-1, "O"):set(-5, "H")
      assert.are.equal("HellO", b:get())
    end)

    it("fills it from end to end, and takes nothing at the position past the end", function()
      local b = uring.buffer(256)
      assert.are.equal(all_bytes, b:set(1, all_bytes):get())
      assert.are.equal(all_bytes, b:set(257, ""):get())
      assert.are.equal("", uring.buffer(0):set(1, ""):get())
    end)

    it("never writes past the end, nor part of what does not fit", function()
      local b = uring.buffer "hello"
      for _, case in ipairs { { 1, "123456" }, { 5, "xy" }, { 6, "x" }, { 7, "" }, { -1, "xy" }, { 1000, "x" },
        { math.maxinteger, "x" }, { math.maxinteger, "" } } do
        assert.matches("do not fit a buffer of 5", helper.error_of(b.set, b, case[1], case[2]))
      end
      assert.are.equal("hello", b:get())
    end)

    it("never writes before the beginning", function()
      local b = uring.buffer "hello"
      for _, i in ipairs { 0, -6, -1000, math.mininteger } do
        assert.matches("position out of range", helper.error_of(b.set, b, i, "x"))
      end
      assert.are.equal("hello", b:get())
    end)

    it("takes a number as Lua's own functions do, and no other type", function()
      local b = uring.buffer(4)
      assert.are.equal("1234", b:set(1, 1234):get())
      assert.matches("string expected", helper.error_of(b.set, b, 1, {}))
      assert.matches("string expected", helper.error_of(b.set, b, 1))
      assert.matches("string expected", helper.error_of(b.set, b, 1, uring.buffer "ab"))
      assert.matches("number expected", helper.error_of(b.set, b, "x", "y"))
      assert.matches("number has no integer representation", helper.error_of(b.set, b, 1.5, "y"))
      assert.are.equal("1234", b:get())
    end)

    it("is what string concatenation would give, anywhere it fits", function()
      local n = 100
      local model = ("."):rep(n)
      local b = uring.buffer(model)
      for _ = 1, helper.times(3000) do
        local i, s = math.random(1, n), all_bytes:sub(1, math.random(0, 20))
        if i - 1 + #s <= n then
          model = model:sub(1, i - 1) .. s .. model:sub(i + #s)
          b:set(math.random(2) == 1 and i or i - n - 1, s)
        else
          assert.is_false((pcall(b.set, b, i, s)))
        end
        if model ~= b:get() then
          assert.are.equal(model, b:get())
        end
      end
    end)
  end)

  describe("fill", function()
    it("fills with zeros where no byte is given, and returns the Buffer", function()
      local b = uring.buffer "hello"
      assert.are.equal(b, b:fill())
      assert.are.equal("\0\0\0\0\0", b:get())
    end)

    it("fills with a byte", function()
      local b = uring.buffer(300)
      for byte = 0, 255, 51 do
        assert.are.equal(string.char(byte):rep(300), b:fill(byte):get())
      end
    end)

    it("fills a range, which counts as string.sub's", function()
      for _ = 1, helper.times(2000) do
        local n = math.random(0, 40)
        local s = all_bytes:sub(1, n)
        local i, j = position(n), position(n)
        local b = uring.buffer(s):fill(0xEE, i, j)
        local first = math.max(1, i < 0 and (i < -n and 1 or n + i + 1) or i)
        local last = math.min(n, j < 0 and (j < -n and 0 or n + j + 1) or j)
        local expected = s
        if first <= last then
          expected = s:sub(1, first - 1) .. ("\xEE"):rep(last - first + 1) .. s:sub(last + 1)
        end
        if expected ~= b:get() then
          assert.are.equal(expected, b:get(), ("(%d, %d) of %d"):format(i, j, n))
        end
      end
    end)

    it("refuses what is no byte", function()
      local b = uring.buffer "hello"
      for _, byte in ipairs { -1, 256, math.maxinteger, math.mininteger } do
        assert.matches("byte out of range", helper.error_of(b.fill, b, byte))
      end
      assert.matches("number expected", helper.error_of(b.fill, b, "x"))
      assert.matches("number has no integer representation", helper.error_of(b.fill, b, 1.5))
      assert.are.equal("hello", b:get())
    end)

    it("does nothing to an empty Buffer", function()
      assert.are.equal("", uring.buffer(0):fill(1):get())
    end)
  end)

  describe("find", function()
    it("returns first and last position, or nil", function()
      local b = uring.buffer "hello hello"
      assert.are.same({ 1, 5 }, { b:find "hello" })
      assert.are.same({ 3, 4 }, { b:find "ll" })
      assert.are.same({ 7, 11 }, { b:find("hello", 2) })
      assert.are.same({ 7, 11 }, { b:find("hello", -5) })
      assert.is_nil(b:find("hello", -4))
      assert.is_nil(b:find "hellos")
      assert.is_nil(b:find "hello hello hello")
    end)

    it("knows no patterns, and any byte", function()
      local b = uring.buffer "a.c%d\0+\255"
      assert.are.same({ 2, 2 }, { b:find "." })
      assert.are.same({ 4, 5 }, { b:find "%d" })
      assert.are.same({ 6, 7 }, { b:find "\0+" })
      assert.are.same({ 8, 8 }, { b:find "\255" })
      assert.is_nil(b:find "a%.c")
    end)

    it("stops at the end of a range", function()
      local b = uring.buffer "hello hello"
      assert.are.same({ 1, 5 }, { b:find("hello", 1, 5) })
      assert.is_nil(b:find("hello", 1, 4))
      assert.is_nil(b:find("hello", 2, -2))
    end)

    it("is string.find with plain, for any needle and position", function()
      for _ = 1, helper.times(4000) do
        local parts = {}
        for k = 1, math.random(0, 30) do
          parts[k] = ("ab"):sub(math.random(2)):sub(1, 1)
        end
        local s = table.concat(parts)
        local needle = ("ab"):rep(2):sub(math.random(4), math.random(0, 4))
        local init = math.random(-#s - 3, #s + 3)
        local b = uring.buffer(s)
        local first, last = s:find(needle, init, true)
        local got_first, got_last = b:find(needle, init)
        if first ~= got_first or last ~= got_last then
          assert.are.same({ first, last }, { got_first, got_last }, ("find(%q, %d) in %q"):format(needle, init, s))
        end
        b:close()
      end
    end)

    it("raises on what is no string", function()
      local b = uring.buffer "hello"
      assert.matches("string expected", helper.error_of(b.find, b))
      assert.matches("string expected", helper.error_of(b.find, b, {}))
      assert.matches("number expected", helper.error_of(b.find, b, "x", "y"))
    end)
  end)

  describe("slice", function()
    it("shows the same bytes, both ways", function()
      local b = uring.buffer "hello world"
      local s = b:slice(7, 11)
      assert.are.equal(5, #s)
      assert.are.equal("world", s:get())
      s:set(1, "W")
      assert.are.equal("hello World", b:get())
      b:set(11, "!")
      assert.are.equal("Worl!", s:get())
    end)

    it("takes ranges as string.sub does", function()
      for _ = 1, helper.times(3000) do
        local n = math.random(0, 60)
        local text = all_bytes:sub(1, n)
        local b = uring.buffer(text)
        local i, j = position(n), position(n)
        local s = b:slice(i, j)
        if text:sub(i, j) ~= s:get() or #s ~= #text:sub(i, j) then
          assert.are.equal(text:sub(i, j), s:get(), ("(%d, %d) of %d"):format(i, j, n))
        end
        s:close()
        b:close()
      end
    end)

    it("of a slice of a slice is as sub of sub of sub", function()
      for _ = 1, helper.times(2000) do
        local n = math.random(0, 80)
        local text, b = all_bytes:sub(1, n), uring.buffer(all_bytes:sub(1, n))
        for _ = 1, 4 do
          local i, j = position(#text), position(#text)
          text, b = text:sub(i, j), b:slice(i, j)
          if text ~= b:get() then
            assert.are.equal(text, b:get())
          end
        end
      end
    end)

    it("keeps its own bounds: nothing beyond them is read or written", function()
      local b = uring.buffer "0123456789"
      local s = b:slice(4, 6)
      assert.are.equal("345", s:get(-100, 100))
      assert.is_nil(s:find "6")
      assert.is_nil(s:find "2")
      s:fill(0x2E)
      assert.are.equal("012...6789", b:get())
      assert.matches("do not fit a buffer of 3", helper.error_of(s.set, s, 1, "abcd"))
      assert.matches("position out of range", helper.error_of(s.set, s, -4, "a"))
      assert.are.equal("012...6789", b:get())
    end)

    it("of nothing is empty, wherever it is taken", function()
      local b = uring.buffer "hello"
      for _, range in ipairs { { 3, 2 }, { 6, 6 }, { 100, 200 }, { 0, 0 }, { math.maxinteger, math.maxinteger },
        { math.mininteger, math.mininteger } } do
        local s = b:slice(range[1], range[2])
        assert.are.equal(0, #s)
        assert.are.equal("", s:get())
        assert.are.equal("", s:fill(1):get())
        assert.are.same({ 1, 0 }, { s:find "" })
        assert.is_nil(s:find "h")
      end
      assert.are.equal("hello", b:get())
    end)

    it("outlives the Buffer it is of, closed or collected", function()
      local b = uring.buffer(("x"):rep(10000))
      local s = b:slice(9000, 9009)
      local t = uring.buffer(("y"):rep(10000)):slice(-10)
      b:close()
      collectgarbage()
      collectgarbage()
      for _ = 1, 20 do -- where it was freed, something else is there now
        uring.buffer(10000):fill(0)
      end
      assert.are.equal(("x"):rep(10), s:get())
      assert.are.equal(("y"):rep(10), t:get())
      assert.matches(CLOSED, helper.error_of(b.get, b), 1, true)
    end)

    it("leaves the Buffer open when it is closed itself", function()
      local b = uring.buffer "hello"
      local s = b:slice(2, 3)
      s:close()
      assert.are.equal("hello", b:get())
      assert.matches(CLOSED, helper.error_of(s.get, s), 1, true)
    end)
  end)

  describe("of no bytes", function()
    it("works like any other", function()
      local b = uring.buffer(0)
      assert.are.equal(0, #b)
      assert.are.equal("", b:get())
      assert.are.equal("", b:get(1, 10))
      assert.are.equal("owned", b:status())
      assert.are.same({ 1, 0 }, { b:find "" })
      assert.are.equal("", b:slice():get())
      assert.matches("do not fit a buffer of 0", helper.error_of(b.set, b, 1, "x"))
    end)
  end)

  describe("close", function()
    local uses = {
      get = function(b) return b:get() end;
      set = function(b) return b:set(1, "x") end;
      fill = function(b) return b:fill() end;
      find = function(b) return b:find "x" end;
      slice = function(b) return b:slice() end;
      status = function(b) return b:status() end;
      length = function(b) return #b end;
      read = function(b) return uring.prepare("read", 0, b) end;
      write = function(b) return uring.prepare("write", 1, b) end;
      readv = function(b) return uring.prepare("readv", 0, { b }) end;
      writev = function(b) return uring.prepare("writev", 1, { "x", b }) end;
      recvmsg = function(b) return uring.prepare("recvmsg", 0, { data = b }) end;
      raw = function(b) return uring.prepare("raw", { opcode = uring.const.IORING_OP_READ, fd = 0, addr = b }) end;
    }

    for name, use in pairs(uses) do
      it("makes " .. name .. " raise", function()
        local b = uring.buffer(8)
        b:close()
        assert.matches(CLOSED, helper.error_of(use, b), 1, true)
      end)
    end

    it("can be done again, and by hand through __gc", function()
      local b = uring.buffer(8)
      assert.is_nil(b:close())
      assert.is_nil(b:close())
      getmetatable(b).__gc(b)
      assert.are.equal("buffer (closed)", tostring(b))
      local c = uring.buffer(8)
      getmetatable(c).__gc(c)
      assert.matches(CLOSED, helper.error_of(c.get, c), 1, true)
    end)

    it("happens where a <close> variable ends, by an error too", function()
      local kept
      do
        local b <close> = uring.buffer "hello"
        kept = b
        assert.are.equal("hello", b:get())
      end
      assert.are.equal("buffer (closed)", tostring(kept))
      assert.are.equal("oops", helper.error_of(function()
        local b <close> = uring.buffer(8)
        kept = b
        error("oops", 0)
      end))
      assert.are.equal("buffer (closed)", tostring(kept))
    end)
  end)

  describe("status", function()
    it("is owned until something is lent", function()
      assert.are.equal("owned", uring.buffer(8):status())
      assert.are.equal("owned", uring.buffer(8):slice(2, 3):status())
    end)
  end)

  it("takes no other object for itself", function()
    local b = uring.buffer "hello"
    for _, name in ipairs { "get", "set", "fill", "find", "slice", "status", "close" } do
      for _, other in ipairs { 1, "hello", {}, io.stdout, print, true } do
        assert.matches("bad argument #1", helper.error_of(b[name], other, 1, "x"), 1, true)
      end
      assert.matches("bad argument #1", helper.error_of(b[name]), 1, true)
    end
    assert.are.equal("hello", b:get())
  end)

  it("has no fields of its own to be set", function()
    local b = uring.buffer(8)
    assert.is_nil(b.size)
    assert.is_false((pcall(function() b.size = 1 end)))
  end)
end)
