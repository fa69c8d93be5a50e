"""What a server can be told: its settings, each checked alone, then all of them together."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._sockets import HANDSHAKE_TIMEOUT
from ._settings import Setting, anything, one_of, optional, path, seconds, some_address, whole
from ._strategies import METHODS

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from _typeshed import StrOrBytesPath

    from .._binding import Address
    from .._coronet import _Callbacks, sk_conn
    from ._systemd import SystemdSockets
    from ._tls import CertificateFiles

    ServerAddress: TypeAlias = Address | int | socket.socket | SystemdSockets
    AnyHandler: TypeAlias = (
        Callable[[sk_conn, Any], object] | _Callbacks | Callable[[], _Callbacks] | str
    )
    ServerTLS: TypeAlias = (
        ssl.SSLContext | CertificateFiles | tuple[StrOrBytesPath, StrOrBytesPath] | None
    )

__all__ = ["Configuration"]

StrategyName: TypeAlias = Literal["coroutine", "callback", "threadpool"]


class Configuration:
    """The settings of a `Server`, which has what they mean."""

    address: "Setting[ServerAddress | list[Any]]" = Setting(anything)
    handler: "Setting[AnyHandler]" = Setting(anything)
    tls: "Setting[ServerTLS]" = Setting(anything)
    strategy: Setting[str] = Setting(one_of("coroutine", "callback", "threadpool"))
    backlog: Setting[int] = Setting(whole(1))
    delay: Setting[float] = Setting(seconds)
    poolsize_min: Setting[int] = Setting(whole(0))
    poolsize_max: Setting[int] = Setting(whole(1))
    owner: Setting[Any] = Setting(anything)
    max_connections: Setting[int | None] = Setting(optional(whole(1)))
    max_per_address: Setting[int | None] = Setting(optional(whole(1)))
    handshake_timeout: Setting[float | None] = Setting(optional(seconds))
    idle_timeout: Setting[float | None] = Setting(optional(seconds))
    total_timeout: Setting[float | None] = Setting(optional(seconds))
    drain_timeout: Setting[float | None] = Setting(optional(seconds))
    reuse_port: Setting[bool] = Setting(lambda name, value: bool(value))
    metrics: "Setting[ServerAddress | list[Any] | None]" = Setting(optional(some_address))
    processes: Setting[int | None] = Setting(optional(whole(1)))
    sharing: Setting[str | None] = Setting(optional(one_of("reuse_port", "exclusive")))
    handover: Setting[str | None] = Setting(optional(path))

    def __init__(
        self,
        address: "ServerAddress | list[Any]",
        handler: "AnyHandler",
        *,
        strategy: StrategyName = "coroutine",
        tls: "ServerTLS" = None,
        backlog: int = 1024,
        delay: float = 1.0,
        poolsize_min: int = 5,
        poolsize_max: int = 50,
        owner: Any = None,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
        drain_timeout: float | None = 30.0,
        reuse_port: bool = False,
        metrics: "ServerAddress | list[Any] | None" = None,
        processes: int | None = None,
        sharing: Literal["reuse_port", "exclusive"] | None = None,
        handover: str | None = None,
    ) -> None:
        self.strategy = strategy
        self.backlog = backlog
        self.delay = delay
        self.poolsize_min = poolsize_min
        self.poolsize_max = poolsize_max
        self.owner = owner
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self.handshake_timeout = handshake_timeout
        self.idle_timeout = idle_timeout
        self.total_timeout = total_timeout
        self.drain_timeout = drain_timeout
        self.reuse_port = reuse_port
        self.metrics = metrics
        self.processes = processes
        self.sharing = sharing
        self.handover = handover
        self.address = address
        self.handler = handler
        self.tls = tls
        self._set_up()

    def _set_up(self) -> None:
        """Have all that is no setting ready; called when the settings are."""

    @property
    def is_listening(self) -> bool:
        """True while the settings are fixed."""
        return False  # not reached: a Server knows better

    def _check(self) -> None:
        """Refuse settings that do not go together. Raises ValueError or TypeError."""
        if self.poolsize_min > self.poolsize_max:
            raise ValueError(
                f"poolsize_min, {self.poolsize_min}, is more than poolsize_max, {self.poolsize_max}"
            )
        if self.processes is None and not (self.sharing is None and self.handover is None):
            raise ValueError("sharing and handover are for servers with processes")
        if not isinstance(self.handler, str):
            self._check_handler()

    def _check_handler(self) -> None:
        is_protocol = hasattr(self.handler, "on_data")
        if not callable(self.handler) and not is_protocol:
            raise TypeError(f"the handler must be callable, not {type(self.handler).__name__}")
        if is_protocol and self.strategy != "callback":
            raise TypeError(f'a Protocol needs strategy="callback", not {self.strategy!r}')
        missing = [name for name in METHODS if is_protocol and not hasattr(self.handler, name)]
        if missing:
            raise TypeError(f"the handler has on_data(), but no {missing[0]}()")
