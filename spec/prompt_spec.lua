-- The prompt's semantics, scripted: inputs on a pipe.

local helper = require "spec.support.helper"
local uring = require "uring"
local chunk = require "uring.prompt.chunk"

-- Runs the prompt with these lines as its input.
-- @treturn string what it printed, on both streams
local function session(lines, arguments)
  local path = helper.tmpname(lines)
  local pipe = assert(io.popen(("XDG_STATE_HOME=/dev/null/none timeout -k 1 30 lua5.4 lua/bin/uring -i %s <%s 2>&1")
    :format(arguments or "", path)))
  local output = pipe:read "a"
  local ok, _, status = pipe:close()
  assert.is_true(ok, ("it ended with %d: %s"):format(status, output))
  return output
end

describe("the prompt", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  it("shows values, and nothing where there is none", function()
    assert.are.equal('3\nnil\n"a"\tnil\t2\n{ 1, 2 }\n', session [[
1 + 2
nil
"a", nil, 2
x = 1
do end
;
-- nothing

{ 1, 2 }
]])
  end)

  it("keeps the last values", function()
    assert.are.equal('1\t2\t3\n5\n{ 5, n = 3 }\n', session [[
1, 2, 3
_ + 1 + _3
table.pack(_, _2, _3)
]])
  end)

  it("keeps locals", function()
    assert.are.equal("3\n11\n3\n", session [[
local a, b <const> = 1, 2
a + b
local function add() a = a + 10 return a end return add()
local a = 3
a
]])
  end)

  it("takes chunks of several lines, and reports one that never ends", function()
    assert.are.equal("6\ninput 2:1: 'end' expected near <eof>\n", session [[
(1 +
2 + 3)
while true do
]])
  end)

  it("says where a syntax error is, and goes on", function()
    assert.are.equal("input 1:1: unexpected symbol near ')'\ninput 2:1: unexpected symbol near 'then'\n2\n", session [[
)
if then
1 + 1
]])
  end)

  it("takes binary for what it is", function()
    local output = session("\0\1\2\255\n\27LuaT\n1 + 1\n")
    assert.matches("^input 1:1: unexpected symbol[^\n]*\nattempt to load a binary chunk[^\n]*\n2\n$", output)
  end)

  it("shows errors that are no strings", function()
    assert.matches('^%(error object%) { code = 1 }\nstack traceback:.-\nmine\nstack.-\nnil\nstack.*\n2\n$', session [[
error({ code = 1 })
error(setmetatable({}, { __tostring = function() return "mine" end }))
error()
1 + 1
]])
  end)

  it("survives values that cannot be shown", function()
    local output = session [[
setmetatable({}, { __tostring = function() error "no text" end })
setmetatable({}, { __index = function() error "not called" end })
1 + 1
]]
    assert.matches("__tostring failed: .*no text.*\n{}\n2\n$", output)
  end)

  it("awaits", function()
    assert.are.equal("true\n", session [[
local began = uring.now()
uring.sleep(0.05)
uring.now() - began >= 0.05
]])
  end)

  it("awaits inside of coroutines", function()
    assert.are.equal("7\n", session "coroutine.wrap(function() uring.sleep(0.01) return 7 end)()\n")
  end)

  it("knows tasks by the names of their variables", function()
    local output = session [[
sleeper = uring.spawn(function() uring.sleep(60) end)
uring.sleep(0.01)
:tasks
:tasks sleeper
task "sleeper":status()
:cancel sleeper
sleeper:status()
:tasks
task "sleeper"
]]
    assert.matches("%d  sleeper  sleep  %d+ ms  input 1:1\n", output)
    assert.matches("task sleeper\nstack traceback:", output)
    assert.matches('"waiting"\n', output)
    assert.matches('task sleeper %(cancelled, 0x%x+%)\n"cancelled"\nno tasks\n', output)
    assert.matches("there is no task sleeper; :tasks lists them\n", output)
  end)

  it("awaits a task by its name", function()
    assert.matches("\n42\n", session [[
local worker = uring.spawn(function() uring.sleep(0.01) return 42 end)
:tasks
task "worker":await()
]])
  end)

  it("lists operations, and what is lent", function()
    local output = session [[
:ops
a, b = uring.socketpair()
buffer = uring.buffer(100)
reader = uring.spawn(function() return uring.op.recv(b:fd(), buffer) end)
uring.sleep(0.01)
:ops
uring.op.send(a:fd(), "x")
reader:await()
:ops
]]
    assert.matches("^no operations\n", output)
    assert.matches("recv on fd %d+  submitted  100 B  %d+ ms  for reader\n1 operation, 100 bytes lent\n", output)
    assert.matches('1\n1\nno operations\n', output)
  end)

  it("has commands, and near names for others", function()
    local output = session ":help\n:stats\n:time 1 + 1\n:taks\n:time\n:time )\n:cancel\n:time 1 +\n"
    assert.matches(":reload module +loads", output)
    assert.matches("completed = %d+", output)
    assert.matches("\n2\n0%.%d+ s, of which", output)
    assert.matches("no command :taks %(did you mean 'tasks'", output)
    assert.matches("what is there to time%?", output)
    assert.matches("input 6:1: unexpected symbol near '%)'", output)
    assert.matches("input 8:1: unexpected symbol near <eof>", output)
  end)

  it("tells what the documentation says", function()
    local output = session [[
help(uring.connect)
help(uring.spawn)
help "Task:await"
help "Stream:read"
help(uring.op.read)
help(1)
help "nothing.at.all"
help()
]]
    assert.matches("uring.connect%(address%)\n  Connects", output)
    assert.matches("Starts a task", output)
    assert.matches("Task:await%(%)\n  Waits until the task has ended", output)
    assert.matches("io_uring_prep_read", output)
    assert.matches("nothing is documented of 1\n", output)
  end)

  it("goes on when a module fails to load", function()
    assert.matches("module 'no.such.module' not found.*\n2\n", session 'require "no.such.module"\n1 + 1\n')
  end)

  it("loads modules anew", function()
    local path = helper.tmpname "return { answer = function() return 1 end, old = true }"
    local directory, name = path:match "^(.*)/([^/]*)$"
    local output = session(([[
package.path = %q .. "/?"
m = require %q
local n = m
m.answer()
local f = io.open(%q, "w") f:write "return { answer = function() return 2 end }" f:close()
:reload %s
n.answer(), n.old
local f = io.open(%q, "w") f:write "syntax error" f:close()
:reload %s
n.answer()
:reload nothing
:reload uring
]]):format(directory, name, path, name, path, name))
    assert.matches("^1\nreloaded " .. name:gsub("%p", "%%%0")
      .. "\n2\tnil\nerror loading module.*\nthe module is what it was\n2\n"
      .. "module 'nothing' has not been loaded\nmodule 'uring' is what you run on\n$", output)
  end)

  it("runs what the command line has first, and keeps its tasks", function()
    assert.are.equal("before\n\"waiting\"\n", (session("bg:status()\n",
      [[-e 'print "before" bg = require "uring".spawn(require "uring".sleep, 60)']]):gsub("end of input.*", "")))
  end)

  it("serves clients that know nothing of it, by the newest handler", function()
    if os.execute "command -v curl >/dev/null" ~= true then
      return pending "curl is not installed"
    end
    local address = helper.tmpname ""
    local inputs = helper.tmpname(([[
function tell() local f = io.open(%q, "w") f:write(listener:address()) f:close() end
function handler(stream)
  repeat local line = stream:read "l" until not line or #line <= 1
  stream:write("HTTP/1.0 200 OK\r\n\r\n", greeting, "\n")
end
greeting = "hello"
listener = uring.listen "127.0.0.1:0"
server = uring.spawn(function() listener:serve(handler) end)
tell() uring.sleep(0.4)
greeting = "changed"
tell() uring.sleep(0.4)
function handler(stream) stream:read "l" stream:write "HTTP/1.0 200 OK\r\n\r\nnew\n" end
tell() uring.sleep(0.4)
function handler() error "the handler failed" end
tell() uring.sleep(0.4)
server:status()
]]):format(address))
    local running = io.popen("XDG_STATE_HOME=/dev/null/none timeout 20 lua5.4 lua/bin/uring -i <" .. inputs .. " 2>&1")
    local function ask()
      local where
      helper.eventually(function()
        local file <close> = io.open(address)
        where = file:read "a"
        return where ~= ""
      end)
      io.open(address, "w"):close()
      local pipe <close> = io.popen("curl -s --max-time 5 http://" .. where)
      return pipe:read "a"
    end
    assert.are.equal("hello\n", ask())
    assert.are.equal("changed\n", ask())
    assert.are.equal("new\n", ask())
    assert.are.equal("", ask())
    local output = running:read "a"
    running:close()
    assert.matches("the handler failed\n", output)
    assert.matches('"waiting"\n', output)
    assert.matches("2 tasks were still running", output)
  end)
end)

describe("a chunk of the prompt", function()
  local locals

  before_each(function()
    locals = chunk.locals()
  end)

  local function run(text)
    local fn, message = locals:compile(text, "=t")
    assert(fn, message)
    return fn()
  end

  it("shares the variables of earlier ones with their functions", function()
    run "local n = 0; function chunk_spec_inc() n = n + 1 return n end"
    assert.are.equal(1, _G.chunk_spec_inc())
    assert.are.equal(1, run "n")
    run "n = 100"
    assert.are.equal(101, _G.chunk_spec_inc())
    _G.chunk_spec_inc = nil
  end)

  it("declares a local anew", function()
    run "local a = 1 function chunk_spec_get() return a end"
    run "local a = 2"
    assert.are.equal(2, run "a")
    assert.are.equal(1, _G.chunk_spec_get())
    _G.chunk_spec_get = nil
  end)

  for _, case in ipairs {
    { "local a, b = 1, 2", "a", 1, "b", 2 },
    { "local a local b = 2 local c, d", "b", 2, "a", nil },
    { "local function f() return 5 end", "f()", 5 },
    { "local a <const> = 1", "a", 1 },
    { "local a <const>, b <const> = 1, 2", "b", 2 },
    { "local a <close> = nil local b = 1", "a", nil, "b", 1 },
    { "do local a = 1 end", "a", nil },
    { "for a = 1, 1 do local b = 1 end", "a", nil, "b", nil },
    { "if true then local a = 1 else local b = 2 end local c = 3", "a", nil, "c", 3 },
    { "if a then elseif b then else end local c = 3", "c", 3 },
    { "while true do local a = 1 break end local c = 3", "a", nil, "c", 3 },
    { "repeat local a = 1 until a local c = 3", "a", nil, "c", 3 },
    { "local t = { f = function() local q = 1 return q end } return t", "q", nil, "t.f()", 1 },
    { "local s = 'local q = 1' local l = [==[ local q = ]] 1 ]==] -- local q = 1", "q", nil, "s", "local q = 1" },
    { "--[[ local q = 1 ]] local r = 2 --[==[\nlocal q]==]", "q", nil, "r", 2 },
    { "local a = 1 return", "a", 1 },
    { "local a = 1 return a;", "a", 1 },
    { "local a = 1 return a -- and a comment", "a", 1 },
    { "local a = 'x\\'local b = 1' return (function() return a end)()", "b", nil, "a", "x'local b = 1" },
    { "local a = 1; local a = 2", "a", 2 },
    { "local x = 0x1p4 local y = 3e-2 local z = 1 // 1", "x", 16, "z", 1 },
    { "local a\n-- the end", "a", nil },
  } do
    it("keeps what is local outside of blocks: " .. case[1]:gsub("\n", " "), function()
      run(case[1])
      for i = 2, #case, 2 do
        assert.are.equal(case[i + 1], (run(case[i])))
      end
    end)
  end

  it("returns what it returns", function()
    assert.are.same({ n = 3, 1, nil, 3 }, table.pack(run "local a = 1 return a, nil, 3"))
    assert.are.same({ n = 0 }, table.pack(run "local a = 1 return"))
    assert.are.same({ n = 2, 1, 2 }, table.pack(run "= 1, 2"))
  end)

  it("says so where locals cannot be kept", function()
    local fn, note = locals:compile("goto done; local y = 1; ::done::", "=t")
    assert.is_function(fn)
    assert.matches("the locals of this input end with it", note)
    fn()
    assert.is_nil(run "y")
  end)

  it("has any number of them", function()
    for i = 1, 600 do
      run(("local v%d = %d"):format(i, i))
    end
    assert.are.equal(601, run "v1 + v600")
  end)

  it("tells what has not ended from what is wrong", function()
    for _, text in ipairs { "for i = 1, 2 do", "x =", "f(", "local", "return 1 +", "[[", "if a then else", "1 +",
      "{ 1,",
      "function() return" } do
      local fn, _, incomplete = locals:compile(text, "=t")
      assert.is_nil(fn)
      assert.is_true(incomplete, text)
    end
    for _, text in ipairs { ")", "x x", "for for", "end", "'a", "goto nowhere", "break" } do
      local fn, message, incomplete = locals:compile(text, "=t")
      assert.is_nil(fn)
      assert.is_false(incomplete, text)
      assert.matches("^t:1: ", message)
    end
  end)
end)

describe("uring.dump", function()
  for text, value in pairs {
    ["nil"] = false, ['"a\\n\\x00\\xFF\\"\\\\é\\x1B"'] = "a\n\0\xFF\"\\é\27", ["{}"] = {}, ["{ 1, 2, nil, 4 }"] = false,
    ["{ 1, 2, a = 1, b = { c = true } }"] = { 1, 2, b = { c = true }, a = 1 },
    ['{ ["a b"] = 1, ["end"] = 2 }'] = { ["a b"] = 1, ["end"] = 2 },
    ["{ [0] = 0, [1.5] = 1, [true] = 2 }"] = { [0] = 0, [1.5] = 1, [true] = 2 },
    ["1.0"] = 1.0, ["10"] = 10,
  } do
    if value then
      it("shows " .. text, function()
        assert.are.equal(text, uring.dump(value))
      end)
    end
  end

  it("sorts keys", function()
    local t = {}
    for c in ("qwertzuiop"):gmatch "." do
      t[c] = 0
    end
    assert.are.equal("{ e = 0, i = 0, o = 0, p = 0, q = 0, r = 0, t = 0, u = 0, w = 0, z = 0 }", uring.dump(t))
  end)

  it("ends in circles", function()
    local t = { a = { b = {} } }
    t.a.b.c, t.a.b.d = t, t.a
    assert.are.equal("{ a = { b = { c = <the whole>, d = <a> } } }", uring.dump(t))
  end)

  it("is bounded in depth, items and all", function()
    local deep = {}
    local inner = deep
    for _ = 1, 10000 do
      inner[1] = {}
      inner = inner[1]
    end
    assert.are.equal("{ { { { { { {…} } } } } } }", uring.dump(deep))
    assert.are.equal("{ {…} }", uring.dump(deep, { depth = 1 }))
    local long = {}
    for i = 1, 1e5 do
      long[i], long["k" .. i] = i, i
    end
    assert.is_true(#uring.dump(long) < 2000)
    local wide = {} -- every level twice: 2^30 without a bound
    for _ = 1, 30 do
      wide = { wide, wide }
    end
    assert.is_true(#uring.dump(wide, { depth = 100 }) < 1e6)
  end)

  it("calls no metamethod but __tostring, whose errors it survives", function()
    local trap = setmetatable({ 1 }, { __index = error, __pairs = error, __len = error, __eq = error, __lt = error })
    assert.are.equal("{ 1 }", uring.dump(trap))
    assert.are.equal("me", uring.dump(setmetatable({}, { __tostring = function() return "me" end })))
    assert.matches("__tostring failed: .*no", uring.dump(setmetatable({}, { __tostring = function() error "no" end })))
    assert.matches("__tostring failed", uring.dump(setmetatable({}, { __tostring = function() return {} end })))
    assert.matches("{}", uring.dump(setmetatable({}, { __metatable = "locked" })))
  end)

  it("breaks long tables into lines", function()
    local xs = ("x"):rep(60)
    assert.are.equal('{\n  "' .. xs .. '",\n  b = { 1 }\n}', uring.dump({ xs, b = { 1 } }, { width = 60 }))
  end)

  it("refuses options that it does not know", function()
    assert.matches("unknown option 'dept' of dump %(did you mean 'depth'%?%)",
      helper.error_of(uring.dump, 1, { dept = 1 }))
  end)
end)
