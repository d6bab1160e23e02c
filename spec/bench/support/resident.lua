--- Resident memory of a process, in bytes; of this one without a process id.
return function(pid)
  local f <close> = assert(io.open(("/proc/%s/statm"):format(pid or "self")))
  return select(2, f:read("n", "n")) * 4096
end
