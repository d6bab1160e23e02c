/* Options of sockets by their names. */
#ifndef URING_SOCKOPT_H
#define URING_SOCKOPT_H

#include <lua.h>

/* Sets functions of the table on the top:
** sockopt(fd, name [, value]) -> value, or true | nil, message, errno
** membership(fd, join, group, interface) -> true | nil, message, errno */
void sockopt_register(lua_State *L);

#endif
