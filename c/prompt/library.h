/* GNU readline, as far as it is used: found when the module is loaded, so that
** nothing is linked to it and its headers are not needed.
*/
#ifndef URING_PROMPT_LIBRARY_H
#define URING_PROMPT_LIBRARY_H

#include <stdio.h>

typedef void line_function(char *);
typedef int getc_function(FILE *);
typedef int hook_function(void);
typedef int command_function(int, int);
typedef char **completion_function(const char *, int, int);

/* What is used of the library: result, name, parameters; type, name. */
#define FUNCTIONS(X)                                                          \
  X(void, rl_callback_handler_install, (const char *, line_function *))       \
  X(void, rl_callback_handler_remove, (void))                                 \
  X(void, rl_callback_read_char, (void))                                      \
  X(void, rl_callback_sigcleanup, (void))                                     \
  X(int, rl_bind_keyseq, (const char *, command_function *))                  \
  X(int, rl_clear_visible_line, (void))                                       \
  X(int, rl_forced_update_display, (void))                                    \
  X(int, rl_history_search_backward, (int, int))                              \
  X(int, rl_history_search_forward, (int, int))                               \
  X(int, rl_initialize, (void))                                               \
  X(int, rl_insert_text, (const char *))                                      \
  X(void, rl_prep_terminal, (int))                                            \
  X(void, rl_redisplay, (void))                                               \
  X(void, rl_resize_terminal, (void))                                         \
  X(int, rl_variable_bind, (const char *, const char *))                      \
  X(void, add_history, (const char *))

#define VARIABLES(X)                                                          \
  X(const char *, rl_readline_name)                                           \
  X(char *, rl_line_buffer)                                                   \
  X(int, rl_end)                                                              \
  X(int, rl_point)                                                            \
  X(int, rl_catch_signals)                                                    \
  X(int, rl_catch_sigwinch)                                                   \
  X(int, rl_change_environment)                                               \
  X(int, rl_completion_query_items)                                           \
  X(int, rl_completion_append_character)                                      \
  X(int, rl_attempted_completion_over)                                        \
  X(const char *, rl_completer_word_break_characters)                         \
  X(getc_function *, rl_getc_function)                                        \
  X(hook_function *, rl_input_available_hook)                                 \
  X(completion_function *, rl_attempted_completion_function)

#define FUNCTION_POINTER(result, name, parameters) result(*name) parameters;
#define VARIABLE_POINTER(type, name)               __typeof__(type) *name;

/* The functions, and where the variables are. */
struct library {
  FUNCTIONS(FUNCTION_POINTER)
  VARIABLES(VARIABLE_POINTER)
};

extern struct library lib;

/* Looks for the library.  NULL, or why it cannot be used. */
const char *library_load(void);

#endif
