"""A secret that is renewed while something waits: before it gives up, the connection is read again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cdf_support
import httpx
import pytest
from identity_provider import CLIENT, SECRET, IdentityProvider, Pair, Refused, identity_provider
from operators.operator_support import context, make
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import auth, calls, sessions
from airflow_provider_cdf.cdf.client import AsyncCdfClient
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfLoginError, CdfRefusedError
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

PAIRS = Pair(), Pair()


@dataclass
class Plant:
    """An Airflow connection, and the identity provider that it names."""

    idp: IdentityProvider
    env: pytest.MonkeyPatch
    is_async: bool
    reads: int = 0

    def connect(self, *, password: str | None = None, host: str | None = None, **extra: Any) -> None:
        """Store the connection, as a person or a secrets backend does."""
        connection = {
            "conn_type": "cdf",
            "host": host or self.idp.url,
            "login": None if "token" in extra else CLIENT,
            "password": password,
            "extra": {"project": "p", "retry_for": 0, **extra},
        }
        if "token" not in extra:
            connection["extra"]["login_url"] = self.idp.token_url
        self.env.setenv("AIRFLOW_CONN_PLANT", json.dumps(connection))

    def ask(self, hook: CdfHook, times: int = 1) -> None:
        if self.is_async:
            asyncio.run(self._ask(hook, times))
        else:
            for _ in range(times):
                hook.client.send(calls.inspect_token())

    async def _ask(self, hook: CdfHook, times: int) -> None:
        for _ in range(times):
            await (await hook.aclient()).send(calls.inspect_token())


@pytest.fixture(params=["sync", "async"])
def plant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    with identity_provider() as idp:
        plant = Plant(idp, monkeypatch, request.param == "async")
        for name in ("read_settings", "aread_settings"):
            real = getattr(lookup, name)

            def counted(hook: CdfHook, conn_id: str, real: Any = real) -> Any:
                plant.reads += 1
                return real(hook, conn_id)

            monkeypatch.setattr(lookup, name, counted)
        yield plant


def old_and_new(plant: Plant, kind: str) -> Iterator[None]:
    """Store a connection that works; then, when asked to go on, renew its secret on both sides."""
    idp = plant.idp
    if kind == "secret":
        plant.connect(password=SECRET)
        yield
        idp.secret = "r3newed-secret"
        plant.connect(password=idp.secret)
    elif kind == "key":
        idp.method, idp.needs_thumbprint = "private_key_jwt", True
        for pair in PAIRS:
            idp.pair = pair
            plant.connect(
                auth_method="private_key_jwt",
                private_key=pair.pem(),
                certificate_thumbprint=pair.thumbprint(),
            )
            if pair is PAIRS[0]:
                yield
    else:
        plant.connect(token=idp.issue())
        yield
        idp.tokens.clear()
        plant.connect(token=idp.issue())
    if kind != "token":
        idp.tokens.clear()
    yield


@pytest.mark.parametrize("kind", ["secret", "key", "token"])
def test_a_hook_goes_on_with_what_was_renewed(plant: Plant, kind: str) -> None:
    steps = old_and_new(plant, kind)
    next(steps)
    hook = CdfHook("plant")
    plant.ask(hook)
    next(steps)

    plant.ask(hook, times=3)

    assert plant.reads == 2
    assert len(plant.idp.refusals) == (kind != "token")
    assert plant.idp.shown[-3:] == [plant.idp.issued[-1]] * 3


@pytest.mark.parametrize("kind", ["secret", "key", "token"])
def test_a_login_that_stays_refused_is_told_after_one_look_into_airflow(plant: Plant, kind: str) -> None:
    steps = old_and_new(plant, kind)
    next(steps)
    hook = CdfHook("plant")
    plant.ask(hook)
    plant.idp.tokens.clear()
    plant.idp.secret, plant.idp.pair = "not the connection's", PAIRS[1]
    with pytest.raises(CdfApiError, match="HTTP 401"):
        plant.ask(hook)
    assert plant.reads == 2


def test_a_provider_that_is_down_is_no_reason_to_ask_airflow(plant: Plant) -> None:
    plant.connect(password=SECRET)
    hook = CdfHook("plant")
    plant.idp.refusal = Refused("temporarily_unavailable", "Later.", 503)
    with pytest.raises(CdfLoginError) as caught:
        plant.ask(hook)
    assert caught.value.is_transient
    assert plant.reads == 1


def test_a_connection_that_is_gone_by_then_leaves_the_error_as_it_was(plant: Plant) -> None:
    plant.connect(password="wr0ng-secret")
    hook = CdfHook("plant")
    if plant.is_async:
        asyncio.run(hook.aclient())
    else:
        assert hook.client
    plant.env.setenv("AIRFLOW_CONN_PLANT", "{}")
    with pytest.raises(CdfLoginError, match="does not accept the client"):
        plant.ask(hook)


def test_a_new_secret_is_not_used_at_the_host_of_the_old_one(plant: Plant) -> None:
    plant.connect(password="wr0ng-secret")
    hook = CdfHook("plant")
    with pytest.raises(CdfLoginError):
        plant.ask(hook)
    with identity_provider(secret="of-another-cdf") as other:
        plant.connect(password=SECRET, host=other.url)
        with pytest.raises(CdfLoginError):
            plant.ask(hook)
    assert plant.idp.shown == []


def test_a_sibling_tells_its_hook(plant: Plant) -> None:
    """The sibling polls, and its hook is what on_kill cancels with, which cannot ask Airflow."""
    plant.connect(password=SECRET)
    hook = CdfHook("plant")
    hook.client.send(calls.inspect_token())
    sibling = hook.sibling(retry_for=0)
    plant.idp.secret = "r3newed-secret"
    plant.idp.tokens.clear()
    plant.connect(password=plant.idp.secret)

    sibling.client.send(calls.inspect_token())

    assert hook.client.settings.credentials == sibling.client.settings.credentials
    plant.env.delenv("AIRFLOW_CONN_PLANT")
    hook.sibling(retry_for=0, in_signal_handler=True).client.send(calls.inspect_token())
    assert plant.reads == 2


def test_in_a_signal_handler_nothing_asks_airflow(plant: Plant) -> None:
    plant.env.setattr(lookup, "_mask", lambda secret: pytest.fail("Airflow was asked to mask something"))
    plant.connect(password="wr0ng-secret")
    hook = CdfHook("plant").sibling(retry_for=0, in_signal_handler=True)
    with pytest.raises(CdfLoginError):
        hook.client.send(calls.inspect_token())
    assert plant.reads == 1
    plant.idp.secret = "wr0ng-secret"
    hook.client._own_login._failure = None  # type: ignore[union-attr] - no pause for this test
    hook.client.send(calls.inspect_token())


# -- sessions -----------------------------------------------------------------------------------------------


def make_session(plant: Plant, hook: CdfHook, known: Settings) -> None:
    conversation = sessions.open_session(known, "run the workflow")
    if plant.is_async:
        asyncio.run(_make_session(hook, conversation))
    else:
        hook.client.perform(conversation)


async def _make_session(hook: CdfHook, conversation: Any) -> None:
    await (await hook.aclient()).perform(conversation)


@pytest.mark.parametrize("is_token_good", [True, False], ids=["token still good", "token expired too"])
def test_a_session_is_made_with_the_secret_that_was_renewed(plant: Plant, is_token_good: bool) -> None:
    plant.connect(password=SECRET)
    hook = CdfHook("plant")
    plant.ask(hook)
    known = hook.client.settings  # as who starts a run knows them, from the begin of a task
    reads = plant.reads
    plant.idp.secret = "r3newed-secret"
    plant.connect(password=plant.idp.secret)
    if not is_token_good:
        plant.idp.tokens.clear()

    for _ in range(2):
        make_session(plant, hook, known)

    made = [body["items"][0]["clientSecret"] for path, body in plant.idp.calls if path.endswith("/sessions")]
    assert made[-2:] == ["r3newed-secret"] * 2
    assert plant.reads == reads + 1


def test_a_session_that_stays_refused_is_told_after_one_look_into_airflow(plant: Plant) -> None:
    plant.connect(password=SECRET)
    hook = CdfHook("plant")
    plant.ask(hook)
    known, reads = hook.client.settings, plant.reads
    plant.idp.secret = "not the connection's"
    with pytest.raises(CdfRefusedError, match="client credentials") as caught:
        make_session(plant, hook, known)
    assert SECRET not in str(caught.value)
    assert plant.reads == reads + 1


class Renewed:
    """What knows the secret that was renewed."""

    def read_settings(self) -> Settings:
        credentials = ClientCredentials(cdf_support.TOKEN_URL, "the-client", "r3newed-secret", scope="a b")
        return replace(cdf_support.settings(), credentials=credentials)

    async def aread_settings(self) -> Settings:
        return self.read_settings()


def test_an_answer_that_comes_after_the_secret_was_renewed_is_followed_by_another_try() -> None:
    """Of two requests with the old secret, the first one has brought the new one."""
    settings = replace(cdf_support.settings(), source=Renewed())
    refusals: list[str] = []

    async def scene() -> None:
        may_answer = asyncio.Event()

        async def answer(request: httpx.Request) -> httpx.Response:
            if str(request.url) == cdf_support.TOKEN_URL:
                return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})
            if b"r3newed-secret" in request.content:
                return httpx.Response(200, json=cdf_support.SESSION)
            refusals.append("old secret")
            if len(refusals) == 2:
                await may_answer.wait()
            return httpx.Response(400, json={"error": {"code": 400, "message": "Wrong client secret."}})

        client = cdf_support.wired(AsyncCdfClient(settings), httpx.MockTransport(answer))
        both = [
            asyncio.create_task(client.perform(sessions.open_session(settings, "run the workflow")))
            for _ in range(2)
        ]
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        may_answer.set()
        assert [session.nonce for session in await asyncio.gather(*both)] == ["the-nonce"] * 2

    asyncio.run(scene())
    assert len(refusals) == 2


# -- the Test button ----------------------------------------------------------------------------------------


def press_test(plant: Plant) -> str:
    hook = CdfHook("plant")
    is_good, words = asyncio.run(hook.atest_connection()) if plant.is_async else hook.test_connection()
    assert not is_good
    return words


def test_a_test_is_about_now(plant: Plant) -> None:
    plant.connect(password="r3newed-secret")
    for _ in range(3):
        assert "does not accept the client" in press_test(plant)
    assert len(plant.idp.refusals) == 3
    plant.idp.secret = "r3newed-secret"
    assert press_test(plant).startswith("CDF knows client")


def test_a_test_does_not_trust_a_token_of_before(plant: Plant) -> None:
    plant.connect(password=SECRET)
    plant.ask(CdfHook("plant"))
    plant.idp.secret = "r3newed-secret"
    assert "does not accept the client" in press_test(plant)
    plant.ask(CdfHook("plant"))  # what is under way is not told of it
    assert len(auth._shared) == 1


# -- waits on a worker ------------------------------------------------------------------------------------


class RenewedEmulator:
    """An emulator whose client secret is renewed, there and in Airflow."""

    def __init__(self, cdf: CdfEmulator, env: pytest.MonkeyPatch) -> None:
        self.cdf, self._env = cdf, env
        env.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
        self.project = Project(cdf)

    def renew(self) -> None:
        self.cdf.client_secret = self.cdf.tokens._secret = "r3newed-secret"
        self.cdf.tokens.expire_all()
        self._env.setenv("AIRFLOW_CONN_CDF_DEFAULT", self.cdf.airflow_connection_uri())
        self.project = Project(self.cdf)


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch) -> Iterator[RenewedEmulator]:
    with CdfEmulator() as cdf:
        yield RenewedEmulator(cdf, monkeypatch)


def test_a_sensor_that_pokes_outlives_a_new_secret(renewed: RenewedEmulator, ti: FakeTaskInstance) -> None:
    execution_id = renewed.project.run(renewed.project.define(function_task("approve", waits=True)))
    renewed.project.task(execution_id, "approve")
    sensor = CdfWorkflowSensor(task_id="wait", execution_id=execution_id, poke_interval=0.01, timeout=60)
    assert not sensor.poke({"ti": ti})

    renewed.renew()

    assert not sensor.poke({"ti": ti})
    renewed.project.update(renewed.project.task(execution_id, "approve")["id"], "COMPLETED")
    assert sensor.poke({"ti": ti})


def test_an_operator_that_waits_on_its_worker_outlives_a_new_secret(
    renewed: RenewedEmulator, ti: FakeTaskInstance
) -> None:
    workflow = renewed.project.define(function_task("approve", waits=True))
    operator = make(workflow, ti, wait_for_completion=True, deferrable=False)
    has_ended = threading.Event()
    failed: list[BaseException] = []

    def meanwhile() -> None:
        try:
            executions: list[dict[str, Any]] = []
            while not executions and not has_ended.is_set():
                executions = renewed.project.executions(workflow)
            renewed.project.task(executions[0]["id"], "approve")
            renewed.renew()
            renewed.project.update(renewed.project.task(executions[0]["id"], "approve")["id"], "COMPLETED")
        except BaseException as error:
            failed.append(error)
            raise

    other = threading.Thread(target=meanwhile)
    other.start()
    try:
        assert operator.execute(context(ti, operator)) == operator.execution_id
    finally:
        has_ended.set()
        other.join()
    assert failed == []
