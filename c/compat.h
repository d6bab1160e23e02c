/* What the kernel has and the liburing at hand may not know yet.
**
** Debian 12's liburing 2.3 stops at SENDMSG_ZC.  Opcodes are an enumeration
** in its header, which the preprocessor cannot test, so the newer ones have
** names of ours; the numbers are the kernel's and never change
** (include/uapi/linux/io_uring.h).
*/
#ifndef URING_COMPAT_H
#define URING_COMPAT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <liburing.h>
#include <linux/futex.h>

enum uring_newer_op {
  URING_OP_READ_MULTISHOT = 49,   /* Linux 6.7 */
  URING_OP_WAITID = 50,           /* Linux 6.7 */
  URING_OP_FUTEX_WAIT = 51,       /* Linux 6.7 */
  URING_OP_FUTEX_WAKE = 52,       /* Linux 6.7 */
  URING_OP_FUTEX_WAITV = 53,      /* Linux 6.7 */
  URING_OP_FIXED_FD_INSTALL = 54, /* Linux 6.8 */
  URING_OP_FTRUNCATE = 55,        /* Linux 6.9 */
  URING_OP_BIND = 56,             /* Linux 6.11 */
  URING_OP_LISTEN = 57,           /* Linux 6.11 */
  URING_OP_RECV_ZC = 58,          /* Linux 6.15 */
  URING_OP_EPOLL_WAIT = 59,       /* Linux 6.15 */
  URING_OP_READV_FIXED = 60,      /* Linux 6.15 */
  URING_OP_WRITEV_FIXED = 61,     /* Linux 6.15 */
  URING_OP_PIPE = 62              /* Linux 6.16 */
};

/* Commands of sockets (Linux 6.7), the SQE's cmd_op. */
enum uring_socket_command {
  URING_SOCKET_INQ = 0,
  URING_SOCKET_OUTQ = 1,
  URING_SOCKET_GETSOCKOPT = 2,
  URING_SOCKET_SETSOCKOPT = 3
};

/* Where they have their arguments in the SQE, in bytes. */
#define URING_SQE_CMD_OP  8
#define URING_SQE_LEVEL   16
#define URING_SQE_OPTNAME 20
#define URING_SQE_OPTLEN  44
#define URING_SQE_OPTVAL  48

/* Flags of a futex's word: 32 bits, and not shared with another process. */
#define URING_FUTEX2_U32     2
#define URING_FUTEX2_PRIVATE 128

/* Advice that the C library at hand may not know. */
#define URING_MADV_COLD           20
#define URING_MADV_PAGEOUT        21
#define URING_MADV_POPULATE_READ  22
#define URING_MADV_POPULATE_WRITE 23
#define URING_MADV_COLLAPSE       25

#ifndef IORING_FIXED_FD_NO_CLOEXEC
#define IORING_FIXED_FD_NO_CLOEXEC (1U << 0)
#endif

#ifndef IORING_SETUP_NO_SQARRAY
/* Not asked for: a liburing that does not know the flag writes the index
** array over the head of the ring. */
#define URING_SETUP_NO_SQARRAY 0U
#else
#define URING_SETUP_NO_SQARRAY IORING_SETUP_NO_SQARRAY
#endif

#ifndef IORING_FEAT_REG_REG_RING
#define IORING_FEAT_REG_REG_RING (1U << 13)
#endif

/* Of a pool: buffers that take data until they are full (Linux 6.12).  The
** flags stand where older headers have padding. */
#define URING_PBUF_RING_INC 2
#define URING_BUF_REG_FLAGS 14

/* Of send and recv, in ioprio: several buffers at once (Linux 6.10). */
#define URING_RECVSEND_BUNDLE (1U << 4)
#define URING_FEAT_BUNDLE     (1U << 14)

#define URING_TIMEOUT_MULTISHOT (1U << 6) /* Linux 6.4 */

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#endif
