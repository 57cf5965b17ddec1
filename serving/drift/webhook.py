"""Posts a change of the verdict to a webhook, in the format of Slack, Mattermost and Google Chat's bridges.

The URL of a webhook is a secret: nothing here shows it, nor the server's answer, which may repeat it.
"""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from typing import IO

from pneumo.serving.contracts.errors import PneumoError
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import describe_classes

ATTEMPTS = 3
TIMEOUT_S = 10.0
"""Seconds for each step of an attempt."""
LONGEST_PAUSE_S = 30.0

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_NAMES = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.DRIFT: "drift", Verdict.TOO_FEW: "too few images"}


class WebhookError(PneumoError):
    """The message did not arrive."""


def is_news(verdict: Verdict, before: Verdict | None) -> bool:
    """Return True if a verdict is not `too_few` and differs from the last one that was not."""
    return verdict is not Verdict.TOO_FEW and verdict is not (before or Verdict.OK)


def build_message(check: DriftCheck, before: Verdict | None, dashboard: str | None) -> dict[str, str]:
    """Build the message of the newest check, the verdict before it and the URL of the dashboard, in Slack's `mrkdwn`.

    It holds numbers and words about many images together, nothing about a single one.
    """
    was = f", was {_NAMES[before]}" if before else ""
    title = f"pneumo drift: {_NAMES[check.verdict]}{was}"
    facts = f"{check.images} images of {check.model}:{check.version}, {check.time:%Y-%m-%d %H:%M} UTC"
    if shares := describe_classes(check.columns):
        facts += f"; predicted {shares}"
    lines = [f"*{_escape(title)}*: {_escape(check.summary)[:2000]}", f"{_escape(facts)}; {_escape(check.notice)}"]
    return {"text": "\n".join(lines + ([f"<{_escape(dashboard)}|Open the dashboard>"] if dashboard else []))}


def post_message(
    url: str,
    content: Mapping[str, object],
    *,
    pause: Callable[[float], object] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> None:
    """Post a message, with two retries if the server may only be busy; raise a `WebhookError` if it did not arrive.

    A redirect is not followed. `pause` waits for seconds; `chance` is random in [0, 1), so that many senders do not
    retry together.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    headers = {"Content-Type": "application/json", "User-Agent": "pneumo"}
    for attempt in range(1, ATTEMPTS + 1):
        wait = 2.0 ** (attempt - 1) * (0.5 + chance())
        try:
            body = json.dumps(content).encode()
            request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - settings take http and https alone
            with opener.open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            reason, retry = f"it answered {error.code}", error.code in _RETRIED
            wait = max(wait, _read_retry_after(error.headers.get("Retry-After")))
            error.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            reason, retry = type(cause).__name__, not isinstance(error, ValueError)
        if attempt == ATTEMPTS or not retry:
            break
        pause(wait)
    tried = "once" if attempt == 1 else f"{attempt} times"
    raise WebhookError(f"PNEUMO_DRIFT_WEBHOOK: the message did not arrive, tried {tried} ({reason})") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: one of a POST would lose its body, or take the secret elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _read_retry_after(value: str | None) -> float:
    try:
        return min(LONGEST_PAUSE_S, max(0.0, float(value or 0)))
    except ValueError:  # a date, or nonsense
        return 0.0


def _escape(text: str) -> str:
    """Escape what Slack reads as a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
