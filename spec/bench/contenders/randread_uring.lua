-- randread, ours: READS random aligned reads of 4 KB by DEPTH tasks, each with a Buffer of its own; `fixed`: the file
-- and the Buffers are registered, COUNT Buffers in all, of which the last DEPTH are used.
--   lua5.4 randread_uring.lua FILE READS DEPTH [fixed [COUNT]]      prints: ops=... wall=... cpu=...
local uring = require "uring"

local path, total, depth, fixed = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4] == "fixed"
local count = tonumber(arg[5]) or depth
local left, block = total, 4096
local random, read, read_fixed = math.random, uring.op.read, uring.op.read_fixed
local registered = uring.options { fixed_file = true }

local function size_of(name)
  local f <close> = assert(io.open(name, "rb"))
  return f:seek "end"
end

local last = size_of(path) // block - 1

local function task(fd, buf)
  while left > 0 do
    left = left - 1
    local n, err = read(fd, buf, block, random(0, last) * block)
    if n ~= block then error(err or "a short read") end
  end
end

local function fixed_task(slot, buf)
  while left > 0 do
    left = left - 1
    local n, err = read_fixed(slot, buf, block, random(0, last) * block, registered)
    if n ~= block then error(err or "a short read") end
  end
end

uring.run(function()
  local fd = assert(uring.op.openat(nil, path, uring.const.O_RDONLY, 0))
  local slot, work, buffers = fd, task, {}
  for i = 1, fixed and count or depth do buffers[i] = uring.buffer(block) end
  if fixed then
    slot, work = 0, fixed_task
    assert(uring.register_files { fd })
    assert(uring.register_buffers(buffers))
  end
  local wall, cpu = uring.now(), os.clock()
  local tasks = {}
  for i = 1, depth do tasks[i] = uring.spawn(work, slot, buffers[#buffers - depth + i]) end
  for _, t in ipairs(tasks) do t:await() end
  print(("ops=%d wall=%.6f cpu=%.6f"):format(total, uring.now() - wall, os.clock() - cpu))
  assert(uring.op.close(fd))
end)
