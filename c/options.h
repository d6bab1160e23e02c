/* The options of an operation, read once: what uring.options returns. */
#ifndef URING_OPTIONS_H
#define URING_OPTIONS_H

#include "core.h"

struct options;

#define OPTIONS_TYPE "uring.options"

/* The options at a stack index, NULL if it is something else. */
const struct options *options_test(lua_State *L, const struct core *core,
                                   int index);

void options_register(lua_State *L, struct core *core);

#endif
