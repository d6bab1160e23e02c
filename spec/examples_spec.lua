--- Every example, run as its user would: in an interpreter of its own.
--
-- `runs` has one function for each file of examples/; a file without one fails.

local helper = require "spec.support.helper"
local uring = require "uring"

local LIMIT = "timeout 20 "

-- Names that a shell, a printf or an option parser would trip over.
local ODD_NAMES = {
  "plain", "with space", " leading and trailing ", "new\nline", "tab\there", "quote'single", 'quote"double',
  "-rf", "--help", "$(touch pwned)", "`id`", "; ls", "%s%d", "back\\slash", "*", "?", ".hidden", "...",
  "\xff\xfe", "h\xc3\xa9",
}

local function quoted(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local s = file:read "a"
  file:close()
  return s
end

-- Runs a command; what it wrote to either stream, and its exit status.
local function run(command)
  local err_path = os.tmpname()
  local pipe = assert(io.popen(LIMIT .. command .. " 2>" .. err_path))
  local out = pipe:read "a"
  local _, _, status = pipe:close()
  local err = contents(err_path)
  os.remove(err_path)
  return out, err, status
end

-- An example with its arguments, as the shell has them.
local function example(name, arguments)
  return run("lua5.4 examples/" .. name .. " " .. (arguments or ""))
end

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  pipe:close()
  return lines
end

local function has(out, text)
  assert.is_truthy(out:find(text, 1, true), ("%q is not in:\n%s"):format(text, out))
end

local folder -- one of the spec's own, removed after it

local runs = {}

runs["tour.lua"] = function()
  local out, err, status = example "tour.lua"
  assert.are.equal("", err)
  assert.are.equal(0, status)
  has(out, '1000 lines, and the last is "line 1000"')
  has(out, 'there are "line" and, up to the end of that line, " 2"')
  has(out, "No such file or directory\", 2 (ENOENT)")
  has(out, "their numbers add up to 500500")
  has(out, "50 clients got 500 answers")
  has(out, "awaiting it raises: uring.cancelled")
  has(out, 'the next reader gets "sent a little later"')
  has(out, "buffer is lent to the kernel (read on fd ")
  has(out, 'nobody wrote, so that was "cancelled"')
  has(out, '"completed" with 12 bytes, "success wins"')
  has(out, "in flight: 0, bytes lent: 0, tasks: 0")
  assert.are.equal(out:match "(%d+) operations were prepared", out:match "(%d+) have completed")
  assert.is_nil(io.open(out:match "(/%S+): 1000 lines"), "the file is left behind")
end

runs["ring.lua"] = function()
  local out, err, status = example "ring.lua"
  assert.are.equal("", err)
  assert.are.equal(0, status)
  local sections = {}
  for section in (out .. "\n0. "):gmatch "%d%. (.-)\n%f[%d]" do
    sections[#sections + 1] = section:gsub("  +", " ")
  end
  assert.are.equal(5, #sections)
  has(sections[1], "after prepare, status is prepared\n and the buffer is lent\n")
  has(sections[1], "now status is submitted\n")
  has(sections[1], "the buffer is owned, hello")
  has(sections[2], "submit handed over 5\n")
  has(sections[2], "nil, read: Bad file descriptor, 9")
  has(sections[3], "the cancellation says cancelled\n the read itself says nil, read: Operation canceled, 125\n")
  has(sections[4], "after cancel, status is cancelling\n the cancellation says completed, 7\n")
  has(sections[4], "and the data is there in time")
  has(sections[5], "cancelled 2\n")
  has(sections[5], "in_flight 0\n bytes_lent 0")
end

runs["grep.lua"] = function()
  local tree = folder .. "/tree"
  assert(os.execute(("mkdir -p %s/a/b %s/c"):format(tree, tree)))
  local function file(name, text)
    local f <close> = assert(io.open(tree .. "/" .. name, "wb"))
    f:write(text)
  end
  for i = 1, helper.times(200) do
    file(("a/b/%d"):format(i), ("line\n"):rep(i) .. "needle " .. i .. "\n")
  end
  file("c/last line", "no\nnor here\nneedle without end")
  file("binary", "needle\0\nneedle\n")
  file("empty", "")

  local out, err, status = example("grep.lua", ("'^needle' %s LICENSE"):format(tree))
  assert.are.equal("", err)
  assert.are.equal(0, status)
  local lines = lines_of(("grep -rnI '^needle' %s | sort"):format(tree))
  local ours = {}
  for line in out:gmatch "[^\n]+" do
    ours[#ours + 1] = line
  end
  table.sort(ours)
  table.sort(lines)
  assert.are.same(lines, ours)

  out, err, status = example("grep.lua", "nothing%snowhere " .. tree)
  assert.are.equal("", out .. err)
  assert.are.equal(1, status)

  out, err, status = example("grep.lua", ("without %s %s/nope"):format(tree, tree))
  assert.are.equal(2, status)
  has(out, "needle without end")
  assert.are.equal(("grep.lua: %s/nope: No such file or directory\n"):format(tree), err)

  assert.are.equal(2, (select(3, example "grep.lua")))
  assert.are.equal(2, (select(3, example("grep.lua", "'[x'"))))
end

runs["cat.lua"] = function()
  local big, empty = folder .. "/big", folder .. "/empty"
  local file = assert(io.open(big, "wb"))
  for i = 1, 100000 do
    file:write(i, "\0\r\n")
  end
  file:close()
  assert(io.open(empty, "w")):close()

  -- files, standard input in between, byte by byte
  local arguments = (" %s %s - %s <LICENSE >%s"):format(big, empty, big, folder)
  assert.is_true(os.execute(LIMIT .. "lua5.4 examples/cat.lua" .. arguments .. "/ours"))
  assert.is_true(os.execute("cat" .. arguments .. "/theirs"))
  assert.is_true(os.execute(("cmp %s/ours %s/theirs"):format(folder, folder)))

  -- a pipe on both sides, and no argument
  assert.is_true(os.execute(("cat %s | %slua5.4 examples/cat.lua | cmp - %s"):format(big, LIMIT, big)))

  -- what cannot be read is named, and the rest follows
  local out, err, status = example("cat.lua", "/no/such/file . LICENSE")
  assert.are.equal(1, status)
  assert.are.equal("cat.lua: /no/such/file: No such file or directory\ncat.lua: .: Is a directory\n", err)
  assert.are.equal(contents "LICENSE", out)

  -- a full disk ends it
  out, err, status = example("cat.lua", "LICENSE >/dev/full")
  assert.are.equal("", out)
  assert.are.equal(1, status)
  has(err, "No space left on device")
end

-- What diff -r does not compare: types, permissions, targets of links.
local function listing(path)
  return run("find " .. path .. " -mindepth 1 -printf '%P %y %m %l\\0' | sort -z | tr '\\0' '\\n'")
end

local function make_tree(source)
  local per_folder = helper.times(100)
  assert(os.execute("mkdir " .. source))
  for _, odd in ipairs(ODD_NAMES) do
    local below = source .. "/dir " .. odd
    assert(os.execute("mkdir -p " .. quoted(below .. "/" .. odd .. "/deeper/empty")))
    for i = 1, per_folder do
      local name = ODD_NAMES[(i - 1) % #ODD_NAMES + 1] .. i
      local file = assert(io.open((i % 2 == 1 and below or below .. "/" .. odd .. "/deeper") .. "/" .. name, "wb"))
      file:write((name .. "\0"):rep(i % 5 * 100))
      file:close()
    end
  end
  local file = assert(io.open(source .. "/large", "wb"))
  file:write(("0123456789abcde"):rep(400000), "odd end")
  file:close()
  assert(os.execute(([[cd %s && chmod 755 large && chmod 400 'dir plain/plain1' &&
    ln -s large link && ln -s 'dir plain' folder-link && ln -s "/no/such ' place" dangling]]):format(source)))
end

runs["copy.lua"] = function()
  local source, copy = folder .. "/source", folder .. "/the 'copy'"
  make_tree(source)
  local arguments = source .. " " .. quoted(copy)
  local out, err, status = run("sh -c 'umask 022; exec \"$@\"' sh lua5.4 examples/copy.lua " .. arguments)
  assert.are.equal("", out)
  assert.are.equal("", err) -- no progress where nobody looks
  assert.are.equal(0, status)
  assert.is_true(os.execute("diff -r --no-dereference " .. arguments))
  assert.are.equal(listing(source), (listing(quoted(copy))))

  -- a copy that is there already is left alone
  out, err, status = example("copy.lua", source .. "/large " .. quoted(copy))
  assert.are.equal("", out)
  assert.are.equal(1, status)
  has(err, "File exists")

  -- one file, by a name that looks like an option
  assert.is_true(os.execute(('cd %s && %slua5.4 "$OLDPWD"/examples/copy.lua source/large -x && cmp source/large ./-x')
    :format(folder, LIMIT)))

  -- what cannot be copied is named, and the rest follows
  assert(os.execute(("cd %s && mkdir mixed && mkfifo mixed/fifo && echo hello >mixed/file"):format(folder)))
  out, err, status = example("copy.lua", ("%s/mixed %s/mixed2"):format(folder, folder))
  assert.are.equal("", out)
  assert.are.equal(1, status)
  assert.are.equal(("copy.lua: %s/mixed/fifo: is a fifo, left out\n"):format(folder), err)
  assert.are.equal("hello\n", contents(folder .. "/mixed2/file"))

  out, err, status = example("copy.lua", ("%s/missing %s/x"):format(folder, folder))
  assert.are.equal("", out)
  assert.are.equal(1, status)
  has(err, "/missing: No such file or directory")

  -- progress where somebody does
  if os.execute "command -v script >/dev/null" then
    out = run(("script -qec 'lua5.4 examples/copy.lua %s %s/again' /dev/null </dev/null"):format(source, folder))
    assert.is_truthy(out:find "0 of %d+, 0%.0 MB", out)
  end
end

runs["fetch_many.lua"] = function()
  local out, err, status = example("fetch_many.lua", tostring(helper.times(1000)))
  assert.are.equal("", err)
  assert.are.equal(0, status)
  has(out, ("%d requests, 0 failed, at most 64 at a time\n"):format(helper.times(1000)))
  assert.is_truthy(out:find "%d MB in [%d.]+ s: %d+ requests a second\n")

  out = example("fetch_many.lua", "1")
  has(out, "1 requests, 0 failed, at most 1 at a time\n")
end

runs["pool.lua"] = function()
  local out, err, status = example("pool.lua", "50 2")
  assert.are.equal("", err)
  assert.are.equal(0, status)
  has(out, "50 clients, 2 buffers of 512 bytes")
end

runs["embed_luv.lua"] = function()
  if not os.execute [[lua5.4 -e 'require "luv"' 2>/dev/null]] then
    return pending "luv is not installed"
  end
  local out, err, status = example "embed_luv.lua"
  assert.are.equal("", err)
  assert.are.equal(0, status)
  assert.is_true(tonumber(out:match "uring's tasks read (%d+) bytes from files\n") > #contents "examples/embed_luv.lua")
  has(out, "80 of 80 lines came back to clients that are tasks\n")
  has(out, "20 of 20 lines came back to libuv's client\n")
  assert.is_true(tonumber(out:match "libuv's timer ticked (%d+) times meanwhile\n") >= 10)
end

-- Talks to an echo server until it is known to work, failing connections
-- included.
local function talk_to(address)
  uring.run(function()
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = uring.spawn(function()
        local connection <close> = assert(uring.connect(address))
        local text = ("%d "):format(i):rep(i * 1000)
        local writer = uring.spawn(function()
          assert(connection:write(text))
          assert(connection:shutdown "w")
        end)
        assert.are.equal(text, connection:read "a")
        writer:await()
      end)
    end
    for _, task in ipairs(tasks) do
      task:await()
    end
    for _ = 1, 5 do -- leave in the middle of it
      local connection <close> = assert(uring.connect(address))
      assert(connection:write(("x"):rep(100000)))
    end
    local connection <close> = assert(uring.connect(address))
    assert(connection:write "still there?\n")
    assert.are.equal("still there?", connection:read "l")
  end)
end

-- Starts an example that serves, calls fn with the address it listens at, and
-- ends it.  What it wrote to standard error.
local function while_serving(name, arguments, fn)
  local err_path = folder .. "/err"
  local command = ("echo $$; exec %slua5.4 examples/%s %s 2>%s"):format(LIMIT, name, arguments, err_path)
  local server = assert(io.popen(command))
  local pid = server:read "l"
  local address = (server:read "l" or contents(err_path)):match "^listening on (.+)$"
  local ok, err
  if address then
    ok, err = pcall(fn, address)
  end
  os.execute("kill " .. pid)
  assert.are.equal("", server:read "a") -- it has ended
  server:close()
  assert.is_truthy(address, contents(err_path))
  assert.is_true(ok, err)
  return contents(err_path)
end

runs["echo_server.lua"] = function()
  local said = while_serving("echo_server.lua", "127.0.0.1:0", talk_to)
  for line in said:gmatch "[^\n]+" do -- one a connection that broke, and nothing else
    assert.is_truthy(line:find "^echo_server%.lua: 127%.0%.0%.1:%d+: %w+: ", line)
  end

  local _, text, status = example("echo_server.lua", "there.is.none.invalid:7")
  assert.are.equal(1, status)
  has(text, "there.is.none.invalid:7: Name or service not known")
end

-- The server of graceful.lua with some clients, who have asked for so many lines
-- each and have got the first.
local function start_graceful(grace, clients, lines)
  local server = assert(uring.process.spawn {
    "lua5.4", "examples/graceful.lua", "127.0.0.1:0", grace, stdout = "pipe" })
  local address = assert(server.stdout:read "l"):match "^listening on (.+)$"
  local connections = {}
  for i = 1, clients do
    connections[i] = assert(uring.connect(address))
    assert(connections[i]:write(("GET /%d HTTP/1.0\r\nHost: x\r\n\r\n"):format(lines)))
  end
  for i = 1, clients do
    repeat
      local line = assert(connections[i]:read "l")
    until line == "line      1"
  end
  return server, address, connections
end

local function be_graceful()
  for _, name in ipairs { "TERM", "INT" } do
    local server <close>, address, connections = start_graceful(10, 20, 6)
    local idle <close> = assert(uring.connect(address)) -- has not asked for anything
    local began = uring.now()
    assert(server:kill(name))
    assert.are.equal(name .. ": no new connections", server.stdout:read "l")
    assert.is_nil((uring.connect(address)))
    idle:close()
    for _, connection in ipairs(connections) do
      local rest = {}
      for i = 2, 6 do
        rest[i - 1] = ("line %6d\n"):format(i)
      end
      assert.are.equal(table.concat(rest), connection:read "a")
      connection:close()
    end
    assert.are.equal("all have been served\n", server.stdout:read "a")
    assert.are.same({ true, "exit", 0 }, { server:wait() })
    assert.is_true(uring.now() - began < 5)
  end

  -- the deadline
  local slow <close>, _, connections = start_graceful(0.3, 2, 1000)
  assert(slow:kill "TERM")
  assert.are.equal("TERM: no new connections\n2 cut off\n", slow.stdout:read "a")
  assert.are.same({ nil, "exit", 1 }, { slow:wait() })
  for _, connection in ipairs(connections) do
    connection:close()
  end

  -- once more, and it ends at once
  local stubborn <close>, _, waiting = start_graceful(10, 1, 1000)
  assert(stubborn:kill "TERM")
  assert.are.equal("TERM: no new connections", stubborn.stdout:read "l")
  assert(stubborn:kill "TERM")
  assert.are.equal("", stubborn.stdout:read "a")
  assert.is_nil((stubborn:wait()))
  waiting[1]:close()
  return true
end

runs["graceful.lua"] = function()
  if not helper.can_spawn() then
    return pending "this valgrind knows no pidfd"
  end
  assert.is_true((uring.timeout(20, be_graceful)))
end

-- Reads from a chat until a line that has the text in it.
local function until_line(stream, text)
  local seen = {}
  for line in stream:lines() do
    seen[#seen + 1] = line
    if line:find(text, 1, true) then
      return
    end
  end
  error(("%q is not in: %s"):format(text, table.concat(seen, " | ")))
end

local function chat(address)
  uring.timeout(5, function()
    local streams = {}
    for i, name in ipairs { "ann", "bob", "cyd" } do
      local stream = assert(uring.connect(address))
      streams[i] = stream
      stream:write(name, "\n")
      until_line(stream, i == 1 and "nobody else" or "Here: ann")
    end
    local ann <close> = streams[1]
    local bob <close> = streams[2]
    local cyd = streams[3]
    until_line(ann, "* cyd has come")
    bob:write "hello, everybody\n"
    until_line(ann, "bob: hello, everybody")
    until_line(cyd, "bob: hello, everybody")
    local other <close> = assert(uring.connect(address)) -- a name that is taken
    other:write "ann\n"
    until_line(other, "somebody else")
    cyd:sockopt("linger", 0)
    cyd:close() -- with a reset
    until_line(ann, "* cyd has left")
    until_line(bob, "* cyd has left")
    -- who does not read does not keep the others waiting
    for i = 1, 300 do
      ann:write(("x"):rep(900), " ", i, "\n")
    end
    ann:write "the end\n"
    local dora <close> = assert(uring.connect(address))
    dora:write "dora\n"
    until_line(dora, "Here: ann")
    return true
  end)
end

runs["chat.lua"] = function()
  assert.are.equal("", while_serving("chat.lua", "127.0.0.1:0", chat))
end

-- Through the proxy and back: questions of any size, with half-closes.
local function ask_through(proxy, listener)
  assert.is_true(uring.timeout(10, function()
    local serving = uring.spawn(listener.serve, listener, function(stream)
      local question = stream:read "a"
      stream:write(question:reverse())
    end)
    uring.map({ 0, 1, 5, 16384, 70000, 3000000 }, function(size)
      local question = ("0123456789abcdef"):rep(size // 16 + 1):sub(1, size)
      local stream <close> = assert(uring.connect(proxy))
      stream:write(question)
      stream:shutdown "w"
      assert.is_true(stream:read "a" == question:reverse(), size .. " bytes")
    end)
    listener:close()
    serving:await()
    return true
  end))
end

runs["proxy.lua"] = function()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local err = while_serving("proxy.lua", "127.0.0.1:0 " .. listener:address(), function(address)
    ask_through(address, listener)
    -- nobody is behind it any more: that is said, and it goes on
    local stream <close> = assert(uring.connect(address))
    assert.is_nil((stream:read "a" or ""):match ".")
  end)
  assert.are.equal(("proxy.lua: %s: Connection refused\n"):format(err:match "127%.0%.0%.1:%d+" or "?"), err)
end

runs["portscan.lua"] = function()
  local listener <close> = assert(uring.listen "127.0.0.1:0")
  local port = math.tointeger(listener:address():match ":(%d+)$")
  local first, last = math.max(1, port - 300), math.min(65535, port + 300)
  local out, err, status = example("portscan.lua", first .. " " .. last .. " 2")
  assert.are.equal("", err)
  assert.are.equal(0, status)
  has(out, "127.0.0.1:" .. port .. "\n")
  has(out, ("%d ports, "):format(last - first + 1))
  assert.are.equal(2, select(3, example("portscan.lua", "5 1")))
end

local function follow_log(path)
  local process = uring.process
  local tail <close> = assert(process.spawn { "lua5.4", "examples/tail.lua", path, "2", stdout = "pipe" })
  local function append(text, mode)
    local file = assert(io.open(path, mode or "a"))
    file:write(text)
    file:close()
  end
  assert.are.same({ "c", "d" }, { tail.stdout:read "l", tail.stdout:read "l" })
  append "e\n"
  assert.are.equal("e", tail.stdout:read "l")
  os.rename(path, path .. ".1")
  append "new\n"
  assert.are.equal("new", tail.stdout:read "l")
  append("", "w")
  uring.sleep(0.05)
  append "cut\n"
  assert.are.equal("cut", tail.stdout:read "l")
  tail:kill "INT"
  assert.is_true((tail:wait()))
  return true
end

runs["tail.lua"] = function()
  local path = folder .. "/log"
  assert(os.execute(("printf 'a\\nb\\nc\\nd\\n' >%s"):format(path)))
  local _, err, status = example("tail.lua", path .. "/missing")
  assert.are.equal(1, status)
  has(err, "No such file or directory")
  if helper.can_spawn() then
    assert.is_true((uring.timeout(10, follow_log, path)))
  end
end

runs["kv_server.lua"] = function() -- it has a spec of its own: kv_spec.lua
  local _, err, status = example("kv_server.lua", "example.invalid:7")
  assert.are.equal(1, status)
  has(err, "kv_server.lua: example.invalid:7: ")
end

describe("examples", function()
  helper.watch(before_each, after_each)

  before_each(function()
    folder = lines_of "mktemp -d"[1]
  end)

  after_each(function()
    os.execute("rm -rf " .. folder)
  end)

  for _, name in ipairs(lines_of "cd examples && ls *.lua") do
    it(name .. " does what it says", function()
      local test = runs[name]
      assert.is_truthy(test, "nothing here runs examples/" .. name)
      test()
    end)

    it(name .. " begins with a comment that tells how to run it", function()
      local text = contents("examples/" .. name)
      assert.is_truthy(text:find "^%-%- %a")
      local head = text:match "^(.-)\n\n"
      has(head, name == "tour.lua" and "--   make run" or "--   make run SCRIPT=examples/" .. name)
    end)

    it(name .. " answers arguments it cannot use with a usage line", function()
      local out, err, status = example(name, "--such --arguments --are --wrong")
      assert.are.equal("", out)
      assert.are.equal(1, select(2, err:gsub("\n", "")))
      assert.are.equal("usage: " .. name, err:match "^usage: %S+")
      assert.are.equal(2, status)
    end)
  end

  local function is_installed(program)
    return os.execute("command -v " .. program .. " >/dev/null 2>&1")
  end

  -- An nginx of our own that serves `folder` at a free port; its address, and the
  -- file with its process id.
  local function start_nginx()
    local probe = assert(uring.listen "127.0.0.1:0")
    local address = probe:address()
    probe:close()
    local conf = assert(io.open(folder .. "/conf", "w"))
    conf:write(("pid %s/pid; error_log %s/log; worker_processes 1; events { worker_connections 256; }\n"):format(
      folder, folder), "http { access_log off;\n")
    for _, name in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
      conf:write(("%s_temp_path %s/%s;\n"):format(name, folder, name))
    end
    conf:write(("server { listen %s; root %s; } }\n"):format(address, folder))
    conf:close()
    os.execute("chmod a+rx " .. folder)
    assert(os.execute(("nginx -p %s -c %s/conf 2>%s/err"):format(folder, folder, folder)), "nginx does not start")
    return address
  end

  local with_nginx = is_installed "nginx" and is_installed "wrk" and it or pending
  with_nginx("proxy.lua stands in front of nginx, under wrk", function()
    local address = start_nginx()
    finally(function() os.execute("kill $(cat " .. folder .. "/pid)") end)
    local body = ("0123456789abcdef"):rep(1 << 17)
    local file = assert(io.open(folder .. "/big", "wb"))
    file:write(body)
    file:close()
    os.execute("printf small >" .. folder .. "/small")
    while_serving("proxy.lua", "127.0.0.1:0 " .. address, function(proxy)
      uring.timeout(10, function()
        local stream <close> = assert(uring.connect(proxy))
        stream:write "GET /big HTTP/1.0\r\n\r\n"
        assert.is_true(stream:read "a":match "\r\n\r\n(.*)$" == body)
      end)
      for path, header in pairs { ["/small"] = "-H 'Connection: close' ", ["/big"] = "" } do
        local out = run(("wrk -t1 -c20 -d1s %shttp://%s%s"):format(header, proxy, path))
        has(out, "Requests/sec")
        assert.is_nil(out:match "Non%-2xx")
        assert.is_nil(out:match "Socket errors: .*", out)
      end
    end)
  end)
end)
