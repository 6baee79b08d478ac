"""How a message is put together: what is wrong first, ids last, because Airflow's log view does not wrap."""

from __future__ import annotations

import re

NOTHING_SENT = "Nothing was sent to CDF."
NOTHING_CHANGED = "Nothing was changed in CDF."
#: Ids at the end of a message, as :func:`ids` writes them; what CDF says may end in other brackets.
_IDS = re.compile(r"\s*\[((?:task|execution|session|workflow|project|client|request id)\b[^\[\]]*)\]$")


def ids(**named: object) -> str:
    """Return ids in brackets, for the end of a message; those that are ``None`` are left out."""
    return f"[{', '.join(f'{name} {one}' for name, one in named.items() if one is not None)}]"


def told(*parts: object) -> str:
    """
    Return one message: each part once, and what any of them has in brackets at its end, at the end.

    :param parts: sentences, errors and ids.
    """
    said: list[str] = []
    named: list[str] = []
    for part in parts:
        text = str(part).strip()
        if found := _IDS.search(text):
            text = text[: found.start()]
            named += [one for one in found[1].split(", ") if one not in named]
        is_said = any(text in before for before in said)
        # Where nothing was sent, nothing was changed.
        is_said |= text == NOTHING_CHANGED and any(NOTHING_SENT in before for before in said)
        if text and not is_said:
            said.append(text)
    return " ".join([*said, *([f"[{', '.join(named)}]"] if named else [])])
