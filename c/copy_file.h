/* Copying one file, in a thread: whatever it is, but a directory. */
#ifndef URING_COPY_FILE_H
#define URING_COPY_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

enum copy_flags {
  COPY_EXCLUSIVE = 1, /* what is there already stays: EEXIST */
  COPY_PRESERVE = 2,  /* permissions in full, and times */
  COPY_FOLLOW = 4     /* what a link points to */
};

struct copying {
  int from, to; /* directories, or AT_FDCWD */
  const char *from_name, *to_name;
  unsigned flags;
  const atomic_bool *stop;
  uint64_t bytes; /* copied so far, of all files */
};

/* Returns 0 or an errno; ECANCELED: it was told to stop.  A file that it has
** created and not completed is gone then. */
int copy_file(struct copying *c, unsigned type);

/* Gives a file, or a directory, the permissions and times of another. */
int copy_attributes(int fd, const struct stat *st);

#endif
