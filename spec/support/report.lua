-- The suite's report, a busted output handler: one line a spec file with a
-- mark for each test and the time it took, what went wrong in full below that
-- line, and as the very last line `N passed, N failed` (`, N skipped`).
--
-- Everything is flushed as it is written: after a crash or a hang the last
-- line names the file, and a child forked by a spec inherits no buffered text.

local SLOW = 1.0 -- seconds; a test that takes longer is named

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base" ()

  local verbose = false    -- -v: a line a test, written before it runs
  local passed, failed, skipped = 0, 0, 0
  local file               -- the spec file that runs, nil between files
  local notes              -- what to print below its line
  local current            -- full name of the newest test, for its hooks
  local reason             -- why it is pending
  local blamed = {}        -- what failed, and why, for the end
  local started

  local function write(...)
    io.stdout:write(...)
    io.stdout:flush()
  end

  local function indent(text)
    return "    " .. text:gsub("\n+$", ""):gsub("\n", "\n    ")
  end

  -- Messages can be any value: error objects have __tostring, or not.
  local function text_of(value)
    if value == nil then return "nil" end
    if type(value) == "table" and not (getmetatable(value) or {}).__tostring then
      return require "pl.pretty".write(value)
    end
    return tostring(value)
  end

  local function where(trace)
    if not (trace and trace.short_src) then return "" end
    return (" (%s:%s)"):format(trace.short_src, trace.currentline or "?")
  end

  -- The name of a hook or a block says little without the test it ran for.
  local function name_of(element)
    if element.descriptor == "it" then return handler.getFullName(element) end
    local name = element.descriptor or "?"
    if element.name then name = name .. " " .. element.name end
    if current and name:find "_each$" then name = name .. " of " .. current end
    return name
  end

  local function blame(kind, element, message, trace)
    failed = failed + 1
    local name = name_of(element)
    local text = indent(text_of(message))
    blamed[#blamed + 1] = ("%s%s\n%s"):format(file and file.name .. ": " or "", name, text)
    local lines = { ("  %s: %s%s"):format(kind, name, where(element.trace or trace)), text }
    local traceback = trace and trace.traceback
    if traceback and traceback:find "%S" then
      lines[#lines + 1] = indent((traceback:gsub("^\n+", "")))
    end
    local note = table.concat(lines, "\n") .. "\n"
    if notes then
      notes[#notes + 1] = note
      if not verbose then write(kind == "error" and "E" or "F") end
    else
      write(note)
    end
  end

  local marks = { success = ".", pending = "s" }

  function handler.fileStart(element)
    file, notes, current = element, {}, nil
    write(element.name, verbose and "\n" or " ")
    return nil, true
  end

  function handler.fileEnd(element)
    write(("  %.3f s\n"):format(element.duration or 0), table.concat(notes))
    file, notes, current = nil, nil, nil
    return nil, true
  end

  function handler.testStart(element)
    current, reason = handler.getFullName(element), ""
    if verbose then write("  ", current, " ... ") end
    return nil, true
  end

  function handler.testEnd(element, _, status)
    if status == "success" then
      passed = passed + 1
    elseif status == "pending" then
      skipped = skipped + 1
      notes[#notes + 1] = ("  skipped: %s%s\n"):format(current, reason)
    end
    if verbose then
      write(("%s %.3f s\n"):format(status == "success" and "ok" or status, element.duration or 0))
    elseif marks[status] then -- blame() has marked the others
      write(marks[status])
    end
    if (element.duration or 0) > SLOW then
      notes[#notes + 1] = ("  slow: %s, %.1f s\n"):format(current, element.duration)
    end
    return nil, true
  end

  function handler.pending(_, _, message)
    reason = message and ": " .. text_of(message) or ""
    return nil, true
  end

  function handler.failure(element, _, message, trace)
    blame("failure", element, message, trace)
    return nil, true
  end

  function handler.error(element, _, message, trace)
    blame("error", element, message, trace)
    return nil, true
  end

  function handler.suiteStart()
    started = busted.monotime()
    return nil, true
  end

  function handler.suiteEnd()
    if passed + failed + skipped == 0 then
      -- Published, not just counted, so that busted exits with non-zero too.
      busted.publish({ "error", "suite" }, { descriptor = "suite" }, nil, "no test ran", {})
    end
    if #blamed > 0 then
      write("\nfailed:\n  ", table.concat(blamed, "\n  "), "\n")
    end
    write(("\n%.1f s\n"):format(busted.monotime() - started))
    write(("%d passed, %d failed%s\n"):format(passed, failed, skipped > 0 and (", %d skipped"):format(skipped) or ""))
    return nil, true
  end

  function handler.subscribe(_, opts)
    verbose = opts.verbose
    busted.subscribe({ "suite", "start" }, handler.suiteStart)
    busted.subscribe({ "suite", "end" }, handler.suiteEnd)
    busted.subscribe({ "file", "start" }, handler.fileStart)
    busted.subscribe({ "file", "end" }, handler.fileEnd)
    busted.subscribe({ "test", "start" }, handler.testStart)
    busted.subscribe({ "test", "end" }, handler.testEnd)
    busted.subscribe({ "pending" }, handler.pending)
    busted.subscribe({ "failure" }, handler.failure)
    busted.subscribe({ "error" }, handler.error)
  end

  handler.options = options
  return handler
end
