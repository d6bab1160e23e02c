/* Signals that a program's user sends from the terminal: Ctrl-C above all.
** The stock interpreter strikes the main chunk; here it is a task that runs.
*/
#ifndef URING_INTERRUPT_H
#define URING_INTERRUPT_H

#include "core.h"

/* Gives the signals back to whoever had them: this code is about to go. */
void interrupt_release(const struct core *core);

void interrupt_register(lua_State *L, struct core *core);

#endif
