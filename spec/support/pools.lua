--- What the specs of pools share.

local helper = require "spec.support.helper"
local opened = require "spec.support.opened"
local core = require "uring.core"
local uring = require "uring"
local assert = require "luassert"

local const, op = uring.const, uring.op
local testkit = helper.testkit
local socketpair, keep = opened.socketpair, opened.keep

local M = {}

--- Two descriptors from the core, which are kept.
function M.kept(a, b)
  keep { close = function() testkit.close(a) end }
  keep { close = function() testkit.close(b) end }
  return a, b
end

function M.dgrams()
  return M.kept(core.socketpair(const.SOCK_DGRAM))
end

--- A pool, of the default ring or another, which is kept.
function M.pool(options, ring)
  return keep(assert(ring and ring:pool(options) or uring.pool(options)))
end

function M.counts(p)
  local s = p:stats()
  return { provided = s.provided, out = s.out }
end

--- So many buffers are with the program, and the kernel has the others.
function M.assert_out(n, p)
  assert.are.same({ provided = p:stats().buffers - n, out = n }, M.counts(p))
end

--- All of them have come back, or do when garbage is collected.
function M.assert_quiet(p)
  helper.collect()
  M.assert_out(0, p)
end

--- The loop turns for a moment.
function M.turn(ring)
  assert((ring or uring).prepare(ring or "timeout", ring and "timeout" or 0.002, ring and 0.002):await() == 0)
end

function M.send(fd, text)
  assert.are.equal(#text, op.send(fd, text))
end

--- A string of n bytes that is nowhere the same.
function M.text_of(n)
  local parts, size, i = {}, 0, 0
  while size < n do
    i = i + 1
    parts[i] = ("%d,"):format(i)
    size = size + #parts[i]
  end
  return table.concat(parts):sub(1, n)
end

--- A pool whose buffers the program has all, and the socket that has more.
function M.dry(options)
  options = options or {}
  options.buffers, options.size = options.buffers or 1, options.size or 4
  local p = M.pool(options)
  local a, b = socketpair()
  M.send(b, ("x"):rep(options.buffers * options.size))
  local held = {}
  for i = 1, options.buffers do
    local n, x = op.recv(a, p)
    assert(n == options.size)
    held[i] = x
  end
  M.assert_out(options.buffers, p)
  return p, a, b, held
end

function M.script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 60 env " .. (prefix or ""))
end

--- A chunk of its own prints `expected` and ends well.
function M.assert_script(expected, chunk)
  local output, status = M.script(([[
    local uring, core, testkit = require "uring", require "uring.core", require "testkit"
    local const, errno, op = uring.const, uring.errno, uring.op
    local function out(p) local s = p:stats() return s.provided .. "+" .. s.out end
  ]]) .. chunk)
  assert.are.equal(expected, output)
  assert.are.equal(0, status)
end

return M
