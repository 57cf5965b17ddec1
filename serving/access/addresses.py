"""Where requests come from."""

import functools
import ipaddress

from starlette.types import Scope

_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether an address means this machine alone; a name other than `localhost` may mean anything."""
    if host == "localhost":
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


@functools.lru_cache(maxsize=1024)
def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; None if it is none. An IPv4 address in IPv6 form is an IPv4 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def identify_client(scope: Scope) -> str:
    """Return what a request is counted for: an IPv6 client has a whole /64 network to send from."""
    client = scope.get("client")
    return _network(client[0]) if client else "unknown"


def is_local_request(scope: Scope) -> bool:
    """Return whether a request comes from this machine, and not from a proxy on it."""
    client = scope.get("client")
    if client is None or not is_loopback(client[0]):
        return False
    return not any(name in _FORWARDED for name, _ in scope["headers"])


def is_bound_elsewhere(scope: Scope) -> bool:
    """Whether a request came in at an address that others than this machine can reach."""
    server = scope.get("server")
    return server is not None and parse_address(server[0]) is not None and not is_loopback(server[0])


@functools.lru_cache(maxsize=1024)
def _network(host: str) -> str:
    address = parse_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return host if address is None else str(address)
