import pytest

from serving.errors import InputError
from serving.settings import Settings


def test_settings_come_from_the_environment():
    found = Settings.from_environment({"PNEUMO_PORT": "9000", "PNEUMO_MODEL": "challenger", "OTHER": "x"})
    assert (found.port, found.model, found.host) == (9000, "challenger", "127.0.0.1")


def test_what_is_given_goes_before_the_environment():
    found = Settings.from_environment({"PNEUMO_PORT": "9000", "PNEUMO_HOST": "0.0.0.0"}, port=1234, host=None)
    assert (found.port, found.host) == (1234, "0.0.0.0")


def test_an_empty_variable_counts_as_not_set():
    assert Settings.from_environment({"PNEUMO_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("environment", "given", "place"),
    [
        ({"PNEUMO_PORT": "many"}, {}, "PNEUMO_PORT='many'"),
        ({"PNEUMO_MAX_BYTES": "0"}, {}, "PNEUMO_MAX_BYTES='0'"),
        ({}, {"port": 70000}, "--port=70000"),
    ],
)
def test_a_wrong_value_is_named_by_where_it_came_from(environment, given, place):
    with pytest.raises(InputError, match=place):
        Settings.from_environment(environment, **given)
