"""
The form of a connection, and Airflow's Test button, in a real browser.

The form of Airflow 3.2 and later is made of the provider info, the one of 3.1 by the hook:
``test_older_form.py`` runs this file there. ``CDF_SCREENSHOTS=1`` makes the pictures of docs/connection.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browsers import chromium, needs_chromium
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from airflow_provider_cdf.cdf.logins.clients import ClientAssertion
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.demo.shapes import Shape
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.connection import read_connection
from airflow_provider_cdf.hooks.connection_fields import EXTRA_FIELDS, LOGIN, PROJECT, REQUESTS
from airflow_provider_cdf.hooks.connection_login import WAYS
from airflow_provider_cdf.versions import AIRFLOW_VERSION

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, ViewportSize

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
    pytest.mark.skipif(
        AIRFLOW_VERSION < (3, 1), reason="3.0 shows no provider's fields, 2.11 has another UI"
    ),
]
#: It has sections, and marks what is required; before, all fields of extra are in one section.
IS_OF_PROVIDER_INFO = AIRFLOW_VERSION >= (3, 2)
of_provider_info = pytest.mark.skipif(not IS_OF_PROVIDER_INFO, reason="3.1 has no sections and marks nothing")

SIZE: ViewportSize = {"width": 1000, "height": 560}
IMAGES = Path(__file__).parents[2] / "docs" / "images"


class OnlyPages(Shape):
    """Nothing runs: the pages are the api-server's."""

    components = {"api-server": ["api-server"]}


class Form:
    """The dialog "Add Connection" or "Edit Connection". It shows one of its sections at a time."""

    def __init__(self, page: Page) -> None:
        self.page, self.dialog = page, page.get_by_role("dialog")

    def header(self, section: str) -> Locator:
        if section != Pages.STANDARD and not IS_OF_PROVIDER_INFO:
            section = "Extra Fields"
        return self.dialog.get_by_role("button", name=section, exact=True)

    def open(self, section: str) -> None:
        header = self.header(section)
        if header.get_attribute("aria-expanded") == "false":
            header.click()
            names = [name for name, field in EXTRA_FIELDS.items() if field["schema"]["section"] == section]
            self.field(names[0] if names else "login").wait_for()

    def field(self, name: str) -> Locator:
        # By name: the labels of fields of extra lead to no input (Airflow 3.3).
        return self.dialog.locator(f"[name={name}], [name=element_{name}]")

    def fill(self, section: str, **values: str) -> None:
        self.open(section)
        for name, value in values.items():
            self.field(name).fill(value)

    def choose(self, name: str, choice: str) -> None:
        field = self.dialog.locator(f"div:has(> [name=element_{name}]), [id='select:element_{name}']")
        field.get_by_role("combobox").first.click()
        self.page.get_by_role("option", name=choice).click()

    def save(self) -> dict[str, Any]:
        """Save, and return what the browser has sent."""
        with self.page.expect_request(lambda request: request.method in ("POST", "PATCH")) as sent:
            self.dialog.get_by_role("button", name="Save").click()
        self.dialog.wait_for(state="hidden")
        body: dict[str, Any] = json.loads(sent.value.post_data or "")
        return body


class Pages:
    """Admin > Connections."""

    STANDARD = "Standard Fields"

    def __init__(self, page: Page, airflow: LocalAirflow) -> None:
        self.page, self.airflow = page, airflow

    def add(self, conn_id: str) -> Form:
        self.page.goto(f"{self.airflow.url}/connections")
        self.page.get_by_role("button", name="Add Connection").first.click()
        form = Form(self.page)
        form.dialog.get_by_label("Connection ID").fill(conn_id)
        form.dialog.get_by_role("combobox").fill("Cognite")
        self.page.get_by_role("option", name="Cognite Data Fusion").click()
        form.field("login").wait_for()
        return form

    def edit(self, conn_id: str) -> Form:
        self.row(conn_id).get_by_role("button", name="Edit Connection").click()
        form = Form(self.page)
        form.field("login").wait_for()
        return form

    def row(self, conn_id: str) -> Locator:
        return self.page.get_by_role("row").filter(has_text=conn_id)

    def test(self, conn_id: str) -> tuple[str, str]:
        """Press the Test button; return the title and the text of what the page shows then."""
        # Only what appears now counts: what was said before goes away by itself.
        toasts = self.page.locator("[data-scope=toast][data-part=root][data-state=open]")
        self.page.reload()
        self.row(conn_id).get_by_role("button", name="Test Connection").click()
        toasts.first.wait_for()
        parts = [toasts.locator(f"[data-part={part}]").first for part in ("title", "description")]
        return parts[0].inner_text(), parts[1].inner_text()

    def stored(self, conn_id: str) -> dict[str, Any]:
        """As Airflow shows it, with the secrets masked."""
        connection: dict[str, Any] = self.airflow.api("GET", f"/connections/{conn_id}")
        return {**connection, "extra": json.loads(connection["extra"])}


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    env = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    with LocalAirflow(tmp_path_factory.mktemp("dags"), shape=OnlyPages(), env=env) as airflow:
        airflow.wait_until_healthy()
        yield airflow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def opened(airflow: LocalAirflow, browser: Browser) -> Iterator[Pages]:
    """A page that must have asked only Airflow for anything."""
    context = browser.new_context(locale="en-GB", viewport=SIZE)
    page = context.new_page()
    page.set_default_timeout(20_000)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    # Each visitor is an admin. Airflow 3.1 leads a page that comes without this to its start page.
    page.goto(f"{airflow.url}/auth/token/login")
    yield Pages(page, airflow)
    context.close()
    assert [url for url in requests if not url.startswith((f"{airflow.url}/", "data:", "blob:"))] == []


@pytest.fixture
def pages(airflow: LocalAirflow, browser: Browser) -> Iterator[Pages]:
    with opened(airflow, browser) as pages:
        yield pages


@pytest.fixture(scope="module")
def new_form(airflow: LocalAirflow, browser: Browser) -> Iterator[Form]:
    """An empty form, for tests that only look at it."""
    with opened(airflow, browser) as pages:
        yield pages.add("cdf_looked_at")


def fill(form: Form, cdf: CdfEmulator, *, port: str, **others: str) -> None:
    at = urlsplit(cdf.url)
    form.fill(
        Pages.STANDARD,
        host=f"{at.scheme}://{at.hostname}",
        login=cdf.client_id,
        password=cdf.client_secret,
        port=port,
        **others,
    )
    form.fill(PROJECT, project=cdf.project)
    form.fill(LOGIN, login_url=cdf.token_url)


@of_provider_info
def test_nothing_is_saved_without_a_project(pages: Pages) -> None:
    form = pages.add("cdf_no_project")
    save = form.dialog.get_by_role("button", name="Save")

    assert form.header(PROJECT).is_visible()
    assert "required" in PROJECT
    form.fill(Pages.STANDARD, host="westeurope-1", login="some-client", password="some-secret")
    assert save.is_disabled()
    form.open(PROJECT)
    marked = form.dialog.locator("label").filter(has=pages.page.locator("[aria-hidden]", has_text="*"))
    assert [text.split("\n")[0].strip(" *") for text in marked.all_inner_texts()] == [
        *("Connection ID", "Connection Type", "Project")
    ]

    form.fill(PROJECT, project="my-project")
    pages.page.wait_for_function("button => !button.disabled", arg=save.element_handle())


def test_each_section_says_what_it_is_for(new_form: Form) -> None:
    form = new_form
    form.open(Pages.STANDARD)
    words = form.dialog.inner_text()
    assert ("Port (set it to 443, or Test fails in Airflow 3.3)" in words) == IS_OF_PROVIDER_INFO
    assert form.field("port").get_attribute("placeholder") == "443"
    for section in (PROJECT, LOGIN, REQUESTS):
        form.open(section)
        shown = form.dialog.inner_text()
        assert "null" not in shown, section
        for name, field in EXTRA_FIELDS.items():
            assert field["schema"]["section"] != section or field["description"] in shown, name


def test_that_one_way_to_log_in_is_to_be_chosen_is_said(new_form: Form) -> None:
    assert "choose one way" in LOGIN
    assert new_form.header(LOGIN).is_visible()
    new_form.open(LOGIN)
    shown = new_form.dialog.inner_text()
    for way in ("First", "Second", "Third", "Fourth", "Fifth"):
        assert shown.count(f"{way} way") == 1, way
    assert shown.count("sixth way") == 1
    ways = [name for name in WAYS if name in EXTRA_FIELDS]
    assert len(ways) == 5
    for name in ways:
        assert " way" in EXTRA_FIELDS[name]["description"], name


def test_secrets_are_masked_and_seconds_are_numbers(new_form: Form) -> None:
    kinds: dict[str, str] = {}
    for section in (Pages.STANDARD, PROJECT, LOGIN, REQUESTS):
        new_form.open(section)
        for one in new_form.dialog.locator("input[name], textarea[name]").all():
            name = (one.get_attribute("name") or "").removeprefix("element_")
            kind = one.evaluate("one => one.tagName == 'TEXTAREA' ? 'textarea' : one.inputMode || one.type")
            kinds[name] = kind

    typed = {name for name, field in EXTRA_FIELDS.items() if "enum" not in field["schema"]}
    assert kinds.keys() >= {"host", "login", "password", "port", *typed}
    # The form of 3.1 is told so, too, but masks no field of extra while it is typed. Stored ones are masked.
    masked = ["token", "private_key"] if IS_OF_PROVIDER_INFO else []
    assert [name for name, kind in kinds.items() if kind == "password"] == ["password", *masked]
    assert [name for name, kind in kinds.items() if kind == "textarea"] == ["description"]
    assert kinds["request_timeout"] == kinds["retry_for"] == ("decimal" if IS_OF_PROVIDER_INFO else "text")


def test_a_connection_is_added_tested_and_edited(pages: Pages, cdf: CdfEmulator) -> None:
    form = pages.add("cdf_form")
    port = str(urlsplit(cdf.url).port)
    fill(form, cdf, port=port)
    if wants_pictures():
        IMAGES.mkdir(exist_ok=True)
        form.open(Pages.STANDARD)
        pages.page.set_viewport_size({"width": 1000, "height": 1080})  # the dialog as a whole
        pages.page.wait_for_timeout(500)  # until nothing moves
        form.dialog.screenshot(path=IMAGES / "connection-form.png")
        pages.page.set_viewport_size(SIZE)

    sent = form.save()

    assert {name: value for name, value in json.loads(sent["extra"]).items() if value is not None} == {
        "project": cdf.project,
        "login_url": cdf.token_url,
    }
    title, sentence = pages.test("cdf_form")
    assert title == "Test Connection Successful"
    assert sentence == (
        f"Logged in to project {cdf.project!r} at {cdf.url} as client {cdf.client_id!r}, "
        "which may run workflows there."
    )
    if wants_pictures():
        pages.page.wait_for_timeout(500)
        pages.page.screenshot(path=IMAGES / "connection-test.png")

    form = pages.edit("cdf_form")
    assert form.field("password").input_value() == "***"
    form.fill(Pages.STANDARD, password="wr0ng-s3cr3t")
    form.save()
    title, sentence = pages.test("cdf_form")
    assert title == "Test Connection Failed"
    assert "wr0ng-s3cr3t" not in sentence
    assert sentence.startswith("The identity provider does not accept the client.")
    assert sentence.endswith(f"Look at this connection. [client {cdf.client_id!r}]"), "not by a made-up id"

    form = pages.edit("cdf_form")
    form.fill(Pages.STANDARD, password=cdf.client_secret)
    form.fill(PROJECT, organization="my-company")
    form.fill(REQUESTS, request_timeout="12.5", retry_for="0")
    form.save()
    extra = pages.stored("cdf_form")["extra"]
    assert extra["project"] == cdf.project
    assert extra["login_url"] == cdf.token_url, "not masked"
    seconds = (12.5, 0) if IS_OF_PROVIDER_INFO else ("12.5", "0")
    assert (extra["organization"], extra["request_timeout"], extra["retry_for"]) == ("my-company", *seconds)
    assert pages.test("cdf_form")[0] == "Test Connection Successful"


@pytest.mark.skipif(IS_OF_PROVIDER_INFO, reason="the next test is about later ones")
def test_the_test_button_needs_no_port(pages: Pages, cdf: CdfEmulator) -> None:
    form = pages.add("cdf_without_port")
    fill(form, cdf, port="")
    form.fill(Pages.STANDARD, host=cdf.url)
    form.save()
    assert pages.test("cdf_without_port")[0] == "Test Connection Successful"


@of_provider_info
def test_without_a_port_the_test_button_fails_and_with_one_it_works(pages: Pages, cdf: CdfEmulator) -> None:
    """If the first half fails, Airflow has been mended: then the port's label has had its day."""
    form = pages.add("cdf_port")
    fill(form, cdf, port="")
    form.fill(Pages.STANDARD, host=cdf.url)
    form.save()

    with pages.page.expect_response(lambda response: response.url.endswith("/connections/test")) as answer:
        title, _ = pages.test("cdf_port")
    assert json.loads(answer.value.request.post_data or "")["port"] == 0
    assert answer.value.status == 400
    assert title == "Test Connection Failed"

    form = pages.edit("cdf_port")
    form.fill(Pages.STANDARD, port=str(urlsplit(cdf.url).port))
    form.save()
    assert pages.test("cdf_port")[0] == "Test Connection Successful"


def test_a_private_key_is_pasted_masked_and_kept(pages: Pages) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    form = pages.add("cdf_key")
    form.fill(Pages.STANDARD, host="westeurope-1", login="some-client", port="443")
    form.fill(PROJECT, project="my-project")
    form.fill(LOGIN, tenant_id="my-company.onmicrosoft.com", certificate_thumbprint="A1" * 20)
    form.choose("auth_method", "private_key_jwt")
    form.field("private_key").focus()
    pages.page.keyboard.insert_text(pem)

    sent = form.save()

    given = {name: sent.get(name) for name in ("host", "port", "login", "password")}
    settings = read_connection("cdf_key", **given, extra=json.loads(sent["extra"]))
    assert isinstance(settings.credentials, ClientAssertion)
    assert isinstance(settings.credentials.key.sign("some-client", "some-audience"), str)
    assert pages.stored("cdf_key")["extra"]["private_key"] == "***"
    form = pages.edit("cdf_key")
    form.open(LOGIN)
    assert form.field("private_key").input_value() == "***"


def test_seconds_that_were_stored_as_text_can_be_edited(pages: Pages) -> None:
    """A connection from a URI has text only."""
    extra = {"project": "my-project", "tenant_id": "my-tenant", "request_timeout": "30"}
    body = {"connection_id": "cdf_text", "conn_type": "cdf", "extra": json.dumps(extra)}
    pages.airflow.api("POST", "/connections", json=body)
    pages.page.goto(f"{pages.airflow.url}/connections")

    form = pages.edit("cdf_text")
    form.header(REQUESTS).click()
    assert form.field("request_timeout").input_value() == "30"
    # Airflow 3.3 shows only fields that are stored: docs/connection.md says where the others are.
    assert form.field("verify").count() == 0
    form.field("request_timeout").fill("31")
    form.save()

    assert float(pages.stored("cdf_text")["extra"]["request_timeout"]) == 31


def test_the_list_of_providers_links_to_the_documents(pages: Pages) -> None:
    """Admin > Providers."""
    pages.page.goto(f"{pages.airflow.url}/providers")
    row = pages.row("airflow-provider-cdf")
    row.wait_for()
    links = [(link.get_attribute("href") or "").strip() for link in row.get_by_role("link").all()]
    urls = dict(entry.split(", ") for entry in metadata("airflow-provider-cdf").get_all("Project-URL", ()))
    assert urls["Documentation"] in links


def wants_pictures() -> bool:
    return bool(os.environ.get("CDF_SCREENSHOTS"))
