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

enum uring_newer_op {
  URING_OP_FIXED_FD_INSTALL = 54, /* Linux 6.8 */
  URING_OP_BIND = 56,             /* Linux 6.11 */
  URING_OP_LISTEN = 57            /* Linux 6.11 */
};

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

#define URING_TIMEOUT_MULTISHOT (1U << 6) /* Linux 6.4 */

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#endif
