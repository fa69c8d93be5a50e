// engine.h: the contract of a wait-loop backend.
//
// A backend translates between the kernel's readiness interface and the events below;
// all policy is above it. It is a table of functions chosen when a reactor is opened,
// so that one table of test cases can face every backend and a fake one can drive tests
// in virtual time. Every function returns 0 (or a count) or -errno, and prints nothing.
//
// One thread at a time uses an engine, with two exceptions: any thread may call wake(),
// and while one is in wait() another may add, modify, remove and read the clock.

#ifndef CORONET_ENGINE_H
#define CORONET_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What an event says, and what may be asked for. The values are those of poll(2) and
// epoll(7) on Linux, and they are the same with every engine: users see them.
enum event_bits {
    EVENT_READ = 0x0001,        // bytes, a connection or the end of file can be taken
    EVENT_PRIORITY = 0x0002,    // urgent data
    EVENT_WRITE = 0x0004,       // there is room to write, or a connect is over
    EVENT_ERROR = 0x0008,       // an error is pending; never asked for, always reported
    EVENT_HANGUP = 0x0010,      // both directions are over; never asked for
    EVENT_READ_HANGUP = 0x2000, // the peer will send no more; never asked for
};

enum engine_trigger {
    ENGINE_EDGE,         // an event when readiness is new, or news of it arrive
    ENGINE_LEVEL,        // an event in each wait as long as it is ready
    ENGINE_LEVEL_SHARED, // the same for a listener several processes wait on:
                         // not all of them are woken, where the kernel can
};

struct engine_event {
    uint64_t token; // what the fd was registered with
    uint32_t ready; // EVENT_* bits
};

struct engine; // each backend's own

struct engine_operations {
    const char *name; // as in PYCORONET_ENGINE and Hub.backend

    // Makes an engine. 0, or -errno with nothing left behind.
    int (*open)(struct engine **engine);

    // Frees the engine and all its descriptors.
    void (*close)(struct engine *engine);

    // Starts to watch [fd] for [interest] (EVENT_READ, EVENT_WRITE, EVENT_PRIORITY). If
    // it is ready already, an event comes. Where the kernel does not tell of urgent data,
    // EVENT_PRIORITY is left out, and is -EOPNOTSUPP alone. -EPERM: a file of a kind that
    // is always ready or cannot be waited for. To add what is watched already is a mistake
    // of the caller's, which not every kernel notices (-EEXIST).
    int (*add)(struct engine *engine, int fd, uint64_t token, unsigned interest,
               enum engine_trigger trigger);

    // Changes what an added fd is watched for; if it is ready for that already, an
    // event comes. -ENOENT: not watched. Nothing is modified to or from
    // ENGINE_LEVEL_SHARED: remove it and add it. After any other error it may be watched
    // or not: remove it.
    int (*modify)(struct engine *engine, int fd, uint64_t token, unsigned interest,
                  enum engine_trigger trigger);

    // Ends watching [fd], before it is closed. -ENOENT or -EBADF: there was nothing
    // (its file was closed behind our back). Events fetched before may still carry
    // its token.
    int (*remove)(struct engine *engine, int fd);

    // Waits until something is ready, wake() was called or [timeout_ns] is over (-1:
    // no limit, 0: only looks), never shorter: it rounds up. Fills up to [capacity]
    // events, at most one an fd; the rest comes next time. Returns their number, 0
    // after a time-out or a wake-up, or -EINTR after a signal.
    int (*wait)(struct engine *engine, struct engine_event *events, int capacity,
                int64_t timeout_ns);

    // Makes a wait that is running, or else the next one, return. Callable from any
    // thread and from a signal handler. Wake-ups are not counted.
    int (*wake)(struct engine *engine);

    // The monotonic clock, in nanoseconds.
    uint64_t (*now_ns)(struct engine *engine);

    // In a forked child, before any other call: gives the engine a kernel object of its
    // own, which watches nothing. The inherited one is let go without a change call,
    // for through it the child would change what the parent is watching.
    int (*after_fork)(struct engine *engine);

    // Whether a read from a TCP socket that brings less than there was room for proves
    // that there is no more, as long as no event told of an end, an error or urgent data.
    bool (*short_read_is_empty)(const struct engine *engine);
};

// The backends. engine_find() looks one up by name; NULL or "" means the best one this
// system has. NULL comes back for a name that this build does not have.
extern const struct engine_operations epoll_engine;  // Linux
extern const struct engine_operations kqueue_engine; // macOS, the BSDs
extern const struct engine_operations fake_engine;   // real readiness, virtual time

const struct engine_operations *engine_find(const char *name);

// The backends of this build one by one, the best first; NULL behind the last one.
const struct engine_operations *engine_at(size_t index);

// The system's monotonic clock; what now_ns is in every backend but the fake one.
uint64_t engine_monotonic_ns(void);

// For tests: moves the virtual time of a fake engine forward.
void fake_engine_advance(struct engine *engine, uint64_t nanoseconds);

#endif
