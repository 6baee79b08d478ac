"""
Breaks the package in one place at a time, and prints what no unit test notices.

    uv run python tests/tools/mutants.py airflow_provider_cdf/operators --number 40 --seed 7
    uv run python tests/tools/mutants.py airflow_provider_cdf/triggers --tests tests/unit/triggers

First the tests run once, to see which functions each of them enters. Then each mutant gets a process, a fork
of one that has imported everything: it swaps one function's code, and runs the tests that enter the function,
the quick ones first, until one fails. Code outside of functions, and text for people, is left alone.

mutmut and cosmic-ray do not sample by a seed, and cosmic-ray starts Airflow anew for each mutant.
"""

from __future__ import annotations

import argparse
import ast
import faulthandler
import gc
import importlib
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Seconds after which a test of a mutant is taken for one that hangs.
LONGEST = 30
PAIRS = [(ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub)]
SWAPS = {
    **dict(PAIRS),
    **{b: a for a, b in PAIRS},
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}


@dataclass
class Mutant:
    """A node of a file that becomes another one; the functions around it, from the outermost."""

    path: Path
    node: Any
    becomes: str
    functions: list[Any]

    def __str__(self) -> str:
        was = " ".join(ast.unparse(self.node).split())
        return f"{self.path.relative_to(ROOT)}:{self.node.lineno}: {was[:200]}  ->  {self.becomes[:200]}"

    def key(self, which: int) -> tuple[str, int]:
        """Return what names a function among code objects."""
        function = self.functions[which]
        return str(self.path), min([function.lineno, *(one.lineno for one in function.decorator_list)])

    def code(self) -> CodeType:
        """Return the outermost function's code with the change. All lines stay where they are."""
        text, node = self.path.read_bytes().splitlines(keepends=True), self.node
        before = b"".join(text[: node.lineno - 1]) + text[node.lineno - 1][: node.col_offset]
        after = text[node.end_lineno - 1][node.end_col_offset :] + b"".join(text[node.end_lineno :])
        new = self.becomes + "\n" * (node.end_lineno - node.lineno)
        new = f"({new})" if isinstance(node, ast.expr) else new
        codes = [compile(before + new.encode() + after, str(self.path), "exec", dont_inherit=True)]
        while key(codes[-1]) != self.key(0) or codes[-1].co_name == "<module>":
            codes[-1:] = [each for each in codes[-1].co_consts if isinstance(each, CodeType)]
        return codes[-1]


def key(code: CodeType) -> tuple[str, int]:
    return code.co_filename, code.co_firstlineno


def changes(node: Any) -> Iterator[str]:
    """Return what may stand in the place of a node."""
    text, value = ast.unparse(node), getattr(node, "value", None)
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield ast.unparse(ast.Compare(node.left, [SWAPS[type(op)]()], node.comparators))
        case ast.BoolOp():
            yield ast.unparse(ast.BoolOp(SWAPS[type(node.op)](), node.values))
        case ast.BinOp() if type(node.op) in SWAPS:
            yield ast.unparse(ast.BinOp(node.left, SWAPS[type(node.op)](), node.right))
        case ast.UnaryOp(op=ast.Not()):
            yield ast.unparse(node.operand)
        case ast.Constant(value=bool()):
            yield str(not value)
        case ast.Constant(value=int() | float()):
            yield repr(value + 1)
        case ast.Constant(value=str()) if value and " " not in value:
            yield repr(f"{value}?")
        case ast.IfExp():
            yield ast.unparse(ast.IfExp(node.test, node.orelse, node.body))
        case ast.Call():
            for dropped in node.keywords:
                kept = [one for one in node.keywords if one is not dropped]
                yield ast.unparse(ast.Call(node.func, node.args, kept))
        case ast.Return(value=ast.expr()) if text not in ("return None", "return False"):
            yield "return None"
        case ast.Raise(exc=ast.Call()):
            yield "pass"
            yield f"raise Exception{text.removeprefix(f'raise {ast.unparse(node.exc.func)}')}"
        case ast.Expr(value=ast.Constant()):
            pass  # a docstring
        case ast.Expr() if not text.removeprefix("self.").startswith("log."):
            yield "pass"
        case ast.Break() | ast.Continue() | ast.AugAssign():
            yield "pass"


def mutants_of(path: Path, node: ast.AST, functions: list[Any]) -> Iterator[Mutant]:
    if functions and isinstance(node, ast.stmt | ast.expr):
        yield from (Mutant(path, node, text, functions) for text in changes(node))
    if isinstance(node, ast.JoinedStr):
        return  # Python 3.11 does not know where its parts are
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in node.body if is_function else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
        yield from mutants_of(path, child, [*functions, node] if is_function else functions)


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Return what some work returns in a process of its own; ``None`` if that dies."""
    readable, writable = os.pipe()
    if (pid := os.fork()) == 0:
        os.setsid()
        for output in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        with os.fdopen(writable, "wb") as pipe:
            try:
                pickle.dump(work(), pipe)
            except BaseException as error:
                pickle.dump(repr(error), pipe)
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        answer = pipe.read()
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    result = pickle.loads(answer) if answer else None
    if isinstance(result, str):
        raise RuntimeError(result)
    return result


class Sampler:
    """The plugin of pytest that runs the tests, again and again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.has_failed, self.longest = options, False, 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.has_failed |= report.failed

    def passing(self, items: list[pytest.Item]) -> Iterator[bool]:
        for item, then in zip(items, [*items[1:], None], strict=False):
            if self.longest:
                faulthandler.dump_traceback_later(self.longest, exit=True, file=sys.__stderr__)
            self.has_failed = False
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
            yield not self.has_failed

    def survives(self, code: CodeType, items: list[pytest.Item]) -> bool:
        for one in gc.get_objects():
            if type(one) is FunctionType and key(one.__code__) == key(code):
                one.__code__ = code
        self.longest = LONGEST
        return all(self.passing(items))

    def watch(self, items: list[pytest.Item]) -> list[tuple[bool, float, set[tuple[str, int]]]]:
        """Run all tests; say of each whether it passes, how long it takes, and which functions it enters."""
        entered: set[tuple[str, int]] = set()
        package = str(ROOT / "airflow_provider_cdf")

        def enter(frame: Any, event: str, argument: Any) -> None:
            if event == "call" and frame.f_code.co_filename.startswith(package):
                entered.add(key(frame.f_code))

        threading.setprofile(enter)
        sys.setprofile(enter)
        seen, began = [], time.monotonic()
        for passes in self.passing(items):
            seen.append((passes, time.monotonic() - began, set(entered)))
            entered.clear()
            # Python drops it where it is called too deep in a recursion, as some tests are.
            sys.setprofile(enter)
            began = time.monotonic()
        return seen

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items, paths = session.items, [path.resolve() for path in self.options.paths]
        files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
        for file in files:
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        mutants = [one for file in files for one in mutants_of(file, ast.parse(file.read_bytes()), [])]
        sample = random.Random(self.options.seed).sample(mutants, min(self.options.number, len(mutants)))
        seen = in_a_fork(partial(self.watch, items))
        failing = sum(not passes for passes, _, _ in seen)
        print(
            f"{len(sample)} of {len(mutants)} mutants, {len(items)} tests; {failing} fail unmutated",
            flush=True,
        )
        survivors = 0
        for mutant in sorted(sample, key=str):
            chosen = sorted(
                (s, n) for n, (ok, s, entered) in enumerate(seen) if ok and mutant.key(-1) in entered
            )
            work = partial(self.survives, mutant.code(), [items[n] for _, n in chosen])
            if in_a_fork(work):
                survivors += 1
                print(f"{mutant}  ({len(chosen)} tests)", flush=True)
        print(f"{len(sample) - survivors} of {len(sample)} were noticed", flush=True)
        return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("paths", type=Path, nargs="+", help="files or folders of the package")
    parser.add_argument(
        "--tests", nargs="*", default=[str(ROOT / "tests" / name) for name in ("unit", "dags", "faults")]
    )
    parser.add_argument("--number", type=int, default=40, help="how many mutants")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    quietly = ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    raise SystemExit(pytest.main([*quietly, *options.tests], plugins=[Sampler(options)]))
