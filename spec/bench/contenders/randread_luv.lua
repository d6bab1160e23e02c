-- randread, luv: READS random aligned reads of 4 KB, DEPTH in flight on libuv's thread pool.
--   lua5.4 randread_luv.lua FILE READS DEPTH      prints: ops=... wall=... cpu=...
local uv = require "luv"

local path, left, depth = arg[1], tonumber(arg[2]), tonumber(arg[3])
local total, block = left, 4096
local fd = assert(uv.fs_open(path, "r", 0))
local last = uv.fs_fstat(fd).size // block - 1
local random, fs_read = math.random, uv.fs_read

local function start()
  if left == 0 then return end
  left = left - 1
  fs_read(fd, block, random(0, last) * block, function(err, data)
    if err or #data ~= block then error(err or "a short read") end
    start()
  end)
end

local wall, cpu = uv.hrtime(), os.clock()
for _ = 1, depth do start() end
uv.run()
print(("ops=%d wall=%.6f cpu=%.6f"):format(total, (uv.hrtime() - wall) * 1e-9, os.clock() - cpu))
uv.fs_close(fd)
