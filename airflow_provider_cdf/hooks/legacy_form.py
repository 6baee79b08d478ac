"""The connection form of Airflow 2.11 to 3.1; later ones make it from the provider info alone."""

from __future__ import annotations

from typing import Any

from airflow_provider_cdf.hooks.connection_fields import FIELDS, UI_FIELD_BEHAVIOUR, Field, Kind


def ui_field_behaviour() -> dict[str, Any]:
    """Return how the fields that every connection has are shown. Test needs no port there."""
    labels = UI_FIELD_BEHAVIOUR["relabeling"]
    return {
        "hidden_fields": list(UI_FIELD_BEHAVIOUR["hidden-fields"]),
        "relabeling": {name: label for name, label in labels.items() if name != "port"},
        "placeholders": dict(UI_FIELD_BEHAVIOUR["placeholders"]),
    }


def form_widgets() -> dict[str, Any]:
    """Return the fields of ``extra``. The form has no sections and no marks, so its words say more."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    def widget(field: Field) -> Any:
        label = lazy_gettext(f"{field.label} (required)" if field.required else field.label)
        if field.kind is Kind.FLAG:
            return BooleanField(label, description=field.description)
        if field.kind is Kind.SECRET:
            return PasswordField(label, widget=BS3PasswordFieldWidget(), description=field.description)
        if field.choices:
            # A list to choose from in 3.1. A text in 2.11, which is checked when it is saved.
            validators = [Optional(), any_of(list(field.choices))]
            words = f"{field.description} One of: {', '.join(field.choices)}."
            return StringField(label, validators, widget=BS3TextFieldWidget(), description=words)
        return StringField(label, widget=BS3TextFieldWidget(), description=field.description)

    return {field.name: widget(field) for field in FIELDS if field.in_form}
