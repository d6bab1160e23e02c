/* Buffers and files that are registered with a ring: the kernel looks them up
** once and not with every operation.
*/
#ifndef URING_REGISTERED_H
#define URING_REGISTERED_H

#include "ring.h"

#define FILES_MAX 32768 /* IORING_MAX_FIXED_FILES */

/* The index under which a range of a block is registered, -1: under none.
** Found at once where it is `likely`. */
int registered_index(const struct ring *r, const struct block *block,
                     size_t offset, size_t size, unsigned likely);

/* The ring is closed: lets go of the blocks. */
void registered_release(struct ring *r);

/* The value on the top, member `n` of a table, as a descriptor to be
** registered, -1 for an empty slot.  NULL; or what is wrong with it, pushed.
*/
const char *registered_descriptor(lua_State *L, int n, int *fd);

/* Adds register_buffers, unregister_buffers, register_files,
** register_files_update, register_file_alloc_range and unregister_files to
** the table on the top. */
void registered_methods(lua_State *L);

#endif
