"""Secrets are found in every spelling that programs are known to print."""

from __future__ import annotations

import base64
import json
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.masking import Mask

SECRET = "s3cr&t/va lue\"x'y\\zü"
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=4, max_size=40)


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(SECRET))[3:-3],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        shlex.quote(SECRET)[1:-1],
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_masked_in_whatever_way_it_is_written(spelling: str) -> None:
    masked = Mask([SECRET]).text(f"before {spelling} after")
    assert masked.startswith("before ***")
    assert masked.endswith(" after")
    assert spelling not in masked


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("after", ["", "x", "yz"])
def test_base64_is_recognised_at_any_offset(before: str, after: str) -> None:
    whole = base64.b64encode(f"{before}correct horse{after}".encode()).decode()
    assert "***" in Mask(["correct horse"]).text(whole)


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_masked_holds_no_secret(secret: str, before: str, after: str) -> None:
    mask = Mask([secret])
    value = {"out": [before + secret + after, {secret: after}], before: secret}
    written = json.dumps(mask.value(value), ensure_ascii=False)
    secret_written = json.dumps(secret, ensure_ascii=False)[1:-1]
    if "*" not in secret:
        assert secret not in mask.text(before + secret + after)
        assert secret_written not in written.replace("***", "")


def test_every_line_of_a_secret_of_many_lines_is_one() -> None:
    key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\n}\n-----END KEY-----\n"
    assert Mask([key]).text("line: MIIEowIBAAKCAQEA }") == "line: *** }"


def test_a_longer_secret_is_masked_as_a_whole() -> None:
    assert Mask(["hunter", "hunter2000"]).text("hunter2000 hunter") == "*** ***"


def test_values_of_fewer_than_four_characters_are_left_alone() -> None:
    mask = Mask(["", "abc"])
    assert not mask
    assert mask.text("abc") == "abc"
    assert mask.value({"abc": "abc"}) == {"abc": "abc"}


def test_numbers_and_names_of_members_are_masked_too() -> None:
    mask = Mask(["8472910"])
    assert mask.value({"pin": 8472910, "8472910": [True, None, 1.5]}) == {"pin": "***", "***": [True, None, 1.5]}


def test_a_secret_that_only_the_written_value_shows_hides_all_of_it() -> None:
    assert Mask(['ab","cd']).value({"out": ["ab", "cd"]}) == "***"
    assert Mask(['ab","cd']).value({"out": ["ab", "ce"]}) == {"out": ["ab", "ce"]}
