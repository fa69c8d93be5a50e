// py_timer.h: functions called after a time: Hub.call_later and Hub.call_every.

#ifndef CORONET_PY_TIMER_H
#define CORONET_PY_TIMER_H

#include "py_hub.h"

extern const char Hub_call_later_doc[];
extern const char Hub_call_every_doc[];

// Methods of the Hub type.
PyObject *Hub_call_later(HubObject *hub, PyObject *const *arguments, Py_ssize_t count);
PyObject *Hub_call_every(HubObject *hub, PyObject *const *arguments, Py_ssize_t count);

#endif
