"""Where the site of an image is read from, and which names it may have."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.contracts.sites import DEVICE, SiteSource

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+()-]{0,99}")
"""What a spreadsheet, a page, a log line and a label of a metric can hold without a change of meaning."""


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        ("key", "key", ("",)),
        ("header:X-Site", "header", ("X-Site",)),
        ("dicom:Manufacturer,ViewPosition", "dicom", ("Manufacturer", "ViewPosition")),
    ],
)
def test_a_source_is_read_from_a_setting(text, kind, names):
    found = Settings.from_environment({"PNEUMO_LOG_SITE": text}).log_site
    assert (found.kind, found.names) == (kind, names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "must be key, header:NAME") for text in ("keys", "key:a", "header:", "header:a b", "X-Site")),
        *(
            (text, "must be key, header:NAME")
            for text in ("dicom", "dicom:", "dicom:PatientName", "dicom:Manufacturer,")
        ),
        *((f"header:{name}", "holds a secret") for name in ("Authorization", "x-api-key", "COOKIE")),
    ],
)
def test_another_source_is_refused_with_those_there_are(text, words):
    with pytest.raises(InputError, match=f"PNEUMO_LOG_SITE=.*{words}"):
        Settings.from_environment({"PNEUMO_LOG_SITE": text})


@given(st.text(max_size=120) | st.from_regex(SAFE, fullmatch=True))
def test_a_header_is_a_safe_name_or_refused(value):
    source = SiteSource.parse("header:X-Site")
    try:
        headers = Headers(raw=[(b"x-site", value.encode("latin-1"))])
    except UnicodeEncodeError:
        return
    if not value:
        assert source.read_request(None, headers) is None
    elif SAFE.fullmatch(value):
        assert source.read_request("ward-3", headers) == value
    else:
        with pytest.raises(InputError, match="header X-Site: must be one name of a site"):
            source.read_request(None, headers)


def test_two_headers_are_no_site():
    headers = Headers(raw=[(b"x-site", b"a"), (b"x-site", b"b")])
    with pytest.raises(InputError, match="must be one name"):
        SiteSource.parse("header:x-site").read_request(None, headers)


@given(st.lists(st.text(max_size=60), min_size=3, max_size=3))
def test_a_device_becomes_a_safe_name_or_none(values):
    found = SiteSource("dicom", DEVICE).read_device(values, "ward-3")
    assert found is None or SAFE.fullmatch(found)
    assert (found is None) or any(values)


@pytest.mark.parametrize(
    ("names", "device", "site"),
    [
        (DEVICE, ("Köhler & Söhne", "DX 2", "PA"), "K_hler _ S_hne / DX 2 / PA"),
        (DEVICE, ("", "DX 2", ""), "unknown / DX 2 / unknown"),
        (("ViewPosition",), ("FUJIFILM", "DX 2", "AP"), "AP"),
        (("ViewPosition",), ("FUJIFILM", "DX 2", ""), None),
        (DEVICE, (), None),
        (DEVICE, ("=1+1", "", ""), "1+1 / unknown / unknown"),
    ],
)
def test_a_device_is_named_by_the_chosen_attributes(names, device, site):
    assert SiteSource("dicom", names).read_device(device, None) == site
