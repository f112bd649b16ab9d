// What a hostile command tries, one way out for each verb. Prints "done", or the name of the error.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static long said(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
    return result;
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    long number = count > 2 ? atol(words[2]) : 0;
    char zeros[256] = {0};
    if (!strcmp(verb, "keystrokes")) {
        const char *text = "i";
        said("TIOCSTI", ioctl(0, TIOCSTI, text));
        // The kernel looks at the lower half alone.
        said("TIOCSTI with more bits", syscall(SYS_ioctl, 0, TIOCSTI | 1UL << 32, text));
        char selection = 12;
        said("TIOCLINUX", ioctl(0, TIOCLINUX, &selection));
    } else if (!strcmp(verb, "socket")) {
        said("socket", socket(number, SOCK_STREAM, 0));
    } else if (!strcmp(verb, "process")) {
        int pidfd = said("pidfd_open", syscall(SYS_pidfd_open, number, 0));
        said("pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
        said("ptrace", ptrace(PTRACE_SEIZE, number, 0, 0));
    } else if (!strcmp(verb, "peer")) {
        // The kernel hands out a pidfd of whoever listens, in whichever PID namespace.
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, words[2], sizeof name.sun_path - 1);
        int end = socket(AF_UNIX, SOCK_STREAM, 0), pidfd = -1;
        socklen_t length = sizeof pidfd;
        said("connect", connect(end, (struct sockaddr *)&name, sizeof name));
        said("SO_PEERPIDFD", getsockopt(end, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length));
        said("pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    } else if (!strcmp(verb, "calls")) {
        said("io_uring_setup", syscall(SYS_io_uring_setup, 1, zeros));
        said("keyctl", syscall(SYS_keyctl, 0, -3, 0));
        said("add_key", syscall(SYS_add_key, "user", "namegate", "x", 1, -3));
        said("userfaultfd", syscall(SYS_userfaultfd, 1));
        union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
        said("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
        zeros[4] = 112; // perf_event_attr.size; the rest is a hardware counter.
        zeros[0] = 1;   // PERF_TYPE_SOFTWARE
        said("perf_event_open", syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0));
    } else if (!strcmp(verb, "mknod")) {
        said("mknod", mknod(words[2], S_IFBLK | 0600, makedev(259, 0)));
    } else if (!strcmp(verb, "memory")) {
        said("shmget", shmget(number, 0, 0));
    } else {
        return 2;
    }
    return 0;
}
