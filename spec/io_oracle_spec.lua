-- Lua's own io is the oracle: random sequences of calls come to the same on
-- both, results, errors, where those were raised, and what is in the files.
--
-- URING_SEED="first count" has other sequences than the usual ones.

local helper = require "spec.support.helper"
local sequences = require "spec.support.io_sequences"
local uring = require "uring"

local FIRST, COUNT = (os.getenv "URING_SEED" or ""):match "^(%d+)%s*(%d*)$"
FIRST, COUNT = tonumber(FIRST) or 1, tonumber(COUNT) or helper.times(800)
local SECONDS = 30
local SHRINKING = 5 -- seconds

-- What stock io gives, and what ours gives.
local function both(sequence)
  local ours = getmetatable(uring.io.stdin).__name
  return sequences.run(sequence, io, "FILE*"), sequences.run(sequence, uring.io, ours)
end

local function differ(sequence)
  return not sequences.same(both(sequence))
end

-- Fails with the shortest sequence that differs.
local function compare(sequence)
  if not differ(sequence) then
    return
  end
  local deadline = uring.now() + SHRINKING
  sequence = sequences.shrink(sequence, function(smaller)
    return uring.now() < deadline and differ(smaller)
  end)
  error(sequences.report(sequence, both(sequence)), 0)
end

local function compare_all(first)
  local deadline = uring.now() + SECONDS
  for seed = first, first + COUNT - 1 do
    compare(sequences.make(seed))
    if uring.now() > deadline then
      break
    end
  end
end

describe("io and uring.io", function()
  helper.watch(before_each, after_each)

  it("do the same", function()
    compare_all(FIRST)
  end)

  it("do the same in a task", function()
    uring.run(compare_all, FIRST + COUNT)
  end)

  it("would be seen to differ", function()
    local liar = setmetatable({}, { __index = io })
    function liar.read(...)
      return (io.read(...))
    end
    local seed = 0
    repeat
      seed = seed + 1
      local sequence = sequences.make(seed)
      local seen = sequences.run(sequence, io, "FILE*")
    until seed > 500 or not sequences.same(seen, sequences.run(sequence, liar, "FILE*"))
    assert.is_true(seed <= 500)
  end)
end)
