"""From an Airflow connection to settings, or to one message that names all that is wrong."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.errors import CdfConnectionError
from airflow_provider_cdf.cdf.logins.azure import AzureIdentity
from airflow_provider_cdf.cdf.logins.base import Credentials
from airflow_provider_cdf.cdf.logins.clients import ClientAssertion, ClientCredentials
from airflow_provider_cdf.cdf.logins.keys import SigningKey
from airflow_provider_cdf.cdf.logins.tokens import StaticToken, TokenFile
from airflow_provider_cdf.cdf.models import SessionType
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.hooks.connection import read_connection
from airflow_provider_cdf.hooks.connection_fields import FIELDS

SECRET = "s3cr3t/+&"
HOST = "https://westeurope-1.cognitedata.com"
TOKEN_URL = "https://idp.example.com/oauth2/token"
ENTRA = "https://login.microsoftonline.com/{}/oauth2/v2.0/token"
COGNITE = "https://auth.cognite.com/oauth2/token"


def read(
    host: str | None = HOST,
    port: int | None = None,
    login: str | None = "the-client",
    password: str | None = SECRET,
    **extra: Any,
) -> Settings:
    """Read a connection that is complete but for the changes."""
    ways = {"tenant_id", "login_url", "token_url", "idp", "token", "login_file"}
    if not ways & extra.keys() and extra.get("auth_method") != "azure_identity":
        extra["token_url"] = TOKEN_URL
    return read_connection(
        "cdf_default", host=host, port=port, login=login, password=password, extra={"project": "p", **extra}
    )


def problem(**changes: Any) -> str:
    """Return the message about a connection that cannot be used."""
    with pytest.raises(CdfConnectionError) as caught:
        read(**changes)
    message = str(caught.value)
    assert "'cdf_default'" in message
    assert "Nothing was sent" in message
    assert SECRET not in message
    assert isinstance(caught.value, AirflowFailException)
    return message


# -- the ways to log in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "token_url", "scope", "audience"),
    [
        ({"tenant_id": "t-1"}, ENTRA.format("t-1"), f"{HOST}/.default", None),
        ({"tenant_id": "plant.example.com"}, ENTRA.format("plant.example.com"), f"{HOST}/.default", None),
        ({"tenant_id": " t-1 "}, ENTRA.format("t-1"), f"{HOST}/.default", None),
        ({"tenant_id": "t-1", "scopes": "other"}, ENTRA.format("t-1"), "other", None),
        ({"token_url": TOKEN_URL}, TOKEN_URL, None, None),
        ({"token_url": f" {TOKEN_URL} "}, TOKEN_URL, None, None),
        ({"token_url": TOKEN_URL, "scopes": "a b"}, TOKEN_URL, "a b", None),
        ({"token_url": TOKEN_URL, "scopes": "a,b, c"}, TOKEN_URL, "a b c", None),
        ({"token_url": TOKEN_URL, "scopes": "a, b,"}, TOKEN_URL, "a b", None),
        ({"token_url": TOKEN_URL, "audience": "aud"}, TOKEN_URL, None, "aud"),
        ({"idp": "cdf"}, COGNITE, None, None),
        ({"idp": "CDF"}, COGNITE, None, None),
    ],
)
def test_each_way_to_log_in(
    extra: dict[str, str], token_url: str, scope: str | None, audience: str | None
) -> None:
    credentials = read(**extra).credentials
    assert (credentials.token_url, credentials.scope, credentials.audience) == (token_url, scope, audience)
    assert (credentials.client_id, credentials.client_secret) == ("the-client", SECRET)


#: A key of no one, in the form that a key has.
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n"
THUMBPRINT = "A1B2C3D4E5F60718293A4B5C6D7E8F9001122334"
NO_CLIENT: dict[str, Any] = {"login": None, "password": None}


def test_the_other_identity_provider_has_two_names_for_its_url() -> None:
    assert read(login_url=TOKEN_URL).credentials == read(token_url=TOKEN_URL).credentials
    assert "by login_url and token_url" in problem(login_url=TOKEN_URL, token_url=TOKEN_URL)


@pytest.mark.parametrize(
    ("method", "in_header"), [(None, False), ("client_secret_post", False), ("CLIENT_SECRET_BASIC", True)]
)
@pytest.mark.parametrize("way", [{"login_url": TOKEN_URL}, {"tenant_id": "t"}, {"idp": "cdf"}], ids=str)
def test_a_secret_is_sent_in_the_form_unless_told_otherwise(
    way: dict[str, str], method: str | None, in_header: bool
) -> None:
    credentials = read(**way, auth_method=method).credentials
    assert isinstance(credentials, ClientCredentials)
    assert credentials.in_header is in_header


@pytest.mark.parametrize("way", [{"login_url": TOKEN_URL}, {"tenant_id": "t-1"}], ids=str)
def test_a_client_may_sign_with_a_private_key(way: dict[str, str]) -> None:
    settings = read(
        password=None,
        **way,
        auth_method="private_key_jwt",
        private_key=KEY,
        certificate_thumbprint=THUMBPRINT,
        audience="a",
    )
    is_entra = "tenant_id" in way
    assert settings.credentials == ClientAssertion(
        ENTRA.format("t-1") if is_entra else TOKEN_URL,
        "the-client",
        SigningKey(KEY.strip(), THUMBPRINT, is_entra),
        f"{HOST}/.default" if is_entra else None,
        "a",
    )


@pytest.mark.parametrize("key", [KEY + CERTIFICATE, "/etc/cdf/key.pem"])
def test_entra_needs_no_thumbprint_where_a_certificate_is_at_hand(key: str) -> None:
    read(password=None, tenant_id="t", auth_method="private_key_jwt", private_key=key)


@pytest.mark.parametrize("given", ["a1:b2:c3:d4", "G" * 40, THUMBPRINT[:-1]])
def test_a_thumbprint_that_is_none_is_named(given: str) -> None:
    message = problem(
        password=None,
        tenant_id="t",
        auth_method="private_key_jwt",
        private_key=KEY,
        certificate_thumbprint=given,
    )
    assert "'certificate_thumbprint' must be 40 hex digits" in message


@pytest.mark.parametrize(
    ("way", "credentials"),
    [
        ({"token": "a.b.c"}, StaticToken("a.b.c")),
        ({"token": " Bearer a.b.c\n"}, StaticToken("a.b.c")),
        ({"login_file": " /run/token "}, TokenFile("/run/token")),
        ({"auth_method": "azure_identity"}, AzureIdentity(f"{HOST}/.default")),
        (
            {"auth_method": "azure_identity", "tenant_id": "t", "scopes": "s"},
            AzureIdentity("s", None, "t"),
        ),
    ],
    ids=str,
)
def test_some_ways_need_no_client(way: dict[str, str], credentials: Credentials) -> None:
    assert read(**NO_CLIENT, **way).credentials == credentials


def test_an_identity_of_azure_may_be_named() -> None:
    named = read(login="the-identity", password=None, auth_method="azure_identity").credentials
    assert named == AzureIdentity(f"{HOST}/.default", "the-identity")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"token": "t", "tenant_id": "t"}, ("said 2 times, by tenant_id and token",)),
        ({"token": "t", "login_file": "f"}, ("said 2 times, by token and login_file",)),
        ({"token": "t"}, ("'token' takes no 'login', no 'password'",)),
        ({"login_file": "f"}, ("'login_file' takes no 'login', no 'password'",)),
        (
            {**NO_CLIENT, "token": "t", "scopes": "s", "auth_method": "private_key_jwt"},
            ("'token' takes no 'auth_method', no 'scopes'",),
        ),
        ({**NO_CLIENT, "token": "two words"}, ("'token' has blanks",)),
        ({"auth_method": "azure_identity"}, ("'azure_identity' takes no 'password'",)),
        ({"auth_method": "azure_identity", "idp": "cdf"}, ("'azure_identity' takes no 'idp'",)),
        (
            {**NO_CLIENT, "auth_method": "azure_identity", "scopes": "a b"},
            ("'scopes' can only be one",),
        ),
        (
            {"auth_method": "private_key_jwt", "tenant_id": "t"},
            ("'private_key_jwt' takes no 'password'", "'private_key' (a PEM, or the path of one) is missing"),
        ),
        (
            {"password": None, "tenant_id": "t", "auth_method": "private_key_jwt", "private_key": KEY},
            ("'certificate_thumbprint', by which Entra ID finds the certificate, is missing",),
        ),
        (
            {"password": None, "idp": "cdf", "auth_method": "private_key_jwt", "private_key": KEY},
            ("'cdf' takes no 'auth_method': 'private_key_jwt'",),
        ),
        ({"tenant_id": "t", "private_key": KEY}, ("need 'auth_method': 'private_key_jwt'",)),
        (
            {"password": None, "auth_method": "private_key_jwt", "private_key": CERTIFICATE},
            ("there is only CERTIFICATE",),
        ),
        (
            {"password": None, "auth_method": "private_key_jwt", "private_key": KEY[:40]},
            ("there is no whole block",),
        ),
        (
            {
                "password": None,
                "auth_method": "private_key_jwt",
                "private_key": KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
            },
            ("it is encrypted",),
        ),
        ({"auth_method": "secret"}, ("'auth_method' can only be 'client_secret_post' or",)),
        ({"session_type": "oneshot"}, ("'session_type' can only be 'client_credentials' or",)),
        (
            {**NO_CLIENT, "token": "t", "session_type": "client_credentials"},
            ("'session_type': 'client_credentials' needs a client secret",),
        ),
        ({"login_url": "http://idp.lan/token"}, ("extra 'login_url' would send credentials unencrypted",)),
    ],
    ids=str,
)
def test_what_a_login_lacks_or_cannot_use_is_named(changes: dict[str, Any], named: tuple[str, ...]) -> None:
    message = problem(**changes)
    for words in named:
        assert words in message
    assert "MII" not in message


def test_the_session_of_a_run_is_as_the_login_needs_it_unless_told() -> None:
    assert read().session_type is None
    assert read().credentials.session_type is SessionType.CLIENT_CREDENTIALS
    assert read(session_type="Token_Exchange").session_type is SessionType.TOKEN_EXCHANGE


def test_project_and_label_are_for_paths_and_messages() -> None:
    settings = read(project=" p-2 ")
    assert (settings.project, settings.label) == ("p-2", "Airflow connection 'cdf_default'")


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_client_id_is_trimmed_and_a_secret_loses_the_line_end_of_a_file(end: str) -> None:
    credentials = read(login=" the-client\n", password=f"se cret{end}").credentials
    assert (credentials.client_id, credentials.client_secret) == ("the-client", "se cret")


@pytest.mark.parametrize(
    ("secret", "named"),
    [
        (" s3cret", "blank"),
        ("s3cret ", "blank"),
        ("s3cret \n", "blank"),
        ("s3\ncret", "printed"),
        ("\n", "missing"),
    ],
)
def test_a_secret_that_was_not_copied_well_is_named_and_not_shown(secret: str, named: str) -> None:
    message = problem(password=secret)
    assert "password (the client secret)" in message
    assert named in message
    assert "cret" not in message.replace("client secret", "")


@pytest.mark.parametrize("extra", [["project"], ["a", {"b": "c"}], "project", 5, True])
def test_an_extra_that_is_no_object_is_named(extra: Any) -> None:
    with pytest.raises(CdfConnectionError, match="extra must be a JSON object") as caught:
        read_connection("c", host=HOST, port=None, login="i", password=SECRET, extra=extra)
    assert "'project' is missing" in str(caught.value)


@pytest.mark.parametrize("extra", [None, "", {}, []])
def test_an_extra_that_is_empty_misses_what_belongs_there(extra: Any) -> None:
    with pytest.raises(CdfConnectionError, match="'project' is missing") as caught:
        read_connection("c", host=HOST, port=None, login="i", password=SECRET, extra=extra)
    assert "must be a JSON object" not in str(caught.value)


# -- times and certificates -------------------------------------------------------------------------------


def test_by_default_requests_take_30_s_are_repeated_for_60_s_and_trust_the_usual_certificates() -> None:
    settings = read()
    assert (settings.request_timeout, settings.retry_for, settings.ca_bundle) == (30, 60, None)


@pytest.mark.parametrize(("value", "seconds"), [(5, 5), (2.5, 2.5), ("5", 5), (" 2.5 ", 2.5)])
def test_times_are_numbers_of_seconds(value: Any, seconds: float) -> None:
    settings = read(request_timeout=value, retry_for=value)
    assert (settings.request_timeout, settings.retry_for) == (seconds, seconds)


def test_a_request_may_never_be_repeated() -> None:
    assert read(retry_for=0).retry_for == 0


@pytest.mark.parametrize("name", ["request_timeout", "retry_for"])
@pytest.mark.parametrize(
    "value", [-1, "-1", "nan", float("nan"), float("inf"), "inf", "soon", True, [], {"a": 1}, 10**400]
)
def test_a_time_that_is_none_is_named(name: str, value: Any) -> None:
    assert f"extra '{name}' must be a number of seconds" in problem(**{name: value})


def test_a_request_needs_some_time() -> None:
    assert "extra 'request_timeout' must be a number of seconds: above 0" in problem(request_timeout=0)


def test_a_ca_bundle_is_a_file_that_exists(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    assert "extra 'verify'" in problem(verify=str(bundle))
    bundle.write_text("")
    assert read(verify=str(bundle)).ca_bundle == str(bundle)


@pytest.mark.parametrize("pasted", ["MIIC" * 100, "a\0b"])
def test_what_is_no_path_of_a_ca_bundle_is_named_and_not_shown(pasted: str) -> None:
    message = problem(verify=pasted)
    assert "extra 'verify'" in message
    assert pasted not in message


def test_who_keeps_tokens_out_of_logs_is_passed_on() -> None:
    told: list[str] = []
    settings = read_connection(
        "c",
        host=HOST,
        port=None,
        login="i",
        password="s",
        extra={"project": "p", "idp": "cdf"},
        on_token=told.append,
    )
    assert settings.on_token == told.append


# -- hosts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        (HOST, HOST),
        (f"{HOST}/", HOST),
        (f" {HOST} ", HOST),
        ("HTTPS://WestEurope-1.CogniteData.com", HOST),
        ("westeurope-1.cognitedata.com", HOST),
        ("westeurope-1", HOST),
        ("WestEurope-1", HOST),
        ("api", "https://api.cognitedata.com"),
        (
            "https://p001.plink.westeurope-1.cognitedata.com",
            "https://p001.plink.westeurope-1.cognitedata.com",
        ),
        ("https://cdf.example.com/behind/a/proxy/", "https://cdf.example.com/behind/a/proxy"),
        ("https://cdf.example.com:8443", "https://cdf.example.com:8443"),
        ("cdf.example.com:8443", "https://cdf.example.com:8443"),
        ("https://cdf_emulator:8443", "https://cdf_emulator:8443"),
        ("localhost:8443", "https://localhost:8443"),
        ("localhost", "https://localhost"),
        ("::1", "https://[::1]"),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_a_host_is_a_url_or_the_name_of_a_cluster(host: str, base_url: str) -> None:
    assert read(host=host).base_url == base_url


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        (HOST, 8443, f"{HOST}:8443"),
        (f"{HOST}/proxy", 8443, f"{HOST}:8443/proxy"),
        ("westeurope-1", 443, None),
        ("cdf.example.com", 8443, "https://cdf.example.com:8443"),
        ("http://127.0.0.1", 8080, "http://127.0.0.1:8080"),
        ("http://[::1]", 8080, "http://[::1]:8080"),
        ("http://127.0.0.1:9090", 8080, "http://127.0.0.1:9090"),
        (HOST, None, HOST),
        (HOST, 0, HOST),
        ("::1", 8080, "https://[::1]:8080"),
        ("2001:db8::1", 8443, "https://[2001:db8::1]:8443"),
    ],
)
def test_the_port_of_the_connection_is_used_where_the_host_says_none(
    host: str, port: int | None, base_url: str | None
) -> None:
    assert read(host=host, port=port).base_url in ({base_url} if base_url else {HOST, f"{HOST}:443"})


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        ({"host": "https://p001.plink.westeurope-1.cognitedata.com"}, f"{HOST}/.default"),
        ({"host": "westeurope-1"}, f"{HOST}/.default"),
        ({"host": f"{HOST}/proxy"}, f"{HOST}/.default"),
        ({"host": f"{HOST}:443"}, f"{HOST}/.default"),
        ({"host": HOST, "port": 443}, f"{HOST}/.default"),
    ],
)
def test_the_scope_of_a_tenant_is_the_cluster_whatever_leads_to_it(
    changes: dict[str, Any], scope: str
) -> None:
    assert read(tenant_id="t", **changes).credentials.scope == scope


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_is_none_is_named(port: int) -> None:
    assert problem(port=port).count("port must be from 1 to 65535") == 1


# -- plain http -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "http://127.0.0.1:8080",
        "http://127.1.2.3",
        "http://localhost:8080",
        "http://[::1]:8080",
        "http://[0:0:0:0:0:0:0:1]",
        "http://LOCALHOST",
    ],
)
def test_plain_http_is_taken_for_this_machine(host: str) -> None:
    assert read(host=host, token_url=f"{host}/token").base_url == host.lower()


@pytest.mark.parametrize(
    "host",
    [
        *(
            "http://westeurope-1.cognitedata.com",
            "http://10.0.0.1",
            "http://0.0.0.0:80",
            "http://localhost.evil.com",
        ),
        *("http://127.0.0.1.evil.com", "http://[::2]", "HTTP://cdf.example.com"),
    ],
)
def test_plain_http_to_another_machine_is_refused(host: str) -> None:
    assert "host would send credentials unencrypted" in problem(host=host)
    assert "extra 'token_url' would send credentials unencrypted" in problem(token_url=f"{host}/token")


@pytest.mark.parametrize("allow", [True, "true", "True"])
def test_plain_http_is_taken_where_the_connection_says_so(allow: Any) -> None:
    settings = read(host="http://cdf.lan", token_url="http://idp.lan/token", allow_http=allow)
    assert (settings.base_url, settings.credentials.token_url) == ("http://cdf.lan", "http://idp.lan/token")


@pytest.mark.parametrize("allow", [False, "false", None, ""])
def test_plain_http_is_refused_where_the_connection_does_not_say_so(allow: Any) -> None:
    assert "unencrypted" in problem(host="http://cdf.lan", allow_http=allow)


@pytest.mark.parametrize("allow", [1, "yes", "1", {}])
def test_a_flag_is_true_or_false(allow: Any) -> None:
    assert "'allow_http' must be true or false" in problem(allow_http=allow)


# -- what is missing, contradicts, or is unknown ----------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, "", " "])
@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("host", "host "),
        ("login", "login (the client id) is missing"),
        ("project", "extra 'project' is missing"),
        ("token_url", "where to log in is missing"),
    ],
)
def test_what_is_null_or_empty_is_missing(field: str, named: str, nothing: str | None) -> None:
    assert named in problem(**{field: nothing})


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_secret_that_is_null_or_empty_is_missing(nothing: str | None) -> None:
    assert "password (the client secret) is missing" in problem(password=nothing)


@pytest.mark.parametrize("nothing", [None, "", " "])
@pytest.mark.parametrize("name", ["tenant_id", "idp", "scopes", "audience", "organization", "verify"])
def test_a_field_that_nobody_touched_is_not_set(name: str, nothing: str | None) -> None:
    assert read(token_url=TOKEN_URL, **{name: nothing}) == read(token_url=TOKEN_URL)


def test_an_unknown_field_that_is_null_is_no_problem() -> None:
    assert read(added_by_a_form=None) == read()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"tenant_id": "t", "token_url": TOKEN_URL}, ("tenant_id", "token_url")),
        ({"tenant_id": "t", "idp": "cdf"}, ("tenant_id", "idp")),
        ({"token_url": TOKEN_URL, "idp": "cdf"}, ("token_url", "idp")),
        ({"tenant_id": "t", "token_url": TOKEN_URL, "idp": "cdf"}, ("tenant_id", "token_url", "idp", "3")),
        ({"idp": "cdf", "scopes": "a"}, ("idp", "scopes")),
        ({"idp": "cdf", "audience": "a"}, ("idp", "audience")),
        ({"idp": "entra"}, ("idp", "'entra'")),
        ({"tenant_id": "a/b"}, ("tenant_id", "'a/b'")),
        ({"tenant_id": "a?b"}, ("tenant_id",)),
    ],
)
def test_contradictions_are_named(extra: dict[str, str], named: tuple[str, ...]) -> None:
    message = problem(**extra)
    for name in named:
        assert name in message


def test_a_forgotten_login_sends_no_secret_to_cognite() -> None:
    message = problem(token_url=None)
    for way in ("tenant_id", "login_url", "idp", "token", "login_file", "azure_identity"):
        assert f"'{way}'" in message


def test_everything_that_is_wrong_is_in_one_message() -> None:
    with pytest.raises(CdfConnectionError) as caught:
        read_connection(
            "plant", host=None, port=None, login=None, password=None, extra={"projekt": "p", "allow_http": 5}
        )
    message = str(caught.value)
    for part in (
        "'plant'",
        "host",
        "login",
        "password",
        "'project' is missing",
        "'projekt'",
        "allow_http",
        "where to log in is missing",
    ):
        assert part in message
    assert message.isprintable()


def test_unknown_fields_are_named_with_those_that_are_known() -> None:
    message = problem(tokenurl="x", secret_thing=SECRET)
    assert "'secret_thing', 'tokenurl'" in message
    assert "token_url" in message


@pytest.mark.parametrize("name", ["project", "tenant_id", "token_url", "scopes", "audience", "idp", "verify"])
@pytest.mark.parametrize("value", [5, ["a"], {"a": "b"}, True])
def test_a_field_that_is_no_text_is_named(name: str, value: Any) -> None:
    assert f"extra '{name}' must be text, not {type(value).__name__}" in problem(**{name: value})


# -- URLs that are none, and secrets in them --------------------------------------------------------------

NO_URLS = [
    "https://",
    "ftp://cdf.example.com",
    "cdf://cdf.example.com",
    "https://cdf.example.com#a",
    "https://cdf.example.com:port",
    "https://cdf.example.com:99999",
    "http://[::1",
    "https://west europe",
    "https://https://cdf.example.com",
    "https://cdf.example.com/a\nHost: b",
    "https://cdf.example.com/" + "a" * 70_000,
    "https://cdf..example.com",
    "https://xn--a.example",
]


@pytest.mark.parametrize("url", NO_URLS)
@pytest.mark.parametrize("port", [None, 8443])
def test_a_host_that_is_no_url_is_refused(url: str, port: int | None) -> None:
    assert "host is not" in problem(host=url, port=port)


@pytest.mark.parametrize("url", [f"{HOST}?a=b", f"{HOST}/?key=hidden"])
def test_a_host_has_no_query(url: str) -> None:
    message = problem(host=url)
    assert "host is not of the form" in message
    assert "hidden" not in message


def test_a_token_endpoint_may_have_a_query() -> None:
    """RFC 6749, section 3.2."""
    url = f"{TOKEN_URL}?p=B2C_1_plant"
    assert read(login_url=url).credentials.token_url == url


@pytest.mark.parametrize("project", [".", "..", "a\ud800b"])
def test_a_project_that_cannot_be_a_part_of_a_url_is_named(project: str) -> None:
    assert "extra 'project' must be the name of a project" in problem(project=project)


@pytest.mark.parametrize("field", ["login_file", "private_key", "verify"])
def test_a_path_may_begin_with_the_home_of_who_runs_airflow(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "it").write_text("x")
    if field == "login_file":
        settings = read(login=None, password=None, login_file="~/it")
        assert settings.credentials == TokenFile(str(tmp_path / "it"))
    elif field == "private_key":
        settings = read(password=None, auth_method="private_key_jwt", login_url=TOKEN_URL, private_key="~/it")
        assert settings.credentials.key == SigningKey(str(tmp_path / "it"), names_certificate=False)
    else:
        assert read(verify="~/it").ca_bundle == str(tmp_path / "it")


@pytest.mark.parametrize("url", [*NO_URLS, "idp.example.com/token", "/token"])
def test_a_token_url_that_is_no_url_is_refused(url: str) -> None:
    assert "extra 'token_url' is not" in problem(token_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://client:hidden@cdf.example.com",
        "https://hidden@cdf.example.com",
        "https://client:hidden/rest@cdf.example.com",
        "https://client:hidden#rest@cdf.example.com",
        "https://cdf.example.com/#hidden",
        "hidden://cdf.example.com",
    ],
)
@pytest.mark.parametrize("field", ["host", "token_url"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(field: str, url: str) -> None:
    message = problem(**{field: url})
    assert field in message
    assert "hidden" not in message


# -- from Airflow -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "cdf://the-client:s3cr3t%2F%2B%26@westeurope-1.cognitedata.com/?project=p&tenant_id=t",
        "cdf://the-client:s3cr3t%2F%2B%26@westeurope-1/?project=p&tenant_id=t&token_url=&idp=",
        "cdf://the-client:s3cr3t%2F%2B%26@https%3A%2F%2Fwesteurope-1.cognitedata.com/?project=p&tenant_id=t",
        '{"conn_type": "cdf", "host": "westeurope-1", "login": "the-client", "password": "s3cr3t/+&", '
        '"extra": {"project": "p", "tenant_id": "t", "token_url": null, "idp": null, "scopes": ""}}',
    ],
)
def test_a_connection_of_airflow_is_read(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PLANT", uri)
    settings = CdfHook("plant").client.settings
    assert (settings.base_url, settings.project) == (HOST, "p")
    assert settings.credentials == read(tenant_id="t").credentials
    assert settings.label == "Airflow connection 'plant'"


def test_both_clients_can_be_made_of_what_was_read() -> None:
    with CdfClient(read()) as client:
        assert client.settings == read()

    async def make() -> Settings:
        async with AsyncCdfClient(read()) as async_client:
            return async_client.settings

    assert asyncio.run(make()) == read()


# -- as the documentation has it --------------------------------------------------------------------------

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "connection.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def filled(example: str) -> str:
    return re.sub("<([a-z ]+)>", lambda found: found[1].replace(" ", "-"), example)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_documentation_is_a_connection(
    example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PLANT", filled(example))
    assert CdfHook("plant").client.settings.project == "my-project"


def test_the_documentation_has_an_example_of_each_kind() -> None:
    kinds = set()
    for example in EXAMPLES:
        said = json.loads(filled(example))
        settings = read_connection(
            "plant",
            host=said["host"],
            port=None,
            login=said.get("login"),
            password=said.get("password"),
            extra=said["extra"],
        )
        kinds.add(type(settings.credentials))
    assert kinds == {ClientCredentials, ClientAssertion, AzureIdentity, TokenFile, StaticToken}


def test_the_documentation_has_each_field() -> None:
    for field in FIELDS:
        assert f"`{field.name}" in PAGE, field.name
        for choice in field.choices:
            assert f"{choice}`" in PAGE, choice


def test_a_cluster_may_have_a_slash_behind_it() -> None:
    assert read(host="westeurope-1/").base_url == "https://westeurope-1.cognitedata.com"


def test_more_than_a_day_is_no_time_for_a_request() -> None:
    assert "at most a day" in problem(request_timeout=1e300)
