--- Type stubs for LuaLS, the language server, from the documentation.

local doc = require "uring.doc"

local M = {}

local basic = {
  string = true, integer = true, number = true, boolean = true, table = true, thread = true, any = true,
  ["function"] = true, ["nil"] = true,
}
local names = { int = "integer", bool = "boolean", func = "function", tab = "table" }

-- A type of the documentation as the language server has it.
local function type_of(classes, text)
  local parts = {}
  for part in (text or "any"):gmatch "[^|]+" do
    part = names[part] or part
    parts[#parts + 1] = basic[part] and part or classes[part] and "uring." .. part or "any"
  end
  return table.concat(parts, "|")
end

local function comment(lines, text)
  for line in (text .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = "---" .. line
  end
end

local function identifiers(args)
  local list = {}
  for name in (args or "..."):gsub("[=|][^,%]]*", ""):gmatch "[%w_%.]+" do
    list[#list + 1] = name
  end
  return list
end

-- The parameters, as the code has them or else as they are documented.
local function parameters(entry)
  if entry.args then
    return identifiers(entry.args)
  elseif entry.owner == "field" then
    return { "..." }
  end
  local list = {}
  for _, param in ipairs(entry.doc.params) do
    list[#list + 1] = param.name
  end
  return list
end

local function describe_params(lines, classes, entry, list)
  local known = {}
  for _, param in ipairs(entry.doc.params) do
    known[param.name] = param
  end
  for _, name in ipairs(list) do
    local param = known[name]
    if param then
      lines[#lines + 1] = ("---@param %s%s %s %s"):format(name, param.optional and name ~= "..." and "?" or "",
        type_of(classes, param.type), param.text)
    end
  end
end

local function describe_returns(lines, classes, returns)
  for _, result in ipairs(returns) do
    local fails = result.text:find "nil, message, errno"
    local optional = (fails or result.text:find "%f[%a]nil%f[%A]") and result.type and "?" or ""
    lines[#lines + 1] = ("---@return %s%s # %s"):format(type_of(classes, result.type), optional, result.text)
    if fails then
      lines[#lines + 1] = "---@return string? message"
      lines[#lines + 1] = "---@return integer? errno"
    end
  end
end

local function add_function(lines, classes, item)
  local entry = item.entry
  local list = parameters(entry)
  comment(lines, entry.doc.text)
  describe_params(lines, classes, entry, list)
  describe_returns(lines, classes, entry.doc.returns)
  lines[#lines + 1] = ("function %s(%s) end\n"):format(item.name, table.concat(list, ", "))
end

local function add_operations(lines, uring)
  local operations = {}
  for name in pairs(uring.op) do
    operations[#operations + 1] = name
  end
  table.sort(operations)
  lines[#lines + 1] = "---@class uring.op"
  for _, name in ipairs(operations) do
    lines[#lines + 1] = ("---@field %s fun(...): integer?, any, any"):format(name)
  end
  lines[#lines + 1] = "uring.op = {}\n"
end

-- Classes by name, and tables of functions within the module.
local function survey(items)
  local classes, tables = {}, {}
  for _, item in ipairs(items) do
    local class = item.name:match "^(%u%w*):"
    local inner = item.name:match "^(uring%.[%w_]+)%."
    if class then
      classes[class] = true
    elseif inner then
      tables[inner] = true
    end
  end
  return classes, tables
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

--- The stubs.
-- @tab uring the module
-- @treturn string
function M.text(uring)
  local items = doc.public(uring)
  local classes, tables = survey(items)
  local lines = { "---@meta uring", "", "---@class uring", "local uring = {}", "",
    "---@type table<string|integer, integer|string>", "uring.errno = {}", "---@type table<string, integer>",
    "uring.const = {}", "---@type table<any, any>", "uring.locals = {}", "---@type userdata",
    "uring.cancelled = nil", "" }
  add_operations(lines, uring)
  for _, name in ipairs(sorted(tables)) do
    lines[#lines + 1] = name .. " = {}\n"
  end
  for _, name in ipairs(sorted(classes)) do
    lines[#lines + 1] = ("---@class uring.%s\nlocal %s = {}\n"):format(name, name)
  end
  for _, item in ipairs(items) do
    if item.entry and item.entry.doc then
      add_function(lines, classes, item)
    end
  end
  lines[#lines + 1] = "return uring"
  return table.concat(lines, "\n") .. "\n"
end

return M
