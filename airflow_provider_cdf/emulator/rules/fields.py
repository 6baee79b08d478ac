"""Fields that objects of the API have in common, and what is valid in them."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from airflow_provider_cdf.emulator.rules.references import is_reference

#: The API's metric for "100 KB" is not stated; its other fields of that size have ``maxLength: 100000``.
MAX_JSON_BYTES = 100_000


class Model(BaseModel):
    """
    A JSON object of the API: camelCase, no value converted to another type, unknown keys dropped.

    A key without a value is a key that is not there: the Toolkit sends ``"retries": null`` for ``retries:``.
    """

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = {field.alias for field in cls.model_fields.values()}
        return {key: item for key, item in value.items() if item is not None or key not in known}


class _NotNull:
    """Keeps null out of the document: a key may be absent, and nothing is said there about null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


_T = TypeVar("_T")
#: A key that may be absent. Python sees None then.
Absent = Annotated[_T | None, _NotNull()]


def _check_external_id(value: str) -> str:
    if value != value.strip() or "\0" in value:
        raise ValueError("must have no leading or trailing whitespace and no null characters")
    return value


def _check_task_external_id(value: str) -> str:
    if value == "workflow" or value.startswith("__"):
        raise ValueError("must not be 'workflow' nor start with '__', which are reserved")
    return _check_external_id(value)


def _check_size(value: Any) -> Any:
    size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))
    if size > MAX_JSON_BYTES:
        raise ValueError(f"is {size} bytes of JSON, and the limit is {MAX_JSON_BYTES}")
    return value


def check_whole(value: float) -> float:
    """Refuse a number with a fraction."""
    if not value.is_integer():
        raise ValueError("must be a whole number")
    return value


def _check_reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError("must be a reference such as ${task.output.response.tasks}")
    return value


ExternalId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_external_id)]
TaskExternalId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_task_external_id)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_check_size)]
Reference = Annotated[str, AfterValidator(_check_reference)]
Description = Annotated[str, Field(max_length=500)]
