--- Values as text that a person can read.

local options = require "uring.options"

local known = { depth = "integer", items = "integer", width = "integer" }

-- Past so many keys they are not sorted: that alone would take its time.
local SORTABLE = 10000

-- Past so many values the text ends, whatever they are parts of.
local VALUES = 10000

local reserved = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
  return then true until while]]):gmatch "%a+" do
  reserved[word] = true
end

local escapes = {
  ["\a"] = "\\a", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
  ["\v"] = "\\v", ["\\"] = "\\\\", ['"'] = '\\"';
}

local function escape(byte)
  return escapes[byte] or ("\\x%02X"):format(byte:byte())
end

-- Text stays as it is; what would disturb a terminal does not.
local function quote(s)
  local parts, at = {}, 1
  while at <= #s do
    local good, bad = utf8.len(s, at)
    local stop = good and #s or bad - 1
    local text = s:sub(at, stop):gsub('[%c"\\]', escape)
    parts[#parts + 1] = text:gsub("\xC2[\x80-\x9F]", function(c) return (c:gsub(".", escape)) end)
    if not good then
      parts[#parts + 1] = escape(s:sub(bad, bad))
    end
    at = stop + 2
  end
  return '"' .. table.concat(parts) .. '"'
end

local ranks = { number = 1, string = 2, boolean = 3 }

-- Numbers, then names, then the rest as it looks.
local function before(a, b)
  local ra, rb = ranks[type(a)] or 4, ranks[type(b)] or 4
  if ra ~= rb then
    return ra < rb
  elseif ra <= 2 then
    return a < b
  end
  return tostring(a) < tostring(b)
end

-- Keys behind the list that a table begins with; how long that is.
local function keys_of(t, limit)
  local n = 0
  while n <= limit and rawget(t, n + 1) ~= nil do
    n = n + 1
  end
  local keys, count = {}, 0
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= n) then
      count = count + 1
      keys[count] = key
      if count > SORTABLE then
        return keys, n
      end
    end
  end
  pcall(table.sort, keys, before) -- a __tostring that fails leaves them unsorted
  return keys, n
end

local function describe_function(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" then
    return "function (in C)"
  end
  return ("function (%s:%d)"):format(info.short_src, info.linedefined)
end

-- Everything but tables without a text of their own.
local function plain(x)
  local kind = type(x)
  if kind == "string" then
    return quote(x)
  elseif kind == "function" then
    return describe_function(x)
  elseif kind ~= "table" and kind ~= "userdata" then
    return tostring(x)
  end
  local meta = getmetatable(x)
  if kind == "userdata" or type(meta) == "table" and rawget(meta, "__tostring") then
    local ok, text = pcall(tostring, x)
    return ok and text or ("%s (its __tostring failed: %s)"):format(kind, tostring(text))
  end
end

local render

local function key_text(state, key)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" and not reserved[key] then
    return key
  end
  return "[" .. (plain(key) or render(state, key, math.huge, "")) .. "]"
end

local function child_path(path, key)
  return type(key) == "string" and path .. "." .. key or ("%s[%s]"):format(path, tostring(key))
end

-- One text an item; what there is no room for is counted, or hinted at.
local function items_of(state, t, depth, path)
  local keys, n = keys_of(t, state.items)
  local items = {}
  for i = 1, n + #keys do
    if #items >= state.items or state.left <= 0 then
      items[#items + 1] = n > state.items and "…" or ("… and %d more"):format(n + #keys - i + 1)
      break
    end
    state.left = state.left - 1
    local key = i <= n and i or keys[i - n]
    local value = render(state, rawget(t, key), depth + 1, child_path(path, key))
    items[i] = i <= n and value or key_text(state, key) .. " = " .. value
  end
  return items
end

-- On one line if there is room for it, else an item a line.
local function join(items, depth, width)
  local total = 4
  for _, item in ipairs(items) do
    total = total + #item + 2
    if item:find("\n", 1, true) then
      total = math.huge
    end
  end
  if total + depth * 2 <= width then
    return "{ " .. table.concat(items, ", ") .. " }"
  end
  local indent = "\n" .. ("  "):rep(depth + 1)
  return "{" .. indent .. table.concat(items, "," .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

function render(state, x, depth, path)
  local text = plain(x)
  if text then
    return text
  elseif state.open[x] then
    return "<" .. state.open[x] .. ">"
  elseif next(x) == nil then
    return "{}"
  elseif depth >= state.depth then
    return "{…}"
  end
  state.open[x] = path == "" and "the whole" or path:gsub("^%.", "")
  local items = items_of(state, x, depth, path)
  state.open[x] = nil
  return join(items, depth, state.width)
end

--- A value as text that a person can read: tables with their keys sorted,
-- strings quoted, with escapes for what is no text, functions with where they
-- are from.  A table inside of itself is named by its path; what lies deeper than
-- `depth` is `{…}`.  Calls no metamethod but `__tostring`.
-- @param value
-- @tab[opt] given `depth`: tables inside of one another (default 6); `items`: of
--   one table (default 100); `width`: columns of a line (default 100)
-- @treturn string never more than some 10,000 values of it
-- @raise unknown options
-- @function dump
return function(value, given)
  given = options.check("dump", given or {}, known)
  return render({ depth = given.depth or 6, items = given.items or 100, width = given.width or 100,
    left = VALUES, open = {} }, value, 0, "")
end
