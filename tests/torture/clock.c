/* Another wall clock for one process, as if the machine's own had been set: put before libc by LD_PRELOAD.
 *
 * The file that CLOCK_TIMELINE names says when the clock was set to what: a count, then pairs of the kernel's time
 * (nanoseconds since the epoch) and of the offset from then on. Times of files are changed as well, each by the offset
 * that was in force when the kernel gave it: so a file bears the time that the clock showed, as on a real machine.
 * Monotonic clocks stay as they are, and so does what is asked of the kernel without libc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096
#define SECOND 1000000000LL

struct timeline {
    volatile int64_t count;
    struct { int64_t from, offset; } set[MOST];
};

static const struct timeline *line;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_TIMELINE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct timeline), PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        abort();
    line = map;
    close(fd);
}

static struct timespec in_ns(int64_t ns) {
    struct timespec at = {ns / SECOND, ns % SECOND};
    if (at.tv_nsec < 0) {
        at.tv_nsec += SECOND;
        at.tv_sec -= 1;
    }
    return at;
}

static int64_t ns_of(struct timespec at) { return at.tv_sec * SECOND + at.tv_nsec; }

static struct timespec shown(struct timespec at) {
    int64_t ns = ns_of(at);
    for (int64_t i = line ? line->count - 1 : -1; i >= 0; i--)
        if (line->set[i].from <= ns)
            return in_ns(ns + line->set[i].offset);
    return at;
}

/* The kernel's time at which the clock showed this one, the last if there were several. */
static struct timespec meant(struct timespec at) {
    if (at.tv_nsec == UTIME_NOW || at.tv_nsec == UTIME_OMIT)
        return at;
    int64_t ns = ns_of(at), until = INT64_MAX;
    for (int64_t i = line ? line->count - 1 : -1; i >= 0; i--) {
        int64_t then = ns - line->set[i].offset;
        if (line->set[i].from <= then && then < until)
            return in_ns(then);
        until = line->set[i].from;
    }
    return at;
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

int clock_gettime(clockid_t clock, struct timespec *at) {
    int code = REAL(clock_gettime)(clock, at);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *at = shown(*at);
    return code;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

#define TIMES(found, code)                                                                                             \
    if ((code) == 0) {                                                                                                 \
        (found)->st_atim = shown((found)->st_atim);                                                                    \
        (found)->st_mtim = shown((found)->st_mtim);                                                                    \
        (found)->st_ctim = shown((found)->st_ctim);                                                                    \
    }                                                                                                                  \
    return code

#define LOOKS(suffix)                                                                                                  \
    int stat##suffix(const char *restrict path, struct stat##suffix *restrict found) {                                 \
        int code = REAL(stat##suffix)(path, found);                                                                    \
        TIMES(found, code);                                                                                            \
    }                                                                                                                  \
    int lstat##suffix(const char *restrict path, struct stat##suffix *restrict found) {                                \
        int code = REAL(lstat##suffix)(path, found);                                                                   \
        TIMES(found, code);                                                                                            \
    }                                                                                                                  \
    int fstat##suffix(int fd, struct stat##suffix *found) {                                                            \
        int code = REAL(fstat##suffix)(fd, found);                                                                     \
        TIMES(found, code);                                                                                            \
    }                                                                                                                  \
    int fstatat##suffix(int fd, const char *restrict path, struct stat##suffix *restrict found, int flags) {           \
        int code = REAL(fstatat##suffix)(fd, path, found, flags);                                                      \
        TIMES(found, code);                                                                                            \
    }

LOOKS()
LOOKS(64)

int utimensat(int fd, const char *path, const struct timespec at[2], int flags) {
    struct timespec real[2];
    if (at) {
        real[0] = meant(at[0]);
        real[1] = meant(at[1]);
    }
    return REAL(utimensat)(fd, path, at ? real : NULL, flags);
}

int futimens(int fd, const struct timespec at[2]) {
    struct timespec real[2];
    if (at) {
        real[0] = meant(at[0]);
        real[1] = meant(at[1]);
    }
    return REAL(futimens)(fd, at ? real : NULL);
}
