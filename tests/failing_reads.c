/* Reads of one file fail with EIO from some byte on, or are slow, as from a disk that does so; for LD_PRELOAD.
 *
 * FAILING_FILE is the file's resolved path, FAILING_AFTER the first byte that cannot be read, FAILING_DELAY the
 * microseconds of each of its reads. All three are looked up at every read, so that a process can change them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* How many of `count` bytes from `offset` on can be read: all, some, or -1 with errno set. */
static ssize_t readable(int file, off_t offset, size_t count) {
  const char *chosen = getenv("FAILING_FILE"), *after = getenv("FAILING_AFTER"), *delay = getenv("FAILING_DELAY");
  char link[64], path[PATH_MAX];
  int before = errno;
  if (chosen == NULL || *chosen == '\0' || offset < 0) return (ssize_t)count;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  if (length < 0) return (ssize_t)count;
  path[length] = '\0';
  if (strcmp(path, chosen) != 0) return (ssize_t)count;
  if (delay != NULL) usleep((useconds_t)atol(delay));
  if (after == NULL || offset + (off_t)count <= atol(after)) return (ssize_t)count;
  if (offset < atol(after)) return (ssize_t)(atol(after) - offset);
  errno = EIO;
  return -1;
}

ssize_t read(int file, void *buffer, size_t count) {
  static ssize_t (*real)(int, void *, size_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "read");
  int before = errno;
  off_t offset = lseek(file, 0, SEEK_CUR); /* -1 for a pipe */
  errno = before;
  ssize_t some = readable(file, offset, count);
  return some < 0 ? some : real(file, buffer, (size_t)some);
}

ssize_t pread64(int file, void *buffer, size_t count, off_t offset) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "pread64");
  ssize_t some = readable(file, offset, count);
  return some < 0 ? some : real(file, buffer, (size_t)some, offset);
}

ssize_t pread(int file, void *buffer, size_t count, off_t offset) { return pread64(file, buffer, count, offset); }
