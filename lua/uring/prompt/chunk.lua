--- What is typed at the prompt, from text to a function.
--
-- Locals of one input live on in the next, as the same variables: what a
-- function of an earlier input has captured is what later inputs see and set.
-- For that an input is compiled inside of a function that declares the locals it
-- mentions, and these are then joined to the variables there are
-- (`debug.upvaluejoin`).  Its own locals are captured at its end by a function that
-- mentions them.  To know their names it takes a look at the words of the input;
-- that the text is a chunk has been checked by then.

local M = {}

--
-- Words
--

local function skip_long(text, at)
  local level = text:match("^%[(=*)%[", at)
  if level then
    local _, stop = text:find("]" .. level .. "]", at, true)
    return (stop or #text) + 1
  end
end

local function skip_string(text, at)
  local quote = text:sub(at, at)
  local i = at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\\" then
      i = i + 1
    elseif c == quote then
      return i + 1
    end
    i = i + 1
  end
  return i
end

local function skip_comment(text, at)
  return skip_long(text, at + 2) or (text:find("\n", at, true) or #text) + 1
end

-- The word at a place, its kind, and where the next begins.
local function word_at(text, at)
  local c = text:sub(at, at)
  if c:find "[%a_]" then
    local word = text:match("^[%w_]+", at)
    return word, "name", at + #word
  elseif c:find "%d" then
    local word = text:match("^0[xX][%x.]*[pP]?[+-]?%x*", at) or text:match("^[%w.]+", at)
    return word, "number", at + #word
  elseif c == "'" or c == '"' then
    return c, "string", skip_string(text, at)
  elseif c == "[" and skip_long(text, at) then
    return c, "string", skip_long(text, at)
  elseif text:find("^%-%-", at) then
    return nil, "comment", skip_comment(text, at)
  end
  return c, "symbol", at + 1
end

--- Iterates over the words of a chunk, without comments.
-- @string text
-- @treturn function word, kind ("name", "number", "string", "symbol"), where it
--   begins, and ends
function M.words(text)
  local at = 1
  return function()
    while true do
      at = text:find("%S", at)
      if not at then
        return nil
      end
      local start = at
      local word, kind, behind = word_at(text, at)
      at = behind
      if word then
        return word, kind, start, at - 1
      end
    end
  end
end

--
-- What a chunk says of its locals
--

local opens = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local closes = { ["end"] = true, ["until"] = true }

-- All words of a chunk: each { word, kind, start, stop }.
local function list_words(text)
  local list = {}
  for word, kind, start, stop in M.words(text) do
    list[#list + 1] = { word = word, kind = kind, start = start, stop = stop }
  end
  list[#list + 1] = { word = "", kind = "end", start = #text + 1, stop = #text }
  return list
end

-- Appends the names declared by the `local` at words[i].
local function declare(words, i, names)
  i = i + 1
  if words[i].word == "function" then
    names[#names + 1] = words[i + 1].word
    return
  end
  while words[i].kind == "name" do
    local closed = words[i + 1].word == "<" and words[i + 2].word == "close" -- by then it is
    if not closed then
      names[#names + 1] = words[i].word
    end
    i = i + (words[i + 1].word == "<" and 4 or 1)
    if words[i].word ~= "," then
      return
    end
    i = i + 1
  end
end

-- What words tell: `mentions`, a set of names; `locals`, a list of those declared
-- outside of all blocks; `returns`, where the expressions of a return there begin.
local function survey(text)
  local mentions, locals, returns, depth = {}, {}, nil, 0
  local words = list_words(text)
  for i, word in ipairs(words) do
    local name = word.kind == "name" and word.word
    if name then
      mentions[name] = true
    end
    if name == "local" and depth == 0 then
      declare(words, i, locals)
    elseif name == "return" and depth == 0 then
      returns = word.stop + 1
    elseif opens[name] then
      depth = depth + 1
    elseif closes[name] then
      depth = depth - 1
    end
  end
  return mentions, locals, returns
end

local function unique(names)
  local seen, list = {}, {}
  for i = #names, 1, -1 do
    if not seen[names[i]] then
      seen[names[i]] = true
      table.insert(list, 1, names[i])
    end
  end
  return list
end

--
-- Compiling
--

-- Is that the message of a chunk whose end is missing?  A string goes on in the
-- next line only behind a backslash.
local function is_incomplete(message, text)
  if message:find("unfinished string near <eof>", 1, true) then
    return text:find "\\z?%s*$" ~= nil
  end
  return message:sub(-5) == "<eof>"
end

-- The name of what captures the locals: no word of a program's.
local KEEP = "_KEEP"

-- The chunk with, at its end, a call that captures its locals.
local function capturing(text, locals, returns, returns_values)
  if #locals == 0 then
    return text
  end
  local capture = ("%s(function() return %s end"):format(KEEP, table.concat(locals, ", "))
  if not returns then
    return ("%s\nreturn %s)"):format(text, capture)
  end
  local values = text:sub(returns):gsub("%s*;%s*$", "")
  return ("%s %s%s%s\n)"):format(text:sub(1, returns - 1), capture, returns_values and ", " or "", values)
end

-- Is there anything to be returned?
local function has_values(text, returns)
  local word = M.words(text:sub(returns))()
  return word ~= nil and word ~= ";"
end

local Locals = {}
Locals.__index = Locals

--- Where the locals of a prompt live.
-- @treturn Locals
function M.locals()
  return setmetatable({ variables = {} }, Locals)
end

--- The value of a local, and whether there is one of that name.
function Locals:get(name)
  local variable = self.variables[name]
  if not variable then
    return nil, false
  end
  local _, value = debug.getupvalue(variable.holder, variable.index)
  return value, true
end

--- Iterates over names and values.
function Locals:each()
  local name
  return function()
    name = next(self.variables, name)
    return name, name and self:get(name)
  end
end

local function upvalue_index(fn, name)
  local i = 1
  while true do
    local found = debug.getupvalue(fn, i)
    if not found then
      return nil
    elseif found == name then
      return i
    end
    i = i + 1
  end
end

-- Keeps what a capturing function has captured.  A constant is no variable: it
-- gets one.
function Locals:keep(names, capture)
  local values = table.pack(capture())
  for i, name in ipairs(names) do
    local index = upvalue_index(capture, name)
    local holder = capture
    if not index then
      local value = values[i]
      holder, index = function() return value end, 1
    end
    self.variables[name] = { holder = holder, index = index }
  end
end

local function join(self, fn, mentioned)
  for _, name in ipairs(mentioned) do
    local index = upvalue_index(fn, name)
    if index then
      local variable = self.variables[name]
      debug.upvaluejoin(fn, index, variable.holder, variable.index)
    end
  end
end

-- Compiles a chunk, known to be one, with the locals.
function Locals:wrap(text, name)
  local mentions, locals, returns = survey(text)
  local mentioned = {}
  for word in pairs(mentions) do
    if self.variables[word] then
      mentioned[#mentioned + 1] = word
    end
  end
  locals = unique(locals)
  local head = "local " .. KEEP .. " = ... "
  if #mentioned > 0 then
    head = ("local %s; %s"):format(table.concat(mentioned, ", "), head)
  end
  local body = capturing(text, locals, returns, returns and has_values(text, returns))
  local make = load(("%sreturn function(...) %s\nend"):format(head, body), name, "t")
  if not make then
    return nil
  end
  local function keep(capture, ...)
    self:keep(locals, capture)
    return ...
  end
  local fn = make(keep)
  join(self, fn, mentioned)
  return fn
end

--- Compiles an input: an expression, whose values it returns, or statements.
-- @string text
-- @string name of the chunk
-- @treturn function or nil, the message of the syntax error, and whether only
--   its end is missing
-- @treturn ?string what there is to say: locals that cannot be kept
function Locals:compile(text, name)
  local expression = text:match "^%s*=(.*)$" or text
  local plain, no_expression = load("return " .. expression, name, "t")
  if plain and M.words(expression)() then
    return self:wrap("return " .. expression, name) or plain
  end
  local message
  plain, message = load(text, name, "t")
  if not plain and no_expression and is_incomplete(no_expression, text) then -- such as "{ 1,"
    return nil, no_expression, true
  elseif not plain then
    return nil, message, is_incomplete(message, text)
  end
  local fn = self:wrap(text, name)
  if fn then
    return fn
  end
  return plain, "the locals of this input end with it, and it does not see those of earlier ones"
end

return M
