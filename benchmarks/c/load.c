// load.c: the load generator: many connections, one thread, every byte checked.
//
//     load PORT [--connections N] [--size BYTES] [--in-flight K] [--idle M]
//          [--lock-step] [--sleep] [--digits]
//
// Opens M idle connections, echoes one message on each and leaves them alone; opens N
// busy ones; then obeys commands, see rounds.h. Of requests it makes whole batches. The
// connections stay open from round to round, until standard input ends.
//
// A busy connection has K messages in flight: it sends K in one write and sends the next
// K when the last byte of their echo is back. A message is BYTES long and ends with a
// line feed, so that an echo server and a line server answer it alike. What comes back
// must be what was sent; anything else ends the program with status 1.
//
// It polls without sleeping, so it wants a core of its own: else each send of a server
// that is slower than the load would also pay for waking the load up, which costs a
// virtual machine more than the send. With --sleep it waits as other programs do.
//
// With --lock-step nobody sends again before everybody has been answered. That is for a
// server slowed down by a simulator: its handlers would else always find the next
// request there already, and never wait.
//
// With --digits messages are made of digits, which a ROT13 server sends back as they are.
//
// Not here: sending in parts. A batch is smaller than any socket buffer.

#define _GNU_SOURCE
#include "epoll_server.h"
#include "rounds.h"

#include <getopt.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>

#define OPENED_AT_ONCE 50

struct options {
    int port;
    int connection_count;
    int idle_count;
    int in_flight;
    size_t message_bytes;
    bool is_lock_step;
    bool is_sleeping;
    bool has_digits;
};

struct connection {
    int fd;
    char *batch;       // owned; what was sent and must come back
    size_t returned;   // bytes of it that have come back
    uint64_t sequence; // batches sent
};

struct load {
    struct options options;
    struct connection *connections; // owned
    size_t batch_bytes;
    int engine;
    struct round round; // its requests are messages
};

static int
connect_to(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes = 1;
    struct timeval patience = {.tv_sec = REPLY_PATIENCE_SECONDS};
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        die("connect");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static char
choose_character(const struct options *options, uint64_t number, char first_letter)
{
    return options->has_digits ? (char)('0' + number % 10)
                               : (char)(first_letter + (char)(number % 26));
}

// They differ from connection to connection; each message ends with a line feed.
static char *
make_batch(const struct options *options, int number)
{
    size_t length = options->message_bytes * (size_t)options->in_flight;
    char *batch = malloc(length);
    if (batch == NULL) {
        die("malloc");
    }
    for (size_t i = 0; i < length; i++) {
        batch[i] = choose_character(options, i + (size_t)number, 'a');
    }
    for (size_t i = options->message_bytes; i <= length; i += options->message_bytes) {
        batch[i - 1] = '\n';
    }
    return batch;
}

static void
receive_first_echo(int fd, const char *message, char *reply, size_t length)
{
    ssize_t received = recv(fd, reply, length, MSG_WAITALL);
    if (received != (ssize_t)length || memcmp(reply, message, length) != 0) {
        fail("an idle connection got a wrong echo");
    }
}

// Many at a time, so that not each of them has to wait for the server's turn. An idle
// connection is kept by its descriptor alone: it ends with the process.
static void
open_idle(const struct options *options)
{
    char *message = make_batch(options, 0);
    char *reply = malloc(options->message_bytes);
    if (reply == NULL) {
        die("malloc");
    }
    int fds[OPENED_AT_ONCE];
    for (int opened = 0; opened < options->idle_count;) {
        int count = 0;
        while (count < OPENED_AT_ONCE && opened + count < options->idle_count) {
            fds[count] = connect_to(options->port);
            send_whole(fds[count++], message, options->message_bytes);
        }
        for (int i = 0; i < count; i++) {
            receive_first_echo(fds[i], message, reply, options->message_bytes);
        }
        opened += count;
    }
    free(reply);
    free(message);
}

static void
open_connections(struct load *load)
{
    int count = load->options.connection_count;
    load->connections = calloc((size_t)count + 1, sizeof *load->connections);
    load->engine = epoll_create1(EPOLL_CLOEXEC);
    if (load->connections == NULL || load->engine < 0) {
        die("epoll_create1");
    }
    for (int i = 0; i < count; i++) {
        struct connection *connection = &load->connections[i];
        connection->fd = connect_to(load->options.port);
        connection->batch = make_batch(&load->options, i);
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = connection};
        if (epoll_ctl(load->engine, EPOLL_CTL_ADD, connection->fd, &event) < 0) {
            die("epoll_ctl");
        }
    }
}

// One byte of the batch changes each time, so that a stale echo is found out.
static void
send_batch(struct load *load, struct connection *connection)
{
    size_t place = connection->sequence % (load->options.message_bytes - 1);
    connection->batch[place] =
        choose_character(&load->options, connection->sequence, 'A');
    connection->sequence++;
    connection->returned = 0;
    load->round.started += (uint64_t)load->options.in_flight;
    send_whole(connection->fd, connection->batch, load->batch_bytes);
}

static void
receive_echo(struct load *load, struct connection *connection)
{
    static char buffer[65536];
    ssize_t received = recv(connection->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (received < 0 && errno == EAGAIN) {
        return;
    }
    if (received <= 0) {
        fail("the server closed a connection");
    }
    size_t missing = load->batch_bytes - connection->returned;
    if ((size_t)received > missing ||
        memcmp(buffer, connection->batch + connection->returned, (size_t)received) != 0) {
        fail("a connection got a wrong echo");
    }
    connection->returned += (size_t)received;
    if (connection->returned == load->batch_bytes) {
        load->round.completed += (uint64_t)load->options.in_flight;
        if (!load->options.is_lock_step && round_may_start(&load->round)) {
            send_batch(load, connection);
        }
    }
}

static void
start_batches(struct load *load)
{
    for (int i = 0; i < load->options.connection_count && round_may_start(&load->round);
         i++) {
        send_batch(load, &load->connections[i]);
    }
}

static void
wait_for_echoes(struct load *load)
{
    struct epoll_event events[EVENTS_A_TURN];
    double reply_seconds = now_seconds();
    while (load->round.completed < load->round.started) {
        int timeout_ms = load->options.is_sleeping ? REPLY_PATIENCE_SECONDS * 1000 : 0;
        int ready_count = epoll_wait(load->engine, events, EVENTS_A_TURN, timeout_ms);
        if (ready_count > 0) {
            reply_seconds = now_seconds();
        }
        else if (now_seconds() > reply_seconds + REPLY_PATIENCE_SECONDS) {
            fail("no reply for ten seconds");
        }
        for (int i = 0; i < ready_count; i++) {
            receive_echo(load, events[i].data.ptr);
        }
    }
}

static void
run_round(void *the_load)
{
    struct load *load = the_load;
    do {
        start_batches(load);
        wait_for_echoes(load);
    } while (load->options.is_lock_step && round_may_start(&load->round));
}

static struct options
parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 's'},
        {"in-flight", required_argument, NULL, 'f'},
        {"idle", required_argument, NULL, 'i'},
        {"lock-step", no_argument, NULL, 'l'},
        {"sleep", no_argument, NULL, 'w'},
        {"digits", no_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {
        .connection_count = 64, .in_flight = 1, .message_bytes = 64};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'c':
            options.connection_count = atoi(optarg);
            break;
        case 's':
            options.message_bytes = (size_t)atoi(optarg);
            break;
        case 'f':
            options.in_flight = atoi(optarg);
            break;
        case 'i':
            options.idle_count = atoi(optarg);
            break;
        case 'l':
            options.is_lock_step = true;
            break;
        case 'w':
            options.is_sleeping = true;
            break;
        case 'd':
            options.has_digits = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc - 1 || options.message_bytes < 2 || options.in_flight < 1) {
        fprintf(stderr,
                "usage: %s PORT [--connections N] [--size BYTES] "
                "[--in-flight K] [--idle M] [--lock-step] [--sleep] [--digits]\n",
                argv[0]);
        exit(2);
    }
    options.port = atoi(argv[optind]);
    return options;
}

int
main(int argc, char **argv)
{
    struct load load = {.options = parse_options(argc, argv)};
    load.batch_bytes = load.options.message_bytes * (size_t)load.options.in_flight;
    open_idle(&load.options);
    open_connections(&load);
    printf("{\"ready\": true, \"connections\": %d, \"idle\": %d}\n",
           load.options.connection_count, load.options.idle_count);
    fflush(stdout);
    rounds_obey(&load.round, run_round, &load);
    return 0;
}
