"""
No secret is left anywhere: not in logs, not in Airflow's database.

DAGs wait for CDF by each kind of login on a real Airflow that logs all there is (DEBUG): in tasks, in the
triggerer and in a failure callback, through crashes and logins that fail, at an identity provider that
repeats what it was sent. Then each file of the Airflow home and each row of its database is searched for each
secret, token, assertion and nonce, in several encodings.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, unquote

import pytest
from clusters import IMPATIENT, Cluster
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from runs import Run

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.versions import AIRFLOW_VERSION

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="there test_every_airflow.py searches the logs"),
]

SECRET = "Mark3dClientSecret~/with+ signs&%ü"
#: How messages begin about a client that the identity provider refuses.
REFUSED = "The identity provider does not accept the client"
WRONG_SECRET = "Mark3dWrongSecret~/with+ signs&%ü"


@dataclass
class Provider:
    """An identity provider whose tokens CDF takes. What it refuses, it repeats, as some in the field do."""

    cdf: CdfEmulator
    url: str = ""
    #: Paths at which every client is refused.
    refuses: set[str] = field(default_factory=lambda: {"/wrong"})
    #: What it was sent, and must not be found either.
    assertions: list[str] = field(default_factory=list)
    #: By the path that they were asked for at.
    tokens: dict[str, list[str]] = field(default_factory=dict)

    def answer(self, path: str, body: str, authorization: str) -> tuple[int, dict[str, Any]]:
        path = path.partition("?")[0]
        self.assertions += parse_qs(body).get("client_assertion", [])
        if path in self.refuses:
            said = f"I was sent {unquote(body)}, which is {body}, with {authorization}"
            return 401, {"error": "invalid_client", "error_description": said}
        token = self.cdf.tokens.issue()
        self.tokens.setdefault(path, []).append(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    def forget_tokens(self, path: str) -> None:
        """CDF refuses the tokens that were asked for at this path from now on."""
        for token in self.tokens[path]:
            self.cdf.tokens._tokens.pop(token, None)


@contextmanager
def provider(cdf: CdfEmulator) -> Iterator[Provider]:
    found = Provider(cdf)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # Azure's managed identities
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            status, answer = found.answer(self.path, body, self.headers.get("Authorization", ""))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


class Secrets:
    """What must not be found, by what it is."""

    def __init__(self, cdf: CdfEmulator) -> None:
        self.known: dict[str, list[str]] = {}
        issue, create = cdf.tokens.issue, cdf.engine.sessions.create

        def noting_issue() -> str:
            token = issue()
            self.note("a token", token)
            return token

        def noting_create(*arguments: Any, **more: Any) -> Any:
            session = create(*arguments, **more)
            self.note("a nonce", str(session.nonce))
            return session

        cdf.tokens.issue = noting_issue  # type: ignore[method-assign]
        cdf.engine.sessions.create = noting_create  # type: ignore[method-assign]

    def note(self, what: str, *secrets: str) -> None:
        self.known.setdefault(what, []).extend(secrets)

    def forms(self) -> dict[bytes, str]:
        """Each secret in each encoding, with what it is."""
        return {
            form: what
            for what, secrets in self.known.items()
            for secret in secrets
            for form in _forms(secret)
        }


def _forms(secret: str) -> set[bytes]:
    texts = {
        secret,
        secret.split("~")[0],  # of a marked one what every encoding but the next ones leaves as it is
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        secret.encode().hex(),
    }
    # In base64 its letters depend on what stands before it. The outer ones are also its neighbours'.
    encoded = {
        encode(b" " * before + secret.encode())[4:-4]
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
        for before in range(3)
    }
    return {text.encode() for text in texts} | encoded


def found_in(content: bytes, forms: dict[bytes, str], where: str) -> list[str]:
    """What is in there, and the words around it."""
    return [
        f"{what} in {where}: {content[max(0, at - 150) : at + 150]!r}"
        for form, what in forms.items()
        if (at := content.find(form)) >= 0
    ]


def rows(database: Path, table: str = "") -> dict[str, bytes]:
    """The content of each table that has any, or of one."""
    with closing(sqlite3.connect(database)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        content = {
            name: b"\n".join(
                value if isinstance(value, bytes) else str(value).encode()
                for row in db.execute(f'SELECT * FROM "{name}"')
                for value in row
            )
            for name in names
            if not table or name == table
        }
    return {name: values for name, values in content.items() if values}


def triggers(airflow: LocalAirflow) -> list[bytes]:
    """What the triggers of deferred tasks are made of, which Airflow encrypts if it is not plain JSON."""
    (key,) = [
        line.partition(" = ")[2]
        for line in (airflow.home / "airflow.cfg").read_text().splitlines()
        if line.startswith("fernet_key")
    ]
    with closing(sqlite3.connect(airflow.home / "airflow.db")) as db:
        found = [str(kwargs) for (kwargs,) in db.execute('SELECT kwargs FROM "trigger"')]
    return [one.encode() if one.startswith("{") else Fernet(key).decrypt(one) for one in found]


def connections(
    cdf: CdfEmulator, provider: Provider, token: str, pem: str, file: Path
) -> dict[str, dict[str, Any]]:
    """Connections that Airflow stores, one for each kind of login, by their ids."""
    client = {"login": cdf.client_id, "password": SECRET}
    signs = {"auth_method": "private_key_jwt", "private_key": pem}
    given: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "cdf_basic": (client, {"login_url": cdf.token_url, "auth_method": "client_secret_basic"}),
        "cdf_token": ({}, {"token": token}),
        "cdf_file": ({}, {"login_file": str(file)}),
        "cdf_azure": ({}, {"auth_method": "azure_identity"}),
        "cdf_key": ({"login": cdf.client_id}, {"login_url": f"{provider.url}/key", **signs}),
        "cdf_fails": (client, {"login_url": f"{provider.url}/fails"}),
        "cdf_wrong": ({**client, "password": WRONG_SECRET}, {"login_url": f"{provider.url}/wrong"}),
        "cdf_wrong_key": ({"login": cdf.client_id}, {"login_url": f"{provider.url}/wrong", **signs}),
    }
    return {
        conn_id: {
            "connection_id": conn_id,
            "conn_type": "cdf",
            "host": cdf.url,
            **standard,
            "extra": json.dumps({"project": cdf.project, "retry_for": 3, **extra}),
        }
        for conn_id, (standard, extra) in given.items()
    }


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    shutil.copy(examples_folder() / "cdf_roundtrip.py", folder)
    shutil.copy(Path(__file__).parent / "dags" / "waits_for_cdf.py", folder)
    return folder


def test_no_secret_anywhere(tmp_path: Path, dags: Path) -> None:
    home = tmp_path / "home"
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    env = {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        **IMPATIENT,
    }
    with emulator() as cdf, provider(cdf) as idp:
        cdf.client_secret = cdf.tokens._secret = SECRET
        secrets = Secrets(cdf)
        secrets.note("the client secret", SECRET)
        secrets.note("the client's credentials", f"{cdf.client_id}:{SECRET}")
        secrets.note("the wrong secret", WRONG_SECRET)
        secrets.note("a line of the private key", *pem.splitlines()[1:-1])
        env["AIRFLOW_CONN_CDF_DEFAULT"] = cdf.airflow_connection_uri()
        # Where azure-identity asks for the token of a managed identity, instead of at 169.254.169.254.
        env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = idp.url
        file = tmp_path / "token"
        file.write_text(cdf.tokens.issue())
        with LocalAirflow(dags, env=env, home=home) as airflow:
            airflow.wait_until_healthy()
            cluster = Cluster(cdf, airflow)
            for connection in connections(cdf, idp, cdf.tokens.issue(), pem, file).values():
                airflow.api("POST", "/connections", json=connection)

            trip = airflow.trigger_dag("cdf_roundtrip")

            def start(mode: str, login: str) -> Run:
                return Run(cluster, mode, run_id=f"{mode}_{login}", connection=f"cdf_{login}")

            wrong = [start("without_retry", login) for login in ("wrong", "wrong_key")]
            deferred = [start("deferred", login) for login in ("basic", "token", "file", "azure", "fails")]
            crashes, fails = start("poking", "key"), start("poking", "fails")
            # Its failure callback runs in the DAG processor, and logs in there to cancel the execution.
            dies = start("without_retry", "basic")

            for run in deferred:
                run.wait_for("deferred")
            stored = triggers(airflow)
            airflow.kill("triggerer")
            airflow.start("triggerer")
            crashes.wait_for("running")
            crashes.processes()[0].kill()
            crashes.wait_until(lambda: crashes.task()["try_number"] == 2)
            dies.wait_for("running")
            dies.wait_until(lambda: "CDF has started workflow" in dies.log())
            dies.lose_worker()
            dies.wait_until(lambda: dies.statuses() == ["TERMINATED"])
            fails.wait_for("running")
            idp.refuses.add("/fails")
            idp.forget_tokens("/fails")
            for run in (fails, deferred[-1]):
                run.wait_for_log(REFUSED)
            idp.refuses.remove("/fails")

            runs = [*deferred, crashes, fails]
            for run in runs:
                run.finish_in_cdf()
            states = [airflow.wait_for_dag_run(run.dag_id, run.id, 180) for run in runs]
            assert states == ["success"] * len(runs)
            assert airflow.wait_for_dag_run("cdf_roundtrip", trip, 180) == "success"
            for run in wrong:
                assert airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
                assert REFUSED in run.log()
    secrets.note("an assertion", *idp.assertions)

    # The search has something to find in each place.
    tables = rows(home / "airflow.db")
    assert tables.keys() >= {"log", "xcom", "rendered_task_instance_fields", "serialized_dag"}
    assert AIRFLOW_VERSION < (3, 3) or "task_state_store" in tables
    assert b"cdf_token" in tables["rendered_task_instance_fields"]
    assert any(b"cdf_token" in one for one in stored)
    logs = [file for file in (home / "logs").rglob("*.log") if "run_id=" in str(file)]
    assert any(b'"level":"debug"' in file.read_bytes() for file in logs)
    assert all(secrets.known[what] for what in ("a token", "a nonce", "an assertion"))
    assert any(path.startswith("/metadata/identity/oauth2/token") for path in idp.tokens), "by Azure"

    forms = secrets.forms()
    found = [
        *(line for one in stored for line in found_in(one, forms, "a trigger")),
        *(line for name, values in tables.items() for line in found_in(values, forms, f"the table {name}")),
    ]
    for file in home.rglob("*"):
        if file.is_file():
            found += found_in(file.read_bytes(), forms, str(file.relative_to(home)))
    assert not found, "\n".join(found)


def test_the_search_finds_each_encoding() -> None:
    with emulator() as cdf:
        secrets = Secrets(cdf)
        secrets.note("the client secret", SECRET)
        forms = secrets.forms()
        for form in (
            SECRET,
            quote(SECRET),
            json.dumps({"said": json.dumps({"password": SECRET})}),
            SECRET.encode().hex(),
            base64.b64encode(f"some-client:{SECRET}".encode()).decode(),
            base64.urlsafe_b64encode(f"other-clients:{SECRET}!".encode()).decode(),
            cdf.tokens.issue(),
        ):
            assert found_in(f"before {form} after".encode(), secrets.forms(), "a text"), form
        assert not found_in(b"a text without any", forms, "a text")
