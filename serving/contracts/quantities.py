"""Counts, durations and suggestions in words, for messages and pages."""

import difflib
import math
from collections.abc import Sequence


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 file` or `5,216 files`; `plural` is for nouns that need more than s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def format_duration(seconds: float | None) -> str:
    """Return a readable text of a time, or a dash: `9.4 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def suggest_name(word: str, names: Sequence[str], shown: Sequence[str] = ()) -> str:
    """Return the name that a wrong word probably means, or else the names to show, by default all."""
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(shown or names)}"
