"""Processes that are certain to end: started in sessions of their own, found again by a mark, ended by pid.

Airflow's processes fork, call ``setpgid`` and change their titles, and a supervisor that is killed leaves
its task running. Neither a process group nor a parent's pid finds them all. An environment variable does:
every descendant inherits it.

Run as a program, this file is the guard of one cluster, see :class:`Guard`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

#: Environment variable that marks all processes of one cluster. Not ``AIRFLOW_HOME``: with a home that the
#: user has exported too, their shell and this very process would seem to belong to the cluster.
MARK = "CDF_LOCAL_AIRFLOW"

#: Seconds between SIGTERM and SIGKILL. Running tasks get their ``on_kill`` within a moment of SIGTERM; beyond
#: that there is nothing worth waiting for, and the triggerer alone takes ten seconds to stop.
GRACE = 2


@dataclass
class Process:
    """A process that was started here, and the file that takes its output."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.time)
    #: Where its output begins in the log.
    log_from: int = 0

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        user: str | None = None,
    ) -> Process:
        """
        Start a process in a session of its own, so that no Ctrl-C and no hangup of the terminal reaches it.

        :param name: what messages call it
        :param command: program and arguments
        :param env: its whole environment
        :param cwd: its working directory
        :param log: file to which standard output and standard error are appended
        :param user: whose it is, if not this process's own user
        """
        started_at = time.time()
        with log.open("ab") as output:
            log_from = output.tell()
            popen = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        return cls(name, log, popen, started_at, log_from)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def ending(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.popen.poll()
        if code is None:
            return None
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    def tail(self, lines: int = 15) -> str:
        """
        Return the end of its log, indented.

        :param lines: how many lines at most
        """
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 200 * lines))
            text = log.read().decode(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing)"

    def has_said(self, text: str) -> bool:
        """
        Whether it has written this since it was started; an earlier process may have used the same log.

        :param text: the words
        """
        with self.log.open("rb") as log:
            log.seek(self.log_from)
            return text.encode() in log.read()

    def signal(self, sig: int, *, tree: bool = True) -> None:
        """
        Send a signal.

        :param sig: the signal
        :param tree: to its descendants too, as when a machine fails; else to this one process, which may
            orphan others
        """
        targets: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            target = psutil.Process(self.pid)
            # The parent first: one that sees its child die might start another, or log a failure.
            targets = [target, *(target.children(recursive=True) if tree else [])]
        _signal(targets, sig)


def marked(mark: str) -> list[psutil.Process]:
    """
    Find the processes of a cluster, and what they started with another environment.

    :param mark: value of :data:`MARK`
    """
    alive = {
        process.pid: process
        for process in psutil.process_iter(["ppid", "environ", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
    }
    found = {pid for pid, process in alive.items() if (process.info["environ"] or {}).get(MARK) == mark}
    while more := {pid for pid, process in alive.items() if process.info["ppid"] in found} - found:
        found |= more
    return [alive[pid] for pid in found - {os.getpid()}]


def end_all(mark: str, *, grace: float = GRACE) -> None:
    """
    End all processes of a cluster, and return when none is left.

    The leaders and their process groups are asked to stop; what is still there after the grace period is
    killed.

    :param mark: value of :data:`MARK`
    :param grace: seconds between SIGTERM and SIGKILL
    :raises TimeoutError: some are still there half a minute later
    """
    known = set(marked(mark))
    for process in known:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(map(_is_alive, known)):
        time.sleep(0.05)
    # A process that forks and ends while the list is made hides its child from that list, hence twice.
    empty = 0
    while empty < 2:
        known |= set(marked(mark))
        left = [process for process in known if _is_alive(process)]
        _signal(left, signal.SIGKILL)
        empty = 0 if left else empty + 1
        if left and time.monotonic() > deadline + 30:
            raise TimeoutError(f"Processes that cannot be killed: {', '.join(str(p.pid) for p in left)}")
        time.sleep(0.05 if left else 0)


def _is_alive(process: psutil.Process) -> bool:
    # An ended child of ours is a zombie until its Popen is polled; psutil must not wait for it, or the Popen
    # would never learn its exit code.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(processes: Iterable[psutil.Process], sig: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(sig)


class Guard:
    """
    A small process that ends the cluster when this one is gone, whatever happened to it.

    It reads from a pipe that the operating system closes with the last breath of this process: after
    ``kill -9``, an unhandled SIGTERM, a closed terminal or a second Ctrl-C while the cluster is stopping.
    Linux' ``PR_SET_PDEATHSIG`` would reach direct children only, and would end them with the *thread* that
    started them.

    :param mark: value of :data:`MARK`
    :param home: directory to remove in the end, or None
    """

    def __init__(self, mark: str, home: Path | None) -> None:
        # By path, not with -m: importing this package could cost it a second. -P: nor import its neighbours.
        command = [sys.executable, "-P", __file__, mark, *([str(home)] if home else [])]
        env = {name: value for name, value in os.environ.items() if name != MARK}
        self._popen = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def keep_home(self) -> None:
        """Tell it to leave the home alone."""
        assert self._popen.stdin  # noqa: S101 (a pipe by construction)
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(b"keep")
            self._popen.stdin.flush()

    def dismiss(self, timeout: float = 15) -> None:
        """
        Let it finish: it looks for processes once more and ends.

        :param timeout: seconds after which it is killed
        """
        assert self._popen.stdin  # noqa: S101 - a pipe by construction
        self._popen.stdin.close()
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _guard(mark: str, home: str | None = None) -> None:
    keep = b"keep" in sys.stdin.buffer.read()
    end_all(mark)
    if home and not keep:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    _guard(*sys.argv[1:])
