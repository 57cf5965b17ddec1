import pytest

from pneumo.serving.contracts.setting_types import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [("600/minute", Rate(600, 60)), ("1/second", Rate(1, 1)), ("7/hour", Rate(7, 3600)), ("2/day", Rate(2, 86400))],
)
def test_a_rate_is_read(text, rate):
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "600", "0/minute", "-1/minute", "1.5/minute", "600/min", "600 / minute", "600/Minute", "1/minute\n"]
)
def test_what_is_not_quite_a_rate_is_refused(text):
    with pytest.raises(ValueError, match="such as 600/minute"):
        Rate.parse(text)
