// The least that can keep a directory: an inotify loop that makes it again and sets its mode back.
// usage: inotify_loop DIRECTORY; watches its parent, and the directory always has mode 0755.
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    char first[PATH_MAX], second[PATH_MAX];
    snprintf(first, sizeof first, "%s", argv[1]);
    snprintf(second, sizeof second, "%s", argv[1]);
    const char *parent = dirname(first), *name = basename(second);
    int fd = inotify_init1(IN_CLOEXEC);
    if (inotify_add_watch(fd, parent, IN_DELETE | IN_MOVED_FROM | IN_ATTRIB | IN_ONLYDIR) < 0) return 1;
    umask(022);
    if (mkdir(argv[1], 0755) != 0 && errno != EEXIST) return 1;
    char buffer[65536] __attribute__((aligned(8)));
    for (;;) {
        ssize_t length = read(fd, buffer, sizeof buffer);
        if (length <= 0) return 1;
        for (char *at = buffer; at < buffer + length;) {
            struct inotify_event *event = (struct inotify_event *)at;
            at += sizeof *event + event->len;
            if (!event->len || strcmp(event->name, name) != 0) continue;
            struct stat found;
            if (event->mask & IN_ATTRIB) {  // a chmod of our own is such an event too
                if (stat(argv[1], &found) == 0 && (found.st_mode & 07777) != 0755) chmod(argv[1], 0755);
            } else {
                mkdir(argv[1], 0755);
            }
        }
    }
}
