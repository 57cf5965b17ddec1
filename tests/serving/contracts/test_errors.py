import pytest

from pneumo.serving.contracts.errors import CheckFailedError, ImageError, InputError, MachineError, PneumoError
from pneumo.serving.model.bundle import BundleError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailedError("no"), 1),
        (InputError("wrong"), 2),
        (BundleError("changed"), 2),
        (ImageError("unreadable", "damaged"), 2),
        (MachineError("missing"), 3),
    ],
)
def test_every_error_that_a_user_meets_has_the_exit_code_of_its_kind(error, code):
    assert isinstance(error, PneumoError)
    assert error.exit_code == code
