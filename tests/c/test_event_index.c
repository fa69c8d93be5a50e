// test_event_index.c: one event for each token, however many of them share a place.

#include "event_index.h"

#include "harness.h"

static struct event_index event_index;
static struct engine_event events[EVENT_INDEX_CAPACITY];

static void
check_full_index(uint64_t step)
{
    int count = 0;
    event_index_clear(&event_index);
    for (uint64_t i = 0; i < EVENT_INDEX_CAPACITY; i++) {
        CHECK(event_index_join(&event_index, events, &count, i * step, EVENT_READ));
        CHECK_INT(count, (int)i + 1);
    }
    for (uint64_t i = 0; i < EVENT_INDEX_CAPACITY; i++) {
        CHECK(event_index_join(&event_index, events, &count, i * step, EVENT_WRITE));
        // Both bits are known now, alone and together.
        CHECK(!event_index_join(&event_index, events, &count, i * step, EVENT_READ));
        CHECK(!event_index_join(&event_index, events, &count, i * step,
                                EVENT_READ | EVENT_WRITE));
    }
    CHECK_INT(count, EVENT_INDEX_CAPACITY);
    for (uint64_t i = 0; i < EVENT_INDEX_CAPACITY; i++) {
        CHECK_UINT(events[i].token, i * step);
        CHECK_UINT(events[i].ready, EVENT_READ | EVENT_WRITE);
    }
}

static void
test_event_index_tells_neighbours_apart(void)
{
    check_full_index(1);
}

static void
test_event_index_tells_tokens_of_one_place_apart(void)
{
    check_full_index(EVENT_INDEX_PLACES);
    check_full_index(UINT64_C(1) << 32); // generations of one descriptor
}

static void
test_event_index_forgets_when_cleared(void)
{
    int count = 0;
    event_index_clear(&event_index);
    CHECK(event_index_join(&event_index, events, &count, 7, EVENT_READ));
    event_index_clear(&event_index);
    count = 0;
    CHECK(event_index_join(&event_index, events, &count, 7, EVENT_READ));
    CHECK_INT(count, 1);
}

int
main(void)
{
    RUN(test_event_index_tells_neighbours_apart);
    RUN(test_event_index_tells_tokens_of_one_place_apart);
    RUN(test_event_index_forgets_when_cleared);
    return harness_finish("event index");
}
