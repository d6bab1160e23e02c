-- Pools: any order of what can be done with them.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local shared = require "spec.support.pools"
local core = require "uring.core"
local uring = require "uring"

local const, op = uring.const, uring.op
local testkit = helper.testkit
local collect = helper.collect
local assert_quiet, text_of = shared.assert_quiet, shared.text_of

local seed = tonumber(os.getenv "URING_SEED") or 20260101

describe("random use of pools", function()
  after_each(opened.close)
  helper.watch(before_each, after_each)

  -- Pools, operations, Buffers, cancels, closes, in an order that the seed
  -- decides.  Every socket carries numbered text: what is received is the
  -- next of it, whoever receives.
  local function round(n)
    math.randomseed(n)
    local random = math.random
    local ring = uring.ring { entries = 1 << random(0, 4), cq_entries = 1 << random(1, 6) }
    local pools, ops, held, sockets = {}, {}, {}, {}
    local stream = text_of(100000)

    local function new_pool()
      pools[#pools + 1] = assert(ring:pool {
        buffers = random(5), size = random(20), incremental = random(3) == 1,
      })
    end

    local function new_socket()
      local a, b = core.socketpair()
      sockets[#sockets + 1] = { a = a, b = b, sent = 0, received = 0, busy = false }
    end

    -- What came: text, a Buffer or a table of Buffers.
    local function take(socket, size, x)
      local text = x
      if type(x) == "userdata" then
        text = x:get()
        held[#held + 1] = x
      elseif type(x) == "table" then
        local parts = {}
        for i, one in ipairs(x) do
          parts[i] = one:get()
          held[#held + 1] = one
        end
        text = table.concat(parts)
      end
      assert(#text == size, "a length is wrong")
      assert(stream:sub(socket.received + 1, socket.received + size) == text, "bytes are lost, or out of order")
      socket.received = socket.received + size
    end

    local function drop_op(i, socket)
      table.remove(ops, i)
      socket.dead = true -- nobody knows what it still received
    end

    local actions = {
      function() -- an operation
        local socket = sockets[random(#sockets)]
        local p = pools[random(#pools)]
        if not socket or not p or socket.busy or socket.dead then
          return
        end
        local incremental = p:stats().incremental
        local options = { multishot = random(2) == 1, copy = random(3) == 1 }
        options.bundle = not incremental and random(3) == 1 or nil
        options.drain = random(12) == 1 or nil
        local one = ring:prepare("recv", socket.a, p, options)
        socket.busy = true
        ops[#ops + 1] = { op = one, socket = socket, pool = p, multishot = options.multishot }
      end,
      function() -- something to receive
        local socket = sockets[random(#sockets)]
        if socket and socket.sent < 90000 and not socket.dead then
          local size = random(60)
          local sent = op.send(socket.b, stream:sub(socket.sent + 1, socket.sent + size), nil, const.MSG_DONTWAIT)
          socket.sent = socket.sent + (sent or 0)
        end
      end,
      function() -- a turn
        ring:submit()
        ring:step(0)
      end,
      function() -- a result
        for i, one in ipairs(ops) do
          local ready = one.op:status() == "done"
          if ready then
            table.remove(ops, i)
            one.socket.busy = false
            repeat
              local size, x = one.op:await()
              if size and size > 0 and x then
                take(one.socket, size, x)
              end
            until not (one.multishot and size and size > 0 and x)
            return
          end
        end
      end,
      function() -- the next of a multishot operation that is there, or comes
        local i = #ops > 0 and random(#ops)
        local one = ops[i]
        ring:step(0)
        if one and one.multishot and one.socket.sent > one.socket.received and #held == 0
          and one.pool:stats().provided > 0 and ring:stats().backlog == 0 then
          local size, x = one.op:await()
          if size and size > 0 then
            take(one.socket, size, x)
          else
            table.remove(ops, i)
            one.socket.busy = false
          end
        end
      end,
      function() -- a Buffer goes back
        if #held > 0 then
          table.remove(held, random(#held)):close()
        end
      end,
      function() -- or is forgotten
        if #held > 0 then
          table.remove(held, random(#held))
        end
      end,
      function() -- cancel
        if #ops > 0 then
          ops[random(#ops)].op:cancel()
        end
      end,
      function() -- drop
        if #ops > 0 and random(3) == 1 then
          local i = random(#ops)
          drop_op(i, ops[i].socket)
        end
      end,
      function() -- a pool is closed
        if #pools > 0 and random(6) == 1 then
          table.remove(pools, random(#pools)):close()
        end
      end,
      function() -- or forgotten
        if #pools > 0 and random(10) == 1 then
          table.remove(pools, random(#pools))
        end
      end,
      function()
        if #pools < 4 then
          new_pool()
        end
      end,
      function()
        if #sockets < 8 then
          new_socket()
        end
      end,
      function()
        if random(10) == 1 then
          collectgarbage()
        end
      end,
    }

    for _ = 1, random(3) do
      new_pool()
      new_socket()
    end
    for _ = 1, 300 do
      actions[random(#actions)]()
      for _, p in ipairs(pools) do
        local s = p:stats()
        assert(s.provided + s.out == s.buffers, "a buffer is nowhere")
      end
    end
    local how = random(3)
    if how == 1 then -- everything ends well
      held = {}
      for _, one in ipairs(ops) do
        one.op:cancel()
      end
      for _, one in ipairs(ops) do
        repeat
          local size, x = one.op:await()
          if size and size > 0 and x then
            take(one.socket, size, x)
          end
        until not (one.multishot and size and size > 0 and x)
      end
      ops, held = {}, {}
      collect()
      local deadline = uring.now() + 2
      while ring:stats().in_flight > 0 and uring.now() < deadline do
        ring:step(0.01)
      end
      for _, p in ipairs(pools) do
        assert_quiet(p)
      end
      ring:close()
    elseif how == 2 then
      ring:close()
      ops, held = {}, {}
    end
    local s = ring:stats()
    assert(s.unknown == 0 and s.leaked == 0)
    if how < 3 then
      assert(s.bytes_lent == 0 and s.prepared == s.completed, "an operation is lost")
    end
    for _, socket in ipairs(sockets) do
      testkit.close(socket.a)
      testkit.close(socket.b)
    end
  end

  it("loses nothing", function()
    for n = seed, seed + helper.times(300) do
      local ok, err = pcall(round, n)
      collect()
      if not ok then
        error(("seed %d: %s"):format(n, tostring(err)), 0)
      end
    end
  end)
end)
