-- Trees that are written, copied, gone through, watched and removed by several tasks at once, at moments that a seed
-- chooses, cancelled and timed out meanwhile, with few descriptors or many.  A file is always whole, what was told is
-- there, and nothing is left that nobody was told of.

local helper = require "spec.support.helper"
local moments = require "spec.support.moments"
local streams = require "spec.support.streams"
local uring = require "uring"

local random, wait = math.random, moments.wait
local errno, fs, testkit = uring.errno, uring.fs, helper.testkit

-- What may fail while others change what it is about, or where descriptors are few.
local expected = {
  [errno.ENOENT] = true, [errno.ENOTDIR] = true, [errno.EISDIR] = true, [errno.EEXIST] = true, [errno.ENOTEMPTY] = true,
  [errno.EMFILE] = true, [errno.ETIMEDOUT] = true, [errno.ECANCELED] = true, [errno.EINVAL] = true;
}

-- Calls a function, now and then for a moment only; its results, or nil.
local function attempt(fn, ...)
  local results
  if random(3) == 1 then
    results = table.pack(uring.timeout(random() / 2000, fn, ...))
  else
    results = table.pack(fn(...))
  end
  local first, message, number = table.unpack(results, 1, 3)
  if not first and message and not expected[number] then error(message, 0) end
  return table.unpack(results, 1, results.n)
end

-- Contents that tell whether they are whole.
local function contents()
  return ("%d\n"):format(random(1000)):rep(random(6) == 1 and random(40000) or random(50)) .. "end"
end

local function is_whole(text)
  local line = text:match "^%d+\n"
  return line and #text % #line == 3 % #line and text == line:rep(#text // #line) .. "end"
      or line and text == line:rep((#text - 3) // #line) .. "end"
end

local function pick(top)
  local path = top
  for _ = 1, random(0, 2) do path = path .. "/d" .. random(2) end
  return path
end

local renamed = false -- a directory, perhaps with a temporary file in it

local actions = {
  function(top) attempt(fs.writefile, pick(top) .. "/f" .. random(3), contents(), { sync = false }) end;
  function(top) attempt(fs.writefile, pick(top) .. "/f" .. random(3), contents()) end;
  function(top)
    local path, text = top .. "/own" .. random(2), contents()
    if attempt(fs.writefile, path, text) then assert(is_whole(assert(fs.readfile(path)))) end
  end;
  function(top)
    local text = attempt(fs.readfile, pick(top) .. "/f" .. random(3))
    assert(not text or is_whole(text), "a file that is not whole")
  end;
  function(top) attempt(fs.makedirs, pick(top)) end;
  function(top) attempt(fs.remove, pick(top) .. "/f" .. random(3)) end;
  function(top) attempt(fs.remove, top .. "/d" .. random(2), { recursive = true }) end;
  function(top)
    renamed = true
    attempt(fs.rename, pick(top), pick(top))
  end;
  function(top) attempt(fs.list, pick(top)) end;
  function(top)
    attempt(function()
      local seen = 0
      local next_path, walk, control, closing = fs.walk(top, {
        sort = random(2) == 1, stat = random(2) == 1, limit = random(0, 4) })
      if not next_path then return end
      for _ in next_path, walk, control, closing do
        seen = seen + 1
        if random(10) == 1 then wait(0.00025) end
        if random(20) == 1 then break end
      end
    end)
  end;
  function(top)
    attempt(function()
      local next_name, reading, control, closing = fs.readdir(pick(top))
      if not next_name then return end
      for _ in next_name, reading, control, closing do
        if random(10) == 1 then wait(0.00025) end
      end
    end)
  end;
  function(top, out)
    attempt(fs.copy, pick(top), out .. "/" .. random(3), {
      recursive = true, limit = random(8), preserve = random(2) == 1, overwrite = random(3) > 1;
      on_error = random(2) == 1 and function(message, number) assert(expected[number], message) end or nil;
    })
  end;
  function(_, out)
    attempt(function()
      local dir <close> = fs.tempdir { dir = out }
      if dir then fs.writefile(dir.path .. "/x", "y") end
    end)
  end;
  function(_, out)
    local f, path = attempt(fs.tempfile, { dir = out })
    if f then
      f:close()
      uring.shield(fs.remove, path)
    end
  end;
  function(top)
    attempt(function()
      local watch <close> = fs.watch(pick(top), { recursive = random(2) == 1 })
      if not watch then return end
      for _ = 1, random(5) do
        local event, why = uring.timeout(random() / 1000, watch.next, watch)
        if not event and why ~= "timeout" then break end
        assert(not event or event.kind ~= "error" or expected[event.errno], event and event.message)
      end
    end)
  end;
  function() collectgarbage() end;
}

-- `may_be_left`: pattern of names that others than who made them may have copied, moved, or not been able to remove.
local function check_tree(path, may_be_left)
  for name, kind in pairs(select(2, assert(fs.list(path)))) do
    local inner = path .. "/" .. name
    local odd = may_be_left and name:find(may_be_left)
    assert(odd or name:find "^d?%d$" or name:find "^f%d$" or name:find "^own%d$", "left: " .. inner)
    if odd then -- luacheck: ignore
    elseif kind == "directory" then
      check_tree(inner, may_be_left)
    else
      assert(is_whole(assert(fs.readfile(inner))), "not whole: " .. inner)
    end
  end
end

local function one()
  local dir <close> = assert(fs.tempdir())
  local top, out = dir.path .. "/top", dir.path .. "/out"
  assert(fs.mkdir(out))
  for i = 1, 2 do assert(fs.makedirs(("%s/d%d/d%d"):format(top, i, random(2)))) end
  for _ = 1, random(20) do fs.writefile(pick(top) .. "/f" .. random(3), contents(), { atomic = false }) end
  local few = random(4) == 1
  renamed = false
  if few then testkit.spare_fds(random(3, 12)) end
  local ok, err = pcall(uring.run, function()
    local tasks = {}
    for i = 1, random(5) do
      tasks[i] = uring.spawn(function()
        for _ = 1, random(10) do
          actions[random(#actions)](top, out)
          if random(4) == 1 then wait(0.00025) end
        end
      end)
    end
    for _ = 1, random(0, 3) do
      wait(0.00025)
      tasks[random(#tasks)]:cancel()
    end
    for _, task in ipairs(tasks) do
      local done, why = pcall(task.await, task)
      assert(done or why == uring.cancelled, why)
    end
  end)
  if few then testkit.spare_fds(900) end
  assert(ok, err)
  check_tree(top, renamed and "^%.")
  check_tree(out, few and "^[.u]" or "^%.")
end

describe("trees that many use at once", function()
  helper.watch(before_each, after_each)

  it("have whole files, and nothing that nobody was told of", function()
    for seed = 1, helper.times(60) do
      math.randomseed(seed)
      local ok, err = pcall(streams.run, one)
      if not ok then error(("seed %d: %s"):format(seed, tostring(err)), 0) end
    end
  end)
end)
