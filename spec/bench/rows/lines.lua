--- lines: a file of 200 MB in the page cache, line by line, beside stock io.

local MIB = 200

return function(h)
  local path
  local function script(whose)
    return function() return h.run(h.script("file_read", path, "lines", whose), 1) end
  end
  return {
    title = "lines of a 200 MB file",
    unit = "MiB",
    setup = function() path = h.cached_text(MIB) end,
    teardown = function() os.remove(path) end,
    contenders = {
      { name = "uring", measure = script "task" },
      { name = "io", measure = script "io" },
      { name = "no task", measure = script "uring" },
    },
    budgets = {
      { peer = "io", figure = "rate", at_least = 1.0 },
      { peer = "io", figure = "cpu", at_least = 1.0 },
    },
  }
end
