--- bundle: one stream of 64 B messages, one way; the figure is the processor time of the receiver for a message.

local BYTES, WARM_MS = 64, 200

return function(h)
  local function load(pid, port)
    return h.bin("stream_load", port, pid, BYTES, WARM_MS, h.scaled(1000))
  end
  local function script(how)
    return function() return h.serve(h.script("stream_uring", BYTES, how), load) end
  end
  return {
    title = "a stream of 64 B messages, received in bundles",
    unit = "message",
    contenders = {
      { name = "uring", measure = script "bundle" },
      { name = "plain recv", measure = script "plain" },
      { name = "multishot", measure = script "multishot" },
    },
    budgets = {
      { peer = "plain recv", figure = "rate", at_least = 1.5 },
      { peer = "plain recv", figure = "cpu", at_least = 1.5 },
    },
  }
end
