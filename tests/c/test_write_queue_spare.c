// test_write_queue_spare.c: the packet that write_queue.h keeps for what is written next.
//
// What the queue does with its packets otherwise is in test_write_queue.c.

#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "write_queue.h"

static struct write_packet *spare;
static char bytes[8192];

static void
start(struct write_queue *queue)
{
    write_queue_init(queue);
    free(spare);
    spare = NULL;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (char)('a' + i % 26);
    }
}

static void
append(struct write_queue *queue, size_t length)
{
    REQUIRE(write_queue_append(queue, bytes, length, NULL, &spare) == 0);
    CHECK(write_queue_is_consistent(queue));
}

static void
drain(struct write_queue *queue, uint64_t length)
{
    write_queue_drain(queue, length, &spare);
    CHECK(write_queue_is_consistent(queue));
}

// The queue holds one packet, which has the first [length] bytes.
static void
check_packet(const struct write_queue *queue, size_t length)
{
    const struct write_packet *packet = write_queue_first(queue);
    if (CHECK(packet != NULL && packet->next == NULL)) {
        CHECK_UINT(packet->left, length);
        CHECK_BYTES(packet->bytes, bytes, length);
    }
}

#ifdef CORONET_HARD_MODE

static void
test_hard_mode_keeps_none(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 100);
    check_packet(&queue, 100);
    drain(&queue, 100);
    CHECK(write_queue_is_empty(&queue));
    CHECK_POINTER(spare, NULL);
}

#else

static void
test_what_has_left_is_written_to_again(void)
{
    struct write_queue queue, other;
    start(&queue);
    write_queue_init(&other);
    append(&queue, 100);
    struct write_packet *packet = write_queue_first(&queue);
    CHECK_POINTER(spare, NULL);
    drain(&queue, 100);
    CHECK(write_queue_is_empty(&queue));
    CHECK_POINTER(spare, packet);
    // By another queue and in another layer.
    REQUIRE(write_queue_append(&other, bytes, 50, &other, &spare) == 0);
    CHECK_POINTER(write_queue_first(&other), packet);
    CHECK_POINTER(packet->layer, &other);
    CHECK_POINTER(spare, NULL);
    check_packet(&other, 50);
    write_queue_clear(&other);
}

static void
test_it_is_as_new_whatever_it_went_through(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 60);
    uint32_t room = write_queue_first(&queue)->room + 60;
    append(&queue, 40);
    drain(&queue, 30);
    drain(&queue, 70);
    if (CHECK(spare != NULL)) {
        CHECK_UINT(spare->room, room);
    }
    append(&queue, 90);
    check_packet(&queue, 90);
    CHECK_UINT(write_queue_first(&queue)->room, room - 90);
    // It has not begun and starts a message: urgent output may overtake it.
    const struct write_placing urgent = {NULL, true, false};
    struct write_queue batch;
    write_queue_init(&batch);
    REQUIRE(write_queue_copy(&batch, "!", 1) == 0);
    write_queue_join(&queue, &batch, &urgent);
    CHECK_UINT(write_queue_first(&queue)->left, 1);
    write_queue_clear(&queue);
}

static void
test_the_one_with_more_room_is_kept(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 400);
    append(&queue, 400);
    struct write_packet *second = write_queue_first(&queue)->next;
    REQUIRE(second != NULL);
    uint64_t room = second->left + second->room;
    drain(&queue, 800);
    CHECK_POINTER(spare, second);
    CHECK_UINT(spare->room, room);
    append(&queue, 800);
    CHECK_POINTER(write_queue_first(&queue), second);
    CHECK(second->starts_message); // it went on with one
    check_packet(&queue, 800);
    // While that is in use a smaller one takes its place, and makes way again.
    struct write_queue other;
    write_queue_init(&other);
    append(&other, 10);
    struct write_packet *small = write_queue_first(&other);
    drain(&other, 10);
    CHECK_POINTER(spare, small);
    drain(&queue, 800);
    CHECK_POINTER(spare, second);
    append(&queue, 10);
    append(&other, 10);
    drain(&queue, 10);
    drain(&other, 10);
    CHECK_POINTER(spare, second);
}

static void
test_of_several_that_leave_any_can_be_kept(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 400);
    append(&queue, 400);
    append(&queue, 7000);
    struct write_packet *second = write_queue_first(&queue)->next;
    drain(&queue, 7800);
    CHECK_POINTER(spare, second);
    append(&queue, 10);
    check_packet(&queue, 10);
    drain(&queue, 10);
}

static void
test_a_large_one_is_not_kept(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 5000);
    drain(&queue, 5000);
    CHECK_POINTER(spare, NULL);
    append(&queue, 4000);
    drain(&queue, 4000);
    CHECK(spare != NULL);
}

static void
test_it_is_left_alone_where_it_does_not_fit(void)
{
    struct write_queue queue;
    start(&queue);
    append(&queue, 100);
    drain(&queue, 100);
    struct write_packet *kept = spare;
    REQUIRE(kept != NULL);
    append(&queue, 0);
    CHECK(write_queue_is_empty(&queue));
    append(&queue, kept->room + 1u);
    CHECK_POINTER(spare, kept);
    append(&queue, 1);
    CHECK_POINTER(spare, kept);
    write_queue_clear(&queue);
    append(&queue, kept->room);
    CHECK_POINTER(write_queue_first(&queue), kept);
    write_queue_clear(&queue);
}

static void
test_only_packets_of_the_stream_are_kept(void)
{
    struct write_queue queue;
    start(&queue);
    REQUIRE(write_queue_refer(&queue, bytes, 10, NULL, NULL) == 0);
    REQUIRE(write_queue_copy(&queue, bytes, 10) == 0);
    drain(&queue, 10);
    drain(&queue, 10);
    CHECK_POINTER(spare, NULL);
}

#ifdef CAN_FAIL_ALLOCATIONS
static void
test_nothing_is_allocated_and_nothing_lost(void)
{
    struct write_queue queue;
    start(&queue);
    int64_t live_before = live_allocations();
    append(&queue, 100);
    drain(&queue, 100);
    fail_allocation_at(1);
    for (int i = 0; i < 10; i++) {
        append(&queue, 100);
        drain(&queue, 100);
    }
    CHECK(!allow_allocations());
    CHECK_INT(live_allocations(), live_before + 1);
    append(&queue, 1000);
    append(&queue, 1000);
    append(&queue, 1000);
    drain(&queue, 3000);
    CHECK_INT(live_allocations(), live_before + 1);
    free(spare);
    spare = NULL;
    CHECK_INT(live_allocations(), live_before);
}
#endif
#endif

int
main(void)
{
#ifdef CORONET_HARD_MODE
    RUN(test_hard_mode_keeps_none);
#else
    RUN(test_what_has_left_is_written_to_again);
    RUN(test_it_is_as_new_whatever_it_went_through);
    RUN(test_the_one_with_more_room_is_kept);
    RUN(test_of_several_that_leave_any_can_be_kept);
    RUN(test_a_large_one_is_not_kept);
    RUN(test_it_is_left_alone_where_it_does_not_fit);
    RUN(test_only_packets_of_the_stream_are_kept);
#ifdef CAN_FAIL_ALLOCATIONS
    RUN(test_nothing_is_allocated_and_nothing_lost);
#endif
#endif
    free(spare);
    return harness_finish("write_queue_spare");
}
