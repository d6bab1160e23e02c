/* Directories. */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "errors.h"
#include "statx.h"
#include "worker.h"

enum reading_flags {
  READ_STATS = 1,    /* what each entry is, in full */
  READ_FOLLOW = 2,   /* of links: of what they point to */
  READ_NOFOLLOW = 4, /* the directory itself may be no link */
  READ_ALL = READ_STATS | READ_FOLLOW | READ_NOFOLLOW
};

/* One part of a directory. */
struct reading {
  struct job job;
  int fd; /* -1: to be opened; or it has ended */
  unsigned flags;
  bool ended;
  size_t bytes; /* of entries */
  char *path;
  char *buffer;
  struct statx *stats; /* with READ_STATS; stx_mask 0: not to be had */
  dev_t dev;           /* of the directory */
  ino_t ino;
};

/*
** In the thread
*/

ssize_t directory_fill(int fd, char *buffer, bool *ended)
{
  /* the kernel wants room for the longest name before it fills in any */
  const size_t longest = sizeof(struct directory_entry) + 264;
  size_t have = 0;
  while (DIRECTORY_BYTES - have >= longest) {
    long n =
        syscall(SYS_getdents64, fd, buffer + have, DIRECTORY_BYTES - have);
    if (n < 0 && (have == 0 || errno != EINVAL))
      return -errno;
    *ended = n == 0;
    if (n <= 0)
      break;
    have += (size_t)n;
  }
  return (ssize_t)have;
}

unsigned directory_type(int fd, const struct directory_entry *e)
{
  struct stat st;
  if (e->type != DT_UNKNOWN)
    return DTTOIF(e->type);
  if (fstatat(fd, e->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return 0;
  return st.st_mode & S_IFMT;
}

bool directory_is_dots(const char *name)
{
  return name[0] == '.' &&
         (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static struct directory_entry *entry_at(const struct reading *r, size_t at)
{
  return (struct directory_entry *)(void *)(r->buffer + at);
}

static size_t count_entries(const struct reading *r)
{
  size_t n = 0;
  for (size_t at = 0; at < r->bytes; at += entry_at(r, at)->size)
    n++;
  return n;
}

/* Asks for each entry; a link that leads nowhere is told of as itself. */
static int read_stats(struct reading *r)
{
  int flags = r->flags & READ_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW;
  struct statx *s = calloc(count_entries(r) + 1, sizeof *s);
  r->stats = s;
  if (s == NULL)
    return ENOMEM;
  for (size_t at = 0; at < r->bytes; at += entry_at(r, at)->size, s++) {
    const char *name = entry_at(r, at)->name;
    if (statx(r->fd, name, flags, STATX_BASIC_STATS | STATX_BTIME, s) < 0 &&
        statx(r->fd, name, AT_SYMLINK_NOFOLLOW,
              STATX_BASIC_STATS | STATX_BTIME, s) < 0)
      s->stx_mask = 0;
  }
  return 0;
}

static void fill_types(const struct reading *r)
{
  for (size_t at = 0; at < r->bytes; at += entry_at(r, at)->size) {
    struct directory_entry *e = entry_at(r, at);
    if (e->type == DT_UNKNOWN)
      e->type = IFTODT(directory_type(r->fd, e));
  }
}

static int open_directory(struct reading *r)
{
  struct stat st;
  r->fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC |
                            (r->flags & READ_NOFOLLOW ? O_NOFOLLOW : 0));
  if (r->fd < 0 || fstat(r->fd, &st) < 0)
    return errno;
  r->dev = st.st_dev;
  r->ino = st.st_ino;
  return 0;
}

static int read_part(struct reading *r)
{
  ssize_t n;
  int err = r->fd < 0 ? open_directory(r) : 0;
  if (err != 0)
    return err;
  r->buffer = malloc(DIRECTORY_BYTES);
  if (r->buffer == NULL)
    return ENOMEM;
  n = directory_fill(r->fd, r->buffer, &r->ended);
  if (n < 0)
    return (int)-n;
  r->bytes = (size_t)n;
  if (r->flags & READ_STATS)
    return read_stats(r);
  fill_types(r);
  return 0;
}

static void reading_run(struct job *job)
{
  struct reading *r = (struct reading *)job;
  job->error = read_part(r);
  if (r->fd >= 0 && (r->ended || job->error != 0)) {
    close(r->fd);
    r->fd = -1;
  }
}

static void reading_release(struct job *job)
{
  struct reading *r = (struct reading *)job;
  if (r->fd >= 0)
    close(r->fd);
  free(r->path);
  free(r->buffer);
  free(r->stats);
}

/*
** For Lua
*/

static struct reading *new_reading(lua_State *L, struct core *core,
                                   unsigned flags)
{
  struct reading *r = (struct reading *)worker_new_job(L, core, sizeof *r);
  r->fd = -1;
  r->job.run = reading_run;
  r->job.release = reading_release;
  r->flags = flags;
  return r;
}

/* Into the tables of names, types and, if asked for, stats, at 2, 3 and 4. */
static void push_entry(lua_State *L, const struct reading *r, size_t at,
                       lua_Integer i, const struct statx *s)
{
  const struct directory_entry *e = entry_at(r, at);
  unsigned mode = DTTOIF(e->type);
  lua_pushstring(L, e->name);
  lua_rawseti(L, 2, i);
  if (s != NULL && s->stx_mask != 0) {
    mode = s->stx_mode;
    statx_push(L, s);
    lua_rawseti(L, 4, i);
  } else if (s != NULL) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, 4, i);
  }
  lua_pushstring(L, statx_type(mode));
  lua_rawseti(L, 3, i);
}

static int reading_deliver(lua_State *L, struct job *job);

/* The handle of the job for the part that follows; nil where there is none. */
static void push_next(lua_State *L, struct reading *r)
{
  struct core *core = core_of(L);
  struct reading *next;
  if (r->ended) {
    lua_pushnil(L);
    return;
  }
  next = new_reading(L, core, r->flags);
  next->fd = r->fd;
  next->path = r->path; /* for its messages */
  r->path = NULL;
  next->dev = r->dev;
  next->ino = r->ino;
  r->fd = -1;
  worker_begin(L, core, reading_deliver);
}

static int reading_deliver(lua_State *L, struct job *job)
{
  struct reading *r = (struct reading *)job;
  const struct statx *s = r->stats;
  lua_Integer i = 0;
  if (job->error != 0)
    return push_failure(L, r->path, job->error);
  lua_settop(L, 1);
  lua_newtable(L);
  lua_newtable(L);
  if (s != NULL)
    lua_newtable(L);
  else
    lua_pushnil(L);
  for (size_t at = 0; at < r->bytes; at += entry_at(r, at)->size) {
    if (!directory_is_dots(entry_at(r, at)->name))
      push_entry(L, r, at, ++i, s);
    s += s != NULL;
  }
  push_next(L, r);
  lua_pushinteger(L, (lua_Integer)r->dev);
  lua_pushinteger(L, (lua_Integer)r->ino);
  return 6;
}

/* read_directory(path [, flags]) -> a job, of which await() gives tables of
** names, types and (READ_STATS) stats, the job for the next part or nil, and
** the directory's device and number | nil, message, errno */
static int read_directory(lua_State *L)
{
  struct core *core = core_upvalue(L);
  const char *path = luaL_checkstring(L, 1);
  lua_Integer flags = luaL_optinteger(L, 2, 0);
  struct reading *r;
  luaL_argcheck(L, (flags & ~(lua_Integer)READ_ALL) == 0, 2, "unknown flags");
  r = new_reading(L, core, (unsigned)flags);
  r->path = strdup(path);
  if (r->path == NULL)
    return luaL_error(L, "not enough memory");
  worker_begin(L, core, reading_deliver);
  return 1;
}

static const luaL_Reg functions[] = {
    {"read_directory", read_directory},
    {NULL, NULL},
};

void directory_register(lua_State *L, struct core *core)
{
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
