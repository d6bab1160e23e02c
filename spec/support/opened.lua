--- What a spec has opened and closes before the books are checked.

local uring = require "uring"

local M = {}

local objects = {}

--- Keeps an object that has `close`.
function M.keep(object)
  objects[#objects + 1] = object
  return object
end

--- Closes everything, the newest first.
function M.close()
  for i = #objects, 1, -1 do
    objects[i]:close()
  end
  objects = {}
end

-- The descriptors of two streams, which are kept.
local function fds(one, other)
  return M.keep(one):fd(), M.keep(other):fd()
end

--- The two descriptors of a pipe.
function M.pipe()
  return fds(uring.pipe())
end

--- The two descriptors of a pair of sockets.
function M.socketpair()
  return fds(uring.socketpair())
end

--- A listening socket: its descriptor and its address.
function M.listen()
  local listener = M.keep(uring.listen "127.0.0.1:0")
  return listener:fd(), listener:address()
end

--- A ring of its own.
function M.ring(options)
  return M.keep(uring.ring(options or { entries = 8 }))
end

return M
