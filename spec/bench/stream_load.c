/*
 * stream_load: a stream of small messages, one way, as fast as the other
 * end takes it. Many go out with one system call, so that it costs less
 * than any receiver.
 *
 *   stream_load PORT RECEIVER_PID BYTES WARM_MS MEASURED_MS
 *
 * Prints the messages sent in the measured window, its length, and the
 * CPU time the *receiver* used in it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "bench.h"

enum { BATCH = 512, BYTES_MAX = 4096 };

static char batch[BATCH * BYTES_MAX];

static int connect_to(int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  a.sin_port = htons((uint16_t)port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
    die("connect", errno);
  return fd;
}

/* Sends for a while; how many bytes. */
static double send_for(int fd, size_t size, double seconds)
{
  double until = wall_s() + seconds, sent = 0;
  while (wall_s() < until) {
    ssize_t n = send(fd, batch, size, MSG_NOSIGNAL);
    if (n < 0)
      die("send", errno);
    sent += (double)n;
  }
  return sent;
}

int main(int argc, char **argv)
{
  int port = (int)argument(argc, argv, 1, "port");
  pid_t pid = (pid_t)argument(argc, argv, 2, "pid");
  size_t bytes = (size_t)argument(argc, argv, 3, "bytes");
  double warm = (double)argument(argc, argv, 4, "warm ms") / 1e3;
  double seconds = (double)argument(argc, argv, 5, "measured ms") / 1e3;
  double sent, wall, cpu;
  clockid_t clock;
  int fd;
  if (bytes == 0 || bytes > BYTES_MAX)
    die("bytes", EINVAL);
  if (clock_getcpuclockid(pid, &clock) != 0)
    die("clock_getcpuclockid", ESRCH);
  fd = connect_to(port);
  send_for(fd, BATCH * bytes, warm);
  wall = wall_s();
  cpu = clock_s(clock);
  sent = send_for(fd, BATCH * bytes, seconds);
  cpu = clock_s(clock) - cpu;
  wall = wall_s() - wall;
  close(fd);
  report(sent / (double)bytes, wall, cpu);
  return 0;
}
