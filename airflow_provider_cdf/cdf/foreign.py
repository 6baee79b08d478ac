"""Text from outside, such as a reason that CDF gives. It goes into logs, errors and events."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote

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
    if not begin.isprintable():
        begin = "".join(character if character.isprintable() else " " for character in begin)
    line = " ".join(begin.split())
    return line if len(line) <= limit and len(whole) <= len(begin) else line[: limit - 1].rstrip() + "…"


def name_of(external_id: str) -> str:
    """Return an external id as a message names it: CDF's have 255 characters at most."""
    return repr(external_id if len(external_id) <= LONGEST else one_line(external_id))


#: Characters of foreign text that are looked at, of which at most :data:`LONGEST` are shown.
MOST = 2048
#: Letters and digits that a text and a secret have in common by chance at most.
CHANCE = 10
#: How many encodings around each other are taken off.
LAYERS = 5

#: Characters of all that a text may be the encoding of, together. 2048 can stand for millions.
MOST_DECODED = 100_000

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}")


def without_secrets(text: object, secrets: Iterable[str]) -> str:
    """
    Return what a server said as one printable line that holds none of these secrets.

    A server may echo a request, and encode it once or more. A secret that stands there as it is becomes
    ``***``. If a part of one is in it in another form, the whole text is left out.

    :param text: what came; anything but text is taken as Python writes it.
    """
    known = tuple(secret for secret in secrets if len(secret) > 3)  # shorter ones are part of any word
    shown = (text if isinstance(text, str) else str(text))[:MOST]
    for secret in known:
        shown = shown.replace(secret, "***")
    by_size = _parts_of(known)
    looked_at = 0
    for form in _decoded(shown, layers=2, least=min(by_size, default=MOST)):
        looked_at += len(form)
        if looked_at > MOST_DECODED:
            return "(left out, because it is encoded too many times)"
        letters = _letters(form)
        for size, parts in by_size.items():
            if not parts.isdisjoint(letters[at : at + size] for at in range(len(letters) - size + 1)):
                return "(left out, because it repeats a secret)"
    return one_line(shown)


@lru_cache(maxsize=32)  # a token has thousands of parts, and an execution may have hundreds of reasons
def _parts_of(secrets: tuple[str, ...]) -> dict[int, set[str]]:
    """Return what must not be in a text, by its length."""
    by_size: dict[int, set[str]] = {}
    for secret in secrets:
        for form in _forms(secret):
            for part in _parts(_letters(form)):
                by_size.setdefault(len(part), set()).add(part)
    return by_size


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield from _unescaped(secret)  # a secret that looks escaped is taken for that in the text, too
    yield secret.encode().hex()


def _parts(letters: str) -> Iterator[str]:
    """All runs that are too long to be chance; of a short secret, itself."""
    for at in range(max(1, len(letters) - CHANCE)):
        part = letters[at : at + CHANCE + 1]
        if len(part) > CHANCE // 2:
            yield part


def _letters(text: str) -> str:
    """What encodings leave alone once they are taken off: no punctuation, no blanks, no case."""
    return "".join(filter(str.isalnum, text)).lower()


def _decoded(text: str, layers: int, least: int) -> Iterator[str]:
    """The text, and what it is the encoding of, where that has so many characters."""
    forms = dict.fromkeys((text, *_unescaped(text)))
    if layers == 2:
        forms["".join(text.split())] = None  # base64 comes in short lines, too
    for form in forms:
        yield form
        for run in _BASE64.findall(form) if layers else ():
            for skipped in range(4):
                if (len(run) - skipped) * 3 // 4 >= least:
                    yield from _decoded(_from_base64(run[skipped:]), layers - 1, least)


def _unescaped(text: str) -> Iterator[str]:
    for _ in range(LAYERS):
        before = text
        for take_off in (html.unescape, unquote, _without_backslashes):
            text = take_off(text)
            yield text
        if text == before:
            return


def _without_backslashes(text: str) -> str:
    def character(escape: re.Match[str]) -> str:
        code, byte, other = escape.groups()
        return other if other else chr(int(code or byte, 16))

    return _ESCAPE.sub(character, text)


def _from_base64(run: str) -> str:
    run = run.replace("-", "+").replace("_", "/")
    run = run[: len(run) // 4 * 4] if len(run) % 4 == 1 else run + "=" * (-len(run) % 4)
    try:
        return base64.b64decode(run).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
