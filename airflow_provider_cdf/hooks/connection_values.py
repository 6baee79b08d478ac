"""The values of an Airflow connection, each checked by what its field is for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_cdf.cdf.network import can_be_asked
from airflow_provider_cdf.hooks.connection_fields import FIELDS, Field, Kind
from airflow_provider_cdf.hosts import is_loopback

#: A name, an IPv4 address, or an IPv6 address without its brackets.
_HOSTNAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")

#: The most seconds of a field. Longer ones are slips, and the operating system has its own limit.
A_DAY = 86_400.0


class Values:
    """
    What a connection says. Collects everything that is wrong with it, so that it can be mended in one go.

    :param extra: the connection's extra, parsed; a mapping, unless it is wrong.
    """

    def __init__(
        self,
        host: str | None,
        port: int | None,
        login: str | None,
        password: str | None,
        extra: object,
    ) -> None:
        self.host, self.port, self.password = (host or "").strip(), port, password
        self.login = (login or "").strip()
        self.problems: list[str] = []
        given: Mapping[str, Any] = {}
        if isinstance(extra, Mapping):
            given = extra
        elif extra:
            self.problems.append(
                f'extra must be a JSON object, such as {{"project": "my-project"}}, not {_kind_of(extra)}'
            )
        # The connection form saves fields that nobody touched as null, and cleared ones as "".
        given = {name: value for name, value in given.items() if value not in (None, "")}
        unknown = sorted(given.keys() - {field.name for field in FIELDS})
        if unknown:
            self.problems.append(
                f"extra has {', '.join(map(repr, unknown))}, which this package does not know "
                f"(it knows {', '.join(field.name for field in FIELDS)})"
            )
        self._extra = {
            field.name: self._read(field, given[field.name]) for field in FIELDS if field.name in given
        }

    def text(self, name: str) -> str | None:
        """Return a field of extra that is text; ``None`` if it is not set."""
        value = self._extra.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        return self._extra.get(name) is True

    def seconds(self, name: str, default: float) -> float:
        value = self._extra.get(name)
        return value if isinstance(value, float) else default

    def missing(self, what: str) -> str:
        self.problems.append(f"{what} is missing")
        return ""

    @property
    def secret(self) -> str:
        """The client secret, without what an editor or ``echo`` puts behind one that is read from a file."""
        return (self.password or "").rstrip("\r\n")

    def check_secret(self) -> None:
        if not self.secret:
            self.missing("password (the client secret)")
        elif self.secret != self.secret.strip():
            self.problems.append("password (the client secret) begins or ends with a blank: take it away")
        elif not self.secret.isprintable():
            self.problems.append("password (the client secret) has a character in it that cannot be printed")

    def url(self, url: str, name: str, port: int | None = None, *, may_have_query: bool = False) -> str:
        """Return a URL in its usual form; empty, with a problem noted, if it is none that may be used."""
        # The URL itself is not repeated in messages: people have put passwords and keys into it.
        try:
            parts = urlsplit(url)
            hostname, port = parts.hostname or "", parts.port or port
        except ValueError:
            hostname, port = "", None
        if "@" in url:
            self.problems.append(
                f"{name} must hold no user name or password, login and password are for those"
            )
        elif (
            not _HOSTNAME.fullmatch(hostname)
            or not can_be_asked(url)
            or parts.path.startswith("//")
            or parts.scheme not in ("http", "https")
            or (parts.query and not may_have_query)
            or parts.fragment
        ):
            self.problems.append(f"{name} is not of the form https://name or https://name/path")
        elif parts.scheme == "http" and not (self.flag("allow_http") or is_loopback(hostname)):
            self.problems.append(
                f"{name} would send credentials unencrypted: use https, or set extra 'allow_http' to true"
            )
        else:
            # In lower case, which is how urlsplit gives a host name, because CDF's own SDK wants it so.
            authority = f"[{hostname}]" if ":" in hostname else hostname
            return parts._replace(netloc=f"{authority}:{port}" if port else authority).geturl()
        return ""

    def path(self, name: str) -> str | None:
        """Return a field that is a path, with the home directory in the place of ``~``."""
        text = self.text(name)
        return os.path.expanduser(text) if text else None

    def _read(self, field: Field, value: object) -> str | bool | float | None:
        if field.kind is Kind.FLAG:
            return self._flag(field.name, value)
        if field.kind is Kind.SECONDS:
            return self._seconds(field, value)
        if not isinstance(value, str):
            self.problems.append(f"extra {field.name!r} must be text, not {type(value).__name__}")
            return None
        text = value.strip() or None
        if text and field.choices:
            return self._choice(field, text)
        return text

    def _choice(self, field: Field, text: str) -> str | None:
        if text.lower() in field.choices:
            return text.lower()
        choices = " or ".join(map(repr, field.choices))
        self.problems.append(f"extra {field.name!r} can only be {choices}, not {text!r}")
        return None

    def _flag(self, name: str, value: object) -> bool:
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if not isinstance(value, bool):
            self.problems.append(f"extra {name!r} must be true or false, not {value!r}")
            return False
        return value

    def _seconds(self, field: Field, value: object) -> float | None:
        try:
            seconds = float(value) if isinstance(value, int | float | str) and value is not True else math.nan
        except (ValueError, OverflowError):
            seconds = math.nan
        if field.at_least <= seconds <= A_DAY and not isinstance(value, bool):
            return seconds
        least = "above 0" if field.at_least else "0 for never"
        self.problems.append(f"extra {field.name!r} must be a number of seconds: {least}, at most a day")
        return None


def _kind_of(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
