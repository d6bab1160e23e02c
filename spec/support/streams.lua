-- What the specs of streams share: pairs of every kind, and a task that may not hang.

local assert = require "luassert"
local helper = require "spec.support.helper"
local uring = require "uring"

local M = {}

--- Runs fn(…) as a task; a hang becomes a failure.
function M.run(fn, ...)
  return uring.run(function(...)
    local dog = uring.spawn(function()
      uring.sleep(helper.slow and 60 or 10)
      error("it hangs", 0)
    end)
    local results = table.pack(uring.run(fn, ...))
    dog:cancel()
    return table.unpack(results, 1, results.n)
  end, ...)
end

function M.tcp()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local client = assert(uring.connect(listener:address()))
  return client, assert(listener:accept())
end

--- Name → a function that makes the end to write to, and the end to read from.
M.kinds = {
  pipe = function()
    local r, w = assert(uring.pipe())
    return w, r
  end;
  socketpair = function() return assert(uring.socketpair()) end;
  TCP = M.tcp;
}

function M.close(...)
  for _, stream in ipairs { ... } do
    assert.is_true(stream:close())
  end
end

return M
