/* Keeping this module's code where it is. */
#ifndef URING_MAPPED_H
#define URING_MAPPED_H

#include <stdbool.h>

/* Keeps the code mapped though lua_close unloads the module: for what may run
** after that, threads and handlers of signals.  False where it cannot be
** asked for, which is so, too, where it is linked into the program and stays
** anyway. */
bool keep_mapped(void);

#endif
