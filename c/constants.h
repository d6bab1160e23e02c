/* Numbers of the system that arguments are made of. */
#ifndef URING_CONSTANTS_H
#define URING_CONSTANTS_H

#include <lauxlib.h>

/* Sets field `const` of the table on the top: const.O_RDONLY … */
void constants_register(lua_State *L);

#endif
