"""What the demo and the tests ask of Airflow's REST API."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

#: How often a request is repeated that SQLite's lock was in the way of: for five seconds, see
#: :func:`.airflow_home.write_patience`.
DATABASE_ERRORS = 3


class LocalAirflowError(RuntimeError):
    """Something about the local Airflow went wrong. The message is meant for people."""


class AirflowApi:
    """
    The REST API of an Airflow on loopback that lets everybody in.

    :param url: the api-server's
    :param dags_folder: where its DAG files are, to tell whose import error is whose
    """

    def __init__(self, url: str, dags_folder: Path) -> None:
        self.url = url
        self.dags_folder = dags_folder
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)

    def check(self) -> None:
        """Raise if Airflow cannot work any more; called before and while waiting for something."""

    def trigger_dag(
        self,
        dag_id: str,
        *,
        run_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        timeout: float = 60,
    ) -> str:
        """
        Start a DAG run, once the DAG has been parsed, and return its run id.

        :param dag_id: the DAG; it is unpaused
        :param run_id: the run's id; by default Airflow makes one
        :param conf: the run's configuration
        :param timeout: seconds to wait for the DAG to be parsed
        :raises LocalAirflowError: its file cannot be imported, or no file defines it
        """
        self.switch_on(dag_id, timeout)
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        run = self.api("POST", f"/dags/{_quoted(dag_id)}/dagRuns", json=body)
        return str(run["dag_run_id"])

    def switch_on(self, dag_id: str, timeout: float = 60) -> None:
        """
        Unpause a DAG, once it has been parsed.

        :param dag_id: the DAG
        :param timeout: seconds to wait for it
        :raises LocalAirflowError: its file cannot be imported, or no file defines it
        """
        self._wait(lambda: self._is_parsed(dag_id), timeout, lambda: self._why_missing(dag_id, timeout))
        self.api("PATCH", f"/dags/{_quoted(dag_id)}", json={"is_paused": False})

    def _is_parsed(self, dag_id: str) -> bool:
        if any(dag["dag_id"] == dag_id for dag in self._pages("/dags", "dags", dag_id_pattern=dag_id)):
            return True
        # An import error in a file that does not define this DAG is no reason to give up.
        defines = re.compile(rf"""(["']){re.escape(dag_id)}\1|def {re.escape(dag_id)}\(""")
        for failure in self._import_errors():
            with contextlib.suppress(OSError):
                if defines.search((self.dags_folder / failure["filename"]).read_text(errors="replace")):
                    raise LocalAirflowError(_import_failure(failure))
        return False

    def _import_errors(self) -> list[dict[str, Any]]:
        return list(self._pages("/importErrors", "import_errors"))

    def _why_missing(self, dag_id: str, timeout: float) -> str:
        said = f"Airflow found no DAG '{dag_id}' in {self.dags_folder} within {timeout:g} s."
        return "\n".join([said, *map(_import_failure, self._import_errors())])

    def dag_run_state(self, dag_id: str, run_id: str) -> str:
        """
        Return a DAG run's state, such as ``running`` or ``success``.

        :param dag_id: the DAG
        :param run_id: the run
        """
        return str(self.api("GET", _run_path(dag_id, run_id))["state"])

    def wait_for_dag_run(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """
        Wait until a DAG run has ended, and return its state: ``success`` or ``failed``.

        :param dag_id: the DAG
        :param run_id: the run
        :param timeout: seconds
        :raises LocalAirflowError: a process of the cluster has died, or time is up
        """

        def ended() -> bool:
            return self.dag_run_state(dag_id, run_id) in ("success", "failed")

        def report() -> str:
            tasks = self.task_instances(dag_id, run_id)
            states = ", ".join(f"{task['task_id']} is {task['state'] or 'not scheduled'}" for task in tasks)
            return f"The run {run_id} of the DAG '{dag_id}' has not ended within {timeout:g} s: {states}."

        self._wait(ended, timeout, report)
        return self.dag_run_state(dag_id, run_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """
        Return the task instances of a DAG run, as the REST API has them.

        :param dag_id: the DAG
        :param run_id: the run
        """
        return list(self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances"))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """
        Return what a task pushed.

        :param dag_id: the DAG
        :param run_id: the run
        :param task_id: the task, not a mapped one
        :param key: the XCom's key
        """
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        return self.api("GET", path, params={"stringify": False})["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1
    ) -> str:
        """
        Return the log of one try of a task: per line time, level, message, and what else was logged.

        :param dag_id: the DAG
        :param run_id: the run
        :param task_id: the task
        :param try_number: from 1
        :param map_index: of a mapped task
        """
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/logs/{try_number}"
        params = {"full_content": True, "map_index": map_index}
        return "\n".join(_log_line(entry) for entry in self.api("GET", path, params=params)["content"])

    def api(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        """
        Call Airflow's REST API and return the answer's JSON.

        :param method: HTTP method
        :param path: what follows ``/api/v2``
        :param json: the request's body
        :param params: query parameters
        :raises LocalAirflowError: the api-server does not answer, or answers with an error
        """
        headers = {"Accept": "application/json"}
        for _ in range(DATABASE_ERRORS + 1):
            try:
                response = self._http.request(
                    method, f"/api/v2{path}", json=json, params=params, headers=headers
                )
            except httpx.TransportError as error:
                self.check()
                raise LocalAirflowError(
                    f"Airflow's api-server does not answer {method} {path}: {error}"
                ) from error
            if response.status_code == 401 and "Authorization" not in self._http.headers:
                # Below 3.2, being let in takes a token, which everybody gets.
                token = self._http.get("/auth/token").json()["access_token"]
                self._http.headers["Authorization"] = f"Bearer {token}"
            elif response.status_code != 500 or "Database error" not in response.text:
                break
        if response.is_error:
            raise LocalAirflowError(
                f"Airflow answers {response.status_code} to {method} {path}: {response.text[:1000]}"
            )
        return response.json() if response.content else None

    def _pages(self, path: str, key: str, **params: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while page := self.api("GET", path, params={**params, "limit": 100, "offset": offset})[key]:
            yield from page
            offset += len(page)

    def _wait(self, condition: Callable[[], bool], timeout: float, report: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise LocalAirflowError(report())
            time.sleep(0.2)


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _import_failure(failure: Mapping[str, Any]) -> str:
    trace = "\n".join(f"    {line}" for line in failure["stack_trace"].strip().splitlines()[-8:])
    return f"Airflow could not import {failure['filename']}:\n{trace}"


# What a line says itself, and what is the same in all lines of a task's log.
_SAID_ELSEWHERE = {
    *("timestamp", "level", "event", "logger", "filename", "lineno", "loc"),
    *("ti", "ti_id", "dag_id", "task_id", "run_id", "map_index", "try_number"),
}


def _log_line(entry: str | Mapping[str, Any]) -> str:
    if isinstance(entry, str):
        return entry
    rest = {key: value for key, value in entry.items() if key not in _SAID_ELSEWHERE}
    words = [
        entry.get("timestamp"),
        entry.get("level"),
        entry.get("event"),
        json.dumps(rest) if rest else None,
    ]
    return " ".join(str(word) for word in words if word is not None)
