/* Finding GNU readline.  Where its headers are, the compiler compares. */
#include "library.h"

#include <dlfcn.h>
#include <stddef.h>

struct library lib;

#if __has_include(<readline/readline.h>) && __has_include(<readline/history.h>)
#include <readline/history.h>
#include <readline/readline.h>
#define SAME(name)                                                            \
  _Static_assert(__builtin_types_compatible_p(__typeof__(lib.name),           \
                                              __typeof__(&(name))),           \
                 "readline has another " #name);
#define SAME_FUNCTION(result, name, parameters) SAME(name)
#define SAME_VARIABLE(type, name)               SAME(name)
FUNCTIONS(SAME_FUNCTION)
VARIABLES(SAME_VARIABLE)
#endif

const char *library_load(void)
{
  static const char *const names[] = {"libreadline.so.8", "libreadline.so.7",
                                      "libreadline.so"};
  void *handle = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names && handle == NULL; i++)
    handle = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
  if (handle == NULL)
    return dlerror();
#define FIND(name)                                                            \
  *(void **)&lib.name = dlsym(handle, #name);                                 \
  if (lib.name == NULL)                                                       \
    return "there is no " #name " in it";
#define FIND_FUNCTION(result, name, parameters) FIND(name)
#define FIND_VARIABLE(type, name)               FIND(name)
  FUNCTIONS(FIND_FUNCTION)
  VARIABLES(FIND_VARIABLE)
  return NULL;
}
