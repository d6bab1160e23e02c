--- Writes plain Lua values as JSON: enough for the results of the benchmarks.
-- A table with a first element is an array, any other is an object, its keys in order so that two files compare.

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

local encode

local function items(t, indent)
  local out = {}
  for i, v in ipairs(t) do out[i] = encode(v, indent) end
  return out, "[", "]"
end

local function fields(t, indent)
  local out = {}
  for k, v in pairs(t) do out[#out + 1] = quoted(tostring(k)) .. ": " .. encode(v, indent) end
  table.sort(out)
  return out, "{", "}"
end

function encode(v, indent)
  indent = indent or "\n"
  if type(v) == "string" then return quoted(v) end
  if math.type(v) == "float" then return v - v == 0 and ("%.6g"):format(v) or "null" end
  if type(v) ~= "table" then return tostring(v) end
  local out, open, close = (v[1] ~= nil and items or fields)(v, indent .. "  ")
  if #out == 0 then return open .. close end
  return open .. indent .. "  " .. table.concat(out, "," .. indent .. "  ") .. indent .. close
end

return { encode = encode }
