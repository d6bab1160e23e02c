--- randread: random 4 KB reads of a file in the page cache, 128 in flight. Nobody is pinned, for luv reads on threads.
--
-- fio runs with what made it fastest here for the same work: batches of 64 both ways, no clock readings but those of
-- its own start and end; no registered files or buffers, for ours does not use them either. luv gets one thread a
-- processor, which made it faster than its default of four.

local DEPTH, READS, MIB = 128, 8e5, 256

return function(h)
  local reads = h.scaled(READS)
  local path

  local function fio()
    local sample, text = h.run(
      ("fio --name=randread --filename=%s --size=%dm --io_size=%d --rw=randread --bs=4k --direct=0 --invalidate=0"
        .. " --norandommap --randrepeat=0 --ioengine=io_uring --iodepth=%d --iodepth_low=64 --iodepth_batch_submit=64"
        .. " --iodepth_batch_complete_min=64 --gtod_reduce=1 --thread --output-format=json"
      ):format(path, MIB, reads * 4096, DEPTH)
    )
    if not sample then return nil, text end
    local read = text:match '"read" : (%b{})' or ""
    local function field(from, name) return tonumber(from:match('"' .. name .. '" : ([%d.]+)')) end
    local wall = field(read, "runtime") * 1e-3
    return {
      ops = field(read, "total_ios"),
      wall = wall,
      cpu = (field(text, "usr_cpu") + field(text, "sys_cpu")) * 1e-2 * wall,
    }
  end

  local function luv()
    local threads = ("env UV_THREADPOOL_SIZE=%d "):format(math.max(1, #h.processors))
    return h.run(threads .. h.script("randread_luv", path, reads, DEPTH))
  end

  return {
    title = "random 4 KB reads, page cache, depth 128",
    unit = "read",
    setup = function() path = h.cached_file(MIB) end,
    teardown = function() os.remove(path) end,
    contenders = {
      { name = "uring", measure = function() return h.run(h.script("randread_uring", path, reads, DEPTH)) end },
      { name = "fio", needs = "!fio", measure = fio },
      { name = "luv", needs = "luv", measure = luv },
      { name = "C", measure = function() return h.run(h.bin("randread", path, reads, DEPTH)) end },
    },
    budgets = {
      { peer = "fio", figure = "rate", at_least = 0.85 },
      { peer = "luv", figure = "rate", at_least = 1.5 },
      { peer = "luv", figure = "cpu", at_least = 2.0 },
    },
  }
end
