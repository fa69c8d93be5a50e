// timer_wheel.c: see timer_wheel.h. The reactor is its only caller.
//
// Time is read as digits of WHEEL_SLOT_BITS bits. A timer lies at the level of the
// highest digit in which its time differs from the wheel's, in the slot that this digit
// of its own names. From that follow the invariants:
//   1. Timers of the same millisecond are always in the same slot, in order of linking.
//   2. Whatever is at a lower level is earlier than whatever is at a higher one, so the
//      next slot to take is the first one of the lowest level in use.
//   3. At each level the slots in use are those behind the wheel's own digit. Only the
//      highest level wraps around; a year fits in half of it, so it is never ambiguous.
//   4. The list of the due is sorted, and every timer in it is armed and due: who moves
//      or disarms a due timer takes it off at once. Being lazy pays only in the slots.

#include "timer_wheel.h"

#include "live_counts.h"

#include <assert.h>
#include <stddef.h>

#define TOP_LEVEL (WHEEL_LEVELS - 1)
#define SLOT_MASK (WHEEL_SLOTS - 1)

// The level of a timer that is linked among the due.
#define LEVEL_DUE WHEEL_LEVELS

_Static_assert(WHEEL_SLOT_BITS >= 1 && WHEEL_SLOT_BITS <= 6,
               "the slots of a level must fit the bits of one word");
_Static_assert(TIMER_MAX_DELAY_MS < UINT64_C(1) << (WHEEL_SLOT_BITS * WHEEL_LEVELS - 1),
               "invariant 3: the longest delay must fit in half of the wheel");

static struct timer *
timer_of(struct list_node *link)
{
    return CONTAINER_OF(link, struct timer, link);
}

static unsigned
digit_of(uint64_t time_ms, unsigned level)
{
    return (unsigned)(time_ms >> (level * WHEEL_SLOT_BITS)) & SLOT_MASK;
}

// The level of a time that is not the wheel's.
static unsigned
level_of(uint64_t time_ms, uint64_t now_ms)
{
    unsigned highest_bit = 63u - (unsigned)__builtin_clzll(time_ms ^ now_ms);
    unsigned level = highest_bit / WHEEL_SLOT_BITS;
    return level < TOP_LEVEL ? level : TOP_LEVEL;
}

// Links among the due. Almost always the place is the end: the search is for timers
// armed for a time that was over already.
static void
link_due(struct timer_wheel *wheel, struct timer *timer)
{
    struct list_node *position = &wheel->due;
    while (position->previous != &wheel->due &&
           timer_of(position->previous)->linked_ms > timer->linked_ms) {
        position = position->previous;
    }
    timer->level = LEVEL_DUE;
    timer->slot = 0;
    list_insert_before(position, &timer->link);
}

// Links an armed, unlinked timer where its deadline belongs.
static void
link_timer(struct timer_wheel *wheel, struct timer *timer)
{
    timer->linked_ms = timer->deadline_ms;
    if (timer->deadline_ms <= wheel->now_ms) {
        link_due(wheel, timer);
        return;
    }
    unsigned level = level_of(timer->linked_ms, wheel->now_ms);
    unsigned slot = digit_of(timer->linked_ms, level);
    timer->level = (uint8_t)level;
    timer->slot = (uint8_t)slot;
    list_append(&wheel->slots[level][slot], &timer->link);
    wheel->occupied[level] |= UINT64_C(1) << slot;
}

static void
unlink_timer(struct timer_wheel *wheel, struct timer *timer)
{
    if (!list_is_linked(&timer->link)) {
        return;
    }
    list_remove(&timer->link);
    if (timer->level != LEVEL_DUE &&
        list_is_empty(&wheel->slots[timer->level][timer->slot])) {
        wheel->occupied[timer->level] &= ~(UINT64_C(1) << timer->slot);
    }
}

// Finds the slot to take next and the time it begins at; false if none is in use.
static bool
find_next_slot(const struct timer_wheel *wheel, unsigned *level, unsigned *slot,
               uint64_t *start_ms)
{
    unsigned lowest = 0;
    while (wheel->occupied[lowest] == 0) {
        if (++lowest == WHEEL_LEVELS) {
            return false;
        }
    }
    uint64_t occupied = wheel->occupied[lowest];
    unsigned own_digit = digit_of(wheel->now_ms, lowest);
    uint64_t behind_own = occupied & ~((UINT64_C(2) << own_digit) - 1);
    // Nothing behind the own digit: the highest level has wrapped around.
    unsigned digit = (unsigned)__builtin_ctzll(behind_own != 0 ? behind_own : occupied);
    unsigned shift = lowest * WHEEL_SLOT_BITS;
    *level = lowest;
    *slot = digit;
    *start_ms = ((wheel->now_ms >> shift) + ((digit - own_digit) & SLOT_MASK)) << shift;
    return true;
}

// Empties a slot at the moment it begins: what is due then becomes due, the rest moves
// to lower levels or, if its deadline was put off meanwhile, to wherever it belongs.
static void
take_slot(struct timer_wheel *wheel, unsigned level, unsigned slot)
{
    struct list_node taken;
    list_init(&taken);
    list_move_all(&wheel->slots[level][slot], &taken);
    wheel->occupied[level] &= ~(UINT64_C(1) << slot);
    for (;;) {
        struct list_node *link = list_take_first(&taken);
        if (link == NULL) {
            return;
        }
        struct timer *timer = timer_of(link);
        if (timer_is_armed(timer)) {
            link_timer(wheel, timer);
        }
    }
}

void
timer_init(struct timer *timer, void (*on_due)(struct timer *timer))
{
    *timer = (struct timer){.deadline_ms = TIMER_NEVER, .on_due = on_due};
}

void
timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms)
{
    wheel->now_ms = now_ms;
    wheel->armed_count = 0;
    list_init(&wheel->due);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) {
            list_init(&wheel->slots[level][slot]);
        }
    }
}

void
timer_wheel_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t deadline_ms)
{
    if (deadline_ms > wheel->now_ms && deadline_ms - wheel->now_ms > TIMER_MAX_DELAY_MS) {
        deadline_ms = wheel->now_ms + TIMER_MAX_DELAY_MS;
    }
    if (deadline_ms == TIMER_NEVER) {
        deadline_ms--;
    }
    if (!timer_is_armed(timer)) {
        wheel->armed_count++;
        LIVE_COUNT(LIVE_TIMERS, 1);
    }
    timer->deadline_ms = deadline_ms;
    if (list_is_linked(&timer->link)) {
        bool may_stay = timer->level == LEVEL_DUE ? deadline_ms == timer->linked_ms
                                                  : deadline_ms >= timer->linked_ms;
        if (may_stay) {
            return;
        }
        unlink_timer(wheel, timer);
    }
    link_timer(wheel, timer);
}

void
timer_wheel_disarm(struct timer_wheel *wheel, struct timer *timer)
{
    if (!timer_is_armed(timer)) {
        return;
    }
    timer->deadline_ms = TIMER_NEVER;
    wheel->armed_count--;
    LIVE_COUNT(LIVE_TIMERS, -1);
    if (timer->level == LEVEL_DUE) {
        list_remove(&timer->link);
    }
}

void
timer_wheel_unlink(struct timer_wheel *wheel, struct timer *timer)
{
    timer_wheel_disarm(wheel, timer);
    unlink_timer(wheel, timer);
}

int64_t
timer_wheel_next_delay_ms(const struct timer_wheel *wheel)
{
    unsigned level, slot;
    uint64_t start_ms;
    if (!list_is_empty(&wheel->due)) {
        return 0;
    }
    // Linked timers that nobody waits for are no reason to wake up: they stay until
    // time next moves past them.
    if (wheel->armed_count == 0 || !find_next_slot(wheel, &level, &slot, &start_ms)) {
        return -1;
    }
    return (int64_t)(start_ms - wheel->now_ms);
}

void
timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ms)
{
    unsigned level, slot;
    uint64_t start_ms;
    if (now_ms <= wheel->now_ms) {
        return;
    }
    // Going from slot to slot, however far the jump, is what keeps the due sorted: each
    // timer is sorted by one digit at each level it passes. Empty stretches cost nothing.
    while (find_next_slot(wheel, &level, &slot, &start_ms) && start_ms <= now_ms) {
        wheel->now_ms = start_ms;
        take_slot(wheel, level, slot);
    }
    wheel->now_ms = now_ms;
}

struct timer *
timer_wheel_take_due(struct timer_wheel *wheel)
{
    struct list_node *link = list_take_first(&wheel->due);
    if (link == NULL) {
        return NULL;
    }
    struct timer *timer = timer_of(link);
    assert(timer->deadline_ms <= wheel->now_ms);
    timer->deadline_ms = TIMER_NEVER;
    wheel->armed_count--;
    LIVE_COUNT(LIVE_TIMERS, -1);
    return timer;
}

// Whether [head] is a sound list of timers that all say they are at [level], [slot], are
// linked for times of that place and, among the due, are sorted. Adds the armed ones to
// [*armed_count].
static bool
list_is_consistent(const struct timer_wheel *wheel, const struct list_node *head,
                   unsigned level, unsigned slot, uint64_t *armed_count)
{
    uint64_t earlier_ms = 0;
    const struct list_node *link = head;
    while (link->next != head) {
        if (link->next == NULL || link->next->previous != link) {
            return false;
        }
        link = link->next;
        const struct timer *timer = CONTAINER_OF(link, struct timer, link);
        if (timer->level != level || timer->slot != slot ||
            timer->linked_ms > timer->deadline_ms) {
            return false;
        }
        *armed_count += timer_is_armed(timer);
        if (level == LEVEL_DUE) {
            if (timer->linked_ms != timer->deadline_ms ||
                timer->linked_ms > wheel->now_ms || timer->linked_ms < earlier_ms) {
                return false;
            }
            earlier_ms = timer->linked_ms;
        }
        else if (timer->linked_ms <= wheel->now_ms ||
                 level_of(timer->linked_ms, wheel->now_ms) != level ||
                 digit_of(timer->linked_ms, level) != slot) {
            return false;
        }
    }
    return head->previous == link;
}

bool
timer_wheel_is_consistent(const struct timer_wheel *wheel)
{
    uint64_t armed_count = 0;
    if (!list_is_consistent(wheel, &wheel->due, LEVEL_DUE, 0, &armed_count)) {
        return false;
    }
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t occupied = 0;
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) {
            const struct list_node *head = &wheel->slots[level][slot];
            if (!list_is_consistent(wheel, head, level, slot, &armed_count)) {
                return false;
            }
            occupied |= (uint64_t)!list_is_empty(head) << slot;
        }
        if (occupied != wheel->occupied[level]) {
            return false;
        }
    }
    return armed_count == wheel->armed_count;
}
