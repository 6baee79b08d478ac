"""Pages of a list, and the cursors between them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from airflow_provider_cdf.emulator.errors import InvalidRequestError

_T = TypeVar("_T")


def page(
    numbered: Iterable[tuple[int, _T]], limit: int, cursor: str | None, show: Callable[[_T], dict[str, Any]]
) -> dict[str, Any]:
    """
    One page of a list.

    :param numbered: the records with numbers that ascend; a cursor is the number of the last one shown
    :param limit: how many to show
    :param cursor: from the page before; None for the first page
    :param show: a record as the API shows it
    """
    after = _decode(cursor)
    items: list[dict[str, Any]] = []
    last = 0
    for number, record in numbered:
        if after is not None and number <= after:
            continue
        if len(items) == limit:
            return {"items": items, "nextCursor": _encode(last)}
        items.append(show(record))
        last = number
    return {"items": items}


def _encode(number: int) -> str:
    return base64.urlsafe_b64encode(f"after:{number}".encode()).decode()


def _decode(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        name, _, number = (
            base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode().partition(":")
        )
        if name == "after":
            return int(number)
    except ValueError:
        pass
    raise InvalidRequestError("cursor: the cursor is not one that this API gave.")
