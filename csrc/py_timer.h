// py_timer.h: functions called after a time: Hub.call_later and Hub.call_every.

#ifndef CORONET_PY_TIMER_H
#define CORONET_PY_TIMER_H

#include "py_hub.h"

// Seconds that are a finite number and not negative, to nanoseconds; at most a year. 0, or -1
// with a TypeError or ValueError.
int convert_delay(PyObject *seconds, uint64_t *delay_ns);

// Methods of the Hub type.
extern PyMethodDef hub_timer_methods[];
PyObject *Hub_call_later(HubObject *hub, PyObject *const *arguments, Py_ssize_t count);

#endif
