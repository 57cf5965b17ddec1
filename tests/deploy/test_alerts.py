"""Alert rules, dashboard and Cloud Monitoring policies: they work, agree, and name only what the service tells."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pneumo.serving.model.bundle import Bundle
from tests.support.bundles import make_bundle
from tests.support.metrics import busy
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
POLICIES = sorted((DEPLOY / "gcp" / "alerts").glob("*.json"))
SECONDS = {"m": 60, "h": 3600}


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus"
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "pneumo.json").read_text(encoding="utf-8"))
    return found


def expressions() -> list[str]:
    """Of the dashboard's panels."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:pneumo|process|python)_[a-z_]+", re.sub(r'"[^"]*"', "", expression)))


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> set[str]:
    """Names of all series that the service shows."""
    bundle: Bundle = make_bundle(tmp_path_factory.mktemp("alerts") / "tiny")
    families = list(text_string_to_metric_families(busy(bundle).exposition()[0].decode()))
    names = {sample.name for family in families for sample in family.samples}
    return names | {family.name for family in families if family.type == "gauge"}


@needs_promtool
def test_every_alert_fires_where_it_should_and_is_silent_where_it_should_not():
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=RULES.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not():
    cases = yaml.safe_load(RULES.with_name("rules_test.yml").read_text(encoding="utf-8"))["tests"]
    fires = [
        (case["alert_rule_test"][0]["alertname"], bool(case["alert_rule_test"][0]["exp_alerts"])) for case in cases
    ]
    assert sorted(fires) == sorted((rule["alert"], fired) for rule in rules() for fired in (True, False))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_what_to_read_and_names_what_the_service_tells(rule, told):
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    link = re.fullmatch(
        r"https://github\.com/OWNER/NAME/blob/main/(docs/[a-z]+\.md)#alerts", rule["annotations"]["runbook_url"]
    )
    assert link, rule
    assert "\n## Alerts\n" in (ROOT / link[1]).read_text(encoding="utf-8")
    assert named(rule["expr"]) <= told
    assert named(rule["expr"]) or rule["expr"].startswith("up{")


def test_every_panel_asks_for_what_the_service_tells(told):
    assert len(expressions()) > 20
    for expression in expressions():
        assert named(expression), expression
        assert named(expression) <= told, expression
        assert expression.count('{job="$job"') == len(named(expression)), expression


@needs_promtool
def test_every_panel_asks_in_promql(tmp_path):
    asked = [expression.replace("$__rate_interval", "5m") for expression in expressions()]
    group = {
        "name": "panels",
        "rules": [{"record": f"panel:{index}", "expr": each} for index, each in enumerate(asked)],
    }
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run(["promtool", "check", "rules", "panels.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_works_with_any_data_source_and_no_panel_lies_on_another():
    variables = {each["name"]: each["type"] for each in dashboard()["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query"}
    panels = dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_cloud_monitoring_has_the_same_alerts():
    found = {}
    for path in POLICIES:
        policy = json.loads(path.read_text(encoding="utf-8"))
        assert policy.keys() == {
            "displayName",
            "severity",
            "combiner",
            "enabled",
            "userLabels",
            "documentation",
            "conditions",
        }
        (condition,) = policy["conditions"]
        assert condition.keys() == {"displayName", "conditionPrometheusQueryLanguage"}
        promql = condition["conditionPrometheusQueryLanguage"]
        assert promql.keys() == {"query", "duration", "evaluationInterval", "ruleGroup", "alertRule"}
        assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", promql["alertRule"])
        assert promql["alertRule"] == policy["displayName"] == condition["displayName"]
        assert "{{" not in policy["documentation"]["content"]
        assert policy["severity"] == {"page": "CRITICAL", "ticket": "WARNING"}[policy["userLabels"]["severity"]]
        assert (int(promql["duration"][:-1]) % 60, promql["duration"][-1]) == (0, "s")
        found[policy["displayName"]] = (promql["query"], promql["duration"], policy["userLabels"]["severity"])
    wanted = {}
    for rule in rules():
        lasts = rule.get("for", "0m")
        seconds = int(lasts[:-1]) * SECONDS[lasts[-1]]
        wanted[rule["alert"]] = (rule["expr"].strip(), f"{seconds}s", rule["labels"]["severity"])
    assert found == wanted
