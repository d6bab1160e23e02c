-- The prompt on a terminal, with readline, key by key.

local helper = require "spec.support.helper"
local terminal = require "spec.support.terminal"
local uring = require "uring"

local testkit = helper.testkit
local has_readline = pcall(require, "uring.readline")

local CTRL_C, CTRL_D, UP, TAB = "\3", "\4", "\27[A", "\t"

describe("the prompt on a terminal", function()
  helper.watch(before_each, after_each)
  after_each(helper.cleanup)

  if not has_readline then
    return pending "readline is not installed"
  end

  it("shows the values of expressions", function()
    local t <close> = terminal.prompt()
    assert.matches("\n42\n", t:enter "40 + 2")
    assert.matches('\n{ 1, name = "x" }\n', t:enter "{ 1, name = 'x' }")
    assert.matches("\n43\n", t:enter "_.name == 'x' and 43")
  end)

  it("reads on where a chunk has not ended", function()
    local t <close> = terminal.prompt()
    t:type "for i = 1, 2 do\n"
    t:expect "1>> "
    t:type "print('n' .. i)\n"
    t:expect "1>> "
    t:type "end\n"
    t:expect "\nn1\nn2\n2> "
  end)

  it("echoes each key as it is typed", function()
    local t <close> = terminal.prompt()
    for key in ("local x = 'grün'"):gmatch(utf8.charpattern) do
      t:send(key)
      t:expect(key)
    end
    t:send "\n"
    t:expect "2> "
    assert.matches('\n"grün"\n', t:enter "x")
  end)

  it("edits text of several bytes a character", function()
    local t <close> = terminal.prompt()
    t:type "'äöü€"
    t:type "\127\127" -- backspace, twice
    t:type "'\n"
    t:expect '\n"äö"\n'
  end)

  it("shows what tasks print above the line that is being typed", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(function() for i = 1, 5 do uring.sleep(0.05) print('tick ' .. i) end end)"
    t:type "1 + "
    t:expect "tick 1\n"
    t:expect "2> 1 + " -- it is there again
    t:expect "tick 5\n"
    t:expect "2> 1 + "
    t:type "2\n"
    t:expect "\n3\n"
    t:expect "3> "
  end)

  it("ends a line that tasks have written in part", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) io.write 'part' end)"
    t:expect "part\n2> "
  end)

  it("shows what tasks write through uring.io above the line", function()
    local t <close> = terminal.prompt()
    t:enter "uring.io.write 'here\\n'"
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) uring.io.write('from a stream\\n') end)"
    t:type "1 + "
    t:expect "from a stream\n"
    t:expect "3> 1 + "
    t:type "1\n"
    t:expect "4> "
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) uring.io.stdout:write('its file\\n') end)"
    t:type "2 + "
    t:expect "its file\n"
    t:expect "5> 2 + "
    t:type "2\n"
    t:expect "\n4\n"
  end)

  it("stands a flood of what tasks print", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(function() for i = 1, 3000 do print('line ' .. i) uring.sleep(0.0002) end end)"
    t:type "1 + 41"
    t:expect "line 3000\n"
    t:expect "2> 1 + 41"
    t:type "\n"
    t:expect "\n42\n"
  end)

  it("shows errors of tasks that nobody awaits, and goes on", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) error 'it broke' end)"
    t:expect "input 1:1: it broke\n"
    t:expect "2> "
    assert.matches("\n2\n", t:enter "1 + 1")
  end)

  it("shows a traceback, and leaves everything running", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(uring.sleep, 60)"
    local text = t:enter "error 'boom'"
    assert.matches("\ninput 2:1: boom\nstack traceback:\n", text)
    assert.matches("\n\"waiting\"\n", t:enter "bg:status()")
  end)

  describe("at Ctrl-C", function()
    it("clears the line", function()
      local t <close> = terminal.prompt()
      t:type "this is no Lua"
      t:type(CTRL_C)
      t:expect "this is no Lua^C\n1> "
      assert.matches("\n2\n", t:enter "1 + 1")
    end)

    it("forgets the lines of a chunk", function()
      local t <close> = terminal.prompt()
      t:type "for i = 1, 2 do\n"
      t:expect "1>> "
      t:type(CTRL_C)
      t:expect "1> "
      assert.matches("\n2\n", t:enter "1 + 1")
    end)

    it("forgets half a key, and half a paste", function()
      local t <close> = terminal.prompt()
      for _, keys in ipairs { "\27", "\27[", "\27[1;", "\24", "\27[200~x", "\27\27[200~", "x\195" } do
        t:send(keys)
        t:rest(0.03)
        t:send(CTRL_C)
        t:expect "^C\n1> "
      end
      assert.matches("\n2\n", t:enter "1 + 1")
    end)

    it("cancels an input that sleeps, and nothing else", function()
      local t <close> = terminal.prompt()
      t:enter "bg = uring.spawn(uring.sleep, 60)"
      t:type "uring.sleep(60)\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:expect "interrupted\n"
      t:expect "> "
      assert.matches("\n\"waiting\"\n", t:enter "bg:status()")
    end)

    it("lets an input that is cancelled clean up", function()
      local t <close> = terminal.prompt()
      t:type "local g <close> = setmetatable({}, { __close = function() print 'closed' end }) uring.sleep(60)\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:expect "closed\n"
      t:expect "interrupted\n"
    end)

    it("ends a loop in Lua", function()
      local t <close> = terminal.prompt()
      t:enter "bg = uring.spawn(uring.sleep, 60)"
      t:type "while true do end\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:expect "interrupted!\n"
      t:expect "> "
      assert.matches("\n\"waiting\"\n", t:enter "bg:status()")
    end)

    it("ends a loop inside of a coroutine", function()
      local t <close> = terminal.prompt()
      t:type "coroutine.wrap(function() while true do end end)()\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:expect "interrupted!"
      t:expect "2> "
    end)

    it("ends a loop of a task that is not the input's, the second time", function()
      local t <close> = terminal.prompt()
      t:type "bg = uring.spawn(function() while true do end end)\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:rest(0.05)
      t:send(CTRL_C)
      t:expect "interrupted!"
      t:expect "2> "
      t:settle(0.1)
      assert.matches("\n2\n", t:enter "1 + 1")
    end)

    it("leaves an input to itself that does not end, the second time", function()
      local t <close> = terminal.prompt()
      t:type "uring.shield(uring.sleep, 60)\n"
      t:rest(0.1)
      t:send(CTRL_C)
      t:rest(0.1)
      t:send(CTRL_C)
      t:expect "input 1 does not end; it is left to itself"
      t:expect "2> "
      assert.matches("input 1  sleep", t:enter ":tasks")
    end)

    it("is survived often", function()
      local t <close> = terminal.prompt()
      t:type "uring.sleep(60)\n"
      for _ = 1, 30 do
        t:send(CTRL_C)
        t:rest(0.01)
      end
      t:expect "interrupted"
      t:rest(0.1)
      t:type "'still ' .. 'here'\n"
      t:expect '"still here"'
    end)
  end)

  describe("at Ctrl-D", function()
    it("ends", function()
      local t <close> = terminal.prompt()
      t:type(CTRL_D)
      assert.are.equal(0, t:wait())
    end)

    it("tells what was still running, and lets it clean up", function()
      local t <close> = terminal.prompt()
      t:enter([[sleeper = uring.spawn(function()
        local g <close> = setmetatable({}, { __close = function() print 'cleaned' end })
        uring.sleep(60) end)]])
      t:expect "2> "
      t:type(CTRL_D)
      t:expect "end of input; 1 task was still running:\n"
      t:expect "sleeper  sleep"
      t:expect "cleaned\n"
      assert.are.equal(0, t:wait())
    end)

    it("waits for tasks that do not end, but not for ever", function()
      local t <close> = terminal.prompt()
      t:enter "stubborn = uring.spawn(function() uring.shield(uring.sleep, 600) end)"
      t:rest(0.05)
      local began = uring.now()
      t:type(CTRL_D)
      t:expect "1 of them did not end when cancelled:\n"
      assert.are.equal(0, t:wait())
      assert.is_true(uring.now() - began < (helper.slow and 20 or 4))
    end)
  end)

  it("ends when the terminal is closed, and lets tasks clean up", function()
    local path = helper.tmpname ""
    local t <close> = terminal.prompt()
    t:enter(("path = %q"):format(path))
    t:enter("bg = uring.spawn(function() local g <close> = setmetatable({}, { __close = function() "
      .. "io.open(path, 'w'):write 'cleaned' end }) uring.sleep(60) end)")
    t:rest(0.05)
    testkit.close(t.fd)
    assert.are.equal(0, testkit.wait(t.pid))
    t.pid = nil
    assert.are.equal("cleaned", io.open(path):read "a")
  end)

  it("ends when the terminal is closed though an input loops", function()
    local t <close> = terminal.prompt()
    t:type "while true do end\n"
    t:rest(0.1)
    testkit.close(t.fd)
    assert.are.equal(0, testkit.wait(t.pid))
    t.pid = nil
  end)

  it("outlives the terminal where SIGHUP is ignored, until its tasks have ended", function()
    local path = helper.tmpname ""
    local t <close> = terminal.prompt { before = "trap '' HUP;" }
    t:enter(("path = %q"):format(path))
    t:enter("server = uring.spawn(function() for c in uring.listen('127.0.0.1:0'):clients() do end end)")
    t:enter("bg = uring.spawn(function() uring.sleep(0.3) io.open(path, 'w'):write 'lived on' server:cancel() end)")
    testkit.close(t.fd)
    assert.are.equal(0, testkit.wait(t.pid))
    t.pid = nil
    assert.are.equal("lived on", io.open(path):read "a")
  end)

  it("ends cleanly at SIGTERM", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(uring.sleep, 60)"
    testkit.kill(t.pid, 15)
    t:expect "terminated; 1 task was still running:"
    assert.are.equal(0, t:wait())
  end)

  it("takes a paste as one input", function()
    local t <close> = terminal.prompt()
    local lines = { "local sum = 0" }
    for i = 2, 199 do
      lines[i] = "sum = sum + " .. i
    end
    lines[200] = "return sum"
    t:send("\27[200~" .. table.concat(lines, "\r") .. "\27[201~")
    t:expect "return sum"
    t:send "\r"
    t:expect("\n" .. (199 * 200 // 2 - 1) .. "\n")
    t:expect "2> "
  end)

  it("takes a paste without brackets line by line", function()
    local t <close> = terminal.prompt()
    local lines = { "sum = 0" }
    for i = 2, 200 do
      lines[i] = "sum = sum + " .. i
    end
    t:send(table.concat(lines, "\n") .. "\n")
    t:expect "201> "
    assert.matches("\n" .. (200 * 201 // 2 - 1) .. "\n", t:enter "sum")
  end)

  it("waits for the end of a paste, and tasks run on", function()
    local t <close> = terminal.prompt()
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) print 'ran on' end)"
    t:send "\27[200~1 + "
    t:expect "ran on\n"
    t:send "1\27[201~\n"
    t:expect "\n2\n"
  end)

  it("leaves out of a paste what is no text", function()
    local t <close> = terminal.prompt()
    local bytes = {}
    for i = 0, 255 do -- but for Ctrl-C, Ctrl-Z and escape, which mean something
      bytes[#bytes + 1] = i ~= 3 and i ~= 26 and i ~= 27 and string.char(i) or ""
    end
    t:send("\27[200~--" .. table.concat(bytes) .. "\27[201~")
    t:rest(0.2)
    t:send(CTRL_C)
    t:expect "1> "
    assert.matches("\n2\n", t:enter "1 + 1")
  end)

  it("survives bytes that are no text, typed", function()
    local t <close> = terminal.prompt()
    local bytes = {}
    for i = 1, 2000 do
      local byte = i * 73 % 256
      bytes[i] = (byte == 4 or byte == 26) and "x" or string.char(byte)
    end
    t:send(table.concat(bytes))
    t:rest(0.3)
    for _ = 1, 3 do
      t:send(CTRL_C)
      t:rest(0.1)
    end
    t:send "\n'al' .. 'ive'\n"
    t:expect '"alive"'
  end)

  it("is not ended by Ctrl-\\ while an input runs, but by three if nothing else does", function()
    local t <close> = terminal.prompt { before = "ulimit -c 0;" }
    t:type "uring.sleep(0.3) print 'slept'\n"
    t:rest(0.1)
    t:send "\28"
    t:expect "slept\n"
    t:expect "2> "
    t:type "('a'):rep(1000):find(('a*'):rep(100) .. 'b')\n" -- loops in C
    t:rest(0.2)
    t:send "\3"
    for _ = 1, 3 do
      t:send "\28"
      t:rest(0.05)
    end
    assert.are.equal(128 + 3, t:wait())
  end)

  it("follows the size of the window", function()
    local t <close> = terminal.prompt { columns = 80 }
    t:type("'" .. ("x"):rep(50))
    t:resize(24, 30)
    t:rest(0.1)
    t:type(("y"):rep(20) .. "'\n")
    t:expect('"' .. ("x"):rep(50) .. ("y"):rep(20) .. '"')
    t:expect "2> "
  end)

  it("completes names, fields, methods and commands", function()
    local t <close> = terminal.prompt()
    t:enter "widget = { colour = 'red' }"
    t:type("wid" .. TAB .. ".col" .. TAB .. "\n")
    t:expect '"red"'
    t:expect "3> "
    t:type("local wonderful = 1\n")
    t:expect "4> "
    t:type("wond" .. TAB .. " + 41\n")
    t:expect "\n42\n"
    t:expect "5> "
    t:type("uring.conn" .. TAB .. "\n")
    t:expect "function (" -- uring.connect
    t:expect "6> "
    t:type("('x'):rep(2) s = 'abc'\n")
    t:expect "> "
    t:type("s:upp" .. TAB .. "()\n")
    t:expect '"ABC"'
    t:expect "> "
    t:type(":sta" .. TAB .. "\n")
    t:expect "completed ="
  end)

  it("completes without calling anything", function()
    local t <close> = terminal.prompt()
    t:enter "trap = setmetatable({}, { __index = function() error 'called' end })"
    t:type("trap.x" .. TAB .. TAB)
    t:type("trap:y" .. TAB .. TAB)
    t:type("nothing.at.all" .. TAB)
    t:type(CTRL_C)
    t:expect "2> "
    assert.is_nil(t:rest(0.05):find "called")
  end)

  it("keeps its history from one session to the next", function()
    local state = os.tmpname()
    os.remove(state)
    do
      local t <close> = terminal.prompt { state = state }
      t:enter "1 + 41"
      t:type "for i = 1, 1 do\nprint('hist' .. i)\nend\n"
      t:expect "hist1\n3> "
      t:type(CTRL_D)
      assert.are.equal(0, t:wait())
    end
    do
      local t <close> = terminal.prompt { state = state }
      t:type(UP)
      t:expect "end"
      t:type "\n"
      t:expect "hist1\n"
      t:expect "> "
      t:type(UP .. UP .. "\n")
      t:expect "\n42\n"
    end
    local mode = io.popen("stat -c %a " .. state .. "/uring/history"):read "l"
    assert.are.equal("600", mode)
    os.execute("rm -r " .. state)
  end)

  it("leaves what is typed ahead to an input that reads", function()
    local t <close> = terminal.prompt()
    t:type "line = io.read()\n"
    t:rest(0.1)
    t:send "what was typed\n"
    t:expect "2> "
    assert.matches('\n"what was typed"\n', t:enter "line")
  end)

  it("goes on after it was stopped", function()
    local t <close> = terminal.prompt()
    t:type "1 + "
    testkit.kill(t.pid, 19)
    t:rest(0.05)
    testkit.kill(t.pid, 18)
    t:expect "1> 1 + "
    t:type "2\n"
    t:expect "\n3\n"
  end)

  it("leaves the terminal as it was", function()
    local t <close> = terminal.open(
      "stty -a >/tmp/$$.before; TERM=xterm XDG_STATE_HOME=/dev/null/none lua5.4 lua/bin/uring; stty -a >/tmp/$$.after; "
      .. "cmp /tmp/$$.before /tmp/$$.after && echo same; rm /tmp/$$.before /tmp/$$.after")
    t:expect "1> "
    t:type "uring.spawn(function() uring.sleep(0.05) os.exit(0) end) and 1\n" -- while the line is readline's
    t:expect "same\n"
    assert.are.equal(0, t:wait())
  end)

  it("says what exhausts memory, and goes on", function()
    if helper.slow then
      return pending "sanitizers and valgrind take more memory than there would be"
    end
    local t <close> = terminal.prompt { before = "ulimit -v 300000;" }
    t:enter "bg = uring.spawn(uring.sleep, 60)"
    t:type "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) end\n"
    t:expect "not enough memory\n"
    t:expect "> "
    assert.matches("\n\"waiting\"\n", t:enter "bg:status()")
  end)
end)

describe("the prompt on a terminal without readline", function()
  helper.watch(before_each, after_each)

  it("does the same", function()
    local t <close> = terminal.prompt { plain = true }
    assert.matches("\n42\n", t:enter "40 + 2")
    t:type "for i = 1, 2 do\n"
    t:expect "2>> "
    t:type "print('n' .. i) end\n"
    t:expect "n1\nn2\n3> "
    t:enter "bg = uring.spawn(function() uring.sleep(0.05) print 'from a task' end)"
    t:expect "from a task\n4> "
    t:type "uring.sleep(60)\n"
    t:rest(0.1)
    t:send(CTRL_C)
    t:expect "interrupted\n"
    t:expect "5> "
    t:type "half a line"
    t:send(CTRL_C)
    t:expect "^C\n5> "
    t:type "while true do end\n"
    t:rest(0.1)
    t:send(CTRL_C)
    t:expect "interrupted!"
    t:expect "> "
    t:type(CTRL_D)
    assert.are.equal(0, t:wait())
  end)

  it("is what there is when the library cannot be loaded", function()
    local t <close> = terminal.prompt {
      arguments = [[-e 'package.preload["uring.readline"] = function() error "none" end' -i]];
    }
    assert.matches("\n42\n", t:enter "40 + 2")
    t:type(CTRL_D)
    assert.are.equal(0, t:wait())
  end)
end)
