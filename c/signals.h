/* Signals: their names, and watching for them.
**
** A watch is a pipe: the handler of the signals that it watches writes the
** number of the signal there, whichever thread of the process it runs on, and
** the ring reads the other end.  No signal is blocked, so nothing depends on
** the masks of threads, and programs that are started inherit nothing (exec
** resets handlers).
*/
#ifndef URING_SIGNALS_H
#define URING_SIGNALS_H

#include <lauxlib.h>

/* From now on a write without a reader gives EPIPE and nothing else, unless
** the program has its own idea of SIGPIPE. */
void signals_tame_sigpipe(void);

/* Adds signal_watch, and signal_names: name -> number and number -> name. */
void signals_register(lua_State *L);

#endif
