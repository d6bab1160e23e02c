/* Names of hosts and services, by the system's resolver, in a thread. */
#ifndef URING_RESOLVE_H
#define URING_RESOLVE_H

#include "core.h"

/* Sets a function of the table on the top:
** getaddrinfo(host, service, family, type) -> { address, … }, each once
**   | nil, reason, errno */
void resolve_register(lua_State *L, struct core *core);

#endif
