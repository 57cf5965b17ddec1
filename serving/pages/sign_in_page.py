"""The sign-in page, and the way in or out at the top of other pages."""

from html import escape

from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.pages.assets import read_template, render_head


def render_sign_in_page(back: str, reason: str = "") -> str:
    """Render the page as HTML.

    Args:
        back: The page to lead back to, as the client gave it.
        reason: Why the last key was refused.
    """
    return read_template("sign_in.html").substitute(
        head=render_head("sign in"),
        notice=f"{NOTICE[0].upper()}{NOTICE[1:]}",
        back=escape(back),
        reason=f'<p class="note error" role="alert">{escape(reason[0].upper() + reason[1:])}.</p>' if reason else "",
    )


def render_account(root: str, *, needs_key: bool, signed_in: bool) -> str:
    """Render a link to sign in, or a button to sign out; nothing if the service needs no keys.

    `root` begins the links.
    """
    if not needs_key:
        return ""
    if not signed_in:
        return f'<a href="{root}sign-in">Sign in</a>'
    return f'<form method="post" action="{root}sign-out"><button type="submit">Sign out</button></form>'
