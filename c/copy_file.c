/* Copying one file. */
#include "copy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_BYTES ((size_t)64 * 1024)
#define PIECE_BYTES ((size_t)8 * 1024 * 1024)

/* An open pair of files. */
struct pair {
  int in, out;
  bool created;
  struct stat st; /* of the source */
};

int copy_attributes(int fd, const struct stat *st)
{
  const struct timespec times[2] = {st->st_atim, st->st_mtim};
  if (fchmod(fd, st->st_mode & 07777) < 0 || futimens(fd, times) < 0)
    return errno;
  return 0;
}

/*
** Contents
*/

static bool is_stopped(const struct copying *c)
{
  return atomic_load_explicit(c->stop, memory_order_relaxed);
}

static int write_all(int fd, const char *data, size_t size)
{
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno != EINTR)
      return errno;
    if (n > 0) {
      data += n;
      size -= (size_t)n;
    }
  }
  return 0;
}

/* By way of memory, up to `size` bytes if it is known and else to the end. */
static int copy_by_hand(struct copying *c, const struct pair *p, uint64_t size)
{
  char buffer[SMALL_BYTES];
  uint64_t done = 0;
  while (size == 0 || done < size) {
    size_t want =
        size != 0 && size - done < sizeof buffer ? size - done : sizeof buffer;
    ssize_t n = read(p->in, buffer, want);
    int err;
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : 0;
    err = write_all(p->out, buffer, (size_t)n);
    if (err != 0)
      return err;
    done += (uint64_t)n;
    c->bytes += (uint64_t)n;
    if (is_stopped(c))
      return ECANCELED;
  }
  return 0;
}

/* Does this errno of copy_file_range say that these files are not for it? */
static bool is_beyond_kernel(int err)
{
  return err == EXDEV || err == EINVAL || err == ENOSYS || err == EOPNOTSUPP ||
         err == EPERM || err == EBADF || err == ETXTBSY;
}

/* `size` bytes from where both files stand.  The kernel copies, and on file
** systems that can shares the blocks. */
static int copy_in_kernel(struct copying *c, const struct pair *p,
                          uint64_t size)
{
  uint64_t done = 0;
  while (done < size) {
    size_t want = size - done < PIECE_BYTES ? size - done : PIECE_BYTES;
    ssize_t n = copy_file_range(p->in, NULL, p->out, NULL, want, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && is_beyond_kernel(errno))
      return copy_by_hand(c, p, size - done);
    if (n < 0)
      return errno;
    if (n == 0) /* it has become shorter; or it is one that tells no size */
      return done == 0 ? copy_by_hand(c, p, size) : 0;
    done += (uint64_t)n;
    c->bytes += (uint64_t)n;
    if (is_stopped(c))
      return ECANCELED;
  }
  return 0;
}

/* The parts of a file that are there; between them are holes. */
static int copy_sparse(struct copying *c, const struct pair *p)
{
  off_t at = 0, end;
  int err = 0;
  while (err == 0 && (at = lseek(p->in, at, SEEK_DATA)) >= 0) {
    end = lseek(p->in, at, SEEK_HOLE);
    if (end <= at || lseek(p->in, at, SEEK_SET) < 0 ||
        lseek(p->out, at, SEEK_SET) < 0)
      return end <= at ? EIO : errno;
    err = copy_in_kernel(c, p, (uint64_t)(end - at));
    at = end;
  }
  if (err == 0 && at < 0 && errno != ENXIO)
    err = errno;
  if (err == 0 && ftruncate(p->out, p->st.st_size) < 0)
    err = errno;
  return err;
}

static int copy_contents(struct copying *c, const struct pair *p)
{
  uint64_t size = (uint64_t)p->st.st_size;
  if (size <= SMALL_BYTES)
    return copy_by_hand(c, p, size);
  if ((uint64_t)p->st.st_blocks * 512 < size &&
      lseek(p->in, 0, SEEK_HOLE) < p->st.st_size &&
      lseek(p->in, 0, SEEK_SET) == 0)
    return copy_sparse(c, p);
  lseek(p->in, 0, SEEK_SET);
  return copy_in_kernel(c, p, size);
}

/*
** Regular files
*/

/* A file that is there already is written over, unless it is the source. */
static int open_existing(const struct copying *c, struct pair *p)
{
  struct stat there;
  p->out = openat(c->to, c->to_name, O_WRONLY | O_CLOEXEC);
  if (p->out < 0 || fstat(p->out, &there) < 0)
    return errno;
  if (there.st_dev == p->st.st_dev && there.st_ino == p->st.st_ino)
    return EINVAL;
  return ftruncate(p->out, 0) < 0 && errno != EINVAL ? errno : 0;
}

static int open_new(const struct copying *c, struct pair *p)
{
  p->out = openat(c->to, c->to_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                  p->st.st_mode & 0777);
  p->created = p->out >= 0;
  if (p->created)
    return 0;
  if (errno == EEXIST && !(c->flags & COPY_EXCLUSIVE))
    return open_existing(c, p);
  return errno;
}

static int open_pair(const struct copying *c, struct pair *p)
{
  int follow = c->flags & COPY_FOLLOW ? 0 : O_NOFOLLOW;
  p->in = openat(c->from, c->from_name,
                 O_RDONLY | O_CLOEXEC | O_NONBLOCK | follow);
  if (p->in < 0 || fstat(p->in, &p->st) < 0)
    return errno;
  return open_new(c, p);
}

/* close tells of what the file system has put off. */
static int close_pair(const struct pair *p, int err)
{
  if (p->in >= 0)
    close(p->in);
  if (p->out >= 0 && close(p->out) < 0 && err == 0 && errno != EINTR)
    err = errno;
  return err;
}

static int copy_regular(struct copying *c)
{
  struct pair p = {.in = -1, .out = -1};
  int err = open_pair(c, &p);
  if (err == 0)
    err = copy_contents(c, &p);
  if (err == 0 && c->flags & COPY_PRESERVE)
    err = copy_attributes(p.out, &p.st);
  err = close_pair(&p, err);
  if (err != 0 && p.created)
    unlinkat(c->to, c->to_name, 0);
  return err;
}

/*
** Others
*/

/* Makes room for what is not written over but made anew. */
static int make_room(const struct copying *c, int err)
{
  struct stat from, to;
  if (err != EEXIST || c->flags & COPY_EXCLUSIVE)
    return err;
  if (fstatat(c->from, c->from_name, &from, AT_SYMLINK_NOFOLLOW) == 0 &&
      fstatat(c->to, c->to_name, &to, AT_SYMLINK_NOFOLLOW) == 0 &&
      from.st_dev == to.st_dev && from.st_ino == to.st_ino)
    return EINVAL;
  return unlinkat(c->to, c->to_name, 0) < 0 ? errno : 0;
}

static int preserve_times(const struct copying *c, const struct stat *st)
{
  const struct timespec times[2] = {st->st_atim, st->st_mtim};
  if (c->flags & COPY_PRESERVE &&
      utimensat(c->to, c->to_name, times, AT_SYMLINK_NOFOLLOW) < 0)
    return errno;
  return 0;
}

static int copy_link(const struct copying *c, const struct stat *st)
{
  char target[PATH_MAX];
  ssize_t n = readlinkat(c->from, c->from_name, target, sizeof target - 1);
  int err = 0;
  if (n < 0)
    return errno;
  target[n] = '\0';
  if (symlinkat(target, c->to, c->to_name) < 0)
    err = make_room(c, errno);
  else
    return preserve_times(c, st);
  if (err == 0 && symlinkat(target, c->to, c->to_name) < 0)
    err = errno;
  return err != 0 ? err : preserve_times(c, st);
}

static int make_node(const struct copying *c, const struct stat *st)
{
  return mknodat(c->to, c->to_name, st->st_mode & (S_IFMT | 0777),
                 st->st_rdev) < 0
             ? errno
             : 0;
}

/* A fifo, a socket, a device: one more of it. */
static int copy_node(const struct copying *c, const struct stat *st)
{
  int err = make_node(c, st);
  if (err == EEXIST && (err = make_room(c, err)) == 0)
    err = make_node(c, st);
  return err != 0 ? err : preserve_times(c, st);
}

int copy_file(struct copying *c, unsigned type)
{
  int follow = c->flags & COPY_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW;
  struct stat st;
  if (type == S_IFREG)
    return copy_regular(c);
  if (fstatat(c->from, c->from_name, &st, follow) < 0)
    return errno;
  switch (st.st_mode & S_IFMT) {
  case S_IFREG:
    return copy_regular(c);
  case S_IFDIR:
    return EISDIR;
  case S_IFLNK:
    return copy_link(c, &st);
  default:
    return copy_node(c, &st);
  }
}
