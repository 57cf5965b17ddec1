"""Tells people that the verdict changed, by a message such as Slack, Mattermost and Google Chat's bridges take.

The address of a webhook is a secret: nothing here shows it, nor what the other side says, which may repeat it.
"""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import IO, Any

from pneumo.serving.contracts.errors import PneumoError
from pneumo.serving.drift.verdict import DriftCheck, Verdict

ATTEMPTS = 3
TIMEOUT_S = 10.0
"""Seconds that each step of an attempt may take."""
LONGEST_PAUSE_S = 30.0

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_NAMES = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.DRIFT: "drift", Verdict.TOO_FEW: "too few images"}


class WebhookError(PneumoError):
    """The message did not arrive."""


def is_news(verdict: Verdict, before: Verdict | None) -> bool:
    """Whether people should hear of a verdict.

    Args:
        verdict: Of the newest check.
        before: The last one that was more than `too_few`, or None where there is none.
    """
    if verdict is Verdict.TOO_FEW:
        return False
    return verdict is not (before or Verdict.OK)


def build_message(check: DriftCheck, before: Verdict | None, dashboard: str | None) -> dict[str, Any]:
    """Build what is posted: numbers and words about many images together, nothing of any one of them.

    Args:
        check: The newest.
        before: The verdict before.
        dashboard: Address of the service's page, where it is known.
    """
    was = f", was {_NAMES[before]}" if before else ""
    title = f"pneumo drift: {_NAMES[check.verdict]}{was}"
    facts = f"{check.images} images of {check.model}:{check.version}, {check.time:%Y-%m-%d %H:%M} UTC"
    body = f"*{_safe(title)}*\n{_safe(check.summary)}\n{_safe(facts)}"
    if dashboard:
        body += f"\n<{_safe(dashboard)}|Open the dashboard>"
    return {
        "text": f"{_safe(title)}: {_safe(check.summary)}",  # of notifications, and where blocks are not known
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": body[:3000]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": _safe(check.notice)}]},
        ],
    }


def post_message(
    url: str,
    content: dict[str, Any],
    *,
    pause: Callable[[float], object] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> None:
    """Send a message, a second and a third time where the other side may only have been busy.

    Args:
        url: `http://` or `https://`; a redirect is not followed.
        content: The message.
        pause: Waits for seconds.
        chance: In [0, 1), so that many senders do not come again together.

    Raises:
        WebhookError: It did not arrive.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    for attempt in range(1, ATTEMPTS + 1):
        wait = 2.0 ** (attempt - 1) * (0.5 + chance())
        try:
            request = urllib.request.Request(
                url,
                json.dumps(content).encode(),
                {"Content-Type": "application/json", "User-Agent": "pneumo"},
                method="POST",
            )
            with opener.open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            said = f"it answered {error.code}"
            again = error.code in _AGAIN
            wait = max(wait, _asked(error.headers.get("Retry-After")))
            error.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            said, again = type(reason).__name__, isinstance(error, OSError | http.client.HTTPException)
        if attempt == ATTEMPTS or not again:
            break
        pause(wait)
    tried = "once" if attempt == 1 else f"{attempt} times"
    raise WebhookError(f"PNEUMO_DRIFT_WEBHOOK: the message did not arrive, tried {tried} ({said})") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect of a post would lose its body, or take the secret elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _asked(retry_after: str | None) -> float:
    try:
        return min(LONGEST_PAUSE_S, max(0.0, float(retry_after or 0)))
    except ValueError:  # a date, or nonsense
        return 0.0


def _safe(text: str) -> str:
    """Without what Slack reads as a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
