// test_engine.c: what every engine reports. How registrations change is in
// test_engine_changes.c; waiting, waking, time and fork are in test_engine_waits.c.

// For socketpair, fork and the like under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "engine_cases.h"

#include <arpa/inet.h>
#include <stdlib.h>

// A token that needs all of its 64 bits.
#define WIDE_TOKEN UINT64_C(0xfedcba9876543210)

static void
test_engine_bytes_arrive_reports_read(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], WIDE_TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_UINT(look(WIDE_TOKEN), 0);
    put(pair[1], "x");
    CHECK_UINT(await(WIDE_TOKEN), EVENT_READ);
    close_pair(pair);
}

static void
test_engine_room_to_write_reports_write(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_UINT(await(TOKEN), EVENT_WRITE);
    // Nobody asked for reading.
    put(pair[1], "x");
    CHECK_UINT(look(TOKEN) & EVENT_READ, 0);
    close_pair(pair);
}

static void
test_engine_both_directions_ready_before_add_come_as_one_event(void)
{
    int pair[2];
    make_pair(pair);
    put(pair[1], "x");
    CHECK_INT(
        operations->add(engine, pair[0], TOKEN, EVENT_READ | EVENT_WRITE, ENGINE_EDGE),
        0);
    CHECK_UINT(await(TOKEN), EVENT_READ | EVENT_WRITE);
    CHECK_UINT(look(TOKEN), 0);
    close_pair(pair);
}

static void
test_engine_edge_after_short_read_is_silent_until_news(void)
{
    int pair[2];
    char byte;
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    put(pair[1], "abc");
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_INT(io_read(pair[0], &byte, 1), 1);
    CHECK_UINT(look(TOKEN), 0);
    // News is reported though the old bytes are still there.
    put(pair[1], "d");
    CHECK_UINT(await(TOKEN), EVENT_READ);
    close_pair(pair);
}

static void
test_engine_edge_after_full_read_reports_next_bytes(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    for (int i = 0; i < 3; i++) {
        put(pair[1], "abc");
        CHECK_UINT(await(TOKEN), EVENT_READ);
        drain(pair[0]);
        CHECK_UINT(look(TOKEN), 0);
    }
    close_pair(pair);
}

static void
test_engine_edge_full_socket_reports_write_when_drained(void)
{
    int pair[2];
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
    CHECK_UINT(await(TOKEN), EVENT_WRITE);
    fill(pair[0]);
    CHECK_UINT(look(TOKEN), 0);
    drain(pair[1]);
    CHECK_UINT(await(TOKEN), EVENT_WRITE);
    CHECK_UINT(look(TOKEN), 0);
    close_pair(pair);
}

static void
test_engine_level_reports_until_drained(void)
{
    int pair[2];
    char byte;
    make_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    put(pair[1], "ab");
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_UINT(look(TOKEN), EVENT_READ);
    CHECK_INT(io_read(pair[0], &byte, 1), 1);
    CHECK_UINT(look(TOKEN), EVENT_READ);
    CHECK_INT(io_read(pair[0], &byte, 1), 1);
    CHECK_UINT(look(TOKEN), 0);
    close_pair(pair);
}

static void
accept_one(int listener)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof(peer);
    int fd = io_accept(listener, (struct sockaddr *)&peer, &length);
    if (CHECK(fd >= 0)) {
        close(fd);
    }
}

static void
check_paused_listener(enum engine_trigger trigger)
{
    struct sockaddr_in address;
    int listener = make_listener(&address);
    CHECK_INT(operations->add(engine, listener, TOKEN, EVENT_READ, trigger), 0);
    int first = connect_blocking(&address);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    CHECK_INT(operations->remove(engine, listener), 0);
    int second = connect_blocking(&address);
    CHECK_UINT(look(TOKEN), 0);
    // Both are queued when the listener comes back, and no connection is news to it.
    CHECK_INT(operations->add(engine, listener, TOKEN, EVENT_READ, trigger), 0);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    accept_one(listener);
    CHECK_UINT(await(TOKEN), EVENT_READ);
    accept_one(listener);
    CHECK_UINT(look(TOKEN), 0);
    close(first);
    close(second);
    close(listener);
}

static void
test_engine_level_listener_paused_and_resumed_reports_queue(void)
{
    check_paused_listener(ENGINE_LEVEL);
}

static void
test_engine_shared_listener_paused_and_resumed_reports_queue(void)
{
    check_paused_listener(ENGINE_LEVEL_SHARED);
}

static void
test_engine_shared_listener_wakes_one_of_two_engines(void)
{
    struct sockaddr_in address;
    struct engine *other;
    struct engine_event event;
    int listener = make_listener(&address);
    REQUIRE(operations->open(&other) == 0);
    unsigned interest = EVENT_READ | EVENT_PRIORITY;
    CHECK_INT(operations->add(engine, listener, TOKEN, interest, ENGINE_LEVEL_SHARED), 0);
    CHECK_INT(operations->add(other, listener, TOKEN, interest, ENGINE_LEVEL_SHARED), 0);
    int connection = connect_blocking(&address);
    int count = operations->wait(engine, &event, 1, 0) > 0;
    count += operations->wait(other, &event, 1, 0) > 0;
    CHECK(count >= 1);
    close(connection);
    close(listener);
    operations->close(other);
}

static void
test_engine_end_of_file_reports_read_and_hangup(void)
{
    int pair[2];
    char byte;
    make_tcp_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    shutdown(pair[1], SHUT_WR);
    unsigned ready = await_bits(TOKEN, EVENT_READ | EVENT_READ_HANGUP);
    // One direction is still open.
    CHECK_UINT(ready & (EVENT_HANGUP | EVENT_ERROR), 0);
    CHECK_INT(io_read(pair[0], &byte, 1), 0);
    close_pair(pair);
}

static void
test_engine_end_of_file_behind_bytes_is_told_with_them(void)
{
    int pair[2];
    char data[8];
    make_tcp_pair(pair);
    put(pair[1], "abc");
    shutdown(pair[1], SHUT_WR);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    await_bits(TOKEN, EVENT_READ | EVENT_READ_HANGUP);
    // This read is short, and no edge will tell of the end behind it.
    CHECK_INT(io_read(pair[0], data, sizeof(data)), 3);
    CHECK_UINT(look(TOKEN), 0);
    CHECK_INT(io_read(pair[0], data, sizeof(data)), 0);
    close_pair(pair);
}

static void
test_engine_both_ends_over_reports_hangup(void)
{
    int pair[2];
    make_tcp_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    shutdown(pair[0], SHUT_WR);
    shutdown(pair[1], SHUT_WR);
    await_bits(TOKEN, EVENT_READ | EVENT_HANGUP);
    close_pair(pair);
}

static void
test_engine_pipe_writer_gone_reports_hangup(void)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    CHECK_INT(operations->add(engine, ends[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_UINT(look(TOKEN), 0);
    close(ends[1]);
    CHECK(await(TOKEN) & EVENT_HANGUP);
    close(ends[0]);
}

// Some kernels report it, others refuse to watch for what cannot be.
static void
test_engine_pipe_reader_gone_is_told_to_the_writer(void)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    close(ends[0]);
    int status = operations->add(engine, ends[1], TOKEN, EVENT_WRITE, ENGINE_EDGE);
    if (status == 0) {
        CHECK(await(TOKEN) & (EVENT_HANGUP | EVENT_ERROR));
        CHECK_INT(operations->remove(engine, ends[1]), 0);
    }
    else {
        CHECK_INT(status, -EPIPE);
    }
    // Who also reads is told by an event.
    unsigned interest = EVENT_READ | EVENT_WRITE;
    CHECK_INT(operations->add(engine, ends[1], TOKEN, interest, ENGINE_EDGE), 0);
    CHECK(await(TOKEN) & (EVENT_HANGUP | EVENT_ERROR));
    close(ends[1]);
}

static void
test_engine_reset_reports_error(void)
{
    int pair[2];
    char byte;
    make_tcp_pair(pair);
    CHECK_INT(operations->add(engine, pair[0], TOKEN, EVENT_READ, ENGINE_EDGE), 0);
    CHECK_INT(io_set_hard_close(pair[1]), 0);
    close(pair[1]);
    await_bits(TOKEN, EVENT_READ | EVENT_ERROR | EVENT_HANGUP);
    CHECK_INT(io_receive(pair[0], &byte, 1), -ECONNRESET);
    close(pair[0]);
}

static void
test_engine_urgent_byte_reports_priority_only_if_asked(void)
{
    int pair[2];
    make_tcp_pair(pair);
    REQUIRE(send(pair[1], "!", 1, MSG_OOB) == 1);
    unsigned interest = EVENT_READ | EVENT_PRIORITY;
    CHECK_INT(operations->add(engine, pair[0], TOKEN, interest, ENGINE_EDGE), 0);
    await_bits(TOKEN, EVENT_PRIORITY);
    // It is there for certain now; one who does not ask is not told.
    CHECK_INT(operations->modify(engine, pair[0], TOKEN, EVENT_READ, ENGINE_LEVEL), 0);
    CHECK_UINT(look(TOKEN) & EVENT_PRIORITY, 0);
    close_pair(pair);
}

static void
test_engine_refused_connect_reports_error(void)
{
    struct sockaddr_in address;
    close(make_listener(&address));
    int fd = io_socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    int status = io_connect(fd, (struct sockaddr *)&address, sizeof(address));
    if (status == -EINPROGRESS) {
        CHECK_INT(operations->add(engine, fd, TOKEN, EVENT_WRITE, ENGINE_EDGE), 0);
        CHECK(await(TOKEN) & (EVENT_WRITE | EVENT_ERROR));
        status = io_take_socket_error(fd);
    }
    CHECK_INT(status, -ECONNREFUSED);
    CHECK_INT(io_take_socket_error(fd), 0);
    close(fd);
}

// Each of more ready descriptors than fit is reported once, in ceil(count / capacity)
// waits at least.
static void
check_many_ready(int pair_count, int capacity)
{
    int(*pairs)[2] = calloc((size_t)pair_count, sizeof(*pairs));
    struct engine_event *events = calloc((size_t)capacity, sizeof(*events));
    int *seen = calloc((size_t)pair_count * 2, sizeof(*seen));
    REQUIRE(pairs != NULL && events != NULL && seen != NULL);
    for (int i = 0; i < pair_count * 2; i++) {
        if (i % 2 == 0) {
            make_pair(pairs[i / 2]);
        }
        CHECK_INT(operations->add(engine, pairs[i / 2][i % 2], (uint64_t)i, EVENT_WRITE,
                                  ENGINE_EDGE),
                  0);
    }
    int left = pair_count * 2;
    while (left > 0) {
        int count = operations->wait(engine, events, capacity, -1);
        REQUIRE(count > 0 && count <= capacity);
        for (int i = 0; i < count; i++) {
            REQUIRE(events[i].token < (uint64_t)pair_count * 2);
            seen[events[i].token]++;
        }
        left -= count;
    }
    CHECK_INT(operations->wait(engine, events, capacity, 0), 0);
    for (int i = 0; i < pair_count * 2; i++) {
        CHECK_INT(seen[i], 1);
        CHECK_INT(operations->remove(engine, pairs[i / 2][i % 2]), 0);
        close(pairs[i / 2][i % 2]);
    }
    free(pairs);
    free(events);
    free(seen);
}

static void
test_engine_more_ready_than_capacity_come_next_time(void)
{
    check_many_ready(5, 3);
    check_many_ready(8, 1);
}

static void
test_engine_more_ready_than_one_fetch_all_come(void)
{
    check_many_ready(150, 1000);
}

// Both directions of more descriptors than fit: nothing is lost, and no wait names one
// descriptor twice.
static void
test_engine_both_directions_of_more_than_capacity_all_come(void)
{
    enum { PAIRS = 9, CAPACITY = 4 };
    int pairs[PAIRS][2];
    unsigned seen[PAIRS] = {0};
    struct engine_event events[CAPACITY];
    for (int i = 0; i < PAIRS; i++) {
        make_pair(pairs[i]);
        put(pairs[i][1], "x");
        CHECK_INT(operations->add(engine, pairs[i][0], (uint64_t)i,
                                  EVENT_READ | EVENT_WRITE, ENGINE_EDGE),
                  0);
    }
    int count;
    while ((count = operations->wait(engine, events, CAPACITY, 0)) > 0) {
        REQUIRE(count <= CAPACITY);
        for (int i = 0; i < count; i++) {
            REQUIRE(events[i].token < PAIRS);
            seen[events[i].token] |= events[i].ready;
            for (int j = 0; j < i; j++) {
                CHECK(events[j].token != events[i].token);
            }
        }
    }
    CHECK_INT(count, 0);
    for (int i = 0; i < PAIRS; i++) {
        CHECK_UINT(seen[i], EVENT_READ | EVENT_WRITE);
        close_pair(pairs[i]);
    }
}

// What is ready by level is reported in its turn, however little fits.
static void
test_engine_level_with_capacity_one_starves_nobody(void)
{
    enum { PAIRS = 4 };
    int pairs[PAIRS][2];
    int seen[PAIRS] = {0};
    for (int i = 0; i < PAIRS; i++) {
        make_pair(pairs[i]);
        CHECK_INT(
            operations->add(engine, pairs[i][0], (uint64_t)i, EVENT_WRITE, ENGINE_LEVEL),
            0);
    }
    for (int round = 0; round < 3 * PAIRS; round++) {
        struct engine_event event;
        REQUIRE(operations->wait(engine, &event, 1, -1) == 1);
        REQUIRE(event.token < PAIRS);
        seen[event.token]++;
    }
    for (int i = 0; i < PAIRS; i++) {
        CHECK_INT(seen[i], 3);
        close_pair(pairs[i]);
    }
}

static const struct engine_case cases[] = {
    CASE(test_engine_bytes_arrive_reports_read),
    CASE(test_engine_room_to_write_reports_write),
    CASE(test_engine_both_directions_ready_before_add_come_as_one_event),
    CASE(test_engine_edge_after_short_read_is_silent_until_news),
    CASE(test_engine_edge_after_full_read_reports_next_bytes),
    CASE(test_engine_edge_full_socket_reports_write_when_drained),
    CASE(test_engine_level_reports_until_drained),
    CASE(test_engine_level_listener_paused_and_resumed_reports_queue),
    CASE(test_engine_shared_listener_paused_and_resumed_reports_queue),
    CASE(test_engine_shared_listener_wakes_one_of_two_engines),
    CASE(test_engine_end_of_file_reports_read_and_hangup),
    CASE(test_engine_end_of_file_behind_bytes_is_told_with_them),
    CASE(test_engine_both_ends_over_reports_hangup),
    CASE(test_engine_pipe_writer_gone_reports_hangup),
    CASE(test_engine_pipe_reader_gone_is_told_to_the_writer),
    CASE(test_engine_reset_reports_error),
    CASE(test_engine_urgent_byte_reports_priority_only_if_asked),
    CASE(test_engine_refused_connect_reports_error),
    CASE(test_engine_more_ready_than_capacity_come_next_time),
    CASE(test_engine_more_ready_than_one_fetch_all_come),
    CASE(test_engine_both_directions_of_more_than_capacity_all_come),
    CASE(test_engine_level_with_capacity_one_starves_nobody),
};

int
main(void)
{
    harness_limit_time(120);
    engine_cases_run(cases, COUNT_OF(cases));
    return harness_finish("engine");
}
