-- all, race, map and every.

local helper = require "spec.support.helper"
local uring = require "uring"

local function pack(...)
  return table.pack(...)
end

-- A function that sleeps, notes that it was ended, and returns.
local function after(seconds, list, ...)
  local results = pack(...)
  return function()
    local _guard <close> = setmetatable({}, { __close = function(_, err)
      if err then
        list[#list + 1] = err
      end
    end })
    uring.sleep(seconds)
    return table.unpack(results, 1, results.n)
  end
end

local function failing(seconds, err)
  return function()
    uring.sleep(seconds)
    error(err, 0)
  end
end

describe("all", function()
  helper.watch(before_each, after_each)

  it("gives the first result of each, in order", function()
    local cut = {}
    local list = { after(0.004, cut, "a", "more"), after(0, cut), after(0.002, cut, false), after(0, cut, "d") }
    local expected = { n = 4, "a", nil, false, "d" }
    assert.are.same(expected, uring.all(list))
    uring.run(function() assert.are.same(expected, uring.all(list)) end)
    assert.are.same({}, cut)
  end)

  it("runs them at the same time", function()
    local n, began = 200, uring.now()
    local list = {}
    for i = 1, n do
      list[i] = function() uring.sleep(0.02) return i end
    end
    local results = uring.all(list)
    assert.are.equal(n, results.n)
    assert.are.equal(n, results[n])
    assert.is_true(uring.now() - began < n * 0.02 / 2)
  end)

  it("of nothing is nothing", function()
    assert.are.same({ n = 0 }, uring.all {})
    uring.run(function() assert.are.same({ n = 0 }, uring.all {}) end)
  end)

  it("cancels the others at the first failure and rethrows it", function()
    local cut = {}
    uring.run(function()
      for _, err in ipairs { "text", { "table" } } do
        local ok, got = pcall(uring.all, { after(60, cut), failing(0.002, err), after(60, cut), failing(0.05, "late") })
        assert.is_false(ok)
        assert.are.equal(err, got)
      end
    end)
    assert.are.same({ uring.cancelled, uring.cancelled, uring.cancelled, uring.cancelled }, cut)
  end)

  it("waits for tasks, and does not cancel them", function()
    uring.run(function()
      local task = uring.spawn(function() uring.sleep(0.01) return "task" end)
      assert.is_false(pcall(uring.all, { task, failing(0.001, "x") }))
      assert.are.equal("waiting", task:status())
      assert.are.same({ n = 2, "task", "fn" }, uring.all { task, function() return "fn" end })
      assert.are.same({ n = 1, "task" }, uring.all { task })
    end)
  end)

  it("rethrows what a task failed with, which then is nobody else's", function()
    uring.run(function()
      local task = uring.spawn(failing(0.002, "of the task"))
      local ok, err = pcall(uring.all, { function() uring.sleep(60) end, task })
      assert.is_false(ok)
      assert.are.equal("of the task", err)
    end)
  end)

  it("is cancelled with its caller", function()
    local cut = {}
    uring.run(function()
      local task = uring.spawn(uring.all, { after(60, cut), after(60, cut) })
      uring.sleep(0.002)
      task:cancel()
      assert.is_false(pcall(task.await, task))
      assert.are.equal("cancelled", task:status())
    end)
    assert.are.equal(2, #cut)
  end)

  it("checks its list before it starts anything", function()
    local ran = false
    local function runs() ran = true end
    for _, case in ipairs {
      { nil, "bad argument #1 to 'all' (table expected, got nil)" };
      { { runs, 5 }, "bad argument #1 to 'all' (function or task expected at [2], got number)" };
      { { n = 2, runs }, "bad argument #1 to 'all' (function or task expected at [2], got nil)" };
      { { uring.buffer(1) }, "bad argument #1 to 'all' (function or task expected at [1], got userdata)" };
    } do
      local message = helper.error_of(uring.all, case[1])
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
    uring.sleep(0)
    assert.is_false(ran)
  end)
end)

describe("race", function()
  helper.watch(before_each, after_each)

  it("gives the results of the first, cancels the others and waits for them", function()
    local cut = {}
    local function slow_end()
      local _guard <close> = setmetatable({}, { __close = function()
        uring.shield(uring.sleep, 0.005)
        cut[#cut + 1] = "slow end"
      end })
      uring.sleep(60)
    end
    assert.are.same({ n = 3, nil, "first", nil },
      pack(uring.race { after(60, cut), after(0.003, cut, nil, "first", nil), slow_end }))
    assert.are.equal(2, #cut)
    uring.run(function()
      assert.are.same({ n = 0 }, pack(uring.race { after(60, cut), function() end }))
    end)
  end)

  it("rethrows what the first to end failed with", function()
    local cut = {}
    uring.run(function()
      local ok, err = pcall(uring.race, { after(60, cut), failing(0.002, "lost"), after(60, cut) })
      assert.is_false(ok)
      assert.are.equal("lost", err)
    end)
    assert.are.equal(2, #cut)
  end)

  it("has one winner, where several end in one turn", function()
    local function now(x) return function() return x end end
    for _ = 1, 10 do
      assert.are.equal(1, uring.race { now(1), now(2), now(3) })
    end
  end)

  it("is not lost by who is cancelled alone", function()
    assert.are.equal("won", uring.race {
      function() uring.current():cancel() uring.sleep(60) end;
      function() uring.sleep(0.003) return "won" end;
    })
    uring.run(function()
      local ok, err = pcall(uring.race, { function() uring.current():cancel() uring.sleep(60) end })
      assert.is_false(ok)
      assert.are.equal(uring.cancelled, err)
    end)
  end)

  it("tells on_error of those who fail after it was won", function()
    local told
    uring.on_error(function(err) told = err end)
    local result = uring.race {
      function()
        local _guard <close> = setmetatable({}, { __close = function() error("while losing", 0) end })
        uring.sleep(60)
      end;
      function() uring.yield() return "won" end;
    }
    uring.on_error(function(err) io.stderr:write(tostring(err), "\n") end)
    assert.are.equal("won", result)
    assert.are.equal("while losing", told)
  end)

  it("leaves tasks alone that were there before", function()
    uring.run(function()
      local task = uring.spawn(function() uring.sleep(0.01) return "later" end)
      assert.are.equal("now", uring.race { task, function() return "now" end })
      assert.are.equal("later", uring.race { task, function() uring.sleep(60) end })
    end)
  end)

  it("of nothing has no end, and is refused", function()
    local message = helper.error_of(uring.race, {})
    assert.is_truthy(message:find("bad argument #1 to 'race' (there is nothing to wait for)", 1, true), message)
  end)

  it("within a timeout loses to it", function()
    local cut = {}
    assert.are.equal("timeout", select(2, uring.timeout(0.003, uring.race, { after(60, cut), after(60, cut) })))
    assert.are.equal(2, #cut)
  end)
end)

describe("map", function()
  helper.watch(before_each, after_each)

  it("calls with item and index, and gives results in order", function()
    local function body(item, i)
      uring.sleep(0.001 * (6 - i))
      return item .. i, "dropped"
    end
    local expected = { n = 5, "a1", "b2", "c3", "d4", "e5" }
    for _, given in ipairs { {}, { limit = 1 }, { limit = 2 }, { limit = 5 }, { limit = 100 } } do
      assert.are.same(expected, uring.map({ "a", "b", "c", "d", "e" }, body, given))
    end
    assert.are.same({ n = 3, nil, true, nil }, uring.map({ n = 3, nil, 2, nil }, function(x) return x and true end))
    assert.are.same({ n = 0 }, uring.map({}, body))
  end)

  it("has at most `limit` under way, and as many", function()
    local under_way, most = 0, 0
    local list = {}
    for i = 1, 50 do list[i] = i end
    uring.map(list, function()
      under_way = under_way + 1
      most = math.max(most, under_way)
      uring.sleep(0.0005)
      under_way = under_way - 1
    end, { limit = 7 })
    assert.are.equal(7, most)
  end)

  it("stops at the first failure", function()
    local began, cut = 0, 0
    local list = {}
    for i = 1, 50 do list[i] = i end
    uring.run(function()
      local ok, err = pcall(uring.map, list, function(i)
        began = began + 1
        local _guard <close> = setmetatable({}, { __close = function(_, e)
          cut = cut + (e == uring.cancelled and 1 or 0)
        end })
        uring.sleep(i == 5 and 0.002 or i < 5 and 0.001 or 60)
        if i == 5 then error("five", 0) end
      end, { limit = 5 })
      assert.is_false(ok)
      assert.are.equal("five", err)
    end)
    assert.are.equal(9, began)
    assert.are.equal(4, cut)
  end)

  it("checks what it is given", function()
    local function f() end
    for _, case in ipairs {
      { nil, f, nil, "bad argument #1 to 'map' (table expected, got nil)" };
      { {}, 5, nil, "bad argument #2 to 'map' (function expected, got number)" };
      { {}, f, { limt = 3 }, "unknown option 'limt' of map" };
      { {}, f, { limit = "3" }, "option 'limit' of map: integer expected, got string" };
      { { 1 }, f, { limit = 0 }, "option 'limit' of map is 0, not 1 or more" };
    } do
      local message = helper.error_of(uring.map, case[1], case[2], case[3])
      assert.is_truthy(message:find(case[4], 1, true), message)
    end
  end)

  it("is cancelled with its caller", function()
    uring.run(function()
      local task = uring.spawn(uring.map, { 60, 60, 60 }, uring.sleep, { limit = 2 })
      uring.sleep(0.002)
      task:cancel()
      assert.is_false(pcall(task.await, task))
      assert.are.equal("cancelled", task:status())
    end)
  end)
end)

describe("every", function()
  helper.watch(before_each, after_each)

  it("ticks at multiples of its period from its start", function()
    local period = 0.01
    local began = uring.now()
    for i, missed in uring.every(period) do
      local at = uring.now() - began
      assert.is_true(at >= i * period - 1e-6, ("tick %d at %f"):format(i, at))
      assert.are.equal("integer", math.type(i))
      assert.are.equal("integer", math.type(missed))
      uring.sleep(period / 4) -- would add up, did it drift
      if i >= 10 then
        assert.is_true(at < 100 * period)
        break
      end
    end
  end)

  it("leaves out what was missed, and counts it", function()
    local period, last, total = 0.01, 0, 0
    for i, missed in uring.every(period) do
      assert.are.equal(i, last + missed + 1)
      last, total = i, total + missed
      if i >= 12 then
        break
      elseif i <= 3 then
        uring.sleep(period * 3.5)
      end
    end
    assert.is_true(total >= 2, total)
  end)

  it("lets others run, however late it is", function()
    local others = 0
    uring.run(function()
      local task = uring.spawn(function()
        while true do
          others = others + 1
          uring.yield()
        end
      end)
      for i in uring.every(1e-7) do
        if i > 1e4 then
          break
        end
      end
      task:cancel()
    end)
    assert.is_true(others > 0)
  end)

  it("can be cancelled", function()
    local ticks = 0
    assert.are.equal("timeout", select(2, uring.timeout(0.03, function()
      for _ in uring.every(0.002) do
        ticks = ticks + 1
      end
    end)))
    assert.is_true(ticks >= 1)
  end)

  it("wants a time that is more than nothing", function()
    for _, case in ipairs {
      { nil, "bad argument #1 to 'every' (number expected, got nil)" };
      { -1, "bad argument #1 to 'every' (seconds are negative)" };
      { 0, "bad argument #1 to 'every' (seconds are 0)" };
    } do
      local message = helper.error_of(uring.every, case[1])
      assert.is_truthy(message:find(case[2], 1, true), message)
    end
  end)
end)
