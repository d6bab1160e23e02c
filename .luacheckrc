std = "lua54"
max_line_length = 120
ignore = { "21./^_" } -- a name with a leading underscore says "unused": _guard <close>
files["spec"] = { std = "+busted" }
files["**/*.rockspec"] = { std = "rockspec" }
