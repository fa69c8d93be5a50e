// cpu_clock.h: how long a thread has computed.

#ifndef CORONET_CPU_CLOCK_H
#define CORONET_CPU_CLOCK_H

#include <stdint.h>

// The CPU time in nanoseconds of a thread that is alive, by its pthread_t as a number. 0: this
// system does not tell, which concerns threads other than the calling one.
uint64_t cpu_clock_of_thread(unsigned long thread_id);

#endif
