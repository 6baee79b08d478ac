"""How long things take in the emulated CDF."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take in the emulated CDF, in seconds of workflow time."""

    #: From SCHEDULED to IN_PROGRESS.
    pickup: float = 0.05
    function: float = 0.2
    #: Long enough to cancel an execution right after its start.
    cdf: float = 0.5
    transformation: float = 0.5
    simulation: float = 0.5
    #: A task of a type that the emulator does not know.
    unknown: float = 0.5
    #: Before the nth retry of a task it waits n times as long; the real one is said to wait n times 20 s.
    retry_delay: float = 1.0
