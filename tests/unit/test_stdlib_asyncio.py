"""CPython's own asyncio tests against the loop over the hub."""

from __future__ import annotations

from typing import Any

import pytest
from stdlib_case import on_threads

from pycoronet.aio import EventLoop

buffered: Any = on_threads("test_asyncio.test_buffered_proto")
events: Any = on_threads("test_asyncio.test_events")
sendfile: Any = on_threads("test_asyncio.test_sendfile")
server: Any = on_threads("test_asyncio.test_server")
sockets: Any = on_threads("test_asyncio.test_sock_lowlevel")
tls: Any = on_threads("test_asyncio.test_sslproto")
utils: Any = on_threads("test_asyncio.utils")

# What asyncio itself warns of there differs from version to version.
pytestmark = pytest.mark.filterwarnings("ignore")


class OnHub:
    def create_event_loop(self) -> EventLoop:
        return EventLoop()

    new_loop = create_event_loop


class Events(OnHub, events.UnixEventLoopTestsMixin, events.SubprocessTestsMixin, utils.TestCase):
    test_internal_fds = None  # the pipe to itself, which the hub makes needless
    test_run_in_executor_cancel = None  # waits in real time
    test_timeout_rounding = None

    def test_add_signal_handler(self) -> None:
        # It expects Python's own SIGINT handler after it, and the hub has its own.
        with pytest.MonkeyPatch.context() as patch:
            import signal

            patch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
            super().test_add_signal_handler()


class Sockets(OnHub, sockets.BaseSockTestsMixin, utils.TestCase):
    pass


class Servers(OnHub, server.SelectorStartServerTests):
    pass


class BufferedProtocols(OnHub, buffered.BufferedProtocolSelectorTests):
    pass


class StartTLS(OnHub, tls.SelectorStartTLSTests):
    # These wait in real time, or send megabytes.
    test_create_connection_memory_leak = None
    test_create_connection_ssl_slow_handshake = None
    test_handshake_timeout = None
    test_start_tls_client_buf_proto_1 = None
    test_start_tls_client_reg_proto_1 = None
    test_start_tls_slow_client_cancel = None


class Sendfile(OnHub, sendfile.SendfileTestsBase, utils.TestCase):
    pass
