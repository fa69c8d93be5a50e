// epoll_server.h: the loop that the bare C servers share.
//
// This is the yardstick: what the kernel and the simplest correct loop cost, with
// nothing of pycoronet in it. A server includes this file once and gives serve_epoll()
// the one function that treats a readable connection; both are in one translation unit,
// so the compiler inlines it and the bare server pays no indirect call.
//
// Connections are registered once, edge-triggered, with TCP_NODELAY. Not here: sending
// in parts (the loads are small, so a short send means a broken benchmark and ends the
// server), time-outs, and Windows, macOS or the BSDs.

#ifndef BENCHMARK_EPOLL_SERVER_H
#define BENCHMARK_EPOLL_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "die.h"

#define LISTEN_BACKLOG 1024
#define EVENTS_A_TURN 256

// Bytes of one connection that do not make a whole request yet.
struct client {
    size_t length;
    char bytes[16384];
};

static inline int
listen_on_loopback(int port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int yes = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, LISTEN_BACKLOG) < 0) {
        die("listen");
    }
    return listener;
}

static inline void
watch(int engine, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(engine, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static inline void
accept_all(int engine, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED) {
                return;
            }
            die("accept");
        }
        int yes = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(engine, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
    }
}

// Sends everything or ends the server.
static inline void
send_whole(int fd, const char *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent >= 0 && (size_t)sent != length) {
        fprintf(stderr, "short send: %zd of %zu bytes\n", sent, length);
        exit(1);
    }
}

// Receives behind what [client] already holds. Returns false when the peer is gone.
static inline bool
receive_more(int fd, struct client *client)
{
    size_t room = sizeof client->bytes - client->length;
    ssize_t received = recv(fd, client->bytes + client->length, room, 0);
    if (received < 0) {
        return errno == EAGAIN;
    }
    if ((size_t)received == room) {
        fprintf(stderr, "more than %zu bytes in flight\n", sizeof client->bytes);
        exit(1);
    }
    client->length += (size_t)received;
    return received > 0;
}

// Serves for ever. [on_readable] returns false when the connection is over.
static inline int
serve_epoll(int port, bool (*on_readable)(int fd))
{
    int listener = listen_on_loopback(port);
    int engine = epoll_create1(EPOLL_CLOEXEC);
    if (engine < 0) {
        die("epoll_create1");
    }
    watch(engine, listener, EPOLLIN);
    struct epoll_event events[EVENTS_A_TURN];
    for (;;) {
        int ready_count = epoll_wait(engine, events, EVENTS_A_TURN, -1);
        if (ready_count < 0 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < ready_count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(engine, listener);
            }
            else if (!on_readable(fd)) {
                close(fd);
            }
        }
    }
}

#endif
