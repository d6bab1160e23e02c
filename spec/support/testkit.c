/* What specs need from the system and Lua does not have: counting
** descriptors, fork and wait, signals, terminals, the kernel's view of a pool,
** and an allocator that fails.
*/
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <lualib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sets how many descriptors there may be, numbered from 0; gives what it was. */
static rlim_t set_max_fds(lua_State *L, rlim_t n)
{
  struct rlimit limit;
  rlim_t before;
  getrlimit(RLIMIT_NOFILE, &limit);
  before = limit.rlim_cur;
  limit.rlim_cur = n > limit.rlim_max ? limit.rlim_max : n;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
    luaL_error(L, "setrlimit: %s", strerror(errno));
  return before;
}

/* fds() -> how many descriptors this process has open, even where there is none
** left to count them with */
static int fds(lua_State *L)
{
  rlim_t limit = set_max_fds(L, RLIM_INFINITY);
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  set_max_fds(L, limit);
  if (d == NULL)
    return luaL_error(L, "/proc/self/fd: %s", strerror(errno));
  while (readdir(d) != NULL)
    n++;
  closedir(d);
  lua_pushinteger(L, n - 3); /* ".", "..", and the directory itself */
  return 1;
}

/* fork() -> 0 in the child, its pid in the parent */
static int fork_lua(lua_State *L)
{
  lua_pushinteger(L, fork());
  return 1;
}

/* wait(pid) -> exit status, or 128 + signal */
static int wait_lua(lua_State *L)
{
  int status = 0;
  if (waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0) < 0)
    return luaL_error(L, "waitpid: %s", strerror(errno));
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status)
                                       : 128 + WTERMSIG(status));
  return 1;
}

/* children() -> are there any; the pid of one that has ended and that nobody
** has waited for */
static int children(lua_State *L)
{
  siginfo_t info;
  info.si_pid = 0;
  lua_pushboolean(L,
                  waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
  if (info.si_pid == 0)
    return 1;
  lua_pushinteger(L, info.si_pid);
  return 2;
}

/* ignore_signal(number): from now on */
static int ignore_signal(lua_State *L)
{
  signal((int)luaL_checkinteger(L, 1), SIG_IGN);
  return 0;
}

/* disposition(number) -> "default" | "ignored" | "handled" */
static int disposition(lua_State *L)
{
  struct sigaction now;
  if (sigaction((int)luaL_checkinteger(L, 1), NULL, &now) < 0)
    return luaL_error(L, "sigaction: %s", strerror(errno));
  lua_pushstring(L, now.sa_handler == SIG_DFL   ? "default"
                    : now.sa_handler == SIG_IGN ? "ignored"
                                                : "handled");
  return 1;
}

/* exit(status): ends a forked child at once, without lua_close */
static int exit_lua(lua_State *L)
{
  _exit((int)luaL_optinteger(L, 1, 0));
}

static int kill_lua(lua_State *L)
{
  lua_pushboolean(L, kill((pid_t)luaL_checkinteger(L, 1),
                          (int)luaL_checkinteger(L, 2)) == 0);
  return 1;
}

static int getpid_lua(lua_State *L)
{
  lua_pushinteger(L, getpid());
  return 1;
}

static void on_alarm(int signal)
{
  (void)signal;
}

/* alarm(seconds): SIGALRM, which interrupts and does nothing, after that */
static int alarm_lua(lua_State *L)
{
  double s = luaL_checknumber(L, 1);
  struct itimerval it = {{0, 0}, {(time_t)s, (long)((s - (long)s) * 1e6)}};
  struct sigaction act;
  memset(&act, 0, sizeof act);
  act.sa_handler = on_alarm;
  sigaction(SIGALRM, &act, NULL);
  setitimer(ITIMER_REAL, &it, NULL);
  return 0;
}

/* cpu() -> seconds of CPU time this process has used */
static int cpu(lua_State *L)
{
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  lua_pushnumber(L,
                 (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  return 1;
}

/* refuse_rings(errno [, entries]): from now on this process is refused rings
** of more than `entries` (default 0: all), as by a container's profile */
static int refuse_rings(lua_State *L)
{
  unsigned err = (unsigned)luaL_checkinteger(L, 1);
  unsigned entries = (unsigned)luaL_optinteger(L, 2, 0);
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
               offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, entries, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
    return luaL_error(L, "prctl: %s", strerror(errno));
  return 0;
}

/* limit_size(bytes): no file that this process writes gets longer */
static int limit_size(lua_State *L)
{
  rlim_t n = (rlim_t)luaL_checkinteger(L, 1);
  struct rlimit limit = {n, n};
  signal(SIGXFSZ, SIG_IGN);
  if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
    return luaL_error(L, "setrlimit: %s", strerror(errno));
  return 0;
}

static int getuid_lua(lua_State *L)
{
  lua_pushinteger(L, getuid());
  return 1;
}

/* become_nobody(): who may do nothing that others may not */
static int become_nobody(lua_State *L)
{
  if (setgid(65534) < 0 || setuid(65534) < 0)
    return luaL_error(L, "setuid: %s", strerror(errno));
  return 0;
}

/* refuse_threads(): from now on this process is refused threads (EAGAIN) and
** forks, as where it has as many as it may */
static int refuse_threads(lua_State *L)
{
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
    return luaL_error(L, "prctl: %s", strerror(errno));
  return 0;
}

/* close(fd): at once and without a ring; false does nothing */
static int close_lua(lua_State *L)
{
  if (lua_toboolean(L, 1))
    close((int)luaL_checkinteger(L, 1));
  return 0;
}

/* limit_fds(n): descriptors of this process are below n from now on, until the
** next call */
static int limit_fds(lua_State *L)
{
  set_max_fds(L, (rlim_t)luaL_checkinteger(L, 1));
  return 0;
}

/* spare_fds(n): this process can open n more descriptors from now on, until the
** next call, whichever it has inherited */
static int spare_fds(lua_State *L)
{
  lua_Integer n = luaL_checkinteger(L, 1);
  int fd = 0;
  for (; n > 0; fd++)
    n -= fcntl(fd, F_GETFD) < 0;
  while (fcntl(fd, F_GETFD) >= 0)
    fd++;
  set_max_fds(L, (rlim_t)fd);
  return 0;
}

/* poll(fd, seconds) -> is there something to read within that time? */
static int poll_lua(lua_State *L)
{
  struct pollfd p = {(int)luaL_checkinteger(L, 1), POLLIN, 0};
  int n = poll(&p, 1, (int)(luaL_checknumber(L, 2) * 1000));
  lua_pushboolean(L, n > 0 && p.revents & POLLIN);
  return 1;
}

/* write(fd, data): at once and without a ring */
static int write_lua(lua_State *L)
{
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  lua_pushboolean(L, write((int)luaL_checkinteger(L, 1), data, len) ==
                         (ssize_t)len);
  return 1;
}

/* pollout(fd) -> can it be written now? */
static int pollout(lua_State *L)
{
  struct pollfd p = {(int)luaL_checkinteger(L, 1), POLLOUT, 0};
  lua_pushboolean(L, poll(&p, 1, 0) > 0 && p.revents & POLLOUT);
  return 1;
}

/*
** Terminals
*/

/* In the child: makes the other end of a terminal its own, and runs a command
** of the shell there. */
static void run_on_terminal(const char *name, const char *command)
{
  int fd;
  setsid();
  fd = open(name, O_RDWR);
  if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
    _exit(127);
  for (int i = 0; i < 3; i++)
    dup2(fd, i);
  if (fd > 2)
    close(fd);
  for (int i = 1; i < NSIG; i++)
    signal(i, SIG_DFL);
  execl("/bin/sh", "sh", "-c", command, (char *)NULL);
  _exit(127);
}

static void set_size(lua_State *L, int fd, int index)
{
  struct winsize size = {
      .ws_row = (unsigned short)luaL_optinteger(L, index, 24),
      .ws_col = (unsigned short)luaL_optinteger(L, index + 1, 80)};
  if (ioctl(fd, TIOCSWINSZ, &size) < 0)
    luaL_error(L, "TIOCSWINSZ: %s", strerror(errno));
}

/* terminal(command [, rows, columns]) -> descriptor, pid of what runs there */
static int terminal(lua_State *L)
{
  const char *command = luaL_checkstring(L, 1);
  int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  pid_t pid;
  if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0)
    return luaL_error(L, "posix_openpt: %s", strerror(errno));
  set_size(L, fd, 2);
  pid = fork();
  if (pid == 0)
    run_on_terminal(ptsname(fd), command);
  lua_pushinteger(L, fd);
  lua_pushinteger(L, pid);
  return 2;
}

/* resize(fd, rows, columns): the terminal's window has another size now */
static int resize(lua_State *L)
{
  set_size(L, (int)luaL_checkinteger(L, 1), 2);
  return 0;
}

/* read(fd, seconds) -> what is there within that time, "" if nothing is;
** nil at the end, which of a terminal is an error */
static int read_lua(lua_State *L)
{
  char buffer[4096];
  struct pollfd p = {(int)luaL_checkinteger(L, 1), POLLIN, 0};
  ssize_t n = 0;
  if (poll(&p, 1, (int)(luaL_checknumber(L, 2) * 1000)) > 0)
    n = read(p.fd, buffer, sizeof buffer);
  if (n < 0 || (n == 0 && p.revents != 0))
    lua_pushnil(L);
  else
    lua_pushlstring(L, buffer, (size_t)n);
  return 1;
}

/*
** An allocator that fails at the nth request from now on.
*/

static struct {
  lua_Alloc alloc;
  void *ud;
  long countdown; /* 0: does not fail */
  long failures;  /* how many requests in a row fail then */
  long requests;
} lowmem;

static void *failing(void *ud, void *p, size_t old, size_t size)
{
  (void)ud;
  /* shrinking and freeing never fail: Lua counts on it */
  if (size > 0 && (p == NULL || size > old)) {
    lowmem.requests++;
    if (lowmem.countdown > 1) {
      lowmem.countdown--;
    } else if (lowmem.countdown == 1) {
      if (--lowmem.failures == 0)
        lowmem.countdown = 0;
      return NULL;
    }
  }
  return lowmem.alloc(lowmem.ud, p, old, size);
}

/* fail_allocation(n [, times]): the nth request from now fails, and those
** that follow, `times` in all (default 1); 0: none does.  Lua tries again
** after a collection, so once is an error only of the C core; twice is one of
** Lua's, too.  Returns how many requests there have been since the last call.
** Ends with 0, since lua_close unloads this module before it frees the last.
*/
static int fail_allocation(lua_State *L)
{
  long n = (long)luaL_checkinteger(L, 1);
  long seen = lowmem.requests;
  if (n > 0 && lowmem.alloc == NULL) {
    lowmem.alloc = lua_getallocf(L, &lowmem.ud);
    lua_setallocf(L, failing, NULL);
  } else if (n == 0 && lowmem.alloc != NULL) {
    lua_setallocf(L, lowmem.alloc, lowmem.ud);
    lowmem.alloc = NULL;
  }
  lowmem.countdown = n;
  lowmem.failures = (long)luaL_optinteger(L, 2, 1);
  lowmem.requests = 0;
  lua_pushinteger(L, seen);
  return 1;
}

/* pool_head(ring_fd, group) -> how many buffers of a pool the kernel has taken
** so far, modulo 65536; nil where the kernel does not tell (before 6.8) */
static int pool_head(lua_State *L)
{
  struct {
    uint32_t group, head, resv[8];
  } status;
  memset(&status, 0, sizeof status);
  status.group = (uint32_t)luaL_checkinteger(L, 2);
  if (syscall(SYS_io_uring_register, (int)luaL_checkinteger(L, 1), 26, &status,
              1) < 0)
    return 0;
  lua_pushinteger(L, status.head);
  return 1;
}

/* A descriptor that has no opcode. */
static int epoll(lua_State *L)
{
  lua_pushinteger(L, epoll_create1(EPOLL_CLOEXEC));
  return 1;
}

static void *call_there(void *arg)
{
  lua_State *L = arg;
  int status = lua_pcall(L, 0, LUA_MULTRET, 0);
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, 1);
  return NULL;
}

/* in_thread(fn) -> as pcall(fn), which another thread makes; this one waits */
static int in_thread(lua_State *L)
{
  pthread_t there;
  int err;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  err = pthread_create(&there, NULL, call_there, L);
  if (err != 0)
    return luaL_error(L, "pthread_create: %s", strerror(err));
  pthread_join(there, NULL);
  return lua_gettop(L);
}

/* in_state(chunk): runs it in a Lua state of its own, which is then closed */
static int in_state(lua_State *L)
{
  const char *chunk = luaL_checkstring(L, 1);
  lua_State *other = luaL_newstate();
  bool failed;
  luaL_openlibs(other);
  failed = luaL_dostring(other, chunk);
  lua_pushstring(L, failed ? lua_tostring(other, -1) : NULL);
  lua_close(other);
  return failed ? lua_error(L) : 0;
}

/* eventfd(initial [, nonblocking]) -> descriptor */
static int eventfd_lua(lua_State *L)
{
  int flags = EFD_CLOEXEC | (lua_toboolean(L, 2) ? EFD_NONBLOCK : 0);
  lua_pushinteger(L, eventfd((unsigned)luaL_checkinteger(L, 1), flags));
  return 1;
}

/* signal_eventfd(fd, n): adds to it at once and without a ring */
static int signal_eventfd(lua_State *L)
{
  lua_pushboolean(L, eventfd_write((int)luaL_checkinteger(L, 1),
                                   (eventfd_t)luaL_checkinteger(L, 2)) == 0);
  return 1;
}

static struct timespec seconds(lua_Number s)
{
  struct timespec ts = {(time_t)s, (long)((s - (lua_Number)(time_t)s) * 1e9)};
  return ts;
}

/* timerfd(seconds [, interval]) -> descriptor */
static int timerfd_lua(lua_State *L)
{
  struct itimerspec when = {.it_interval = seconds(luaL_optnumber(L, 2, 0)),
                            .it_value = seconds(luaL_checknumber(L, 1))};
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (fd < 0 || timerfd_settime(fd, 0, &when, NULL) < 0)
    return luaL_error(L, "timerfd: %s", strerror(errno));
  lua_pushinteger(L, fd);
  return 1;
}

/* signalfd(signal) -> descriptor; the signal is blocked until
** unblock_signal(signal) */
static int signalfd_lua(lua_State *L)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, (int)luaL_checkinteger(L, 1));
  sigprocmask(SIG_BLOCK, &set, NULL);
  lua_pushinteger(L, signalfd(-1, &set, SFD_CLOEXEC));
  return 1;
}

static int unblock_signal(lua_State *L)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, (int)luaL_checkinteger(L, 1));
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  return 0;
}

/* unblock_descriptor(fd): sets O_NONBLOCK */
static int unblock_descriptor(lua_State *L)
{
  int fd = (int)luaL_checkinteger(L, 1);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return 0;
}

static const luaL_Reg functions[] = {
    {"fds", fds},
    {"fork", fork_lua},
    {"wait", wait_lua},
    {"exit", exit_lua},
    {"children", children},
    {"ignore_signal", ignore_signal},
    {"disposition", disposition},
    {"kill", kill_lua},
    {"getpid", getpid_lua},
    {"cpu", cpu},
    {"alarm", alarm_lua},
    {"close", close_lua},
    {"poll", poll_lua},
    {"write", write_lua},
    {"pollout", pollout},
    {"refuse_rings", refuse_rings},
    {"refuse_threads", refuse_threads},
    {"limit_size", limit_size},
    {"getuid", getuid_lua},
    {"become_nobody", become_nobody},
    {"limit_fds", limit_fds},
    {"spare_fds", spare_fds},
    {"terminal", terminal},
    {"resize", resize},
    {"read", read_lua},
    {"fail_allocation", fail_allocation},
    {"epoll", epoll},
    {"pool_head", pool_head},
    {"in_thread", in_thread},
    {"in_state", in_state},
    {"eventfd", eventfd_lua},
    {"signal_eventfd", signal_eventfd},
    {"timerfd", timerfd_lua},
    {"signalfd", signalfd_lua},
    {"unblock_signal", unblock_signal},
    {"unblock_descriptor", unblock_descriptor},
    {NULL, NULL},
};

int luaopen_testkit(lua_State *L);

int luaopen_testkit(lua_State *L)
{
  luaL_newlib(L, functions);
  return 1;
}
