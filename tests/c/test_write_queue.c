// test_write_queue.c: write_queue.h sentence by sentence. The long random run against a
// plain array is in test_write_queue_model.c.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "write_queue.h"

// What was released, in order: the owner's number and what was dropped of its packet.
static struct {
    long owner;
    uint64_t unsent;
} released[64];
static size_t released_count;
static struct write_packet *spare;

static void
note_release(void *owner, uint64_t unsent)
{
    REQUIRE(released_count < COUNT_OF(released));
    released[released_count].owner = (long)(intptr_t)owner;
    released[released_count++].unsent = unsent;
}

static void
check_released(size_t index, long owner, uint64_t unsent)
{
    if (CHECK(index < released_count)) {
        CHECK_INT(released[index].owner, owner);
        CHECK_UINT(released[index].unsent, unsent);
    }
}

static void *
owner_of(long number)
{
    return (void *)(intptr_t)number;
}

static void
start(struct write_queue *queue)
{
    memset(queue, 0xa5, sizeof(*queue));
    write_queue_init(queue);
    free(spare);
    spare = NULL;
    released_count = 0;
}

static const struct write_placing AT_THE_END = {NULL, false, false};
static const struct write_placing URGENT = {NULL, true, false};
static const struct write_placing JOINED = {NULL, false, true};

static void
append(struct write_queue *queue, const char *text)
{
    REQUIRE(write_queue_append(queue, text, strlen(text), NULL, &spare) == 0);
    CHECK(write_queue_is_consistent(queue));
}

// Queues [text] as one message with a packet for each word; owners are numbered from
// [owner] on, 0 for copies.
static void
add(struct write_queue *queue, const char *text, long owner,
    const struct write_placing *placing)
{
    struct write_queue batch;
    write_queue_init(&batch);
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        int error = owner == 0 ? write_queue_copy(&batch, text, length)
                               : write_queue_refer(&batch, text, length, note_release,
                                                   owner_of(owner++));
        REQUIRE(error == 0);
        text += length + (text[length] == ' ');
    }
    write_queue_join(queue, &batch, placing);
    CHECK(write_queue_is_empty(&batch));
    CHECK(write_queue_is_consistent(queue));
}

// All bytes that can be gathered at once are those.
static void
check_content(const struct write_queue *queue, const char *expected)
{
    char seen[256];
    size_t length = 0;
    struct iovec spans[32];
    int count = write_queue_gather(queue, spans, COUNT_OF(spans));
    for (int i = 0; i < count; i++) {
        REQUIRE(length + spans[i].iov_len < sizeof(seen));
        memcpy(seen + length, spans[i].iov_base, spans[i].iov_len);
        length += spans[i].iov_len;
    }
    seen[length] = '\0';
    CHECK_STRING(seen, expected);
    CHECK(write_queue_is_consistent(queue));
}

static void
drain(struct write_queue *queue, uint64_t length)
{
    uint64_t before = write_queue_length(queue);
    write_queue_drain(queue, length, &spare);
    CHECK_UINT(write_queue_length(queue), before - length);
    CHECK(write_queue_is_consistent(queue));
}

static void
test_a_queue_is_small_and_empty_at_first(void)
{
    struct write_queue queue;
    start(&queue);
    CHECK(sizeof(queue) <= 32);
    CHECK(write_queue_is_empty(&queue));
    CHECK_UINT(write_queue_length(&queue), 0);
    check_content(&queue, "");
    drain(&queue, 0);
    write_queue_clear(&queue);
    CHECK_POINTER(write_queue_first(&queue), NULL);
    CHECK(!write_queue_withdraw(&queue, owner_of(1)));
    CHECK_INT(write_queue_keep_copy(&queue, owner_of(1)), 0);
    CHECK_INT(write_queue_append(&queue, NULL, 0, NULL, &spare), 0);
    struct write_queue batch;
    write_queue_init(&batch);
    write_queue_join(&queue, &batch, &URGENT);
    CHECK(write_queue_is_empty(&queue));
}

static void
test_small_writes_share_a_packet(void)
{
    struct write_queue queue;
    start(&queue);
    char source[] = "one ";
    append(&queue, source);
    memset(source, 'x', sizeof(source));
    append(&queue, "two ");
    append(&queue, "three");
    check_content(&queue, "one two three");
#ifndef CORONET_HARD_MODE
    CHECK_POINTER(queue.first, queue.last);
#endif
    drain(&queue, 5);
    append(&queue, "!");
    check_content(&queue, "wo three!");
    write_queue_clear(&queue);
}

static void
test_a_long_stream_is_one_message_of_few_packets(void)
{
    struct write_queue queue;
    start(&queue);
    for (int i = 0; i < 20000; i++) {
        append(&queue, "0123456789");
    }
    size_t packets = 0;
    for (struct write_packet *packet = queue.first; packet != NULL;
         packet = packet->next) {
        CHECK(packet->starts_message == (packet == queue.first));
        packets++;
    }
#ifndef CORONET_HARD_MODE
    CHECK(packets < 16);
#endif
    CHECK_UINT(write_queue_length(&queue), 200000);
    add(&queue, "urgent", 0, &URGENT);
    CHECK_POINTER(queue.first->next == NULL ? NULL : queue.first->bytes,
                  queue.first->memory);
    drain(&queue, 6);
    CHECK_UINT(write_queue_length(&queue), 200000);
    CHECK_BYTES(queue.first->bytes, "0123456789", 10);
    drain(&queue, 200000);
    CHECK(write_queue_is_empty(&queue));
}

static void
test_an_append_splits_between_the_room_and_a_new_packet(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, "begin ");
    static char text[2000];
    memset(text, 'm', sizeof(text) - 1);
    append(&queue, text);
    CHECK_UINT(write_queue_length(&queue), 6 + 1999);
    struct iovec spans[4];
    int count = write_queue_gather(&queue, spans, 4);
    CHECK_INT(count, 2);
    CHECK_UINT(spans[0].iov_len + spans[1].iov_len, 2005);
    CHECK_BYTES((char *)spans[1].iov_base + spans[1].iov_len - 3, "mmm", 3);
    write_queue_clear(&queue);
}

static void
test_streams_are_kept_apart_by_what_lies_between_them(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, "a");
    add(&queue, "packet", 0, &AT_THE_END);
    append(&queue, "b");
    REQUIRE(write_queue_append(&queue, "c", 1, &queue, &spare) == 0);
    REQUIRE(write_queue_append(&queue, "d", 1, &queue, &spare) == 0);
    check_content(&queue, "apacketb");
    drain(&queue, 8);
    check_content(&queue, "cd");
    write_queue_clear(&queue);
}

static void
test_drain_releases_what_has_left_in_order(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "one", 1, &AT_THE_END);
    add(&queue, "two three", 2, &AT_THE_END);
    check_content(&queue, "onetwothree");
    drain(&queue, 2);
    CHECK_UINT(released_count, 0);
    drain(&queue, 5);
    CHECK_UINT(released_count, 2);
    check_released(0, 1, 0);
    check_released(1, 2, 0);
    check_content(&queue, "hree");
    write_queue_clear(&queue);
    CHECK_UINT(released_count, 3);
    check_released(2, 3, 4);
    CHECK(write_queue_is_empty(&queue));
}

static void
test_packets_of_no_bytes_leave_with_those_before_them(void)
{
    struct write_queue queue;
    start(&queue);
    struct write_queue batch;
    write_queue_init(&batch);
    REQUIRE(write_queue_refer(&batch, "", 0, note_release, owner_of(1)) == 0);
    REQUIRE(write_queue_copy(&batch, NULL, 0) == 0);
    write_queue_join(&queue, &batch, &AT_THE_END);
    CHECK_UINT(write_queue_length(&queue), 0);
    CHECK(!write_queue_is_empty(&queue));
    check_content(&queue, "");
    drain(&queue, 0);
    CHECK(write_queue_is_empty(&queue));
    add(&queue, "text", 2, &AT_THE_END);
    REQUIRE(write_queue_refer(&queue, NULL, 0, note_release, owner_of(3)) == 0);
    drain(&queue, 3);
    CHECK_UINT(released_count, 1);
    drain(&queue, 1);
    CHECK_UINT(released_count, 3);
    check_released(2, 3, 0);
    CHECK(write_queue_is_empty(&queue));
}

static void
test_files_count_and_are_not_gathered(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "head", 0, &AT_THE_END);
    REQUIRE(write_queue_add_file(&queue, 7, 100, UINT64_C(5000000000), note_release,
                                 owner_of(1)) == 0);
    add(&queue, "tail", 0, &AT_THE_END);
    CHECK_UINT(write_queue_length(&queue), UINT64_C(5000000008));
    check_content(&queue, "head");
    drain(&queue, 4);
    check_content(&queue, "");
    struct write_packet *file = write_queue_first(&queue);
    CHECK_INT(file->kind, WRITE_FILE);
    CHECK_INT(file->fd, 7);
    drain(&queue, 10);
    CHECK_INT(file->offset, 110);
    CHECK_UINT(file->left, UINT64_C(4999999990));
    drain(&queue, UINT64_C(4999999990));
    check_released(0, 1, 0);
    check_content(&queue, "tail");
    write_queue_clear(&queue);
}

static void
test_marks_stop_what_leaves(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "a", 0, &AT_THE_END);
    REQUIRE(write_queue_add_mark(&queue, NULL, note_release, owner_of(1)) == 0);
    add(&queue, "b", 0, &AT_THE_END);
    check_content(&queue, "a");
    drain(&queue, 1);
    drain(&queue, 0);
    CHECK_INT(write_queue_first(&queue)->kind, WRITE_MARK);
    CHECK_UINT(released_count, 0);
    write_queue_drop_first(&queue);
    check_released(0, 1, 0);
    check_content(&queue, "b");
    write_queue_drop_first(&queue);
    CHECK(write_queue_is_empty(&queue));
    CHECK_UINT(write_queue_length(&queue), 0);
}

static void
test_gather_stops_at_another_layer_and_at_the_capacity(void)
{
    struct write_queue queue;
    struct iovec spans[3];
    const struct write_placing other = {&queue, false, false};
    start(&queue);
    add(&queue, "a b", 0, &AT_THE_END);
    add(&queue, "c d e f", 0, &other);
    CHECK_INT(write_queue_gather(&queue, spans, 3), 2);
    drain(&queue, 2);
    CHECK_INT(write_queue_gather(&queue, spans, 3), 3);
    CHECK_INT(write_queue_gather(&queue, spans, 0), 0);
    write_queue_clear(&queue);
}

static void
test_urgent_goes_before_the_first_message_not_begun(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "first", 0, &AT_THE_END);
    add(&queue, "U", 0, &URGENT);
    check_content(&queue, "Ufirst");
    add(&queue, "V", 0, &URGENT);
    check_content(&queue, "UVfirst");
    drain(&queue, 3);
    add(&queue, "W", 0, &URGENT);
    check_content(&queue, "irstW");
    add(&queue, "last", 0, &AT_THE_END);
    add(&queue, "X", 0, &URGENT);
    check_content(&queue, "irstWXlast");
    write_queue_clear(&queue);
    add(&queue, "U V", 0, &URGENT);
    append(&queue, "s");
    check_content(&queue, "UVs");
    write_queue_clear(&queue);
}

static void
test_urgent_never_goes_into_a_chain(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "a b c", 0, &AT_THE_END);
    add(&queue, "next", 0, &AT_THE_END);
    drain(&queue, 1); // the packet that starts the message is gone
    add(&queue, "U", 0, &URGENT);
    check_content(&queue, "bcUnext");
    write_queue_clear(&queue);
}

static void
test_urgent_never_goes_before_a_joined_packet(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "a", 0, &AT_THE_END);
    add(&queue, "glued", 0, &JOINED);
    drain(&queue, 1);
    add(&queue, "U", 0, &URGENT);
    check_content(&queue, "gluedU");
    add(&queue, "too", 0, &JOINED);
    check_content(&queue, "gluedUtoo");
    write_queue_clear(&queue);
}

static void
test_urgent_overtakes_files_but_not_marks_and_layers(void)
{
    struct write_queue queue;
    int layer;
    const struct write_placing layered = {&layer, false, false};
    const struct write_placing urgent = {&layer, true, false};
    start(&queue);
    REQUIRE(write_queue_add_file(&queue, 1, 0, 10, NULL, NULL) == 0);
    add(&queue, "U", 0, &URGENT);
    check_content(&queue, "U");
    drain(&queue, 11);
    add(&queue, "plain", 0, &AT_THE_END);
    add(&queue, "wrapped", 0, &layered);
    add(&queue, "V", 0, &urgent); // past its own layer's, not past others'
    drain(&queue, 5);
    check_content(&queue, "Vwrapped");
    REQUIRE(write_queue_add_mark(&queue, &layer, NULL, NULL) == 0);
    add(&queue, "W", 0, &urgent);
    add(&queue, "end", 0, &AT_THE_END);
    add(&queue, "X", 0, &URGENT);
    drain(&queue, 8);
    write_queue_drop_first(&queue);
    check_content(&queue, "W");
    drain(&queue, 1);
    check_content(&queue, "Xend");
    write_queue_clear(&queue);
}

static void
test_withdraw_takes_one_packet_out(void)
{
    for (long which = 1; which <= 3; which++) {
        struct write_queue queue;
        start(&queue);
        add(&queue, "one", 1, &AT_THE_END);
        add(&queue, "two", 2, &AT_THE_END);
        add(&queue, "three", 3, &AT_THE_END);
        drain(&queue, 1);
        static const char *const rests[] = {"twothree", "nethree", "netwo"};
        static const uint64_t unsent[] = {2, 3, 5};
        CHECK_UINT(write_queue_left_of(&queue, owner_of(which)), unsent[which - 1]);
        CHECK(write_queue_withdraw(&queue, owner_of(which)));
        CHECK_UINT(write_queue_left_of(&queue, owner_of(which)), 0);
        check_content(&queue, rests[which - 1]);
        check_released(0, which, unsent[which - 1]);
        CHECK(!write_queue_withdraw(&queue, owner_of(which)));
        append(&queue, "+");
        CHECK_UINT(write_queue_length(&queue), strlen(rests[which - 1]) + 1);
        write_queue_clear(&queue);
        CHECK_UINT(released_count, 3);
    }
}

static void
test_keep_copy_gives_the_owner_back_and_keeps_the_bytes(void)
{
    for (long which = 1; which <= 2; which++) {
        struct write_queue queue;
        char first[] = "first";
        char second[] = "second";
        start(&queue);
        add(&queue, first, 1, &AT_THE_END);
        add(&queue, second, 2, &AT_THE_END);
        drain(&queue, 2);
        CHECK_INT(write_queue_keep_copy(&queue, owner_of(which)), 0);
        CHECK_UINT(released_count, 1);
        check_released(0, which, 0);
        memset(which == 1 ? first : second, 'x', 5);
        check_content(&queue, "rstsecond");
        add(&queue, "U", 0, &URGENT); // what has begun has begun still
        check_content(&queue, "rstUsecond");
        add(&queue, "end", 0, &AT_THE_END);
        check_content(&queue, "rstUsecondend");
        write_queue_clear(&queue);
    }
}

static struct write_queue *queue_of_release;

static void
use_the_queue(void *owner, uint64_t unsent)
{
    note_release(owner, unsent);
    CHECK(write_queue_is_consistent(queue_of_release));
    append(queue_of_release, "more");
    if ((intptr_t)owner == 1) {
        write_queue_drain(queue_of_release, write_queue_length(queue_of_release), &spare);
    }
}

static void
test_a_release_function_may_use_the_queue(void)
{
    struct write_queue queue;
    start(&queue);
    queue_of_release = &queue;
    REQUIRE(write_queue_refer(&queue, "abc", 3, use_the_queue, owner_of(1)) == 0);
    REQUIRE(write_queue_refer(&queue, "def", 3, use_the_queue, owner_of(2)) == 0);
    add(&queue, "rest", 3, &AT_THE_END);
    write_queue_drain(&queue, 6, &spare);
    check_released(0, 1, 0);
    check_released(1, 3, 0);
    check_released(2, 2, 0);
    check_content(&queue, "more");
    REQUIRE(write_queue_refer(&queue, "ghi", 3, use_the_queue, owner_of(4)) == 0);
    write_queue_clear(&queue);
    check_released(3, 4, 3);
    check_content(&queue, "more");
    write_queue_clear(&queue);
    CHECK(write_queue_is_empty(&queue));
}

static void
test_is_consistent_sees_what_is_broken(void)
{
    struct write_queue queue;
    start(&queue);
    add(&queue, "abc def", 1, &AT_THE_END);
    struct write_queue bad = queue;
    bad.length++;
    CHECK(!write_queue_is_consistent(&bad));
    bad = queue;
    bad.last = bad.first;
    CHECK(!write_queue_is_consistent(&bad));
    queue.last->has_begun = true;
    CHECK(!write_queue_is_consistent(&queue));
    queue.last->has_begun = false;
    queue.last->room = 1;
    CHECK(!write_queue_is_consistent(&queue));
    queue.last->room = 0;
    write_queue_clear(&queue);
}

static void
test_absurd_lengths_are_refused_with_nothing_changed(void)
{
    static const size_t lengths[] = {SIZE_MAX, PTRDIFF_MAX};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct write_queue queue;
        start(&queue);
        append(&queue, "kept");
        CHECK_INT(write_queue_append(&queue, "x", lengths[i], NULL, &spare), -ENOMEM);
        CHECK_INT(write_queue_copy(&queue, "x", lengths[i]), -ENOMEM);
        check_content(&queue, "kept");
        write_queue_clear(&queue);
    }
}

#ifdef CAN_FAIL_ALLOCATIONS
static int
add_some(struct write_queue *queue, int which)
{
    static char large[3000];
    switch (which) {
    case 0:
        return write_queue_append(queue, "text", 4, NULL, &spare);
    case 1:
        return write_queue_append(queue, large, sizeof(large), NULL, &spare);
    case 2:
        return write_queue_copy(queue, large, sizeof(large));
    case 3:
        return write_queue_refer(queue, large, 100, note_release, owner_of(9));
    case 4:
        return write_queue_add_file(queue, 1, 0, 100, note_release, owner_of(9));
    case 5:
        return write_queue_add_mark(queue, NULL, note_release, owner_of(9));
    default:
        return write_queue_keep_copy(queue, owner_of(1));
    }
}

static void
test_allocation_failures_change_nothing(void)
{
    for (int which = 0; which < 7; which++) {
        int64_t live_before = live_allocations();
        struct write_queue queue;
        start(&queue);
        add(&queue, "owned", 1, &AT_THE_END);
        if (which == 1) {
            append(&queue, "begin");
        }
        struct write_queue before = queue;
        uint64_t last_left = queue.last->left;
        int64_t live_then = live_allocations();
        fail_allocation_at(1);
        CHECK_INT(add_some(&queue, which), -ENOMEM);
        CHECK(allow_allocations());
        CHECK_BYTES(&queue, &before, sizeof(queue));
        CHECK_UINT(queue.last->left, last_left);
        CHECK_INT(live_allocations(), live_then);
        CHECK_UINT(released_count, 0);
        CHECK_INT(add_some(&queue, which), 0);
        write_queue_clear(&queue);
        CHECK_UINT(released_count, which >= 3 && which <= 5 ? 2 : 1);
        CHECK_INT(live_allocations(), live_before);
    }
}
#endif

int
main(void)
{
    RUN(test_a_queue_is_small_and_empty_at_first);
    RUN(test_small_writes_share_a_packet);
    RUN(test_a_long_stream_is_one_message_of_few_packets);
    RUN(test_an_append_splits_between_the_room_and_a_new_packet);
    RUN(test_streams_are_kept_apart_by_what_lies_between_them);
    RUN(test_drain_releases_what_has_left_in_order);
    RUN(test_packets_of_no_bytes_leave_with_those_before_them);
    RUN(test_files_count_and_are_not_gathered);
    RUN(test_marks_stop_what_leaves);
    RUN(test_gather_stops_at_another_layer_and_at_the_capacity);
    RUN(test_urgent_goes_before_the_first_message_not_begun);
    RUN(test_urgent_never_goes_into_a_chain);
    RUN(test_urgent_never_goes_before_a_joined_packet);
    RUN(test_urgent_overtakes_files_but_not_marks_and_layers);
    RUN(test_withdraw_takes_one_packet_out);
    RUN(test_keep_copy_gives_the_owner_back_and_keeps_the_bytes);
    RUN(test_a_release_function_may_use_the_queue);
    RUN(test_is_consistent_sees_what_is_broken);
    RUN(test_absurd_lengths_are_refused_with_nothing_changed);
#ifdef CAN_FAIL_ALLOCATIONS
    RUN(test_allocation_failures_change_nothing);
#endif
    return harness_finish("write_queue");
}
