-- Every order, up to a bound, in which a task that awaits an operation can be
-- run, handed over, completed, cancelled, forgotten and left, for operations of
-- several kinds.  After each step and at the end: everything ends, nothing stays
-- lent, no descriptor, task, timer or operation is lost, no data is, and success
-- wins.

local core = require "uring.core"
local helper = require "spec.support.helper"
local uring = require "uring"

local const, op = uring.const, uring.op
local fds = helper.testkit.fds

local STEPS = { "turn", "submit", "complete", "cancel", "expire", "leave", "collect" }
local ONCE = { complete = true, expire = true, leave = true, collect = true }
local LENGTH = helper.slow and 3 or 4

-- What completes the operations happens on a ring beside, so that it is one step
-- and no turn of the tasks' ring.
local beside
local function outside(name, ...)
  return beside:prepare(name, ...):await()
end

-- What is there to be read, without waiting.
local function left_in(fd, call)
  local buffer = uring.buffer(64)
  local n = call(fd, buffer)
  return n and buffer:get(1, n) or ""
end

-- Each kind: `begin` opens what it needs; then there are the call in the task,
-- `complete`, `lent` (is something of ours lent?), and `check(result, completed)`
-- at the end, whose result is that of the call, nil if the task was cancelled.
local kinds = {}

function kinds.read()
  local r, w = uring.pipe()
  local buffer = uring.buffer(4)
  return {
    name = "read", arguments = { r:fd(), buffer, 4 };
    complete = function() assert.are.equal(4, outside("write", w:fd(), "data")) end;
    lent = function() return buffer:status() == "lent" end;
    check = function(result, completed)
      w:close()
      local left = left_in(r:fd(), op.read)
      r:close()
      assert.are.equal(result and "data" or "\0\0\0\0", buffer:get())
      assert.are.equal(completed and not result and "data" or "", left)
    end;
  }
end

function kinds.nop()
  return {
    name = "nop", arguments = {};
    complete = function() end;
    check = function(result) assert.is_true(result == nil or result == 0) end;
  }
end

function kinds.timeout()
  return {
    name = "timeout", arguments = { 0.0002 };
    complete = function()
      local deadline = uring.now() + 0.0004
      repeat until uring.now() > deadline
    end;
    check = function() end;
  }
end

function kinds.accept()
  local listener = assert(uring.listen "127.0.0.1:0")
  local client
  return {
    name = "accept", arguments = { listener:fd() };
    complete = function()
      client = assert(outside("socket", const.AF_INET, const.SOCK_STREAM, 0))
      assert.are.equal(0, outside("connect", client, listener:address()))
    end;
    check = function(result, completed)
      if completed and not result then -- nobody has it: it is still there
        result = assert(op.accept(listener:fd()))
      end
      assert.are.equal(completed, result ~= nil)
      for _, fd in ipairs { client or result, result } do
        op.close(fd)
      end
      listener:close()
    end;
  }
end

function kinds.pooled()
  local a, z = uring.socketpair()
  local pool = uring.pool { buffers = 1, size = 8 }
  return {
    name = "recv", arguments = { a:fd(), pool };
    complete = function() assert.are.equal(4, outside("send", z:fd(), "data")) end;
    check = function(result, completed, data)
      if result then
        assert.are.equal("data", data:get())
        data = nil -- luacheck: ignore
        helper.collect()
      end
      z:close()
      assert.are.equal(completed and not result and "data" or "", left_in(a:fd(), op.recv))
      a:close()
      pool:close()
    end;
  }
end

-- The ways in which a task awaits, and how long their walks are.
local ways = {
  call = { length = LENGTH, await = function(kind)
    return op[kind.name](table.unpack(kind.arguments))
  end };
  handle = { length = LENGTH - 1, await = function(kind)
    return uring.prepare(kind.name, table.unpack(kind.arguments)):await()
  end };
}

-- All sequences of up to so many steps; some come once at most.
local function sequences(length)
  local list, sequence = {}, {}
  local function extend(n)
    list[#list + 1] = table.move(sequence, 1, n - 1, 1, {})
    if n > length then
      return
    end
    for _, step in ipairs(STEPS) do
      local again = false
      for i = 1, n - 1 do
        again = again or sequence[i] == step
      end
      if not (again and ONCE[step]) then
        sequence[n] = step
        extend(n + 1)
        sequence[n] = nil
      end
    end
  end
  extend(1)
  return list
end

-- One walk.  The main chunk takes the steps, so each is taken alone.
local function walk(begin, way, sequence)
  local kind = begin()
  local results
  local scope = core.scope()
  local state = { completed = false, left = false, cancels = false }
  local task = scope:spawn(function() results = table.pack(way(kind)) end)
  local watched = setmetatable({ task }, { __mode = "v" })
  local steps = {
    turn = function() uring.step(0) end;
    submit = function() uring.submit() end;
    complete = function()
      state.completed = true
      kind.complete()
    end;
    cancel = function()
      state.cancels = true
      if task then
        task:cancel()
      else
        scope:cancel()
      end
    end;
    expire = function()
      if not state.left then
        state.cancels = true
        scope:deadline(0)
      end
    end;
    leave = function()
      state.cancels = true
      scope:cancel()
      scope:join()
      assert.is_nil(scope:leave())
      state.left = true
    end;
    collect = function()
      task = nil
      collectgarbage()
    end;
  }
  local function invariants()
    local stats = uring.stats()
    local status = watched[1] and watched[1]:status()
    local live = status == "ready" or status == "running" or status == "waiting"
    assert.are.equal(live and 1 or 0, stats.tasks)
    if state.left or not live then
      assert.is_false(live)
      assert.are.equal(0, stats.bytes_lent)
    end
    if kind.lent then -- lent while the task waits for it, and only then
      assert.are.equal(status == "waiting", kind.lent())
    end
    if status == "cancelled" then
      assert.is_true(state.cancels)
    end
  end
  for _, step in ipairs(sequence) do
    steps[step]()
    invariants()
  end
  if state.completed and not state.left and not state.cancels then
    scope:join() -- it ends by itself
    invariants()
    assert.is_not_nil(results)
  end
  if not state.left then
    steps.leave()
    invariants()
  end
  assert.is_false(pcall(scope.spawn, scope, print))
  kind.check(results and results[1], state.completed, results and results[2])
end

describe("a task that awaits, in any order:", function()
  helper.watch(before_each, after_each)

  for name, begin in pairs(kinds) do
    for way_name, way in pairs(ways) do
      it(name .. " by " .. way_name, function()
        local before = fds()
        beside = uring.ring { entries = 4 }
        collectgarbage "generational"
        local _guard <close> = setmetatable({}, { __close = function() collectgarbage "incremental" end })
        for _, sequence in ipairs(sequences(way.length)) do
          local ok, err = pcall(walk, begin, way.await, sequence)
          assert.is_true(ok, table.concat(sequence, " ") .. ": " .. tostring(err))
        end
        beside:close()
        helper.eventually(function()
          helper.collect()
          return fds() == before
        end, "a descriptor was lost")
      end)
    end
  end
end)
