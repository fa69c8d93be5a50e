// fuzz_timer_wheel.c: the timer wheel against an array of deadlines.
//
// The model knows nothing of slots. Of two timers of one millisecond it knows which comes
// first only if neither has been put off while it was linked: that order is the wheel's own.

#include "operations.h"
#include "timer_wheel.h"

#define TIMER_COUNT 24

struct expectation {
    uint64_t deadline_ms; // TIMER_NEVER = not armed
    uint64_t order;       // counts the times that one was linked
    bool was_put_off;
};

static struct timer_wheel wheel;
static struct timer timers[TIMER_COUNT];
static struct expectation model[TIMER_COUNT];
static uint64_t now_ms;
static uint64_t next_order;

static void
do_nothing(struct timer *timer)
{
    (void)timer;
}

static uint64_t
find_earliest(void)
{
    uint64_t earliest_ms = TIMER_NEVER;
    for (int i = 0; i < TIMER_COUNT; i++) {
        if (model[i].deadline_ms < earliest_ms) {
            earliest_ms = model[i].deadline_ms;
        }
    }
    return earliest_ms;
}

static void
arm(int index, uint64_t deadline_ms)
{
    bool was_linked = list_is_linked(&timers[index].link);
    uint64_t linked_ms = timers[index].linked_ms;
    timer_wheel_arm(&wheel, &timers[index], deadline_ms);
    if (deadline_ms > now_ms && deadline_ms - now_ms > TIMER_MAX_DELAY_MS) {
        deadline_ms = now_ms + TIMER_MAX_DELAY_MS;
    }
    model[index].deadline_ms = deadline_ms;
    if (!was_linked || linked_ms != timers[index].linked_ms) {
        model[index].order = next_order++;
        model[index].was_put_off = false;
    }
    if (deadline_ms != timers[index].linked_ms) {
        model[index].was_put_off = true;
    }
}

// Takes one that is due; false if none is.
static bool
take_due(void)
{
    uint64_t earliest_ms = find_earliest();
    struct timer *timer = timer_wheel_take_due(&wheel);
    REQUIRE((timer != NULL) == (earliest_ms <= now_ms));
    if (timer == NULL) {
        return false;
    }
    const struct expectation *taken = &model[timer - timers];
    REQUIRE(taken->deadline_ms == earliest_ms);
    REQUIRE(!timer_is_armed(timer) && !list_is_linked(&timer->link));
    for (int i = 0; i < TIMER_COUNT; i++) {
        if (&model[i] != taken && model[i].deadline_ms == earliest_ms &&
            !model[i].was_put_off && !taken->was_put_off) {
            REQUIRE(taken->order < model[i].order);
        }
    }
    model[timer - timers].deadline_ms = TIMER_NEVER;
    return true;
}

static void
advance(uint64_t to_ms)
{
    timer_wheel_advance(&wheel, to_ms);
    now_ms = to_ms > now_ms ? to_ms : now_ms;
}

static void
check_all(void)
{
    uint64_t armed_count = 0;
    for (int i = 0; i < TIMER_COUNT; i++) {
        armed_count += model[i].deadline_ms != TIMER_NEVER;
        REQUIRE(timers[i].deadline_ms == model[i].deadline_ms);
        REQUIRE(timer_is_armed(&timers[i]) == (model[i].deadline_ms != TIMER_NEVER));
    }
    REQUIRE(wheel.now_ms == now_ms);
    REQUIRE(wheel.armed_count == armed_count);
    REQUIRE(timer_wheel_is_consistent(&wheel));
    uint64_t earliest_ms = find_earliest();
    int64_t delay_ms = timer_wheel_next_delay_ms(&wheel);
    if (earliest_ms == TIMER_NEVER) {
        REQUIRE(delay_ms == -1);
    }
    else if (earliest_ms <= now_ms) {
        REQUIRE(delay_ms == 0);
    }
    else {
        REQUIRE(delay_ms > 0 && (uint64_t)delay_ms <= earliest_ms - now_ms);
    }
}

// Sleeps as a loop does, for as long as the wheel says, until something is due: it may not
// wake up much more often than a timer can move down.
static void
sleep_until_due(void)
{
    int64_t delay_ms;
    for (int i = 0; (delay_ms = timer_wheel_next_delay_ms(&wheel)) > 0; i++) {
        REQUIRE(i < TIMER_COUNT * WHEEL_LEVELS);
        advance(now_ms + (uint64_t)delay_ms);
        check_all();
    }
}

// A time of any distance, near the edge of a slot of any level, before now, or another
// timer's.
static uint64_t
take_time(struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    uint64_t width_ms = UINT64_C(1) << (choice >> 3) << (choice >> 3 > 16 ? 4 : 0);
    switch (choice % 8) {
    case 0:
        return now_ms - (now_ms < width_ms ? now_ms : width_ms);
    case 1:
        return (now_ms / width_ms + 1) * width_ms - 1 + take_below(operations, 3);
    case 2:
        return now_ms + take_number(operations, 1 + (choice >> 3) % 8);
    case 3: {
        uint64_t other_ms = model[take_below(operations, TIMER_COUNT)].deadline_ms;
        return other_ms == TIMER_NEVER ? now_ms : other_ms;
    }
    default:
        return now_ms + width_ms * take_byte(operations) + take_byte(operations);
    }
}

static void
operate(struct operations *operations)
{
    uint8_t choice = take_byte(operations);
    int index = (int)(choice >> 3) % TIMER_COUNT;
    switch (choice % 8) {
    case 0:
        timer_wheel_disarm(&wheel, &timers[index]);
        model[index].deadline_ms = TIMER_NEVER;
        break;
    case 1:
        timer_wheel_unlink(&wheel, &timers[index]);
        REQUIRE(!list_is_linked(&timers[index].link));
        model[index].deadline_ms = TIMER_NEVER;
        break;
    case 2: {
        // Less than what wraps around: a clock does not.
        uint64_t to_ms = take_time(operations);
        if (to_ms < UINT64_MAX - 4 * TIMER_MAX_DELAY_MS) {
            advance(to_ms);
        }
        break;
    }
    case 3:
        if (index % 2 == 0) {
            sleep_until_due();
        }
        else {
            while (take_due()) {
                check_all();
            }
        }
        break;
    case 4:
        take_due();
        break;
    default:
        arm(index, take_time(operations));
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const uint64_t starts_ms[] = {0, 1000000, (UINT64_C(1) << 36) - 1,
                                         (UINT64_C(1) << 40) + 63, UINT64_C(1) << 62};
    struct operations operations = {bytes, length};
    now_ms = starts_ms[take_below(&operations, sizeof(starts_ms) / sizeof(starts_ms[0]))];
    next_order = 0;
    timer_wheel_init(&wheel, now_ms);
    for (int i = 0; i < TIMER_COUNT; i++) {
        timer_init(&timers[i], do_nothing);
        model[i] = (struct expectation){.deadline_ms = TIMER_NEVER};
    }
    while (operations.left > 0) {
        operate(&operations);
        check_all();
    }
    // Whatever is left comes, in order.
    while (find_earliest() != TIMER_NEVER) {
        sleep_until_due();
        REQUIRE(take_due());
    }
    return 0;
}
