/* Keeping this module's code where it is. */
#include "mapped.h"

#include <dlfcn.h>
#include <stddef.h>

bool keep_mapped(void)
{
  static const char inside = 0;
  Dl_info info;
  const void *kept = NULL;
  if (dladdr(&inside, &info) != 0)
    kept = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  return kept != NULL;
}
