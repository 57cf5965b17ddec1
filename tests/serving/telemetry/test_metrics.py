import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import values
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE, OTHER_SITES
from pneumo.serving.telemetry.metrics import MAX_SERIES, SHARED, Metrics
from tests.support.metrics import busy, prediction, read, series
from tests.support.paths import ROOT

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
BASE_UNITS = {"seconds", "bytes", "ratio"}
OTHER_UNITS = r"_(ms|us|milliseconds|microseconds|minutes|hours|kb|mb|kilobytes|megabytes|percent)(_|$)"


def test_a_request_is_counted_by_route_method_and_status():
    metrics = Metrics()
    metrics.count_request("/v1/predict", "POST", 200, 0.03)
    metrics.count_request("/v1/predict", "POST", 200, 0.2)
    metrics.count_request("-", "GET", 404, 0.001)
    found = series(metrics)
    assert found["pneumo_http_requests_total{method=POST,route=/v1/predict,status=200}"] == 2
    assert found["pneumo_http_requests_total{method=GET,route=-,status=404}"] == 1
    assert found["pneumo_http_request_duration_seconds_sum{route=/v1/predict}"] == pytest.approx(0.23)
    assert found["pneumo_http_request_duration_seconds_bucket{le=0.03,route=/v1/predict}"] == 1
    assert found["pneumo_http_request_duration_seconds_bucket{le=0.25,route=/v1/predict}"] == 2


def test_a_refusal_can_be_seen_in_rates_from_the_first_one_on():
    found = series(Metrics())
    for reason in ("wait", "memory", "timeout"):
        assert found[f"pneumo_shed_total{{reason={reason}}}"] == 0
    for reason in get_args(get_type_hints(ImageError.__init__)["reason"]):
        assert found[f"pneumo_image_errors_total{{reason={reason}}}"] == 0


def test_requests_are_in_progress_only_while_they_are_also_when_they_fail():
    metrics = Metrics()
    with metrics.in_progress.track_inprogress(), metrics.in_progress.track_inprogress():
        assert series(metrics)["pneumo_http_requests_in_progress"] == 2
    with pytest.raises(KeyError), metrics.in_progress.track_inprogress():
        raise KeyError
    assert series(metrics)["pneumo_http_requests_in_progress"] == 0


def test_the_work_on_images_is_measured():
    metrics = Metrics()
    metrics.queue.set(7)
    metrics.decoding.observe(0.004)
    metrics.waits.observe(0.2)
    metrics.observe_batch(5, 0.02)
    metrics.image_errors.series("unreadable").inc()
    metrics.shed.series("memory").inc()
    found = series(metrics)
    assert found["pneumo_queue_images"] == 7
    assert found["pneumo_decode_seconds_sum"] == 0.004
    assert found["pneumo_queue_wait_seconds_sum"] == 0.2
    assert found["pneumo_inference_seconds_sum"] == 0.02
    assert (found["pneumo_batch_size_bucket{le=4.0}"], found["pneumo_batch_size_bucket{le=6.0}"]) == (0, 1)
    assert found["pneumo_image_errors_total{reason=unreadable}"] == 1
    assert found["pneumo_shed_total{reason=memory}"] == 1


def test_what_a_model_says_is_counted_by_lane():
    metrics = Metrics()
    metrics.count_predictions(
        "champion",
        [prediction(0.3), prediction(0.8, certainty="uncertain"), prediction(0.82, in_distribution=False)],
    )
    metrics.count_predictions("shadow", [prediction(0.1)])
    metrics.count_predictions("challenger", [])
    metrics.images.series("shadow", "failed").inc(2)
    found = series(metrics)
    assert found["pneumo_images_total{lane=champion,result=predicted}"] == 3
    assert found["pneumo_predictions_total{label=PNEUMONIA,lane=champion}"] == 2
    assert found["pneumo_predictions_total{label=NORMAL,lane=shadow}"] == 1
    assert found["pneumo_uncertain_total{lane=champion}"] == 1
    assert found["pneumo_out_of_distribution_total{lane=champion}"] == 1
    assert found["pneumo_probability_bucket{lane=champion,le=0.8}"] == 2
    assert found["pneumo_images_total{lane=shadow,result=failed}"] == 2
    assert not [name for name in found if "challenger" in name]


def test_probabilities_fall_into_twenty_buckets_from_0_to_1():
    metrics = Metrics()
    metrics.count_predictions("champion", [prediction(0.0), prediction(1.0)])
    found = series(metrics)
    bounds = [re.search(r"le=([^,}]+)", name)[1] for name in found if name.startswith("pneumo_probability_bucket")]
    assert [float(bound) for bound in bounds] == [*(pytest.approx(0.05 * step) for step in range(1, 21)), float("inf")]
    assert found["pneumo_probability_bucket{lane=champion,le=1.0}"] == 2


def test_the_shadow_is_compared_by_label_and_by_the_class_that_differs_most():
    metrics = Metrics()
    metrics.compare_shadow(prediction(0.3), prediction(0.35))
    metrics.compare_shadow(prediction(0.3), prediction(0.6))
    three = {"A": 0.5, "B": 0.4, "C": 0.1}
    metrics.compare_shadow(
        prediction(0.5, label="A", probabilities=three),
        prediction(0.5, label="B", probabilities={"A": 0.4, "B": 0.5, "D": 0.1}),
    )
    found = series(metrics)
    assert found["pneumo_shadow_disagreements_total"] == 2
    assert found["pneumo_shadow_probability_difference_count"] == 3
    assert found["pneumo_shadow_probability_difference_sum"] == pytest.approx(0.05 + 0.3 + 0.1)


def test_the_model_of_a_lane_is_told_and_the_one_before_is_not(bundle):
    metrics = Metrics()
    before = time.time()
    metrics.set_model("champion", bundle.info, bundle.digest)
    metrics.set_model("challenger", bundle.info, "c" * 64)
    metrics.bundle_changed.labels("champion").set(True)
    named = f"digest={bundle.digest},lane=champion,name=tiny,version=1"
    assert series(metrics)[f"pneumo_model_info{{{named}}}"] == 1
    assert series(metrics)["pneumo_bundle_changed{lane=champion}"] == 1
    assert before <= series(metrics)["pneumo_model_loaded_timestamp_seconds{lane=champion}"] <= time.time()

    metrics.set_model("champion", bundle.info.model_copy(update={"version": "2"}), "d" * 64)
    models = [name for name in series(metrics) if name.startswith("pneumo_model_info")]
    assert len(models) == 2
    assert f"pneumo_model_info{{digest={'d' * 64},lane=champion,name=tiny,version=2}}" in models
    assert series(metrics)["pneumo_bundle_changed{lane=champion}"] == 0

    metrics.clear_model("challenger")
    left = [name for name in series(metrics) if name.startswith(("pneumo_model_info", "pneumo_model_loaded"))]
    assert len(left) == 2
    assert not [name for name in left if "challenger" in name]


def test_series_of_a_model_begin_at_zero_so_that_their_first_event_is_seen(bundle):
    metrics = Metrics()
    metrics.set_model("champion", bundle.info, bundle.digest)
    found = series(metrics)
    for name in ("NORMAL", "PNEUMONIA"):
        assert found[f"pneumo_predictions_total{{label={name},lane=champion}}"] == 0
    assert found["pneumo_uncertain_total{lane=champion}"] == 0
    assert found["pneumo_images_total{lane=champion,result=failed}"] == 0
    assert found["pneumo_reloads_total{result=failed}"] == found["pneumo_reloads_total{result=ok}"] == 0


def test_what_is_installed_and_the_process_are_told():
    found = series(Metrics())
    (build,) = [name for name in found if name.startswith("pneumo_build_info")]
    assert re.fullmatch(r"pneumo_build_info\{onnxruntime=\d[^,]+,python=3\.[^,]+,version=[^,}]+\}", build)
    assert found["process_resident_memory_bytes"] > 1e6
    assert {"process_cpu_seconds_total", "process_start_time_seconds", "process_open_fds"} <= found.keys()


def test_two_applications_in_a_process_count_apart():
    first, second = Metrics(), Metrics()
    first.queue.set(5)
    assert (series(first)["pneumo_queue_images"], series(second)["pneumo_queue_images"]) == (5, 0)


@given(st.lists(st.text(min_size=1), max_size=30))
def test_methods_that_clients_make_up_are_one_series(methods):
    metrics = Metrics()
    for method in methods:
        metrics.count_request("-", f"x{method}", 404, 0.1)
    assert sum(name.startswith("pneumo_http_requests_total") for name in series(metrics)) <= 1


def test_no_mistake_elsewhere_makes_series_without_end():
    metrics = Metrics()
    for number in range(MAX_SERIES + 200):
        metrics.count_request(f"/patients/{number}", "GET", 404, 0.1)
    found = {name: value for name, value in series(metrics).items() if name.startswith("pneumo_http_requests_total")}
    assert len(found) == MAX_SERIES + 1
    assert sum(found.values()) == MAX_SERIES + 200
    assert found["pneumo_http_requests_total{method=_OTHER,route=_OTHER,status=_OTHER}"] == 200


def test_threads_lose_no_count(bundle):
    metrics = Metrics()

    def count() -> None:
        for _ in range(500):
            metrics.count_predictions("champion", [prediction()])
            metrics.count_request("/v1/predict", "POST", 200, 0.01)

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = series(metrics)
    assert found["pneumo_images_total{lane=champion,result=predicted}"] == 3000
    assert found["pneumo_http_requests_total{method=POST,route=/v1/predict,status=200}"] == 3000
    assert found["pneumo_http_request_duration_seconds_count{route=/v1/predict}"] == 3000


def test_sites_are_told_apart_up_to_a_number_and_keep_the_worst_verdict():
    metrics = Metrics()
    for number in range(MOST_SITES + 5):
        for image in range(3):
            metrics.count_site(f"ward-{number}" if number else None, uncertain=image == 0)
    found = series(metrics)
    assert found[f"pneumo_site_images_total{{site={NO_SITE}}}"] == found["pneumo_site_images_total{site=ward-20}"] == 3
    assert found[f"pneumo_site_images_total{{site={OTHER_SITES}}}"] == 4 * 3
    assert found[f"pneumo_site_uncertain_total{{site={OTHER_SITES}}}"] == 4
    assert len([name for name in found if name.startswith("pneumo_site_images_total{")]) == MOST_SITES + 2
    sites = {f"ward-{number}": "ok" for number in range(MOST_SITES + 3)}
    metrics.show_drift("drift", 0.0, {}, sites | {f"ward-{MOST_SITES + 1}": "drift"})
    found = series(metrics)
    assert found["pneumo_drift_site_verdict{site=ward-3}"] == 0
    assert found[f"pneumo_drift_site_verdict{{site={OTHER_SITES}}}"] == 2
    metrics.show_drift("ok", 0.0, {}, {"ward-3": "warning"})
    found = series(metrics)
    assert [found[f"pneumo_drift_site_verdict{{site={site}}}"] for site in ("ward-3", "ward-4", "_OTHER")] == [
        1,
        -1,
        -1,
    ]


@pytest.mark.parametrize(("accept", "read_as"), [("", ""), (OPENMETRICS, OPENMETRICS)])
def test_every_class_name_can_be_read_back(bundle, accept, read_as):
    classes = ['quote "x"', "back\\slash", "new\nline", "ümlaut 肺", "{brace},=", " "]
    metrics = Metrics()
    metrics.set_model("champion", bundle.info.model_copy(update={"classes": classes}), bundle.digest)
    families = (parse_openmetrics if read_as else parse_text)(metrics.exposition(accept)[0].decode())
    (family,) = [family for family in families if family.name == "pneumo_predictions"]
    assert [sample.labels["label"] for sample in family.samples] == classes


def test_both_formats_say_the_same(bundle):
    metrics = busy(bundle)
    kept = [
        {n: v for n, v in series(metrics, accept).items() if n.startswith("pneumo")} for accept in ("", OPENMETRICS)
    ]
    assert kept[0] == kept[1]
    assert not [name for name in kept[0] if "_created" in name]


def test_names_and_units_are_conventional(bundle):
    for family in parse_text(busy(bundle).exposition()[0].decode()):
        if not family.name.startswith("pneumo_"):
            continue
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(OTHER_UNITS, family.name)
        assert not re.search(r"_(counter|gauge|histogram|total|count|sum|bucket)$", family.name)
        samples = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert samples == {f"{family.name}_total"}
        labels = {name for sample in family.samples for name in sample.labels}
        assert all(re.fullmatch(r"[a-z_]+", name) for name in labels)
        assert ("le" in labels) == (family.type == "histogram")
        assert family.name.endswith("_seconds") or not re.search("duration|wait|decode|inference|time", family.name)
        for unit in BASE_UNITS & set(family.name.split("_")):
            assert family.name.endswith(unit)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_promtool_finds_nothing_to_say(bundle):
    text = busy(bundle).exposition()[0]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_folder_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(SHARED, str(tmp_path / "gone"))
    with pytest.raises(InputError, match=f"{SHARED}=.*gone: no such folder"):
        Metrics()


def test_a_folder_that_is_named_too_late_is_an_error_rather_than_empty_metrics(monkeypatch, tmp_path):
    assert values.ValueClass is values.MutexValue
    monkeypatch.setenv(SHARED, str(tmp_path))
    with pytest.raises(RuntimeError, match="after prometheus_client had been imported"):
        Metrics()


WORKER = """
import sys
from pneumo.serving.telemetry.metrics import Metrics
from tests.support import bundles, metrics as support
info = bundles.make_info()
metrics = Metrics()
metrics.set_model("champion", info.model_copy(update={"version": "0"}), "0" * 64)
metrics.set_model("champion", info, "1" * 64)
for number in range(int(sys.argv[1])):
    metrics.count_request("/v1/predict", "POST", 200, 0.03)
    metrics.count_predictions("champion", [support.prediction()])
metrics.queue.set(int(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    sys.stdout.buffer.write(metrics.exposition(line.strip())[0] + b"end\\n")
    sys.stdout.flush()
"""


class Worker:
    def __init__(self, folder: Path, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(count)],
            cwd=ROOT,
            env=os.environ | {SHARED: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def series(self, accept: str = "") -> dict[str, float]:
        print(accept, file=self.process.stdin, flush=True)
        lines = []
        while (line := self.process.stdout.readline()) != "end\n":
            assert line
            lines.append(line)
        return read("".join(lines), accept)

    def kill(self) -> int:
        self.process.kill()
        self.process.communicate()
        return self.process.pid


def test_any_worker_answers_for_all_and_one_that_died_leaves_its_counts_only(tmp_path):
    forget = (
        "import sys, pneumo.serving.telemetry.metrics; pneumo.serving.telemetry.metrics.forget_worker(int(sys.argv[1]))"
    )
    first, second = Worker(tmp_path, 3), Worker(tmp_path, 4)
    try:
        for accept in ("", OPENMETRICS):
            found = first.series(accept)
            assert found == second.series(accept)
            assert found["pneumo_http_requests_total{method=POST,route=/v1/predict,status=200}"] == 7
            assert found["pneumo_http_request_duration_seconds_count{route=/v1/predict}"] == 7
            assert found["pneumo_predictions_total{label=NORMAL,lane=champion}"] == 7
            assert found["pneumo_queue_images"] == 7
            models = [name for name in found if name.startswith("pneumo_model_info")]
            assert models == [f"pneumo_model_info{{digest={'1' * 64},lane=champion,name=tiny,version=1}}"]
            assert not [name for name in found if name.startswith(("process_", "python_"))]
        pid = second.kill()
        subprocess.run([sys.executable, "-c", forget, str(pid)], cwd=ROOT, env=os.environ | {SHARED: str(tmp_path)})
        found = first.series()
        assert found["pneumo_queue_images"] == 3
        assert found["pneumo_http_requests_total{method=POST,route=/v1/predict,status=200}"] == 7
    finally:
        first.kill()
        second.kill()
