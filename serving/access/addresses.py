"""Client addresses: loopback checks, and the network that a rate limit counts for."""

import functools
import ipaddress

from starlette.types import Scope

_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; of names, this is sure for `localhost` alone."""
    address = _parse(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, not a name."""
    return _parse(host) is not None


def identify_client(scope: Scope) -> str:
    """Return the address that a rate limit counts for; for IPv6 the /64 network, since one client owns all of it."""
    client = scope.get("client")
    return _network(client[0]) if client else "unknown"


def is_local_request(scope: Scope) -> bool:
    """Return whether a request comes from this machine, and not through a proxy on it."""
    client = scope.get("client")
    if client is None or not is_loopback(client[0]):
        return False
    return not any(name in _FORWARDED for name, _ in scope["headers"])


def is_reachable_remotely(scope: Scope) -> bool:
    """Return whether other machines can reach the address at which a request arrived."""
    server = scope.get("server")
    return server is not None and _parse(server[0]) is not None and not is_loopback(server[0])


@functools.lru_cache(maxsize=1024)
def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; an IPv4 address in IPv6 form becomes IPv4; anything else gives None."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@functools.lru_cache(maxsize=1024)
def _network(host: str) -> str:
    address = _parse(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(address or host)
