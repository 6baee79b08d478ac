"""Pages of a list, and the cursors between them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError

_T = TypeVar("_T")
#: What a list is sorted by: a number or a name, another one for each record.
_Key = TypeVar("_Key", int, str)

_NOT_OURS = "cursor: the cursor is not one that this API gave."


def page(
    keyed: Iterable[tuple[_Key, _T]], limit: int, cursor: str | None, show: Callable[[_T], dict[str, Any]]
) -> dict[str, Any]:
    """
    One page of a list.

    :param keyed: the records with keys that ascend; a cursor is the key of the last one shown
    :param limit: how many to show
    :param cursor: from the page before; None for the first page
    :param show: a record as the API shows it
    """
    after = _decode(cursor)
    items: list[dict[str, Any]] = []
    last: int | str = 0
    for key, record in keyed:
        if after is not None:
            if not isinstance(after, type(key)):
                raise InvalidRequestError(_NOT_OURS)
            if key <= after:
                continue
        if len(items) == limit:
            return {"items": items, "nextCursor": _encode(last)}
        items.append(show(record))
        last = key
    return {"items": items}


def _encode(key: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"after": key}).encode()).decode()


def _decode(cursor: str | None) -> int | str | None:
    if cursor is None:
        return None
    try:
        found = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        found = None
    after = found.get("after") if isinstance(found, dict) else None
    if type(after) is int or type(after) is str:
        return after
    raise InvalidRequestError(_NOT_OURS)
