--- Errors that are the program's, raised in its name.

--- Raises an error that came from further inside the library: at the place that
-- called into it.  An error from elsewhere passes unchanged.
-- @param err
-- @int level of that place, as of `error`
return function(err, level)
  local stripped = type(err) == "string" and err:match "^[^\n]-uring/[%w_]+%.lua:%d+: (.*)"
  error(stripped or err, stripped and level + 1 or 0)
end
