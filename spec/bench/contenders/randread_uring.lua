-- randread, ours: READS random aligned reads of 4 KB by DEPTH tasks, each with a Buffer of its own.
--   lua5.4 randread_uring.lua FILE READS DEPTH      prints: ops=... wall=... cpu=...
local uring = require "uring"

local path, total, depth = arg[1], tonumber(arg[2]), tonumber(arg[3])
local left, block = total, 4096
local random, read = math.random, uring.op.read

local function size_of(name)
  local f <close> = assert(io.open(name, "rb"))
  return f:seek "end"
end

local last = size_of(path) // block - 1

local function task(fd)
  local buf = uring.buffer(block)
  while left > 0 do
    left = left - 1
    local n, err = read(fd, buf, block, random(0, last) * block)
    if n ~= block then error(err or "a short read") end
  end
end

uring.run(function()
  local fd = assert(uring.op.openat(nil, path, uring.const.O_RDONLY, 0))
  local wall, cpu = uring.now(), os.clock()
  local tasks = {}
  for i = 1, depth do tasks[i] = uring.spawn(task, fd) end
  for _, t in ipairs(tasks) do t:await() end
  print(("ops=%d wall=%.6f cpu=%.6f"):format(total, uring.now() - wall, os.clock() - cpu))
  assert(uring.op.close(fd))
end)
