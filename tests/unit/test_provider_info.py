"""What Airflow reads about the package."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest

from airflow_provider_cdf.get_provider_info import EXTRA_FIELDS, get_provider_info
from airflow_provider_cdf.hooks.cdf import CdfHook

INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]


def airflow_schema(name: str) -> Any:
    return json.loads(files("airflow").joinpath(name).read_text())


def test_airflow_takes_it() -> None:
    jsonschema.validate(INFO, airflow_schema("provider_info.schema.json"))


def test_airflow_finds_it_by_its_entry_point() -> None:
    loaded = [entry.load() for entry in entry_points(group="apache_airflow_provider")]
    assert get_provider_info in loaded


def named_modules() -> Iterator[tuple[str, str]]:
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for group in INFO[kind]:
            for module in group["python-modules"]:
                yield kind, module


@pytest.mark.parametrize(("kind", "name"), list(named_modules()))
def test_each_module_that_is_named_imports_and_belongs_to_its_kind(kind: str, name: str) -> None:
    module = importlib.import_module(name)
    assert f".{kind}." in name
    suffix = {"hooks": "Hook", "operators": "Operator", "sensors": "Sensor", "triggers": "Trigger"}[kind]
    own = [one for one in vars(module).values() if getattr(one, "__module__", None) == name]
    assert any(getattr(one, "__name__", "").endswith(suffix) for one in own)


def test_the_decorator_and_the_notifier_that_are_named_are_there() -> None:
    decorators = {one["name"]: one["class-name"] for one in INFO["task-decorators"]}
    assert decorators.keys() == {"cdf_task"}
    for path in (*decorators.values(), *INFO["notifications"]):
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_all_integrations_that_are_named_are_declared() -> None:
    declared = {one["integration-name"] for one in INFO["integrations"]}
    for kind in ("hooks", "operators", "sensors", "triggers"):
        assert {one["integration-name"] for one in INFO[kind]} <= declared


def test_the_connection_type_is_the_hooks_own() -> None:
    module, _, name = CONNECTION_TYPE["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is CdfHook
    assert CONNECTION_TYPE["connection-type"] == CdfHook.conn_type == "cdf"
    assert CONNECTION_TYPE["hook-name"] == CdfHook.hook_name
    assert (CdfHook.default_conn_name, CdfHook.conn_name_attr) == ("cdf_default", "cdf_conn_id")


def test_every_field_that_the_connection_promises_is_in_the_form() -> None:
    promised = {
        "project",
        "tenant_id",
        "token_url",
        "scopes",
        "audience",
        "idp",
        "organization",
        "allow_http",
    }
    assert promised <= CONNECTION_TYPE["conn-fields"].keys()
    assert CONNECTION_TYPE["conn-fields"] == EXTRA_FIELDS
    assert {"host", "login", "password"}.isdisjoint(CONNECTION_TYPE["ui-field-behaviour"]["hidden-fields"])


@pytest.mark.parametrize("field", EXTRA_FIELDS.values(), ids=EXTRA_FIELDS.keys())
def test_a_field_has_a_label_a_description_and_a_schema(field: dict[str, Any]) -> None:
    assert field["label"]
    assert field["description"]
    jsonschema.Draft202012Validator.check_schema(field["schema"])
    assert "default" not in field["schema"], "Airflow's form would overwrite the saved value with it"


@pytest.mark.parametrize("field", EXTRA_FIELDS.values(), ids=EXTRA_FIELDS.keys())
def test_a_field_that_nobody_touched_is_valid(field: dict[str, Any]) -> None:
    jsonschema.validate(None, field["schema"])


@pytest.mark.parametrize(
    ("name", "value"), [("project", "p"), ("idp", "cdf"), ("allow_http", True), ("scopes", "a b")]
)
def test_a_field_takes_what_it_is_for(name: str, value: object) -> None:
    jsonschema.validate(value, EXTRA_FIELDS[name]["schema"])


# -- the form of Airflow below 3.2 ------------------------------------------------------------------------


@pytest.fixture
def _form_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for packages that Airflow 3 does not install."""

    def field(kind: str) -> Any:
        return lambda label, description="", **more: SimpleNamespace(
            kind=kind, label=label, description=description, **more
        )

    contents: dict[str, dict[str, Any]] = {
        "flask_appbuilder": {},
        "flask_appbuilder.fieldwidgets": {"BS3TextFieldWidget": SimpleNamespace},
        "flask_babel": {"lazy_gettext": str},
        "wtforms": {"BooleanField": field("boolean"), "StringField": field("string")},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("_form_packages")
def test_the_legacy_form_has_the_same_fields() -> None:
    widgets = CdfHook.get_connection_form_widgets()
    assert list(widgets) == list(CONNECTION_TYPE["conn-fields"])
    for name, spec in CONNECTION_TYPE["conn-fields"].items():
        assert (widgets[name].label, widgets[name].description) == (spec["label"], spec["description"])
        assert widgets[name].kind in spec["schema"]["type"]


def test_the_legacy_form_behaves_the_same() -> None:
    behaviour = CdfHook.get_ui_field_behaviour()
    jsonschema.validate(behaviour, airflow_schema("customized_form_field_behaviours.schema.json"))
    assert {name.replace("_", "-"): value for name, value in behaviour.items()} == CONNECTION_TYPE[
        "ui-field-behaviour"
    ]


def test_placeholders_are_of_fields_that_exist() -> None:
    assert CONNECTION_TYPE["ui-field-behaviour"]["placeholders"].keys() <= {
        *("host", "login", "password", "port", "schema", "extra", "description"),
        *EXTRA_FIELDS,
    }


def test_reading_it_imports_nothing_else_of_the_package() -> None:
    """Airflow reads it in every process."""
    source = importlib.import_module("airflow_provider_cdf.get_provider_info")
    assert source.__file__ is not None
    imported = [
        value.__name__
        for value in vars(source).values()
        if isinstance(value, ModuleType) and value is not source
    ]
    assert imported == []
