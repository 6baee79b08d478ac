"""Who may know whom in the emulator: somebody who changes a rule of CDF never meets HTTP."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_cdf.emulator

HOUSE = "airflow_provider_cdf.emulator"
FOLDER = Path(airflow_provider_cdf.emulator.__file__).parent
#: Each room and what it may import of the emulator, beside itself. The rest, with toolkit/, is the entrance.
ROOMS = {
    "rules": set(),
    "api": {"rules"},
    "control": {"rules", "api"},
    "page": {"rules", "api"},
}
HTTP = {"fastapi", "starlette", "uvicorn", "httpx", "http", "urllib", "socket"}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            if node.module == HOUSE:
                yield from (f"{HOUSE}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_the_rooms_below_it(room: str) -> None:
    files = sorted((FOLDER / room).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            if name == HOUSE or name.startswith(f"{HOUSE}."):
                met = name.removeprefix(HOUSE).strip(".").partition(".")[0]
                assert met in ROOMS[room] | {room, ""}, f"{file} imports {name}"


def test_rules_know_no_http() -> None:
    for file in (FOLDER / "rules").rglob("*.py"):
        assert not HTTP & {name.partition(".")[0] for name in imports(file)}, file


def test_every_module_lies_in_a_room_or_is_an_entrance() -> None:
    entrance = {"__init__", "__main__", "functions", "pace", "server", "testing"}
    assert {file.stem for file in FOLDER.glob("*.py")} == entrance
    assert {folder.name for folder in FOLDER.iterdir() if (folder / "__init__.py").exists()} == {
        *ROOMS,
        "toolkit",
    }
