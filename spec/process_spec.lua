local helper = require "spec.support.helper"
local uring = require "uring"

local testkit = helper.testkit
local errno = uring.errno
local spawn = uring.process.spawn
local pack = table.pack

-- A script of its own, ended where it hangs.
local function script(chunk, prefix)
  return helper.script(chunk, "timeout --foreground -k 1 30 env " .. (prefix or ""))
end

-- Under valgrind exec runs in a process that shares no memory: what it failed
-- with is not known.
local function with_errors_of_exec(name, fn)
  if helper.valgrind then
    pending(name .. ": valgrind does not tell what exec fails with")
  else
    it(name, fn)
  end
end

local function shell(text, options)
  options = options or {}
  options[1], options[2], options[3] = "sh", "-c", text
  return spawn(options)
end

-- The standard output of a shell, given what it is spawned with besides.
local function output_of(text, options)
  options = options or {}
  options.stdout = "pipe"
  local process <close> = assert(shell(text, options))
  return process.stdout:read "a", process:wait()
end

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

-- Streams that are closed after the spec.
local opened = {}
local function pipe(make)
  local one, other = (make or uring.pipe)()
  table.insert(opened, one)
  table.insert(opened, other)
  return one, other
end

-- Is there a process of that number, dead or alive?
local function exists(pid)
  return testkit.kill(pid, 0)
end

-- It has ended, and nobody of ours has to wait for it.
local function is_gone(pid)
  local file = io.open(("/proc/%d/stat"):format(pid))
  local state = file and (file:read "a" or ""):match "^%d+ %(.*%) (%a)"
  if file then
    file:close()
  end
  return state == nil or state == "Z" or state == "X"
end

if not helper.can_spawn() then
  describe("a process", function()
    it("is spawned", function() pending "this valgrind knows no pidfd" end)
  end)
  return
end

describe("a process", function()
  after_each(function()
    helper.cleanup()
    for _, stream in ipairs(opened) do
      stream:close()
    end
    opened = {}
    helper.collect()
    helper.eventually(function() return not testkit.children() end, "there is a child left")
  end)
  helper.watch(before_each, after_each)

  describe("is spawned", function()
    it("and waited for", function()
      local process <close> = assert(spawn { "true" })
      assert.are.same({ n = 3, true, "exit", 0 }, pack(process:wait()))
      assert.are.same({ n = 3, true, "exit", 0 }, pack(process:wait()))
      assert.are.same({ "exit", 0 }, { process:status() })
    end)

    it("with arguments that no shell looks at", function()
      local words = { "", " ", "a b", "$HOME", "*", "'", '"', "\\", "\n", "-n", "\xff", ("x"):rep(100000) }
      local process <close> = assert(spawn { "printf", "%s|", stdout = "pipe", table.unpack(words) })
      assert.are.equal(table.concat(words, "|") .. "|", (process.stdout:read "a"))
    end)

    it("with numbers as arguments", function()
      local process <close> = assert(spawn { "printf", "%s|%s", 1, 2.5, stdout = "pipe" })
      assert.are.equal("1|2.5", process.stdout:read "a")
    end)

    it("with its name as it was written", function()
      local process <close> = assert(spawn { "sh", "-c", "echo $0", stdout = "pipe" })
      assert.are.equal("sh", process.stdout:read "l")
    end)

    it("by its path, and by a path from its directory", function()
      assert.is_true((assert(spawn { "/bin/true" }):wait()))
      assert.is_true((assert(spawn { "./true", cwd = "/bin" }):wait()))
    end)

    it("inside a task and outside of one", function()
      local process = assert(spawn { "true" })
      assert.is_true(uring.run(function() return (process:wait()) end))
      process = uring.run(function() return assert(spawn { "true" }) end)
      assert.is_true((process:wait()))
    end)

    it("two hundred times at once", function()
      local count = helper.times(200)
      local results = uring.run(function()
        local numbers = {}
        for i = 1, count do
          numbers[i] = i
        end
        return uring.map(numbers, function(i)
          local process <close> = assert(spawn { "sh", "-c", "read line; exit $line", stdin = "pipe" })
          process.stdin:write(i, "\n")
          return select(3, process:wait())
        end)
      end)
      for i = 1, count do
        assert.are.equal(i % 256, results[i])
      end
    end)

    it("on another thread of this process", function()
      local done
      testkit.in_thread(function()
        done = assert(spawn { "true" })
      end)
      assert.is_true((done:wait()))
    end)

    it("again and again without leaving a descriptor", function()
      local before = testkit.fds()
      collectgarbage "stop"
      for _ = 1, 50 do
        assert.is_true((assert(spawn { "true" }):wait()))
      end
      assert.are.equal(before, testkit.fds())
      collectgarbage "restart"
    end)
  end)

  describe("tells how it ended:", function()
    it("its exit status", function()
      for _, code in ipairs { 1, 2, 127, 255 } do
        assert.are.same({ n = 3, nil, "exit", code }, pack(assert(shell("exit " .. code)):wait()))
      end
    end)

    it("the signal that killed it", function()
      assert.are.same({ n = 3, nil, "signal", 9 }, pack(assert(shell "kill -KILL $$"):wait()))
      assert.are.same({ n = 3, nil, "signal", 15 }, pack(assert(shell "kill -TERM $$"):wait()))
    end)

    it("as os.execute does", function()
      for _, text in ipairs { "exit 0", "exit 3", "kill -INT $$" } do
        local ours = pack(assert(shell(("sh -c '%s'"):format(text))):wait())
        assert.are.same(pack(os.execute(("sh -c '%s'"):format(text))), ours)
      end
    end)

    it("not before its output is read, if it does not end before", function()
      local process <close> = assert(spawn { "cat", stdin = "pipe", stdout = "pipe" })
      assert.are.equal("running", process:status())
      process.stdin:write "x"
      process.stdin:close()
      assert.are.equal("x", process.stdout:read "a")
      assert.is_true((process:wait()))
    end)

    it("to everybody who waits", function()
      uring.run(function()
        local process <close> = assert(shell("read line; exit 7", { stdin = "pipe" }))
        local waiting = {}
        for i = 1, 5 do
          waiting[i] = uring.spawn(process.wait, process)
        end
        uring.sleep(0.01)
        process.stdin:close()
        for i = 1, 5 do
          assert.are.same({ n = 3, nil, "exit", 7 }, pack(waiting[i]:await()))
        end
      end)
    end)

    it("whoever has given up waiting", function()
      uring.run(function()
        local process <close> = assert(shell("read line; exit 7", { stdin = "pipe" }))
        local first, second = uring.spawn(process.wait, process), uring.spawn(process.wait, process)
        uring.sleep(0.01)
        first:cancel()
        assert.is_nil((uring.timeout(0.01, process.wait, process)))
        process.stdin:close()
        assert.are.same({ n = 3, nil, "exit", 7 }, pack(second:await()))
        assert.are.equal("cancelled", first:status())
      end)
    end)

    it("when waiting is cancelled at the moment of its end", function()
      for i = 1, helper.times(30) do
        uring.run(function()
          local process <close> = assert(shell("read line; exit 7", { stdin = "pipe" }))
          local waiting = uring.spawn(process.wait, process)
          uring.sleep(0.002)
          process.stdin:close()
          uring.sleep(i * 0.0001)
          waiting:cancel()
          assert.are.same({ n = 3, nil, "exit", 7 }, pack(process:wait()))
        end)
      end
    end)

    it("not when it is stopped, nor when it goes on", function()
      local process <close> = assert(shell("read line; exit 7", { stdin = "pipe" }))
      assert.is_true(process:kill "STOP")
      helper.eventually(function() return process:status() == "stopped" end)
      assert.are.same({ nil, "timeout", errno.ETIMEDOUT }, { uring.timeout(0.02, process.wait, process) })
      assert.is_true(process:kill "CONT")
      helper.eventually(function() return process:status() == "running" end)
      assert.are.same({ nil, "timeout", errno.ETIMEDOUT }, { uring.timeout(0.02, process.wait, process) })
      process.stdin:close()
      assert.are.same({ n = 3, nil, "exit", 7 }, pack(process:wait()))
    end)

    it("unless SIGCHLD is ignored, where nobody knows", function()
      local output = script [[
        local uring = require "uring"
        require "testkit".ignore_signal(17)
        local process = assert(uring.process.spawn { "sh", "-c", "read line", stdin = "pipe" })
        print(process:status())
        uring.spawn(function() uring.sleep(0.02) process.stdin:close() end)
        print(process:wait())
        print(process:status())
        print(process:kill())
        for _ = 1, 50 do
          local quick = assert(uring.process.spawn { "true" })
          local ok, message, errno = quick:wait()
          assert(ok == nil and message == "true: No child processes" and errno == 10)
        end
      ]]
      assert.are.equal("running\nnil\tsh: No child processes\t10\nlost\nnil\tsh: No such process\t3\n", output)
    end)

    it("unless the program has waited for just any child", function()
      local process = assert(spawn { "true" })
      assert.are.equal(0, testkit.wait(-1))
      assert.are.same({ n = 3, nil, "true: No child processes", errno.ECHILD }, pack(process:wait()))
      assert.are.same({ n = 3, nil, "true: No such process", errno.ESRCH }, pack(process:kill()))
    end)
  end)

  describe("cannot be spawned:", function()
    local function failure(options)
      local before = testkit.fds()
      local results = pack(spawn(options))
      assert.are.equal(before, testkit.fds())
      return results
    end

    with_errors_of_exec("there is no such program", function()
      assert.are.same({ n = 3, nil, "no-such-program: No such file or directory", errno.ENOENT },
        failure { "no-such-program" })
      assert.are.same({ n = 3, nil, "/no/such/program: No such file or directory", errno.ENOENT },
        failure { "/no/such/program", stdin = "pipe", stdout = "pipe", stderr = "pipe" })
      assert.are.same({ n = 3, nil, ": No such file or directory", errno.ENOENT }, failure { "" })
    end)

    with_errors_of_exec("it may not be run", function()
      assert.are.same({ n = 3, nil, "/etc/passwd: Permission denied", errno.EACCES }, failure { "/etc/passwd" })
      assert.are.same({ n = 3, nil, "/tmp: Permission denied", errno.EACCES }, failure { "/tmp" })
    end)

    with_errors_of_exec("it is no program", function()
      local path = helper.tmpname "not a program"
      os.execute("chmod +x " .. path)
      assert.are.same({ n = 3, nil, path .. ": Exec format error", errno.ENOEXEC }, failure { path })
      assert.are.same({ n = 3, nil, path .. "/x: Not a directory", errno.ENOTDIR }, failure { path .. "/x" })
    end)

    with_errors_of_exec("its arguments are too long", function()
      assert.are.same({ n = 3, nil, "true: Argument list too long", errno.E2BIG },
        failure { "true", ("x"):rep(1 << 20) })
    end)

    with_errors_of_exec("the group to join is not there", function()
      assert.are.same({ n = 3, nil, "true: Operation not permitted", errno.EPERM },
        failure { "true", group = 1 })
    end)

    it("its directory is none", function()
      assert.are.same({ n = 3, nil, "/no/such: No such file or directory", errno.ENOENT },
        failure { "true", cwd = "/no/such" })
      assert.are.same({ n = 3, nil, "/etc/passwd: Not a directory", errno.ENOTDIR },
        failure { "true", cwd = "/etc/passwd" })
      assert.are.same({ n = 3, nil, ": No such file or directory", errno.ENOENT }, failure { "true", cwd = "" })
    end)

    it("a file for it cannot be opened", function()
      assert.are.same({ n = 3, nil, "/no/such: No such file or directory", errno.ENOENT },
        failure { "true", stdout = "pipe", stdin = { "/no/such" } })
      assert.are.same({ n = 3, nil, "/etc: Is a directory", errno.EISDIR }, failure { "true", stdout = { "/etc" } })
    end)

    it("a descriptor for it is none", function()
      assert.are.same({ n = 3, nil, "fd 9999: Bad file descriptor", errno.EBADF },
        failure { "true", stdin = 9999, stdout = "pipe" })
    end)

    it("there are no descriptors left, and everything is as before", function()
      local output = script [[
        local uring = require "uring"
        local testkit = require "testkit"
        uring.sleep(0)
        local used = testkit.fds()
        local messages = {}
        testkit.spare_fds(12)
        local taken = {}
        for left = 12, 0, -1 do
          local process, message, errno = uring.process.spawn {
            "sh", "-c", "cat; echo more >&2", stdin = "pipe", stdout = "pipe", stderr = "pipe" }
          if process then
            process.stdin:write "text"
            process.stdin:close()
            assert(process.stdout:read "a" == "text" and process.stderr:read "a" == "more\n")
            assert(process:close())
            messages[#messages + 1] = "ok"
          else
            assert(errno == uring.errno.EMFILE, message)
            messages[#messages + 1] = message
          end
          assert(testkit.fds() == used + 12 - left)
          taken[#taken + 1] = testkit.eventfd(0)
        end
        assert(not testkit.children())
        print(table.concat(messages, "\n"))
      ]]
      local lines = {}
      for line in output:gmatch "[^\n]+" do
        lines[#lines + 1] = line
      end
      assert.are.equal(13, #lines, output)
      assert.are.equal("ok", lines[1])
      assert.are.equal("pipe: Too many open files", lines[13])
    end)
  end)

  describe("is misused:", function()
    local function error_of(options)
      return (helper.error_of(spawn, options):gsub("^%S+:%d+: ", ""))
    end

    it("without a table or a command", function()
      assert.are.equal("bad argument #1 to 'spawn' (table expected, got string)", error_of "ls")
      assert.are.equal("bad argument #1 to 'spawn' (table expected, got nil)",
        (helper.error_of(spawn):gsub("^%S+:%d+: ", "")))
      assert.are.equal("bad argument #1 to 'spawn' (there is no command at [1])", error_of {})
    end)

    it("with words that are none", function()
      assert.are.equal("argument [1] of spawn: string expected, got table", error_of { {} })
      assert.are.equal("argument [2] of spawn: string expected, got boolean", error_of { "a", true })
      assert.are.equal("argument [2] of spawn: there is a zero byte in it", error_of { "a", "b\0c" })
      assert.are.equal("option 'cwd' of spawn: there is a zero byte in it", error_of { "a", cwd = "/\0" })
      assert.matches("^unknown option '5' of spawn; it takes cwd", error_of { "a", [5] = "b" })
    end)

    it("with options that are none", function()
      assert.matches("^unknown option 'stdn' of spawn %(did you mean 'stdin'%?%); it takes cwd env fds grace group "
        .. "session setenv stderr stdin stdout$", error_of { "a", stdn = "pipe" })
      assert.are.equal("option 'cwd' of spawn: string expected, got number", error_of { "a", cwd = 1 })
      assert.are.equal("option 'session' of spawn: boolean expected, got number", error_of { "a", session = 1 })
      assert.are.equal("option 'grace' of spawn: number expected, got string", error_of { "a", grace = "1" })
      assert.are.equal("option 'grace' of spawn: -1 is not from 0 to 1000000 seconds", error_of { "a", grace = -1 })
      assert.are.equal("option 'grace' of spawn: inf is not from 0 to 1000000 seconds",
        error_of { "a", grace = math.huge })
      assert.matches("^option 'grace' of spawn: %-?nan is not from", error_of { "a", grace = 0 / 0 })
    end)

    it("with groups that are none", function()
      for _, group in ipairs { 0, -1, 1.5, "x" } do
        assert.are.equal("option 'group' of spawn: true, or the number of a group, expected, got " .. tostring(group),
          error_of { "a", group = group })
      end
      assert.are.equal("option 'group' of spawn: a process with a session of its own cannot join another group",
        error_of { "a", group = 5, session = true })
    end)

    it("with variables that are none", function()
      assert.are.equal("option 'env' of spawn: names of variables expected, got number",
        error_of { "a", env = { "A=b" } })
      assert.are.equal([[option 'env' of spawn: "A=" is no name of a variable]],
        error_of { "a", env = { ["A="] = "" } })
      assert.are.equal([[option 'setenv' of spawn: "" is no name of a variable]],
        error_of { "a", setenv = { [""] = "" } })
      assert.are.equal("option 'env' of spawn: A: string expected, got boolean", error_of { "a", env = { A = false } })
      assert.are.equal("option 'setenv' of spawn: A: string expected, got boolean",
        error_of { "a", setenv = { A = true } })
      assert.are.equal("option 'env' of spawn: A: there is a zero byte in it", error_of { "a", env = { A = "\0" } })
    end)

    it("with descriptors that are none", function()
      local expected = '"inherit", "null", "pipe", { path, mode }, a descriptor or what has one expected, got '
      assert.are.equal("option 'stdin' of spawn: " .. expected .. '"x"', error_of { "a", stdin = "x" })
      assert.are.equal("option 'stdout' of spawn: " .. expected .. "boolean", error_of { "a", stdout = false })
      assert.are.equal("option 'stdin' of spawn: " .. expected .. "-1", error_of { "a", stdin = -1 })
      assert.are.equal("option 'stdin' of spawn: " .. expected .. '"stdout"', error_of { "a", stdin = "stdout" })
      assert.are.equal("option 'stderr' of spawn: " .. '"inherit", "null", "pipe", "stdout", { path, mode }, '
        .. 'a descriptor or what has one expected, got "stderr"', error_of { "a", stderr = "stderr" })
      assert.are.equal("option 'stdin' of spawn: path expected at [1], got nil", error_of { "a", stdin = {} })
      assert.are.equal("option 'stdin' of spawn: invalid mode at [2]", error_of { "a", stdin = { "x", "rw" } })
      assert.are.equal("option 'stdin' of spawn: invalid mode at [2]", error_of { "a", stdin = { "x", 1 } })
      assert.are.equal("option 'fds' of spawn: descriptors from 3 to 255 expected, got 2",
        error_of { "a", fds = { [2] = 1 } })
      assert.are.equal("option 'fds' of spawn: descriptors from 3 to 255 expected, got 256",
        error_of { "a", fds = { [256] = 1 } })
      assert.are.equal("option 'fds' of spawn: descriptors from 3 to 255 expected, got x",
        error_of { "a", fds = { x = 1 } })
      assert.are.equal([[option 'fds' of spawn: 3: "null", { path, mode }, a descriptor or what has one expected, ]]
        .. [[got "pipe"]], error_of { "a", fds = { [3] = "pipe" } })
      local closed = uring.pipe()
      closed:close()
      assert.are.equal("attempt to use a closed pipe", error_of { "a", stdin = closed })
    end)

    it("and the error is the caller's", function()
      local here = debug.getinfo(1, "l").currentline
      local ok, err = pcall(function()
        spawn { "a", nope = 1 }
      end)
      assert.is_false(ok)
      assert.matches(("process_spec.lua:%d: unknown option"):format(here + 2), err)
    end)
  end)

  describe("has descriptors:", function()
    it("pipes to all three", function()
      local process <close> = assert(shell("cat; echo err >&2", { stdin = "pipe", stdout = "pipe", stderr = "pipe" }))
      process.stdin:write "text"
      process.stdin:close()
      assert.are.equal("text", process.stdout:read "a")
      assert.are.equal("err\n", process.stderr:read "a")
      assert.are.equal("pipe (closed)", tostring(process.stdin))
      assert.matches("^pipe %(stdout of sh, fd %d+%)$", tostring(process.stdout))
    end)

    it("those that it is given and no others", function()
      local rd, wr = pipe()
      uring.sleep(0) -- there is a ring
      local leaky = testkit.eventfd(0)
      local text = "for f in /proc/self/fd/*; do echo ${f##*/}; done" -- the shell itself reads the directory
      local function list(options)
        return (output_of(text, options):gsub("\n", " "))
      end
      assert.are.equal("0 1 2 3 ", list()) -- 3 is the directory
      assert.are.equal("0 1 2 3 7 ", list { fds = { [7] = rd } })
      local names = {}
      for name in list { fds = { [3] = rd, [4] = wr, [255] = "null" } }:gmatch "%d+" do
        names[#names + 1] = tonumber(name)
      end
      table.sort(names)
      assert.are.same({ 0, 1, 2, 3, 4, 5, 255 }, names)
      testkit.close(leaky)
    end)

    it("where this process lets them stand open for others", function()
      local out = script [[
        local uring = require "uring"
        local process <close> = assert(uring.process.spawn {
          "sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/}; done", stdout = "pipe" })
        print((process.stdout:read "a":gsub("\n", " ")))
      ]]
      assert.are.equal("0 1 2 3 \n", out)
      out = script([[
        local uring = require "uring"
        local process <close> = assert(uring.process.spawn {
          "sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/}; done", stdout = "pipe" })
        print((process.stdout:read "a":gsub("\n", " ")))
      ]], "sh -c 'exec \"$@\" 8</dev/null 9</dev/null' sh")
      assert.are.equal("0 1 2 3 \n", out)
    end)

    it("files, by path and mode", function()
      local input, output = helper.tmpname "from a file\n", helper.tmpname "old\n"
      assert.is_true((assert(shell("cat", { stdin = { input }, stdout = { output } })):wait()))
      assert.are.equal("from a file\n", contents(output))
      local append = { output, "a" }
      assert.is_true((assert(shell("echo more; echo err >&2", { stdout = append, stderr = append })):wait()))
      assert.are.equal("from a file\nmore\nerr\n", contents(output))
      assert.is_true((assert(shell("cat <&9 >&8", { fds = { [9] = { input, "r" }, [8] = { output, "w" } } })):wait()))
      assert.are.equal("from a file\n", contents(output))
    end)

    it("/dev/null", function()
      assert.are.equal("", (output_of("cat", { stdin = "null" })))
      assert.is_true((assert(shell("echo x; echo y >&2", { stdout = "null", stderr = "null" })):wait()))
    end)

    it("streams of this process, and numbers", function()
      local rd, wr = pipe()
      assert.is_true((assert(shell("echo one", { stdout = wr })):wait()))
      assert.is_true((assert(shell("echo two", { stdout = wr:fd() })):wait()))
      assert.are.equal("one", rd:read "l")
      assert.are.equal("two", rd:read "l")
      local a, b = pipe(uring.socketpair)
      local process <close> = assert(shell("read line; echo got $line", { stdin = b, stdout = b }))
      a:write "this\n"
      assert.are.equal("got this", a:read "l")
      assert.is_true((process:wait()))
    end)

    it("the standard ones changed about", function()
      local out = output_of("echo out; echo err >&2", { stderr = "stdout" })
      assert.are.equal("out\nerr\n", out)
      -- what goes to 1 and to 2 here is exchanged there
      out = script([[
        local uring = require "uring"
        assert(uring.process.spawn { "sh", "-c", "echo out; echo err >&2", stdout = 2, stderr = 1 }):wait()
      ]], "sh -c 'exec \"$@\" 2>/dev/null' sh")
      assert.are.equal("err\n", out)
    end)

    it("one process's output for another's input", function()
      local first <close> = assert(shell("printf 'c\\na\\nb\\n'", { stdout = "pipe" }))
      local second <close> = assert(spawn { "sort", stdin = first.stdout, stdout = "pipe" })
      first.stdout:close()
      assert.are.equal("a\nb\nc\n", second.stdout:read "a")
      assert.is_true((first:wait()))
      assert.is_true((second:wait()))
    end)

    it("although this process has none of 0, 1 and 2", function()
      local path = helper.tmpname()
      script(("local results = io.open(%q, 'w')"):format(path) .. [[
        local uring = require "uring"
        for fd = 0, 2 do require "testkit".close(fd) end
        local process = assert(uring.process.spawn { "sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/}; done",
          stdout = "pipe" })
        results:write((process.stdout:read "a":gsub("\n", " ")), tostring(process:wait()))
        results:close()
      ]])
      assert.are.equal("0 1 true", contents(path))
    end)

    it("pipes that are no obstacle: more output than they hold", function()
      local n = 300000
      local process <close> = assert(spawn { "head", "-c", n, "/dev/zero", stdout = "pipe" })
      assert.are.equal(n, #process.stdout:read "a")
    end)

    it("a stdin that it has closed: EPIPE, and this process lives", function()
      local out, status = script [[
        local uring = require "uring"
        local process = assert(uring.process.spawn { "sh", "-c", "exec <&-; echo ready; read x", stdin = "pipe",
          stdout = "pipe" })
        process.stdout:read "l"
        print(process.stdin:write "too late")
        print(process.stdin:write(("x"):rep(1000000)))
        process:close()
      ]]
      assert.are.equal("nil\twrite: Broken pipe\t32\t0\nnil\twrite: Broken pipe\t32\t0\n", out)
      assert.are.equal(0, status)
    end)

    it("a SIGPIPE as by default, and no signal blocked", function()
      assert.are.equal("141\n", (output_of "{ { yes; echo $? >&3; } | head -n 1 >/dev/null; } 3>&1"))
      local out = output_of "cat /proc/self/status"
      assert.are.equal("0000000000000000", out:match "SigBlk:%s(%x+)")
      assert.are.equal("0000000000000000", out:match "SigCgt:%s(%x+)")
      assert.are.equal(0, tonumber(out:match "SigIgn:%s(%x+)", 16) & 1 << 12) -- SIGPIPE
      -- others that are started have it, too
      local other = io.popen "grep SigIgn /proc/self/status"
      assert.are.equal(0, tonumber(other:read "a":match "SigIgn:%s(%x+)", 16) & 1 << 12)
      other:close()
    end)
  end)

  describe("has surroundings:", function()
    it("an environment of its own", function()
      assert.are.equal("A=1\nB=two words\nPATH=/bin\n",
        (output_of("env | grep -v -e PWD -e SHLVL -e '^_=' | sort",
          { env = { A = 1, B = "two words", PATH = "/bin" } })))
      local process <close> = assert(spawn { "/usr/bin/env", env = {}, stdout = "pipe" })
      assert.are.equal("", process.stdout:read "a")
    end)

    it("changes to this one's", function()
      local out = output_of("echo ${HOME-none}, ${URING_X-none}, ${PATH:+path}",
        { setenv = { HOME = false, URING_X = "x=y" } })
      assert.are.equal("none, x=y, path\n", out)
      out = output_of("echo ${A-none} ${B-none}", { env = { A = "1", B = "2", PATH = "/bin" }, setenv = { B = false } })
      assert.are.equal("1 none\n", out)
    end)

    it("this process's PATH, to be found in", function()
      local dir = os.tmpname()
      os.remove(dir)
      local file = dir .. "/uring-x"
      os.execute(("mkdir %s && printf '#!/bin/sh\\necho found' >%s && chmod +x %s"):format(dir, file, file))
      local out = script([[
        local uring = require "uring"
        local process = assert(uring.process.spawn { "uring-x", env = { PATH = "/nowhere" }, stdout = "pipe" })
        print(process.stdout:read "a", process:wait())
      ]], ("PATH=%s:$PATH"):format(dir))
      os.execute("rm -r " .. dir)
      assert.are.equal("found\n\ttrue\texit\t0\n", out)
    end)

    it("a directory", function()
      assert.are.equal("/\n", (output_of("pwd -P", { cwd = "/" })))
      assert.are.equal("/usr\n", (output_of("pwd -P", { cwd = "/usr/lib/.." })))
    end)

    it("a group, or a session, of its own", function()
      local text = "cut -d' ' -f1,5,6 /proc/$$/stat" -- pid, group, session
      local function ids(options)
        return output_of(text, options):match "(%d+) (%d+) (%d+)"
      end
      local mine = { contents "/proc/self/stat":match "^%d+ %(.*%) %a %d+ (%d+) (%d+)" }
      local _, group, session = ids()
      assert.are.same(mine, { group, session })
      local pid
      pid, group, session = ids { group = true }
      assert.are.equal(pid, group)
      assert.are.equal(mine[2], session)
      pid, group, session = ids { session = true }
      assert.are.same({ pid, pid }, { group, session })
      local leader <close> = assert(shell("read line", { stdin = "pipe", group = true }))
      pid, group = ids { group = leader:pid() }
      assert.are.equal(leader:pid(), tonumber(group))
      assert.are_not.equal(pid, group)
    end)
  end)

  describe("is sent signals:", function()
    it("by name and by number", function()
      for _, signal in ipairs { "TERM", "SIGTERM", 15, 15.0 } do
        local process <close> = assert(spawn { "sleep", 100 })
        assert.is_true(process:kill(signal))
        assert.are.same({ n = 3, nil, "signal", 15 }, pack(process:wait()))
      end
      local process <close> = assert(spawn { "sleep", 100 })
      assert.is_true(process:kill())
      assert.are.same({ n = 3, nil, "signal", 15 }, pack(process:wait()))
    end)

    it("that there are", function()
      local process <close> = assert(spawn { "sleep", 100 })
      local function error_of(signal)
        return (helper.error_of(process.kill, process, signal):gsub("^%S+:%d+: ", ""))
      end
      assert.matches("^bad argument #1 to 'kill': unknown signal 'TREM' %(did you mean 'TERM'.-%); there are HUP INT ",
        error_of "TREM")
      assert.matches("unknown signal 'term' %(did you mean 'TERM'", error_of "term")
      assert.matches("unknown signal 'SIGFOO'.*; there are HUP INT QUIT .* RTMIN RTMAX$", error_of "SIGFOO")
      assert.are.equal("bad argument #1 to 'kill': there is no signal 0", error_of(0))
      assert.are.equal("bad argument #1 to 'kill': there is no signal 65", error_of(65))
      assert.are.equal("bad argument #1 to 'kill': name or number of a signal expected, got 1.5", error_of(1.5))
      assert.are.equal("bad argument #1 to 'kill': name or number of a signal expected, got table", error_of {})
    end)

    it("until it has been waited for", function()
      local process <close> = assert(spawn { "true" })
      helper.eventually(function() return process:status() == "exit" end)
      assert.is_true(process:kill()) -- it is a zombie
      assert.is_true((process:wait()))
      assert.are.same({ n = 3, nil, "true: No such process", errno.ESRCH }, pack(process:kill()))
    end)

    it("with its group", function()
      local process <close> = assert(shell("sleep 100 & echo $!; wait", { group = true, stdout = "pipe" }))
      local grandchild = tonumber(process.stdout:read "l")
      assert.is_true(process:kill_group "KILL")
      assert.are.same({ n = 3, nil, "signal", 9 }, pack(process:wait()))
      helper.eventually(function() return is_gone(grandchild) end)
      assert.are.same({ n = 3, nil, "sh: No such process", errno.ESRCH }, pack(process:kill_group()))
    end)

    it("and its group only if it has one", function()
      local process <close> = assert(spawn { "sleep", 100 })
      assert.matches("process_spec.lua:%d+: the process has no group of its own: spawn it with group = true",
        helper.error_of(process.kill_group, process) and helper.error_of(function() process:kill_group() end))
    end)
  end)

  describe("is closed:", function()
    it("it is asked to end", function()
      local process = assert(shell("trap 'exit 5' TERM; echo; while :; do sleep 0.01; done",
        { stdout = "pipe", stdin = "pipe" }))
      process.stdout:read "l"
      assert.are.same({ n = 3, nil, "exit", 5 }, pack(process:close()))
      assert.are.same({ n = 3, nil, "exit", 5 }, pack(process:close()))
      assert.are.equal("pipe (closed)", tostring(process.stdin))
      assert.are.equal("pipe (closed)", tostring(process.stdout))
    end)

    it("and killed if it does not", function()
      local process = assert(shell("trap '' TERM; echo; while :; do sleep 0.01; done",
        { stdout = "pipe", grace = 0.05 }))
      process.stdout:read "l"
      local began = uring.now()
      assert.are.same({ n = 3, nil, "signal", 9 }, pack(process:close()))
      assert.is_true(uring.now() - began >= 0.05)
    end)

    it("and killed at once without a grace", function()
      local process = assert(spawn { "sleep", 100, grace = 0 })
      assert.are.same({ n = 3, nil, "signal", 9 }, pack(process:close()))
    end)

    it("also if it is stopped", function()
      local process = assert(spawn { "sleep", 100 })
      process:kill "STOP"
      helper.eventually(function() return process:status() == "stopped" end)
      assert.are.same({ n = 3, nil, "signal", 15 }, pack(process:close()))
    end)

    it("with all of its group", function()
      local process = assert(shell("(trap '' TERM; sleep 100) & echo $!; exec sleep 100",
        { group = true, stdout = "pipe" }))
      local grandchild = tonumber(process.stdout:read "l")
      assert.are.same({ n = 3, nil, "signal", 15 }, pack(process:close()))
      helper.eventually(function() return is_gone(grandchild) end)
    end)

    it("while another waits, with all of its group", function()
      uring.run(function()
        local process = assert(shell("(trap '' TERM; sleep 100) & echo $!; exec sleep 100",
          { group = true, stdout = "pipe" }))
        local grandchild = tonumber(process.stdout:read "l")
        local waiting = uring.spawn(process.wait, process)
        uring.sleep(0.01)
        process:close()
        assert.are.same({ n = 3, nil, "signal", 15 }, pack(waiting:await()))
        helper.eventually(function() return is_gone(grandchild) end)
      end)
    end)

    it("by two at once", function()
      uring.run(function()
        local process = assert(shell("trap '' TERM; echo; while :; do sleep 0.01; done",
          { stdout = "pipe", grace = 0.03 }))
        process.stdout:read "l"
        local other = uring.spawn(process.close, process)
        assert.are.same({ n = 3, nil, "signal", 9 }, pack(process:close()))
        assert.are.same({ n = 3, nil, "signal", 9 }, pack(other:await()))
      end)
    end)

    it("after it was waited for: nothing happens", function()
      local process = assert(shell("sleep 100 >/dev/null & echo $!", { group = true, stdout = "pipe" }))
      local grandchild = tonumber(process.stdout:read "l")
      assert.is_true((process:wait()))
      assert.is_true((process:close()))
      assert.is_false(is_gone(grandchild))
      testkit.kill(grandchild, 9)
    end)

    it("while a task reads from it", function()
      uring.run(function()
        local process = assert(spawn { "sleep", 100, stdout = "pipe" })
        local reading = uring.spawn(process.stdout.read, process.stdout, "l")
        uring.sleep(0.005)
        process:close()
        assert.are.same({ nil, "closed", errno.ECANCELED }, { reading:await() })
      end)
    end)

    it("in a task that is cancelled", function()
      local pid
      local task = uring.spawn(function()
        local process <close> = assert(spawn { "sleep", 100 })
        pid = process:pid()
        process:wait()
      end)
      helper.eventually(function() return pid end)
      task:cancel()
      assert.has_error(function() task:await() end)
      assert.is_false(exists(pid))
    end)

    it("in a task that is cancelled at any step", function()
      for steps = 0, 20 do
        local pid
        local task = uring.spawn(function()
          local process <close> = assert(spawn {
            "sh", "-c", "cat; exec sleep 100", stdin = "pipe", stdout = "pipe", stderr = "null", grace = 0.5 })
          pid = process:pid()
          process.stdin:write "line\n"
          process.stdout:read "l"
          process.stdin:close()
          process:wait()
        end)
        for _ = 1, steps do
          uring.yield()
        end
        task:cancel()
        pcall(task.await, task)
        assert.are.equal("cancelled", task:status())
        assert.is_false(pid ~= nil and exists(pid))
        assert.is_false((testkit.children()))
      end
    end)

    it("when a scope is left by an error", function()
      local pid
      assert.matches("boom", helper.error_of(uring.run, function()
        uring.spawn(function()
          local process <close> = assert(spawn { "sleep", 100 })
          pid = process:pid()
          process:wait()
        end)
        uring.sleep(0.01)
        error "boom"
      end))
      assert.is_false(exists(pid))
    end)
  end)

  describe("is dropped:", function()
    it("it ends, and is waited for", function()
      local pid = assert(spawn { "sleep", 100 }):pid()
      helper.collect()
      helper.eventually(function() return not exists(pid) end)
    end)

    it("it is killed if it does not end", function()
      local process = assert(shell("trap '' TERM; echo; while :; do sleep 0.01; done",
        { stdout = "pipe", grace = 0.05 }))
      process.stdout:read "l"
      process = process:pid()
      helper.collect()
      helper.eventually(function() return not exists(process) end)
    end)

    it("with its group", function()
      local process = assert(shell("(trap '' TERM; sleep 100) & echo $!; exec sleep 100",
        { group = true, stdout = "pipe" }))
      local grandchild = tonumber(process.stdout:read "l")
      process = process:pid()
      helper.collect()
      helper.eventually(function() return not exists(process) and is_gone(grandchild) end)
    end)

    it("after it has ended", function()
      local pid = assert(spawn { "true" }):pid()
      helper.eventually(function() return is_gone(pid) end)
      helper.collect()
      helper.eventually(function() return not exists(pid) end)
    end)

    it("not as long as somebody has one of its streams", function()
      local stdout = assert(shell("sleep 0.05; echo still here", { stdout = "pipe" })).stdout
      for _ = 1, 5 do
        helper.collect()
        uring.sleep(0.005)
      end
      assert.are.equal("still here", stdout:read "l")
      stdout:close()
    end)

    it("not as long as a task waits for it", function()
      local waiting = uring.spawn(function()
        return assert(shell "sleep 0.05; exit 3"):wait()
      end)
      for _ = 1, 5 do
        helper.collect()
        uring.sleep(0.005)
      end
      assert.are.same({ n = 3, nil, "exit", 3 }, pack(waiting:await()))
    end)

    it("and the loop still notices that nothing can happen", function()
      local output = script [[
        local uring = require "uring"
        uring.process.spawn { "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done", grace = 0.2 }
        uring.sleep(0.05)
        collectgarbage()
        collectgarbage()
        print(pcall(uring.run, function() uring.sync.channel():receive() end))
      ]]
      assert.matches("^false\t[^\n]*deadlock", output)
    end)

    it("and the loop is not busy with it", function()
      local process = assert(shell("trap '' TERM; echo; while :; do sleep 0.1; done", { stdout = "pipe", grace = 0.3 }))
      process.stdout:read "l"
      process = process:pid()
      helper.collect()
      local before = testkit.cpu()
      uring.sleep(0.2)
      assert.is_true(testkit.cpu() - before < (helper.slow and 0.1 or 0.02))
      assert.is_true(exists(process))
      helper.eventually(function() return not exists(process) end)
    end)
  end)

  it("is not given what is closed while it is started", function()
    uring.run(function()
      local path = helper.tmpname "of somebody else"
      local rd, wr = uring.pipe()
      local spawns = uring.spawn(spawn, { "cat", stdin = rd, stdout = "pipe", fds = { [3] = { path, "r" } } })
      uring.spawn(rd.close, rd)
      local opens = uring.spawn(uring.open, path)
      assert.matches("attempt to use a closed pipe", helper.error_of(spawns.await, spawns))
      assert.is_true(opens:await():close())
      wr:close()
    end)
  end)

  describe("is detached:", function()
    it("it lives on, and leaves no zombie", function()
      local rd, wr = uring.pipe()
      local process = assert(spawn { "cat", stdin = rd, stdout = "null" })
      rd:close()
      local pid = process:pid()
      assert.are.equal(pid, process:detach())
      assert.are.equal("detached", process:status())
      assert.are.equal(("process (cat, pid %d, detached)"):format(pid), tostring(process))
      assert.is_true(process:close())
      for _, method in ipairs { "wait", "kill", "kill_group", "detach" } do
        assert.matches("process_spec.lua:%d+: attempt to use a detached process",
          helper.error_of(function() process[method](process) end))
      end
      process = nil -- luacheck: ignore
      helper.collect()
      uring.sleep(0.01)
      assert.is_false(is_gone(pid))
      wr:close()
      local ended = uring.now()
      helper.eventually(function() return not exists(pid) end)
      assert.is_true(uring.now() - ended < 1.5)
    end)

    it("after it has ended", function()
      local process = assert(spawn { "true" })
      process:wait()
      process:detach()
      process = assert(spawn { "true" })
      helper.eventually(function() return process:status() == "exit" end)
      process:detach()
    end)

    it("while others wait for it, who are told so at once", function()
      uring.run(function()
        local process = assert(spawn { "sh", "-c", "trap '' TERM; echo; exec sleep 10", stdout = "pipe" })
        process.stdout:read()
        local waits = uring.spawn(process.wait, process)
        local closes = uring.spawn(process.close, process)
        uring.sleep(0.002)
        local pid = process:detach()
        local told = helper.error_of(uring.timeout, 1, waits.await, waits)
        local closed = uring.timeout(1, closes.await, closes)
        testkit.kill(pid, 9)
        assert.matches("attempt to use a detached process", told)
        assert.is_true(closed)
      end)
    end)

    it("and ends, in the turn in which somebody begins to wait", function()
      uring.run(function()
        local process = assert(spawn { "sleep", "10" })
        local waits = uring.spawn(process.wait, process)
        local detaches = uring.spawn(function()
          local pid = process:detach()
          testkit.kill(pid, 9)
          for _ = 1, 1e6 do
            if select(2, testkit.children()) == pid then break end
          end
        end)
        assert.matches("attempt to use a detached process", helper.error_of(waits.await, waits))
        detaches:await()
      end)
    end)
  end)

  describe("at the end of the program", function()
    -- A script whose last line it prints before it ends; how long that took.
    local function ended(chunk)
      local output = script([[
        local uring = require "uring"
        local function shell(text, options)
          options = options or {}
          options[1], options[2], options[3] = "sh", "-c", text
          return assert(uring.process.spawn(options))
        end
      ]] .. chunk)
      return output
    end

    it("ends", function()
      local pid = tonumber((ended [[
        p = shell("exec sleep 100", { stdout = "null", stderr = "null" })
        print(p:pid())
      ]]))
      assert.is_true(is_gone(pid))
    end)

    it("is killed after its grace", function()
      local began = uring.now()
      local pid = tonumber((ended [[
        p = shell("trap '' TERM; echo >&3; while :; do sleep 0.01; done", {
          stdout = "null", stderr = "null", grace = 0.2, fds = { [3] = select(2, uring.pipe()) } })
        uring.sleep(0.1)
        print(p:pid())
      ]]))
      assert.is_true(is_gone(pid))
      assert.is_true(uring.now() - began < 5)
    end)

    it("lives on if it is detached, or the state was not closed", function()
      for _, text in ipairs { "p:detach()", "os.exit(0)" } do
        local pid = tonumber((ended([[
          p = shell("exec sleep 100", { stdin = "null", stdout = "null", stderr = "null" })
          print(p:pid())
          io.stdout:flush()
        ]] .. text)))
        assert.is_false(is_gone(pid))
        testkit.kill(pid, 9)
      end
    end)

    it("ends with what waits for it", function()
      local pid = tonumber((ended [[
        p = shell("exec sleep 100", { stdin = "null", stdout = "null", stderr = "null" })
        uring.spawn(p.wait, p)
        uring.spawn(function() local q <close> = p; uring.sleep(100) end)
        uring.sleep(0.01)
        print(p:pid())
      ]]))
      assert.is_true(is_gone(pid))
    end)

    it("and of the ring goes on, with a new ring", function()
      local output = ended [[
        p = shell("read line; exit 4", { stdin = "pipe" })
        local waiting = uring.spawn(p.wait, p)
        uring.sleep(0.01)
        uring.close()
        print(waiting:status())
        p.stdin:close()
        print(p:wait())
      ]]
      assert.are.equal("cancelled\nnil\texit\t4\n", output)
    end)
  end)

  describe("after a fork", function()
    it("is the parent's", function()
      local output = script [[
        local uring = require "uring"
        local testkit = require "testkit"
        local p = assert(uring.process.spawn { "sh", "-c", "read line; exit 4", stdin = "pipe" })
        local pid = testkit.fork()
        if pid == 0 then
          print(tostring(p):match "the parent's")
          for _, method in ipairs { "wait", "status", "kill", "detach" } do
            print(pcall(p[method], p))
          end
          p = nil
          collectgarbage()
          collectgarbage()
          io.stdout:flush()
          testkit.exit(0)
        end
        testkit.wait(pid)
        print(p:status())
        p.stdin:close()
        print(p:wait())
      ]]
      local message = "false\tthis process was spawned before the fork: it is the parent's\n"
      assert.are.equal("the parent's\n" .. message:rep(4) .. "running\nnil\texit\t4\n",
        (output:gsub("%S+%.lua:%d+: ", "")))
    end)

    if not helper.valgrind then
      it("can be spawned in the child", function()
        local output = script [[
          local uring = require "uring"
          local testkit = require "testkit"
          uring.sleep(0)
          local lost = uring.process.spawn { "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done", grace = 0.3 }
          uring.sleep(0.05)
          lost = nil
          collectgarbage()
          collectgarbage()
          local pid = testkit.fork()
          if pid == 0 then
            uring.close()
            local p <close> = assert(uring.process.spawn { "sh", "-c", "read line; exit 4", stdin = "pipe" })
            p.stdin:close()
            print(p:wait())
            io.stdout:flush()
            testkit.exit(0)
          end
          testkit.wait(pid)
          uring.sleep(0.5)
          print(testkit.children())
        ]]
        assert.are.equal("nil\texit\t4\nfalse\n", output)
      end)
    end
  end)

  it("says what it is", function()
    local process <close> = assert(spawn { "sleep", 100 })
    assert.are.equal(("process (sleep, pid %d, running)"):format(process:pid()), tostring(process))
    process:kill "STOP"
    helper.eventually(function() return process:status() == "stopped" end)
    assert.are.equal(("process (sleep, pid %d, stopped)"):format(process:pid()), tostring(process))
    process:kill "KILL"
    process:wait()
    assert.are.equal(("process (sleep, pid %d, signal KILL)"):format(process:pid()), tostring(process))
    local other <close> = assert(spawn { "true" })
    other:wait()
    assert.are.equal(("process (true, pid %d, exit 0)"):format(other:pid()), tostring(other))
  end)
end)
