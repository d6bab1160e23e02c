/* Signals of the terminal, two ways.
**
** A script: SIGINT strikes as in the stock interpreter (the hook is the one of
** lua.c), and besides the main chunk it strikes the task that runs, so that a
** task that loops is ended, too.  A second one is the system's.
**
** The prompt: signals are noted and ring a bell, an eventfd that the prompt
** polls on its ring, so that no signal falls between looking and entering.
** `interrupt.wait` lets the main chunk turn the loop until there is one.  Only
** a task that is in the foreground is struck where it runs, and any other
** that does not let go of the loop: at the second SIGINT that nobody took.
**
** A handler may interrupt anything: it does what lua.c's does (lua_sethook),
** reads two pointers, and writes to the bell.
*/
#include "interrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "errors.h"
#include "loop.h"
#include "ring.h"
#include "task.h"

static const struct {
  const char *name;
  int number, flags;
} known[] = {
    {"INT", SIGINT, 0},
    {"HUP", SIGHUP, 0},
    {"TERM", SIGTERM, 0},
    {"WINCH", SIGWINCH, SA_RESTART},
    {"CONT", SIGCONT, SA_RESTART},
    {"QUIT", SIGQUIT, 0},
};

#define NKNOWN (sizeof known / sizeof *known)

/* Handlers belong to the process, so there is one of these. */
static struct {
  struct core *core; /* NULL: nobody catches anything */
  pthread_t thread;  /* that runs it */
  pid_t pid;
  int bell;                          /* -1: a script's */
  const struct task *foreground;     /* only ever compared */
  atomic_uint caught;                /* a bit for each of `known` */
  atomic_uint strikes;               /* SIGINTs that nobody took yet */
  atomic_uint quits;                 /* and SIGQUITs */
  struct sigaction previous[NKNOWN]; /* of those in `catches` */
  unsigned catches;
} catcher = {.bell = -1};

/* The hook.  It may stand in a coroutine that went on long after. */
static void strike(lua_State *L, lua_Debug *ar)
{
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  if (atomic_exchange(&catcher.strikes, 0) > 0)
    luaL_error(L, "interrupted!");
}

static void hook(lua_State *L)
{
  lua_sethook(L, strike,
              LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static void strike_task(const struct task *t)
{
  hook(t->co);
  if (t->inner != t->co)
    hook(t->inner);
}

static void on_interrupt(void)
{
  const struct task *t = catcher.core->sched.current;
  unsigned strikes = atomic_fetch_add(&catcher.strikes, 1) + 1;
  if (catcher.bell < 0) {
    signal(SIGINT, SIG_DFL);
    hook(catcher.core->L);
    if (t != NULL)
      strike_task(t);
  } else if (t != NULL && (t == catcher.foreground || strikes > 1)) {
    strike_task(t);
  }
}

/* A paste of just any bytes may have Ctrl-\ in it, and shall not end what
** runs.  It does where nobody takes signals any more: the third one. */
static void on_quit(void)
{
  if (atomic_fetch_add(&catcher.quits, 1) < 2)
    return;
  signal(SIGQUIT, SIG_DFL);
  raise(SIGQUIT);
}

static void on_signal(int number)
{
  int saved = errno;
  if (catcher.core == NULL || getpid() != catcher.pid) { /* a child's */
    signal(number, SIG_DFL);
    raise(number);
  } else if (!pthread_equal(pthread_self(), catcher.thread)) {
    pthread_kill(catcher.thread, number);
  } else {
    for (unsigned i = 0; i < NKNOWN; i++)
      if (known[i].number == number)
        atomic_fetch_or(&catcher.caught, 1u << i);
    if (number == SIGINT)
      on_interrupt();
    else if (number == SIGQUIT)
      on_quit();
    if (catcher.bell >= 0)
      eventfd_write(catcher.bell, 1);
  }
  errno = saved;
}

/* Catches it, unless it is SIGHUP and the program's parent has it ignored
** (nohup). */
static void catch_signal(unsigned i)
{
  struct sigaction act;
  if (sigaction(known[i].number, NULL, &catcher.previous[i]) < 0 ||
      (known[i].number == SIGHUP && catcher.previous[i].sa_handler == SIG_IGN))
    return;
  memset(&act, 0, sizeof act);
  act.sa_handler = on_signal;
  act.sa_flags = known[i].flags;
  sigemptyset(&act.sa_mask);
  if (sigaction(known[i].number, &act, NULL) == 0)
    catcher.catches |= 1u << i;
}

void interrupt_release(const struct core *core)
{
  if (catcher.core != core)
    return;
  for (unsigned i = 0; i < NKNOWN; i++)
    if (catcher.catches & 1u << i)
      sigaction(known[i].number, &catcher.previous[i], NULL);
  catcher.catches = 0;
  catcher.core = NULL;
  if (catcher.bell >= 0)
    close(catcher.bell);
  catcher.bell = -1;
}

static void begin(struct core *core)
{
  if (catcher.core != NULL)
    interrupt_release(catcher.core);
  catcher.core = core;
  catcher.thread = pthread_self();
  catcher.pid = getpid();
  catcher.foreground = NULL;
  atomic_store(&catcher.caught, 0);
  atomic_store(&catcher.strikes, 0);
}

/* interrupt.strike(): SIGINT is a script's from now on */
static int strike_script(lua_State *L)
{
  begin(core_upvalue(L));
  catch_signal(0);
  return 0;
}

/* interrupt.note() -> the bell | nil, message, errno.  All of them are noted
** from now on */
static int note_signals(lua_State *L)
{
  int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell < 0)
    return push_failure(L, "eventfd", errno);
  begin(core_upvalue(L));
  catcher.bell = bell;
  for (unsigned i = 0; i < NKNOWN; i++)
    catch_signal(i);
  lua_pushinteger(L, bell);
  return 1;
}

/* interrupt.release(): as it was before */
static int release_signals(lua_State *L)
{
  interrupt_release(core_upvalue(L));
  return 0;
}

/* interrupt.take() -> { INT = true, … }: what has come since the last call */
static int take_signals(lua_State *L)
{
  eventfd_t rung;
  unsigned caught;
  if (catcher.bell >= 0)
    eventfd_read(catcher.bell, &rung);
  caught = atomic_exchange(&catcher.caught, 0);
  atomic_store(&catcher.strikes, 0);
  atomic_store(&catcher.quits, 0);
  lua_newtable(L);
  for (unsigned i = 0; i < NKNOWN; i++)
    if (caught & 1u << i) {
      lua_pushboolean(L, 1);
      lua_setfield(L, -2, known[i].name);
    }
  return 1;
}

/* interrupt.foreground(Task | nil): whom SIGINT strikes where it runs */
static int foreground(lua_State *L)
{
  catcher.foreground =
      lua_isnoneornil(L, 1) ? NULL : luaL_checkudata(L, 1, TASK_TYPE);
  return 0;
}

static bool ended_or_caught(void *arg)
{
  return ((const struct task *)arg)->state == TASK_ENDED ||
         atomic_load(&catcher.caught) != 0;
}

/* interrupt.wait(Task) -> has it ended?  Turns the loop, in the main chunk,
** until it has or there is a signal to take */
static int wait_signals(lua_State *L)
{
  struct core *core = core_upvalue(L);
  struct task *t = luaL_checkudata(L, 1, TASK_TYPE);
  core_enter(L, core);
  if (!ended_or_caught(t))
    loop_until(L, core_home(L, core), UINT64_MAX, ended_or_caught, t);
  lua_pushboolean(L, t->state == TASK_ENDED);
  return 1;
}

static const luaL_Reg functions[] = {
    {"strike", strike_script},
    {"note", note_signals},
    {"take", take_signals},
    {"release", release_signals},
    {"wait", wait_signals},
    {"foreground", foreground},
    {NULL, NULL},
};

void interrupt_register(lua_State *L, struct core *core)
{
  lua_newtable(L);
  lua_pushlightuserdata(L, core);
  luaL_setfuncs(L, functions, 1);
  lua_setfield(L, -2, "interrupt");
}
