"""``python -m airflow_provider_cdf.emulator``: the emulator as a program."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.emulator.functions import from_text, named
from airflow_provider_cdf.emulator.rules.clock import RunningClock

if TYPE_CHECKING:
    from airflow_provider_cdf.emulator import CdfEmulator


def main(arguments: list[str] | None = None) -> int:
    """
    Run until interrupted.

    :param arguments: of the command line; those of this process if None
    :return: the exit code
    """
    options = _parser().parse_args(arguments)
    try:
        from airflow_provider_cdf.emulator import CdfEmulator
    except ImportError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program's output
        return 2
    try:
        emulator = CdfEmulator(
            options.workflows,
            variables=_variables(options.config, options.var),
            port=options.port,
            host=options.host,
            project=options.project,
            client_id=options.client_id,
            client_secret=options.client_secret,
            functions={**options.functions, **dict(options.function)},
            secrets=dict(options.secret),
            clock=RunningClock(options.speed),
            retain=options.retain,
        )
        emulator.start()
    except (OSError, ValueError) as error:
        print(f"The CDF emulator cannot start: {error}", file=sys.stderr)  # noqa: T201 - a program's output
        return 1
    stop = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    print(_greeting(emulator, has_files=bool(options.workflows)), flush=True)  # noqa: T201 - a program's output
    # In short waits: Python runs signal handlers only when the main thread is awake, and a signal that comes
    # just before a wait, or to another thread, does not wake it.
    while not stop.wait(0.5):
        pass
    emulator.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_cdf.emulator",
        description="Emulates CDF's Data Workflows on this machine, for development and tests. It is no CDF.",
    )
    add = parser.add_argument
    add("--workflows", action="append", default=[], metavar="PATH", help="Toolkit YAML file or directory")
    add("--config", metavar="FILE", help="Toolkit config file, for the {{ variables }} in the files")
    add("--var", action="append", default=[], type=_pair, metavar="NAME=VALUE", help="one variable")
    add("--port", type=int, default=8200, help="port to listen at, 0 for any free one (default: 8200)")
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--project", default="emulator", help="CDF project (default: emulator)")
    add(
        "--client-id", default="emulator-client", help="the client that may log in (default: emulator-client)"
    )
    add("--client-secret", help="its secret (default: made up at each start)")
    add(
        "--function",
        action="append",
        default=[],
        type=_function,
        metavar="EXTERNAL_ID=DOES",
        help="what a function does: a webhook's URL, module:function, a fixed response in JSON, or !REASON to"
        " fail",
    )
    add(
        "--functions",
        default={},
        type=_functions,
        metavar="MODULE:NAME",
        help="the same for many, as a dict in a Python module; --function comes before it",
    )
    add(
        "--secret",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="one secret of functions",
    )
    add("--speed", type=float, default=1, help="seconds of workflow time in a real second (default: 1)")
    add("--retain", type=int, metavar="N", help="forget all but the last N ended executions")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    return name, value


def _variables(config: str | None, single: list[tuple[str, str]]) -> dict[str, Any]:
    from airflow_provider_cdf.emulator.toolkit.variables import override, read_config

    variables = read_config(config) if config else {}
    for name, value in single:
        variables = override(variables, name, _value(value))
    return variables


def _value(text: str) -> Any:
    """A number if it is a whole one as people write it; without the quotes if it is in quotes."""
    if re.fullmatch(r"0|-?[1-9]\d*", text):
        return int(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _function(text: str) -> tuple[str, Any]:
    external_id, does = _pair(text)
    try:
        return external_id, from_text(does)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _functions(text: str) -> dict[str, Any]:
    try:
        found = named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is not a dict of functions by external id")
    return found


def _greeting(emulator: CdfEmulator, *, has_files: bool) -> str:
    with emulator.turn() as engine:
        versions = [
            f"{version.workflow_external_id} ({version.version})" for version in engine.store.versions
        ]
    nothing = f"none yet{', as --workflows has none' if has_files else ''}: upload some"
    if not has_files:
        nothing += ", or give --workflows"
    open_to = (
        ""
        if emulator.local_only
        else f"*** It listens at {emulator.host}: all who reach this machine can use it. ***\n"
    )
    return f"""\
*** This is NOT CDF. It is an emulator: nothing here is stored, secured or run in Cognite Data Fusion. ***
{open_to}
  base URL       {emulator.url}
  token URL      {emulator.token_url}
  project        {emulator.project}
  client id      {emulator.client_id}
  client secret  {emulator.client_secret}
  workflows      {", ".join(versions) or nothing}

  export AIRFLOW_CONN_CDF_DEFAULT='{emulator.airflow_connection_uri()}'

Stop with Ctrl-C."""


if __name__ == "__main__":
    sys.exit(main())
