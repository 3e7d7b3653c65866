"""Signature Version 4: AWS's published test suite and examples."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from event_handler.sinks.aws_signing import AwsCredentials, canonical_path, canonical_query, signed

MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
SUITE = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
EXAMPLE = AwsCredentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def signature(headers: dict[str, str]) -> str:
    return headers["Authorization"].rpartition("Signature=")[2]


# Name in AWS's sig-v4-test-suite, method, path with query as it stands there, headers, body, and the signature.
SUITE_CASES = [
    ("get-vanilla", "GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("post-vanilla", "POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-vanilla-empty-query-key",
        "GET",
        "/?Param1=value1",
        {},
        b"",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "get-vanilla-query-unreserved",
        "GET",
        f"/?{UNRESERVED}={UNRESERVED}",
        {},
        b"",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "get-unreserved",
        "GET",
        f"/{UNRESERVED}",
        {},
        b"",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    ("get-utf8", "GET", "/ሴ", {}, b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    (
        "post-header-key-sort",
        "POST",
        "/",
        {"My-Header1": "value1"},
        b"",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    (
        "get-header-value-trim",
        "GET",
        "/",
        {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
        b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        FORM,
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
]


@pytest.mark.parametrize(("name", "method", "path", "headers", "body", "expected"), SUITE_CASES)
def test_the_suite_of_aws(
    name: str, method: str, path: str, headers: dict[str, str], body: bytes, expected: str
) -> None:
    url = URL(f"https://example.amazonaws.com{path}", encoded=True)
    assert signature(signed(SUITE, "us-east-1", "service", MOMENT, method, url, body, headers)) == expected, name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("//", "/"),
        ("//example//", "/example/"),
        ("/./", "/"),
        ("/./example", "/example"),
        ("/example/..", "/"),
        ("/example1/example2/../..", "/"),
        ("/example space/", "/example%20space/"),
        ("/a%20b", "/a%2520b"),
        ("", "/"),
    ],
)
def test_dots_and_empty_parts_of_a_path_are_not_signed_but_for_s3(path: str, expected: str) -> None:
    assert canonical_path(path, "es") == expected


def test_s3_signs_the_path_as_it_is() -> None:
    assert canonical_path("/dt=2026-11-27//a b+%2B.gz", "s3") == "/dt%3D2026-11-27//a%20b%2B%2B.gz"


def test_a_session_token_is_sent_and_signed() -> None:
    """`post-sts-header-before` of the suite, whose token is left out of this text."""
    made = signed(
        AwsCredentials("AKIDEXAMPLE", "secret", "the-token"),
        "us-east-1",
        "service",
        MOMENT,
        "POST",
        URL("https://example.amazonaws.com/"),
        b"",
        {},
    )
    assert made["X-Amz-Security-Token"] == "the-token"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in made["Authorization"]


def test_the_examples_of_iam_and_s3() -> None:
    """The request of "Create a signed AWS API request", and `GET Object` and `GET Bucket Lifecycle` of S3's page."""
    url = URL("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    made = signed(SUITE, "us-east-1", "iam", MOMENT, "GET", url, b"", form)
    assert signature(made) == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    bucket, day = URL("https://examplebucket.s3.amazonaws.com/test.txt"), datetime(2013, 5, 24, tzinfo=UTC)
    made = signed(EXAMPLE, "us-east-1", "s3", day, "GET", bucket, b"", {"Range": "bytes=0-9"})
    assert signature(made) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    made = signed(EXAMPLE, "us-east-1", "s3", day, "GET", bucket.with_path("/").with_query("lifecycle"), b"", {})
    assert signature(made) == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"


def test_nothing_secret_is_in_the_text_of_credentials() -> None:
    text = repr(AwsCredentials("AKIDEXAMPLE", "the-secret", "the-token"))
    assert "AKIDEXAMPLE" in text
    assert "the-secret" not in text
    assert "the-token" not in text


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=5))
def test_a_query_is_signed_alike_however_it_was_quoted(pairs: dict[str, str]) -> None:
    url = URL("https://example.amazonaws.com/").with_query(pairs)
    found = canonical_query(url.raw_query_string)
    assert found == canonical_query(found)
    assert found.count("&") == max(0, len(pairs) - 1)
    assert dict(URL(f"https://example.amazonaws.com/?{found}", encoded=True).query) == dict(url.query)
