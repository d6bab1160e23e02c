--- RESP2, the protocol of redis: commands come in, replies go out.
--
-- A command is an array of bulk strings, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", or a line of
-- words, "GET k\r\n".  Whatever a client sends, of each there is a limit.

local uring = require "uring"

local M = {}

local EMSGSIZE = uring.errno.EMSGSIZE
local STAR, DOLLAR, NEWLINE = ("*$\n"):byte(1, 3)
local byte, match, sub = string.byte, string.match, string.sub

M.LINE_MAX = 64 << 10    -- bytes of a header, or of a command that is a line
M.BULK_MAX = 16 << 20    -- bytes of one argument
M.COMMAND_MAX = 64 << 20 -- bytes of all of them together
M.ARGS_MAX = 64 << 10    -- arguments

--
-- Commands that are a line
--

local escapes = { n = "\n", r = "\r", t = "\t", b = "\b", a = "\a" }

-- The character at `at` of a quoted word, and where the next one is.
local function character(line, at, quote)
  local c, following = sub(line, at, at), sub(line, at + 1, at + 1)
  if c ~= "\\" or following == "" then
    return c, at + 1
  elseif quote == "'" then
    return following == "'" and "'" or c, following == "'" and at + 2 or at + 1
  end
  local hex = match(line, "^x(%x%x)", at + 1)
  if hex then
    return string.char(tonumber(hex, 16)), at + 4
  end
  return escapes[following] or following, at + 2
end

-- The word whose opening quote is at `at`, and what is behind; nil: it has no end.
local function quoted(line, at)
  local quote, word = sub(line, at, at), {}
  at = at + 1
  while at <= #line do
    if sub(line, at, at) == quote then
      return table.concat(word), at + 1
    end
    word[#word + 1], at = character(line, at, quote)
  end
end

-- The words of a line; nil and what is wrong with it.
local function split(line)
  local args, at = {}, match(line, "^%s*()")
  while at <= #line do
    local word, behind = match(line, "^([^%s\"']+)()", at)
    if not word then
      word, behind = quoted(line, at)
    end
    at = behind and match(line, "^%s+()", behind) or behind == #line + 1 and behind
    if not at then
      return nil, "unbalanced quotes in request"
    end
    args[#args + 1] = word
  end
  return args
end

--
-- Commands that are an array
--

-- Headers by their numbers and numbers by their headers, "$3\r\n" and "*3\r\n", as far as
-- they are in use every day: looking them up takes less time than making them.
local bulk_header, bulk_length, array_length = {}, {}, {}
for n = 0, 511 do
  bulk_header[n] = ("$%d\r\n"):format(n)
  bulk_length[bulk_header[n]], array_length[("*%d\r\n"):format(n)] = n, n
end

-- The number in a header; nil: there is none.
local function number_in(header)
  return tonumber(match(header, "^.(%-?%d+)\r\n$"))
end

-- Why there is no line: nil where it was the end, or what is wrong with it.
local function no_line(stream, errno, what)
  if errno == EMSGSIZE then
    return "too big " .. (stream:read(1) == "*" and "mbulk count string" or what)
  end
end

-- How long an argument is, from its header; nil and what is wrong with it.
local function bulk_size(stream, header, errno, most)
  if not header then
    return nil, no_line(stream, errno, "bulk count string")
  elseif byte(header) ~= DOLLAR then
    return nil, ("expected '$', got '%s'"):format(sub(header, 1, 1):gsub("%c", " "))
  end
  local size = number_in(header)
  if not size or size < 0 or size > most then
    return nil, byte(header, -1) == NEWLINE and "invalid bulk length" or nil
  end
  return size
end

local function read_array(stream, header)
  local count = array_length[header] or number_in(header)
  if not count or count > M.ARGS_MAX then
    return nil, "invalid multibulk length"
  end
  local args, left = { nil, nil, nil, nil }, M.COMMAND_MAX -- with room for the usual
  for i = 1, count do
    local head, _, errno = stream:read "L"
    local size = bulk_length[head]
    if not size or size > left then
      local complaint
      size, complaint = bulk_size(stream, head, errno, left < M.BULK_MAX and left or M.BULK_MAX)
      if not size then
        return nil, complaint
      end
    end
    local bulk, behind = stream:read(size, 2)
    if behind ~= "\r\n" then -- or the client has left in the middle of it
      return nil, behind and #behind == 2 and "bulk is not followed by an end of line" or nil
    end
    args[i] = bulk
    left = left - size
  end
  return args
end

--- Prepares a stream for commands and replies: a line is limited; replies are
-- collected until the next command has to be waited for.
function M.prepare(stream)
  stream:limit { line = M.LINE_MAX }
  stream:setvbuf "full"
  stream:tie()
end

--- The next command.
-- @treturn table its words; nil at the end, or where the connection has failed; nil
--   and what the client has done wrong, after which there is no telling where the
--   next command begins
function M.read(stream)
  while true do
    local args, complaint
    local line, _, errno = stream:read "L"
    if not line then
      return nil, no_line(stream, errno, "inline request")
    elseif byte(line) == STAR then
      args, complaint = read_array(stream, line)
    elseif byte(line, -1) == NEWLINE then
      args, complaint = split(line)
    end
    if not args or args[1] then -- there are empty ones, which ask for nothing
      return args, complaint
    end
  end
end

--
-- Replies
--

M.OK = "+OK\r\n"
M.NIL = "$-1\r\n"

function M.integer(n)
  return ":" .. n .. "\r\n"
end

--- A string; nil is a value, too.
function M.bulk(s)
  return s and (bulk_header[#s] or "$" .. #s .. "\r\n") .. s .. "\r\n" or M.NIL
end

--- Of replies.
function M.array(replies)
  return "*" .. #replies .. "\r\n" .. table.concat(replies)
end

--- Of strings.
function M.bulks(strings)
  local replies = {}
  for i, s in ipairs(strings) do
    replies[i] = M.bulk(s)
  end
  return M.array(replies)
end

--- How many of the words of a command, from the i-th on, `fn` says yes to.
function M.count(args, i, fn)
  local n = 0
  for at = i, #args do
    n = fn(args[at]) and n + 1 or n
  end
  return M.integer(n)
end

--- `text` begins with a word in capitals: "ERR no such thing".
function M.error(text)
  return "-" .. text:gsub("%c", " ") .. "\r\n"
end

local Refusal = {}

--- Ends a command with an error for its reply.
function M.refuse(text)
  error(setmetatable({ reply = M.error(text) }, Refusal), 0)
end

--- The reply where a command was refused; nil: `err` is something else.
function M.refusal(err)
  return getmetatable(err) == Refusal and err.reply or nil
end

--- The integer that an argument is.
function M.integer_of(text)
  return math.tointeger(tonumber(text:match "^%-?%d+$"))
    or M.refuse "ERR value is not an integer or out of range"
end

return M
