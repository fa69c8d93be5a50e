// event_index.h: finds fetched events by their tokens, so that what is said twice of one
// registration becomes one event.
//
// Used by the reactor, which keeps events that were not taken and fetches more behind them,
// and by engines whose kernel reports the two directions apart. The index does not own the
// events: they lie in an array of the caller's, which it describes until it is cleared.

#ifndef CORONET_EVENT_INDEX_H
#define CORONET_EVENT_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

// As many events as one index can tell apart.
#define EVENT_INDEX_CAPACITY 256

// Twice as many, so that a search ends soon; a power of two.
#define EVENT_INDEX_PLACES (2 * EVENT_INDEX_CAPACITY)

struct event_index {
    uint16_t places[EVENT_INDEX_PLACES]; // the index of a token's event plus 1, 0 = none
};

void event_index_clear(struct event_index *index);

// Adds [ready] to the event of [token] if the index knows one among the [*count] events;
// otherwise adds an event behind them, for which there must be room. True if it is news:
// a new event, or bits that the known one did not have.
bool event_index_join(struct event_index *index, struct engine_event *events, int *count,
                      uint64_t token, uint32_t ready);

#endif
