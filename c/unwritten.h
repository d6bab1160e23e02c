/* Streams with bytes that have not been written yet, and how those are written
** where nobody can wait for it: at the end of the process, before a command is
** started.
**
** C's stdio flushes its files in exit(3), which a script reaches by os.exit
** without a lua_close; so do streams.  Each Lua state has a list of them,
** and exit writes those of the states that its own thread has made.
*/
#ifndef URING_UNWRITTEN_H
#define URING_UNWRITTEN_H

#include "core.h"

struct stream;

/* A stream gets an output.  False: for lack of memory it cannot. */
bool unwritten_join(struct stream *s);

/* It loses that. */
void unwritten_leave(struct stream *s);

/* Nothing of the core's is written by exit any more; no stream joins. */
void unwritten_close(struct core *core);

/* Writes what a stream has to, by system calls; a socket is not waited for. */
void unwritten_write(struct stream *s);

/* Writes of it what nobody has to be waited for. */
void unwritten_try(struct stream *s);

/* From now on exit writes what the streams of the core have.  Adds
** `write_files`, which writes what regular files have. */
void unwritten_register(lua_State *L, struct core *core);

#endif
