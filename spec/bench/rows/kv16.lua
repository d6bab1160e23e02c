--- kv16: as kv, sixteen commands at a time.

return function(h) return require "rows.kv"(h, 16) end
