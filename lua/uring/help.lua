--- `help` at the prompt: what the documentation says of a value or a name.

local doc = require "uring.doc"

local M = {}

local WIDTH = 96

-- One line as several, the others indented.
local function fold(text, indent)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    if line ~= "" and utf8.len(line .. " " .. word) > WIDTH - #indent then
      lines[#lines + 1] = line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. indent)
end

local function labelled(lines, label, list)
  for _, item in ipairs(list) do
    local name = item.name and item.name .. (item.optional and " (optional)" or "") or ""
    local parts = { item.type and "(" .. item.type .. ")" or "", name, item.text }
    lines[#lines + 1] = ("  %-8s%s"):format(label, fold(table.concat(parts, " "), "          "))
  end
end

local function describe(item)
  local entry = item.entry
  if not (entry and entry.doc) then
    return doc.signature(item) .. "\n  (not documented)"
  end
  local lines = { doc.signature(item) }
  lines[#lines + 1] = "  " .. entry.doc.text:gsub("\n", "\n  ")
  labelled(lines, "takes", entry.doc.params)
  labelled(lines, "returns", entry.doc.returns)
  labelled(lines, "raises", entry.doc.raises)
  return table.concat(lines, "\n")
end

local function gist(item)
  local entry = item.entry
  return ("  %-34s %s"):format(doc.signature(item), entry and entry.doc and doc.gist(entry.doc.text) or "")
end

local function gists(items, prefix)
  local lines = {}
  for _, item in ipairs(items) do
    if item.name:sub(1, #prefix) == prefix and not item.name:sub(#prefix + 1):find "[.:]" then
      lines[#lines + 1] = gist(item)
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

local OPERATION = [[
An operation: prepares it and awaits, without a handle. It takes what liburing's io_uring_prep_%s takes, without the
SQE; a Buffer or a string is in the place of pointer and length. A table of options may come last.
Returns an integer, 0 or more, and what the operation adds; nil, message, errno.]]

local function operation_name(value, uring)
  for name, fn in pairs(uring.op) do
    if rawequal(fn, value) then
      return name
    end
  end
end

-- By name: "uring.connect", "connect", "Task:await", "task:await", "task".
local function by_name(items, name, uring)
  local wanted = name:lower()
  for _, item in ipairs(items) do
    local lower = item.name:lower()
    if lower == wanted or lower == "uring." .. wanted then
      return describe(item)
    end
  end
  local operation = name:match "^u?r?i?n?g?%.?op%.([%w_]+)$" or name
  if pcall(function() return uring.op[operation] end) then -- one that is none raises
    return "uring.op." .. operation .. "\n" .. OPERATION:format(operation)
  end
  return gists(items, name == "uring" and "uring." or name:sub(1, 1):upper() .. name:sub(2) .. ":")
    or gists(items, name .. ".") or gists(items, "uring." .. name .. ".")
end

local function by_value(items, value, uring)
  for _, item in ipairs(items) do
    if item.value and rawequal(item.value, value) then
      return describe(item)
    end
  end
  local operation = type(value) == "function" and operation_name(value, uring)
  if operation then
    return "uring.op." .. operation .. "\n" .. OPERATION:format(operation)
  end
  local info = type(value) == "function" and debug.getinfo(value, "S")
  if info and info.what ~= "C" then
    local name = "function"
    for _, item in ipairs(items) do
      if item.path == info.source:sub(2) and item.entry.line == info.linedefined then
        name = item.name
      end
    end
    local entry = doc.find(name, value)
    return entry and describe { name = name == "function" and entry.name or name, entry = entry }
  end
end

-- A table or an object: what can be called of it.
local function by_kind(items, value, uring)
  if rawequal(value, uring) then
    return gists(items, "uring.")
  end
  for name, member in pairs(uring) do
    if rawequal(member, value) and type(value) == "table" then
      return gists(items, "uring." .. name .. ".")
    end
  end
  local meta = debug.getmetatable(value)
  local type_name = type(meta) == "table" and rawget(meta, "__name")
  if type(type_name) == "string" then
    local class = type_name:gsub("^uring%.", ""):gsub("^%a", string.upper):gsub("_(%a)", string.upper)
    return gists(items, class .. ":")
  end
end

--- What to say of a value or a name.
-- @param what a function, an object, a table of the module, or the name of one
-- @tab uring the module
-- @treturn string
function M.text(what, uring)
  if what == nil then
    return "help(uring) lists what there is, help(uring.connect) and help \"Task:await\" tell more; "
      .. ":help is about the prompt"
  end
  local items = doc.public(uring)
  local text
  if type(what) == "string" then
    text = by_name(items, what, uring)
  else
    text = by_value(items, what, uring) or by_kind(items, what, uring)
  end
  return text or "nothing is documented of " .. (type(what) == "string" and what or require "uring.dump"(what))
end

return M
