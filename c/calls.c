/* What the system calls do that stand in for opcodes. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "op.h"

static int result(long rc)
{
  return rc < 0 ? -errno : (int)rc;
}

static void *pointer(uint64_t address)
{
  return (void *)(uintptr_t)address;
}

static uint32_t word_at(const struct request *q, size_t where)
{
  uint32_t n;
  memcpy(&n, (const char *)&q->sqe + where, sizeof n);
  return n;
}

int call_bind(const struct request *q)
{
  return result(
      bind(q->sqe.fd, (const struct sockaddr *)&q->addr, q->addr_len));
}

int call_listen(const struct request *q)
{
  return result(listen(q->sqe.fd, (int)q->sqe.len));
}

int call_ftruncate(const struct request *q)
{
  return result(ftruncate(q->sqe.fd, (off_t)q->sqe.off));
}

int call_pipe(const struct request *q)
{
  return result(pipe2(pointer(q->sqe.addr), (int)q->sqe.rw_flags));
}

int call_epoll_ctl(const struct request *q)
{
  return result(epoll_ctl(q->sqe.fd, (int)q->sqe.len, (int)q->sqe.off,
                          pointer(q->sqe.addr)));
}

int call_futex_wake(const struct request *q)
{
  int private = q->sqe.fd & URING_FUTEX2_PRIVATE ? FUTEX_PRIVATE_FLAG : 0;
  int count = q->sqe.off < INT32_MAX ? (int)q->sqe.off : INT32_MAX;
  if (q->sqe.rw_flags != 0)
    return -EINVAL;
  return result(syscall(SYS_futex, pointer(q->sqe.addr),
                        FUTEX_WAKE_BITSET | private, count, NULL, NULL,
                        (uint32_t)q->sqe.addr3));
}

int call_getsockopt(const struct request *q)
{
  socklen_t len = word_at(q, URING_SQE_OPTLEN);
  int rc = getsockopt(q->sqe.fd, (int)word_at(q, URING_SQE_LEVEL),
                      (int)word_at(q, URING_SQE_OPTNAME),
                      pointer(q->sqe.addr3), &len);
  return rc < 0 ? -errno : (int)len;
}

int call_setsockopt(const struct request *q)
{
  return result(setsockopt(q->sqe.fd, (int)word_at(q, URING_SQE_LEVEL),
                           (int)word_at(q, URING_SQE_OPTNAME),
                           pointer(q->sqe.addr3),
                           word_at(q, URING_SQE_OPTLEN)));
}

static int call_ioctl(const struct request *q, unsigned long command)
{
  int n = 0;
  return ioctl(q->sqe.fd, command, &n) < 0 ? -errno : n;
}

int call_siocinq(const struct request *q)
{
  return call_ioctl(q, SIOCINQ);
}

int call_siocoutq(const struct request *q)
{
  return call_ioctl(q, SIOCOUTQ);
}
