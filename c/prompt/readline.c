/* uring.readline: GNU readline through its callback interface.
**
** Readline never waits here.  The prompt polls the terminal on its ring, and
** what has come is read at once and fed to readline byte by byte.  So all that
** is typed ahead stays in this file's buffer, where the prompt knows of it.
** A bracketed paste is collected here and inserted when it is whole: readline
** itself would wait for its end.
**
** Where there is no such library the module fails to load.
*/
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "library.h"

#define PASTE_BEGINS "\033[200~"
#define PASTE_ENDS   "\033[201~"
#define MARK         (sizeof PASTE_BEGINS - 1)

/* A paste that is longer is cut. */
#define PASTE_MAX (16u << 20)

/* What readline is given where it asks for more than there is: a key that does
** next to nothing.  (To abort what it was in the middle of, it jumps, and not
** always to where somebody still stands.)  So often, then it is the end. */
#define NOTHING  0
#define NOTHINGS 1000u

static struct {
  bool ready;       /* the library has been set up */
  bool installed;   /* the prompt is there, and the terminal readline's */
  bool hidden;      /* its line has been taken off the screen for a while */
  bool ended;       /* Ctrl-D */
  unsigned starved; /* how often it asked for more than there is */
  char *line;       /* that was entered, or NULL */
  lua_State *L;     /* during feed */
  int complete;     /* reference of the function that completes */
  bool failed;      /* it could not be read, or it is closed */
  size_t at, size;  /* of what has been read and not fed */
  char input[4096];
  char *paste; /* being collected, or NULL */
  size_t paste_size, paste_room;
} prompt = {.complete = LUA_NOREF};

static void on_line(char *line)
{
  prompt.ended = line == NULL && prompt.starved == 0;
  prompt.line = line;
  lib.rl_callback_handler_remove();
  prompt.installed = false;
}

/* Reads what is there, without waiting longer than that. */
static void read_input(int milliseconds)
{
  struct pollfd p = {STDIN_FILENO, POLLIN, 0};
  ssize_t n;
  if (prompt.at > 0) {
    memmove(prompt.input, prompt.input + prompt.at, prompt.size - prompt.at);
    prompt.size -= prompt.at;
    prompt.at = 0;
  }
  if (prompt.size == sizeof prompt.input || poll(&p, 1, milliseconds) <= 0)
    return;
  n = read(STDIN_FILENO, prompt.input + prompt.size,
           sizeof prompt.input - prompt.size);
  if (n > 0)
    prompt.size += (size_t)n;
  else if (n == 0 || (errno != EINTR && errno != EAGAIN))
    prompt.failed = true;
}

static int next_byte(FILE *file)
{
  (void)file;
  if (prompt.at == prompt.size)
    read_input(prompt.starved == 0 ? 100 : 0);
  if (prompt.at == prompt.size)
    return prompt.starved++ < NOTHINGS ? NOTHING : EOF;
  prompt.starved = 0;
  return (unsigned char)prompt.input[prompt.at++];
}

static int is_available(void)
{
  return prompt.at < prompt.size;
}

/*
** Completion
*/

/* How much the candidates have in common. */
static size_t common(char *const *words)
{
  size_t n = strlen(words[0]);
  for (size_t i = 1; words[i] != NULL; i++) {
    size_t same = 0;
    while (same < n && words[i][same] == words[0][same])
      same++;
    n = same;
  }
  return n;
}

/* The list on the top as readline has it: what they have in common, then the
** candidates, if there are several; all of it from malloc.  NULL: no memory,
** or no candidates. */
static char **matches(lua_State *L)
{
  size_t n = lua_rawlen(L, -1), kept = 0;
  char **list = n > 0 ? calloc(n + 2, sizeof *list) : NULL;
  if (list == NULL)
    return NULL;
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i);
    if (lua_type(L, -1) == LUA_TSTRING &&
        (list[kept + 1] = strdup(lua_tostring(L, -1))) != NULL)
      kept++;
    lua_pop(L, 1);
  }
  if (kept > 0)
    list[0] = strndup(list[1], common(list + 1));
  if (kept == 1) {
    free(list[1]);
    list[1] = NULL;
  }
  if (list[0] != NULL)
    return list;
  for (size_t i = 1; i <= kept; i++)
    free(list[i]);
  free(list);
  return NULL;
}

/* complete(line up to here, where the word begins) -> candidates, what to put
** behind the only one | nil: they are names of files */
static char **complete(const char *text, int start, int end)
{
  lua_State *L = prompt.L;
  int top = lua_gettop(L);
  char **list = NULL;
  (void)text;
  lua_rawgeti(L, LUA_REGISTRYINDEX, prompt.complete);
  lua_pushlstring(L, *lib.rl_line_buffer, (size_t)end);
  lua_pushinteger(L, start + 1);
  *lib.rl_attempted_completion_over = 1;
  *lib.rl_completion_append_character = 0;
  if (lua_pcall(L, 2, 2, 0) == LUA_OK) {
    if (lua_isnil(L, top + 1))
      *lib.rl_attempted_completion_over = 0;
    if (lua_isstring(L, top + 2))
      *lib.rl_completion_append_character =
          (unsigned char)*lua_tostring(L, top + 2);
    if (lua_istable(L, top + 1)) {
      lua_settop(L, top + 1);
      list = matches(L);
    }
  }
  lua_settop(L, top);
  return list;
}

/*
** Pastes
*/

/* Does what has come and was not fed begin with the mark?  *partly: it may
** yet. */
static bool begins_with(const char *mark, bool *partly)
{
  size_t have = prompt.size - prompt.at;
  size_t n = have < MARK ? have : MARK;
  bool same = n > 0 && memcmp(prompt.input + prompt.at, mark, n) == 0;
  *partly = same && n < MARK;
  return same && n == MARK;
}

static bool make_room(void)
{
  size_t room = prompt.paste_room ? prompt.paste_room * 2 : 4096;
  char *bigger;
  if (prompt.paste_size + 1 < prompt.paste_room)
    return true;
  if (room > PASTE_MAX)
    return false;
  bigger = realloc(prompt.paste, room);
  if (bigger == NULL)
    return false;
  prompt.paste = bigger;
  prompt.paste_room = room;
  return true;
}

/* Takes one byte of a paste.  Terminals send the ends of lines as carriage
** returns; other control characters are no part of any text. */
static void paste_byte(char c)
{
  if (c == '\r')
    c = '\n';
  if (((unsigned char)c >= ' ' && c != 127) || c == '\n' || c == '\t')
    if (make_room())
      prompt.paste[prompt.paste_size++] = c;
}

static void end_paste(void)
{
  prompt.paste[prompt.paste_size] = '\0';
  lib.rl_insert_text(prompt.paste);
  free(prompt.paste);
  prompt.paste = NULL;
  prompt.paste_size = prompt.paste_room = 0;
  lib.rl_redisplay();
}

/* Takes what has come of a paste.  False: more has to come. */
static bool take_paste(void)
{
  bool partly;
  while (prompt.at < prompt.size) {
    if (begins_with(PASTE_ENDS, &partly)) {
      prompt.at += MARK;
      end_paste();
      return true;
    }
    if (partly)
      return false;
    paste_byte(prompt.input[prompt.at++]);
  }
  return false;
}

/* Feeds a byte, or takes a paste.  False: more has to come. */
static bool feed_once(void)
{
  bool partly;
  if (prompt.paste != NULL)
    return take_paste();
  if (prompt.at == prompt.size)
    return false;
  if (begins_with(PASTE_BEGINS, &partly) && make_room()) {
    prompt.at += MARK;
    return true;
  }
  if (partly)
    return false;
  lib.rl_callback_read_char();
  return true;
}

/*
** The module
*/

static int no_command(int count, int key)
{
  (void)count;
  (void)key;
  return 0;
}

static void set_up(void)
{
  *lib.rl_readline_name = "uring";
  *lib.rl_catch_signals = 0;
  *lib.rl_catch_sigwinch = 0;
  *lib.rl_change_environment = 0;
  *lib.rl_getc_function = next_byte;
  *lib.rl_input_available_hook = is_available;
  *lib.rl_attempted_completion_function = complete;
  *lib.rl_completer_word_break_characters = " \t\n\"'><=;:+-*/%^~#{}()[].,&|";
  lib.rl_initialize();
  /* neither question nor pager: both would wait for keys */
  lib.rl_bind_keyseq("\\e[200~", no_command); /* see take_paste */
  *lib.rl_completion_query_items = -1;
  lib.rl_variable_bind("page-completions", "off");
  /* not the incremental search: with its callback interface readline 8.2 dies
  ** of some of the keys that end one */
  lib.rl_bind_keyseq("\\C-r", lib.rl_history_search_backward);
  lib.rl_bind_keyseq("\\C-s", lib.rl_history_search_forward);
  prompt.ready = true;
}

/* A paste of just any bytes shall not end the process: while the terminal is
** readline's, Ctrl-\ is a key like others.  Readline gives back what it found.
*/
static void disable_quit(void)
{
  struct termios t;
  if (tcgetattr(STDIN_FILENO, &t) < 0)
    return;
  t.c_cc[VQUIT] = _POSIX_VDISABLE;
  tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

/* open(prompt, complete): shows the prompt; the terminal is readline's until
** a line is entered */
static int readline_open(lua_State *L)
{
  const char *text = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  if (!prompt.ready)
    set_up();
  lua_settop(L, 2);
  luaL_unref(L, LUA_REGISTRYINDEX, prompt.complete);
  prompt.complete = luaL_ref(L, LUA_REGISTRYINDEX);
  prompt.installed = true;
  prompt.hidden = false;
  lib.rl_callback_handler_install(text, on_line);
  disable_quit();
  return 0;
}

static void show(void)
{
  if (prompt.installed && prompt.hidden) {
    prompt.hidden = false;
    lib.rl_forced_update_display();
    fflush(stdout);
  }
}

/* Pushes the line that was entered. */
static int push_line(lua_State *L)
{
  lua_pushstring(L, prompt.line);
  free(prompt.line);
  prompt.line = NULL;
  return 1;
}

/* feed([more]) -> a line that was entered | false: the end | nil: more has to
** come.  Reads what the terminal has, if `more` */
static int readline_feed(lua_State *L)
{
  if (lua_toboolean(L, 1))
    read_input(0);
  show();
  prompt.L = L;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  while (prompt.installed && feed_once())
    ;
  if (prompt.line != NULL)
    return push_line(L);
  if (!prompt.installed && prompt.starved > 0) { /* that was no end */
    prompt.starved = 0;
    lua_pushliteral(L, "");
    return 1;
  }
  if (prompt.ended || prompt.failed) {
    prompt.ended = false;
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_pushnil(L);
  return 1;
}

/* hide() -> was it there?  Takes the line off the screen: somebody is about to
** write */
static int readline_hide(lua_State *L)
{
  bool shown = prompt.installed && !prompt.hidden;
  if (shown) {
    lib.rl_clear_visible_line();
    fflush(stdout);
    prompt.hidden = true;
  }
  lua_pushboolean(L, shown);
  return 1;
}

static int readline_show(lua_State *L)
{
  (void)L;
  show();
  return 0;
}

/* resize(): the window has another size */
static int readline_resize(lua_State *L)
{
  (void)L;
  if (prompt.installed) {
    lib.rl_resize_terminal();
    fflush(stdout);
  }
  return 0;
}

/* resume(): the process was stopped, and others have had the terminal */
static int readline_resume(lua_State *L)
{
  (void)L;
  if (prompt.installed) {
    lib.rl_prep_terminal(1);
    disable_quit();
    prompt.hidden = true;
    show();
  }
  return 0;
}

/* Readline may be in the middle of something: of a key of several bytes, a
** search, a numeric argument. */
static void leave(void)
{
  if (prompt.installed) {
    lib.rl_callback_sigcleanup();
    lib.rl_callback_handler_remove();
  }
  prompt.installed = false;
  free(prompt.paste);
  prompt.paste = NULL;
  prompt.paste_size = prompt.paste_room = 0;
}

/* What was typed stays on the screen, and the next line begins below it. */
static void abandon_line(void)
{
  *lib.rl_point = *lib.rl_end;
  lib.rl_redisplay();
  fputs("^C\n", stdout);
  fflush(stdout);
}

/* close([drop]): the terminal is as it was before.  If `drop`, at Ctrl-C, what
** was typed is dropped, and what was typed ahead, too */
static int readline_close(lua_State *L)
{
  bool drop = lua_toboolean(L, 1);
  if (drop && prompt.installed && !prompt.hidden)
    abandon_line();
  leave();
  if (drop)
    prompt.at = prompt.size = 0;
  return 0;
}

/* remember(line): for the arrow keys */
static int readline_remember(lua_State *L)
{
  if (!prompt.ready)
    set_up();
  lib.add_history(luaL_checkstring(L, 1));
  return 0;
}

static const luaL_Reg functions[] = {
    {"open", readline_open},
    {"feed", readline_feed},
    {"hide", readline_hide},
    {"show", readline_show},
    {"resize", readline_resize},
    {"resume", readline_resume},
    {"remember", readline_remember},
    {"close", readline_close},
    {NULL, NULL},
};

/* Whichever way the process ends by itself, the terminal is as it was. */
__attribute__((destructor)) static void restore(void)
{
  leave();
}

__attribute__((visibility("default"))) int
luaopen_uring_readline(lua_State *L);

int luaopen_uring_readline(lua_State *L)
{
  const char *why = library_load();
  if (why != NULL)
    return luaL_error(L, "GNU readline cannot be used: %s", why);
  luaL_newlib(L, functions);
  return 1;
}
