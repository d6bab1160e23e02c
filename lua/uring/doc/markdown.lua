--- The reference as one page of Markdown, from the documentation.

local doc = require "uring.doc"

local M = {}

local function add_list(lines, label, list)
  for _, item in ipairs(list) do
    local name = item.name and (" `%s`%s"):format(item.name, item.optional and " (optional)" or "") or ""
    local type_name = item.type and (" *%s*"):format(item.type) or ""
    local text = item.text ~= "" and (item.name and ": " or " ") .. item.text or ""
    lines[#lines + 1] = ("- %s%s%s%s"):format(label, name, type_name, text)
  end
end

local function add(lines, item)
  local entry = item.entry
  lines[#lines + 1] = ("### `%s`\n"):format(doc.signature(item))
  if not (entry and entry.doc) then
    return
  end
  lines[#lines + 1] = entry.doc.text .. "\n"
  local before = #lines
  add_list(lines, "takes", entry.doc.params)
  add_list(lines, "returns", entry.doc.returns)
  add_list(lines, "raises", entry.doc.raises)
  if #lines > before then
    lines[#lines + 1] = ""
  end
end

local function group_of(name)
  return name:match "^(%u%w*):" or name:match "^(uring%.[%w_]+)%." or "uring"
end

-- What a section says before its functions: of a class its own comment.
local function introduction(group)
  for _, entry in ipairs(doc.of_module "uring.objects") do
    if entry.owner == "type" and entry.name == group then
      return entry.doc.text .. "\n"
    end
  end
  return nil
end

--- The page.
-- @tab uring the module
-- @treturn string
function M.text(uring)
  local lines = { "# uring: reference\n", "Misuse raises. An operation that fails returns nil, \"subject: reason\", "
    .. "errno. Times are seconds.\n" }
  local groups, order = {}, {}
  for _, item in ipairs(doc.public(uring)) do
    local group = group_of(item.name)
    if not groups[group] then
      groups[group] = {}
      order[#order + 1] = group
    end
    table.insert(groups[group], item)
  end
  for _, group in ipairs(order) do
    lines[#lines + 1] = ("## %s\n"):format(group)
    lines[#lines + 1] = introduction(group)
    for _, item in ipairs(groups[group]) do
      add(lines, item)
    end
  end
  return table.concat(lines, "\n")
end

return M
