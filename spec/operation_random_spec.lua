-- Operations of small rings that are prepared, linked, drained, handed over by hand, cancelled and dropped in an order
-- that a seed chooses. All of them end, and nothing that they lent or yielded is left.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local core = require "uring.core"
local uring = require "uring"

local const, random = uring.const, math.random
local testkit = helper.testkit

describe("operations in any order", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  local function open()
    local backlogs = { 1, 2, 8, 64 }
    local options = { entries = 1 << random(0, 2), cq_entries = 1 << random(2, 4), backlog = backlogs[random(4)] }
    if random(3) == 1 then
      options.driver, options.fault = "fault", { seed = random(10000), rate = 0.5 }
    end
    return assert(uring.ring(options)), options.backlog
  end

  local function round(sockets)
    local ring, limit = open()
    local pool = ring:pool { buffers = random(3), size = random(8), incremental = random(3) == 1 }
    local live = {}

    local function cancel_all()
      for _, one in ipairs(live) do one.op:cancel() end
    end

    local function options()
      return {
        drain = random(8) == 1 or nil;
        eager = random(6) == 1 or nil;
        timeout = random(6) == 1 and random() / 1000 or nil;
      }
    end

    -- Who finds the queue full waits for what is in it, and some of that ends only if it is cancelled.
    local function prepare(name, ...)
      if ring:stats().backlog >= limit then
        cancel_all()
        collectgarbage() -- those that were dropped end, too
      end
      local one = { op = ring:prepare(name, ...), name = name }
      live[#live + 1] = one
      return one
    end

    local starts = {
      function(o) return prepare("nop", o) end;
      function(o) return prepare("timeout", random() / 2000, 0, 0, o) end;
      function(o)
        o.multishot = true
        return prepare("timeout", 0.0001 + random() / 5000, random(0, 3), 0, o)
      end;
      function(o, s) return prepare("poll_add", s[random(2)], random(2) == 1 and const.POLLIN or const.POLLOUT, o) end;
      function(o, s)
        local data = ("x"):rep(random(20))
        return prepare("send", s[2], random(2) == 1 and data or uring.buffer(data), nil, 0, o)
      end;
      function(o, s) return prepare("recv", s[1], uring.buffer(random(20)), nil, 0, o) end;
      function(o, s)
        o.multishot, o.copy = random(2) == 1 or nil, random(2) == 1 or nil
        return prepare("recv", s[1], pool, o)
      end;
      function(o) return prepare("socket", const.AF_UNIX, const.SOCK_STREAM, 0, nil, o) end;
    }

    local function start()
      local one = starts[random(#starts)](options(), sockets[random(#sockets)])
      return one.op
    end

    local function take(one)
      local n = one.op:await()
      if one.name == "socket" and n then testkit.close(n) end
      return n
    end

    local function finish(one)
      local _, _, many = core.progress(one.op)
      repeat local n = take(one) until not many or not n
    end

    local actions = {
      start, start;
      function()
        local group = { hard = random(3) == 1 }
        for i = 1, random(2, 4) do group[i] = start() end
        if random(4) == 1 then group[#group + 1] = prepare("link_timeout", random() / 1000).op end
        if random(5) == 1 then group[random(#group)]:cancel() end
        pcall(ring.link, ring, group)
      end;
      function()
        local link = random(2) == 1 and "link" or "hardlink"
        for _ = 1, random(3) do
          pcall(prepare, "nop", { [link] = true, drain = random(6) == 1 })
          if random(8) == 1 and #live > 0 then live[#live].op:cancel() end
        end
        prepare("nop")
      end;
      function() ring:submit() end;
      function() ring:step(0) end;
      function() ring:enter(random(0, 3)) end;
      function()
        ring:peek()
        ring:advance(random(3))
      end;
      function()
        if #live > 0 then live[random(#live)].op:cancel() end
      end;
      function()
        if #live > 0 then table.remove(live, random(#live)) end
      end;
      function()
        if random(4) == 1 then collectgarbage() end
      end;
      function() testkit.write(sockets[random(#sockets)][2], ("y"):rep(random(20))) end;
      function()
        local i = #live > 0 and random(#live)
        if i and live[i].op:status() == "done" then finish(table.remove(live, i)) end
      end;
    }
    for _ = 1, random(10, 80) do actions[random(#actions)]() end
    if random(2) == 1 then
      prepare("nop") -- the last of a group that is not complete
      cancel_all()
      collectgarbage() -- whose operations end, too
      local deadline = uring.now() + 2
      while ring:stats().prepared > ring:stats().completed and uring.now() < deadline do ring:step(0.01) end
      assert(ring:stats().prepared == ring:stats().completed, "an operation does not end")
    end
    ring:close()
    for _, one in ipairs(live) do finish(one) end
    local s = ring:stats()
    assert(s.prepared == s.completed and s.in_flight == 0 and s.bytes_lent == 0, "an operation is lost")
    assert(s.unknown == 0 and s.leaked == 0)
  end

  it("end, and leave nothing", function()
    local first = tonumber(os.getenv "URING_SEED") or 1
    for seed = first, first + helper.times(30) do
      math.randomseed(seed)
      local sockets = {}
      for i = 1, 3 do sockets[i] = { opened.socketpair() } end
      local ok, err = pcall(round, sockets)
      opened.close()
      collectgarbage()
      if not ok then error(("seed %d: %s"):format(seed, tostring(err)), 0) end
    end
  end)
end)
