/* Copying directories: jobs over ranges of their entries. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy_file.h"
#include "directory.h"
#include "errors.h"
#include "worker.h"

#define FIRST_FILES  64u /* that the first job copies */
#define ENOUGH_BYTES ((uint64_t)4 * 1024 * 1024) /* that a job copies */
#define ENTRIES_MAX  (DIRECTORY_BYTES / 24)      /* the smallest entry */

/* A directory and its copy.  Shared by its parts; the last closes it. */
struct twin {
  atomic_uint refs;
  int from, to;
  unsigned flags;
  struct stat st; /* of the one that is copied */
  bool created;   /* and not there before */
};

/* A buffer of its entries.  Shared by the jobs that copy them, and read only
** once the first has filled it. */
struct part {
  atomic_uint refs;
  struct twin *twin;
  bool ended; /* there is none after it */
  unsigned nfiles, ndirectories;
  uint16_t files[ENTRIES_MAX]; /* where they are in the buffer, by 8 bytes */
  uint16_t directories[ENTRIES_MAX];
  char buffer[DIRECTORY_BYTES];
};

struct copy_job {
  struct job job;
  struct part *part; /* NULL: this is a single file */
  bool fills;        /* the part is new */
  bool finishes;     /* all is in the copy of the directory */
  char *from, *to;   /* of a directory that is new, of a single file */
  unsigned flags;
  dev_t top_dev; /* of the whole copy, which must not be copied itself */
  ino_t top_ino;
  unsigned next, end; /* of the files of the part */
  unsigned copied;
  uint64_t bytes;
  bool in_part; /* the error is that of the file `next` */
};

#define PART_TYPE "uring.copy"

static struct twin *twin_new(unsigned flags)
{
  struct twin *t = calloc(1, sizeof *t);
  if (t == NULL)
    return NULL;
  atomic_init(&t->refs, 1);
  t->from = t->to = -1;
  t->flags = flags;
  return t;
}

static void twin_unref(struct twin *t)
{
  if (t == NULL || atomic_fetch_sub(&t->refs, 1) > 1)
    return;
  if (t->from >= 0)
    close(t->from);
  if (t->to >= 0)
    close(t->to);
  free(t);
}

static void part_unref(struct part *p)
{
  if (p == NULL || atomic_fetch_sub(&p->refs, 1) > 1)
    return;
  twin_unref(p->twin);
  free(p);
}

static struct part *part_new(struct twin *twin)
{
  struct part *p = malloc(sizeof *p);
  if (p == NULL)
    return NULL;
  atomic_init(&p->refs, 1);
  p->twin = twin;
  p->ended = false;
  p->nfiles = p->ndirectories = 0;
  if (twin != NULL)
    atomic_fetch_add(&twin->refs, 1);
  return p;
}

/*
** In the threads
*/

static struct directory_entry *entry_at(struct part *p, unsigned at)
{
  return (struct directory_entry *)(void *)(p->buffer + (size_t)at * 8);
}

static int open_from(struct twin *t, const struct copy_job *j)
{
  int follow = t->flags & COPY_FOLLOW ? 0 : O_NOFOLLOW;
  t->from = open(j->from, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow);
  if (t->from < 0 || fstat(t->from, &t->st) < 0)
    return errno;
  if (t->st.st_dev == j->top_dev && t->st.st_ino == j->top_ino)
    return ELOOP; /* what was copied there would be copied once more */
  return 0;
}

/* The copy can be written to until all is in it. */
static int open_to(struct twin *t, const struct copy_job *j)
{
  int err;
  t->created = mkdir(j->to, (t->st.st_mode & 0777) | 0700) == 0;
  if (!t->created && (errno != EEXIST || t->flags & COPY_EXCLUSIVE))
    return errno;
  t->to = open(j->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (t->to >= 0)
    return 0;
  err = errno;
  if (t->created) /* as if nothing had been tried */
    rmdir(j->to);
  return err;
}

static int open_twin(struct part *p, const struct copy_job *j)
{
  struct twin *t = p->twin = twin_new(j->flags);
  int err = t != NULL ? open_from(t, j) : ENOMEM;
  return err != 0 ? err : open_to(t, j);
}

static int fill_part(struct part *p)
{
  int fd = p->twin->from;
  ssize_t n = directory_fill(fd, p->buffer, &p->ended);
  if (n < 0)
    return (int)-n;
  for (unsigned at = 0; at < (size_t)n / 8; at += entry_at(p, at)->size / 8) {
    const struct directory_entry *e = entry_at(p, at);
    if (directory_is_dots(e->name))
      continue;
    if (directory_type(fd, e) == S_IFDIR)
      p->directories[p->ndirectories++] = (uint16_t)at;
    else
      p->files[p->nfiles++] = (uint16_t)at;
  }
  return 0;
}

static int copy_range(struct copy_job *j)
{
  struct part *p = j->part;
  struct copying c = {.from = p->twin->from,
                      .to = p->twin->to,
                      .flags = p->twin->flags & ~(unsigned)COPY_FOLLOW,
                      .stop = &j->job.stop};
  int err = 0;
  while (err == 0 && j->next < j->end && c.bytes < ENOUGH_BYTES) {
    const struct directory_entry *e = entry_at(p, p->files[j->next]);
    c.from_name = c.to_name = e->name;
    err = atomic_load(&j->job.stop)
              ? ECANCELED
              : copy_file(&c, directory_type(p->twin->from, e));
    j->next += err == 0;
    j->copied += err == 0;
  }
  j->bytes = c.bytes;
  j->in_part = err != 0;
  return err;
}

/* Gives the copy of a directory what it is to have once all is in it: times,
** and no more permissions for its owner than the original. */
static int finish(const struct twin *t)
{
  struct stat to;
  if (t->flags & COPY_PRESERVE)
    return copy_attributes(t->to, &t->st);
  if (fstat(t->to, &to) < 0 ||
      fchmod(t->to, to.st_mode & ~(0700u & ~t->st.st_mode) & 07777) < 0)
    return errno;
  return 0;
}

static int open_and_finish(struct copy_job *j)
{
  struct twin *t = j->part->twin = twin_new(j->flags);
  int err = t != NULL ? open_from(t, j) : ENOMEM;
  if (err == 0)
    t->to = open(j->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (err != 0 || t->to < 0)
    return err != 0 ? err : errno;
  return finish(t);
}

static int copy_single(struct copy_job *j)
{
  struct copying c = {.from = AT_FDCWD,
                      .to = AT_FDCWD,
                      .from_name = j->from,
                      .to_name = j->to,
                      .flags = j->flags,
                      .stop = &j->job.stop};
  int err = copy_file(&c, 0);
  j->copied = err == 0;
  j->bytes = c.bytes;
  return err;
}

/* There is no descriptor for the first of its files: what a directory holds
** without having got anywhere would be missing where others do.  It is as if
** nothing had been tried. */
static void let_go(struct copy_job *j)
{
  struct twin *t = j->part->twin;
  close(t->from);
  close(t->to);
  t->from = t->to = -1;
  if (t->created)
    rmdir(j->to);
  j->in_part = false;
}

static int fill_and_copy(struct copy_job *j)
{
  const bool opens = j->part->twin == NULL;
  int err = 0;
  if (opens)
    err = open_twin(j->part, j);
  if (err == 0)
    err = fill_part(j->part);
  if (err != 0)
    return err;
  j->end = j->part->nfiles < FIRST_FILES ? j->part->nfiles : FIRST_FILES;
  err = copy_range(j);
  if (opens && j->copied == 0 && (err == EMFILE || err == ENFILE))
    let_go(j);
  return err;
}

static void copy_run(struct job *job)
{
  struct copy_job *j = (struct copy_job *)job;
  if (j->part == NULL)
    job->error = copy_single(j);
  else if (j->finishes)
    job->error = open_and_finish(j);
  else if (j->fills)
    job->error = fill_and_copy(j);
  else
    job->error = copy_range(j);
  job->stopped = job->error == ECANCELED;
}

static void copy_release(struct job *job)
{
  struct copy_job *j = (struct copy_job *)job;
  part_unref(j->part);
  free(j->from);
  free(j->to);
}

/*
** For Lua
*/

static struct copy_job *new_job(lua_State *L, struct core *core)
{
  struct copy_job *j = (struct copy_job *)worker_new_job(L, core, sizeof *j);
  j->job.run = copy_run;
  j->job.release = copy_release;
  j->job.finishes = true;
  return j;
}

static struct part *check_part(lua_State *L)
{
  struct part **box = luaL_checkudata(L, 1, PART_TYPE);
  luaL_argcheck(L, *box != NULL, 1, "it is closed");
  return *box;
}

static int part_gc(lua_State *L)
{
  struct part **box = luaL_checkudata(L, 1, PART_TYPE);
  part_unref(*box);
  *box = NULL;
  return 0;
}

static void push_errno(lua_State *L, int err)
{
  if (err != 0)
    lua_pushinteger(L, err);
  else
    lua_pushnil(L);
}

/* next, bytes [, errno]: what a job over a range came to */
static int push_progress(lua_State *L, const struct copy_job *j)
{
  lua_pushinteger(L, j->next);
  lua_pushinteger(L, (lua_Integer)j->bytes);
  push_errno(L, j->job.error);
  return 3;
}

/* part, next, bytes [, errno] | nil, errno */
static int filled_deliver(lua_State *L, struct job *job)
{
  struct copy_job *j = (struct copy_job *)job;
  struct part **box;
  if (job->error != 0 && !j->in_part) {
    lua_pushnil(L);
    push_errno(L, job->error);
    return 2;
  }
  box = lua_newuserdatauv(L, sizeof(struct part *), 0);
  *box = j->part;
  j->part = NULL;
  luaL_setmetatable(L, PART_TYPE);
  return 1 + push_progress(L, j);
}

static int range_deliver(lua_State *L, struct job *job)
{
  return push_progress(L, (struct copy_job *)job);
}

/* bytes | nil, errno */
static int single_deliver(lua_State *L, struct job *job)
{
  const struct copy_job *j = (const struct copy_job *)job;
  if (job->error != 0) {
    lua_pushnil(L);
    push_errno(L, job->error);
    return 2;
  }
  lua_pushinteger(L, (lua_Integer)j->bytes);
  return 1;
}

/* Paths and flags of a call: from, to, flags. */
static void take_paths(lua_State *L, struct copy_job *j)
{
  j->flags = (unsigned)lua_tointeger(L, 3);
  j->from = strdup(lua_tostring(L, 1));
  j->to = strdup(lua_tostring(L, 2));
  if (j->from == NULL || j->to == NULL)
    luaL_error(L, "not enough memory");
}

static void check_paths(lua_State *L)
{
  luaL_checkstring(L, 1);
  luaL_checkstring(L, 2);
  luaL_checkinteger(L, 3);
}

/* copy_file(from, to, flags) -> a job, of which await() gives bytes | nil,
** errno */
static int copy_file_lua(lua_State *L)
{
  struct core *core = core_upvalue(L);
  check_paths(L);
  take_paths(L, new_job(L, core));
  worker_begin(L, core, single_deliver);
  return 1;
}

/* A job over a directory that is to be opened. */
static struct copy_job *new_directory_job(lua_State *L, struct core *core)
{
  struct copy_job *j;
  check_paths(L);
  j = new_job(L, core);
  take_paths(L, j);
  j->part = part_new(NULL);
  if (j->part == NULL)
    luaL_error(L, "not enough memory");
  return j;
}

/* copy_directory(from, to, flags [, device, number]) -> a job, of which
** await() gives a part, how many of its files were copied, their bytes and
** the errno of the one that failed | nil, errno */
static int copy_directory(lua_State *L)
{
  struct core *core = core_upvalue(L);
  dev_t dev = (dev_t)luaL_optinteger(L, 4, 0);
  ino_t ino = (ino_t)luaL_optinteger(L, 5, 0);
  struct copy_job *j = new_directory_job(L, core);
  j->top_dev = dev;
  j->top_ino = ino;
  j->fills = true;
  worker_begin(L, core, filled_deliver);
  return 1;
}

/* finish_directory(from, to, flags) -> a job, of which await() gives 0 | nil,
** errno: for a part that said unfinished(), once all is in the copy */
static int finish_directory(lua_State *L)
{
  struct core *core = core_upvalue(L);
  new_directory_job(L, core)->finishes = true;
  worker_begin(L, core, single_deliver);
  return 1;
}

/* part:is_last() -> boolean */
static int part_is_last(lua_State *L)
{
  lua_pushboolean(L, check_part(L)->ended);
  return 1;
}

/* part:next_part() -> a job as of copy_directory */
static int next_part(lua_State *L)
{
  struct core *core = core_upvalue(L);
  const struct part *p = check_part(L);
  struct copy_job *j;
  luaL_argcheck(L, !p->ended, 1, "it is the last");
  j = new_job(L, core);
  j->fills = true;
  j->part = part_new(p->twin);
  if (j->part == NULL)
    return luaL_error(L, "not enough memory");
  worker_begin(L, core, filled_deliver);
  return 1;
}

/* part:copy(first, last) -> a job, of which await() gives the number of the
** last that was copied, bytes and the errno of the one behind it */
static int part_copy(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct part *p = check_part(L);
  lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
  struct copy_job *j;
  luaL_argcheck(L, first >= 1 && first <= last, 2, "out of range");
  luaL_argcheck(L, last <= (lua_Integer)p->nfiles, 3, "out of range");
  j = new_job(L, core);
  j->next = (unsigned)first - 1;
  j->end = (unsigned)last;
  j->part = p;
  atomic_fetch_add(&p->refs, 1);
  worker_begin(L, core, range_deliver);
  return 1;
}

/* part:count() -> how many files are in it, whatever they are */
static int part_count(lua_State *L)
{
  lua_pushinteger(L, check_part(L)->nfiles);
  return 1;
}

/* part:name(i) -> of the i-th file */
static int part_name(lua_State *L)
{
  struct part *p = check_part(L);
  lua_Integer i = luaL_checkinteger(L, 2);
  luaL_argcheck(L, i >= 1 && i <= (lua_Integer)p->nfiles, 2, "out of range");
  lua_pushstring(L, entry_at(p, p->files[i - 1])->name);
  return 1;
}

/* part:directories() -> the names of those in it */
static int part_directories(lua_State *L)
{
  struct part *p = check_part(L);
  lua_createtable(L, (int)p->ndirectories, 0);
  for (unsigned i = 0; i < p->ndirectories; i++) {
    lua_pushstring(L, entry_at(p, p->directories[i])->name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* part:identity() -> device and number of the copy, which is what must not be
** copied */
static int part_identity(lua_State *L)
{
  const struct twin *t = check_part(L)->twin;
  struct stat st;
  if (fstat(t->to, &st) < 0)
    return push_failure(L, "fstat", errno);
  lua_pushinteger(L, (lua_Integer)st.st_dev);
  lua_pushinteger(L, (lua_Integer)st.st_ino);
  return 2;
}

/* part:unfinished() -> must the copy of the directory be finished, once all is
** in it? */
static int part_unfinished(lua_State *L)
{
  const struct twin *t = check_part(L)->twin;
  lua_pushboolean(L, t->created && (t->flags & COPY_PRESERVE ||
                                    (t->st.st_mode & 0700) != 0700));
  return 1;
}

static const luaL_Reg part_methods[] = {
    {"copy", part_copy},         {"is_last", part_is_last},
    {"next_part", next_part},    {"count", part_count},
    {"name", part_name},         {"directories", part_directories},
    {"identity", part_identity}, {"unfinished", part_unfinished},
    {"close", part_gc},          {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"copy_file", copy_file_lua},
    {"copy_directory", copy_directory},
    {"finish_directory", finish_directory},
    {NULL, NULL},
};

void copy_register(lua_State *L, struct core *core)
{
  luaL_newmetatable(L, PART_TYPE);
  lua_pushcfunction(L, part_gc);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__close");
  lua_setfield(L, -2, "__gc");
  luaL_newlibtable(L, part_methods);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, part_methods, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
}
