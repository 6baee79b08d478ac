"""How a message is put together: what is wrong first, ids last, because Airflow's log view does not wrap."""

from __future__ import annotations

import re

NOTHING_SENT = "Nothing was sent to CDF."
NOTHING_CHANGED = "Nothing was changed in CDF."
_SENTENCE_ENDS = re.compile(r"(?<=[.?!]) (?=[A-Z])")
#: Ids at the end of a message, as :func:`ids` writes them; what CDF says may end in other brackets.
_IDS = re.compile(r"\s*\[((?:task|execution|session|workflow|project|client|request id)\b[^\[\]]*)\]$")


def ids(**named: object) -> str:
    """Return ids in brackets, for the end of a message; those that are ``None`` are left out."""
    return f"[{', '.join(f'{name} {one}' for name, one in named.items() if one is not None)}]"


def told(*parts: object) -> str:
    """
    Return one message: each sentence once, and what any part has in brackets at its end, at the end.

    :param parts: sentences, errors and ids.
    """
    said: list[str] = []
    named: list[str] = []
    for part in parts:
        text = str(part).strip()
        if found := _IDS.search(text):
            text = text[: found.start()]
            named += [one for one in found[1].split(", ") if one not in named]
        new = [one for one in _SENTENCE_ENDS.split(text) if not any(one in before for before in said)]
        # Where nothing was sent, nothing was changed.
        if new == [NOTHING_CHANGED] and any(NOTHING_SENT in before for before in said):
            continue
        if any(new):
            said.append(" ".join(new))
    return " ".join([*said, *([f"[{', '.join(named)}]"] if named else [])])
