/*
 * startup: the stopwatch of the row "startup". Starts the interpreter
 * with an empty chunk and with the given one in turn, TIMES each, and
 * prints the medians of how long either lived and of the CPU time it
 * used, in seconds.
 *
 *   startup TIMES INTERPRETER CHUNK
 */
#include <errno.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bench.h"

enum { TIMES_MAX = 1000 };

extern char **environ;

struct lives {
  double wall[TIMES_MAX], cpu[TIMES_MAX];
  size_t n;
};

static double seconds(struct timeval t)
{
  return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

static void live(struct lives *lives, char *interpreter, char *chunk)
{
  char dash_e[] = "-e";
  char *argv[] = {interpreter, dash_e, chunk, NULL};
  struct rusage used;
  double start = wall_s();
  int status;
  pid_t pid;
  int rc = posix_spawnp(&pid, interpreter, NULL, NULL, argv, environ);
  if (rc != 0)
    die(interpreter, rc);
  if (wait4(pid, &status, 0, &used) < 0 || status != 0)
    die("the interpreter failed", ECHILD);
  lives->wall[lives->n] = wall_s() - start;
  lives->cpu[lives->n++] = seconds(used.ru_utime) + seconds(used.ru_stime);
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
  qsort(v, n, sizeof *v, by_value);
  return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void print(const char *name, struct lives *lives)
{
  printf("%s_wall=%.6f %s_cpu=%.6f\n", name, median(lives->wall, lives->n),
         name, median(lives->cpu, lives->n));
}

int main(int argc, char **argv)
{
  static struct lives bare, full;
  static char nothing[] = "";
  size_t times = (size_t)argument(argc, argv, 1, "times");
  if (argc != 4 || times == 0 || times > TIMES_MAX)
    die("startup TIMES INTERPRETER CHUNK", EINVAL);
  live(&bare, argv[2], nothing); /* the first of each fills the page cache */
  live(&full, argv[2], argv[3]);
  bare.n = full.n = 0;
  while (full.n < times) {
    live(&bare, argv[2], nothing);
    live(&full, argv[2], argv[3]);
  }
  print("bare", &bare);
  print("full", &full);
  return 0;
}
