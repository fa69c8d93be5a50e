// file_server.c: sends one file to whoever connects, by a bare loop over sendfile(2).
//
//     file_server PORT FILE
//
// One connection at a time, whole, then it is closed. The socket does not block, as in any
// server with other clients to serve: when it is full, poll() waits for it.

#define _GNU_SOURCE
#include "epoll_server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

static void
send_file(int fd, int file, off_t length)
{
    off_t offset = 0;
    while (offset < length) {
        ssize_t sent = sendfile(fd, file, &offset, (size_t)(length - offset));
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd query = {.fd = fd, .events = POLLOUT};
            poll(&query, 1, -1);
        }
        else if (sent <= 0) {
            return; // the client has left
        }
    }
}

int
main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: file_server PORT FILE\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct stat status;
    int file = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) < 0) {
        die("open");
    }
    int listener = listen_on_loopback(atoi(argv[1]));
    struct pollfd query = {.fd = listener, .events = POLLIN};
    for (;;) {
        poll(&query, 1, -1);
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            send_file(fd, file, status.st_size);
            close(fd);
        }
    }
}
