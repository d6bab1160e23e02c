--- spingpong: the row pingpong, written with streams.

local PAIRS, BYTES, TRIPS = 50, 1024, 4000

return function(h)
  local trips = h.scaled(TRIPS)
  local function script(name)
    return function() return h.run(h.script(name, PAIRS, BYTES, trips), 1) end
  end
  return {
    title = "unix socketpair ping-pong by streams, 50 pairs x 1 KB",
    unit = "trip",
    contenders = {
      { name = "uring", measure = script "pingpong_stream_uring" },
      { name = "C", measure = function() return h.run(h.bin("pingpong", PAIRS, BYTES, trips), 1) end },
      { name = "luv", needs = "luv", measure = script "pingpong_luv" },
      { name = "cqueues", needs = "cqueues", measure = script "pingpong_cqueues" },
      { name = "operations", measure = script "pingpong_uring" },
    },
    budgets = {
      { peer = "C", figure = "rate", at_least = 0.95 },
      { peer = "luv", figure = "rate", at_least = 1.6 },
    },
  }
end
