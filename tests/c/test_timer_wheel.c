// test_timer_wheel.c: the wheel of timer_wheel.h, sentence by sentence. Built with
// WHEEL_SLOT_BITS=1, the same cases send every timer through 36 levels. Random runs are
// in test_timer_wheel_model.c.

#include "harness.h"
#include "timer_wheel.h"

#define YEAR_MS TIMER_MAX_DELAY_MS

// A few timers and a wheel that stands at a given time.
struct fixture {
    struct timer_wheel wheel;
    struct timer timers[8];
};

static void
do_nothing(struct timer *timer)
{
    (void)timer;
}

static void
set_up(struct fixture *fixture, uint64_t now_ms)
{
    timer_wheel_init(&fixture->wheel, now_ms);
    for (size_t i = 0; i < COUNT_OF(fixture->timers); i++) {
        timer_init(&fixture->timers[i], do_nothing);
    }
}

static void
arm(struct fixture *fixture, int index, uint64_t deadline_ms)
{
    timer_wheel_arm(&fixture->wheel, &fixture->timers[index], deadline_ms);
    CHECK(timer_wheel_is_consistent(&fixture->wheel));
}

static void
disarm(struct fixture *fixture, int index)
{
    timer_wheel_disarm(&fixture->wheel, &fixture->timers[index]);
    CHECK(timer_wheel_is_consistent(&fixture->wheel));
}

static void
advance(struct fixture *fixture, uint64_t now_ms)
{
    timer_wheel_advance(&fixture->wheel, now_ms);
    CHECK(timer_wheel_is_consistent(&fixture->wheel));
}

// The number of the next due timer, -1 if there is none.
static int
take(struct fixture *fixture)
{
    struct timer *timer = timer_wheel_take_due(&fixture->wheel);
    CHECK(timer_wheel_is_consistent(&fixture->wheel));
    if (timer == NULL) {
        return -1;
    }
    CHECK(!timer_is_armed(timer));
    CHECK(!list_is_linked(&timer->link));
    return (int)(timer - fixture->timers);
}

static void
test_wheel_init_is_empty(void)
{
    struct fixture fixture;
    set_up(&fixture, 77);
    CHECK_UINT(fixture.wheel.now_ms, 77);
    CHECK_UINT(fixture.wheel.armed_count, 0);
    CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), -1);
    CHECK_INT(take(&fixture), -1);
    CHECK(!timer_is_armed(&fixture.timers[0]));
    CHECK(!list_is_linked(&fixture.timers[0].link));
    CHECK(fixture.timers[0].on_due == do_nothing);
    CHECK(timer_wheel_is_consistent(&fixture.wheel));
}

// The original this project re-creates compared the wrong way round: it expired what was
// not yet due, and kept what was.
static void
test_wheel_never_early_and_never_lost(void)
{
    static const uint64_t starts[] = {0, 1, 63, 64, 4095, 1000000007, UINT64_C(1) << 36};
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        for (unsigned bit = 0; bit < 35; bit++) {
            for (uint64_t near = 0; near < 3; near++) {
                uint64_t deadline_ms = starts[i] + (UINT64_C(1) << bit) + near;
                if (deadline_ms - starts[i] > YEAR_MS) {
                    continue;
                }
                struct fixture fixture;
                set_up(&fixture, starts[i]);
                arm(&fixture, 0, deadline_ms);
                CHECK_INT(take(&fixture), -1);
                advance(&fixture, deadline_ms - 1);
                CHECK_INT(take(&fixture), -1);
                advance(&fixture, deadline_ms + (near == 2 ? 12345 : 0));
                CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), 0);
                CHECK_INT(take(&fixture), 0);
                CHECK_INT(take(&fixture), -1);
                CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), -1);
            }
        }
    }
}

static void
test_wheel_arm_for_now_or_past_is_due_at_once(void)
{
    struct fixture fixture;
    set_up(&fixture, 1000);
    arm(&fixture, 0, 1000);
    CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), 0);
    arm(&fixture, 1, 0);
    arm(&fixture, 2, 999);
    arm(&fixture, 3, 0);
    CHECK_UINT(fixture.wheel.armed_count, 4);
    CHECK_INT(take(&fixture), 1);
    CHECK_INT(take(&fixture), 3);
    CHECK_INT(take(&fixture), 2);
    CHECK_INT(take(&fixture), 0);
    CHECK_INT(take(&fixture), -1);
    CHECK_UINT(fixture.wheel.armed_count, 0);
}

static void
test_wheel_due_in_order_of_deadline_after_one_jump(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 5000);
    arm(&fixture, 1, 300000);
    arm(&fixture, 2, 4999);
    arm(&fixture, 3, 1);
    arm(&fixture, 4, 300000);
    arm(&fixture, 5, YEAR_MS);
    arm(&fixture, 6, 299999);
    arm(&fixture, 7, 64);
    advance(&fixture, 2 * YEAR_MS);
    static const int order[] = {3, 7, 2, 0, 6, 1, 4, 5, -1};
    for (size_t i = 0; i < COUNT_OF(order); i++) {
        CHECK_INT(take(&fixture), order[i]);
    }
}

// Those of one millisecond come in the order they were linked, wherever they were linked.
static void
test_wheel_same_millisecond_in_order_of_linking(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    for (int i = 0; i < 6; i++) {
        arm(&fixture, i, 10000);
        advance(&fixture, 10000 - (UINT64_C(4096) >> (2 * i)));
    }
    advance(&fixture, 10000);
    arm(&fixture, 6, 10000);
    for (int i = 0; i < 7; i++) {
        CHECK_INT(take(&fixture), i);
    }
}

static void
test_wheel_arm_later_only_stores(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 100);
    arm(&fixture, 0, 90000);
    CHECK_UINT(fixture.timers[0].linked_ms, 100);
    CHECK_UINT(fixture.timers[0].deadline_ms, 90000);
    CHECK_UINT(fixture.wheel.armed_count, 1);
    advance(&fixture, 100);
    CHECK_INT(take(&fixture), -1);
    CHECK_UINT(fixture.timers[0].linked_ms, 90000);
    advance(&fixture, 89999);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 90000);
    CHECK_INT(take(&fixture), 0);
}

// One jump over the old place and the new one.
static void
test_wheel_put_off_timer_is_found_in_one_jump(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 100);
    arm(&fixture, 0, 90000);
    arm(&fixture, 1, 50000);
    advance(&fixture, 1000000);
    CHECK_INT(take(&fixture), 1);
    CHECK_INT(take(&fixture), 0);
    CHECK_INT(take(&fixture), -1);
}

static void
test_wheel_arm_earlier_relinks_at_once(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 90000);
    arm(&fixture, 0, 100);
    CHECK_UINT(fixture.timers[0].linked_ms, 100);
    CHECK_UINT(fixture.wheel.armed_count, 1);
    CHECK(timer_wheel_next_delay_ms(&fixture.wheel) <= 100);
    advance(&fixture, 99);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 100);
    CHECK_INT(take(&fixture), 0);
    advance(&fixture, 90000);
    CHECK_INT(take(&fixture), -1);
}

static void
test_wheel_disarmed_never_comes(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    disarm(&fixture, 0);
    arm(&fixture, 0, 100);
    disarm(&fixture, 0);
    disarm(&fixture, 0);
    CHECK(!timer_is_armed(&fixture.timers[0]));
    CHECK_UINT(fixture.wheel.armed_count, 0);
    CHECK(list_is_linked(&fixture.timers[0].link));
    CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), -1);
    advance(&fixture, 1000);
    CHECK_INT(take(&fixture), -1);
    CHECK(!list_is_linked(&fixture.timers[0].link));
}

static void
test_wheel_disarmed_then_armed_again(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 100);
    disarm(&fixture, 0);
    arm(&fixture, 0, 50);
    CHECK_UINT(fixture.timers[0].linked_ms, 50);
    disarm(&fixture, 0);
    arm(&fixture, 0, 200);
    CHECK_UINT(fixture.timers[0].linked_ms, 50);
    CHECK_UINT(fixture.wheel.armed_count, 1);
    advance(&fixture, 199);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 200);
    CHECK_INT(take(&fixture), 0);
}

static void
test_wheel_unlink_leaves_no_pointer(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    timer_wheel_unlink(&fixture.wheel, &fixture.timers[0]);
    arm(&fixture, 0, 100);
    arm(&fixture, 1, 100);
    arm(&fixture, 2, 0);
    for (int i = 2; i >= 0; i--) {
        timer_wheel_unlink(&fixture.wheel, &fixture.timers[i]);
        CHECK(!timer_is_armed(&fixture.timers[i]));
        CHECK(!list_is_linked(&fixture.timers[i].link));
        CHECK(timer_wheel_is_consistent(&fixture.wheel));
    }
    CHECK_UINT(fixture.wheel.armed_count, 0);
    arm(&fixture, 3, 100);
    disarm(&fixture, 3);
    timer_wheel_unlink(&fixture.wheel, &fixture.timers[3]);
    CHECK(!list_is_linked(&fixture.timers[3].link));
    CHECK_INT(timer_wheel_next_delay_ms(&fixture.wheel), -1);
    advance(&fixture, 1000);
    CHECK_INT(take(&fixture), -1);
}

static void
test_wheel_deadline_beyond_a_year_is_brought_back(void)
{
    struct fixture fixture;
    set_up(&fixture, 5000);
    arm(&fixture, 0, 5000 + YEAR_MS + 1);
    CHECK_UINT(fixture.timers[0].deadline_ms, 5000 + YEAR_MS);
    arm(&fixture, 1, TIMER_NEVER);
    CHECK_UINT(fixture.timers[1].deadline_ms, 5000 + YEAR_MS);
    arm(&fixture, 2, 5000 + YEAR_MS);
    CHECK_UINT(fixture.timers[2].deadline_ms, 5000 + YEAR_MS);
    advance(&fixture, 5000 + YEAR_MS - 1);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 5000 + YEAR_MS);
    CHECK_INT(take(&fixture), 0);
    CHECK_INT(take(&fixture), 1);
    CHECK_INT(take(&fixture), 2);
}

// The highest level wraps around; so does, in the end, the clock's type.
static void
test_wheel_at_the_end_of_the_highest_level_and_of_time(void)
{
    uint64_t turn_ms = UINT64_C(1) << (WHEEL_SLOT_BITS * WHEEL_LEVELS);
    uint64_t starts[] = {turn_ms - 1, turn_ms - YEAR_MS / 2, 5 * turn_ms - 1000,
                         UINT64_MAX - 2 * YEAR_MS};
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        struct fixture fixture;
        set_up(&fixture, starts[i]);
        arm(&fixture, 0, starts[i] + YEAR_MS);
        arm(&fixture, 1, starts[i] + 2000);
        arm(&fixture, 2, starts[i] + 1);
        advance(&fixture, starts[i] + 1999);
        CHECK_INT(take(&fixture), 2);
        CHECK_INT(take(&fixture), -1);
        advance(&fixture, starts[i] + YEAR_MS - 1);
        CHECK_INT(take(&fixture), 1);
        CHECK_INT(take(&fixture), -1);
        advance(&fixture, starts[i] + YEAR_MS);
        CHECK_INT(take(&fixture), 0);
    }
    struct fixture fixture;
    set_up(&fixture, UINT64_MAX - 10);
    arm(&fixture, 0, UINT64_MAX);
    CHECK(timer_is_armed(&fixture.timers[0]));
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, UINT64_MAX);
    CHECK_INT(take(&fixture), 0);
}

static void
test_wheel_advance_backwards_does_nothing(void)
{
    struct fixture fixture;
    set_up(&fixture, 1000);
    arm(&fixture, 0, 1100);
    advance(&fixture, 5);
    CHECK_UINT(fixture.wheel.now_ms, 1000);
    advance(&fixture, 1000);
    CHECK_UINT(fixture.wheel.now_ms, 1000);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 1099);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 1100);
    CHECK_INT(take(&fixture), 0);
}

// Waking up as often as the wheel asks for, one hits the deadline exactly, in few steps.
static void
test_wheel_next_delay_leads_to_the_deadline(void)
{
    for (int round = 0; round < 2000; round++) {
        struct fixture fixture;
        uint64_t now_ms = random_magnitude(50);
        set_up(&fixture, now_ms);
        uint64_t deadline_ms = now_ms + 1 + random_magnitude(34);
        arm(&fixture, 0, deadline_ms);
        unsigned steps = 0;
        while (now_ms < deadline_ms) {
            int64_t delay_ms = timer_wheel_next_delay_ms(&fixture.wheel);
            if (!CHECK(delay_ms > 0) ||
                !CHECK((uint64_t)delay_ms <= deadline_ms - now_ms)) {
                return;
            }
            CHECK_INT(take(&fixture), -1);
            now_ms += (uint64_t)delay_ms;
            advance(&fixture, now_ms);
            steps++;
        }
        CHECK_INT(take(&fixture), 0);
        CHECK(steps <= WHEEL_LEVELS);
    }
}

// If empty time were walked through, this would outlive whoever waits for it.
static void
test_wheel_advance_skips_empty_time(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    for (int year = 0; year < 20000; year++) {
        timer_wheel_arm(&fixture.wheel, &fixture.timers[0],
                        fixture.wheel.now_ms + YEAR_MS);
        timer_wheel_advance(&fixture.wheel, fixture.wheel.now_ms + YEAR_MS - 1);
        if (!CHECK_POINTER(timer_wheel_take_due(&fixture.wheel), NULL)) {
            return;
        }
        timer_wheel_advance(&fixture.wheel, fixture.wheel.now_ms + YEAR_MS);
        if (!CHECK_POINTER(timer_wheel_take_due(&fixture.wheel), &fixture.timers[0])) {
            return;
        }
    }
}

static void
test_wheel_due_timer_disarmed_or_unlinked_is_dropped(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    for (int i = 0; i < 5; i++) {
        arm(&fixture, i, 10 + (uint64_t)i);
    }
    advance(&fixture, 50);
    CHECK_UINT(fixture.wheel.armed_count, 5);
    CHECK_INT(take(&fixture), 0);
    disarm(&fixture, 1);
    timer_wheel_unlink(&fixture.wheel, &fixture.timers[3]);
    CHECK(!list_is_linked(&fixture.timers[3].link));
    CHECK_UINT(fixture.wheel.armed_count, 2);
    CHECK_INT(take(&fixture), 2);
    CHECK_INT(take(&fixture), 4);
    CHECK_INT(take(&fixture), -1);
}

static void
test_wheel_due_timer_moved_later_waits(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    for (int i = 0; i < 4; i++) {
        arm(&fixture, i, 10 + (uint64_t)i);
    }
    advance(&fixture, 50);
    arm(&fixture, 0, 60); // no longer due
    arm(&fixture, 1, 40); // still due, but after the others
    arm(&fixture, 2, 12); // its own deadline once more
    CHECK_INT(take(&fixture), 2);
    CHECK_INT(take(&fixture), 3);
    CHECK_INT(take(&fixture), 1);
    CHECK_INT(take(&fixture), -1);
    CHECK_UINT(fixture.wheel.armed_count, 1);
    advance(&fixture, 59);
    CHECK_INT(take(&fixture), -1);
    advance(&fixture, 60);
    CHECK_INT(take(&fixture), 0);
}

static void
test_wheel_armed_for_the_past_comes_in_the_same_round(void)
{
    struct fixture fixture;
    set_up(&fixture, 0);
    arm(&fixture, 0, 10);
    arm(&fixture, 1, 30);
    advance(&fixture, 50);
    CHECK_INT(take(&fixture), 0);
    arm(&fixture, 0, 20);
    arm(&fixture, 2, 30);
    arm(&fixture, 3, 51);
    CHECK_INT(take(&fixture), 0);
    CHECK_INT(take(&fixture), 1);
    CHECK_INT(take(&fixture), 2);
    CHECK_INT(take(&fixture), -1);
}

// The checker itself must not be blind.
static void
test_wheel_is_consistent_sees_damage(void)
{
    struct fixture fixture;
    set_up(&fixture, 100);
    arm(&fixture, 0, 1000);
    arm(&fixture, 1, 1000);
    arm(&fixture, 2, 50);
    arm(&fixture, 3, 60);
    struct timer_wheel *wheel = &fixture.wheel;
    struct timer *timer = &fixture.timers[0];
#define CHECK_SEEN(damage, repair)                                                       \
    do {                                                                                 \
        damage;                                                                          \
        CHECK(!timer_wheel_is_consistent(wheel));                                        \
        repair;                                                                          \
        CHECK(timer_wheel_is_consistent(wheel));                                         \
    } while (0)
    CHECK_SEEN(wheel->armed_count++, wheel->armed_count--);
    CHECK_SEEN(wheel->occupied[timer->level] = 0,
               wheel->occupied[timer->level] = UINT64_C(1) << timer->slot);
    CHECK_SEEN(wheel->now_ms = 1000, wheel->now_ms = 100);
    CHECK_SEEN(wheel->now_ms = 55, wheel->now_ms = 100);
    CHECK_SEEN(timer->level++, timer->level--);
    CHECK_SEEN(timer->slot++, timer->slot--);
    CHECK_SEEN(timer->deadline_ms = 999, timer->deadline_ms = 1000);
    CHECK_SEEN(timer->linked_ms = 101, timer->linked_ms = 1000);
    struct list_node saved = timer->link;
    CHECK_SEEN(timer->link.next = NULL, timer->link = saved);
    CHECK_SEEN(timer->link.previous = NULL, timer->link = saved);
    CHECK_SEEN(fixture.timers[2].linked_ms = 40, fixture.timers[2].linked_ms = 50);
    CHECK_SEEN(fixture.timers[3].linked_ms = fixture.timers[3].deadline_ms = 40,
               fixture.timers[3].linked_ms = fixture.timers[3].deadline_ms = 60);
}

int
main(void)
{
    RUN(test_wheel_init_is_empty);
    RUN(test_wheel_never_early_and_never_lost);
    RUN(test_wheel_arm_for_now_or_past_is_due_at_once);
    RUN(test_wheel_due_in_order_of_deadline_after_one_jump);
    RUN(test_wheel_same_millisecond_in_order_of_linking);
    RUN(test_wheel_arm_later_only_stores);
    RUN(test_wheel_put_off_timer_is_found_in_one_jump);
    RUN(test_wheel_arm_earlier_relinks_at_once);
    RUN(test_wheel_disarmed_never_comes);
    RUN(test_wheel_disarmed_then_armed_again);
    RUN(test_wheel_unlink_leaves_no_pointer);
    RUN(test_wheel_deadline_beyond_a_year_is_brought_back);
    RUN(test_wheel_at_the_end_of_the_highest_level_and_of_time);
    RUN(test_wheel_advance_backwards_does_nothing);
    RUN(test_wheel_next_delay_leads_to_the_deadline);
    RUN(test_wheel_advance_skips_empty_time);
    RUN(test_wheel_due_timer_disarmed_or_unlinked_is_dropped);
    RUN(test_wheel_due_timer_moved_later_waits);
    RUN(test_wheel_armed_for_the_past_comes_in_the_same_round);
    RUN(test_wheel_is_consistent_sees_damage);
    return harness_finish("timer_wheel");
}
