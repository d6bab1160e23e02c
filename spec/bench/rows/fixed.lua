--- fixed: random 4 KB reads of a file in the page cache, 128 in flight, of a registered file into registered Buffers,
-- beside the same with neither registered; then with as many Buffers registered as a ring takes.

local DEPTH, READS, MIB, MANY = 128, 8e5, 256, 16384

return function(h)
  local reads = h.scaled(READS)
  local path

  local function ours(...)
    local how = { ... }
    return function() return h.run(h.script("randread_uring", path, reads, DEPTH, table.unpack(how)), 1) end
  end

  return {
    title = "random 4 KB reads, registered file and Buffers, depth 128",
    unit = "read",
    setup = function() path = h.cached_file(MIB) end,
    teardown = function() os.remove(path) end,
    contenders = {
      { name = "registered", measure = ours "fixed" },
      { name = "plain", measure = ours() },
      { name = "of 16384", measure = ours("fixed", MANY) },
    },
    budgets = { { peer = "plain", figure = "cpu", at_least = 1.0 } },
  }
end
