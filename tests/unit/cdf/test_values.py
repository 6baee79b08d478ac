"""What Airflow hands over becomes JSON, or is refused with the path to what is none."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import ChainMap, deque, namedtuple
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import jinja2
import numpy
import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from pydantic import BaseModel, ConfigDict, model_serializer
from pydantic.alias_generators import to_camel

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.values import json_object


class Lazy(Sequence[Any]):
    """A sequence that is no list, as the results of a mapped task are."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self._values[index], Exception):
            raise self._values[index]
        return self._values[index]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class Color(Enum):
    RED = "red"
    MANY = (1, 2)


class Level(IntEnum):
    HIGH = 3


class Name(StrEnum):
    PUMP = "pump"


class Unwritable(BaseModel):
    """A model that pydantic cannot write, as a task instance is."""

    @model_serializer
    def fails(self) -> Any:
        raise RuntimeError("not me")


@dataclasses.dataclass
class Reading:
    at: date
    values: Any


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    external_id: str
    price: Any


Point = namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Lazy(1, 2.5, "a", None, True), [1, 2.5, "a", None, True]),
        (Lazy(Lazy(1), {"a": Lazy()}), [[1], {"a": []}]),
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (deque([1]), None),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        ({1: "one", Name.PUMP: 2}, {"1": "one", "pump": 2}),
        (datetime(2026, 11, 26, 9, 30, tzinfo=UTC), "2026-11-26T09:30:00Z"),
        (pendulum.datetime(2026, 11, 26), "2026-11-26T00:00:00Z"),
        (date(2026, 11, 26), "2026-11-26"),
        (time(9, 30), "09:30:00"),
        (timedelta(hours=1), "PT1H"),
        (Decimal("12.50"), "12.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Color.RED, "red"),
        (Color.MANY, [1, 2]),
        (Level.HIGH, 3),
        (Name.PUMP, "pump"),
        (Reading(date(2026, 1, 1), Lazy(1)), {"at": "2026-01-01", "values": [1]}),
        (Model(external_id="p", price=Decimal("1.5")), {"externalId": "p", "price": "1.5"}),
        (numpy.int64(7), 7),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.str_("a"), "a"),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_airflow_hands_over_becomes_json(value: Any, sent: Any) -> None:
    if sent is None:
        sent = list(value)
    converted = json_object({"k": value}, "output")
    assert json.loads(json.dumps(converted, allow_nan=False)) == {"k": sent}
    # Plain values only, which every reader of JSON makes of it.
    assert type(converted["k"]) in (dict, list, str, int, float, bool)


@pytest.mark.parametrize(
    "value", [Reading(date(2026, 1, 1), 2), Model(external_id="p", price=Decimal(1)), MappingProxyType({})]
)
def test_a_whole_input_or_output_may_be_one_of_them(value: Any) -> None:
    assert isinstance(json_object(value, "input"), dict)


def test_input_and_output_are_converted_alike() -> None:
    value = {"scores": Lazy(10, 20), "at": date(2026, 1, 1)}
    run = calls.run("p", "w", "1", nonce="n", input=value)
    update = calls.update_task("p", "059edaa4-a17a-4102-910e-2c3591500cce", "COMPLETED", value)
    sent = {"scores": [10, 20], "at": "2026-01-01"}
    assert json.loads(run.content or b"")["input"] == sent
    assert json.loads(update.content or b"")["output"] == sent


NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "path", "what"),
    [
        ({"scores": [0.1, 0.2, 0.3, NAN]}, "output.scores[3]", "nan"),
        ({"a": {"b c": [float("inf")]}}, "output.a['b c'][0]", "inf"),
        ({"a": Lazy(1, NAN)}, "output.a[1]", "nan"),
        ({"a": Decimal("NaN")}, "output.a", "Decimal"),
        ({"a": Decimal("sNaN")}, "output.a", "Decimal"),
        ({"a": numpy.float64("nan")}, "output.a", "nan"),
        ({"a": numpy.array([1.0, NAN])}, "output.a[1]", "nan"),
        ({"a": numpy.datetime64("2026-01-01", "ns")}, "output.a", "numpy.datetime64"),
        ({"a": Reading(date(2026, 1, 1), {1, 2})}, "output.a.values", "set"),
        ({"a": Model(external_id="p", price=NAN)}, "output.a.price", "nan"),
        ({"a": b"bytes"}, "output.a", "bytes"),
        ({"a": (n for n in (1, 2))}, "output.a", "generator"),
        ({"a": object()}, "output.a", "object"),
        ({"a": Reading}, "output.a", "the class"),
        ({"a": ["\ud800"]}, "output.a[0]", "text that cannot be sent"),
        ({"a": jinja2.StrictUndefined(name="wind")}, "output.a", "'wind', which is not defined"),
        ({"a": [jinja2.Undefined(name="wind")]}, "output.a[0]", "'wind', which is not defined"),
        ({"a": Unwritable()}, "output.a", "Unwritable"),
    ],
)
def test_what_has_no_json_is_refused_with_the_path_to_it(value: Any, path: str, what: str) -> None:
    with pytest.raises(CdfInputError) as caught:
        json_object(value, "output")
    assert str(caught.value).startswith(f"The {path} is not JSON: ")
    assert what in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)


def test_a_key_that_is_no_text_is_refused_with_the_path_to_its_object() -> None:
    with pytest.raises(CdfInputError, match=r"^The output\.a\[0\] is not JSON: its key \(1, 2\)"):
        json_object({"a": [{(1, 2): 3}]}, "output")


def test_a_json_text_is_refused_with_the_ways_that_work() -> None:
    with pytest.raises(CdfInputError, match=r"^The input must be a JSON object .*, not text\.") as caught:
        json_object('{"a": 1}', "input")
    for way in ("input=task.output", 'input={"key": "{{ ... }}"}', "render_template_as_native_obj=True"):
        assert way in str(caught.value)


def test_an_error_of_a_lazy_sequence_is_not_the_values() -> None:
    with pytest.raises(ConnectionError):
        json_object({"a": Lazy(1, ConnectionError("object storage: 503"))}, "output")
