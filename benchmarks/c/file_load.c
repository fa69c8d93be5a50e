// file_load.c: fetches a file again and again and throws it away.
//
//     file_load PORT BYTES
//
// Prints {"ready": true}; then each line on standard input is one transfer: it connects,
// receives until the end of the stream and prints {"requests": 1, "seconds": t}. So many
// bytes as were promised must come; anything else ends the program with status 1. The
// kernel drops the bytes without copying them out (MSG_TRUNC), so that the sender is what is
// measured.

#define _GNU_SOURCE
#include "epoll_server.h"

#include <stdint.h>
#include <time.h>

#define DISCARD_BYTES ((size_t)1 << 20)

static double
now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

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

int
main(int argc, char **argv)
{
    char line[64];
    if (argc != 3) {
        fprintf(stderr, "usage: file_load PORT BYTES\n");
        return 2;
    }
    uint64_t promised = strtoull(argv[2], NULL, 10);
    printf("{\"ready\": true}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        double begin = now_seconds();
        uint64_t total = fetch(atoi(argv[1]));
        if (total != promised) {
            fprintf(stderr, "file_load: %llu bytes came, not %llu\n",
                    (unsigned long long)total, (unsigned long long)promised);
            return 1;
        }
        printf("{\"requests\": 1, \"seconds\": %.6f}\n", now_seconds() - begin);
        fflush(stdout);
    }
    return 0;
}
