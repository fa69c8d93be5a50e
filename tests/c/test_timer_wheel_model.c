// test_timer_wheel_model.c: random operations on the wheel of timer_wheel.h, compared
// after each with a model that is a plain array of deadlines.
//
// The model knows deadlines only. What the wheel does with links it learns by looking,
// to know which timers of one millisecond have an order.

#include "harness.h"
#include "timer_wheel.h"

enum { MODEL_TIMERS = 48, MODEL_OPERATIONS = 60000, MODEL_ROUNDS = 5 };

struct model {
    struct timer_wheel wheel;
    struct timer timers[MODEL_TIMERS];
    uint64_t deadline_ms[MODEL_TIMERS]; // TIMER_NEVER = not armed
    uint64_t order[MODEL_TIMERS];       // when it was linked
    bool was_put_off[MODEL_TIMERS];     // lazily; its order is then the wheel's own
    uint64_t now_ms;
    uint64_t next_order;
};

static void
do_nothing(struct timer *timer)
{
    (void)timer;
}

static uint64_t
model_earliest(const struct model *model)
{
    uint64_t earliest_ms = TIMER_NEVER;
    for (int i = 0; i < MODEL_TIMERS; i++) {
        if (model->deadline_ms[i] < earliest_ms) {
            earliest_ms = model->deadline_ms[i];
        }
    }
    return earliest_ms;
}

static void
model_check(const struct model *model)
{
    uint64_t armed_count = 0;
    for (int i = 0; i < MODEL_TIMERS; i++) {
        armed_count += model->deadline_ms[i] != TIMER_NEVER;
        CHECK_UINT(model->timers[i].deadline_ms, model->deadline_ms[i]);
    }
    CHECK(timer_wheel_is_consistent(&model->wheel));
    CHECK_UINT(model->wheel.now_ms, model->now_ms);
    CHECK_UINT(model->wheel.armed_count, armed_count);
    uint64_t earliest_ms = model_earliest(model);
    int64_t delay_ms = timer_wheel_next_delay_ms(&model->wheel);
    if (earliest_ms == TIMER_NEVER) {
        CHECK_INT(delay_ms, -1);
    }
    else if (earliest_ms <= model->now_ms) {
        CHECK_INT(delay_ms, 0);
    }
    else {
        CHECK(delay_ms > 0);
        CHECK((uint64_t)delay_ms <= earliest_ms - model->now_ms);
    }
}

static void
model_arm(struct model *model, int index, uint64_t deadline_ms)
{
    struct timer *timer = &model->timers[index];
    struct timer before = *timer;
    timer_wheel_arm(&model->wheel, timer, deadline_ms);
    if (deadline_ms > model->now_ms && deadline_ms - model->now_ms > TIMER_MAX_DELAY_MS) {
        deadline_ms = model->now_ms + TIMER_MAX_DELAY_MS;
    }
    model->deadline_ms[index] = deadline_ms;
    if (before.link.next == NULL || before.linked_ms != timer->linked_ms) {
        model->order[index] = model->next_order++;
        model->was_put_off[index] = false;
    }
    if (timer->linked_ms != deadline_ms) {
        model->was_put_off[index] = true;
    }
}

// Takes one due timer and compares it with what the model allows; false at the end.
static bool
model_take(struct model *model)
{
    uint64_t earliest_ms = model_earliest(model);
    struct timer *timer = timer_wheel_take_due(&model->wheel);
    if (earliest_ms == TIMER_NEVER || earliest_ms > model->now_ms) {
        CHECK_POINTER(timer, NULL);
        return false;
    }
    if (!CHECK(timer != NULL)) {
        return false;
    }
    int index = (int)(timer - model->timers);
    CHECK_UINT(model->deadline_ms[index], earliest_ms);
    CHECK(!list_is_linked(&timer->link));
    for (int i = 0; i < MODEL_TIMERS; i++) {
        if (i != index && model->deadline_ms[i] == earliest_ms &&
            !model->was_put_off[i] && !model->was_put_off[index]) {
            CHECK(model->order[index] < model->order[i]);
        }
    }
    model->deadline_ms[index] = TIMER_NEVER;
    return true;
}

// Some deadline: of any magnitude, beside the edge of a slot, in the past, or another
// timer's.
static uint64_t
model_pick_deadline(const struct model *model)
{
    uint64_t width_ms = UINT64_C(1) << random_below(35);
    switch (random_below(8)) {
    case 0:
        return model->now_ms - random_below(model->now_ms + 1) % width_ms;
    case 1:
        return (model->now_ms / width_ms + 1) * width_ms - 1 + random_below(3);
    case 2:
        return model->now_ms + random_below(4);
    case 3:
        return model->deadline_ms[random_below(MODEL_TIMERS)];
    default:
        return model->now_ms + random_magnitude(36);
    }
}

static void
model_advance(struct model *model)
{
    uint64_t earliest_ms = model_earliest(model);
    uint64_t to_ms = model->now_ms;
    switch (random_below(8)) {
    case 0:
        to_ms -= random_below(model->now_ms + 1);
        break;
    case 1:
    case 2:
        if (earliest_ms != TIMER_NEVER && earliest_ms > model->now_ms) {
            to_ms = earliest_ms - random_below(2);
        }
        break;
    case 3:
    case 4: {
        int64_t delay_ms = timer_wheel_next_delay_ms(&model->wheel);
        to_ms += delay_ms > 0 ? (uint64_t)delay_ms : 0;
        break;
    }
    case 5:
        to_ms += random_magnitude(38);
        break;
    default:
        to_ms += random_magnitude(16);
        break;
    }
    timer_wheel_advance(&model->wheel, to_ms);
    if (to_ms > model->now_ms) {
        model->now_ms = to_ms;
    }
}

static void
model_operate(struct model *model)
{
    int index = (int)random_below(MODEL_TIMERS);
    switch (random_below(16)) {
    case 0:
        timer_wheel_disarm(&model->wheel, &model->timers[index]);
        model->deadline_ms[index] = TIMER_NEVER;
        break;
    case 1:
        timer_wheel_unlink(&model->wheel, &model->timers[index]);
        CHECK(!list_is_linked(&model->timers[index].link));
        model->deadline_ms[index] = TIMER_NEVER;
        break;
    case 2:
    case 3:
    case 4:
        model_advance(model);
        break;
    case 5:
    case 6:
    case 7:
        model_take(model);
        break;
    case 8:
        if (random_below(4) == 0) {
            while (model_take(model)) {
                model_check(model);
            }
        }
        break;
    default:
        model_arm(model, index, model_pick_deadline(model));
        break;
    }
}

static void
test_wheel_random_like_the_model(void)
{
    static const uint64_t starts[MODEL_ROUNDS] = {
        0, 1000000, UINT64_C(1) << 36, (UINT64_C(1) << 40) - 1, UINT64_C(1) << 62};
    for (int round = 0; round < MODEL_ROUNDS; round++) {
        static struct model model;
        model.now_ms = starts[round];
        model.next_order = 0;
        timer_wheel_init(&model.wheel, model.now_ms);
        for (int i = 0; i < MODEL_TIMERS; i++) {
            timer_init(&model.timers[i], do_nothing);
            model.deadline_ms[i] = TIMER_NEVER;
        }
        for (int operation = 0; operation < MODEL_OPERATIONS; operation++) {
            model_operate(&model);
            model_check(&model);
        }
    }
}

int
main(void)
{
    RUN(test_wheel_random_like_the_model);
    return harness_finish("timer_wheel_model");
}
