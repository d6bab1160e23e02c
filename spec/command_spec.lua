-- The command `uring`, beside the interpreter.

local helper = require "spec.support.helper"
local terminal = require "spec.support.terminal"

local testkit = helper.testkit

-- Runs a line of the shell.
-- @treturn string what it printed; what it complained of; its status
local function shell(line)
  local errors = helper.tmpname ""
  local pipe = assert(io.popen(("timeout -k 1 30 sh -c '%s' 2>%s; echo \"status=$?\""):format(
    line:gsub("'", "'\\''"), errors)))
  local output, status = pipe:read "a":match "^(.*)status=(%d+)%s*$"
  pipe:close()
  return output, io.open(errors):read "a", tonumber(status)
end

local function uring(arguments)
  return shell("lua5.4 lua/bin/uring " .. arguments)
end

local function script(text)
  return helper.tmpname(text)
end

describe("uring", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  -- The same by both, the program's name aside.
  local function as_lua(arguments)
    local output, errors, status = uring(arguments)
    local its_output, its_errors, its_status = shell("lua5.4 " .. arguments)
    assert.are.equal(its_output, output)
    assert.are.equal(its_status, status)
    local first, its_first = errors:match "^[^\n]*", its_errors:match "^[^\n]*"
    assert.are.equal((its_first:gsub("^%S*lua5.4: ", "uring: ")), first)
    return errors
  end

  for name, text in pairs {
    ["its arguments"] = "print(...) print(#arg, arg[0], arg[1], arg[2], arg[3])",
    ["no output"] = "",
    ["a status"] = "os.exit(7)",
    ["a status of false"] = "os.exit(false)",
    ["a status with close"] = "setmetatable({}, { __gc = function() print 'gc' end }) os.exit(3, true)",
    ["an error"] = "error 'boom'",
    ["an error in a function"] = "local function f() error 'deep' end f()",
    ["an error without a place"] = "error('plain', 0)",
    ["an error object"] = "error({})",
    ["an error object with a text"] = "error(setmetatable({}, { __tostring = function() return 'mine' end }))",
    ["nil for an error"] = "error(nil)",
    ["a syntax error"] = "x x",
    ["a first line for the shell"] = "#!/usr/bin/lua\nprint 'ran'",
    ["output and then an error"] = "io.write 'some' io.stdout:flush() error 'then'",
    ["finalisers"] = "x = setmetatable({}, { __gc = function() print 'gc' end })",
  } do
    it("runs a script with " .. name .. " as lua does", function()
      as_lua(script(text) .. " one 'two three' 4")
    end)
  end

  for _, arguments in ipairs {
    "/nonexistent.lua", "-e 'print(1)'", "-e 'print(1)' -e 'print(2)'", "-eprint(3)", "-e 'error(4)'", "-e ')'",
    "-l string -e 'print(string)' | cut -c1-5", "-l m=string -e 'print(m == string)'", "-l no.such.module.there",
    "- a b <<E\nprint(arg[0], ...)\nE", "<<E\nprint 'from stdin'\nE", "-W -e 'warn \"careful\"'",
    "-e 'x = 1' -- /dev/null", "-e",
  } do
    it("takes " .. arguments:gsub("\n", " ") .. " as lua does", function()
      as_lua(arguments)
    end)
  end

  it("refuses options that it does not know, and tells those it does", function()
    local output, errors, status = uring "-x"
    assert.are.same({ "", 1 }, { output, status })
    assert.matches("^uring: unrecognized option '%-x'\nusage: uring", errors)
  end)

  it("tells its version, and how it is used", function()
    assert.matches("^uring .*, on Lua 5.4\n$", (uring "--version"))
    assert.are.equal((uring "--version"), (uring "-v"))
    assert.matches("^usage: uring", (uring "--help"))
  end)

  it("gives an error its traceback", function()
    local _, errors = uring(script "local function f() error 'deep' end\nf()")
    assert.matches("^uring: [^\n]*:1: deep\nstack traceback:\n\t%[C%]: in function 'error'\n.*:2: in ", errors)
  end)

  it("runs a script as a task", function()
    local output, errors, status = uring(script [[
      local uring = require "uring"
      uring.sleep(0.001)
      print(uring.current() ~= nil, ...)
    ]] .. " x")
    assert.are.same({ "true\tx\n", "", 0 }, { output, errors, status })
  end)

  it("runs a string as a task, and knows uring", function()
    assert.are.equal("done\n", (uring [[-e 'uring.sleep(0.001) print "done"']]))
  end)

  it("ends when all tasks have ended", function()
    local output, _, status = uring [[-e 'uring.spawn(function() uring.sleep(0.05) print "last" end) print "first"']]
    assert.are.same({ "first\nlast\n", 0 }, { output, status })
  end)

  it("fails with a task that nobody awaits, and cancels the others", function()
    local output, errors, status = uring [[-e '
      uring.spawn(function() local g <close> = setmetatable({}, { __close = function() print "closed" end })
        uring.sleep(60) end)
      uring.spawn(function() uring.sleep(0.01) error "in a task" end)']]
    assert.are.same({ "closed\n", 1 }, { output, status })
    assert.matches("^uring: .*in a task\nstack traceback:", errors)
  end)

  it("is ended by Ctrl-C", function()
    local t <close> = terminal.open "exec lua5.4 lua/bin/uring -e 'print \"go\" uring.sleep(60)'"
    t:expect "go"
    t:rest(0.1)
    t:send "\3"
    t:expect "uring: interrupted!"
    assert.are.equal(1, t:wait())
  end)

  it("is ended by Ctrl-C where a task loops", function()
    local t <close> = terminal.open [[exec lua5.4 lua/bin/uring -e '
      local g <close> = setmetatable({}, { __close = function() print "closed" end })
      print "go" while true do end']]
    t:expect "go"
    t:rest(0.05)
    t:send "\3"
    t:expect "closed"
    t:expect "interrupted!\n"
    t:expect "stack traceback:"
    assert.are.equal(1, t:wait())
  end)

  it("is ended by a second Ctrl-C in any case", function()
    local t <close> = terminal.open "exec lua5.4 lua/bin/uring -e 'print \"go\" uring.shield(uring.sleep, 60)'"
    t:expect "go"
    t:rest(0.05)
    t:send "\3"
    t:rest(0.1)
    t:send "\3"
    assert.are.equal(128 + 2, t:wait())
  end)

  it("does not follow a script that failed with a prompt", function()
    local output, _, status = uring "-e 'error(1)' -i </dev/null"
    assert.are.same({ "", 1 }, { output, status })
  end)

  it("prints type stubs that are Lua, and a reference", function()
    local output, errors, status = uring "--types"
    assert.are.same({ "", 0 }, { errors, status })
    assert(load(output))
    assert.matches("\n%-%-%-@class uring.Task\n", output)
    assert.matches("\n%-%-%-@return uring.Stream%?", output)
    assert.matches("\nfunction uring.connect%(address%) end\n", output)
    assert.matches("\n### `uring.connect%(address%)`\n", (uring "--reference"))
  end)

  it("leaves children their signals", function()
    local output = uring [[-e 'os.execute "grep SigIgn /proc/self/status; grep SigBlk /proc/self/status"']]
    local before = shell "grep SigIgn /proc/self/status; grep SigBlk /proc/self/status"
    assert.are.equal(before, output)
    assert.is_true(testkit.fds() > 0)
  end)
end)

describe("the documentation", function()
  local doc = require "uring.doc"
  local api = require "uring"

  it("tells of everything public", function()
    local missing = {}
    local items = doc.public(api)
    for _, item in ipairs(items) do
      if not (item.entry and item.entry.doc) then
        missing[#missing + 1] = item.name
      end
    end
    assert.is_true(#items > 150)
    assert.are.same({}, missing)
  end)

  it("is what stands above a function", function()
    local entries = doc.parse [[
--- A module.
-- @module x

local M = {}

--- Does it.
-- With a second sentence.
-- @string a what
-- @int[opt=3] b a number
--   of something
-- @treturn Stream nil, message, errno
-- @raise wrong types
function M.doit(a, b)
end

-- Not public.
local function hidden() end

function M.bare() end

local t = {
  --- A field.
  field = 1;
  other = 2;
}
]]
    local by_name = {}
    for _, entry in ipairs(entries) do
      by_name[entry.name or "?"] = entry
    end
    local doit = by_name.doit
    assert.are.equal("Does it.\nWith a second sentence.", doit.doc.text)
    assert.are.equal("Does it.", doc.gist(doit.doc.text))
    assert.are.equal("a, b", doit.args)
    assert.are.same({ name = "a", type = "string", text = "what", optional = false }, doit.doc.params[1])
    assert.are.same({ name = "b", type = "integer", text = "a number of something", optional = true, default = "3" },
      doit.doc.params[2])
    assert.are.same({ { type = "Stream", text = "nil, message, errno", optional = false } }, doit.doc.returns)
    assert.are.equal("wrong types", doit.doc.raises[1].text)
    assert.is_nil(by_name.hidden.doc)
    assert.is_nil(by_name.bare.doc)
    assert.are.equal("A field.", by_name.field.doc.text)
    assert.is_nil(by_name.other)
  end)
end)

describe("the list of operations", function()
  local api = require "uring"
  local core = require "uring.core"
  helper.watch(before_each, after_each)

  local function named(name)
    local list = {}
    for _, o in ipairs(core.operations()) do
      if o.name == name then
        list[#list + 1] = o
      end
    end
    return list
  end

  it("tells what is lent, to whom and since when", function()
    api.run(function()
      local here, there = api.socketpair()
      local buffer = api.buffer(1000)
      local task = api.spawn(function() return api.op.recv(there:fd(), buffer, 100) end)
      api.sleep(0.05)
      local o = named "recv"[1]
      assert.are.equal(task, o.task)
      assert.are.same({ "submitted", 100, there:fd() }, { o.status, o.lent, o.fd })
      assert.is_true(o.since > 0.02 and o.since < 2)
      here:write "x"
      task:await()
      assert.are.same({}, named "recv")
      here:close()
      there:close()
    end)
  end)

  it("tells of handles, vectors, strings and orphans", function()
    local here, there = api.socketpair()
    local ring <close> = assert(api.ring { entries = 8 })
    local op = ring:prepare("readv", there:fd(), { api.buffer(10), api.buffer(20) })
    local o = named "readv"[1]
    assert.are.same({ "prepared", 30 }, { o.status, o.lent })
    assert.is_nil(o.task)
    assert.is_nil(o.orphan)
    ring:submit()
    assert.are.equal("submitted", named "readv"[1].status)
    local write = ring:prepare("write", here:fd(), ("x"):rep(7))
    assert.are.equal(7, named "write"[1].lent)
    write:await()
    op:await()
    ring:prepare("recv", there:fd(), api.buffer(5)) -- and nobody has the handle
    ring:submit()
    helper.collect()
    o = named "recv"[1]
    assert.is_true(o == nil or o.orphan)
    ring:close()
    here:close()
    there:close()
  end)
end)
