"""The connection form of Airflow 2.11 to 3.1; later ones make it from the provider info alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_cdf.hooks.connection_fields import EXTRA_FIELDS, UI_FIELD_BEHAVIOUR


class LegacyForm:
    """The two methods by which Airflow asks a hook for its form."""

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Name the fields of the connection form (Airflow below 3.2)."""
        return {
            "hidden_fields": list(UI_FIELD_BEHAVIOUR["hidden-fields"]),
            "relabeling": dict(UI_FIELD_BEHAVIOUR["relabeling"]),
            "placeholders": dict(UI_FIELD_BEHAVIOUR["placeholders"]),
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Make the fields of the connection form (Airflow below 3.2)."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import BooleanField, PasswordField, StringField

        def field(spec: Mapping[str, Any]) -> Any:
            label, description = lazy_gettext(spec["label"]), spec["description"]
            if "boolean" in spec["schema"]["type"]:
                return BooleanField(label, description=description)
            if "format" in spec["schema"]:  # a secret
                return PasswordField(label, widget=BS3PasswordFieldWidget(), description=description)
            return StringField(label, widget=BS3TextFieldWidget(), description=description)

        return {name: field(spec) for name, spec in EXTRA_FIELDS.items()}
