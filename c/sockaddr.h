/* Addresses: strings in Lua, sockaddr for the kernel. */
#ifndef URING_SOCKADDR_H
#define URING_SOCKADDR_H

#include "compat.h"

#include <lauxlib.h>

/* Long enough for every text that sockaddr_format makes. */
#define ADDRESS_TEXT 160

/* Reads "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80" (its interface by name
** or number), "localhost:80", "*:80", "unix:/path" or "unix:@abstract".  NULL,
** or what is wrong with the text. */
const char *sockaddr_parse(const char *text, size_t len,
                           struct sockaddr_storage *addr, socklen_t *addr_len);

/* Writes the text of an address, "" for one without a name. */
void sockaddr_format(const struct sockaddr_storage *addr, socklen_t addr_len,
                     char text[ADDRESS_TEXT], size_t *len);

void sockaddr_push(lua_State *L, const struct sockaddr_storage *addr,
                   socklen_t addr_len);

/* parse(text) -> family (AF_*) | nil, message, EINVAL
** local_address(fd), peer_address(fd) -> text | nil, message, errno */
int sockaddr_family_lua(lua_State *L);
int sockaddr_local_lua(lua_State *L);
int sockaddr_peer_lua(lua_State *L);

#endif
