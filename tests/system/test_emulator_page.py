"""The emulator's page at ``/`` in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browsers import chromium, needs_chromium

from airflow_provider_cdf.demo import examples_folder
from airflow_provider_cdf.emulator import CdfEmulator, Pace, Reply
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.emulator.rules.store import Execution

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.slow, needs_chromium]

MARKUP = """<script>window.injected = 1</script><img src="/x" onerror="window.injected = 2">'"&amp; Größe µ"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator(workflows=[examples_folder() / "workflows"], pace=Pace(retry_delay=0.1)) as emulator:
        yield emulator


@pytest.fixture
def page(cdf: CdfEmulator, browser: Browser) -> Iterator[Page]:
    """An open page, which at the end of the test must have had no error and asked nobody but the emulator."""
    errors: list[str] = []
    requests: list[str] = []
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(cdf.url)
    yield page
    context.close()
    assert errors == []
    elsewhere = [url for url in requests if urlsplit(url).netloc != urlsplit(cdf.url).netloc]
    assert [url for url in elsewhere if not url.startswith("data:")] == []


def function(external_id: str, *after: str, does: str = "f", is_async: bool = False, **keys: Any) -> Any:
    return {
        "externalId": external_id,
        "type": "function",
        "parameters": {"function": {"externalId": does, "data": {}}, "isAsyncComplete": is_async},
        "dependsOn": [{"externalId": name} for name in after],
        **keys,
    }


def define(cdf: CdfEmulator, workflow: str, *tasks: dict[str, Any], version: str = "1") -> None:
    with cdf.turn() as engine:
        definition = WorkflowDefinition.model_validate({"tasks": list(tasks)})
        engine.catalog.upsert_version(workflow, version, definition)


def run(cdf: CdfEmulator, workflow: str, version: str = "1", **given: Any) -> str:
    with cdf.turn() as engine:
        return engine.run(workflow, version, **given).id


def wait_until(cdf: CdfEmulator, execution_id: str, condition: Callable[[Execution], bool]) -> Execution:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with cdf.turn() as engine:
            execution = engine.execution(execution_id)
            if condition(execution):
                return execution
        time.sleep(0.02)
    raise AssertionError(f"{execution.workflow_external_id} is {execution.status}")


def ended(execution: Execution) -> bool:
    return execution.status != "RUNNING"


def task_id(cdf: CdfEmulator, execution_id: str, external_id: str) -> str:
    """The id of the task once it waits to be updated."""

    def waiting(execution: Execution) -> list[str]:
        tasks = execution.tasks()
        return [t.id for t in tasks if t.external_id == external_id and t.status == "IN_PROGRESS"]

    return waiting(wait_until(cdf, execution_id, lambda execution: bool(waiting(execution))))[0]


def entry(page: Page, execution_id: str) -> Locator:
    return page.get_by_role("navigation").get_by_role("button").filter(has_text=execution_id)


def box(page: Page, external_id: str) -> Locator:
    """The task in the graph."""
    return page.locator("svg").locator(f"[data-task={quoted(external_id)}]")


def text_of(page: Page, external_id: str) -> str:
    """What the graph says about the task, with its tooltip in front."""
    return box(page, external_id).text_content() or ""


def quoted(text: str) -> str:
    """As a string of CSS."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def wait_for_status(page: Page, external_id: str, status: str) -> None:
    page.locator("svg").locator(f"[data-task={quoted(external_id)}][data-status={status}]").wait_for()


def expect_count(locator: Locator, count: int) -> None:
    until = time.monotonic() + 10
    while (found := locator.count()) != count:
        assert time.monotonic() < until, f"{found} instead of {count}"
        time.sleep(0.05)


def test_executions_are_listed_newest_first(cdf: CdfEmulator, page: Page) -> None:
    ids = [run(cdf, "tank_balance"), run(cdf, "pump_health"), run(cdf, "tank_balance")]
    entry(page, ids[-1]).wait_for()

    entries = page.get_by_role("navigation").get_by_role("button").all_inner_texts()

    assert [execution_id for text in entries for execution_id in ids if execution_id in text] == ids[::-1]
    assert "tank_balance" in entries[0]
    assert "pump_health" in entries[1]


def test_an_execution_shows_its_graph_with_statuses_and_durations(cdf: CdfEmulator, page: Page) -> None:
    execution_id = run(cdf, "tank_balance")
    wait_until(cdf, execution_id, ended)
    run(cdf, "pump_health")

    entry(page, execution_id).click()

    wait_for_status(page, "levels", "COMPLETED")
    assert page.locator("svg [data-task]").count() == 2
    assert "0.2 s" in text_of(page, "levels")
    assert "COMPLETED" in text_of(page, "balance")
    assert page.locator("svg path").count() == 1
    levels, balance = (box(page, name).bounding_box() for name in ("levels", "balance"))
    assert levels
    assert balance
    assert levels["x"] + levels["width"] < balance["x"]


def test_the_graph_changes_when_a_task_is_updated(cdf: CdfEmulator, page: Page) -> None:
    cdf.set_function("read_sensors", {"vibration": 7.1})
    execution_id = run(cdf, "pump_health", input={"pump": "P-101"})
    entry(page, execution_id).click()
    wait_for_status(page, "score", "IN_PROGRESS")
    assert "not started" in text_of(page, "publish")

    with cdf.turn() as engine:
        waits = next(t for t in engine.execution(execution_id).tasks() if t.external_id == "score")
        engine.update_task(waits.id, "COMPLETED", {"risk": 0.71})

    wait_for_status(page, "score", "COMPLETED")
    wait_for_status(page, "publish", "COMPLETED")
    entry(page, execution_id).filter(has_text="COMPLETED").wait_for()


def test_a_click_on_a_task_shows_its_input_and_output(cdf: CdfEmulator, page: Page) -> None:
    cdf.set_function("read_sensors", {"vibration": 7.1})
    execution_id = run(cdf, "pump_health", input={"pump": "P-101"})
    update = task_id(cdf, execution_id, "score")
    entry(page, execution_id).click()
    box(page, "score").click()
    page.locator("pre.input").filter(has_text='"vibration": 7.1').wait_for()

    with cdf.turn() as engine:
        engine.update_task(update, "COMPLETED", {"risk": 0.71})

    page.locator("pre.output").filter(has_text='"risk": 0.71').wait_for()
    assert update in page.get_by_role("main").inner_text()
    box(page, "publish").focus()
    page.keyboard.press("Enter")
    page.locator("pre.input").filter(has_text='"risk": 0.71').wait_for()


def test_every_attempt_at_a_task_is_shown_with_its_reason(cdf: CdfEmulator, page: Page) -> None:
    cdf.set_function("no-wind", Reply(error="there is no wind"))
    define(cdf, "windmill", function("turn", does="no-wind", retries=1), function("grind", "turn"))
    execution_id = run(cdf, "windmill")
    wait_until(cdf, execution_id, ended)

    entry(page, execution_id).click()
    wait_for_status(page, "turn", "FAILED")

    assert "attempt 2" in text_of(page, "turn")
    assert "not started" in text_of(page, "grind")
    assert "there is no wind" in page.get_by_role("main").inner_text()
    box(page, "turn").click()
    page.get_by_role("heading", name="attempt 2").wait_for()
    assert page.get_by_role("main").inner_text().count("The function call failed: there is no wind") >= 2


def test_nested_tasks_are_drawn_between_their_parent_and_what_waits_for_it(
    cdf: CdfEmulator, page: Page
) -> None:
    cdf.set_function("plan", [function("one"), function("two", "one")])
    dynamic = {"dynamic": {"tasks": "${plan.output.response}"}}
    inline = {"subworkflow": {"tasks": [function("inner"), function("last", "inner")]}}
    after = {"type": "dynamic", "parameters": dynamic, "dependsOn": [{"externalId": "plan"}]}
    define(
        cdf,
        "nested",
        function("plan", does="plan"),
        {"externalId": "each", **after},
        {"externalId": "part", "type": "subworkflow", "parameters": inline},
        function("end", "each", "part"),
    )
    execution_id = run(cdf, "nested")
    wait_until(cdf, execution_id, ended)

    entry(page, execution_id).click()
    wait_for_status(page, "end", "COMPLETED")

    names = ("plan", "each", "one", "two", "part", "inner", "last", "end")
    boxes = {name: box(page, name).bounding_box() for name in names}
    for chain in (("plan", "each", "one", "two", "end"), ("part", "inner", "last", "end")):
        columns = [(boxes[name] or {})["x"] for name in chain]
        assert columns == sorted(set(columns))
    corners = [(found["x"], found["y"]) for found in boxes.values() if found]
    assert len(set(corners)) == len(names), "tasks are drawn over each other"


def test_a_line_passes_no_task_that_it_does_not_lead_to(cdf: CdfEmulator, page: Page) -> None:
    tasks = [function("a"), function("long"), function("b", "a"), function("c", "a")]
    define(cdf, "passing", *tasks, function("end", "b", "c", "long"))
    execution_id = run(cdf, "passing")
    wait_until(cdf, execution_id, ended)

    entry(page, execution_id).click()
    wait_for_status(page, "end", "COMPLETED")

    rows = {name: (box(page, name).bounding_box() or {})["y"] for name in ("a", "long", "b", "c")}
    assert rows["long"] not in (rows["a"], rows["b"], rows["c"])


def test_markup_in_names_is_shown_as_text(cdf: CdfEmulator, page: Page) -> None:
    cdf.set_function(MARKUP, {MARKUP: MARKUP})
    define(
        cdf,
        f"w {MARKUP}",
        function(f"a {MARKUP}", does=MARKUP),
        function("b", f"a {MARKUP}", is_async=True, retries=0),
        version=f"v {MARKUP}",
    )
    execution_id = run(cdf, f"w {MARKUP}", f"v {MARKUP}", input={MARKUP: MARKUP}, metadata={"k": MARKUP})
    task_id(cdf, execution_id, "b")

    entry(page, execution_id).click()
    box(page, f"a {MARKUP}").click()
    page.locator("pre.output").filter(has_text="Größe").wait_for()
    with cdf.turn() as engine:
        engine.cancel(execution_id, f"because {MARKUP}")
    page.get_by_role("main").get_by_text(f"because {MARKUP}").wait_for()

    assert MARKUP in page.get_by_role("main").inner_text()
    assert f"w {MARKUP} (v {MARKUP})" in entry(page, execution_id).inner_text()
    assert page.locator("svg title").first.text_content() == f"a {MARKUP} (function)"
    assert page.evaluate("window.injected") is None
    assert page.locator("img, main script, nav script").count() == 0


def test_the_page_says_when_the_emulator_does_not_answer(cdf: CdfEmulator, page: Page) -> None:
    page.get_by_text("Executions: 0").wait_for()

    page.route("**/emulator/executions?*", lambda route: route.fulfill(status=200, body="gone"))

    page.get_by_text("The emulator does not answer").wait_for()


def test_the_page_says_when_the_emulator_answers_again(cdf: CdfEmulator, page: Page) -> None:
    page.get_by_text("Executions: 0").wait_for()
    page.route("**/emulator/executions?*", lambda route: route.fulfill(status=200, body="gone"))
    page.get_by_text("The emulator does not answer").wait_for()

    page.unroute("**/emulator/executions?*")

    page.get_by_text("Executions: 0").wait_for(timeout=5_000)


def test_focus_and_selection_stay_while_a_task_waits(cdf: CdfEmulator, page: Page) -> None:
    execution_id = run(cdf, "pump_health", input={"pump": "P-101"})
    task_id(cdf, execution_id, "score")
    entry(page, execution_id).click()
    box(page, "score").click()
    page.locator("pre.input").wait_for()
    box(page, "score").focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('pre.input'))")

    page.wait_for_timeout(2_500)

    assert page.evaluate("document.activeElement.dataset.task") == "score"
    assert "P-101" in page.evaluate("getSelection().toString()")


def test_an_address_with_an_unknown_execution_is_answered(cdf: CdfEmulator, browser: Browser) -> None:
    execution_id = run(cdf, "pump_health")
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

    page.goto(f"{cdf.url}/#00000000-0000-4000-8000-000000000000")
    entry(page, execution_id).wait_for()
    page.wait_for_timeout(2_500)

    # One error is the browser's own line about the answer 404.
    assert len(errors) <= 1
    assert "No execution yet" not in page.get_by_role("main").inner_text()
    page.close()


def test_a_changed_address_shows_that_execution(cdf: CdfEmulator, page: Page) -> None:
    first, second = run(cdf, "tank_balance"), run(cdf, "pump_health")
    entry(page, second).click()
    page.get_by_role("heading", name="pump_health").wait_for()
    entry(page, first).click()
    page.get_by_role("heading", name="tank_balance").wait_for()

    page.go_back()

    page.get_by_role("heading", name="pump_health").wait_for()
    assert page.url.endswith(second)


def test_the_search_looks_through_all_executions(cdf: CdfEmulator, page: Page) -> None:
    define(cdf, "pumps", function("measure"))
    define(cdf, "tanks", function("balance"))
    old = run(cdf, "pumps", metadata={"airflow_dag_id": "Nightly_DAG"})
    for _ in range(101):  # more than the page lists
        run(cdf, "tanks")
    listed = page.locator("#executions button")
    expect_count(listed, 100)
    for words in ("nightly", "PUMPS 1", "measure", old[:13], "pump dag"):
        page.fill("#search", words)
        expect_count(listed, 1)
        assert old in listed.inner_text()
    page.fill("#search", "<b>nobody</b>")
    page.get_by_text("No execution has '<b>nobody</b>'.").wait_for()
    expect_count(listed, 0)
    page.fill("#search", "")
    expect_count(listed, 100)


def test_an_execution_links_to_its_run_in_airflow(cdf: CdfEmulator, page: Page) -> None:
    define(cdf, "linked", function("a"))
    for url, shown in (
        ("http://127.0.0.1:9/dags/d/runs/r?a=1&b=2", True),
        ("javascript:window.injected = 3", False),
        ("", False),
    ):
        execution = run(cdf, "linked", metadata={"airflow_url": url})
        page.locator(f"#executions button[data-key='{execution}']").click()
        page.locator("#head small", has_text=execution).wait_for()
        links = page.locator("#head a")
        assert links.count() == shown
        if shown:
            assert links.get_attribute("href") == url
            assert "noopener" in (links.get_attribute("rel") or "")


def test_the_keyboard_chooses_tasks(cdf: CdfEmulator, page: Page) -> None:
    execution_id = run(cdf, "pump_health", input={"pump": "P-101"})
    task_id(cdf, execution_id, "score")
    entry(page, execution_id).click()
    box(page, "score").focus()

    page.keyboard.press("Space")

    page.locator("pre.input").filter(has_text="P-101").wait_for()
    assert page.evaluate("document.activeElement.dataset.task") == "score"
