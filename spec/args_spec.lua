-- Bad input: what each row raises, before anything is taken.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op

local NONE = 1000000 -- a descriptor that is not open
local BIG = 1 << 40

-- A value of each type that is none of the operations' business.
local function closed_buffer()
  local buffer = uring.buffer(8)
  buffer:close()
  return buffer
end

local other = uring.ring { entries = 4 } -- for rows that take a ring

-- Each row with arguments that would do; every wrong value is tried in turn.
local good = {
  nop = {};
  readv = { NONE, { uring.buffer(4) }, 1, 0, 0 };
  writev = { NONE, { "x" }, 1, 0, 0 };
  fsync = { NONE, 0 };
  poll_add = { NONE, 1 };
  link_timeout = { 1, 0 };
  sendmsg = { NONE, { data = "x" }, 0 };
  recvmsg = { NONE, { data = uring.buffer(4) }, 0 };
  timeout = { 0.001, 0, 0 };
  accept = { NONE, 0 };
  cancel = { false, 0 }; -- see below
  cancel_fd = { NONE, 0 };
  connect = { NONE, "127.0.0.1:1" };
  openat = { NONE, "x", 0, 0 };
  close = { NONE };
  statx = { NONE, "x", 0, 0 };
  read = { NONE, uring.buffer(4), 4, 0, 0 };
  write = { NONE, "xxxx", 4, 0, 0 };
  send = { NONE, "xxxx", 4, 0 };
  recv = { NONE, uring.buffer(4), 4, 0 };
  shutdown = { NONE, "w" };
  socket = { 12345, 1, 0, 0 };
  bind = { NONE, "127.0.0.1:0" };
  listen = { NONE, 1 };
  read_fixed = { NONE, uring.buffer(4), 4, 0, 0 };
  write_fixed = { NONE, uring.buffer(4), 4, 0, 0 };
  send_zc = { NONE, "xxxx", 4, 0, 0 };
  sendmsg_zc = { NONE, { data = "x" }, 0 };
  poll_remove = { false };
  poll_update = { false, 1, 2 };
  sync_file_range = { NONE, 0, 0, 0 };
  timeout_remove = { false, 0 };
  timeout_update = { 0.001, false, 0 };
  fallocate = { NONE, 0, 0, 1 };
  fadvise = { NONE, 0, 0, 0 };
  madvise = { uring.buffer(4), 4, 0 };
  openat2 = { NONE, "x", { flags = 0 } };
  epoll_ctl = { NONE, NONE, "add", 1, 1 };
  epoll_wait = { NONE, 1, 0 };
  splice = { NONE, -1, NONE, -1, 1, 0 };
  tee = { NONE, NONE, 1, 0 };
  renameat = { NONE, "x", NONE, "y", 0 };
  unlinkat = { NONE, "x", 0 };
  mkdirat = { NONE, "x", 0 };
  symlinkat = { "x", NONE, "y" };
  linkat = { NONE, "x", NONE, "y", 0 };
  msg_ring = { other, 1, 1, 0 };
  fsetxattr = { NONE, "user.x", "xxxx", 0, 4 };
  setxattr = { "user.x", "xxxx", "/nonexistent/x", 0, 4 };
  fgetxattr = { NONE, "user.x", uring.buffer(4), 4 };
  getxattr = { "user.x", uring.buffer(4), "/nonexistent/x", 4 };
  getsockopt = { NONE, const.SOL_SOCKET, const.SO_ERROR, uring.buffer(4), 4 };
  setsockopt = { NONE, const.SOL_SOCKET, const.SO_KEEPALIVE, "xxxx", 4 };
  siocinq = { NONE };
  siocoutq = { NONE };
  waitid = { 1, 999999999, 4, 0 };
  futex_wait = { uring.buffer(4), 1, 1, 2, 0 };
  futex_wake = { uring.buffer(4), 1, 1, 2, 0 };
  futex_waitv = { { { uring.buffer(4), 1 } }, 0 };
  fixed_fd_install = { NONE, 0 };
  uring_cmd = { NONE, 0, "xxxx" };
  files_update = { { NONE }, 0 };
  msg_ring_fd = { other, 0, 0, 1, 0 };
  recv_zc = { NONE, 0, 0, 0 };
  readv_fixed = { NONE, { uring.buffer(4) }, 1, 0, 0 };
  writev_fixed = { NONE, { uring.buffer(4) }, 1, 0, 0 };
  ftruncate = { NONE, 0 };
  pipe = { 0 };
  read_multishot = { NONE, uring.pool { buffers = 1, size = 8 }, 0 };
  provide_buffers = { uring.buffer(64), 4, 4, 9, 0 };
  remove_buffers = { 1, 9 };
  raw = { { opcode = 0 } };
}

-- What the arguments are called, and what they are.
local signature = {
  nop = {};
  readv = { "fd", "buffers", "count", "offset", "flags" };
  writev = { "fd", "data", "count", "offset", "flags" };
  fsync = { "fd", "flags" };
  poll_add = { "fd", "events" };
  link_timeout = { "seconds", "flags" };
  sendmsg = { "fd", "message", "flags" };
  recvmsg = { "fd", "message", "flags" };
  timeout = { "seconds", "count", "flags" };
  accept = { "fd", "flags" };
  cancel = { "operation", "flags" };
  cancel_fd = { "fd", "flags" };
  connect = { "fd", "address" };
  openat = { "dirfd", "path", "flags", "mode" };
  close = { "fd" };
  statx = { "dirfd", "path", "flags", "mask" };
  read = { "fd", "buffer", "length", "offset", "flags" };
  write = { "fd", "data", "length", "offset", "flags" };
  send = { "fd", "data", "length", "flags" };
  recv = { "fd", "buffer", "length", "flags" };
  shutdown = { "fd", "how" };
  socket = { "domain", "type", "protocol", "flags" };
  bind = { "fd", "address" };
  listen = { "fd", "backlog" };
  read_fixed = { "fd", "buffer", "length", "offset", "flags" };
  write_fixed = { "fd", "data", "length", "offset", "flags" };
  send_zc = { "fd", "data", "length", "flags", "zc_flags" };
  sendmsg_zc = { "fd", "message", "flags" };
  poll_remove = { "operation" };
  poll_update = { "operation", "events", "flags" };
  sync_file_range = { "fd", "len", "offset", "flags" };
  timeout_remove = { "operation", "flags" };
  timeout_update = { "seconds", "operation", "flags" };
  fallocate = { "fd", "mode", "offset", "len" };
  fadvise = { "fd", "offset", "len", "advice" };
  madvise = { "buffer", "length", "advice" };
  openat2 = { "dirfd", "path", "how" };
  epoll_ctl = { "epfd", "fd", "op", "events", "data" };
  epoll_wait = { "fd", "maxevents", "flags" };
  splice = { "fd_in", "off_in", "fd_out", "off_out", "nbytes", "flags" };
  tee = { "fd_in", "fd_out", "nbytes", "flags" };
  renameat = { "olddirfd", "oldpath", "newdirfd", "newpath", "flags" };
  unlinkat = { "dirfd", "path", "flags" };
  mkdirat = { "dirfd", "path", "mode" };
  symlinkat = { "target", "newdirfd", "linkpath" };
  linkat = { "olddirfd", "oldpath", "newdirfd", "newpath", "flags" };
  msg_ring = { "ring", "len", "data", "flags" };
  fsetxattr = { "fd", "name", "value", "flags", "length" };
  setxattr = { "name", "value", "path", "flags", "length" };
  fgetxattr = { "fd", "name", "buffer", "length" };
  getxattr = { "name", "buffer", "path", "length" };
  getsockopt = { "fd", "level", "optname", "buffer", "length" };
  setsockopt = { "fd", "level", "optname", "value", "length" };
  siocinq = { "fd" };
  siocoutq = { "fd" };
  waitid = { "idtype", "id", "options", "flags" };
  futex_wait = { "word", "value", "mask", "futex_flags", "flags" };
  futex_wake = { "word", "value", "mask", "futex_flags", "flags" };
  futex_waitv = { "words", "flags" };
  fixed_fd_install = { "fd", "flags" };
  uring_cmd = { "fd", "cmd_op", "command" };
  files_update = { "fds", "slot" };
  msg_ring_fd = { "ring", "source_slot", "target_slot", "data", "flags" };
  recv_zc = { "fd", "ifq", "len", "flags" };
  readv_fixed = { "fd", "buffers", "count", "offset", "flags" };
  writev_fixed = { "fd", "data", "count", "offset", "flags" };
  ftruncate = { "fd", "len" };
  pipe = { "flags" };
  read_multishot = { "fd", "pool", "offset" };
  provide_buffers = { "buffer", "len", "nr", "bgid", "bid" };
  remove_buffers = { "nr", "bgid" };
  raw = { "sqe" };
}

-- What an argument of this name is; of one row: under "row.argument".
local expected_type = {
  buffers = "table"; message = "table"; seconds = "number"; operation = "operation"; address = "address as a string";
  path = "string"; buffer = "Buffer"; sqe = "table"; oldpath = "string"; newpath = "string"; target = "string";
  linkpath = "string"; name = "string"; data = "Buffer or string"; value = "Buffer or string"; word = "Buffer";
  words = "table"; ring = "ring"; ["writev.data"] = "table";
  ["writev_fixed.data"] = "table"; fds = "table"; command = "string"; pool = "Pool";
  ["openat2.how"] = "table"; ["epoll_ctl.data"] = "integer";
  ["msg_ring.data"] = "integer"; ["msg_ring_fd.data"] = "integer";
  ["setsockopt.value"] = "integer, Buffer or string"; ["futex_wait.value"] = "integer";
  ["futex_wake.value"] = "integer";
}

local function type_of(name, argument)
  return expected_type[name .. "." .. argument] or expected_type[argument] or "integer"
end

-- Integers, and what lies outside of their range.
local ranges = {
  fd = { -1, 1 << 31, BIG, math.mininteger, math.maxinteger };
  dirfd = { -1, -99, -101, 1 << 31 };
  flags = { -1, 1 << 32, BIG };
  count = { -1, 1 << 32, BIG };
  length = { -1, BIG, math.maxinteger, math.mininteger };
  offset = { -2, math.mininteger };
  mode = { -1, 4096, BIG };
  mask = { -1, 1 << 31 };
  events = { -1, 1 << 32 };
  domain = { -1, 1 << 31 };
  type = { -1, 1 << 31 };
  protocol = { -1, 1 << 31 };
  backlog = { -1, 1 << 31 };
  how = { -1, 3, BIG };
  len = { -1, math.mininteger }; nbytes = { -1, 1 << 32 }; advice = { -1, 1 << 31 };
  fd_in = { -1, 1 << 31 }; fd_out = { -1, 1 << 31 }; epfd = { -1, 1 << 31 };
  off_in = { -2, math.mininteger }; off_out = { -2, math.mininteger };
  olddirfd = { -1, -99, 1 << 31 }; newdirfd = { -1, -99, -101, 1 << 31 };
  op = { 0, 4, -1, BIG }; maxevents = { 0, 17, -1 };
  level = { -1, 1 << 31 }; optname = { -1, 1 << 31 };
  idtype = { -1, 4 }; id = { -1, 1 << 31 }; options = { -1, 1 << 31 };
  slot = { -1, 1 << 15 }; cmd_op = { -1, 1 << 32 }; ifq = { -1, 1 << 32 };
  futex_flags = { -1, 1 << 32 }; zc_flags = { -1, 1 << 16 };
  nr = { 0, -1, 1 << 16 }; bgid = { -1, 1 << 16 }; bid = { -1, 1 << 16 };
  ["provide_buffers.len"] = { 0, -1, 1 << 31 };
  ["openat2.how"] = false; ["fallocate.mode"] = { -1, 1 << 31 }; ["poll_update.flags"] = { -1, 4, 1 << 32 };
  source_slot = { -1, 1 << 15 }; target_slot = { -1, 1 << 15 }; ["msg_ring_fd.data"] = { -1, 1 << 32 };
  ["msg_ring.data"] = { -1, 1 << 32 }; ["futex_wait.value"] = { -1, 1 << 32 }; ["futex_wake.value"] = { -1, 1 << 31 };
  ["futex_wait.mask"] = { -1, 1 << 32 }; ["futex_wake.mask"] = { -1, 1 << 32 };
}

local function range_of(name, argument)
  local range = ranges[name .. "." .. argument]
  if range == nil then
    range = ranges[argument]
  end
  return range
end

local function finished()
  local o = uring.prepare("nop")
  o:await()
  return o
end

local function arguments(name)
  local list = table.move(good[name], 1, #signature[name], 1, {})
  for i, argument in ipairs(signature[name]) do
    if argument == "operation" then
      list[i] = finished()
    end
  end
  return list
end

-- The error that a call raises, made by hand and, the same, called; nothing
-- may have been taken for it.
local function error_of(name, ...)
  local before = uring.stats()
  local by_hand = helper.error_of(uring.prepare, name, ...):gsub("^%S+%.lua:%d+: ", "")
  assert.are.equal(by_hand, helper.error_of(op[name], ...))
  local in_task = helper.error_of(function(...)
    uring.run(function(...)
      local ok, err = pcall(op[name], ...)
      assert.is_false(ok, "no error was raised")
      error(err, 0)
    end, ...)
  end, ...)
  assert.are.equal(by_hand, in_task:match "^(.-)\ntask traceback" or in_task)
  local after = uring.stats()
  assert.are.equal(before.prepared, after.prepared)
  assert.are.equal(before.bytes_lent, after.bytes_lent)
  assert.are.equal(before.in_flight, after.in_flight)
  return by_hand
end

-- That of a call with argument `i` replaced.
local function error_with(name, i, value)
  local list = arguments(name)
  list[i] = value
  return error_of(name, table.unpack(list, 1, #signature[name]))
end

local function bad(name, argument, why)
  return ("bad argument '%s' to '%s' (%s)"):format(argument, name, why)
end

describe("arguments of operations", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("are known for every row there is", function()
    for name in pairs(uring.probe()) do
      assert.is_truthy(good[name], name .. " is not tried here")
    end
  end)

  for name, names in pairs(signature) do
    it("of the wrong type: " .. name, function()
      local thread = coroutine.create(print)
      local wrong = { { true, "boolean" }, { print, "function" }, { thread, "thread" }, { io.stdout, "userdata" } }
      for i, argument in ipairs(names) do
        for _, w in ipairs(wrong) do
          local expected = type_of(name, argument)
          local got = error_with(name, i, w[1])
          assert.are.equal(bad(name, argument, expected .. " expected, got " .. w[2]), got)
        end
      end
    end)

    it("out of range: " .. name, function()
      for i, argument in ipairs(names) do
        for _, n in ipairs(range_of(name, argument) or {}) do
          assert.are.equal(bad(name, argument, n .. " is out of range"), error_with(name, i, n))
        end
        if range_of(name, argument) then
          for _, n in ipairs { 0.5, 1e300, math.huge, -math.huge, 0 / 0 } do
            assert.are.equal(bad(name, argument, "number has no integer representation"), error_with(name, i, n))
          end
        end
      end
    end)

    it("strings where numbers are wanted and numbers for strings: " .. name, function()
      for i, argument in ipairs(names) do
        local expected = type_of(name, argument)
        if range_of(name, argument) and argument ~= "how" and argument ~= "op" or argument == "seconds" then
          assert.are.equal(bad(name, argument, expected .. " expected, got string"), error_with(name, i, "5"))
        elseif expected:find "string" and not expected:find "integer" then
          assert.are.equal(bad(name, argument, expected .. " expected, got number"), error_with(name, i, 5))
        elseif expected == "Buffer" then
          assert.are.equal(bad(name, argument, "Buffer expected, got string"), error_with(name, i, "text"))
        end
      end
    end)

    it("too many: " .. name, function()
      local list = arguments(name)
      list[#names + 1] = 0
      assert.are.equal(("too many arguments to '%s'"):format(name), error_of(name, table.unpack(list)))
      list[#names + 1], list[#names + 2] = {}, 1
      assert.are.equal(("too many arguments to '%s'"):format(name), error_of(name, table.unpack(list)))
      list[#names + 2] = {}
      assert.are.equal(("too many arguments to '%s'"):format(name), error_of(name, table.unpack(list)))
    end)

    it("unknown options: " .. name, function()
      local list = arguments(name)
      list[#names + 1] = { asnyc = true }
      local message = error_of(name, table.unpack(list))
      assert.is_truthy(message:find(("unknown option 'asnyc' of %s (did you mean 'async'?); it takes async drain")
        :format(name), 1, true), message)
      list[#names + 1] = { xyzzyxyzzy = true }
      message = error_of(name, table.unpack(list))
      assert.is_truthy(message:find(("unknown option 'xyzzyxyzzy' of %s; it takes async drain"):format(name), 1, true))
      list[#names + 1] = { async = 1 }
      assert.are.equal(("option 'async' of %s is true or false, not a number"):format(name),
        error_of(name, table.unpack(list)))
      list[#names + 1] = { true }
      assert.are.equal(("options of %s have names"):format(name), error_of(name, table.unpack(list)))
    end)
  end

  it("that are missing are named", function()
    assert.are.equal(bad("read", "fd", "integer expected, got no value"), error_of("read"))
    assert.are.equal(bad("read", "buffer", "Buffer expected, got no value"), error_of("read", NONE))
    assert.are.equal(bad("write", "data", "Buffer or string expected, got no value"), error_of("write", NONE))
    assert.are.equal(bad("readv", "buffers", "table expected, got no value"), error_of("readv", NONE))
    assert.are.equal(bad("openat", "dirfd", "integer expected, got no value"), error_of("openat"))
    assert.are.equal(bad("openat", "path", "string expected, got no value"), error_of("openat", nil))
    assert.are.equal(bad("connect", "address", "address as a string expected, got no value"), error_of("connect", NONE))
    assert.are.equal(bad("timeout", "seconds", "number expected, got no value"), error_of("timeout"))
    assert.are.equal(bad("cancel", "operation", "operation expected, got no value"), error_of("cancel"))
    assert.are.equal(bad("sendmsg", "message", "table expected, got no value"), error_of("sendmsg", NONE))
    assert.are.equal(bad("shutdown", "how", "integer expected, got no value"), error_of("shutdown", NONE))
    assert.are.equal(bad("poll_add", "events", "integer expected, got no value"), error_of("poll_add", NONE))
    assert.are.equal(bad("raw", "sqe", "table expected, got no value"), error_of("raw"))
    assert.are.equal(bad("raw", "opcode", "integer expected, got nil"), error_of("raw", {}))
    assert.are.equal(bad("read", "buffer", "Buffer expected, got table"), error_of("read", NONE, { async = true }))
    assert.are.equal(bad("close", "fd", "integer expected, got nil"), error_of("close", nil))
  end)

  it("that name options of other rows are refused", function()
    local function takes(...)
      return error_of(...):match "^(unknown option '[%w_]+' of [%w_]+; it takes) (.*)"
    end
    local function has(names, option)
      return (" " .. names .. " "):find(" " .. option .. " ", 1, true) ~= nil
    end
    local message, names = takes("read", NONE, uring.buffer(1), { peer = false })
    assert.are.equal("unknown option 'peer' of read; it takes", message)
    assert.is_true(has(names, "async") and has(names, "fixed_file") and has(names, "copy"))
    assert.is_false(has(names, "multishot"))
    message, names = takes("sendmsg", NONE, { data = "x" }, { multishot = true })
    assert.are.equal("unknown option 'multishot' of sendmsg; it takes", message)
    assert.is_true(has(names, "poll_first"))
    assert.is_false(has(names, "peer"))
    message, names = takes("accept", NONE, { poll_first = true })
    assert.are.equal("unknown option 'poll_first' of accept; it takes", message)
    assert.is_true(has(names, "multishot") and has(names, "peer"))
  end)

  it("that are lengths are not more than there is", function()
    assert.are.equal(bad("read", "length", "5 is more than the 4 bytes there are"),
      error_of("read", NONE, uring.buffer(4), 5))
    assert.are.equal(bad("recv", "length", "5 is more than the 4 bytes there are"),
      error_of("recv", NONE, uring.buffer(4), 5))
    assert.are.equal(bad("write", "length", "3 is more than the 2 bytes there are"), error_of("write", NONE, "ab", 3))
    assert.are.equal(bad("send", "length", "3 is more than the 2 bytes there are"),
      error_of("send", NONE, uring.buffer("abcd"):slice(2, 3), 3))
    assert.are.equal(bad("read", "length", "1 is more than the 0 bytes there are"),
      error_of("read", NONE, uring.buffer(0), 1))
  end)

  it("that are vectors have the right members", function()
    assert.are.equal(bad("readv", "buffers", "Buffer expected at [2], got string"),
      error_of("readv", NONE, { uring.buffer(1), "x" }))
    assert.are.equal(bad("writev", "data", "Buffer or string expected at [1], got number"),
      error_of("writev", NONE, { 5 }))
    assert.are.equal(bad("writev", "count", "3 is out of range"), error_of("writev", NONE, { "a", "b" }, 3))
    local many = {}
    for i = 1, 1025 do
      many[i] = "x"
    end
    assert.are.equal(bad("writev", "data", "more than 1024 members"), error_of("writev", NONE, many))
    many[1025] = nil
    assert.are.same({ nil, "writev: Bad file descriptor", errno.EBADF }, { op.writev(NONE, many) })
    assert.are.equal("attempt to use a closed buffer", error_of("readv", NONE, { uring.buffer(1), closed_buffer() }))
    local hole = setmetatable({}, { __len = function() return 3 end, __index = function() return "x" end })
    assert.are.same({ nil, "writev: Bad file descriptor", errno.EBADF }, { op.writev(NONE, hole) }) -- taken as it is
  end)

  it("that are messages have the right fields", function()
    assert.are.equal(bad("sendmsg", "message", "Buffer or string expected at [1], got number"),
      error_of("sendmsg", NONE, { data = 5 }))
    assert.are.equal(bad("recvmsg", "message", "Buffer expected at [1], got string"),
      error_of("recvmsg", NONE, { data = "text" }))
    assert.are.equal(bad("recvmsg", "message", "Buffer expected at [2], got boolean"),
      error_of("recvmsg", NONE, { data = { uring.buffer(1), true } }))
    assert.are.equal(bad("recvmsg", "message", "Buffer expected at [2], got string"),
      error_of("recvmsg", NONE, { data = uring.buffer(1), control = "text" }))
    assert.are.equal(bad("sendmsg", "message", "'nowhere': the port is missing"),
      error_of("sendmsg", NONE, { data = "x", to = "nowhere" }))
    assert.are.equal(bad("sendmsg", "message", "address as a string expected, got number"),
      error_of("sendmsg", NONE, { data = "x", to = 80 }))
    assert.are.equal("attempt to use a closed buffer", error_of("recvmsg", NONE, { data = closed_buffer() }))
  end)

  it("that are messages have no fields nobody knows", function()
    local message = error_of("sendmsg", NONE, { dat = "x" })
    assert.is_truthy(message:find("unknown field 'dat'", 1, true), message)
    assert.is_truthy(message:find("did you mean 'data'", 1, true), message)
    message = error_of("recvmsg", NONE, { data = uring.buffer(1), too = 1 })
    assert.is_truthy(message:find("unknown field 'too'", 1, true), message)
  end)

  it("that are raw have fields that exist and fit", function()
    assert.are.equal("unknown field 'opcod' of raw (did you mean 'opcode'?)", error_of("raw", { opcod = 0 }))
    assert.are.equal("unknown field '?' of raw", error_of("raw", { [1] = 0 }))
    assert.are.equal(bad("raw", "opcode", "256 is out of range"), error_of("raw", { opcode = 256 }))
    assert.are.equal(bad("raw", "flags", "256 is out of range"), error_of("raw", { opcode = 0, flags = 256 }))
    assert.are.equal(bad("raw", "ioprio", "65536 is out of range"), error_of("raw", { opcode = 0, ioprio = 65536 }))
    assert.are.equal(bad("raw", "len", (1 << 32) .. " is out of range"), error_of("raw", { opcode = 0, len = 1 << 32 }))
    assert.are.equal(bad("raw", "fd", "integer expected, got string"), error_of("raw", { opcode = 0, fd = "1" }))
    assert.are.equal(bad("raw", "off", "integer expected, got boolean"), error_of("raw", { opcode = 0, off = true }))
    local text = error_of("raw", { opcode = const.IORING_OP_READ, fd = NONE, addr = "text" })
    assert.are.equal(bad("raw", "addr", "the kernel may write there: give it a Buffer"), text)
    text = error_of("raw", { opcode = const.IORING_OP_WRITE, fd = NONE, addr2 = "text" })
    assert.are.equal(bad("raw", "addr2", "the kernel may write there: give it a Buffer"), text)
    assert.are.equal("attempt to use a closed buffer",
      error_of("raw", { opcode = const.IORING_OP_READ, fd = NONE, addr = closed_buffer() }))
    for _, wrong in ipairs { true, {}, print } do
      local message = error_of("raw", { opcode = const.IORING_OP_READ, fd = NONE, addr = wrong })
      assert.is_truthy(message:find("bad argument 'addr' to 'raw' (", 1, true), message)
    end
  end)

  it("that are raw do not make the kernel write past a Buffer", function()
    local path = helper.tmpname(("x"):rep(64))
    local fd = assert(op.openat(nil, path, const.O_RDONLY))
    local message = helper.error_of(uring.prepare, "raw",
      { opcode = const.IORING_OP_READ, fd = fd, addr = uring.buffer(16), len = 17 })
    assert.is_truthy(message:find("17 is more than the 16 bytes there are", 1, true), message)
    op.close(fd)
  end)

  it("that are raw cannot do without a completion", function()
    local ok, message = pcall(function()
      local ring <close> = uring.ring { entries = 4, drain_timeout = 0.01 }
      ring:prepare("raw", { opcode = const.IORING_OP_NOP, flags = 64 }) -- IOSQE_CQE_SKIP_SUCCESS
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("bad argument 'flags' to 'raw'", 1, true), message)
  end)

  it("that are closed Buffers are refused", function()
    for name, names in pairs(signature) do
      for i, argument in ipairs(names) do
        if type_of(name, argument):find "Buffer" then
          assert.are.equal("attempt to use a closed buffer", error_with(name, i, closed_buffer()))
        end
      end
    end
  end)

  it("that are lent Buffers are refused, and stay lent once", function()
    local r, w = core.pipe()
    local buffer = uring.buffer(8)
    local o = uring.prepare("read", r, buffer:slice(1, 4))
    uring.submit()
    local message = ("buffer is lent to the kernel (read on fd %d)"):format(r)
    assert.are.equal(message, error_of("read", NONE, buffer))
    assert.are.equal(message, error_of("recv", NONE, buffer))
    assert.are.equal(message, error_of("write", NONE, buffer))
    assert.are.equal(message, error_of("send", NONE, buffer:slice(4, 8)))
    assert.are.equal(message, error_of("readv", NONE, { uring.buffer(4), buffer }))
    assert.are.equal(message, error_of("writev", NONE, { "x", buffer }))
    assert.are.equal(message, error_of("recvmsg", NONE, { data = uring.buffer(4), control = buffer }))
    assert.are.equal(message, error_of("sendmsg", NONE, { data = { "x", buffer } }))
    assert.are.equal(message, error_of("raw", { opcode = const.IORING_OP_READ, fd = NONE, addr = buffer }))
    -- the rest of it is free
    assert.are.same({ nil, "read: Bad file descriptor", errno.EBADF }, { op.read(NONE, buffer:slice(5)) })
    assert.are.equal(4, uring.stats().bytes_lent)
    op.write(w, "data")
    assert.are.equal(4, o:await())
    assert.are.equal("data", buffer:get(1, 4))
    op.close(r)
    op.close(w)
  end)

  it("that name one Buffer twice to be written are refused", function()
    local buffer = uring.buffer(4)
    assert.are.equal(("buffer is lent to the kernel (readv on fd %d)"):format(NONE),
      error_of("readv", NONE, { buffer, buffer }))
    assert.are.equal("owned", buffer:status())
    -- sending it twice is fine
    assert.are.same({ nil, "writev: Bad file descriptor", errno.EBADF }, { op.writev(NONE, { buffer, buffer }) })
  end)

  it("that are paths have no zero bytes", function()
    assert.are.equal(bad("openat", "path", "there is a zero byte in the path"),
      error_of("openat", nil, "/etc\0/passwd"))
    assert.are.equal(bad("statx", "path", "there is a zero byte in the path"), error_of("statx", nil, "\0"))
    assert.are.same({ nil, "openat: File name too long", errno.ENAMETOOLONG }, { op.openat(nil, ("x"):rep(5000)) })
  end)

  it("that are addresses are explained", function()
    local wrong = {
      [""] = "the port is missing"; ["127.0.0.1"] = "the port is missing";
      ["127.0.0.1:"] = "the port is not a number from 0 to 65535";
      ["127.0.0.1:65536"] = "the port is not a number from 0 to 65535";
      ["127.0.0.1:-1"] = "the port is not a number from 0 to 65535";
      ["127.0.0.1: 1"] = "the port is not a number from 0 to 65535";
      ["127.0.0.1:1x"] = "the port is not a number from 0 to 65535";
      ["127.0.0.1:000001"] = "the port is not a number from 0 to 65535";
      ["256.0.0.1:1"] = "the host is not a numeric address"; ["1.2.3:1"] = "the host is not a numeric address";
      [":1"] = "the host is not a numeric address"; ["::1:1"] = "the host is not a numeric address";
      ["[::1:1"] = "the bracket is not closed"; ["[:1"] = "the bracket is not closed";
      ["[::g]:1"] = "not an IPv6 address"; ["[]:1"] = "not an IPv6 address"; ["[127.0.0.1]:1"] = "not an IPv6 address";
      ["unix:"] = "the path of the unix socket is missing";
      ["unix:" .. ("x"):rep(108)] = "the path of the unix socket is longer than 107 bytes";
      [("x"):rep(300) .. ":1"] = "the host is not a numeric address";
    }
    for address, why in pairs(wrong) do
      local text = bad("connect", "address", ("'%s': %s"):format(address, why))
      assert.are.equal(text, error_of("connect", NONE, address))
      assert.are.equal(bad("bind", "address", ("'%s': %s"):format(address, why)), error_of("bind", NONE, address))
    end
    local message = error_of("connect", NONE, "unix:/a\0b")
    assert.is_truthy(message:find("the path of the unix socket has a zero byte in it", 1, true), message)
    message = error_of("connect", NONE, "127.0.0.1\0:1")
    assert.is_truthy(message:find("the host is not a numeric address", 1, true), message)
    for _, address in ipairs { "127.0.0.1:0", "*:65535", "localhost:1", "[::]:1", "unix:x", "unix:@", "unix:@a\0b",
      "unix:" .. ("x"):rep(107) } do
      assert.are.same({ nil, "connect: Bad file descriptor", errno.EBADF }, { op.connect(NONE, address) })
    end
  end)

  it("that are times are not negative", function()
    for _, seconds in ipairs { -1, -0.001, -math.huge, 0 / 0 } do
      assert.are.equal(bad("timeout", "seconds", "seconds are negative"), error_of("timeout", seconds))
    end
  end)

  it("that would make a timeout repeat itself are refused", function()
    local IORING_TIMEOUT_MULTISHOT = 64
    local message = error_of("timeout", 10, 0, IORING_TIMEOUT_MULTISHOT)
    assert.is_truthy(message:find("bad argument 'flags' to 'timeout'", 1, true), message)
  end)

  it("that say how to shut down are 'r', 'w', 'rw' or a number", function()
    for _, how in ipairs { "", "x", "wr", "both", "r\0" } do
      assert.are.equal(bad("shutdown", "how", "'r', 'w' or 'rw' expected"), error_of("shutdown", NONE, how))
    end
  end)

  it("that name no operation list near ones", function()
    for _, raise in ipairs {
      function(name) uring.prepare(name) end,
      function(name) return op[name] end,
      function(name)
        local ring <close> = uring.ring { entries = 4 }
        ring:prepare(name)
      end,
      function(name) uring.probe(name) end,
    } do
      local message = helper.error_of(raise, "raed")
      assert.is_truthy(message:find("unknown operation 'raed' (did you mean 'read'", 1, true), message)
      message = helper.error_of(raise, "acept")
      assert.is_truthy(message:find("unknown operation 'acept' (did you mean 'accept'", 1, true), message)
      message = helper.error_of(raise, "qqqqqqqq")
      assert.is_truthy(message:find "unknown operation 'qqqqqqqq'$", message)
      message = helper.error_of(raise, ("x"):rep(1000))
      assert.is_truthy(message:find("unknown operation 'xxxx", 1, true))
      message = helper.error_of(raise, "")
      assert.is_truthy(message:find("unknown operation ''", 1, true), message)
    end
    for _, wrong in ipairs { true, {}, print } do
      local message = helper.error_of(uring.prepare, wrong)
      assert.is_truthy(message:find("string expected, got " .. type(wrong), 1, true), message)
    end
  end)
end)

-- Random calls: each one raises or completes, and nothing is lost.
describe("random arguments", function()
  helper.watch(before_each, after_each)

  local seed = tonumber(os.getenv "URING_SEED") or 20240607
  local rounds = helper.times(3000)

  local SLOTS = 16
  local FIXED = { fixed_file = true }

  local r, w, a, b -- a pipe and a socketpair of our own
  local named -- slots that files_update was told
  local groups = {} -- of buffers, that provide_buffers was told
  local buffers, pending, pools

  local function open_ours()
    named = {}
    r, w = core.pipe()
    a, b = core.socketpair()
    assert(core.default():register_files(SLOTS))
  end

  -- What is in a slot that the program has not named, nobody was given.
  local function close_ours()
    for _, fd in ipairs { r, w, a, b } do
      op.close(fd)
    end
    helper.eventually(function()
      helper.collect()
      return uring.stats().in_flight == 0
    end)
    for slot = 0, SLOTS - 1 do
      local taken = op.close(slot, FIXED)
      assert(not taken or named[slot], "a slot was lost")
    end
    assert(core.default():unregister_files())
  end

  local function pick(list)
    return list[math.random(#list)]
  end

  -- Never 0, 1 or 2, and nothing that is open but ours.
  local function descriptor()
    return ({ -1, NONE, 1e6, "x", r, w, a, b, 10000, 10000 + math.random(50000), nil, false, 0.5, BIG })
      [math.random(14)]
  end

  local function buffer()
    return pick(buffers)
  end

  local strings = {
    "", "x", "hello", "a\0b", "/nonexistent/a", "/dev/null", "/", "127.0.0.1:1", "[::1]:1", "unix:/nonexistent/s",
    "unix:@uring-args-spec", "rw", "r", "5", ("y"):rep(300), ("z"):rep(5000),
  }
  local integers = { 0, 1, 2, 3, 7, 8, 16, 100, -1, -100, 255, 4096, 1 << 31, (1 << 32) - 1, 1 << 32, BIG,
    math.maxinteger, math.mininteger }
  local floats = { 0.0, 1.0, -0.0, 0.5, 1e-9, 1e300, math.huge, -math.huge, 0 / 0 }
  local flags = { "async", "drain", "multishot", "poll_first", "peer", "fixed_file", "direct", "link", "hardlink",
    "skip_success", "eager", "bundle", "copy", "reuse", "buffer_group" }
  local options = { "async", "multishot", "poll_first", "peer", "bundle", "copy", "reuse", "buffer_group", "asnyc", "",
    1, true }

  local anything

  local function some_table(depth)
    local t = {}
    for _ = 1, math.random(0, 3) do
      if math.random() < 0.5 then
        t[#t + 1] = math.random() < 0.7 and (math.random() < 0.5 and buffer() or pick(strings)) or anything(depth + 1)
      elseif math.random() < 0.5 then
        t[pick { "data", "to", "control", "from" }] = anything(depth + 1)
      else
        t[pick(options)] = math.random() < 0.8 and math.random() < 0.5 or anything(depth + 1)
      end
    end
    return t
  end

  function anything(depth)
    local kind = math.random(depth and depth > 2 and 8 or 10)
    if kind == 1 then return nil end
    if kind == 2 then return math.random() < 0.5 end
    if kind == 3 or kind == 4 then return pick(integers) end
    if kind == 5 then return pick(floats) end
    if kind == 6 then return pick(strings) end
    if kind == 7 then return buffer() end
    if kind == 8 then
      return pick { print, coroutine.create(print), io.stdout, uring.cancelled, pending, finished() }
    end
    return some_table(depth or 0)
  end

  -- Values that are likely to be right, so that calls get past the checks.
  local likely = {
    fd = descriptor; dirfd = descriptor;
    buffer = function() return math.random() < 0.8 and buffer() or pick(pools) end;
    data = function() return pick { buffer(), buffer(), pick(strings), pick(strings), pick(pools) } end;
    pool = function() return pick(pools) end;
    nr = function() return math.random(1, 4) end; bid = function() return math.random(0, 9) end;
    bgid = function() return pick { 9, 10 } end;
    buffers = function() return { buffer(), buffer() } end;
    message = function()
      return { data = pick { buffer(), { buffer() }, pick(pools), false } or nil,
        control = math.random() < 0.1 and buffer() or nil }
    end;
    path = function() return pick(strings) end;
    address = function() return pick(strings) end;
    seconds = function() return pick { 0, 0.0001, 0.001, 100, math.huge } end;
    operation = function() return math.random() < 0.5 and pending or finished() end;
    how = function() return pick { "r", "w", "rw", 0, 1, 2 } end;
    events = function() return math.random(0, 0xffff) end;
    length = function() return math.random(0, 16) end;
    count = function() return math.random(0, 2) end;
    offset = function() return math.random(-1, 16) end;
    flags = function() return pick { 0, 0, 0, 1, 2, 64, 1 << 31 } end;
    domain = function() return pick { 1, 2, 10, 16, 999 } end;
    type = function() return pick { 1, 2, 5, const.SOCK_STREAM | const.SOCK_CLOEXEC, 77 } end;
    mode = function() return 384 end; mask = function() return 0 end;
    protocol = function() return pick { 0, 6, 17, 255 } end;
    backlog = function() return pick { 0, 1, 4096 } end;
    epfd = descriptor; fd_in = descriptor; fd_out = descriptor; olddirfd = descriptor; newdirfd = descriptor;
    oldpath = function() return pick(strings) end; newpath = function() return pick(strings) end;
    target = function() return pick(strings) end; linkpath = function() return pick(strings) end;
    name = function() return pick { "user.x", "", "user.", "system.none", ("n"):rep(300) } end;
    value = function() return pick { 0, 1, buffer(), "text", BIG } end;
    ring = function() return other end;
    len = function() return math.random(0, 16) end; nbytes = function() return math.random(0, 16) end;
    off_in = function() return math.random(-1, 16) end; off_out = function() return math.random(-1, 16) end;
    advice = function() return math.random(0, 26) end; op = function() return pick { "add", "del", "mod", 1, 2 } end;
    maxevents = function() return math.random(1, 16) end;
    level = function() return pick { 0, 1, 6 } end; optname = function() return math.random(0, 40) end;
    idtype = function() return math.random(0, 3) end; id = function() return pick { 999999999, 1, 0 } end;
    options = function() return pick { 4, 5, 2, 0 } end;
    word = function() return buffer() end; futex_flags = function() return pick { 2, 130, 4 } end;
    zc_flags = function() return pick { 0, 0, 1, 8 } end;
    cmd_op = function() return math.random(0, 5) end; command = function() return pick { "", "1234567890123456" } end;
    ifq = function() return math.random(0, 1) end;
    fds = function() return { descriptor(), descriptor() } end; slot = function() return pick { 0, 1, 100 } end;
    ["openat2.how"] = function() return { flags = pick { 0, const.O_CLOEXEC } } end;
    ["futex_wait.value"] = function() return math.random(0, 1) end;
    ["futex_wake.value"] = function() return math.random(0, 1) end;
    ["epoll_ctl.data"] = function() return math.random(0, 9) end;
    source_slot = function() return math.random(0, 1) end; target_slot = function() return pick { 0, 1, nil } end;
    ["msg_ring_fd.data"] = function() return math.random(0, 9) end;
    ["msg_ring.data"] = function() return math.random(0, 9) end;
    words = function() return pick { {}, { { buffer(), 0 } }, { { buffer(), 0, 2 }, { buffer(), 1 } } } end;
  }

  -- Only opcodes and flags that can do no harm; a number for an address
  -- points nowhere.
  local function raw()
    local t = {
      opcode = pick { 0, 0, const.IORING_OP_READ, const.IORING_OP_WRITE, const.IORING_OP_POLL_ADD, 200, 255, -1, "x",
        256, 0.5 };
      fd = descriptor();
    }
    if math.random() < 0.7 then t.addr = pick { buffer(), "text", 1, 0, -1, true, {} } end
    if math.random() < 0.3 then t.len = pick { 0, 1, 4, -1, "x", BIG } end
    if math.random() < 0.3 then t.off = pick { 0, -1, 5, 0.5, "x", BIG } end
    if math.random() < 0.2 then t.flags = pick { 0, const.IOSQE_ASYNC, const.IOSQE_FIXED_FILE, -1, 256 } end
    if math.random() < 0.2 then t.keep = pick { buffer(), "text", { buffer() }, 5 } end
    if math.random() < 0.1 then t[pick { "opcod", "", 1, "addr4" }] = 1 end
    if math.random() < 0.1 then t.multishot = true end
    return t
  end

  -- Rows that change what paths name: they get none that exist.
  local changes = {
    renameat = true, unlinkat = true, mkdirat = true, symlinkat = true, linkat = true, setxattr = true, openat2 = true;
  }

  local function arguments_for(name)
    if name == "raw" then
      return { n = 1, raw() }
    end
    local list = { n = math.random(0, #signature[name] + 2) }
    for i = 1, list.n do
      local argument = signature[name][i]
      if argument == "fd" or argument == "dirfd" then
        list[i] = descriptor()
        if name == "close" and math.type(list[i]) and list[i] >= 0 and list[i] < 10000 then
          list[i] = 10000 -- what is ours is closed by us
        end
      elseif argument and math.random() < 0.8 then
        list[i] = (likely[name .. "." .. argument] or likely[argument])()
      else
        list[i] = anything()
      end
    end
    if name == "timeout" and math.tointeger(list[3]) and math.tointeger(list[3]) & 64 ~= 0 then
      list[3] = 0 -- repeats for ever, and is asked elsewhere
    end
    if name == "openat" and math.type(list[3]) then
      list[3] = 0 -- creates nothing
    end
    if changes[name] then
      for i = 1, list.n do
        if type(list[i]) == "string" then
          list[i] = pick { "", "/nonexistent/a", "/nonexistent/b\0", ("y"):rep(300), ("z"):rep(5000) }
        end
      end
    end
    return list
  end

  -- Options that some row has, most of them with values that would do.
  local function some_options()
    local t = {}
    for _ = 1, math.random(3) do
      local name = pick(flags)
      t[name] = math.random() < 0.9
      if name == "direct" and math.random() < 0.5 then
        t[name] = pick { 0, 7, SLOTS - 1, SLOTS, 1 << 15, "x", -1 }
      elseif name == "buffer_group" then
        t[name] = pick { 9, 10, 0, 65535, 65536 }
      end
    end
    return t
  end

  -- The arguments of a call, with options behind them or not; and those.
  local function call_of(name)
    local list, chosen = arguments_for(name), {}
    if math.random() < 0.5 then
      chosen = some_options()
      list.n = name == "raw" and 2 or #signature[name] + 1
      list[list.n] = chosen
    end
    return list, chosen
  end

  local yields = { openat = true, openat2 = true, socket = true, accept = true, fixed_fd_install = true }

  -- Closes what the results of a call are.
  local function close_results(name, results, how)
    if name == "pipe" then
      op.close(results[2], how)
      op.close(results[3], how)
    elseif yields[name] then
      op.close(results[1], how)
    elseif name == "files_update" then
      for _, slot in ipairs(results[2] or {}) do
        op.close(slot, FIXED)
      end
    end
  end

  -- One call, to its end.
  local function try(name)
    local list, chosen = call_of(name)
    if name == "files_update" and math.tointeger(list[2]) then
      for i = 0, 63 do
        named[list[2] + i] = true
      end
    elseif name == "provide_buffers" and math.tointeger(list[4]) then
      groups[math.tointeger(list[4])] = true
    end
    local ok, o = pcall(uring.prepare, name, table.unpack(list, 1, list.n))
    if not ok then
      assert.are.equal("string", type(o))
      return "raised"
    end
    local behind = (chosen.link or chosen.hardlink) and uring.prepare "nop"
    if math.random() < 0.9 then
      uring.submit()
    end
    if math.random() < 0.1 then
      if chosen.drain then -- or all that follows waits until it is collected
        o:cancel()
      end
      return "dropped"
    end
    uring.yield()
    local ended = o:status() == "done"
    if not ended then
      o:cancel()
    end
    local results = table.pack(o:await())
    if type(results[1]) == "number" then
      assert.is_true(results[1] >= 0)
      close_results(name, results, chosen.direct and name ~= "fixed_fd_install" and FIXED or nil)
    else
      assert.is_nil(results[1])
      assert.are.equal(name, results[2]:match "^([%w_]+): .")
      assert.are.equal("string", type(errno[results[3]]))
    end
    if name:find "^send.*_zc$" then
      o:notification()
    end
    while o:status() ~= "done" do -- one of many results
      o:await()
    end
    if behind then
      behind:await()
    end
    return ended and "ended" or "cancelled"
  end

  it("raise or complete, and nothing is lost", function()
    math.randomseed(seed)
    local names = {}
    for name in pairs(signature) do
      names[#names + 1] = name
    end
    table.sort(names)
    local counts = { raised = 0, ended = 0, cancelled = 0, dropped = 0 }
    for i = 1, rounds do
      if i % 50 == 1 then
        if i > 1 then
          pending:cancel():await()
          close_ours()
        end
        open_ours()
        local closed = closed_buffer()
        local slice = uring.buffer(64):slice(8, 40)
        buffers = { uring.buffer(16), uring.buffer(0), uring.buffer("contents"), closed, slice }
        pending = uring.prepare("poll_add", r, const.POLLPRI)
        pools = {
          uring.pool { buffers = 4, size = 16 }, uring.pool { buffers = 2, size = 64, incremental = true },
          uring.pool { buffers = 2, size = 16, outgoing = true },
        }
        pools[3]:push "a pool's"
      end
      local name = pick(names)
      local ok, what = pcall(try, name)
      assert.is_true(ok, ("round %d, %s, seed %d: %s"):format(i, name, seed, tostring(what)))
      counts[what] = counts[what] + 1
    end
    pending:cancel():await()
    pending = nil
    close_ours()
    buffers, pools = nil, nil
    for group in pairs(groups) do -- what provide_buffers has handed over
      pcall(op.remove_buffers, 65535, group)
    end
    assert.are.equal(rounds, counts.raised + counts.ended + counts.cancelled + counts.dropped)
    for what, n in pairs(counts) do
      assert.is_true(n > 0, "none " .. what)
    end
  end)
end)
