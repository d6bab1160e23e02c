-- skip_success: linked operations that post a completion only if they fail.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local const, errno, op = uring.const, uring.errno, uring.op

local NONE = 1000000 -- a descriptor that is not open

describe("skip_success", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  local function soft()
    return { link = true, skip_success = true }
  end

  local function hard()
    return { hardlink = true, skip_success = true }
  end

  -- What operations came to: a number, or the name of an errno.
  local function results(...)
    local got = {}
    for i, o in ipairs { ... } do
      local result, _, number = o:await()
      got[i] = result or errno[number]
    end
    return got
  end

  local function assert_quiet(ring)
    local s = ring:stats()
    assert.are.same({ 0, 0, 0, 0 }, { s.in_flight, s.backlog, s.bytes_lent, s.unknown })
    assert.are.equal(s.prepared, s.completed)
  end

  -- How many completions a group posts: one timer after the other waits for so
  -- many.
  local function completions(ring, prepare)
    for n = 0, 8 do
      local timer = ring:prepare("timeout", 10, n + 1)
      ring:submit()
      local ops = { prepare() }
      ring:submit()
      results(table.unpack(ops))
      ring:prepare("nop"):await() -- the completion of that is one more
      if timer:status() == "submitted" then
        timer:cancel():await()
        return n - 1
      end
      timer:await()
    end
  end

  it("posts one completion for all that succeed", function()
    local ring <close> = uring.ring { entries = 16 }
    local function group(options)
      return function()
        return ring:prepare("nop", options), ring:prepare("nop", options), ring:prepare("nop", options),
          ring:prepare "nop"
      end
    end
    assert.are.equal(4, completions(ring, group { link = true }))
    assert.are.equal(1, completions(ring, group(soft())))
    assert.are.equal(2, completions(ring, function() -- one that is not silent, and nobody behind it
      return ring:prepare("nop", soft()), ring:prepare("nop", { link = true }), ring:prepare "nop"
    end))
    assert.are.equal(3, completions(ring, function()
      return ring:prepare("nop", { link = true }), ring:prepare("nop", soft()), ring:prepare "nop"
    end))
    assert.are.equal(1, completions(ring, function()
      local a, b, c = ring:prepare("nop", { skip_success = true }), ring:prepare("nop", { skip_success = true }),
        ring:prepare "nop"
      ring:link { a, b, c }
      return a, b, c
    end))
    assert_quiet(ring)
  end)

  it("gives 0, whatever the success was", function()
    local ring <close> = uring.ring { entries = 8 }
    local fd = assert(op.openat(nil, helper.tmpname "contents", const.O_RDWR))
    local buffer = uring.buffer(8)
    local read = ring:prepare("read", fd, buffer, 8, 0, soft())
    local write = ring:prepare("write", fd, "data", 4, 0, soft())
    local last = ring:prepare("read", fd, uring.buffer(4), 4, 0)
    assert.are.same({ 0, 0, 4 }, results(read, write, last))
    assert.are.equal("contents", buffer:get())
    assert.are.same({ 0 }, { read:await() }) -- as often as one asks
    op.close(fd)
    assert_quiet(ring)
  end)

  it("opens, reads and closes a file with one completion", function()
    local ring <close> = uring.ring { entries = 8 }
    assert(ring:register_files(8))
    local path = helper.tmpname "contents"
    local buffer = uring.buffer(8)
    local function group()
      return ring:prepare("openat", nil, path, 0, { direct = 5, link = true, skip_success = true }),
        ring:prepare("read", 5, buffer, 8, 0, { fixed_file = true, link = true, skip_success = true }),
        ring:prepare("close", 5, { fixed_file = true })
    end
    assert.are.same({ 5, 0, 0 }, results(group()))
    assert.are.equal("contents", buffer:get())
    assert.are.equal(1, completions(ring, group))
    assert_quiet(ring)
  end)

  describe("where one fails", function()
    local cases = {
      { "the first", function(ring)
        return ring:prepare("read", NONE, uring.buffer(4), soft()), ring:prepare("nop", soft()), ring:prepare "nop"
      end, { "EBADF", "ECANCELED", "ECANCELED" } };
      { "one in the middle", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("read", NONE, uring.buffer(4), soft()),
          ring:prepare("nop", soft()), ring:prepare "nop"
      end, { 0, "EBADF", "ECANCELED", "ECANCELED" } };
      { "the last", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("nop", soft()), ring:prepare("read", NONE, uring.buffer(4))
      end, { 0, 0, "EBADF" } };
      { "one whose link is hard", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("read", NONE, uring.buffer(4), hard()),
          ring:prepare("nop", soft()), ring:prepare "nop"
      end, { 0, "EBADF", 0, 0 } };
      { "the first, whose link is hard", function(ring)
        return ring:prepare("read", NONE, uring.buffer(4), hard()), ring:prepare("nop", soft()), ring:prepare "nop"
      end, { "EBADF", 0, 0 } };
      { "one that is not silent", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("read", NONE, uring.buffer(4), { link = true }),
          ring:prepare("nop", soft()), ring:prepare("nop", soft()), ring:prepare "nop"
      end, { 0, "EBADF", "ECANCELED", "ECANCELED", "ECANCELED" } };
      { "one that the kernel does not begin with", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("nop", soft()), ring:prepare("recv_zc", 0, 7)
      end, { "ECANCELED", "ECANCELED", "ECANCELED" } };
      { "one that the kernel does not begin with, behind a hard link", function(ring)
        return ring:prepare("nop", hard()), ring:prepare("nop", soft()), ring:prepare("recv_zc", 0, 7)
      end, { "ECANCELED", "ECANCELED", "EINVAL" } };
      { "a timer, by expiring", function(ring)
        return ring:prepare("nop", soft()), ring:prepare("timeout", 0.001, soft()), ring:prepare "nop"
      end, { 0, 0, "ECANCELED" } };
    }
    for _, case in ipairs(cases) do
      it("by name: " .. case[1], function()
        local ring <close> = uring.ring { entries = 8 }
        assert.are.same(case[3], results(case[2](ring)))
        assert_quiet(ring)
      end)
    end

    it("by bytes that are missing, those that came are told", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = assert(op.openat(nil, helper.tmpname "short", const.O_RDONLY))
      local read, nop = ring:prepare("read", fd, uring.buffer(64), 64, 0, soft()), ring:prepare "nop"
      assert.are.same({ 5, "ECANCELED" }, results(read, nop))
      op.close(fd)
    end)
  end)

  -- A call of each row that fails, once it is begun where that can be had.
  it("never takes failure for success", function()
    local ring <close> = uring.ring { entries = 8 }
    local other <close> = uring.ring { entries = 4 }
    local r, w = core.pipe()
    local socket, peer = core.socketpair()
    local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
    local done = ring:prepare "nop"
    done:await()
    local buffer, registered = uring.buffer(4), uring.buffer(4096)
    ring:register_buffers { registered }
    ring:register_files(4)
    local pool <close> = ring:pool { buffers = 1, size = 4 }
    local gone = "/nonexistent/x"
    local fails = {
      readv = { w, { buffer } }; writev = { r, { "x" } }; fsync = { r }; poll_add = { NONE, 1 };
      poll_remove = { done }; poll_update = { done, 1 }; sync_file_range = { r, 1, 0 };
      sendmsg = { r, { data = "x" } }; sendmsg_zc = { r, { data = "x" } }; recvmsg = { r, { data = buffer } };
      timeout_remove = { done }; timeout_update = { 1, done }; accept = { r }; cancel = { done }; cancel_fd = { r };
      connect = { r, "127.0.0.1:1" }; fallocate = { r, 0, 0, 1 }; openat = { nil, gone }; openat2 = { nil, gone, {} };
      close = { NONE }; files_update = { { NONE }, 0 }; statx = { nil, gone }; read = { w, buffer }; write = { r, "x" };
      read_fixed = { w, registered }; write_fixed = { r, registered }; readv_fixed = { w, { registered } };
      writev_fixed = { r, { registered } }; fadvise = { r, 0, 0, 0 }; madvise = { registered, const.MADV_REMOVE };
      send = { r, "x" }; send_zc = { r, "x" }; recv = { r, buffer }; epoll_ctl = { r, w, "add", 1 };
      epoll_wait = { r }; splice = { r, -1, fd, -1, 1, 1 << 20 }; tee = { fd, w, 1 }; shutdown = { r, "w" };
      renameat = { nil, gone, nil, gone }; unlinkat = { nil, gone }; mkdirat = { nil, gone };
      symlinkat = { "x", nil, gone }; linkat = { nil, gone, nil, gone }; msg_ring = { other, 0, 1, 1 << 31 };
      msg_ring_fd = { ring, 0, nil, 1 };
      fsetxattr = { r, "user.x", "v" }; setxattr = { "user.x", "v", gone }; fgetxattr = { fd, "user.none", buffer };
      getxattr = { "user.none", buffer, gone }; socket = { 12345, 1 }; bind = { r, "127.0.0.1:0" }; listen = { r };
      getsockopt = { socket, const.SOL_SOCKET, 9999 }; setsockopt = { socket, const.SOL_SOCKET, 9999, 1 };
      siocinq = { r }; siocoutq = { r }; uring_cmd = { r, 0 }; waitid = { 1, 999999999, 4 };
      futex_wait = { uring.buffer(4), 1 }; futex_wake = { uring.buffer(4), 1, 0 };
      futex_waitv = { { { uring.buffer(4), 1 } } }; fixed_fd_install = { 3 }; ftruncate = { r, 0 };
      recv_zc = { socket, 7 }; pipe = { 1 };
      provide_buffers = { uring.buffer(4), 4, 1, pool:group(), 0 }; remove_buffers = { 1, 4242 };
      read_multishot = { fd, pool };
    }
    local cannot = { nop = true, raw = true, timeout = true, link_timeout = true, madvise = true }
    for name in pairs(ring:probe()) do
      assert.is_truthy(fails[name] or cannot[name], name .. " is not tried here")
      if ring:probe(name) and not cannot[name] then
        local call = fails[name]
        local n = 0
        for i in pairs(call) do
          n = math.max(n, i)
        end
        for _, async in ipairs { false, true } do
          call[n + 1] = { link = true, skip_success = true, async = async }
          local o, nop = ring:prepare(name, table.unpack(call, 1, n + 1)), ring:prepare "nop"
          local result, message = o:await()
          assert.is_nil(result, name)
          assert.are.equal(name, message:match "^[%w_]+")
          nop:await()
        end
      end
    end
    for _, each in ipairs { r, w, socket, peer, fd } do
      op.close(each)
    end
    assert_quiet(ring)
  end)

  describe("is left alone", function()
    -- With the option, and what the operation comes to: more than success.
    local function in_group(ring, behind, name, ...)
      local o = ring:prepare(name, ...)
      behind = behind and behind() or ring:prepare "nop"
      return { o:await() }, behind
    end

    it("where nothing is behind", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
      assert.are.equal(4, ring:prepare("read", fd, uring.buffer(4), 4, 0, { skip_success = true }):await())
      assert.are.same({ 0, 4 }, results(ring:prepare("nop", soft()),
        ring:prepare("read", fd, uring.buffer(4), 4, 0, { skip_success = true })))
      assert.are.equal(4, op.read(fd, uring.buffer(4), 4, 0, { skip_success = true }))
      op.close(fd)
    end)

    it("where a time limit is behind", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = core.pipe()
      local function limit(seconds)
        return function() return ring:prepare("link_timeout", seconds, { skip_success = true }) end
      end
      local got, behind = in_group(ring, limit(0.001), "read", r, uring.buffer(4), soft())
      assert.are.same({ nil, "read: Operation canceled", errno.ECANCELED }, got)
      assert.are.equal(0, (behind:await()))
      op.write(w, "data")
      got, behind = in_group(ring, limit(10), "read", r, uring.buffer(4), soft())
      assert.are.same({ 4 }, got)
      assert.are.equal(errno.ECANCELED, select(3, behind:await()))
      op.close(r)
      op.close(w)
      assert_quiet(ring)
    end)

    it("where it is drained", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
      local got = in_group(ring, nil, "read", fd, uring.buffer(4), 4, 0,
        { link = true, skip_success = true, drain = true })
      assert.are.same({ 4 }, got)
      op.close(fd)
      assert_quiet(ring)
    end)

    it("where more than success is to be told", function()
      local ring <close> = uring.ring { entries = 8 }
      ring:register_files(4)
      local path = helper.tmpname "text"
      local fd = assert(in_group(ring, nil, "openat", nil, path, const.O_RDONLY, soft())[1])
      assert.is_true(fd > 2)
      assert.are.equal(4, in_group(ring, nil, "statx", nil, path, 0, const.STATX_SIZE, soft())[2].size)
      local pipe = in_group(ring, nil, "pipe", soft())
      assert.are.equal(3, #pipe)
      assert.are.equal("integer", math.type(in_group(ring, nil, "socket", const.AF_UNIX, const.SOCK_STREAM,
        { link = true, skip_success = true, direct = true })[1]))
      local updated = in_group(ring, nil, "files_update", { fd }, nil, soft())
      assert.are.equal(1, #updated[2])
      for _, each in ipairs { fd, pipe[2], pipe[3] } do
        op.close(each)
      end
      local listener <close> = uring.listen "127.0.0.1:0"
      local stream <close> = uring.connect(listener:address())
      assert.are.same({ 4, const.SOCK_STREAM },
        in_group(ring, nil, "getsockopt", stream:fd(), const.SOL_SOCKET, const.SO_TYPE, soft()))
      assert.are.same({ 4 }, in_group(ring, nil, "send_zc", stream:fd(), "data", soft()))
      assert_quiet(ring)
    end)

    it("where there are many results", function()
      local ring <close> = uring.ring { entries = 8 }
      local timer = ring:prepare("timeout", 0.001, 3, { multishot = true, link = true, skip_success = true })
      local nop = ring:prepare "nop"
      for _ = 1, 3 do
        assert.are.equal(0, timer:await())
      end
      nop:await()
      assert_quiet(ring)
    end)

    it("by a thread that submits", function()
      local ring <close> = uring.ring { entries = 8, sqpoll = true }
      local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
      assert.are.same({ 4, 0 }, results(ring:prepare("read", fd, uring.buffer(4), 4, 0, soft()), ring:prepare "nop"))
      op.close(fd)
      assert_quiet(ring)
    end)

    it("and unknown to raw", function()
      assert.is_truthy(helper.error_of(uring.prepare, "raw", { opcode = 0 }, { skip_success = true })
        :find("unknown option 'skip_success' of raw", 1, true))
      local IOSQE_CQE_SKIP_SUCCESS = 64
      assert.is_truthy(helper.error_of(uring.prepare, "raw", { opcode = 0, flags = IOSQE_CQE_SKIP_SUCCESS })
        :find("an operation without a completion would never end", 1, true))
    end)
  end)

  describe("while it is not known what it came to", function()
    it("has what it was lent", function()
      local ring <close> = uring.ring { entries = 8 }
      local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
      local r, w = core.pipe()
      local buffer = uring.buffer(4)
      local read = ring:prepare("read", fd, buffer, 4, 0, soft())
      local waits = ring:prepare("read", r, uring.buffer(1))
      ring:submit()
      ring:prepare("timeout", 0.005):await()
      assert.are.same({ "submitted", "lent", 2 }, { read:status(), buffer:status(), ring:stats().in_flight })
      op.write(w, "x")
      assert.are.equal(0, read:await()) -- ends when the one behind it does
      assert.are.equal("done", waits:status())
      assert.are.equal("text", buffer:get())
      for _, each in ipairs { fd, r, w } do
        op.close(each)
      end
      assert_quiet(ring)
    end)

    it("is too late to be cancelled where it succeeded", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = core.pipe()
      local nop, waits = ring:prepare("nop", soft()), ring:prepare("read", r, uring.buffer(4))
      ring:submit()
      local cancellation = nop:cancel()
      ring:prepare("timeout", 0.03):await() -- it is asked for again and again
      assert.are.equal("cancelling", nop:status())
      assert.are.equal("submitted", waits:status())
      op.write(w, "data")
      assert.are.same({ "completed", 0 }, { cancellation:await() })
      assert.are.equal(4, waits:await())
      op.close(r)
      op.close(w)
      assert_quiet(ring)
    end)

    it("is cancelled, and what is behind with it", function()
      local ring <close> = uring.ring { entries = 8 }
      local r, w = core.pipe()
      for which = 1, 3 do
        for _, submitted in ipairs { false, true } do
          local buffers = { uring.buffer(4), uring.buffer(4), uring.buffer(4) }
          local ops = {}
          for i, buffer in ipairs(buffers) do
            ops[i] = ring:prepare("read", r, buffer, i < 3 and soft() or {})
          end
          for _ = 2, which do
            op.write(w, "data")
          end
          if submitted then
            ring:submit()
            ring:prepare("timeout", 0.002):await()
          end
          ops[which]:cancel()
          local got = results(table.unpack(ops))
          for i = 1, 3 do
            -- withdrawn, it leaves the one before it the last
            local success = not submitted and i == which - 1 and 4 or 0
            assert.are.equal(i < which and success or "ECANCELED", got[i])
            assert.are.equal("owned", buffers[i]:status())
          end
        end
      end
      op.close(r)
      op.close(w)
      assert_quiet(ring)
    end)

    it("is an orphan like others", function()
      local ring <close> = uring.ring { entries = 8 }
      ring:register_files(2)
      local r, w = core.pipe()
      local path = helper.tmpname "text"
      do
        local _kept = { -- until they are handed over
          ring:prepare("openat", nil, path, 0, { direct = 1, link = true, skip_success = true });
          ring:prepare("read", r, uring.buffer(4), soft());
          ring:prepare("read", r, uring.buffer(4));
        }
        ring:submit()
      end
      helper.collect()
      helper.eventually(function()
        ring:prepare("nop"):await()
        return ring:stats().in_flight == 0
      end)
      assert.are.equal(3, ring:stats().orphaned)
      -- the slot was nobody's
      assert.are.equal(errno.EBADF, select(3, ring:prepare("close", 1, { fixed_file = true }):await()))
      op.close(r)
      op.close(w)
      assert_quiet(ring)
    end)

    it("ends with its ring", function()
      local r, w = core.pipe()
      local ring = uring.ring { entries = 8 }
      local buffer = uring.buffer(4)
      local nop, read = ring:prepare("nop", soft()), ring:prepare("read", r, buffer, soft())
      local last = ring:prepare("write", w, "text")
      ring:submit()
      ring:close()
      assert.are.same({ 0, "ECANCELED", "ECANCELED" }, results(nop, read, last))
      assert.are.equal("owned", buffer:status())
      assert.are.equal(0, ring:stats().leaked)
      op.close(r)
      op.close(w)
      assert_quiet(ring)
    end)

    it("keeps a task waiting", function()
      local fd = assert(op.openat(nil, helper.tmpname "text", const.O_RDONLY))
      local r, w = core.pipe()
      local order = {}
      uring.run(function()
        local read = uring.prepare("read", fd, uring.buffer(4), 4, 0, soft())
        local waits = uring.prepare("read", r, uring.buffer(4))
        uring.spawn(function()
          local result = read:await()
          order[#order + 1] = result
        end)
        uring.sleep(0.002)
        order[#order + 1] = "written"
        op.write(w, "data")
        assert(waits:await())
      end)
      assert.are.same({ "written", 0 }, order)
      -- and one that is cancelled, until that is done
      uring.run(function()
        local read, waits = uring.prepare("read", r, uring.buffer(4), soft()), uring.prepare "nop"
        local task = uring.spawn(read.await, read)
        uring.sleep(0.002)
        task:cancel()
        local ok, err = pcall(task.await, task)
        assert.are.same({ false, core.cancelled }, { ok, err })
        assert.are.equal(errno.ECANCELED, select(3, waits:await()))
      end)
      for _, each in ipairs { fd, r, w } do
        op.close(each)
      end
    end)
  end)

  -- The kernel may have memory for a part of a group only: the rest follows,
  -- and is not linked to it.
  it("frees nothing early where the kernel takes a group in parts", function()
    local output, status = helper.script([[
      local uring, core = require "uring", require "uring.core"
      local parted = {}
      for seed = 1, 40 do
        local ring = assert(uring.ring { entries = 8, driver = "fault", drain_timeout = 0.01,
          fault = { seed = seed, rate = 0.9 } })
        local r, w = core.pipe()
        local buffer = uring.buffer(4)
        local first = ring:prepare("nop", { link = true, skip_success = true })
        local read = ring:prepare("read", r, buffer, { link = true, skip_success = true })
        local last = ring:prepare("nop", { link = true, skip_success = true })
        local very_last = ring:prepare "nop"
        for _ = 1, 50 do
          if seed % 2 == 0 then ring:submit() else ring:enter() end
        end
        pcall(function() ring:prepare("timeout", 0.002):await() end)
        assert(read:status() == "submitted" and buffer:status() == "lent", "taken from the kernel")
        if last:status() == "done" or very_last:status() == "done" then
          parted[seed % 2] = true
        end
        uring.op.write(w, "data")
        pcall(function() ring:prepare("timeout", 0.002):await() end)
        ring:close()
        for _, o in ipairs { first, read, last, very_last } do
          assert(o:status() == "done")
        end
        uring.op.close(r)
        uring.op.close(w)
      end
      print(parted[0] and parted[1])
    ]], "timeout --foreground -k 1 30 env ASAN_OPTIONS=detect_leaks=0")
    assert.are.equal("true\n", output)
    assert.are.equal(0, status)
  end)

  -- Groups at random.
  describe("in random groups", function()
    local seed = tonumber(os.getenv "URING_SEED") or 20250301
    local random = math.random
    local ring, fd, r, w, path

    before_each(function()
      math.randomseed(seed)
      path = helper.tmpname(("x"):rep(64))
      ring = uring.ring { entries = 8 }
      ring:register_files(8)
      fd = assert(op.openat(nil, path, const.O_RDWR))
      r, w = core.pipe()
    end)

    after_each(function()
      ring:close()
      for _, each in ipairs { fd, r, w } do
        op.close(each)
      end
    end)

    local steady = {
      function() return "nop" end;
      function() return "nop" end;
      function() return "nop" end;
      function() return "read", fd, uring.buffer(16), 16, 0 end;
      function() return "read", fd, uring.buffer(128), 128, 0 end; -- is short
      function() return "read", NONE, uring.buffer(4), 4, 0 end;
      function() return "write", fd, "hello", 5, 0 end;
      function() return "timeout", 0.0003 end;
      function() return "openat", nil, path, 0, 0, { direct = 3 } end;
      function() return "openat", nil, "/nonexistent/x", 0, 0, { direct = 3 } end;
      function() return "mkdirat", nil, "/nonexistent/x", 0 end;
      function() return "close", 7, { fixed_file = true } end;
    }
    local waiting = {
      function() return "read", r, uring.buffer(8), 8 end;
      function() return "read", r, uring.buffer(8), 8 end;
      function() return "poll_add", r, const.POLLIN end;
      function() return "recv_zc", 0, 7 end;
      function() return "openat", nil, path, 0, 0, { direct = true } end;
      function() return "link_timeout", 0.001 end;
    }

    local function prepare(call, options)
      local n = call.n
      if type(call[n]) ~= "table" then
        n = n + 1
        call[n] = {}
      end
      for name, value in pairs(options) do
        call[n][name] = value
      end
      return ring:prepare(table.unpack(call, 1, n))
    end

    local function links(i, n)
      local is_hard = random() < 0.25
      return { link = i < n and not is_hard, hardlink = i < n and is_hard, async = random() < 0.15 }
    end

    it("comes to what it would come to without", function()
      for round = 1, helper.times(500) do
        local n = random(7)
        local program = {}
        for i = 1, n do
          program[i] = { steady[random(#steady)], links(i, n), random() < 0.8 }
        end
        local function run(skip)
          local ops = {}
          for i, each in ipairs(program) do
            each[2].skip_success = skip and each[3]
            ops[i] = prepare(table.pack(each[1]()), each[2])
          end
          local got = results(table.unpack(ops))
          for i, result in ipairs(got) do
            got[i] = type(result) == "number" and "success" or result
          end
          return got
        end
        assert.are.same(run(false), run(true), ("round %d, seed %d"):format(round, seed))
      end
      assert_quiet(ring)
    end)

    local function some_group(ops)
      local n, first = random(6), #ops + 1
      local by_hand = random() < 0.2
      for i = 1, n do
        local kinds = random() < 0.5 and steady or waiting
        local call = table.pack(kinds[random(#kinds)]())
        if i == 1 and call[1] == "link_timeout" then
          call = { n = 1, "nop" }
        end
        local options = links(i, by_hand and i or n)
        options.skip_success = random() < 0.7
        options.drain = random() < 0.05
        ops[#ops + 1] = prepare(call, options)
      end
      if by_hand and n > 1 then
        local group = table.move(ops, first, #ops, 1, {})
        group.hard = random() < 0.3
        ring:link(group)
      end
    end

    it("ends, whatever is cancelled and dropped", function()
      for round = 1, helper.times(300) do
        local ops = {}
        for _ = 1, random(4) do
          some_group(ops)
          if random() < 0.3 then ring:submit() end
          if random() < 0.2 then ops[random(#ops)]:cancel() end
        end
        ring:submit()
        for _ = 1, random(0, 3) do
          ops[random(#ops)]:cancel()
          if random() < 0.5 then ring:submit() end
        end
        if random() < 0.3 then
          for _ = 1, math.min(#ops, random(3)) do
            table.remove(ops, random(#ops))
          end
          collectgarbage()
        end
        if random() < 0.5 then op.write(w, "12345678") end
        uring.sleep(random() < 0.3 and 0.002 or 0)
        for _, o in ipairs(ops) do
          if o:status() ~= "done" then o:cancel() end
        end
        results(table.unpack(ops))
        helper.eventually(function()
          ring:prepare("nop"):await()
          return ring:stats().in_flight == 0
        end, ("round %d, seed %d"):format(round, seed))
        assert_quiet(ring)
      end
    end)
  end)
end)
