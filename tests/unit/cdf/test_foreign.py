"""Text from outside, before it goes into messages, logs and events."""

from __future__ import annotations

import base64
import json
import string
from random import Random

import pytest
from hostile_server import ENCODINGS

from airflow_provider_cdf.cdf import foreign
from airflow_provider_cdf.cdf.foreign import LONGEST, one_line, without_secrets

LEFT_OUT = "(left out, because it repeats a secret)"
TOKEN = "eyJhbGciOiJSUzI1NiJ9." + "".join(Random(4).choices(string.ascii_letters + "-_", k=1500))
SECRETS = {
    "signs": 's3cr3t/with+signs&more"\\<x>',
    "plain": "wr0ng-s3cr3t",
    "short": "hunter2",
    "umlauts": "Geheimnis-für-Öl-und-Gas",
    "looks encoded": "abc%2Fdef&amp;ghi\\u0041jkl",
    "token": TOKEN,
    "nonce": "8d1c1a4e-5f1c-4f5e-9d3e-3a5a0a7f2b11",
}


def encoded_twice() -> list[tuple[str, str]]:
    return [(inner, outer) for inner in ENCODINGS for outer in ENCODINGS]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_secret_is_found_in_whatever_form_it_comes(secret: str, name: str) -> None:
    said = f"Unexpected value: {ENCODINGS[name](f'Bearer {secret} and more')}."
    shown = without_secrets(said, [*SECRETS.values()])
    assert shown == LEFT_OUT or "***" in shown
    assert secret not in shown
    middle = ENCODINGS[name](secret)[4:-4]  # the ends of base64 depend on what is beside it
    assert not middle or middle not in shown


@pytest.mark.parametrize(("inner", "outer"), encoded_twice())
def test_a_secret_is_found_in_two_encodings_around_each_other(inner: str, outer: str) -> None:
    said = ENCODINGS[outer](ENCODINGS[inner](f"client_secret={SECRETS['signs']}; x"))
    shown = without_secrets(said, SECRETS.values())
    assert shown == LEFT_OUT or ("***" in shown and "s3cr3t" not in shown)


@pytest.mark.parametrize("name", ["signs", "umlauts", "token", "nonce"])
def test_a_part_of_a_secret_is_found(name: str) -> None:
    part = SECRETS[name][: len(SECRETS[name]) * 2 // 3 + 3]
    assert without_secrets(f"Bad token {part}", [SECRETS[name]]) == LEFT_OUT


@pytest.mark.parametrize(
    "words",
    [
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the "
        "client secret value, not the client secret ID, for a secret added to app "
        "'abcdef12-3456-7890-abcd-ef1234567890'.",
        "Workflow version not found: pump/1",
        "Sessions chaining depth limit exceeded",
        "Nonce is invalid, expired or has been used",
        "There can be only 10000 sessions",
        "100 % of the tasks &amp; more have failed \\o/",
    ],
)
def test_words_without_a_secret_are_kept(words: str) -> None:
    assert without_secrets(words, SECRETS.values()) == words


def test_a_text_that_is_encoded_again_and_again_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took more than a second of an event loop."""
    looked_at: list[str] = []
    real = foreign._letters

    def letters(text: str) -> str:
        looked_at.append(text)
        return real(text)

    mix = "%2525252541&amp;amp;amp;amp;lt;" + "\\" * 12 + "u0041 "
    words = " ".join("".join(Random(at).choices(string.ascii_letters, k=8)) for at in range(100))
    for _ in range(2):
        words = mix + base64.b64encode((mix + words).encode()).decode()
    monkeypatch.setattr(foreign, "_letters", letters)
    assert without_secrets(words, ["s3cr3t"]) == "(left out, because it is encoded too many times)"
    assert sum(map(len, looked_at)) < 1.2 * foreign.MOST_DECODED


@pytest.mark.parametrize(
    "word", ["pump ", "temperature ", "8d1c1a4e-5f1c-4f5e-9d3e-3a5a0a7f2b11 ", "a/path/to/some/file "]
)
def test_long_words_of_a_text_are_no_encoding(word: str) -> None:
    words = word * (2048 // len(word))
    assert without_secrets(words, [TOKEN]).startswith(word)


def test_a_secret_of_a_few_characters_is_part_of_any_word() -> None:
    assert without_secrets("the reason", ["t", "", "ea"]) == "the reason"


@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_only_the_beginning_of_a_long_text_is_looked_at(size: int) -> None:
    assert len(without_secrets("a b " * (size // 4), [TOKEN])) == LONGEST


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\x00b", "a\r\n\tb", "a\ud800b"])
def test_it_is_one_printable_line(text: str) -> None:
    for shown in (one_line(text), without_secrets(text, [TOKEN])):
        assert shown.isprintable()
        assert (shown[0], shown[-1]) == ("a", "b")


@pytest.mark.parametrize("value", [None, 5, {"a": [1]}, [TOKEN], b"bytes"])
def test_what_is_no_text_is_written_as_python_does(value: object) -> None:
    shown = without_secrets(value, [TOKEN])
    assert shown == str(value).replace(TOKEN, "***")


def test_json_that_holds_a_secret_deep_inside_is_left_out() -> None:
    said = json.dumps({"request": json.dumps({"body": json.dumps({"clientSecret": SECRETS["signs"]})})})
    assert without_secrets(said, [SECRETS["signs"]]) == LEFT_OUT
