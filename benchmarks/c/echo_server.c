// echo_server.c: the bare C echo that every other echo server is measured against.
//
//     echo_server PORT
//
// One recv and one send an event; a second recv only when the first filled the buffer,
// because an edge-triggered event does not come twice for the same bytes.

#define _GNU_SOURCE
#include "epoll_server.h"

static char buffer[65536];

static bool
echo(int fd)
{
    ssize_t received;
    do {
        received = recv(fd, buffer, sizeof buffer, 0);
        if (received <= 0) {
            return received < 0 && errno == EAGAIN;
        }
        send_whole(fd, buffer, (size_t)received);
    } while (received == sizeof buffer);
    return true;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    return serve_epoll(atoi(argv[1]), echo);
}
