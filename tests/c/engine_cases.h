// engine_cases.h: one table of test cases faces every engine that is built.
//
// A case is a function without arguments that uses `operations` and `engine`, a freshly
// opened engine of the kind under test. engine_cases_run() runs a table of them against
// each engine in turn, and checks that a case left no descriptor open.
//
// Cases await what must come with a wait without limit, for the fake engine's time jumps
// over any other; a missing event therefore ends the program by its alarm. That nothing
// comes is checked with a look, after something that makes it certain.

#ifndef CORONET_TESTS_ENGINE_CASES_H
#define CORONET_TESTS_ENGINE_CASES_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "harness.h"
#include "loopback.h"
#include "nonblocking_io.h"

struct engine_case {
    const char *name;
    void (*function)(void);
};

#define CASE(function)                                                                   \
    {                                                                                    \
#function, function                                                              \
    }

enum { TOKEN = 77, OTHER_TOKEN = 78 };

static const struct engine_operations *operations; // the engine under test
static struct engine *engine;
static void (*running_case)(void);

// The number the next descriptor will get.
static inline int
lowest_free_fd(void)
{
    int fd = dup(STDERR_FILENO);
    REQUIRE(fd >= 0);
    close(fd);
    return fd;
}

static inline void
run_case(void)
{
    int free_fd = lowest_free_fd();
    REQUIRE(operations->open(&engine) == 0);
    running_case();
    operations->close(engine);
    CHECK_INT(lowest_free_fd(), free_fd);
}

static inline void
engine_cases_run(const struct engine_case *cases, size_t count)
{
    static const char *const names[] = {"epoll", "kqueue", "fake"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        operations = engine_find(names[i]);
        if (operations == NULL) {
            continue; // another system's
        }
        for (size_t j = 0; j < count; j++) {
            char name[128];
            snprintf(name, sizeof(name), "%s_%s", cases[j].name, names[i]);
            running_case = cases[j].function;
            harness_run(name, run_case);
        }
    }
}

// The events of [token] now, 0 if there are none; no other may have any.
static inline unsigned
look(uint64_t token)
{
    struct engine_event events[8];
    int count = operations->wait(engine, events, 8, 0);
    CHECK(count == 0 || count == 1);
    if (count != 1) {
        return 0;
    }
    CHECK_UINT(events[0].token, token);
    return events[0].ready;
}

// Waits for the next events of [token], the only ones that come.
static inline unsigned
await(uint64_t token)
{
    struct engine_event events[8];
    int count = operations->wait(engine, events, 8, -1);
    if (!CHECK_INT(count, 1)) {
        return 0;
    }
    CHECK_UINT(events[0].token, token);
    return events[0].ready;
}

// Waits until the events of [token] that came have brought all of [bits]; all of them.
static inline unsigned
await_bits(uint64_t token, unsigned bits)
{
    unsigned ready = 0;
    while ((ready & bits) != bits) {
        ready |= await(token);
    }
    return ready;
}

// Two connected Unix stream sockets. What one does the other sees at once.
static inline void
make_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (int i = 0; i < 2; i++) {
        REQUIRE(io_set_nonblocking(pair[i], true) == 0);
    }
}

static inline void
close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

// A connection to [address] that is complete when this returns.
static inline int
connect_blocking(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
    REQUIRE(io_set_nonblocking(fd, true) == 0);
    return fd;
}

// The same as make_pair over TCP: the accepted end first.
static inline void
make_tcp_pair(int pair[2])
{
    struct sockaddr_in address;
    int listener = make_listener(&address);
    pair[1] = connect_blocking(&address);
    REQUIRE(io_set_nonblocking(listener, false) == 0);
    struct sockaddr_in peer;
    socklen_t length = sizeof(peer);
    pair[0] = io_accept(listener, (struct sockaddr *)&peer, &length);
    REQUIRE(pair[0] >= 0);
    close(listener);
}

static inline void
put(int fd, const char *text)
{
    size_t length = strlen(text);
    REQUIRE(io_write(fd, text, length) == (ssize_t)length);
}

// Reads until nothing is left.
static inline void
drain(int fd)
{
    char data[4096];
    while (io_read(fd, data, sizeof(data)) > 0) {
    }
}

// Writes until no more fits.
static inline void
fill(int fd)
{
    static const char data[4096];
    while (io_write(fd, data, sizeof(data)) > 0) {
    }
}

// Whether the child process ended with status 0.
static inline bool
has_succeeded(pid_t child)
{
    int status = -1;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

#endif
