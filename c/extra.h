/* Structures of the kernel that an operation hands over or has filled in,
** besides the data.  They live in the event's aux.
*/
#ifndef URING_EXTRA_H
#define URING_EXTRA_H

#include "compat.h"

#include <signal.h>
#include <sys/epoll.h>

#include "event.h"

struct provision;

#define EPOLL_EVENTS_MAX 16
#define FILES_UPDATE_MAX 64

union extra {
  struct open_how how;
  struct epoll_event events[EPOLL_EVENTS_MAX];
  siginfo_t child;
  int value;  /* of a socket's option */
  int fds[2]; /* of a pipe */
  struct {
    struct provision *of; /* by the operation, until it has ended */
    uint16_t group;
  } provided;
  int files[FILES_UPDATE_MAX];
};

_Static_assert(sizeof(union extra) <= sizeof(struct statx),
               "there is room for it where a statx would be");

/* An aux has a statx or a message or one of these. */
static inline union extra *aux_extra(struct aux *aux)
{
  return (union extra *)(void *)&aux->statx;
}

#endif
