// event.h: kqueue's interface on Linux, for the tests. See kqueue_shim.c.
//
// Names, types and numbers are FreeBSD's, so that what compiles here compiles there. What
// no engine of ours uses is left out: a use of it is an error of the compiler and not a
// difference between systems that shows up later.

#ifndef CORONET_TESTS_KQSHIM_SYS_EVENT_H
#define CORONET_TESTS_KQSHIM_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

struct kevent {
    uintptr_t ident; // a descriptor, or any number with EVFILT_USER
    short filter;    // EVFILT_*
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    void *udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-11)
#define EVFILT_EXCEPT (-15)

// What a change does.
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_CLEAR 0x0020   // by edges
#define EV_RECEIPT 0x0040 // answer with an EV_ERROR entry in any case

// What an entry says.
#define EV_ERROR 0x4000 // data is an errno, or 0
#define EV_EOF 0x8000   // this direction is over; fflags is the socket's error

#define NOTE_OOB 0x00000002u     // EVFILT_EXCEPT: urgent data
#define NOTE_TRIGGER 0x01000000u // EVFILT_USER: make it happen

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_)                   \
    (*(event) = (struct kevent){                                                         \
         .ident = (uintptr_t)(ident_),                                                   \
         .filter = (short)(filter_),                                                     \
         .flags = (unsigned short)(flags_),                                              \
         .fflags = (fflags_),                                                            \
         .data = (data_),                                                                \
         .udata = (udata_),                                                              \
     })

int kqueue(void);

int kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#endif
