"""What Airflow reads about the package."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest
from moved import should_hide_value_for_key

from airflow_provider_cdf.get_provider_info import get_provider_info
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.hooks.connection_fields import EXTRA_FIELDS, FIELDS, Kind
from airflow_provider_cdf.versions import AIRFLOW_VERSION, HAS_TASK_API

INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]


def airflow_schema(name: str) -> Any:
    return json.loads(files("airflow").joinpath(name).read_text())


def test_airflow_takes_it() -> None:
    jsonschema.validate(INFO, airflow_schema("provider_info.schema.json"))


def test_airflow_takes_the_fields_of_the_connection() -> None:
    """The schema of the provider info says nothing about them; that of the file it is made of does (3.2+)."""
    path = files("airflow").joinpath("provider.yaml.schema.json")
    if not path.is_file() or "conn-fields" not in path.read_text():
        pytest.skip("this Airflow knows no conn-fields")
    jsonschema.validate(
        INFO["connection-types"], json.loads(path.read_text())["properties"]["connection-types"]
    )


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
    # Some are re-exported from files of their own, such as operators.task_update.
    own = [one for one in vars(module).values() if str(getattr(one, "__module__", "")).startswith(name)]
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
        *("project", "organization", "airflow_name"),
        *("tenant_id", "login_url", "idp", "token", "login_file", "auth_method", "scopes", "audience"),
        *("private_key", "certificate_thumbprint", "session_type"),
        *("allow_http", "verify", "request_timeout", "retry_for"),
    }
    assert CONNECTION_TYPE["conn-fields"].keys() == promised
    assert CONNECTION_TYPE["conn-fields"] == EXTRA_FIELDS
    assert {"host", "login", "password", "port"}.isdisjoint(
        CONNECTION_TYPE["ui-field-behaviour"]["hidden-fields"]
    )


def test_the_form_asks_for_no_field_that_airflow_masks_because_of_its_name_but_for_secrets() -> None:
    masked = [name for name in EXTRA_FIELDS if should_hide_value_for_key(name)]
    assert masked == ["token", "private_key"]
    assert "token_url" in {field.name for field in FIELDS}, "still understood"


def test_secrets_are_masked_while_they_are_typed_and_nothing_else_is() -> None:
    masked = [name for name, field in EXTRA_FIELDS.items() if field["schema"].get("format") == "password"]
    assert masked == ["token", "private_key"]
    assert [field.name for field in FIELDS if field.kind is Kind.SECRET] == masked


def test_only_the_project_is_marked_as_required() -> None:
    """The form of 3.2+ marks what may not be null."""
    assert [name for name, field in EXTRA_FIELDS.items() if field["schema"]["type"] == "string"] == [
        "project"
    ]


def test_fields_of_one_section_stand_together() -> None:
    sections = [field["schema"]["section"] for field in EXTRA_FIELDS.values()]
    assert len(set(sections)) == 3
    assert sections == sorted(sections, key=list(dict.fromkeys(sections)).index)


def test_a_choice_that_was_not_made_has_a_name_in_the_form() -> None:
    """Without one, the form of 3.3 shows the word null."""
    for name, field in EXTRA_FIELDS.items():
        if "enum" in field["schema"]:
            assert field["schema"]["values_display"]["null"], name


@pytest.mark.parametrize("field", EXTRA_FIELDS.values(), ids=EXTRA_FIELDS.keys())
def test_a_field_has_a_label_a_description_and_a_schema(field: dict[str, Any]) -> None:
    assert field["label"]
    assert field["description"]
    jsonschema.Draft202012Validator.check_schema(field["schema"])
    assert "default" not in field["schema"], "Airflow's form would overwrite the saved value with it"


@pytest.mark.parametrize("name", sorted(EXTRA_FIELDS.keys() - {"project"}))
def test_a_field_that_nobody_touched_is_valid(name: str) -> None:
    jsonschema.validate(None, EXTRA_FIELDS[name]["schema"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project", "p"),
        ("idp", "cdf"),
        ("auth_method", "private_key_jwt"),
        ("session_type", "token_exchange"),
        ("allow_http", True),
        ("scopes", "a b"),
        ("retry_for", 5),
    ],
)
def test_a_field_takes_what_it_is_for(name: str, value: object) -> None:
    jsonschema.validate(value, EXTRA_FIELDS[name]["schema"])


# -- the form of Airflow below 3.2 ------------------------------------------------------------------------


@pytest.fixture
def _form_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for packages that Airflow 3 does not install."""

    def field(kind: str) -> Any:
        return lambda label, validators=(), description="", **more: SimpleNamespace(
            kind=kind, label=label, validators=validators, description=description, **more
        )

    contents: dict[str, dict[str, Any]] = {
        "flask_appbuilder": {},
        "flask_appbuilder.fieldwidgets": {
            "BS3TextFieldWidget": SimpleNamespace,
            "BS3PasswordFieldWidget": SimpleNamespace,
        },
        "flask_babel": {"lazy_gettext": str},
        "wtforms": {
            "BooleanField": field("boolean"),
            "StringField": field("string"),
            "PasswordField": field("password"),
        },
        "wtforms.validators": {"Optional": SimpleNamespace, "any_of": list},
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
        widget, schema = widgets[name], spec["schema"]
        assert widget.label == spec["label"] + (" (required)" if schema["type"] == "string" else "")
        assert widget.description.startswith(spec["description"])
        kind = "boolean" if name == "allow_http" else "string"
        assert widget.kind == ("password" if name in ("token", "private_key") else kind)
        choices = [choice for choice in schema.get("enum", ()) if choice]
        assert list(widget.validators)[1:] == ([choices] if choices else [])
        assert all(choice in widget.description for choice in choices)


AIRFLOWS_FORM = """
if {is_airflow_2}:
    from airflow.providers_manager import ProvidersManager
    names = [name.split("__")[2] for name in ProvidersManager().connection_form_widgets if "__cdf__" in name]
    host = ProvidersManager().field_behaviours["cdf"]["relabeling"]["host"]
else:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
    (form,) = [one for one in HookMetaService.hook_meta_data() if one.connection_type == "cdf"]
    names, host = list(form.extra_fields), form.standard_fields.host.title
print(",".join(names), host, sep="|")
"""


@pytest.mark.skipif(
    (3, 0) <= AIRFLOW_VERSION < (3, 1), reason="3.0 shows no provider's fields without the FAB provider"
)
def test_airflow_itself_finds_the_form() -> None:
    """Below 3.2 it looks for the two methods in the class itself, and passes over what that inherits."""
    program = AIRFLOWS_FORM.format(is_airflow_2=not HAS_TASK_API)
    # In a process of its own, because Airflow 3.1 puts mocks in the place of modules.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, _, host = done.stdout.splitlines()[-1].partition("|")
    assert names.split(",") == list(EXTRA_FIELDS)
    assert host == "CDF base URL or cluster"


def test_the_legacy_form_behaves_the_same() -> None:
    behaviour = CdfHook.get_ui_field_behaviour()
    jsonschema.validate(behaviour, airflow_schema("customized_form_field_behaviours.schema.json"))
    later = CONNECTION_TYPE["ui-field-behaviour"]
    port = {"port": later["relabeling"]["port"]}  # which says what is wrong in 3.3
    assert "port" not in behaviour["relabeling"]
    assert behaviour["relabeling"] | port == later["relabeling"]
    assert behaviour["hidden_fields"] == later["hidden-fields"]
    assert behaviour["placeholders"] == later["placeholders"]


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
