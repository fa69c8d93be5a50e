// test_byte_block.c: when a block appears, grows, is compacted and goes, and what the
// bytes cost that pass through. What a block holds is tested with its two users, by
// test_line_buffer.c and test_write_queue.c.
//
// The block's source is compiled into this program with a malloc() that notes what it
// was asked for; the linker then leaves the library's own copy out.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static size_t requested_size;

static void *
noting_malloc(size_t size)
{
    requested_size = size;
    return malloc(size);
}

#define malloc(size) noting_malloc(size)
#include "byte_block.c"
#undef malloc

static void
append_fill(struct byte_block *block, char value, size_t length)
{
    char *data = malloc(length);
    REQUIRE(data != NULL);
    memset(data, value, length);
    REQUIRE(byte_block_append(block, data, length) == 0);
    free(data);
    CHECK(byte_block_is_consistent(block));
}

static void
test_block_exists_only_while_bytes_are_held(void)
{
    struct byte_block block;
    memset(&block, 0xa5, sizeof(block));
    byte_block_init(&block);
    CHECK_POINTER(block.bytes, NULL);
    CHECK_POINTER(byte_block_data(&block), NULL);
    CHECK_INT(byte_block_append(&block, "", 0), 0);
    CHECK_POINTER(block.bytes, NULL);
    append_fill(&block, 'a', 3);
    CHECK(block.bytes != NULL);
    byte_block_drain(&block, 2);
    CHECK(block.bytes != NULL);
    CHECK_UINT(byte_block_length(&block), 1);
    byte_block_drain(&block, 1);
    CHECK_POINTER(block.bytes, NULL);
    CHECK_UINT(block.capacity, 0);
    append_fill(&block, 'a', 3);
    byte_block_clear(&block);
    CHECK_POINTER(block.bytes, NULL);
    CHECK(byte_block_is_consistent(&block));
}

static void
test_reserve_owns_memory_until_commit(void)
{
    struct byte_block block;
    byte_block_init(&block);
    CHECK(byte_block_reserve(&block, 10) != NULL);
    CHECK(block.bytes != NULL);
    CHECK(!byte_block_is_consistent(&block));
    byte_block_commit(&block, 0);
    CHECK_POINTER(block.bytes, NULL);
    CHECK(byte_block_is_consistent(&block));
    char *room = byte_block_reserve(&block, 10);
    REQUIRE(room != NULL);
    memcpy(room, "ab", 2);
    byte_block_commit(&block, 2);
    CHECK_BYTES(byte_block_data(&block), "ab", 2);
    CHECK(byte_block_is_consistent(&block));
    byte_block_clear(&block);
}

static void
test_prepend_puts_a_copy_in_front(void)
{
    struct byte_block block;
    byte_block_init(&block);
    CHECK_INT(byte_block_prepend(&block, NULL, 0), 0);
    CHECK_POINTER(block.bytes, NULL);
    char source[] = "cd";
    CHECK_INT(byte_block_prepend(&block, source, 2), 0);
    memset(source, 'x', 2);
    CHECK_INT(byte_block_prepend(&block, "", 0), 0);
    CHECK_INT(byte_block_prepend(&block, "ab", 2), 0);
    CHECK_INT(byte_block_append(&block, "ef", 2), 0);
    CHECK_UINT(byte_block_length(&block), 6);
    CHECK_BYTES(byte_block_data(&block), "abcdef", 6);
    CHECK(byte_block_is_consistent(&block));
    byte_block_drain(&block, 6);
    CHECK_POINTER(block.bytes, NULL);
}

// What was taken can be put back where it lay.
static void
test_room_in_front_after_a_drain_is_used(void)
{
    struct byte_block block;
    byte_block_init(&block);
    append_fill(&block, 'a', 100);
    char *bytes = block.bytes;
    byte_block_drain(&block, 40);
    CHECK_INT(byte_block_prepend(&block, "0123456789012345678901234567890123456789", 40),
              0);
    CHECK_POINTER(block.bytes, bytes);
    CHECK_UINT(block.start, 0);
    CHECK_UINT(byte_block_length(&block), 100);
    CHECK_BYTES(byte_block_data(&block), "0123456789", 10);
    CHECK_BYTES(byte_block_data(&block) + 39, "9aaa", 4);
    CHECK(byte_block_is_consistent(&block));
    byte_block_clear(&block);
}

static void
test_is_consistent_sees_each_broken_invariant(void)
{
    struct byte_block good;
    byte_block_init(&good);
    append_fill(&good, 'a', 10);
    byte_block_drain(&good, 2);
    CHECK(byte_block_is_consistent(&good));
    struct byte_block bad = good;
    bad.end = bad.capacity + 1;
    CHECK(!byte_block_is_consistent(&bad));
    bad = good;
    bad.start = bad.end;
    CHECK(!byte_block_is_consistent(&bad));
    bad.start = bad.end + 1;
    CHECK(!byte_block_is_consistent(&bad));
    bad = good;
    bad.capacity = SIZE_MAX;
    CHECK(!byte_block_is_consistent(&bad));
    bad = good;
    bad.bytes = NULL;
    CHECK(!byte_block_is_consistent(&bad));
    for (int field = 0; field < 3; field++) {
        byte_block_init(&bad);
        *(field == 0 ? &bad.start : field == 1 ? &bad.end : &bad.capacity) = 1;
        CHECK(!byte_block_is_consistent(&bad));
    }
    byte_block_clear(&good);
}

static void
test_absurd_lengths_are_refused_with_nothing_changed(void)
{
    // With one byte held, the second leaves a sum of just PTRDIFF_MAX, which is for
    // malloc() to refuse.
    static const size_t lengths[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX - 1, SIZE_MAX,
                                     SIZE_MAX - 1, (size_t)PTRDIFF_MAX + 1};
    for (size_t held = 0; held <= 1; held++) {
        for (size_t i = 0; i < COUNT_OF(lengths); i++) {
            struct byte_block block;
            byte_block_init(&block);
            CHECK_INT(byte_block_append(&block, "a", held), 0);
            struct byte_block before = block;
            CHECK_POINTER(byte_block_reserve(&block, lengths[i]), NULL);
            CHECK_INT(byte_block_append(&block, "b", lengths[i]), -ENOMEM);
            CHECK_INT(byte_block_prepend(&block, "b", lengths[i]), -ENOMEM);
            CHECK(memcmp(&block, &before, sizeof(block)) == 0);
            byte_block_clear(&block);
        }
    }
}

// Where doubling would pass PTRDIFF_MAX, malloc() is asked for no more than that. As the
// machine has no such block, one is pretended: the request is refused before the bytes
// are looked at.
static void
test_no_more_than_half_the_address_space_is_asked_for(void)
{
    char byte = 'a';
    size_t half = (size_t)PTRDIFF_MAX / 2;
    for (size_t capacity = half; capacity <= half + 2; capacity++) {
        struct byte_block block = {
            .bytes = &byte, .start = 0, .end = capacity, .capacity = capacity};
        struct byte_block before = block;
        size_t most = PTRDIFF_MAX - capacity;
        requested_size = 0;
        CHECK_POINTER(byte_block_reserve(&block, most), NULL);
        CHECK_UINT(requested_size, PTRDIFF_MAX);
        requested_size = 0;
        CHECK_POINTER(byte_block_reserve(&block, most + 1), NULL);
        CHECK_UINT(requested_size, 0);
        CHECK_INT(byte_block_prepend(&block, &byte, most), -ENOMEM);
        CHECK_UINT(requested_size, PTRDIFF_MAX);
        requested_size = 0;
        CHECK_INT(byte_block_prepend(&block, &byte, most + 1), -ENOMEM);
        CHECK_UINT(requested_size, 0);
        CHECK(memcmp(&block, &before, sizeof(block)) == 0);
    }
    struct byte_block block = {.bytes = &byte, .start = 0, .end = half, .capacity = half};
    CHECK_POINTER(byte_block_reserve(&block, 1), NULL);
    CHECK_UINT(requested_size, half * 2);
    block.capacity = block.end = half + 1;
    CHECK_POINTER(byte_block_reserve(&block, 1), NULL);
    CHECK_UINT(requested_size, PTRDIFF_MAX);
}

#ifdef CORONET_HARD_MODE

static void
test_hard_mode_grows_by_exactly_what_is_needed(void)
{
    struct byte_block block;
    byte_block_init(&block);
    append_fill(&block, 'a', 1);
    CHECK_UINT(block.capacity, 1);
    append_fill(&block, 'b', 7);
    CHECK_UINT(block.capacity, 8);
    byte_block_drain(&block, 1);
    append_fill(&block, 'c', 2);
    CHECK_UINT(block.capacity, 9);
    CHECK_BYTES(byte_block_data(&block), "bbbbbbbcc", 9);
    byte_block_drain(&block, 1);
    CHECK_INT(byte_block_prepend(&block, "d", 1), 0);
    CHECK_UINT(block.capacity, 9);
    CHECK_INT(byte_block_prepend(&block, "ef", 2), 0);
    CHECK_UINT(block.capacity, 11);
    CHECK_BYTES(byte_block_data(&block), "efdbbbbbbcc", 11);
    byte_block_clear(&block);
    CHECK(byte_block_reserve(&block, 0) != NULL);
    byte_block_commit(&block, 0);
    CHECK_POINTER(block.bytes, NULL);
}

#else

static void
test_capacity_doubles_from_512(void)
{
    struct byte_block block;
    byte_block_init(&block);
    append_fill(&block, 'a', 1);
    CHECK_UINT(block.capacity, 512);
    append_fill(&block, 'b', 511);
    CHECK_UINT(block.capacity, 512);
    append_fill(&block, 'c', 1);
    CHECK_UINT(block.capacity, 1024);
    append_fill(&block, 'd', 3584);
    CHECK_UINT(block.capacity, 8192);
    CHECK_UINT(byte_block_length(&block), 4097);
    byte_block_clear(&block);
    append_fill(&block, 'e', 513);
    CHECK_UINT(block.capacity, 1024);
    byte_block_clear(&block);
}

static void
test_compacts_when_at_least_half_of_the_block_is_free(void)
{
    // Held bytes just at half of the block, and one more than that.
    for (size_t extra = 0; extra <= 1; extra++) {
        struct byte_block block;
        byte_block_init(&block);
        append_fill(&block, 'a', 256 - extra);
        append_fill(&block, 'b', 256 + extra);
        char *bytes = block.bytes;
        byte_block_drain(&block, 256 - extra);
        CHECK_POINTER(block.bytes, bytes);
        append_fill(&block, 'c', 1);
        CHECK_UINT(block.start, 0);
        CHECK_UINT(block.capacity, extra == 0 ? 512 : 1024);
        CHECK_UINT(block.end, 257 + extra);
        for (size_t i = 0; i < 256 + extra; i++) {
            CHECK_INT(block.bytes[i], 'b');
        }
        CHECK_INT(block.bytes[256 + extra], 'c');
        byte_block_clear(&block);
    }
}

static void
test_grows_when_compacting_would_not_give_enough_room(void)
{
    for (size_t extra = 0; extra <= 1; extra++) {
        struct byte_block block;
        byte_block_init(&block);
        append_fill(&block, 'a', 500);
        byte_block_drain(&block, 490);
        append_fill(&block, 'b', 502 + extra);
        CHECK_UINT(block.capacity, extra == 0 ? 512 : 1024);
        CHECK_UINT(block.start, 0);
        CHECK_UINT(block.end, 512 + extra);
        CHECK_BYTES(block.bytes, "aaaaaaaaaabb", 12);
        byte_block_clear(&block);
    }
}

static void
test_room_behind_the_last_byte_is_used_first(void)
{
    struct byte_block block;
    byte_block_init(&block);
    append_fill(&block, 'a', 400);
    byte_block_drain(&block, 399);
    append_fill(&block, 'b', 112);
    CHECK_UINT(block.start, 399);
    CHECK_UINT(block.end, 512);
    byte_block_clear(&block);
}

// At most half full: what is held moves to the middle. Fuller: into a larger block.
static void
test_prepend_shares_the_free_room_between_both_sides(void)
{
    for (size_t extra = 0; extra <= 1; extra++) {
        struct byte_block block;
        byte_block_init(&block);
        append_fill(&block, 'a', 256 + extra);
        REQUIRE(byte_block_prepend(&block, "xyz", 3) == 0);
        CHECK(byte_block_is_consistent(&block));
        CHECK_UINT(block.capacity, extra == 0 ? 512 : 1024);
        CHECK_UINT(block.start, (block.capacity - 259 - extra) / 2);
        CHECK_UINT(byte_block_length(&block), 259 + extra);
        CHECK_BYTES(byte_block_data(&block), "xyzaaa", 6);
        for (size_t i = 3; i < 259 + extra; i++) {
            CHECK_INT(byte_block_data(&block)[i], 'a');
        }
        byte_block_clear(&block);
    }
    // It need not leave any room; but what does not fit at all needs more.
    for (size_t extra = 0; extra <= 1; extra++) {
        char data[504];
        memset(data, 'p', sizeof(data));
        struct byte_block block;
        byte_block_init(&block);
        append_fill(&block, 'a', 9);
        REQUIRE(byte_block_prepend(&block, data, 503 + extra) == 0);
        CHECK(byte_block_is_consistent(&block));
        CHECK_UINT(block.capacity, extra == 0 ? 512 : 1024);
        CHECK_UINT(byte_block_length(&block), 512 + extra);
        CHECK_BYTES(byte_block_data(&block) + 502 + extra, "paaaaaaaaa", 10);
        byte_block_clear(&block);
    }
}

// Adds small pieces at either end of a block that holds much, with drains between that
// make room in front, and returns how many bytes were moved for [total] that came.
static uint64_t
count_bytes_moved_at_both_ends(uint64_t total, size_t held, unsigned prepends_of_8)
{
    static const char piece[64];
    struct byte_block block;
    uint64_t moved = 0;
    uint64_t arrived = 0;
    byte_block_init(&block);
    append_fill(&block, 'a', held);
    while (arrived < total) {
        size_t length = 1 + (size_t)random_below(sizeof(piece));
        const char *old_data = byte_block_data(&block);
        size_t old_length = byte_block_length(&block);
        bool is_prepended = random_below(8) < prepends_of_8;
        REQUIRE((is_prepended ? byte_block_prepend(&block, piece, length)
                              : byte_block_append(&block, piece, length)) == 0);
        const char *expected = is_prepended ? old_data - length : old_data;
        moved += byte_block_data(&block) != expected ? old_length : 0;
        arrived += length;
        if (byte_block_length(&block) > held + 1000) {
            byte_block_drain(&block, byte_block_length(&block) - held);
        }
    }
    CHECK(byte_block_is_consistent(&block));
    CHECK(block.capacity <= 4 * (held + 1000) + 512);
    byte_block_clear(&block);
    return moved;
}

static void
test_bytes_moved_stay_in_proportion_at_both_ends(void)
{
    static const size_t sizes[] = {1, 300, 4096, 100000};
    uint64_t total = 1000000;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (unsigned prepends = 0; prepends <= 8; prepends++) {
            uint64_t moved = count_bytes_moved_at_both_ends(total, sizes[i], prepends);
            CHECK(moved <= 6 * total);
        }
    }
}

// Nothing ever leaves: the block grows at its front.
static void
test_prepended_byte_by_byte_costs_no_more(void)
{
    struct byte_block block;
    uint64_t moved = 0;
    byte_block_init(&block);
    append_fill(&block, 'a', 65536);
    for (int i = 0; i < 1000000; i++) {
        const char *old_data = byte_block_data(&block);
        size_t old_length = byte_block_length(&block);
        REQUIRE(byte_block_prepend(&block, "b", 1) == 0);
        moved += byte_block_data(&block) != old_data - 1 ? old_length : 0;
    }
    CHECK(moved <= 3 * 1000000);
    CHECK_UINT(byte_block_length(&block), 1065536);
    byte_block_clear(&block);
}

// Passes [total] bytes through a block, at most [held_max] held at a time, and returns
// how many bytes were moved or copied inside it. They move whenever the first byte
// held gets another address, apart from what drain does.
static uint64_t
count_moved_bytes(uint64_t total, size_t in_size, size_t out_size, size_t held_max)
{
    static char piece[4096];
    struct byte_block block;
    uint64_t moved = 0;
    uint64_t arrived = 0;
    byte_block_init(&block);
    while (arrived < total) {
        while (arrived < total && byte_block_length(&block) + in_size <= held_max) {
            const char *old_data = byte_block_data(&block);
            size_t held = byte_block_length(&block);
            REQUIRE(byte_block_append(&block, piece, in_size) == 0);
            moved += byte_block_data(&block) != old_data ? held : 0;
            arrived += in_size;
        }
        for (int i = 0; i < 3 && byte_block_length(&block) > out_size; i++) {
            byte_block_drain(&block, out_size);
        }
    }
    CHECK(block.capacity <= 4 * held_max + 512);
    byte_block_clear(&block);
    return moved;
}

// However the pieces fall, a byte is moved at most twice on the average: growing moves
// less than a byte for each one that fits, compacting one for each that arrives.
static void
test_bytes_moved_stay_in_proportion_to_bytes_arrived(void)
{
    static const size_t sizes[] = {1, 7, 64, 1000, 4096};
    static const size_t held_maxima[] = {8193, 65536, 200003};
    uint64_t total = 1000000;
    for (size_t in = 0; in < COUNT_OF(sizes); in++) {
        for (size_t out = 0; out < COUNT_OF(sizes); out++) {
            for (size_t held = 0; held < COUNT_OF(held_maxima); held++) {
                uint64_t moved =
                    count_moved_bytes(total, sizes[in], sizes[out], held_maxima[held]);
                CHECK(moved <= 2 * total);
            }
        }
    }
    // The counter counts: a queue that never runs empty cannot do without moving.
    CHECK(count_moved_bytes(total, 64, 1, 4096) > total / 10);
}

#endif

#ifdef CAN_FAIL_ALLOCATIONS
static void
test_each_block_is_one_allocation_and_none_stays(void)
{
    int64_t live_before = live_allocations();
    struct byte_block block;
    byte_block_init(&block);
    CHECK_INT(live_allocations(), live_before);
    for (int i = 0; i < 50; i++) {
        REQUIRE(byte_block_append(&block, "0123456789012345678901234567890", 31) == 0);
        CHECK_INT(live_allocations(), live_before + 1);
    }
    byte_block_drain(&block, 50 * 31);
    CHECK_INT(live_allocations(), live_before);
}
#endif

int
main(void)
{
    RUN(test_block_exists_only_while_bytes_are_held);
    RUN(test_reserve_owns_memory_until_commit);
    RUN(test_prepend_puts_a_copy_in_front);
    RUN(test_room_in_front_after_a_drain_is_used);
    RUN(test_is_consistent_sees_each_broken_invariant);
    RUN(test_absurd_lengths_are_refused_with_nothing_changed);
    RUN(test_no_more_than_half_the_address_space_is_asked_for);
#ifdef CORONET_HARD_MODE
    RUN(test_hard_mode_grows_by_exactly_what_is_needed);
#else
    RUN(test_capacity_doubles_from_512);
    RUN(test_compacts_when_at_least_half_of_the_block_is_free);
    RUN(test_grows_when_compacting_would_not_give_enough_room);
    RUN(test_room_behind_the_last_byte_is_used_first);
    RUN(test_bytes_moved_stay_in_proportion_to_bytes_arrived);
    RUN(test_prepend_shares_the_free_room_between_both_sides);
    RUN(test_bytes_moved_stay_in_proportion_at_both_ends);
    RUN(test_prepended_byte_by_byte_costs_no_more);
#endif
#ifdef CAN_FAIL_ALLOCATIONS
    RUN(test_each_block_is_one_allocation_and_none_stays);
#endif
    return harness_finish("byte_block");
}
