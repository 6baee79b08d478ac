"""``python -m airflow_provider_cdf.emulator``: the emulator as a program."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from airflow_provider_cdf.emulator.server import CdfEmulator


def main(arguments: list[str] | None = None) -> int:
    """
    Run until interrupted.

    :param arguments: of the command line; those of this process if None
    :return: the exit code
    """
    options = _parser().parse_args(arguments)
    try:
        emulator = CdfEmulator(
            options.workflows,
            port=options.port,
            host=options.host,
            project=options.project,
            client_id=options.client_id,
            client_secret=options.client_secret,
        )
        emulator.start()
    except (OSError, ValueError) as error:
        print(f"The CDF emulator cannot start: {error}", file=sys.stderr)  # noqa: T201 - a program's output
        return 1
    stop = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    print(_greeting(emulator), flush=True)  # noqa: T201 - a program's output
    stop.wait()
    emulator.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_cdf.emulator",
        description="Emulates CDF's Data Workflows on this machine, for development and tests. It is no CDF.",
    )
    add = parser.add_argument
    add("--workflows", action="append", default=[], metavar="PATH", help="Toolkit YAML file or directory")
    add("--port", type=int, default=8200, help="port to listen at, 0 for any free one (default: 8200)")
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--project", default="emulator", help="CDF project (default: emulator)")
    add(
        "--client-id", default="emulator-client", help="the client that may log in (default: emulator-client)"
    )
    add("--client-secret", help="its secret (default: made up at each start)")
    return parser


def _greeting(emulator: CdfEmulator) -> str:
    return f"""\
*** This is NOT CDF. It is an emulator: nothing here is stored, secured or run in Cognite Data Fusion. ***

  base URL       {emulator.url}
  token URL      {emulator.token_url}
  project        {emulator.project}
  client id      {emulator.client_id}
  client secret  {emulator.client_secret}

  export AIRFLOW_CONN_CDF_DEFAULT='{emulator.airflow_connection_uri()}'

Stop with Ctrl-C."""


if __name__ == "__main__":
    sys.exit(main())
