"""The emulator's own OpenAPI document says what Cognite's says: paths, required fields, enums, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from emulator_http import NO_OPENAPI, OPENAPI, Api, official

LIMITS = (
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "uniqueItems"),
)
Fact = tuple[str, str, str]


def facts(schema: Any, document: dict[str, Any], path: str = "", depth: int = 0) -> Iterator[Fact]:
    """Where a schema says what, with alternatives taken together."""
    # Subworkflows hold tasks that may be subworkflows; one level of that is enough.
    if not isinstance(schema, dict) or path.count(".subworkflow.") > 1 or depth > 40:
        return
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from facts(document["components"]["schemas"][name], document, path, depth + 1)
    for keyword in LIMITS:
        value = schema.get(keyword)
        # In Cognite's document, a size in bytes is written as the length of an object.
        is_size = keyword == "maxLength" and schema.get("type") == "object"
        says_nothing = value is None or (keyword.startswith("min") and keyword != "minimum" and value == 0)
        if not is_size and not says_nothing:
            yield path, keyword, f"{value:g}"
    for value in schema.get("enum", [schema["const"]] if "const" in schema else []):
        yield path, "enum", str(value)
    for name in schema.get("required", []):
        yield f"{path}.{name}", "required", "yes"
    for name, inner in schema.get("properties", {}).items():
        yield from facts(inner, document, f"{path}.{name}", depth + 1)
    yield from facts(schema.get("items"), document, f"{path}[]", depth + 1)
    yield from facts(schema.get("additionalProperties"), document, f"{path}.*", depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(keyword, []):
            yield from facts(inner, document, path, depth + 1)


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "post", "put", "delete")
    }


def body_of(operation: dict[str, Any]) -> Any:
    return operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")


def answer_of(operation: dict[str, Any]) -> Any:
    success = next(answer for status, answer in operation["responses"].items() if status < "300")
    return success.get("content", {}).get("application/json", {}).get("schema")


def parameters_of(operation: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"},
    }


@pytest.fixture(scope="module")
def own(api: Api) -> dict[str, Any]:
    return dict(api.client.get("/openapi.json").json())


def test_every_operation_of_cognites_document_is_there(own: dict[str, Any]) -> None:
    if not OPENAPI.exists():
        pytest.skip(NO_OPENAPI)
    assert operations(official()).keys() <= operations(own).keys()


#: What Cognite's document says and the emulator's does not, on purpose.
DIFFERENT = (
    # The queries of triggers on data are not looked into: such triggers fire when they are told to.
    ".items[].triggerRule.dataModelingQuery",
    # Written in the wrong place in Cognite's document.
    ".items.items required",
    # An object, for which the keyword means nothing: the emulator's document says maxProperties.
    "queryParameters maxItems",
    # Parameters with their references resolved, and what functions answer: the emulator says "an object".
    ".executedTasks[].input.",
    ".executedTasks[].output.",
    "update: .input.",
    "update: .output.",
    # The emulator shows the few capabilities that its only client has.
    ".capabilities[]",
)


def missing(own: dict[str, Any], part: Any) -> list[str]:
    found = []
    ours = operations(own)
    for label, theirs in operations(official()).items():
        said = set(facts(part(theirs), official()))
        kept = set(facts(part(ours[label]), own))
        found += [f"{label}: {path} {keyword} {value}" for path, keyword, value in sorted(said - kept)]
    return [line for line in found if not any(known in line for known in DIFFERENT)]


def test_requests_have_the_same_required_fields_enums_and_limits(own: dict[str, Any]) -> None:
    if not OPENAPI.exists():
        pytest.skip(NO_OPENAPI)
    assert missing(own, body_of) == []
    assert missing(own, parameters_of) == []


def test_answers_have_the_same_required_fields_enums_and_limits(own: dict[str, Any]) -> None:
    if not OPENAPI.exists():
        pytest.skip(NO_OPENAPI)
    assert missing(own, answer_of) == []
