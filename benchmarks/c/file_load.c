// file_load.c: fetches a file again and again and throws it away.
//
//     file_load PORT BYTES
//
// Obeys commands, see rounds.h; but each round is one transfer, however long: it connects
// and receives until the end of the stream. So many bytes as were promised must come;
// anything else ends the program with status 1. The kernel drops the bytes without copying
// them out (MSG_TRUNC), so that the sender is what is measured.

#define _GNU_SOURCE
#include "epoll_server.h"
#include "rounds.h"

#include <stdint.h>

#define DISCARD_BYTES ((size_t)1 << 20)

struct file_load {
    int port;
    uint64_t promised_bytes;
    struct round round;
};

static uint64_t
fetch(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        die("connect");
    }
    uint64_t total = 0;
    ssize_t received;
    while ((received = recv(fd, NULL, DISCARD_BYTES, MSG_TRUNC)) > 0) {
        total += (uint64_t)received;
    }
    if (received < 0) {
        die("recv");
    }
    close(fd);
    return total;
}

static void
run_round(void *the_load)
{
    struct file_load *load = the_load;
    uint64_t total = fetch(load->port);
    if (total != load->promised_bytes) {
        fprintf(stderr, "file_load: %llu bytes came, not %llu\n",
                (unsigned long long)total, (unsigned long long)load->promised_bytes);
        exit(1);
    }
    load->round.completed = 1;
}

int
main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: file_load PORT BYTES\n");
        return 2;
    }
    struct file_load load = {.port = atoi(argv[1])};
    load.promised_bytes = strtoull(argv[2], NULL, 10);
    printf("{\"ready\": true}\n");
    fflush(stdout);
    rounds_obey(&load.round, run_round, &load);
    return 0;
}
