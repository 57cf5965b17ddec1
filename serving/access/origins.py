"""Checks of the name in `Host` and of the page that sent a request, for requests that need no key in a header.

Any web page can make a browser send a request to this machine. A page whose own name is pointed at this machine (DNS
rebinding) can even read the answer. Browsers tell both: `Host` holds that name, and `Sec-Fetch-Site` and `Origin` the
page (https://www.w3.org/TR/fetch-metadata/, RFC 6454). Other clients send neither of the latter two.
"""

import re
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from pneumo.serving.access import addresses
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+?)\.?(?::[0-9]{1,5})?")
_PRIVATE = (".local", ".internal", ".home.arpa")
"""Domains that no public name server answers for (RFC 6762, RFC 8375, ICANN 2024), so that nobody else owns a name."""


class OriginPolicy:
    """The names that the service answers to, and the pages that may send requests to it."""

    def __init__(self, settings: Settings) -> None:
        public = urlsplit(settings.public_url or "http://localhost")
        self._pages = frozenset({*settings.cors_origins, f"{public.scheme}://{public.netloc}".lower()})
        self._names = frozenset({*settings.hosts, public.hostname})
        self._domains = tuple(name[1:] for name in settings.hosts if name.startswith("*."))
        self._machine = socket.gethostname().lower()
        self._is_remote = not addresses.is_loopback(settings.host)

    def check_host(self, scope: Scope) -> None:
        """Raise a `ProblemError` if the name in `Host` may be another site's."""
        if not self.has_own_host(scope):
            raise ProblemError(
                "wrong-host",
                "this service does not answer to the name in the Host header; use its address, or its operator "
                "must add the name to PNEUMO_HOSTS",
            )

    def has_own_host(self, scope: Scope) -> bool:
        """Return whether the name in `Host` is the service's own, or missing.

        Own names are `localhost`, loopback addresses, the address at which the request arrived, and named hosts. If
        other machines can reach the service, also every address, since no name server is asked for it, this machine's
        name, and names that are unknown to public name servers.
        """
        return all(self._is_own(host.lower(), scope) for host in Headers(scope=scope).getlist("host"))

    def _is_own(self, host: str, scope: Scope) -> bool:
        match = _HOST.fullmatch(host)
        if match is None or "*" in self._names:
            return match is not None
        name = match[1].strip("[]")
        arrived = (scope.get("server") or ("",))[0].lower()
        if addresses.is_loopback(name) or name in self._names or name == arrived:
            return True
        if name.endswith((".localhost", *self._domains)):
            return True
        if not (self._is_remote or addresses.is_reachable_remotely(scope)):
            return False
        return addresses.is_address(name) or name == self._machine or "." not in name or name.endswith(_PRIVATE)

    def check_page(self, scope: Scope, *, proof: bool = False) -> None:
        """Raise a `ProblemError` if a browser sent the request for another site's page.

        A link on another page may open a page of the service; it cannot read it.

        Args:
            scope: The request.
            proof: Whether a request that changes something must say that it comes from the service's own page.
        """
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        changes = scope["method"] not in SAFE_METHODS
        if origin is not None and self._is_own_page(origin.lower(), headers, scope):
            return
        if site == "same-origin" or (site == "none" and not (changes and proof)):
            return
        if site is None and origin is None and not (changes and proof):
            return
        opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (None, "document")
        if not changes and origin is None and opens:
            return
        raise ProblemError(
            "cross-site",
            "a page of another site sent this request; open the service's own page, or its operator must add that "
            "site to PNEUMO_CORS_ORIGINS (PNEUMO_PUBLIC_URL if it is the service's own address)",
        )

    def _is_own_page(self, origin: str, headers: Headers, scope: Scope) -> bool:
        if origin in self._pages or "*" in self._pages:
            return True
        scheme, _, host = origin.partition("://")
        return host == headers.get("host", "").lower() and (scheme == "https" or scope.get("scheme") != "https")
