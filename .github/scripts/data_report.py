"""Markdown about a changed data set: its audit and a smoke training on it. Standard library only.

    python .github/scripts/data_report.py check.json metrics.json

The files hold what `pneumo data check --json` prints and what a run keeps of its metrics.
"""

import json
import sys
from pathlib import Path
from typing import Any

SHOWN = ("auroc", "sensitivity", "specificity")


def main() -> None:
    """Print the report."""
    check, metrics = (_read(Path(name)) for name in sys.argv[1:3])
    print("\n".join(["## The data set of this change", "", *_audit(check), "", *_training(metrics), ""]))
    print("Research software, not a medical device. The training is short: it shows that it works, not how well.")


def _read(path: Path) -> dict[str, Any]:
    """The document of a command, empty where it printed none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def _audit(check: dict[str, Any]) -> list[str]:
    if not check:
        return ["**The audit did not end**: see the log."]
    classes = sorted({name for counts in check["counts"].values() for name in counts})
    head = "**No defect.**" if check["passed"] else "**The audit found defects.**"
    lines = [f"{head} {check['images']} images.", "", f"| split | {' | '.join(classes)} | patients |"]
    lines.append("| --- |" + " ---: |" * (len(classes) + 1))
    for split, counts in check["counts"].items():
        cells = [str(counts.get(name, 0)) for name in classes]
        lines.append(f"| {split} | {' | '.join(cells)} | {check['patients'].get(split, '')} |")
    findings = [each for each in check["findings"] if each["severity"] != "info"]
    return [*lines, "", *(f"- {each['severity']}: {_plain(each['summary'])}" for each in findings)]


def _training(metrics: dict[str, Any]) -> list[str]:
    if not metrics:
        return ["**The smoke training did not end**: see the log."]
    lines = ["`ludwig_configs/smoke.yaml`, 95 % intervals:", "", f"| split | {' | '.join(SHOWN)} |"]
    lines.append("| --- |" + " --- |" * len(SHOWN))
    for split, measured in metrics["splits"].items():
        lines.append(f"| {split} | {' | '.join(_estimate(measured['metrics'].get(name)) for name in SHOWN)} |")
    return lines


def _estimate(found: dict[str, float | None] | None) -> str:
    if not found or found["value"] is None:
        return ""
    if found.get("low") is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _plain(text: str) -> str:
    """A file's name must not become a link, a mention or HTML in a comment."""
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


if __name__ == "__main__":
    main()
