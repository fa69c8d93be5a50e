// loopback.h: a listening socket, for the tests that need a network.

#ifndef CORONET_TESTS_LOOPBACK_H
#define CORONET_TESTS_LOOPBACK_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "harness.h"
#include "nonblocking_io.h"

// A listener on a free port of 127.0.0.1, whose address is put into [address].
static inline int
make_listener(struct sockaddr_in *address)
{
    int listener = io_socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(listener >= 0);
    memset(address, 0, sizeof(*address));
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(listener, (struct sockaddr *)address, sizeof(*address)) == 0);
    REQUIRE(listen(listener, 16) == 0);
    socklen_t length = sizeof(*address);
    REQUIRE(getsockname(listener, (struct sockaddr *)address, &length) == 0);
    return listener;
}

#endif
