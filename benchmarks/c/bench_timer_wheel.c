// bench_timer_wheel.c: what a deadline costs, per operation.
//
// The pattern of a server comes first: each wait arms a deadline and disarms it long
// before it is due. The last lines make timers really fire, which is rare.

#include "bench.h"
#include "timer_wheel.h"

#define TIMER_COUNT 10000
#define THIRTY_SECONDS_MS 30000

static struct timer_wheel wheel;
static struct timer timers[TIMER_COUNT];

static void
start_over(void)
{
    timer_wheel_init(&wheel, 1000);
    for (int i = 0; i < TIMER_COUNT; i++) {
        timer_init(&timers[i], NULL);
    }
}

// One wait a millisecond on one of many connections: the deadline only moves later.
static void
arm_and_disarm_as_time_goes(uint64_t count)
{
    start_over();
    for (uint64_t i = 0; i < count; i++) {
        struct timer *timer = &timers[i % TIMER_COUNT];
        if (i % 64 == 0) {
            timer_wheel_advance(&wheel, wheel.now_ms + 1);
        }
        timer_wheel_arm(&wheel, timer, wheel.now_ms + THIRTY_SECONDS_MS);
        timer_wheel_disarm(&wheel, timer);
    }
    bench_use(wheel.armed_count);
}

// Each deadline is earlier than the one before, so the timer is linked anew each time.
static void
arm_earlier(uint64_t count)
{
    start_over();
    uint64_t far_ms = wheel.now_ms + count;
    for (uint64_t i = 0; i < count; i++) {
        timer_wheel_arm(&wheel, &timers[i % TIMER_COUNT], far_ms - i);
    }
    bench_use(wheel.armed_count);
}

static void
ask_for_next_delay(uint64_t count)
{
    start_over();
    for (int i = 0; i < TIMER_COUNT; i++) {
        timer_wheel_arm(&wheel, &timers[i], wheel.now_ms + 1000 + (uint64_t)i);
    }
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += (uint64_t)timer_wheel_next_delay_ms(&wheel);
    }
    bench_use(sum);
}

static void
advance_one_millisecond(uint64_t count)
{
    start_over();
    timer_wheel_arm(&wheel, &timers[0], wheel.now_ms + TIMER_MAX_DELAY_MS);
    for (uint64_t i = 0; i < count; i++) {
        timer_wheel_advance(&wheel, wheel.now_ms + 1);
        bench_use(timer_wheel_take_due(&wheel) != NULL);
    }
}

// Arms timers over a minute and lets every one fire: all the levels they move down count.
static void
arm_and_fire(uint64_t count)
{
    uint64_t state = 1;
    start_over();
    for (uint64_t fired = 0; fired < count;) {
        for (int i = 0; i < TIMER_COUNT; i++) {
            uint64_t delay_ms = 1 + bench_random(&state) % 60000;
            timer_wheel_arm(&wheel, &timers[i], wheel.now_ms + delay_ms);
        }
        while (wheel.armed_count > 0) {
            int64_t delay_ms = timer_wheel_next_delay_ms(&wheel);
            timer_wheel_advance(&wheel, wheel.now_ms + (uint64_t)delay_ms);
            while (timer_wheel_take_due(&wheel) != NULL) {
                fired++;
            }
        }
    }
}

int
main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"wheel: arm and disarm, 10,000 timers, time goes on", 5000000,
         arm_and_disarm_as_time_goes},
        {"wheel: arm for an earlier deadline", 5000000, arm_earlier},
        {"wheel: ask for the next delay", 5000000, ask_for_next_delay},
        {"wheel: advance by a millisecond, nothing due", 5000000,
         advance_one_millisecond},
        {"wheel: arm within a minute and fire", 1000000, arm_and_fire},
    };
    return BENCH_MAIN(argc, argv, cases);
}
