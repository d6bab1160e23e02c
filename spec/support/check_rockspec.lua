-- Compares the rockspec's list of modules with the files that are there: a
-- source left out of it works in place and fails once installed.
--   lua5.4 spec/support/check_rockspec.lua rockspec/uring-scm-1.rockspec

local path = assert(arg[1], "usage: check_rockspec.lua file.rockspec")
local spec = {}
assert(loadfile(path, "t", spec))()

local listed, wrong = {}, 0

local function complain(...)
  io.stderr:write(path, ": ", string.format(...), "\n")
  wrong = wrong + 1
end

for module, what in pairs(spec.build.modules) do
  if type(what) == "string" then
    listed[what] = true
    local name = what:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    if name ~= module then complain("%s is listed as %s", what, module) end
  else
    for _, source in ipairs(what.sources) do listed[source] = true end
  end
end

local there = {}
local find <close> = assert(io.popen "find c lua -name '*.c' -o -name '*.lua' | sort")
for file in find:lines() do
  there[file] = true
  if not listed[file] then complain("%s is not listed", file) end
end

for file in pairs(listed) do
  if not there[file] then complain("%s is listed, but there is no such file", file) end
end

os.exit(wrong == 0, true)
