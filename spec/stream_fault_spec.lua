-- Streams on a default ring whose every enter may fail, be interrupted or take
-- but a part.

local helper = require "spec.support.helper"

local workload = [[
  local core = require "uring.core"
  local seed, rate = %d, %g
  core.default_options { entries = 4, driver = "fault", fault = { seed = seed, rate = rate } }
  local uring = require "uring"
  math.randomseed(seed)

  local function text(n)
    local parts, size = {}, 0
    while size < n do
      parts[#parts + 1] = ("%%d\n"):format(math.random(1 << 40))
      size = size + #parts[#parts]
    end
    return table.concat(parts)
  end

  -- Reads all of it, in ways that the seed chooses; some reads are cancelled, or late.
  local function reader(r)
    local parts = {}
    while true do
      local dice = math.random(6)
      local part
      if dice == 1 then
        part = r:read "L"
      elseif dice == 2 then
        part = r:read(math.random(3000))
      elseif dice == 3 then
        part = r:read_some(math.random(9000))
      elseif dice == 4 then
        part = r:read_until "7"
      elseif dice == 5 then
        local why
        part, why = uring.timeout(math.random() / 2000, r.read, r, math.random(5000))
        if why == "timeout" then part = "" end
      else
        local buffer = uring.buffer(math.random(500))
        local n = assert(r:recv(buffer))
        part = n > 0 and buffer:get(1, n) or nil
      end
      if not part then break end
      parts[#parts + 1] = part
      if math.random(20) == 1 then collectgarbage() end
    end
    return table.concat(parts)
  end

  local function writer(w, data)
    local i = 1
    while i <= #data do
      local n = math.random(math.random(20000))
      local cut = math.random(n)
      assert(w:write(data:sub(i, i + cut - 1), data:sub(i + cut, i + n - 1)))
      i = i + n
      if math.random(5) == 1 then uring.yield() end
    end
    w:close()
  end

  local path = os.tmpname()
  uring.run(function()
    local tasks = {}
    for i, make in ipairs { uring.socketpair, function() local r, w = uring.pipe() return w, r end } do
      local w, r = make()
      local data = text(math.random(60000))
      if math.random(2) == 1 then w:setvbuf("full", math.random(5000)) end
      uring.spawn(writer, w, data)
      tasks[#tasks + 1] = uring.spawn(function()
        assert(reader(r) == data, "what arrived is not what was sent")
        r:close()
      end)
    end
    tasks[#tasks + 1] = uring.spawn(function()
      local data = text(math.random(100000))
      local file = assert(uring.open(path, "w+"))
      local i = 1
      while i <= #data do
        local n = math.random(9000)
        assert(file:write(data:sub(i, i + n - 1)))
        i = i + n
      end
      assert(file:seek "set" == 0)
      assert(reader(file) == data, "the file differs")
      assert(file:close())
    end)
    for _, task in ipairs(tasks) do task:await() end
  end)
  os.remove(path)
  local s = uring.stats()
  print(s.tasks, s.in_flight, s.backlog, s.bytes_lent, s.unknown)
]]

describe("streams", function()
  helper.watch(before_each, after_each)

  for _, rate in ipairs { 0, 0.3, 0.9 } do
    it(("lose nothing where %g of what is entered is disturbed"):format(rate), function()
      for seed = 1, helper.times(20) do
        local output, status = helper.script(workload:format(seed, rate), "timeout --foreground -k 1 60")
        assert.are.same({ "0\t0\t0\t0\t0\n", 0 }, { output, status }, "seed " .. seed)
      end
    end)
  end
end)
