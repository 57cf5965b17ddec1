"""Sessions of browsers: after a sign-in with a key, a signed cookie stands for it.

The cookie is `ID.EXPIRY.SIGNATURE`: the public id of the key, seconds since 1970, and an HMAC-SHA256 under the digest
that the key file holds. So every worker and replica with the same key file accepts it, nothing is stored, and it ends
with its key. Whoever can read the key file can sign a session.
"""

import hashlib
import hmac
import re
from datetime import datetime

from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from pneumo.serving.access.api_keys import Key, KeyRing

COOKIE = "pneumo-session"
LIFETIME_S = 12 * 3600
"""Seconds from sign-in to the end of a session."""

_SESSION = re.compile(r"([0-9a-f]{16})\.([0-9]{10,12})\.([0-9a-f]{64})")


def read_session(scope: Scope, keys: KeyRing, now: datetime) -> Key | None:
    """Return the key that signed in, or None if the request holds no cookie of a session that lasts."""
    cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    match = _SESSION.fullmatch(cookie_parser("; ".join(cookies)).get(COOKIE, ""))
    key = keys.find_id(match[1]) if match else None
    if match is None or key is None or not hmac.compare_digest(_sign(key, match[2]), match[3]):
        return None
    return None if key.is_expired(now) or now.timestamp() >= int(match[2]) else key


def start_session(response: Response, scope: Scope, key: Key, now: datetime) -> None:
    """Set the cookie of a new session of a key."""
    expires = str(int(now.timestamp()) + LIFETIME_S)
    _set_cookie(response, scope, f"{key.id}.{expires}.{_sign(key, expires)}", LIFETIME_S)


def end_session(response: Response, scope: Scope) -> None:
    """Remove the cookie of a session."""
    _set_cookie(response, scope, "", 0)


def _set_cookie(response: Response, scope: Scope, value: str, seconds: int) -> None:
    # A proxy may have taken TLS off; then only the browser's own word, the origin of its page, tells.
    origin = dict(scope["headers"]).get(b"origin", b"")
    response.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        path=scope.get("root_path") or "/",
        secure=scope.get("scheme") == "https" or origin.startswith(b"https:"),
        httponly=True,
        samesite="strict",
    )


def _sign(key: Key, expires: str) -> str:
    message = f"pneumo session {key.id} {expires}".encode()
    return hmac.new(bytes.fromhex(key.sha256), message, hashlib.sha256).hexdigest()
