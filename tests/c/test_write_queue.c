// test_write_queue.c: write_queue.h sentence by sentence, then a long random run against
// a plain array. When a block grows or is compacted is tested in test_byte_block.c.

#include <errno.h>
#include <string.h>

#include "harness.h"
#include "write_queue.h"

static void
append_text(struct write_queue *queue, const char *text)
{
    REQUIRE(write_queue_append(queue, text, strlen(text)) == 0);
    CHECK(write_queue_is_consistent(queue));
}

static void
check_content(const struct write_queue *queue, const char *expected, size_t length)
{
    CHECK(write_queue_is_consistent(queue));
    if (!CHECK_UINT(write_queue_length(queue), length)) {
        return;
    }
    if (length == 0) {
        CHECK_POINTER(write_queue_data(queue), NULL);
        CHECK_POINTER(queue->block.bytes, NULL);
        return;
    }
    CHECK_BYTES(write_queue_data(queue), expected, length);
}

static void
test_init_holds_nothing_and_owns_no_block(void)
{
    struct write_queue queue;
    memset(&queue, 0xa5, sizeof(queue));
    write_queue_init(&queue);
    check_content(&queue, NULL, 0);
    write_queue_drain(&queue, 0);
    check_content(&queue, NULL, 0);
    write_queue_clear(&queue);
    check_content(&queue, NULL, 0);
}

static void
test_small_writes_lie_behind_each_other(void)
{
    struct write_queue queue;
    char source[] = "one ";
    write_queue_init(&queue);
    append_text(&queue, source);
    memset(source, 'x', sizeof(source));
    append_text(&queue, "two ");
    CHECK_INT(write_queue_append(&queue, NULL, 0), 0);
    REQUIRE(write_queue_append(&queue, "\0three", 6) == 0);
    check_content(&queue, "one two \0three", 14);
    write_queue_clear(&queue);
}

static void
test_append_of_nothing_to_an_empty_queue_makes_no_block(void)
{
    struct write_queue queue;
    write_queue_init(&queue);
    CHECK_INT(write_queue_append(&queue, NULL, 0), 0);
    CHECK_INT(write_queue_append(&queue, "x", 0), 0);
    check_content(&queue, NULL, 0);
}

static void
test_drain_drops_the_first_bytes_and_the_last_one_frees(void)
{
    static const char text[] = "partly sent";
    for (size_t sent = 0; sent <= 11; sent++) {
        struct write_queue queue;
        write_queue_init(&queue);
        append_text(&queue, text);
        write_queue_drain(&queue, sent);
        check_content(&queue, text + sent, 11 - sent);
        append_text(&queue, "+");
        CHECK_UINT(write_queue_length(&queue), 12 - sent);
        write_queue_drain(&queue, 11 - sent);
        check_content(&queue, "+", 1);
        write_queue_drain(&queue, 1);
        check_content(&queue, NULL, 0);
    }
}

static void
test_clear_forgets_bytes_and_leaves_a_usable_queue(void)
{
    struct write_queue queue;
    write_queue_init(&queue);
    append_text(&queue, "forgotten");
    write_queue_drain(&queue, 2);
    write_queue_clear(&queue);
    check_content(&queue, NULL, 0);
    append_text(&queue, "new");
    check_content(&queue, "new", 3);
    write_queue_clear(&queue);
}

static void
test_is_consistent_sees_a_broken_block(void)
{
    struct write_queue queue;
    write_queue_init(&queue);
    append_text(&queue, "abc");
    struct write_queue bad = queue;
    bad.block.start = bad.block.end;
    CHECK(!write_queue_is_consistent(&bad));
    bad = queue;
    bad.block.end = bad.block.capacity + 1;
    CHECK(!write_queue_is_consistent(&bad));
    write_queue_clear(&queue);
}

static void
test_absurd_length_is_refused_with_nothing_changed(void)
{
    static const size_t lengths[] = {SIZE_MAX, PTRDIFF_MAX};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct write_queue queue;
        write_queue_init(&queue);
        CHECK_INT(write_queue_append(&queue, "x", lengths[i]), -ENOMEM);
        check_content(&queue, NULL, 0);
        append_text(&queue, "kept");
        CHECK_INT(write_queue_append(&queue, "x", lengths[i]), -ENOMEM);
        check_content(&queue, "kept", 4);
        write_queue_clear(&queue);
    }
}

#ifdef CAN_FAIL_ALLOCATIONS
static void
test_allocation_failure_at_each_point_changes_nothing(void)
{
    static const char data[] = "0123456789abcdefghijklmnopqrstuvwxyz\n";
    for (size_t n = 1;; n++) {
        int64_t live_before = live_allocations();
        struct write_queue queue;
        write_queue_init(&queue);
        int failures = 0;
        size_t sent = 0;
        fail_allocation_at(n);
        for (int i = 0; i < 400; i++) {
            struct write_queue before = queue;
            int result = write_queue_append(&queue, data, 37);
            if (result != 0) {
                failures++;
                CHECK_INT(result, -ENOMEM);
                CHECK_POINTER(queue.block.bytes, before.block.bytes);
                CHECK_UINT(queue.block.start, before.block.start);
                CHECK_UINT(queue.block.end, before.block.end);
                CHECK_UINT(queue.block.capacity, before.block.capacity);
                CHECK_INT(write_queue_append(&queue, data, 37), 0);
            }
            if (i % 5 == 0) {
                CHECK_BYTES(write_queue_data(&queue), data, 37);
                write_queue_drain(&queue, 37);
                sent++;
            }
        }
        bool was_hit = allow_allocations();
        CHECK_INT(failures, was_hit);
        for (; write_queue_length(&queue) > 0; sent++) {
            CHECK_BYTES(write_queue_data(&queue), data, 37);
            write_queue_drain(&queue, 37);
        }
        CHECK_UINT(sent, 400);
        CHECK_INT(live_allocations(), live_before);
        if (!was_hit) {
            CHECK(n > 5);
            break;
        }
    }
}
#endif

#define MODEL_SIZE 6000

static void
test_random_operations_agree_with_a_plain_array(void)
{
    static char model[MODEL_SIZE];
    size_t model_length = 0;
    struct write_queue queue;
    write_queue_init(&queue);
    unsigned append_bits = 5;
    unsigned drain_bits = 5;
    for (int i = 0; i < 250000; i++) {
        if (i % 500 == 0) {
            append_bits = 1 + (unsigned)random_below(11);
            drain_bits = 1 + (unsigned)random_below(11);
        }
        uint64_t choice = random_below(1000);
        if (choice < 500) {
            size_t length = (size_t)random_magnitude(append_bits);
            if (length > MODEL_SIZE - model_length) {
                length = MODEL_SIZE - model_length;
            }
            for (size_t k = 0; k < length; k++) {
                model[model_length + k] = (char)random_below(256);
            }
            REQUIRE(write_queue_append(&queue, model + model_length, length) == 0);
            model_length += length;
        }
        else if (choice < 998) {
            size_t length = (size_t)random_magnitude(drain_bits);
            length = length < model_length ? length : model_length;
            write_queue_drain(&queue, length);
            memmove(model, model + length, model_length - length);
            model_length -= length;
        }
        else {
            write_queue_clear(&queue);
            model_length = 0;
        }
        check_content(&queue, model, model_length);
    }
    write_queue_clear(&queue);
}

int
main(void)
{
    RUN(test_init_holds_nothing_and_owns_no_block);
    RUN(test_small_writes_lie_behind_each_other);
    RUN(test_append_of_nothing_to_an_empty_queue_makes_no_block);
    RUN(test_drain_drops_the_first_bytes_and_the_last_one_frees);
    RUN(test_clear_forgets_bytes_and_leaves_a_usable_queue);
    RUN(test_is_consistent_sees_a_broken_block);
    RUN(test_absurd_length_is_refused_with_nothing_changed);
#ifdef CAN_FAIL_ALLOCATIONS
    RUN(test_allocation_failure_at_each_point_changes_nothing);
#endif
    RUN(test_random_operations_agree_with_a_plain_array);
    return harness_finish("write_queue");
}
