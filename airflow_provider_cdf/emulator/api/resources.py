"""The few other resources of CDF that the official SDK needs around workflows, as far as it needs them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError
from airflow_provider_cdf.emulator.rules.functions import Functions

Json = dict[str, Any]


class Resources:
    """
    Functions, files and data sets. They hold no data; workflows run the functions that are configured.

    :param functions: the functions that are configured, which exist without having been created
    :param now: the time, in milliseconds since 1970
    """

    def __init__(self, functions: Functions, now: Callable[[], int]) -> None:
        self._configured = functions
        self._now = now
        self._ids = itertools.count(2_000_001)
        self._created: dict[int, Json] = {}
        self._files: dict[int, Json] = {}
        started = self._started = now()
        self.data_sets: list[Json] = [
            {
                "id": 1_000_001,
                "externalId": "emulator",
                "name": "Emulator",
                "description": "The only data set of the emulated project",
                "metadata": {},
                "writeProtected": False,
                "createdTime": started,
                "lastUpdatedTime": started,
            }
        ]

    def functions(self) -> list[Json]:
        """The functions that were created, and those that are configured."""
        created = {function.get("externalId") for function in self._created.values()}
        return [
            *self._created.values(),
            *(self._function(name) for name in self._configured.names() if name not in created),
        ]

    def create_function(self, given: Json) -> Json:
        """
        Create a function, which is ready at once, and which does what is configured for its external id.

        :param given: name, fileId and the rest as in the request
        """
        external_id = given.get("externalId")
        if external_id is not None and external_id in {f["externalId"] for f in self._created.values()}:
            raise InvalidRequestError(f"items[0].externalId: function '{external_id}' exists already.")
        function = self._function(external_id or f"function-{next(self._ids)}", **given)
        self._created[function["id"]] = function
        return function

    def delete_functions(self, wanted: list[Json], *, ignore_unknown: bool) -> None:
        for function in find(self.functions(), wanted, ignore_unknown=ignore_unknown):
            self._created.pop(function["id"], None)

    def create_file(self, given: Json, upload_url: Callable[[int], str]) -> Json:
        """
        Create a file, which counts as uploaded from the start: its content is not kept.

        :param given: name and the rest as in the request
        :param upload_url: where to send the content of the file with an id
        """
        file_id, now = next(self._ids), self._now()
        times = {"createdTime": now, "lastUpdatedTime": now}
        self._files[file_id] = {**given, "id": file_id, "uploaded": True, **times}
        return {**self._files[file_id], "uploadUrl": upload_url(file_id)}

    def files(self) -> list[Json]:
        return list(self._files.values())

    def _function(self, external_id: str, **given: Any) -> Json:
        return {
            "name": external_id,
            "fileId": 1,
            "functionPath": "handler.py",
            "owner": "",
            "description": "",
            "runtime": "py311",
            **given,
            "id": Functions.id_of(external_id),
            "externalId": external_id,
            "status": "Ready",
            "createdTime": self._started,
        }


def find(records: list[Json], wanted: list[Json], *, ignore_unknown: bool) -> list[Json]:
    """
    Records by id or externalId, in the order asked for.

    :param records: what there is
    :param wanted: each with an id or an externalId
    :param ignore_unknown: whether to leave out those that do not exist
    :raises InvalidRequestError: naming those that do not exist
    """
    found, unknown = [], []
    for item in wanted:
        key = "id" if "id" in item else "externalId"
        record = next((record for record in records if record.get(key) == item[key]), None)
        if record is None:
            unknown.append({key: str(item[key])})
        else:
            found.append(record)
    if unknown and not ignore_unknown:
        named = ", ".join(value for item in unknown for value in item.values())
        raise InvalidRequestError(f"Ids not found: {named}", missing=unknown)
    return found
