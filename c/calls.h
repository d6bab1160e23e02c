/* Operations done by system calls that do not block, for kernels that lack
** the opcode.  The SQE of the request is complete, pointers included; they
** return what the operation would: a result or -errno.
*/
#ifndef URING_CALLS_H
#define URING_CALLS_H

struct request;

typedef int by_call(const struct request *q);

by_call call_bind, call_listen, call_ftruncate, call_pipe, call_epoll_ctl,
    call_futex_wake, call_getsockopt, call_setsockopt, call_siocinq,
    call_siocoutq;

#endif
