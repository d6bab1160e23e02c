-- puts: writes short strings, one a call, with stock io or with ours.
--   lua5.4 file_write.lua CALLS WHOSE      prints: ops=... wall=... cpu=...
-- WHOSE: "io", "uring" (outside of tasks) or "task".
local calls, whose = math.tointeger(arg[1]), arg[2]
local uring = require "uring"
local io = whose == "io" and io or uring.io

local path = os.tmpname()

local function write()
  local file <close> = assert(io.open(path, "w"))
  for _ = 1, calls do file:write "a short line\n" end
end

local wall, cpu = uring.now(), os.clock()
if whose == "task" then
  uring.run(write)
else
  write()
end
print(("ops=%d wall=%.6f cpu=%.6f"):format(calls, uring.now() - wall, os.clock() - cpu))
os.remove(path)
