// fake_engine.c: real readiness in virtual time, for tests.
//
// Descriptors, wake-ups and forks go to the best real engine of the system. Only the
// clock is made up: it stands still while code runs, and a wait with nothing ready jumps
// over its timeout instead of sleeping through it. So a test of a day's timeout takes no
// time, and its outcome does not hang on how busy the machine is.
//
// A wait without limit really blocks: nothing but a descriptor or a wake-up ends it.
//
// What virtual time cannot show: a peer in another thread or process lives in real time,
// and a timeout never waits for it. Tests that need such a peer wait without limit.

#include "engine.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

// Where virtual time starts: not at zero, so that a forgotten clock reading shows, and at
// a whole millisecond, so that tests can name deadlines exactly.
#define START_NS (UINT64_C(1000) * 1000 * 1000 * 1000)

struct engine {
    const struct engine_operations *real_operations;
    struct engine *real; // owned
    // Others may read the clock while wait() moves it.
    _Atomic uint64_t now_ns;
    // A wake-up that no wait has answered yet. The real engine's own note of it is gone
    // once it was only looked at, and that does not say that it was there.
    atomic_bool is_woken;
};

static int
open_engine(struct engine **result)
{
    const struct engine_operations *real_operations = engine_find(NULL);
    if (real_operations == NULL) {
        return -ENOSYS; // not reached: each build has a real engine
    }
    struct engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) {
        return -ENOMEM;
    }
    int status = real_operations->open(&engine->real);
    if (status < 0) {
        free(engine);
        return status;
    }
    engine->real_operations = real_operations;
    atomic_init(&engine->now_ns, START_NS);
    atomic_init(&engine->is_woken, false);
    *result = engine;
    return 0;
}

static void
close_engine(struct engine *engine)
{
    engine->real_operations->close(engine->real);
    free(engine);
}

static int
add_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
       enum engine_trigger trigger)
{
    return engine->real_operations->add(engine->real, fd, token, interest, trigger);
}

static int
modify_fd(struct engine *engine, int fd, uint64_t token, unsigned interest,
          enum engine_trigger trigger)
{
    return engine->real_operations->modify(engine->real, fd, token, interest, trigger);
}

static int
remove_fd(struct engine *engine, int fd)
{
    return engine->real_operations->remove(engine->real, fd);
}

void
fake_engine_advance(struct engine *engine, uint64_t nanoseconds)
{
    uint64_t now_ns = atomic_load(&engine->now_ns);
    uint64_t left_ns = UINT64_MAX - now_ns;
    atomic_store(&engine->now_ns,
                 now_ns + (nanoseconds < left_ns ? nanoseconds : left_ns));
}

static int
wait_for_events(struct engine *engine, struct engine_event *events, int capacity,
                int64_t timeout_ns)
{
    int count = engine->real_operations->wait(engine->real, events, capacity, 0);
    // The flag is set before the real engine is woken. So if the look above has used a
    // wake-up of the real engine up, the flag says so here.
    bool was_woken = atomic_exchange(&engine->is_woken, false);
    if (count != 0 || was_woken || timeout_ns == 0) {
        return count;
    }
    if (timeout_ns > 0) {
        fake_engine_advance(engine, (uint64_t)timeout_ns);
        return engine->real_operations->wait(engine->real, events, capacity, 0);
    }
    count = engine->real_operations->wait(engine->real, events, capacity, -1);
    atomic_store(&engine->is_woken, false);
    return count;
}

static int
wake_up(struct engine *engine)
{
    atomic_store(&engine->is_woken, true);
    return engine->real_operations->wake(engine->real);
}

static uint64_t
read_clock(struct engine *engine)
{
    return atomic_load(&engine->now_ns);
}

static int
reopen_after_fork(struct engine *engine)
{
    // Virtual time goes on; a wake-up was meant for the parent.
    atomic_store(&engine->is_woken, false);
    return engine->real_operations->after_fork(engine->real);
}

static bool
short_read_is_empty(const struct engine *engine)
{
    return engine->real_operations->short_read_is_empty(engine->real);
}

const struct engine_operations fake_engine = {
    .name = "fake",
    .open = open_engine,
    .close = close_engine,
    .add = add_fd,
    .modify = modify_fd,
    .remove = remove_fd,
    .wait = wait_for_events,
    .wake = wake_up,
    .now_ns = read_clock,
    .after_fork = reopen_after_fork,
    .short_read_is_empty = short_read_is_empty,
};
