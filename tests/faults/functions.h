// functions.h: the names of all functions that the interposer stands in for.

#ifndef FAULTS_FUNCTIONS_H
#define FAULTS_FUNCTIONS_H

// As numbers, CALL_name, and as texts, faults_names.
#define FUNCTIONS(F)                                                                     \
    F(accept4)                                                                           \
    F(bind)                                                                              \
    F(close)                                                                             \
    F(connect)                                                                           \
    F(dup)                                                                               \
    F(epoll_create1)                                                                     \
    F(epoll_ctl)                                                                         \
    F(epoll_wait)                                                                        \
    F(eventfd)                                                                           \
    F(fcntl)                                                                             \
    F(fstat)                                                                             \
    F(getpeername)                                                                       \
    F(getsockname)                                                                       \
    F(getsockopt)                                                                        \
    F(if_nametoindex)                                                                    \
    F(ioctl)                                                                             \
    F(listen)                                                                            \
    F(lseek)                                                                             \
    F(pipe)                                                                              \
    F(pipe2)                                                                             \
    F(poll)                                                                              \
    F(pread)                                                                             \
    F(pthread_getcpuclockid)                                                             \
    F(read)                                                                              \
    F(recv)                                                                              \
    F(recvmsg)                                                                           \
    F(send)                                                                              \
    F(sendfile)                                                                          \
    F(sendmsg)                                                                           \
    F(setsockopt)                                                                        \
    F(shutdown)                                                                          \
    F(sigpending)                                                                        \
    F(sigtimedwait)                                                                      \
    F(socket)                                                                            \
    F(socketpair)                                                                        \
    F(syscall)                                                                           \
    F(unlink)                                                                            \
    F(waitid)                                                                            \
    F(waitpid)                                                                           \
    F(write)                                                                             \
    F(writev)

#endif
