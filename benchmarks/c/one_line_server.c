// one_line_server.c: the yardstick for accepting: what comes first is sent back, then closed.
//
//     one_line_server PORT
//
// One recv, one send and one close a connection, besides accept4 and epoll_ctl. It takes the
// first bytes for the whole line, which over the loopback they are.

#define _GNU_SOURCE
#include "epoll_server.h"

static bool
answer(int fd)
{
    char line[4096];
    ssize_t received = recv(fd, line, sizeof line, 0);
    if (received > 0) {
        send_whole(fd, line, (size_t)received);
    }
    return received < 0 && errno == EAGAIN;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    return serve_epoll(atoi(argv[1]), answer);
}
