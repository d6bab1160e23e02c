-- lines, slurp: reads the file PATH, line by line or as a whole, with stock io or with ours.
--   lua5.4 file_read.lua PATH HOW WHOSE      prints: ops=... (MiB) wall=... cpu=...
-- HOW: "lines" or "a"; WHOSE: "io", "uring" (outside of tasks) or "task".
local path, how, whose = arg[1], arg[2], arg[3]
local uring = require "uring"

local function read(open)
  local file <close> = assert(open(path))
  if how == "a" then return #file:read "a" end
  local bytes = 0
  for line in file:lines() do bytes = bytes + #line + 1 end
  return bytes
end

local wall, cpu = uring.now(), os.clock()
local bytes
if whose == "io" then
  bytes = read(io.open)
elseif whose == "task" then
  bytes = uring.run(read, uring.open)
else
  bytes = read(uring.open)
end
print(("ops=%f wall=%.6f cpu=%.6f"):format(bytes / 1048576, uring.now() - wall, os.clock() - cpu))
