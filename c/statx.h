/* What the kernel tells of a file, as Lua has it. */
#ifndef URING_STATX_H
#define URING_STATX_H

#include "compat.h"

#include <lua.h>

/* Pushes a table with statx(2)'s fields without their prefix, times in
** seconds, and the name of its type. */
void statx_push(lua_State *L, const struct statx *s);

/* "file" | "directory" | "link" | ... for the S_IFMT bits of a mode */
const char *statx_type(unsigned mode);

#endif
