import re

import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings
from tests.support.paths import ROOT


def test_settings_come_from_the_environment():
    found = Settings.from_environment({"PNEUMO_PORT": "9000", "PNEUMO_MODEL": "challenger", "OTHER": "x"})
    assert (found.port, found.model, found.host) == (9000, "challenger", "127.0.0.1")


def test_what_is_given_goes_before_the_environment():
    found = Settings.from_environment({"PNEUMO_PORT": "9000", "PNEUMO_HOST": "0.0.0.0"}, port=1234, host=None)
    assert (found.port, found.host) == (1234, "0.0.0.0")


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("PNEUMO_LOGURL", "PNEUMO_LOGURL: no such setting; did you mean PNEUMO_LOG_URL?"),
        ("PNEUMO_KEY", "PNEUMO_KEY: no such setting; did you mean PNEUMO_KEYS?"),
        ("PNEUMO_MODEL_DIR", "PNEUMO_MODEL_DIR: no such setting; did you mean PNEUMO_MODELS_DIR?"),
        ("PNEUMO_MAX_REPLICAS", "PNEUMO_MAX_REPLICAS: no such setting; did you mean PNEUMO_RAY_MAX_REPLICAS?"),
        ("PNEUMO_", "PNEUMO_: no such setting"),
    ],
)
def test_a_variable_that_sets_nothing_is_warned_of_with_the_nearest_name(variable, words, caplog):
    Settings.from_environment({variable: "a secret", "PNEUMO_PORT": "9000", "OTHER": "x"})
    assert [record.getMessage() for record in caplog.records] == [words]


def test_no_variable_that_code_documents_or_deployments_name_is_warned_of(caplog):
    places = [*ROOT.glob("serving/**/*.py"), *ROOT.glob("pipeline/**/*.py"), *ROOT.glob("docs/**/*.md")]
    places += [*(path for path in ROOT.glob("deploy/**/*") if path.is_file()), ROOT / "Dockerfile", ROOT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in places)
    named = set(re.findall(r"(?<!_)PNEUMO_[A-Z][A-Z_]*[A-Z]\b(?!_)", text)) - {"PNEUMO_NAME"}  # which stands for all
    assert {"PNEUMO_LOG_URL", "PNEUMO_CACHE"} <= named
    Settings.warn_of_unknown_variables(dict.fromkeys(named, ""))
    assert [record.getMessage() for record in caplog.records] == []


def test_an_empty_variable_counts_as_not_set():
    assert Settings.from_environment({"PNEUMO_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("environment", "given", "place"),
    [
        ({"PNEUMO_PORT": "many"}, {}, "PNEUMO_PORT='many'"),
        ({"PNEUMO_MAX_BYTES": "0"}, {}, "PNEUMO_MAX_BYTES='0'"),
        ({}, {"port": 70000}, "--port=70000"),
        ({}, {"challenger": "10"}, "--challenger='10': write 10%$"),
        ({}, {"challenger": "1"}, "--challenger='1': write 1% or 100%$"),
        ({"PNEUMO_CHALLENGER": "a tenth"}, {}, "PNEUMO_CHALLENGER='a tenth': must be a percentage, such as 10%$"),
    ],
)
def test_a_wrong_value_is_named_by_where_it_came_from(environment, given, place):
    with pytest.raises(InputError, match=place):
        Settings.from_environment(environment, **given)


def test_who_may_ask_comes_from_the_environment():
    found = Settings.from_environment(
        {
            "PNEUMO_AUTH": "on",
            "PNEUMO_KEYS": "/run/secrets/keys.yaml",
            "PNEUMO_RATE": "600/minute",
            "PNEUMO_CORS_ORIGINS": "https://Ward.example, http://localhost:3000,http://[::1]:3000",
            "PNEUMO_METRICS_PUBLIC": "true",
        }
    )
    assert (found.auth, str(found.keys), found.metrics_public) == ("on", "/run/secrets/keys.yaml", True)
    assert found.rate == Rate(600, 60)
    assert found.cors_origins == ("https://ward.example", "http://localhost:3000", "http://[::1]:3000")


def test_by_default_nobody_is_limited_and_no_other_page_may_ask():
    assert (Settings().rate, Settings().cors_origins, Settings().metrics_public) == (None, (), False)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PNEUMO_AUTH", "maybe", "'auto', 'on' or 'off'"),
        ("PNEUMO_RATE", "600/min", "must be a whole number and one of second, minute, hour, day, such as 600/minute"),
        ("PNEUMO_CORS_ORIGINS", "https://ward.example/", "without a path"),
        ("PNEUMO_CORS_ORIGINS", "ward.example", "such as https://ward.example:8443"),
        ("PNEUMO_CORS_ORIGINS", "https://a.example,,https://b.example", "with commas between"),
    ],
)
def test_what_is_wrong_about_who_may_ask_is_said(variable, value, says):
    with pytest.raises(InputError) as caught:
        Settings.from_environment({variable: value})
    assert str(caught.value).startswith(f"{variable}={value!r}: ")
    assert says in str(caught.value)


def test_the_drift_job_is_set_up_by_the_environment_and_off_by_default():
    assert (Settings().drift_minutes, Settings().drift_rows, Settings().drift_window) == (None, None, 500)
    found = Settings.from_environment(
        {
            "PNEUMO_DRIFT_MINUTES": "30",
            "PNEUMO_DRIFT_ROWS": "200",
            "PNEUMO_DRIFT_WINDOW": "100",
            "PNEUMO_PUBLIC_URL": "https://ward.example/pneumo/",
        }
    )
    assert (found.drift_minutes, found.drift_rows, found.drift_window) == (30, 200, 100)
    assert found.public_url == "https://ward.example/pneumo"


@pytest.mark.parametrize(
    "address", ["ftp://x/very-secret", "very-secret", "http://[very-secret", "https:///very-secret"]
)
def test_the_address_of_a_webhook_is_never_shown(address):
    with pytest.raises(InputError, match=r"^PNEUMO_DRIFT_WEBHOOK=\*\*\*: ") as caught:
        Settings.from_environment({"PNEUMO_DRIFT_WEBHOOK": address})
    assert "secret" not in str(caught.value)
    found = Settings.from_environment({"PNEUMO_DRIFT_WEBHOOK": "https://hooks.example/very-secret"})
    assert "secret" not in repr(found)
