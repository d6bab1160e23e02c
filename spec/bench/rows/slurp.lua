--- slurp: a file of 200 MB in the page cache, read as a whole, beside stock io.

local MIB = 200

return function(h)
  local path
  local function script(whose)
    return function() return h.run(h.script("file_read", path, "a", whose), 1) end
  end
  return {
    title = "a 200 MB file read by \"a\"",
    unit = "MiB",
    setup = function() path = h.cached_text(MIB) end,
    teardown = function() os.remove(path) end,
    contenders = {
      { name = "uring", measure = script "task" },
      { name = "io", measure = script "io" },
    },
    budgets = {
      { peer = "io", figure = "rate", at_least = 1.0 },
      { peer = "io", figure = "cpu", at_least = 1.0 },
    },
  }
end
