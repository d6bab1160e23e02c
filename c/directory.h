/* Reading directories: getdents64, which has no opcode, in a thread.
**
** One job opens the directory and reads as many entries as fit its buffer, so
** that a small directory takes one job and no descriptor outlives it.  Of a
** larger one the descriptor goes on to the job for the next part, which is
** begun before anybody asks for it.
*/
#ifndef URING_DIRECTORY_H
#define URING_DIRECTORY_H

#include "core.h"

#include <sys/types.h>

/* What getdents64 fills in. */
struct directory_entry {
  uint64_t ino;
  int64_t off;
  uint16_t size; /* of the whole entry */
  uint8_t type;  /* DT_REG … */
  char name[];
};

#define DIRECTORY_BYTES 32768u

/* Reads entries into a buffer of DIRECTORY_BYTES until it is full or the
** directory ends (*ended).  Returns bytes or -errno. */
ssize_t directory_fill(int fd, char *buffer, bool *ended);

/* The S_IFMT bits of an entry of fd; asks the file system where the directory
** does not tell.  0: it is gone. */
unsigned directory_type(int fd, const struct directory_entry *e);

/* Is it "." or ".."? */
bool directory_is_dots(const char *name);

void directory_register(lua_State *L, struct core *core);

#endif
