/* Errors as Lua sees them: nil, "subject: reason", errno. */
#ifndef URING_ERRORS_H
#define URING_ERRORS_H

#include <lauxlib.h>

/* Pushes nil, "subject: strerror(err)", err; returns 3. */
int push_failure(lua_State *L, const char *subject, int err);

/* The same with a reason of our own. */
int push_failure_text(lua_State *L, const char *subject, const char *reason,
                      int err);

/* Sets fields of the table on the top: `errno`, where errno.ENOENT == 2 and
** errno[2] == "ENOENT", and `failure`, which is push_failure. */
void errors_register(lua_State *L);

#endif
