"""Recognising clients by API key or by the session of a browser."""

import base64
import logging
from datetime import UTC, datetime

from starlette.types import Scope

from pneumo.serving.access import addresses
from pneumo.serving.access.api_keys import Key, KeyRing, matches_key
from pneumo.serving.access.rate_limits import RateDecision, RateLimiter
from pneumo.serving.access.sessions import read_session
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings

WRONG_KEYS = Rate(20, 60)
"""Wrong keys that an address may try."""

_log = logging.getLogger("pneumo.service")


def needs_keys(settings: Settings) -> bool:
    """Return whether requests need a key: by default only if other machines can reach the service."""
    return settings.auth == "on" or (settings.auth == "auto" and not addresses.is_loopback(settings.host))


def open_keys(settings: Settings) -> KeyRing | None:
    """Return the valid API keys, or None if none is needed; raise an `InputError` if there is no valid one."""
    if not needs_keys(settings):
        if settings.log_site and settings.log_site.kind == "key":
            raise InputError("PNEUMO_LOG_SITE=key: requests need no key here; set PNEUMO_AUTH=on, or use header:NAME")
        return None
    keys = KeyRing(settings.keys)
    if not keys.list_valid(datetime.now(UTC)):
        place = "PNEUMO_AUTH=on" if settings.auth == "on" else f"--host {settings.host}"
        raise InputError(
            f"{place}: needs an API key, and {settings.keys} holds none that is valid; "
            "`pneumo keys add NAME` makes one, --no-auth serves without keys"
        )
    return keys


class Authenticator:
    """Tells which key a request presents, or signed in with."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._wrong_keys = RateLimiter(WRONG_KEYS)

    def find_session(self, scope: Scope) -> Key | None:
        """Return the key that signed in in this browser, or None."""
        return read_session(scope, self._keys, datetime.now(UTC))

    def check_key(self, scope: Scope, presented: str) -> Key:
        """Return the key that a client presents; raise a `ProblemError` if it is not valid."""
        key = self._keys.find_key(presented)
        # Wrong secrets lock one key for one address: a client with a mistyped key must not lock out others behind the
        # same proxy. Unknown ids are counted together.
        guesser = (addresses.identify_client(scope), key.id if key else "")
        decision = self._wrong_keys.peek(guesser)
        if not decision.allowed:
            raise too_many("too many wrong keys came from this address", decision)
        if not matches_key(key, presented) or key is None:
            self._wrong_keys.take(guesser)
            _log.warning("request %s: wrong key from %s", scope["state"]["request_id"], guesser[0])
            raise ProblemError("unauthorized", "unknown API key; it may have been revoked")
        if key.is_expired(datetime.now(UTC)):
            _log.warning("request %s: the key of %s has expired", scope["state"]["request_id"], key.name)
            raise ProblemError("unauthorized", "this API key has expired; ask for a new one")
        return key


def too_many(reason: str, decision: RateDecision) -> ProblemError:
    """Return the problem of a client that must wait."""
    detail = f"{reason}; try again in {decision.retry_s} s"
    return ProblemError("too-many-requests", detail, retry_after=decision.retry_s)


def read_key(scope: Scope) -> str | None:
    """Return the key that a request presents, None if it presents none, or "" if it cannot be decoded.

    A password counts for GET and HEAD only: browsers also send it when another site's page posts a form.
    """
    headers = dict(scope["headers"])
    if own := headers.get(b"x-api-key"):  # first, since a gateway in front may use `Authorization` for itself
        return str(own.decode("latin-1"))
    scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return str(credentials.strip())
    if scheme.lower() == "basic" and scope["method"] in ("GET", "HEAD"):
        try:
            return base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:  # not base64
            return ""
    return None
