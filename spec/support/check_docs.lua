-- Fails on what is public and has no documentation, and on documentation of what
-- is not there.
--   lua5.4 spec/support/check_docs.lua

local uring = require "uring"
local doc = require "uring.doc"

local wrong, public = 0, {}

local function complain(...)
  io.stderr:write(string.format(...), "\n")
  wrong = wrong + 1
end

for _, item in ipairs(doc.public(uring)) do
  public[item.name] = true
  local text = item.entry and item.entry.doc and item.entry.doc.text
  if not text or text == "" then
    complain("%s is public and has no documentation (--- above it; what is in C: lua/uring/objects.lua)", item.name)
  end
end

local entries, path = doc.of_module "uring.objects"
for _, entry in ipairs(entries) do
  local short = entry.name and entry.name:match "^Ring:(.*)$"
  if entry.owner == "tag" and not public[entry.name] and not (short and public["uring." .. short]) then
    complain("%s:%d: there is no %s", path, entry.line, entry.name)
  end
end

os.exit(wrong == 0, true)
