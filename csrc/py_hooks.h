// py_hooks.h: functions that are called before and after each look at the engine.

#ifndef CORONET_PY_HOOKS_H
#define CORONET_PY_HOOKS_H

#include "py_hub.h"

static inline bool
hub_has_hooks(const HubObject *hub)
{
    return !list_is_empty(&hub->hooks);
}

// Calls prepare() of each hook; [timeout_ns] is how long the wait will be at most, -1: no
// limit. What they raise is reported.
void hooks_prepare(HubObject *hub, int64_t timeout_ns);

// Calls check() of each hook.
void hooks_check(HubObject *hub);

// Methods of the Hub type.
extern PyMethodDef hub_hook_methods[];

#endif
