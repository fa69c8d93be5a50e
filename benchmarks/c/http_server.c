// http_server.c: the least that an HTTP load generator takes for a server.
//
//     http_server PORT
//
// Finds the blank line behind each request and sends one canned keep-alive reply with a
// body of 100 bytes. It reads nothing of the request, so it bounds from below what any
// real server costs.

#define _GNU_SOURCE
#include "epoll_server.h"

#include <string.h>

#define MAX_FD 20000
#define BODY_BYTES 100

static struct client *clients[MAX_FD]; // owned; made at the first use of a number
static char reply[256];
static size_t reply_length;

static void
make_reply(void)
{
    int head_length = snprintf(reply, sizeof reply,
                               "HTTP/1.1 200 OK\r\n"
                               "Connection: keep-alive\r\n"
                               "Content-Type: text/plain\r\n"
                               "Content-Length: %d\r\n\r\n",
                               BODY_BYTES);
    memset(reply + head_length, 'x', BODY_BYTES);
    reply_length = (size_t)head_length + BODY_BYTES;
}

static bool
answer_requests(int fd)
{
    if (clients[fd] == NULL && !(clients[fd] = calloc(1, sizeof(struct client)))) {
        die("calloc");
    }
    struct client *client = clients[fd];
    if (!receive_more(fd, client)) {
        client->length = 0;
        return false;
    }
    size_t taken = 0;
    char *blank_line;
    while ((blank_line =
                memmem(client->bytes + taken, client->length - taken, "\r\n\r\n", 4))) {
        send_whole(fd, reply, reply_length);
        taken = (size_t)(blank_line - client->bytes) + 4;
    }
    client->length -= taken;
    memmove(client->bytes, client->bytes + taken, client->length);
    return true;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    make_reply();
    return serve_epoll(atoi(argv[1]), answer_requests);
}
