// line_server.c: bare C for pipelined lines.
//
//     line_server PORT
//
// Finds every line that has come, copies each to the reply as a handler that answers
// line by line would, and sends all replies of one event in one write.

#define _GNU_SOURCE
#include "epoll_server.h"

#include <string.h>

#define MAX_FD 20000

static struct client *clients[MAX_FD]; // owned; made at the first use of a number
static char reply[sizeof(struct client)];

static struct client *
client_of(int fd)
{
    if (clients[fd] == NULL) {
        clients[fd] = calloc(1, sizeof(struct client));
        if (clients[fd] == NULL) {
            die("calloc");
        }
    }
    return clients[fd];
}

static bool
echo_lines(int fd)
{
    struct client *client = client_of(fd);
    if (!receive_more(fd, client)) {
        client->length = 0;
        return false;
    }
    size_t taken = 0;
    char *line_feed;
    while ((line_feed = memchr(client->bytes + taken, '\n', client->length - taken))) {
        size_t line_end = (size_t)(line_feed - client->bytes) + 1;
        memcpy(reply + taken, client->bytes + taken, line_end - taken);
        taken = line_end;
    }
    if (taken > 0) {
        send_whole(fd, reply, taken);
        client->length -= taken;
        memmove(client->bytes, client->bytes + taken, client->length);
    }
    return true;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    return serve_epoll(atoi(argv[1]), echo_lines);
}
