"""What docs/sweep.md shows is a space that works, and what it lists is what there is."""

import re

import yaml

from pneumo.pipeline.config import json_schema, schema
from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep import space, sweep_settings
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")


def listed(row: str) -> set[str]:
    """What stands in code in a row of a table."""
    (line,) = re.findall(rf"^\| `{row}` \|(.*)$", PAGE, flags=re.MULTILINE)
    return set(re.findall(r"`(\w+)`", line))


def test_the_space_on_the_page_fits_the_shipped_config() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    shipped = yaml.safe_load((ROOT / "ludwig_configs" / "efficientnet_lite0.yaml").read_text(encoding="utf-8"))

    searched = space.read_space(
        parse_document(yaml.safe_dump({**shipped, **yaml.safe_load(shown)}), "page.yaml"), "page"
    )
    searched.check()

    assert sweep_settings.read_settings(searched).trials == 20


def test_the_page_lists_every_search_and_every_scheduler() -> None:
    assert listed("search_alg") == set(schema.SEARCHES) - {"random"}
    assert listed("scheduler") == set(json_schema.SCHEDULERS)
    assert listed("space") <= set(json_schema.list_spaces()) | {"q"}
