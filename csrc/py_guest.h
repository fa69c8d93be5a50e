// py_guest.h: event loops of others, asyncio's for one, that live in a hub.
//
// A guest brings a function, its step. The hub calls it as a callback when one of the guest's
// descriptors is ready, when the time has come that the guest asked for, or when somebody
// wakes the guest. What there is to do then is the guest's own affair. It is on hub->guests,
// which owns it, from its making to close().

#ifndef CORONET_PY_GUEST_H
#define CORONET_PY_GUEST_H

#include "py_hub.h"

// True if the watched descriptor is a guest's.
bool guest_owns(const struct ready_target *target);

// The hub is about to close: tells its guests, who may go on until they have closed.
void guests_announce_close(HubObject *hub);

// Ends all guests of the hub.
void guests_end_all(HubObject *hub);

// In a forked child: the guests are the parent's. Nothing is released.
void guests_abandon(HubObject *hub);

#endif
