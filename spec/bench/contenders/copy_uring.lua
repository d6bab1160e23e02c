-- Copies a tree: copy_uring.lua from to
local uring = require "uring"

uring.run(function()
  assert(uring.fs.copy(arg[1], arg[2], { recursive = true }))
end)
