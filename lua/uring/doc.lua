--- Documentation, read from the sources' own: from the comments that begin with
-- three dashes.
--
-- `help` at the prompt reads them when it is asked; `make doc` and the check of
-- `make lint` by the same functions.  What is in Lua is found by the place where
-- a function is defined; what is in C by its name, which a tag in
-- `uring/objects.lua` or a field of a table gives.

local M = {}

--
-- One comment
--

-- Tags that say a type, and what LuaLS calls it.
local types = {
  string = "string", int = "integer", number = "number", bool = "boolean", func = "function", tab = "table",
}

local function paragraphs(lines)
  local text = table.concat(lines, "\n"):gsub("^%s+", ""):gsub("%s+$", "")
  return text
end

local function parse_param(kind, rest)
  local modifier, tail = rest:match "^%[([^%]]*)%]%s*(.*)$"
  rest = tail or rest
  local type_name = types[kind]
  if kind == "tparam" then
    type_name, rest = rest:match "^(%S+)%s*(.*)$"
  end
  local name, text = rest:match "^(%S+)%s*(.*)$"
  return { name = name or "?", type = type_name, text = text or "",
    optional = modifier ~= nil, default = modifier and modifier:match "^opt=\"?([^\"]*)\"?$" }
end

local function parse_return(kind, rest)
  local modifier, tail = rest:match "^%[([^%]]*)%]%s*(.*)$"
  rest = tail or rest
  if kind == "treturn" then
    local type_name, text = rest:match "^(%S+)%s*(.*)$"
    return { type = type_name, text = text or "", optional = modifier ~= nil }
  end
  return { text = rest, optional = modifier ~= nil }
end

local function add_tag(doc, tag, rest)
  if tag == "param" or tag == "tparam" or types[tag] then
    doc.params[#doc.params + 1] = parse_param(tag, rest)
  elseif tag == "return" or tag == "treturn" then
    doc.returns[#doc.returns + 1] = parse_return(tag, rest)
  elseif tag == "raise" then
    doc.raises[#doc.raises + 1] = { text = rest }
  else
    doc.tags[tag] = rest
  end
end

--- What a comment says.
-- @tab lines of the comment, without the dashes
-- @treturn table `text`, `params`, `returns`, `raises`, `tags`
function M.parse_comment(lines)
  local doc = { params = {}, returns = {}, raises = {}, tags = {} }
  local text, tag, rest = {}, nil, nil
  local function finish()
    if tag then
      add_tag(doc, tag, rest)
    end
  end
  for _, line in ipairs(lines) do
    local next_tag, next_rest = line:match "^%s*@(%a+)%s*(.*)$"
    if next_tag then
      finish()
      tag, rest = next_tag, next_rest
    elseif tag then
      rest = rest .. " " .. line:gsub("^%s+", "")
    else
      text[#text + 1] = line:gsub("^ ", "")
    end
  end
  finish()
  doc.text = paragraphs(text)
  return doc
end

--- The first sentence of a text.
function M.gist(text)
  local first = text:gsub("\n", " "):match "^(.-[.:])%s" or text:gsub("\n", " ")
  return (first:gsub(":$", "."))
end

--
-- One file
--

-- What a line of code defines: owner, name, arguments.
local function definition(line)
  local owner, separator, name, args = line:match "^function%s+([%w_]+)([.:])([%w_]+)%s*%(([^)]*)%)"
  if owner then
    return owner, name, args, separator
  end
  name, args = line:match "^local%s+function%s+([%w_]+)%s*%(([^)]*)%)"
  if name then
    return "local", name, args
  end
  owner, name, args = line:match "^([%w_]+)%.([%w_]+)%s*=%s*function%s*%(([^)]*)%)"
  if owner then
    return owner, name, args, "."
  end
  owner, name = line:match "^([%w_]+)%.([%w_]+)%s*="
  if owner then
    return owner, name, nil, "."
  end
  args = line:match "^return%s+function%s*%(([^)]*)%)"
  if args then
    return "module", nil, args
  end
  name = line:match "^%s+([%a_][%w_]*)%s*="
  if name then
    return "field", name
  end
end

-- What a comment lists: "- `read(...)`: one result a format", on several lines.
local function listed(lines)
  local found, current = {}, nil
  for _, line in ipairs(lines) do
    local name, args, rest = line:match "^%s*%- `([%w_]+)%(([^`]*)%)`%s*(.*)$"
    if name then
      current = { name = name, args = args, rest }
      found[#found + 1] = current
    elseif current and line:find "^%s%s+%S" then
      current[#current + 1] = (line:gsub("^%s+", ""))
    else
      current = nil
    end
  end
  return found
end

-- Of one of these: what it returns stands behind an arrow.
local function doc_of_listed(item)
  local text = table.concat(item, "\n")
  local result, rest = text:match "^→%s*(.-):%s(.*)$"
  rest = rest or text:gsub("^→%s*", ""):gsub("^:%s*", "")
  local doc = { text = rest, params = {}, returns = {}, raises = {}, tags = {} }
  if result then
    doc.returns[1] = { text = result:gsub("\n", " "), optional = false }
  end
  return doc
end

--- What the source of a module documents.
-- @string source
-- @treturn table a list of entries, in order: each `line`, `owner`, `name`, `args`,
--   and `doc`, nil where there is no comment.  Fields without a comment are left
--   out
function M.parse(source)
  local entries, comment, number = {}, nil, 0
  local function add(owner, name, args, doc)
    entries[#entries + 1] = { line = number, owner = owner, name = name, args = args, doc = doc }
  end
  local function flush()
    local doc = comment and M.parse_comment(comment)
    for _, item in ipairs(comment and listed(comment) or {}) do
      add("listed", item.name, item.args, doc_of_listed(item))
    end
    comment = nil
    return doc
  end
  for line in (source .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local start = line:match "^%s*%-%-%-(.*)$"
    local more = line:match "^%s*%-%-(.*)$"
    if start and not start:find "^%-" then
      comment = { start }
    elseif comment and more then
      comment[#comment + 1] = more
    else
      local doc = flush()
      local named = doc and doc.tags["function"]
      local owner, name, args = definition(line)
      if doc and doc.tags.type then
        add("type", doc.tags.type, nil, doc)
      elseif named and not owner then
        add("tag", named, nil, doc)
      elseif owner and (doc or owner ~= "field") then
        add(owner, name or named, args, doc)
      elseif doc then
        add("module", doc.tags.module, nil, doc)
      end
    end
  end
  return entries
end

--
-- All files
--

local files = {} -- path → entries

--- The entries of a file; none if it cannot be read.
function M.of_file(path)
  if not files[path] then
    local file <close> = io.open(path, "rb")
    files[path] = file and M.parse(file:read "a") or {}
  end
  return files[path]
end

--- The entries of a module, found as `require` finds it.
function M.of_module(name)
  local path = package.searchpath(name, package.path)
  return path and M.of_file(path) or {}, path
end

-- The entry of a Lua function: the one at the line where it is defined.
local function of_lua_function(info)
  for _, entry in ipairs(M.of_file(info.source:sub(2))) do
    if entry.line == info.linedefined then
      return entry
    end
  end
end

-- An entry by a name that a tag gives.
local function of_tag(name)
  for _, entry in ipairs(M.of_module "uring.objects") do
    if entry.name == name then
      return entry
    end
  end
end

-- "OperationLoop" → "operation_loop"
local function module_name(class)
  return (class:gsub("%f[%u]%u", function(c) return "_" .. c:lower() end):gsub("^_", ""))
end

-- A method that the comment of its class's module lists.
local function of_list(name)
  local class, method = name:match "^(%u%w*):(.*)$"
  for _, entry in ipairs(class and M.of_module("uring." .. module_name(class)) or {}) do
    if entry.owner == "listed" and entry.name == method then
      return entry
    end
  end
end

-- A function made by another: its name is in a tag, in one of the modules that
-- its table is made of.
local function of_part(name)
  local prefix, short = name:match "^(uring%.[%w_]+)%.([%w_]+)$"
  for module in pairs(prefix and package.loaded or {}) do
    if type(module) == "string" and module:sub(1, #prefix) == prefix then
      for _, entry in ipairs(M.of_module(module)) do
        if entry.owner == "tag" and entry.name == short then
          return entry
        end
      end
    end
  end
end

-- A field of the table that is the module.
local function of_field(name)
  for _, entry in ipairs(M.of_module "uring") do
    if entry.owner == "field" and entry.name == name and entry.doc then
      return entry
    end
  end
end

--- What is documented of something public.
-- @string name as `public` has it
-- @param value
-- @treturn table its entry; nil: nothing
function M.find(name, value)
  local info = type(value) == "function" and debug.getinfo(value, "S")
  if info and info.what ~= "C" then
    local entry = of_lua_function(info)
    return entry and entry.doc and entry or of_part(name) or entry
  end
  local short = name:match "^uring%.([%w_.]+)$"
  return of_tag(name) or of_list(name) or short and (of_field(short) or of_tag("Ring:" .. short))
end

--
-- What is public
--

local function sorted(t)
  local names = {}
  for name in pairs(t) do
    if type(name) == "string" and not name:find "^_" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

-- "uring.operation_loop" → "OperationLoop"
local function class_name(type_name)
  return (type_name:gsub("^uring%.", ""):gsub("%f[%a]%a", string.upper):gsub("_(%a)", string.upper))
end

-- Objects that the library keeps to itself.
local internal = {}
for name in ("child copy custom descriptor gathering job options reader server signal_watch sqe transfer")
  :gmatch "[%w_]+" do
  internal["uring." .. name] = true
end

-- Methods that it keeps to itself.
local internal_methods = {
  ["Scope:join"] = true, ["Scope:leave"] = true, ["Scope:race"] = true, ["Scope:winner"] = true,
  ["Scope:report_to"] = true,
}

-- Tables of values, not of functions to document one by one.
local values = { op = true, const = true, errno = true, locals = true }

local function add_functions(list, prefix, t)
  for _, name in ipairs(sorted(t)) do
    local value = t[name]
    if type(value) == "function" and not internal_methods[prefix .. name] then
      list[#list + 1] = { name = prefix .. name, value = value }
    elseif type(value) == "table" and prefix == "uring." and not values[name] then
      add_functions(list, prefix .. name .. ".", value)
    end
  end
end

-- Objects made in C, by their metatables.
local function add_core_classes(list)
  local registry = debug.getregistry()
  for _, type_name in ipairs(sorted(registry)) do
    local meta = registry[type_name]
    local is_ours = type_name:find "^uring%." and type(meta) == "table" and not internal[type_name]
    if is_ours and type(meta.__index) == "table" then
      add_functions(list, class_name(type_name) .. ":", meta.__index)
    end
  end
end

-- Objects made in Lua, by their sources: the table of methods and the name of the
-- type stand beside one another.
local function add_lua_classes(list, modules)
  for _, module in ipairs(modules) do
    local path = package.searchpath(module, package.path)
    local file <close> = path and io.open(path, "rb")
    local source = file and file:read "a" or ""
    for owner, type_name in source:gmatch '__index = ([%w_]+), __name = "(uring%.[%w_]+)"' do
      for _, entry in ipairs(internal[type_name] and {} or M.of_file(path)) do
        if entry.owner == owner then
          local name = class_name(type_name) .. ":" .. entry.name
          list[#list + 1] = { name = name, entry = entry, path = path }
        end
      end
    end
  end
end

local function loaded_modules()
  local names = {}
  for name in pairs(package.loaded) do
    if name:find "^uring%." and not name:find "^uring%.prompt" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

--- Everything public that can be called.
-- @tab uring the module
-- @treturn table a list of { name = "uring.connect" | "Task:await", value =, entry = }
function M.public(uring)
  local list = {}
  add_functions(list, "uring.", uring)
  add_core_classes(list)
  add_lua_classes(list, loaded_modules())
  local seen, public = {}, {}
  for _, item in ipairs(list) do
    if not seen[item.name] then -- else it is made both in C and in Lua, for the same
      seen[item.name] = true
      public[#public + 1] = item
      item.entry = item.entry or M.find(item.name, item.value)
    end
  end
  return public
end

--- How something is called: `uring.connect(address)`.
function M.signature(item)
  local entry, names = item.entry, {}
  local doc = entry and entry.doc
  if doc and #doc.params > 0 then
    for _, param in ipairs(doc.params) do
      names[#names + 1] = param.optional and "[" .. param.name .. "]" or param.name
    end
    return ("%s(%s)"):format(item.name, table.concat(names, ", "))
  end
  local args = entry and (entry.owner == "field" and "…" or entry.args)
  return ("%s(%s)"):format(item.name, args or "")
end

return M
