// event_index.c: see event_index.h. A hash table with open addressing; nothing is ever
// taken out of it but by clearing it, so a search may stop at the first empty place.

#include "event_index.h"

#include <assert.h>
#include <string.h>

void
event_index_clear(struct event_index *index)
{
    memset(index->places, 0, sizeof(index->places));
}

bool
event_index_join(struct event_index *index, struct engine_event *events, int *count,
                 uint64_t token, uint32_t ready)
{
    // The low half of a token is its descriptor, so neighbours have places of their own.
    size_t place = token % EVENT_INDEX_PLACES;
    while (index->places[place] != 0) {
        struct engine_event *known = &events[index->places[place] - 1];
        if (known->token == token) {
            bool is_news = (ready & ~known->ready) != 0;
            known->ready |= ready;
            return is_news;
        }
        place = (place + 1) % EVENT_INDEX_PLACES;
    }
    assert(*count < EVENT_INDEX_CAPACITY);
    events[(*count)++] = (struct engine_event){.token = token, .ready = ready};
    index->places[place] = (uint16_t)*count;
    return true;
}
