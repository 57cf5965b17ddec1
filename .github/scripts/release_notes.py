"""Print a release's section of CHANGELOG.md, after checking that tag and version agree. Standard library only.

python .github/scripts/release_notes.py v1.2.3
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print the section, or exit with what does not agree."""
    tag = sys.argv[1]
    version = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"tag {tag}: pyproject.toml says version {version}")
    changelog = Path("CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)}\b.*\n((?:(?!## ).*\n)*)", changelog, re.MULTILINE)
    if section is None or not section[1].strip():
        sys.exit(f"CHANGELOG.md: no lines under a heading '## {version}'")
    print(section[1].strip())


if __name__ == "__main__":
    main()
