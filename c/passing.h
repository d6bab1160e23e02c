/* Descriptors on their way through unix sockets (SCM_RIGHTS). */
#ifndef URING_PASSING_H
#define URING_PASSING_H

#include <lua.h>

/* Sets functions of the table on the top:
** send_descriptors(fd, data, { fd, … }) -> bytes | nil, message, errno
** receive_descriptors(fd, bytes, Descriptor, …) -> data, how many, cut short?
**   | nil, message, errno
** file_kind(fd) -> "socket" | "pipe" | "file" | "listener" | "datagram" */
void passing_register(lua_State *L);

#endif
