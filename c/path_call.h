/* System calls on paths that have no opcode and may wait for a disk: made in
** a thread.
*/
#ifndef URING_PATH_CALL_H
#define URING_PATH_CALL_H

#include "core.h"

/* Adds the table `path`: chmod, chown, utime, readlink,
** realpath, listxattr, removexattr, statvfs,
** watch; and inotify and random_name, which do not block. */
void path_call_register(lua_State *L, struct core *core);

#endif
