/* The default input and output of `uring.io`. */
#ifndef URING_IO_H
#define URING_IO_H

#include "core.h"

/* Sets `default_file`, `default_read` and `default_write` in the table on the
** top. */
void io_register(lua_State *L);

#endif
