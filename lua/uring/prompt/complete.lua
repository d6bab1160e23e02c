--- Completion: names, fields and methods, by looking and never by calling.

local M = {}

local MOST = 500 -- candidates that are shown

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
  return then true until while]]):gmatch "%a+" do
  keywords[#keywords + 1] = word
end

-- The tables in which the fields of a value are found.
local function tables_of(value)
  local found, meta = {}, debug.getmetatable(value)
  if type(value) == "table" then
    if value == package.loaded.uring then
      pairs(value) -- loads what has not been used yet
    end
    found[1] = value
  end
  for _ = 1, 8 do -- a chain may be a circle
    local index = type(meta) == "table" and rawget(meta, "__index")
    if type(index) ~= "table" then
      break
    end
    found[#found + 1] = index
    meta = debug.getmetatable(index)
  end
  return found
end

local function field(value, name)
  for _, t in ipairs(tables_of(value)) do
    local found = rawget(t, name)
    if found ~= nil then
      return found
    end
  end
end

-- The value of a path such as `uring.sync` or `list[1].name`, of which the names are
-- locals or globals; nil where there is none.
local function value_of(session, path)
  local name, rest = path:match "^([%a_][%w_]*)(.*)$"
  if not name then
    return nil
  end
  local value, is_local = session.locals:get(name)
  if not is_local then
    value = rawget(_G, name)
  end
  while rest ~= "" and value ~= nil do
    local key, tail = rest:match "^%s*%.%s*([%a_][%w_]*)(.*)$"
    if not key then
      key, tail = rest:match "^%[(%d+)%](.*)$"
      key = tonumber(key)
    end
    if not key then
      key, tail = rest:match "^%[[\"']([^\"'\\]*)[\"']%](.*)$"
    end
    if not key then
      return nil
    end
    value, rest = field(value, key), tail
  end
  return value
end

local function add(list, seen, name, prefix)
  if type(name) == "string" and not seen[name] and name:sub(1, #prefix) == prefix
    and name:find "^[%a_][%w_]*$" and (prefix ~= "" or name:sub(1, 1) ~= "_") then
    seen[name] = true
    list[#list + 1] = name
  end
end

local function is_callable(value)
  if type(value) == "function" then
    return true
  end
  local meta = debug.getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__call") ~= nil
end

local function fields(value, prefix, methods_only)
  local list, seen = {}, {}
  for _, t in ipairs(tables_of(value)) do
    for name, member in next, t do
      if not methods_only or is_callable(member) then
        add(list, seen, name, prefix)
      end
    end
  end
  return list
end

local function names(session, prefix)
  local list, seen = {}, {}
  for name in session.locals:each() do
    add(list, seen, name, prefix)
  end
  for name in next, _G do
    add(list, seen, name, prefix)
  end
  for _, word in ipairs(keywords) do
    add(list, seen, word, prefix)
  end
  return list
end

-- Is the end of the text inside of a string?
local function in_string(text)
  local quote
  for c, next_c in text:gmatch "()(.)" do
    local escaped = quote and text:sub(c - 1, c - 1) == "\\"
    if quote == next_c and not escaped then
      quote = nil
    elseif not quote and (next_c == '"' or next_c == "'") then
      quote = next_c
    end
  end
  return quote ~= nil
end

local function commands(session, prefix)
  local list = {}
  for name in pairs(session.commands) do
    if name:sub(1, #prefix) == prefix then
      list[#list + 1] = name
    end
  end
  return list
end

--- Candidates for the word at the end of a line.
-- @param session
-- @string line up to the cursor
-- @int start where the word begins
-- @treturn table nil: names of files
-- @treturn string what follows the only candidate
function M.candidates(session, line, start)
  local head, prefix = line:sub(1, start - 1), line:sub(start)
  local list
  if in_string(head) then
    return nil
  elseif head:find "^%s*:$" then
    list = commands(session, prefix)
    table.sort(list)
    return list, " "
  end
  local path, separator = head:match "([%a_][%w_%.%[%]\"']*)%s*([.:])%s*$"
  if path and not head:find "%.%.%s*$" then
    list = fields(value_of(session, path), prefix, separator == ":")
  elseif head:find "[.:]%s*$" then
    list = {}
  else
    list = names(session, prefix)
  end
  table.sort(list)
  if #list > MOST then -- what all have in common, the first and the last have
    list = table.move(list, #list, #list, MOST, table.move(list, 1, MOST - 1, 1, {}))
  end
  return list
end

return M
