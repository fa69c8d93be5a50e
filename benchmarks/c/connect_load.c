// connect_load.c: the load of one line a connection: connect, send it, get it back, the end.
//
//     connect_load PORT [--connections N] [--size BYTES] [--sleep]
//
// Obeys commands, see rounds.h; a request is a connection. At any time N of them are open:
// when one is over, the next begins. The server is to close; what comes before that must be
// the line, anything else ends the program with status 1.
//
// Over the loopback the handshake of a connection is done by the kernel in the connect() of
// this program, so the server's processor time begins with accept().
//
// As load.c it polls without sleeping, unless --sleep is given.

#define _GNU_SOURCE
#include "epoll_server.h"
#include "rounds.h"

#include <getopt.h>
#include <stdint.h>
#include <string.h>

#define MAX_LINE_BYTES 4096

struct connection {
    int fd;         // -1 between two
    size_t replied; // bytes that have come back
};

struct load {
    struct sockaddr_in address;
    struct connection *connections; // owned
    int connection_count;
    bool is_sleeping;
    size_t line_bytes;
    char line[MAX_LINE_BYTES];
    int engine;
    struct round round; // its requests are connections
};

static void
begin(struct load *load, struct connection *connection)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        connect(fd, (struct sockaddr *)&load->address, sizeof load->address) < 0) {
        die("connect");
    }
    *connection = (struct connection){.fd = fd};
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET,
                                .data.ptr = connection};
    if (epoll_ctl(load->engine, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("epoll_ctl");
    }
    load->round.started++;
    send_whole(fd, load->line, load->line_bytes);
}

static void
receive_reply(struct load *load, struct connection *connection)
{
    char reply[MAX_LINE_BYTES + 1];
    for (;;) {
        ssize_t received = recv(connection->fd, reply, sizeof reply, MSG_DONTWAIT);
        if (received < 0 && errno == EAGAIN) {
            return;
        }
        if (received < 0) {
            die("recv");
        }
        if (received == 0) {
            break;
        }
        if (connection->replied + (size_t)received > load->line_bytes ||
            memcmp(reply, load->line + connection->replied, (size_t)received) != 0) {
            fail("a connection got a wrong reply");
        }
        connection->replied += (size_t)received;
    }
    if (connection->replied != load->line_bytes) {
        fail("the server closed a connection before it had answered");
    }
    close(connection->fd);
    load->round.completed++;
    if (round_may_start(&load->round)) {
        begin(load, connection);
    }
}

static void
wait_for_replies(struct load *load)
{
    struct epoll_event events[EVENTS_A_TURN];
    double reply_seconds = now_seconds();
    while (load->round.completed < load->round.started) {
        int timeout_ms = load->is_sleeping ? REPLY_PATIENCE_SECONDS * 1000 : 0;
        int ready_count = epoll_wait(load->engine, events, EVENTS_A_TURN, timeout_ms);
        if (ready_count > 0) {
            reply_seconds = now_seconds();
        }
        else if (now_seconds() > reply_seconds + REPLY_PATIENCE_SECONDS) {
            fail("no reply for ten seconds");
        }
        for (int i = 0; i < ready_count; i++) {
            receive_reply(load, events[i].data.ptr);
        }
    }
}

static void
run_round(void *the_load)
{
    struct load *load = the_load;
    for (int i = 0; i < load->connection_count && round_may_start(&load->round); i++) {
        begin(load, &load->connections[i]);
    }
    wait_for_replies(load);
}

static void
parse_options(struct load *load, int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 's'},
        {"sleep", no_argument, NULL, 'w'},
        {NULL, 0, NULL, 0},
    };
    int name, length = 64;
    load->connection_count = 64;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'c':
            load->connection_count = atoi(optarg);
            break;
        case 's':
            length = atoi(optarg);
            break;
        case 'w':
            load->is_sleeping = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc - 1 || load->connection_count < 1 || length < 2 ||
        length > MAX_LINE_BYTES) {
        fprintf(stderr, "usage: %s PORT [--connections N] [--size BYTES] [--sleep]\n",
                argv[0]);
        exit(2);
    }
    load->line_bytes = (size_t)length;
    load->address = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[optind])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

int
main(int argc, char **argv)
{
    struct load load = {0};
    parse_options(&load, argc, argv);
    for (size_t i = 0; i < load.line_bytes; i++) {
        load.line[i] = (char)('a' + i % 26);
    }
    load.line[load.line_bytes - 1] = '\n';
    load.connections = calloc((size_t)load.connection_count, sizeof *load.connections);
    load.engine = epoll_create1(EPOLL_CLOEXEC);
    if (load.connections == NULL || load.engine < 0) {
        die("epoll_create1");
    }
    printf("{\"ready\": true}\n");
    fflush(stdout);
    rounds_obey(&load.round, run_round, &load);
    return 0;
}
