--- Files and directories by path.
--
-- Nothing here blocks the loop: what the kernel has an operation for is done by the
-- ring, what it has none for (reading directories, attributes, copying) by threads.
-- Cancelled anywhere, descriptors are closed and files that are not finished
-- removed.
--
-- What fails returns nil, "path: reason", errno; of two paths nil, "from -> to: reason",
-- errno.  Times are seconds since 1970, sizes bytes.
-- @module uring.fs

local M = {}

for _, name in ipairs { "path", "walk", "copy", "remove", "contents", "watch" } do
  for key, value in pairs(require("uring.fs_" .. name)) do
    M[key] = value
  end
end

return M
