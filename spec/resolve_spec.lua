-- Names of hosts and services.

local helper = require "spec.support.helper"
local core = require "uring.core"
local uring = require "uring"

local errno = uring.errno

local function pack(...)
  return table.pack(...)
end

local function failure(text, number)
  return { n = 3, nil, text, number }
end

-- What /etc/hosts has for a name, IPv4 only.
local function hosts_of(name)
  local found = {}
  for line in io.lines "/etc/hosts" do
    local address, names = line:gsub("#.*", ""):match "^%s*([%d.]+)%s+(.*)$"
    if address and (" " .. names:gsub("%s+", " ") .. " "):find(" " .. name .. " ", 1, true) then
      found[address .. ":80"] = true
    end
  end
  return found
end

describe("resolve", function()
  helper.watch(before_each, after_each)

  it("knows the names of /etc/hosts, each address once", function()
    if not io.open "/etc/hosts" then
      return pending "there is no /etc/hosts"
    end
    local expected = hosts_of "localhost"
    assert.is_truthy(next(expected), "there is no localhost in /etc/hosts")
    local list = assert(uring.resolve("localhost", "80", { family = "inet" }))
    local got = {}
    for _, address in ipairs(list) do
      assert.is_nil(got[address], "twice")
      got[address] = true
    end
    assert.are.same(expected, got)
  end)

  it("takes services by name and by number", function()
    assert.are.same({ "127.0.0.1:80" }, uring.resolve("127.0.0.1", "http"))
    assert.are.same({ "127.0.0.1:80" }, uring.resolve("127.0.0.1", 80))
    assert.are.same({ "127.0.0.1:0" }, uring.resolve("127.0.0.1", "0"))
    assert.are.same({ "127.0.0.1:53" }, uring.resolve("127.0.0.1", "domain", { kind = "datagram" }))
    assert.are.same({ "[::1]:443" }, uring.resolve("::1", "https"))
  end)

  it("says that there is no such name, and no such service", function()
    assert.are.same(failure("name.invalid: Name or service not known", errno.ENOENT),
      pack(uring.resolve("name.invalid", 80, { timeout = 20 })))
    assert.are.same(failure("localhost: Service not known", errno.ENOENT),
      pack(uring.resolve("localhost", "no-such-service")))
    assert.are.same(failure(": Name or service not known", errno.ENOENT), pack(uring.resolve("", 80)))
    local long = ("x"):rep(2000)
    assert.are.same(failure(long .. ": Name or service not known", errno.ENOENT), pack(uring.resolve(long, 80)))
    assert.are.same(failure("a\0b: Name or service not known", errno.ENOENT), pack(uring.resolve("a\0b", 80)))
    local list, message, code = uring.resolve("127.0.0.1", 80, { family = "inet6" })
    assert.is_nil(list)
    assert.matches("^127%.0%.0%.1: ", message)
    assert.are.equal(errno.ENOENT, code)
  end)

  it("raises on wrong types and unknown options", function()
    for _, case in ipairs {
      { {}, "#1 to 'resolve' (string expected, got nil)" };
      { { 5, 80 }, "#1 to 'resolve' (string expected, got number)" };
      { { "localhost" }, "#2 to 'resolve' (string or integer expected, got nil)" };
      { { "localhost", 1.5 }, "#2 to 'resolve' (string or integer expected, got number)" };
      { { "localhost", 80, { timeot = 1 } }, "unknown option 'timeot' of resolve (did you mean 'timeout'?)" };
      { { "localhost", 80, { timeout = "1" } }, "option 'timeout' of resolve: number expected, got string" };
      { { "localhost", 80, { timeout = -1 } }, "option 'timeout' of resolve is negative" };
      { { "localhost", 80, { family = "ipx" } }, "option 'family' of resolve: 'inet' or 'inet6' expected, got 'ipx'" };
      { { "localhost", 80, { kind = "raw" } }, "'datagram' or 'stream' expected, got 'raw'" };
    } do
      local message = helper.error_of(uring.resolve, table.unpack(case[1], 1, 3))
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
  end)

  it("lets other tasks run meanwhile, and many may ask at once", function()
    uring.run(function()
      local tasks, ticks = {}, 0
      local clock = uring.spawn(function()
        while true do
          ticks = ticks + 1
          uring.sleep(0.001)
        end
      end)
      for i = 1, 40 do
        tasks[i] = uring.spawn(uring.resolve, "127.0.0.1", i)
      end
      for i, task in ipairs(tasks) do
        assert.are.same({ "127.0.0.1:" .. i }, (task:await()))
      end
      clock:cancel()
      assert.is_true(ticks > 0)
    end)
  end)

  it("is cancelled at once, before it has begun and while it runs", function()
    uring.run(function()
      for steps = 0, 3 do
        local task = uring.spawn(uring.resolve, "localhost", 80)
        for _ = 1, steps do
          uring.yield()
        end
        task:cancel()
        local ok, err = pcall(task.await, task)
        assert.is_true(ok or err == uring.cancelled)
      end
    end)
    helper.collect()
  end)

  it("gives up when its time is over, whatever the thread does", function()
    -- all threads are busy, so that the question waits for one
    local busy = helper.slow and 1.5 or 0.15
    uring.run(function()
      local naps = {}
      for i = 1, 16 do
        naps[i] = uring.spawn(core.nap, busy)
      end
      uring.sleep(0.01)
      local began = uring.now()
      assert.are.same(failure("localhost: timeout", errno.ETIMEDOUT),
        pack(uring.resolve("localhost", 80, { timeout = 0.02 })))
      assert.is_true(uring.now() - began < busy * 2 / 3)
      assert.are.same(failure("localhost:http: timeout", errno.ETIMEDOUT),
        pack(uring.connect { "localhost:http", timeout = 0.02 }))
      uring.all(naps)
    end)
  end)
end)
