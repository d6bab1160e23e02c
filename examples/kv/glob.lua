--- Patterns as redis has them: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what
-- is meant literally.

-- A Lua pattern for each part between two stars.
local function parts_of(pattern)
  local parts, part, at = {}, "", 1
  while at <= #pattern do
    local c, set, behind = pattern:match("^(.)([^%]]*%]?)()", at)
    if c == "[" and set:find "^%^?[^%]].*%]$" then
      part, at = part .. "[" .. set:gsub("%%", "%%%%"), behind
    elseif c == "*" then
      parts[#parts + 1], part, at = part, "", at + 1
    elseif c == "?" then
      part, at = part .. ".", at + 1
    else
      if c == "\\" and at < #pattern then
        at = at + 1
      end
      part, at = part .. pattern:sub(at, at):gsub("%W", "%%%0"), at + 1
    end
  end
  parts[#parts + 1] = part
  return parts
end

--- @string pattern
-- @treturn function whether a string matches; each part is looked for behind the one
--   before, so no pattern takes long
return function(pattern)
  local parts = parts_of(pattern)
  parts[1] = "^" .. parts[1]
  parts[#parts] = parts[#parts] .. "$"
  return function(s)
    local at = 1
    for i, part in ipairs(parts) do
      local _, to = s:find(part, at)
      if not to then
        return false
      end
      at = i < #parts and to + 1 or at
    end
    return true
  end
end
