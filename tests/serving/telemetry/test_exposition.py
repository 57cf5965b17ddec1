import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pneumo.serving.telemetry.exposition import Exposition, prefers_openmetrics

PROMETHEUS = (  # as Prometheus 2 sends it
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text ; q=0.9, text/plain; q=0.8", True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
        ("text/plain", False),
        ("text/html,*/*", False),
        ("", False),
    ],
)
def test_openmetrics_is_sent_to_who_prefers_it(accept, preferred):
    assert prefers_openmetrics(accept) is preferred
    _, media_type = Exposition(None).text(accept)
    assert media_type.startswith("application/openmetrics-text" if preferred else "text/plain")


@given(st.text() | st.from_regex(r"application/openmetrics-text(;(version|q|escaping)=[^,]{0,8}){0,3}", fullmatch=True))
def test_whatever_is_accepted_gets_one_of_the_two_formats(accept):
    text, media_type = Exposition(None).text(accept)
    assert media_type in (
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        "text/plain; version=0.0.4; charset=utf-8",
    )
    parse = parse_openmetrics if media_type.startswith("application") else parse_text
    assert "process_cpu_seconds" in {family.name for family in parse(text.decode())}
