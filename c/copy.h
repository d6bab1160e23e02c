/* Copying trees, in threads.
**
** Copying a small file is seven system calls, and creating one is nothing that
** a ring does at once: it hands that to a thread of its own, one operation at
** a time.  So a job copies many files of one directory in a row, and trees are
** copied by several such jobs side by side; lua/uring/fs_copy.lua sends them.
**
** The first job of a directory opens it, makes the one it is copied to, reads
** a buffer of entries and copies the first few.  What is left of that buffer
** is copied by further jobs, any number of them, each a range of entries; a
** job that has moved many bytes ends early, so that others can share what is
** left.  A directory whose first file finds no descriptor gives its own back,
** and is begun again when others have ended.
**
** Jobs finish: a task that is cancelled unwinds when they have stopped, and
** they stop between files and between pieces of large ones.  A file that was
** not copied to its end is removed again.
*/
#ifndef URING_COPY_H
#define URING_COPY_H

#include "core.h"

void copy_register(lua_State *L, struct core *core);

#endif
