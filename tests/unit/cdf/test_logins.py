"""Each kind of login against an identity provider that verifies what it is sent, by both clients."""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus

import httpx
import pytest
from cdf_support import BASE_URL, Answering, FakeTime, Network, Sender, loopback_server
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from identity_provider import CLIENT, SECRET, IdentityProvider, Pair, Refused, identity_provider
from support import Project, function_task

from airflow_provider_cdf.cdf import calls, clock, sessions
from airflow_provider_cdf.cdf.auth import shared_login
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfLoginError, CdfUnreachableError
from airflow_provider_cdf.cdf.logins.azure import AzureIdentity
from airflow_provider_cdf.cdf.logins.base import Credentials
from airflow_provider_cdf.cdf.logins.clients import ClientAssertion, ClientCredentials
from airflow_provider_cdf.cdf.logins.keys import SigningKey
from airflow_provider_cdf.cdf.logins.tokens import StaticToken, TokenFile
from airflow_provider_cdf.cdf.models import SessionType
from airflow_provider_cdf.cdf.retry import is_transient
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.hooks.connection import read_connection

PAIR = Pair()
OTHER = Pair()
SCOPE = "https://westeurope-1.cognitedata.com/.default"
EC = Pair(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def idp() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


def settings(idp: IdentityProvider, credentials: Credentials, **more: Any) -> Settings:
    return Settings(
        idp.url,
        "p",
        credentials,
        label="Airflow connection 'plant'",
        **{"retry_for": 0, "request_timeout": 60, **more},
    )


def from_connection(idp: IdentityProvider, *, password: str | None = None, **extra: Any) -> Settings:
    """Read a connection whose client logs in at the provider."""
    extra = {"project": "p", "retry_for": 0, "login_url": idp.token_url, **extra}
    login = CLIENT if extra["login_url"] or "tenant_id" in extra else None
    return read_connection("plant", host=idp.url, port=None, login=login, password=password, extra=extra)


def log_in(sender: Sender, config: Settings) -> None:
    sender.send(None, calls.inspect_token(), config)


def refusal(sender: Sender, config: Settings, kind: type[CdfError] = CdfLoginError) -> str:
    """Return the message about a login that does not work. No secret is in it, or in what led to it."""
    with pytest.raises(kind) as caught:
        sender.send(None, calls.list_executions("p"), config)
    message = str(caught.value)
    seen = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    for secret in secrets_of(config):
        assert secret not in seen
    assert message.isprintable()
    assert "Airflow connection 'plant'" in message
    assert len(re.split(r"[.:] ", message)[0]) < 80, message
    return message


def secrets_of(config: Settings) -> list[str]:
    credentials = config.credentials
    known = [*credentials.secrets, *shared_login(config).known_tokens]
    known += [quote_plus(secret) for secret in credentials.secrets]
    if isinstance(credentials, ClientAssertion):
        known += credentials.key.lines
    return known


# -- a client and its secret ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
@pytest.mark.parametrize(
    "asked", [{}, {"scopes": SCOPE}, {"audience": "a b&c"}, {"scopes": "x y", "audience": "z"}]
)
def test_a_secret_goes_into_the_form_or_into_the_header(
    sender: Sender, idp: IdentityProvider, method: str, asked: dict[str, str]
) -> None:
    idp.method, idp.scope, idp.audience = method, asked.get("scopes"), asked.get("audience")
    log_in(sender, from_connection(idp, password=SECRET, auth_method=method, **asked))
    assert idp.shown == idp.issued
    assert idp.refusals == []


def test_by_default_the_secret_goes_into_the_form(sender: Sender, idp: IdentityProvider) -> None:
    log_in(sender, from_connection(idp, password=SECRET))
    assert idp.shown == idp.issued


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_a_wrong_secret_is_told_of(sender: Sender, idp: IdentityProvider, method: str) -> None:
    idp.method = method
    message = refusal(sender, from_connection(idp, password="wr0ng-secret", auth_method=method))
    assert message.startswith("The identity provider does not accept the client. The token endpoint at ")
    assert "said (HTTP 401): invalid_client: Wrong client id or client secret." in message
    assert "auth_method" in message
    assert message.endswith(f"[client {CLIENT!r}]")
    assert idp.shown == []


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_a_provider_that_wants_the_other_way_says_so(
    sender: Sender, idp: IdentityProvider, method: str
) -> None:
    idp.method = {"client_secret_post": "client_secret_basic"}.get(method, "client_secret_post")
    assert "auth_method" in refusal(sender, from_connection(idp, password=SECRET, auth_method=method))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"scope": "other"}, "The scope is wrong."),
        ({"audience": "other"}, "access_denied: The audience is other"),
    ],
)
def test_a_wrong_scope_or_audience_is_told_of(
    sender: Sender, idp: IdentityProvider, wanted: dict[str, str], words: str
) -> None:
    vars(idp).update(wanted)
    assert words in refusal(sender, from_connection(idp, password=SECRET))


def test_a_header_that_is_repeated_is_left_out(sender: Sender, idp: IdentityProvider) -> None:
    pair = f"{quote_plus(CLIENT)}:{quote_plus(SECRET)}"
    idp.refusal = Refused("invalid_client", "Basic " + base64.b64encode(pair.encode()).decode())
    config = from_connection(idp, password=SECRET, auth_method="client_secret_basic")
    assert "left out, because it repeats a secret" in refusal(sender, config)


ENTRA = {
    "7000215": ("The client secret is wrong.", "value, not its id"),
    "7000222": ("The client secret has expired.", "Make a new one"),
    "90002": ("Entra ID does not know the tenant.", "'tenant_id'"),
    "700016": ("The tenant does not know the client.", "Application (client) id"),
    "1002012": ("The scope is wrong.", "'scopes'"),
    "70011": ("The scope is wrong.", "'scopes'"),
    "500011": ("The scope is wrong.", "host"),
    "700027": ("Entra ID does not accept the client's signature.", "'certificate_thumbprint'"),
}


@pytest.mark.parametrize("number", ENTRA)
def test_the_usual_mistakes_with_entra_have_a_sentence_of_their_own(
    sender: Sender, idp: IdentityProvider, number: str
) -> None:
    said = f"AADSTS{number}: Something.\r\nTrace ID: 0d2c\r\nTimestamp: 2026-11-23 00:00:00Z"
    idp.refusal = Refused("invalid_client", said)
    problem, check = ENTRA[number]
    message = refusal(sender, from_connection(idp, password=SECRET))
    assert message.startswith(problem)
    assert check in message
    assert f"(HTTP 401): invalid_client: AADSTS{number}: Something. Trace ID" in message
    assert f"The token endpoint at {idp.token_url.removeprefix('http://')} said" in message


# -- a client that signs ----------------------------------------------------------------------------------


def signs(idp: IdentityProvider, key: str, thumbprint: str | None = None, **extra: Any) -> Settings:
    return from_connection(
        idp, auth_method="private_key_jwt", private_key=key, certificate_thumbprint=thumbprint, **extra
    )


def at(idp: IdentityProvider, config: Settings) -> Settings:
    """These settings, with the identity provider in the place of Entra ID."""
    assert isinstance(config.credentials, ClientAssertion)
    return replace(config, credentials=replace(config.credentials, token_url=idp.token_url, scope=None))


@pytest.fixture
def signing(idp: IdentityProvider) -> IdentityProvider:
    idp.method, idp.pair, idp.needs_thumbprint = "private_key_jwt", PAIR, True
    return idp


def test_a_certificate_logs_in_as_at_entra(sender: Sender, signing: IdentityProvider) -> None:
    signing.scope = SCOPE
    log_in(sender, signs(signing, PAIR.pem(), PAIR.thumbprint(), scopes=SCOPE))
    ((header, claims),) = signing.assertions
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    assert claims["exp"] - claims["iat"] == 300
    assert signing.shown == signing.issued


@pytest.mark.parametrize(
    ("thumbprint", "algorithm"),
    [
        (PAIR.thumbprint().lower(), "RS256"),
        (":".join(PAIR.thumbprint()[at : at + 2] for at in range(0, 40, 2)), "RS256"),
        (f" {PAIR.thumbprint()} ", "RS256"),
        (PAIR.thumbprint(hashes.SHA256()), "PS256"),
    ],
    ids=["lower case", "colons", "blanks", "SHA-256"],
)
def test_a_thumbprint_is_taken_as_tools_write_it(
    sender: Sender, signing: IdentityProvider, thumbprint: str, algorithm: str
) -> None:
    log_in(sender, signs(signing, PAIR.pem(), thumbprint))
    assert signing.assertions[0][0]["alg"] == algorithm


KEYS = {
    "PKCS#8": PAIR.pem(),
    "PKCS#1": PAIR.pem(serialization.PrivateFormat.TraditionalOpenSSL),
    "in one line": PAIR.pem().replace("\n", ""),
    "with blanks for line ends": PAIR.pem().replace("\n", " "),
    "with escaped line ends": PAIR.pem().replace("\n", "\\n"),
    "of Windows": PAIR.pem().replace("\n", "\r\n"),
    "before its certificate": PAIR.pem() + PAIR.certificate_pem(),
    "behind its certificate": PAIR.certificate_pem() + PAIR.pem(),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_key_is_read_however_it_came(sender: Sender, signing: IdentityProvider, key: str) -> None:
    log_in(sender, signs(signing, key, PAIR.thumbprint()))
    assert len(signing.assertions) == 1


def test_a_thumbprint_follows_from_a_certificate_that_lies_beside_the_key(
    sender: Sender, signing: IdentityProvider
) -> None:
    config = signs(signing, PAIR.pem() + PAIR.certificate_pem(), tenant_id="plant", login_url=None)
    log_in(sender, at(signing, config))
    assert signing.assertions[0][0]["alg"] == "PS256"


def test_a_certificate_beside_the_key_changes_nothing_for_other_providers(
    sender: Sender, signing: IdentityProvider
) -> None:
    signing.needs_thumbprint = False
    log_in(sender, signs(signing, PAIR.pem() + PAIR.certificate_pem()))
    header = signing.assertions[0][0]
    assert header["alg"] == "RS256"
    assert not {"x5t", "x5t#S256"} & header.keys()


def test_a_provider_without_thumbprints_needs_none(sender: Sender, signing: IdentityProvider) -> None:
    signing.needs_thumbprint = False
    log_in(sender, signs(signing, PAIR.pem()))
    assert not {"x5t", "x5t#S256"} & signing.assertions[0][0].keys()


def test_a_key_may_be_of_an_elliptic_curve(sender: Sender, signing: IdentityProvider) -> None:
    signing.pair, signing.needs_thumbprint = EC, False
    log_in(sender, signs(signing, EC.pem()))
    assert signing.assertions[0][0]["alg"] == "ES256"


def test_each_login_signs_anew(sender: Sender, signing: IdentityProvider) -> None:
    signing.lifetime = 0  # unstated, so that a 401 is what renews it
    config = signs(signing, PAIR.pem(), PAIR.thumbprint())
    for _ in range(3):
        shared_login(config)._token = None
        log_in(sender, config)
    assert len({claims["jti"] for _, claims in signing.assertions}) == 3


@pytest.mark.parametrize(
    ("key", "thumbprint", "words"),
    [
        (OTHER.pem(), PAIR.thumbprint(), "The identity provider does not accept the client."),
        (PAIR.pem(), OTHER.thumbprint(), "Entra ID does not accept the client's signature."),
        (OTHER.pem(), OTHER.thumbprint(), "Entra ID does not accept the client's signature."),
    ],
    ids=["another key", "another thumbprint", "both"],
)
def test_a_wrong_key_or_thumbprint_is_told_of(
    sender: Sender, signing: IdentityProvider, key: str, thumbprint: str, words: str
) -> None:
    assert refusal(sender, signs(signing, key, thumbprint)).startswith(words)
    assert len(signing.refusals) == 1


def test_an_assertion_that_is_repeated_is_left_out(
    sender: Sender, signing: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = IdentityProvider._assertion

    def repeat(self: IdentityProvider, form: dict[str, str]) -> None:
        sent = form["client_assertion"]
        real(self, form)
        raise Refused("invalid_client", f"Not {sent}")

    monkeypatch.setattr(IdentityProvider, "_assertion", repeat)
    message = refusal(sender, signs(signing, PAIR.pem(), PAIR.thumbprint()))
    assert "invalid_client: Not ***" in message


#: Of 512 bits; libraries make none so short any more.
SHORT_RSA = (
    "-----BEGIN PRIVATE KEY-----"
    "MIIBVAIBADANBgkqhkiG9w0BAQEFAASCAT4wggE6AgEAAkEAsWXtC5IDEMMNdC7hOxteJV3JjyjoufwGPZi5pkO58zWBai2r"
    "0oEsNwR5/KFMRvbrBBWJMhtHzuo5F5WA67sgEQIDAQABAkEAgVdGYMRBtevxGD/B+h13JBlghx+Vp1zIlAqReVcx8c9fFujq"
    "JMW5lYM6J+gHbtkWBgALEjJMLURufq1K/MiW7QIhAN5NlLunxRKUaIZEu4pHUWBA55U7C+R7r4aDOUo/ZsnzAiEAzEnSDKTd"
    "w91mDSvfGLd2J7jjJSQKR73MaeHee/piyusCIHFYLxiLDwFNKAolq1VyzXv9O9ar14F0yucTqzc/ImKfAiAc/7Ggd9q/DfOJ"
    "lRuzL3/HPbiIsif/bRLSSOzDHpTdhwIgfjDcDf7K968A0mEVL2MkoI8uSW5iFgPZatsueV/rVZk="
    "-----END PRIVATE KEY-----"
)


def broken_keys() -> dict[str, tuple[str, str]]:
    dsa_key = dsa.generate_private_key(2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    lines = PAIR.pem().splitlines()
    return {
        "cut": ("\n".join([*lines[:5], *lines[8:]]), "cannot be read"),
        "too short": (SHORT_RSA, "RSA needs 1024 bits or more, better 2048, and this key has 512"),
        "of another kind": (dsa_key.decode(), "neither RSA nor EC"),
        "of an unknown curve": (Pair(ec.generate_private_key(ec.SECP256K1())).pem(), "neither RSA nor EC"),
    }


BROKEN_KEYS = broken_keys()


@pytest.mark.parametrize("broken", BROKEN_KEYS.values(), ids=BROKEN_KEYS.keys())
def test_a_key_that_cannot_be_used_is_told_of_and_nothing_is_sent(
    sender: Sender, signing: IdentityProvider, broken: tuple[str, str]
) -> None:
    key, words = broken
    message = refusal(sender, signs(signing, key, PAIR.thumbprint()))
    assert message.startswith("The private key cannot be")
    assert words in message
    assert signing.token_requests == []


def test_a_key_in_a_file_is_read_again_at_each_login(
    sender: Sender, signing: IdentityProvider, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    path.write_text(PAIR.pem() + PAIR.certificate_pem())
    config = at(signing, signs(signing, str(path), tenant_id="plant", login_url=None))
    log_in(sender, config)
    signing.pair = OTHER
    signing.tokens.clear()
    path.write_text(OTHER.pem() + OTHER.certificate_pem())
    log_in(sender, config)
    assert signing.refusals == []


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), ("no key", "no whole block")])
def test_a_key_file_that_holds_none_is_told_of(
    sender: Sender, signing: IdentityProvider, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_text(content)
    message = refusal(sender, signs(signing, str(path), PAIR.thumbprint()))
    assert words in message
    assert "private key" in message


def test_an_assertion_and_the_key_are_kept_out_of_logs(sender: Sender, signing: IdentityProvider) -> None:
    told: list[str] = []
    config = signs(signing, PAIR.pem(), PAIR.thumbprint())
    log_in(sender, settings(signing, config.credentials, on_token=told.append))
    assert set(PAIR.pem().splitlines()[1:-2]) <= set(told)
    assert told[-1] == signing.issued[0]
    # It is used once, and each one is another text, which Airflow would keep for ever.
    assert not any(signing.token_requests[0]["client_assertion"].endswith(one) for one in told[:-1])
    assert all(len(secret) <= 64 for secret in told)


# -- a ready token ----------------------------------------------------------------------------------------


def with_token(idp: IdentityProvider, **extra: Any) -> Settings:
    return from_connection(idp, login_url=None, **extra)


@pytest.mark.parametrize("begin", ["", "Bearer ", "bearer "])
def test_a_token_of_the_connection_is_shown_as_it_is(
    sender: Sender, idp: IdentityProvider, begin: str
) -> None:
    told: list[str] = []
    config = with_token(idp, token=f"{begin}{idp.issue()}\n")
    log_in(sender, settings(idp, config.credentials, on_token=told.append))
    log_in(sender, config)
    assert idp.shown == idp.issued * 2
    assert told == idp.issued
    assert idp.token_requests == []


def test_a_token_that_cdf_refuses_is_shown_once_for_each_question(
    sender: Sender, idp: IdentityProvider
) -> None:
    message = refusal(sender, with_token(idp, token="an-old-token"), CdfApiError)
    assert "The access token has expired, or is not for this project." in message
    assert "extra 'token'" in message
    assert idp.shown == ["an-old-token"] * 2  # the second time, to ask what it may do


def test_a_token_in_a_file_is_read_again(
    sender: Sender, idp: IdentityProvider, time: FakeTime, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    config = with_token(idp, login_file=str(path))
    for _ in range(3):
        path.write_text(f"{idp.issue()}\n")
        log_in(sender, config)
        log_in(sender, config)
        time.seconds += 31  # read again before a minute is over
    assert idp.shown == [token for token in idp.issued for _ in range(2)]


def test_a_token_file_that_was_renewed_is_read_after_a_401(
    sender: Sender, idp: IdentityProvider, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(idp.issue())
    config = with_token(idp, login_file=str(path))
    log_in(sender, config)
    idp.tokens.clear()
    path.write_text(idp.issue())
    log_in(sender, config)
    assert idp.shown == [idp.issued[0], idp.issued[0], idp.issued[1]]


def test_a_token_file_that_nothing_renews_is_told_of(
    sender: Sender, idp: IdentityProvider, tmp_path: Path
) -> None:
    path = tmp_path / "cdf-token"
    path.write_text("an-old-token")
    message = refusal(sender, with_token(idp, login_file=str(path)), CdfApiError)
    assert "has what writes it stopped" in message
    assert "'cdf-token'" in message
    assert idp.shown == ["an-old-token"] * 2  # the second time, to ask what it may do


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "The file with the access token cannot be read here: No such file or directory."),
        ("", "The file with the access token is empty."),
        (" \n", "The file with the access token is empty."),
        ("two words", "The login got an access_token that cannot be sent."),
        ("x\0y", "The login got an access_token that cannot be sent."),
    ],
)
def test_a_token_file_that_holds_none_is_told_of(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "cdf-token"
    if content is not None:
        path.write_text(content)
    message = refusal(sender, with_token(idp, login_file=str(path)))
    assert message.startswith(words)
    assert "'cdf-token'" in message
    assert idp.shown == []


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "blank"])
@pytest.mark.parametrize("kind", ["token", "key"])
def test_a_file_that_is_just_being_written_is_read_again(
    sender: Sender,
    signing: IdentityProvider,
    time: FakeTime,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    content: str | None,
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    config = (
        signs(signing, str(path), PAIR.thumbprint())
        if kind == "key"
        else with_token(signing, login_file=str(path))
    )
    sleep = time.sleep

    def written(seconds: float) -> None:
        path.write_text(PAIR.pem() if kind == "key" else signing.issue())
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", written)
    monkeypatch.setattr(time, "sleep", written)  # what asleep() calls
    sender.send(None, calls.list_executions("p"), replace(config, retry_for=30))
    assert len(time.pauses) == 1


@pytest.mark.parametrize("path", ["no path, but a t0ken of some letters", "/", "\0"])
def test_what_is_no_file_is_not_read_again(
    sender: Sender, idp: IdentityProvider, time: FakeTime, path: str
) -> None:
    config = replace(with_token(idp, login_file="/somewhere"), credentials=TokenFile(path), retry_for=30)
    with pytest.raises(CdfLoginError, match="cannot be read"):
        sender.send(None, calls.list_executions("p"), config)
    assert time.pauses == []


def test_a_file_that_might_never_end_is_not_read(
    sender: Sender, idp: IdentityProvider, tmp_path: Path
) -> None:
    os.mkfifo(path := tmp_path / "token")
    assert "no ordinary file" in refusal(sender, with_token(idp, login_file=str(path)))


@pytest.mark.parametrize("content", ["x" * 65_537, '"quoted"'], ids=["large", "quoted"])
def test_what_a_file_holds_is_sent_as_a_whole_or_not_at_all(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, content: str
) -> None:
    (path := tmp_path / "token").write_text(content)
    message = refusal(sender, with_token(idp, login_file=str(path)))
    assert ("more than 64 KB" in message) == content.startswith("x")
    assert idp.shown == []


@pytest.mark.parametrize("begin", ["Bearer ", "bearer  "])
def test_a_token_in_a_file_may_have_what_a_header_has_before_it(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, begin: str
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{begin}{idp.issue()}\n")
    log_in(sender, with_token(idp, login_file=str(path)))
    assert idp.shown == idp.issued


#: What people put where a path belongs.
PASTED = {
    "key without its PEM": "AB/MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHd2tHTCjXYdb",
    "key that begins as a path": "/" + "MIGHAgEAMBMGByqGSM49AgEG/CqGSM49AwEHBG0wawIBAQQgHd2tHTCjXYdb" * 2,
    "end of a key": "\n".join(PAIR.pem().splitlines()[-4:]),
    "end of a key that begins as a path": "/" + "\n".join(PAIR.pem().splitlines()[-4:])[1:],
    "token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijklmnopqrstuvwxyzABCDEF",
    "token that begins as a path": "." + "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0." * 2,
    "long text": "/secret-word/" * 30,
    "text with a zero byte": "a-secret-word-of-some\0length",
}


@pytest.mark.parametrize("field", ["private_key", "login_file"])
@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED.keys())
def test_a_secret_in_a_field_for_a_path_is_not_shown(
    sender: Sender, signing: IdentityProvider, field: str, pasted: str
) -> None:
    if field == "private_key":
        config = signs(signing, pasted, PAIR.thumbprint())
    else:
        config = with_token(signing, login_file=pasted)
    told: list[str] = []
    message = refusal(sender, settings(signing, config.credentials, on_token=told.append))
    assert "no path of a file here" in message
    parts = [part for part in re.split(r"[\s/]", pasted) if len(part) > 8]
    assert parts
    shown = message + repr(config)
    assert not [part for part in parts if part in shown]
    assert [line for line in pasted.split() if len(line) > 16] == told


@pytest.mark.parametrize("field", ["private_key", "login_file"])
def test_a_path_of_a_file_that_is_not_there_is_shown(
    sender: Sender, signing: IdentityProvider, field: str
) -> None:
    path = "/run/secrets/kubernetes.io/service-account/cognite-data-fusion/production/file"
    if field == "private_key":
        config = signs(signing, path, PAIR.thumbprint())
    else:
        config = with_token(signing, login_file=path)
    told: list[str] = []
    message = refusal(sender, settings(signing, config.credentials, on_token=told.append))
    assert "No such file or directory. It is 'file'" in message
    assert told == []


def test_a_file_that_hangs_costs_a_request_its_time_and_no_more(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk of the network. The thread that reads goes on, and there is never a second one."""
    path = tmp_path / "token"
    path.write_text(idp.issue())
    may_read, reads = threading.Event(), []
    real = TokenFile._read

    def slow(self: TokenFile) -> Any:
        reads.append(1)
        may_read.wait(60)
        return real(self)

    monkeypatch.setattr(TokenFile, "_read", slow)
    config = with_token(idp, login_file=str(path), request_timeout=0.05)
    for _ in range(3):
        with pytest.raises(CdfUnreachableError, match="no answer from file 'token'") as caught:
            log_in(sender, config)
        assert not caught.value.sent
    assert reads == [1]
    may_read.set()
    log_in(sender, with_token(idp, login_file=str(path), request_timeout=60))
    assert reads == [1]


def test_no_secret_is_in_a_repr(idp: IdentityProvider) -> None:
    all_kinds = [
        from_connection(idp, password=SECRET),
        signs(idp, PAIR.pem(), PAIR.thumbprint()),
        with_token(idp, token="a-t0ken"),
    ]
    for config in all_kinds:
        shown = repr(config) + repr(shared_login(config)) + str(vars(shared_login(config)))
        for secret in secrets_of(config):
            assert secret not in shown


# -- sessions: as Cognite's own SDK makes them -------------------------------------------------------------


def session_body(sender: Sender, idp: IdentityProvider, config: Settings) -> Any:
    idp.calls.clear()
    sender.perform(None, sessions.open_session(config, "run workflow 'w'"), config)
    ((path, body),) = idp.calls
    assert path == "/api/v1/projects/p/sessions"
    return body


def sdk_session_body(idp: IdentityProvider, credentials: Any) -> Any:
    from cognite.client import ClientConfig, CogniteClient, global_config

    global_config.disable_pypi_version_check = True
    global_config.disable_gzip = True
    idp.calls.clear()
    client = CogniteClient(ClientConfig("test", "p", credentials, base_url=idp.url))
    client.iam.sessions.create()
    ((_, body),) = idp.calls
    return body


def test_a_session_is_made_with_the_secret_as_by_the_official_sdk(
    sender: Sender, idp: IdentityProvider
) -> None:
    pytest.importorskip("cognite.client", reason="compares with Cognite's own SDK")
    from cognite.client.credentials import OAuthClientCredentials

    mine = session_body(sender, idp, from_connection(idp, password=SECRET))
    assert mine == {"items": [{"clientId": CLIENT, "clientSecret": SECRET}]}
    assert mine == sdk_session_body(idp, OAuthClientCredentials(idp.token_url, CLIENT, SECRET, None))


@pytest.mark.parametrize("way", ["token", "login_file"])
def test_a_session_is_made_from_a_token_as_by_the_official_sdk(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, way: str
) -> None:
    pytest.importorskip("cognite.client", reason="compares with Cognite's own SDK")
    from cognite.client.credentials import Token

    token = idp.issue()
    path = tmp_path / "token"
    path.write_text(token)
    config = with_token(idp, **{way: str(path) if way == "login_file" else token})
    mine = session_body(sender, idp, config)
    assert mine == {"items": [{"tokenExchange": True}]}
    assert mine == sdk_session_body(idp, Token(token))


def test_a_session_of_a_certificate_is_a_one_shot_and_says_once_that_it_ends(
    sender: Sender,
    signing: IdentityProvider,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_warned", set())
    config = signs(signing, PAIR.pem(), PAIR.thumbprint())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert session_body(sender, signing, config) == {"items": [{"oneshotTokenExchange": True}]}
    (warning,) = [one.getMessage() for one in caplog.records]
    assert warning.startswith("Runs have about an hour, by Airflow connection 'plant': ")


SESSION_BODIES = {
    "client_credentials": {"clientId": CLIENT, "clientSecret": SECRET},
    "token_exchange": {"tokenExchange": True},
    "oneshot_token_exchange": {"oneshotTokenExchange": True},
}


@pytest.mark.parametrize("session_type", SESSION_BODIES)
def test_a_connection_says_how_its_sessions_are_made(
    sender: Sender, idp: IdentityProvider, session_type: str
) -> None:
    config = from_connection(idp, password=SECRET, session_type=session_type.upper())
    assert session_body(sender, idp, config) == {"items": [SESSION_BODIES[session_type]]}


def test_an_exchange_that_cdf_refuses_names_the_other_one(sender: Sender) -> None:
    network = Network(httpx.Response(400, json={"error": {"code": 400, "message": "Token exchange failed"}}))
    config = Settings(BASE_URL, "p", StaticToken("a-t0ken"), label="Airflow connection 'plant'", retry_for=0)
    with pytest.raises(CdfApiError, match="'oneshot_token_exchange'") as caught:
        sender.perform(network, sessions.open_session(config, "run workflow 'w'"), config)
    assert "Token exchange failed" in str(caught.value)


def test_a_session_with_a_secret_needs_one() -> None:
    config = Settings(BASE_URL, "p", StaticToken("t"), session_type=SessionType.CLIENT_CREDENTIALS)
    with pytest.raises(CdfError, match="needs a client secret"):
        next(sessions.open_session(config, "run workflow 'w'"))


# -- what the official SDK asks identity providers for -----------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sdk"),
    [
        ({}, {"scopes": None}),
        ({"scopes": "a b"}, {"scopes": ["a", "b"]}),
        ({"audience": "x"}, {"scopes": [], "audience": "x"}),
    ],
)
def test_a_token_is_asked_for_as_by_the_official_sdk(
    sender: Sender, idp: IdentityProvider, asked: dict[str, str], sdk: dict[str, Any]
) -> None:
    pytest.importorskip("cognite.client", reason="compares with Cognite's own SDK")
    from cognite.client.credentials import OAuthClientCredentials

    idp.scope, idp.audience = asked.get("scopes"), asked.get("audience")
    log_in(sender, from_connection(idp, password=SECRET, **asked))
    OAuthClientCredentials(idp.token_url, CLIENT, SECRET, **sdk).authorization_header()
    mine, theirs = idp.token_requests
    assert mine == theirs


@pytest.mark.parametrize("cluster", ["westeurope-1", "api", "az-eastus-1"])
def test_entra_is_asked_as_by_the_official_sdk(cluster: str) -> None:
    pytest.importorskip("cognite.client", reason="compares with Cognite's own SDK")
    from cognite.client.credentials import OAuthClientCredentials

    theirs = OAuthClientCredentials.default_for_entra_id("the-tenant", CLIENT, SECRET, cluster)
    mine = read_connection(
        "plant",
        host=cluster,
        port=None,
        login=CLIENT,
        password=SECRET,
        extra={"project": "p", "tenant_id": "the-tenant"},
    ).credentials
    assert isinstance(mine, ClientCredentials)
    assert (mine.token_url, [mine.scope]) == (theirs.token_url, theirs.scopes)


def test_a_certificate_signs_as_microsofts_own_library() -> None:
    import jwt
    from msal.oauth2cli import JwtAssertionCreator

    url = "https://login.microsoftonline.com/t/oauth2/v2.0/token"
    mine = SigningKey(PAIR.pem(), PAIR.thumbprint()).sign(CLIENT, url)
    theirs = JwtAssertionCreator(PAIR.pem(), algorithm="RS256", sha1_thumbprint=PAIR.thumbprint())
    theirs = theirs.create_normal_assertion(audience=url, issuer=CLIENT)
    assert isinstance(mine, str)
    headers = [jwt.get_unverified_header(one) for one in (mine, theirs)]
    headers[1]["x5t"] = headers[1]["x5t"].rstrip("=")  # which RFC 7515 leaves out
    assert headers[0] == headers[1]
    claims = [
        jwt.decode(one, PAIR.key.public_key(), algorithms=["RS256"], audience=url) for one in (mine, theirs)
    ]
    for name in ("iss", "sub", "aud"):
        assert claims[0][name] == claims[1][name]
    assert claims[1].keys() <= claims[0].keys()


# -- Azure's identities -----------------------------------------------------------------------------------


@pytest.fixture
def imds(idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """The endpoint that gives managed identities their tokens, on loopback."""
    asked: list[dict[str, str]] = []

    def answer(request: Answering) -> None:
        url = httpx.URL(request.path)
        assert (url.path, request.headers["Metadata"]) == ("/metadata/identity/oauth2/token", "true")
        asked.append(dict(url.params))
        if url.params.get("client_id") == "unknown":
            request.reply({"error": "invalid_request", "error_description": "Identity not found"}, status=400)
        else:
            token = {
                "access_token": idp.issue(),
                "expires_in": "3599",
                "resource": "x",
                "token_type": "Bearer",
            }
            request.reply(token)

    for name in ("AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with loopback_server(answer) as url:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)
        yield asked


def azure(idp: IdentityProvider, login: str | None = None, **extra: Any) -> Settings:
    extra = {"project": "p", "retry_for": 0, "auth_method": "azure_identity", **extra}
    return read_connection("plant", host=idp.url, port=None, login=login, password=None, extra=extra)


@pytest.mark.parametrize("login", [None, "the-identity"])
def test_a_managed_identity_logs_in(
    sender: Sender, idp: IdentityProvider, imds: list[dict[str, str]], login: str | None
) -> None:
    config = azure(idp, login, scopes=SCOPE)
    log_in(sender, config)
    log_in(sender, config)
    (asked,) = imds
    assert asked["resource"] == SCOPE.removesuffix("/.default")
    assert asked.get("client_id") == login
    assert idp.shown == idp.issued * 2
    assert session_body(sender, idp, config) == {"items": [{"tokenExchange": True}]}


def test_a_managed_identity_that_is_not_there_is_told_of(
    sender: Sender, idp: IdentityProvider, imds: list[dict[str, str]]
) -> None:
    message = refusal(sender, azure(idp, "unknown"))
    assert message.startswith("The identity provider gave no token. Azure's managed identity said: ")
    assert "'unknown'" in message
    assert idp.shown == []


def test_without_azure_identity_its_install_line_is_told(
    sender: Sender, idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    message = refusal(sender, azure(idp))
    assert message.startswith("azure-identity is not installed. ")
    assert "pip install 'airflow-provider-cdf[azure]'" in message


def test_a_workload_identity_without_its_environment_is_told_of(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    message = refusal(sender, azure(idp))
    assert message.startswith("Azure's workload identity cannot be used as it is set up. ")
    assert "'client_id'" in message


def test_a_workload_identity_whose_token_is_not_there_is_told_of(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    message = refusal(sender, azure(idp, "the-identity", tenant_id="the-tenant", scopes=SCOPE))
    assert message.startswith("The token of the workload identity cannot be read. ")
    assert "AZURE_FEDERATED_TOKEN_FILE names no readable file: No such file or directory." in message


def test_a_workload_identity_logs_in(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TLS, which azure-identity insists on, and with the token that Kubernetes has put into a file."""
    asked: list[tuple[str, dict[str, list[str]]]] = []

    def answer(request: Answering) -> None:
        asked.append((request.path, parse_qs(request.body.decode())))
        request.reply({"access_token": idp.issue(), "expires_in": 3599, "token_type": "Bearer"})

    (tmp_path / "token").write_text("from-kubernetes")
    with tls_server(answer, tmp_path) as url:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", url)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AZURE_CLIENT_ID", "not-this-one")
        monkeypatch.delenv("AZURE_TENANT_ID", raising=False)
        log_in(sender, azure(idp, "the-identity", tenant_id="the-tenant", scopes=SCOPE))
    (path, form) = asked[-1]
    assert path == "/the-tenant/oauth2/v2.0/token"
    assert form["client_assertion"] == ["from-kubernetes"]
    assert (form["client_id"], form["scope"]) == (["the-identity"], [SCOPE])
    assert idp.shown == idp.issued


def test_an_azure_that_does_not_answer_may_do_so_later(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang_up(request: Answering) -> None:
        if request.body:
            request.hang_up()
        else:
            request.reply({})

    (tmp_path / "token").write_text("from-kubernetes")
    with tls_server(hang_up, tmp_path) as url:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", url)
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(CdfLoginError, match="Azure's workload identity said: ") as caught:
            log_in(sender, azure(idp, "the-identity", tenant_id="the-tenant", scopes=SCOPE))
    assert is_transient(caught.value)


@contextmanager
def tls_server(answer: Callable[[Answering], None], folder: Path) -> Iterator[str]:
    """A loopback server that speaks TLS, with a certificate of its own in ``certificate.pem``."""
    pair = Pair(names=["localhost"])
    (folder / "certificate.pem").write_text(pair.certificate_pem())
    (folder / "key.pem").write_text(pair.pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with loopback_server(answer, tls=context) as url:
        yield url


def test_azures_library_is_loaded_by_those_who_need_it_only() -> None:
    program = (
        "import sys, airflow_provider_cdf.hooks.cdf;"
        "print([name for name in sys.modules if name.startswith(('azure', 'msal'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- what any library logs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["post", "basic", "key", "token", "login_file", "managed identity", "workload identity"]
)
def test_no_library_logs_a_secret_before_airflow_masks_it(
    sender: Sender,
    idp: IdentityProvider,
    imds: list[dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """Airflow's masking knows a token only after the login, so at DEBUG nothing may be said of it before."""

    def workload(request: Answering) -> None:
        asked.append(request.body.decode())
        request.reply({"access_token": idp.issue(), "expires_in": 3599, "token_type": "Bearer"})

    asked: list[str] = []
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text("from-kubernetes")
    with tls_server(workload, tmp_path) as url:
        match kind:
            case "post" | "basic":
                idp.method = f"client_secret_{kind}"
                config = from_connection(idp, password=SECRET, auth_method=idp.method)
            case "key":
                idp.method, idp.pair = "private_key_jwt", PAIR
                config = signs(idp, PAIR.pem(), PAIR.thumbprint())
            case "token":
                config = with_token(idp, token=idp.issue())
            case "login_file":
                (tmp_path / "token").write_text(idp.issue())
                config = with_token(idp, login_file=str(tmp_path / "token"))
            case "managed identity":
                config = azure(idp, scopes=SCOPE)
            case _:
                monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
                monkeypatch.setenv("AZURE_AUTHORITY_HOST", url)
                monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
                config = azure(idp, "the-identity", tenant_id="the-tenant", scopes=SCOPE)
        sender.perform(None, sessions.open_session(config, "run workflow 'w'"), config)
    assert any("from-kubernetes" in body for body in asked) == (kind == "workload identity")

    said = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "send_request_headers" in said, "httpcore logs at DEBUG"
    for secret in (*secrets_of(config), *idp.issued, "the-nonce", "from-kubernetes", *sent_by(idp)):
        for form in (secret, quote_plus(secret), base64.b64encode(secret.encode()).decode()):
            assert form not in said


def sent_by(idp: IdentityProvider) -> list[str]:
    """The assertions that the provider was sent."""
    return [form["client_assertion"] for form in idp.token_requests if "client_assertion" in form]


# -- beside the event loop --------------------------------------------------------------------------------


def test_what_may_block_is_done_in_a_thread(
    idp: IdentityProvider,
    imds: list[dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a triggerer, one event loop waits for hundreds of tasks."""
    doers: list[str] = []
    for kind, name in ((SigningKey, "sign"), (TokenFile, "_read"), (AzureIdentity, "_ask")):
        real = getattr(kind, name)

        def watched(*arguments: Any, real: Any = real) -> Any:
            doers.append(threading.current_thread().name)
            return real(*arguments)

        monkeypatch.setattr(kind, name, watched)
    idp.method, idp.pair = "private_key_jwt", PAIR
    (tmp_path / "token").write_text(idp.issue())
    configs = (signs(idp, PAIR.pem()), with_token(idp, login_file=str(tmp_path / "token")), azure(idp))
    for config in configs:
        log_in(Sender(is_async=True), config)
    assert doers == ["cdf-login"] * 3


def test_an_error_in_such_a_thread_is_told_without_its_words(
    sender: Sender, idp: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: TokenFile) -> Any:
        raise RuntimeError("a-t0ken")

    monkeypatch.setattr(TokenFile, "_read", fail)
    message = refusal(sender, with_token(idp, login_file=str(tmp_path)))
    assert message.startswith("The login failed: unexpected RuntimeError.")
    assert "a-t0ken" not in message


# -- against the emulator ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "session_type"),
    [
        ({}, "CLIENT_CREDENTIALS"),
        ({"auth_method": "client_secret_basic"}, "CLIENT_CREDENTIALS"),
        ({"session_type": "token_exchange"}, "TOKEN_EXCHANGE"),
        ({"token": None}, "TOKEN_EXCHANGE"),
        ({"token": None, "session_type": "oneshot_token_exchange"}, "ONESHOT_TOKEN_EXCHANGE"),
        ({"login_file": None}, "TOKEN_EXCHANGE"),
    ],
    ids=str,
)
def test_a_workflow_runs_however_its_hook_has_logged_in(
    cdf: CdfEmulator,
    project: Project,
    connect: Callable[..., None],
    tmp_path: Path,
    way: dict[str, Any],
    session_type: str,
) -> None:
    workflow = project.define(function_task("score"))
    fields: dict[str, Any] = {}
    if {"token", "login_file"} & way.keys():
        token = cdf.tokens.issue()
        (tmp_path / "token").write_text(token)
        given = {"token": token, "login_file": str(tmp_path / "token")}
        way = {name: value or given[name] for name, value in way.items()} | {"token_url": None}
        fields = {"login": None, "password": None}
    connect(way, **fields)

    execution = CdfHook().run_workflow(workflow, "1")

    assert project.execution(execution.id)["workflowExternalId"] == workflow
    with cdf.turn() as engine:
        used = [session for session in engine.sessions.all() if session.used]
    assert used[-1].type == session_type
