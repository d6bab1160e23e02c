/* Descriptors on their way through unix sockets (SCM_RIGHTS). */
#ifndef URING_PASSING_H
#define URING_PASSING_H

#include <lua.h>
#include <stdbool.h>
#include <sys/types.h>

/* Descriptors that are to be sent, a userdata. */
struct passing {
  bool owned; /* they are duplicates, closed with it */
  int err;    /* -errno: why they could not be sent */
  int count;
  int fds[];
};

#define PASSING_TYPE "uring.passing"

struct passing *passing_at(lua_State *L, int index);

/* Sends them with the data, without waiting: how much of that was taken, or
** -errno. */
ssize_t passing_send(const struct passing *p, int fd, const char *data,
                     size_t size);

/* Duplicates them, so that they stay what they are: 0, or -errno and there are
** none. */
int passing_own(struct passing *p);

/* Sets functions of the table on the top:
** passing { fd, … } -> Passing, for stream_pass
** receive_descriptors(fd, bytes, Descriptor, …) -> data, how many, cut short?
**   | nil, message, errno
** file_kind(fd) -> "socket" | "pipe" | "file" | "listener" | "datagram" */
void passing_register(lua_State *L);

#endif
