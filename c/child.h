/* Child processes, from their start until they have been waited for.
**
** Each has a pidfd, so that no signal reaches a process that got its number
** later.  SIGCHLD is neither needed nor touched.  The system's record of a
** child that has ended is taken exactly once, by waitid(2), which does not
** block here: waiting is polling the pidfd, and can be given up at any moment
** without losing how the child ended.
**
** A child that its object was collected of is asked to end (SIGTERM), killed
** after its grace (SIGKILL), and waited for by the turns of the loop, at the
** end of the Lua state at the latest: no zombie is left.
*/
#ifndef URING_CHILD_H
#define URING_CHILD_H

#include <sys/types.h>

#include "core.h"

struct child {
  struct child *next; /* among those without an object */
  struct core *core;
  unsigned epoch; /* a child of fork has it from its parent */
  pid_t pid;      /* 0: not started */
  int pidfd;      /* -1: closed */
  int code;       /* CLD_*, once it has ended; 0: nobody knows */
  int status;     /* exit status or signal */
  bool ended;
  bool taken;    /* its record is taken, and its pid free for others */
  bool leads;    /* a group of its own, which ends with it */
  bool detached; /* it may live as long as it likes */
  bool lingers;  /* the same, but it is waited for in the end */
  uint64_t grace_ns;
  uint64_t kill_at_ns; /* without an object: when it is killed; UINT64_MAX:
                          never */
};

/* Pushes a Child that has not been started. */
struct child *child_push(lua_State *L, struct core *core);

/* It has been started.  0 or errno: it has been killed, and waited for. */
int child_started(struct child *c, pid_t pid);

/* Looks after those without an object.  When to look again; UINT64_MAX:
** there are none. */
uint64_t children_tend(struct core *core);

/* All of those end now, or within their grace. */
void children_end(struct core *core);

void child_register(lua_State *L);

#endif
