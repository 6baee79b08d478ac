"""Text from outside, such as a reason that CDF gives. It goes into logs, errors and events."""

from __future__ import annotations

#: Characters of foreign text that a message repeats.
LONGEST = 500


def one_line(text: object, limit: int = LONGEST) -> str:
    """
    Return foreign text as one printable line.

    Line breaks would forge log lines, escape sequences would drive terminals, and U+202E turns what follows
    round. It is cut first, because cleaning 5 MB takes its time.

    :param text: what came; anything but text is taken as Python writes it.
    :param limit: the most characters to keep.
    """
    whole = text if isinstance(text, str) else str(text)
    # Runs of blanks become one, so a little more than the limit is looked at.
    begin = whole[: 4 * limit]
    printable = "".join(character if character.isprintable() else " " for character in begin)
    line = " ".join(printable.split())
    return line if len(line) <= limit and len(whole) <= len(begin) else line[: limit - 1].rstrip() + "…"
