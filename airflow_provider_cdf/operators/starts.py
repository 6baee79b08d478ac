"""
Starting one execution for one logical run of a task, whatever dies in between.

Each submission is noted in Airflow's store of task states before it is sent, and carries its id and the key
of the logical run in its metadata. So every try knows what may have been started, and finds it. A try

1. reads the note. Is it empty on the first try, nothing was started;
2. looks in CDF until each submission of the note is accounted for, or can no longer have an effect. Is the
   note empty, it looks once: an earlier try may have run on an Airflow without a store, before an upgrade;
3. of several executions keeps one, and cancels the others;
4. if that one is of no use, notes a submission of its own, and sends it;
5. reads the note again. Has another process noted a submission meanwhile, it is settled as in 2 and 3: the
   older execution stays.

Without a store (Airflow below 3.3) a try looks always, and takes for open what the try before may have sent.

The steps are generators, like the conversations of ``cdf/conversations.py``, and yield two more kinds of
step: :class:`ReadNote` and :class:`WriteNote`. So the operator, its failure callback and a model in the tests
carry out the very same ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow_provider_cdf.cdf import calls, clock, conversations, submitting
from airflow_provider_cdf.cdf.calls import SUBMIT_ID, Call
from airflow_provider_cdf.cdf.conversations import RUN_KEY
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.cdf.models import WorkflowExecution
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.steps import Conversation, Pause, ResultT
from airflow_provider_cdf.cdf.values import json_object
from airflow_provider_cdf.operators.cancelling import (
    ANOTHER_WAS_KEPT,
    TASK_HAS_DIED,
    after_cancelling,
    has_ended_badly,
    is_given_up,
)
from airflow_provider_cdf.operators.identity import RunKey, Try, try_number_of

log = logging.getLogger(__name__)

#: Seconds between two looks for an execution that CDF does not list yet.
LOOK_AGAIN_AFTER = 5.0
#: Seconds within which CDF should list an execution that it has just started.
LISTED_AFTER = 30.0
#: Seconds between reading and writing a note after which another process may have written in between.
QUICK = 0.1
#: How many submissions a note keeps.
LONGEST_NOTE = 50


@dataclass(frozen=True)
class Submission:
    """
    One submission, as the note in Airflow's store names it.

    :param try_number: of the try that has made it.
    :param max_tries: of the task at that time, which grows when a person clears the task.
    :param clears: of the DAG run at that time.
    """

    submit_id: str
    try_number: int
    max_tries: int
    clears: int

    def is_of_the_life_of(self, this: Try) -> bool:
        """Whether no person has cleared the task since."""
        if self.max_tries != this.key.max_tries:
            return False
        # A clear sets max_tries to the tries so far plus `retries`. If `retries` has been lowered, that can
        # be what it was before. Then the try after the clear has this number, and more may have followed.
        first_since = this.key.max_tries - this.retries + 1
        is_older_than_a_clear = self.try_number < first_since <= this.number
        return not (self.clears != this.clears and is_older_than_a_clear)


@dataclass(frozen=True)
class ReadNote:
    """A step: read the note. The answer is a list of submissions, or ``None`` where Airflow has no store."""


@dataclass(frozen=True)
class WriteNote:
    """A step: write the note. Airflow takes none from a process whose try is over, which ends it here."""

    submissions: tuple[Submission, ...]


#: A conversation with CDF that keeps a note in Airflow's store.
NotedConversation: TypeAlias = Generator[Call[Any] | Pause | ReadNote | WriteNote, Any, ResultT]


@dataclass(frozen=True)
class _Listed:
    """What CDF lists of a task: of this logical run, and of what the task was before a person cleared it."""

    own: list[WorkflowExecution]
    earlier: list[WorkflowExecution]
    #: Of a task of a DAG run of the same name: of this one before a clear, or of another Airflow.
    namesakes: list[WorkflowExecution]
    #: The ids of what may be of this task, too, and cannot be read.
    unreadable: list[str]

    @property
    def submit_ids(self) -> set[object]:
        return {one.metadata.get(SUBMIT_ID) for one in (*self.own, *self.earlier)}


@dataclass(frozen=True)
class Found:
    """
    The execution of a logical run.

    :param is_under_way_anew: whether this try has started it, or has had CDF retry it.
    """

    execution: WorkflowExecution
    is_under_way_anew: bool = False


class Starts:
    """
    What one logical run of a task has started in CDF, and may still start.

    :param this: the try.
    :param workflow_external_id: of the workflow that it starts.
    :param may_cancel_earlier: whether to cancel what still runs of the task's life before it was cleared.
    :param may_lose_notes: whether the store may have been emptied although something was noted.
    """

    def __init__(
        self,
        settings: Settings,
        this: Try,
        workflow_external_id: str,
        *,
        may_cancel_earlier: bool = True,
        may_lose_notes: bool = False,
    ) -> None:
        self._settings = settings
        self._this = this
        self._workflow_external_id = workflow_external_id
        self._may_cancel_earlier = may_cancel_earlier
        self._may_lose_notes = may_lose_notes
        self._noted: list[Submission] = []
        self._known: set[str] = set()
        #: Submissions that other processes of this task have noted since this one has read the note.
        self._others: set[str] = set()
        self._has_store = False
        self._read_at = 0.0
        #: A submission of this process of which it is not known what it has started.
        self.open_submission: str | None = None
        #: What could not be cancelled, in sentences.
        self.left_running = ""
        #: The execution that this process has started.
        self.started: str | None = None

    def find_or_start(
        self,
        version: str,
        *,
        input: Mapping[str, Any] | None,  # noqa: A002 - the API's own name
        metadata: Mapping[str, str],
        retry_from_failure: bool = False,
    ) -> NotedConversation[Found]:
        """
        Return the execution of this logical run: the one that it has started already, or a new one.

        :param retry_from_failure: whether CDF is to run the failed tasks of one that has ended badly again.
        """
        while True:
            try:
                found = yield from self.find()
            except CdfError as error:
                raise error.adding("An execution of an earlier try may still run in CDF.") from None
            if found is not None and not has_ended_badly(found):
                return Found(found)
            if not self._has_store or clock.now() - self._read_at < QUICK:
                break
            # To look has taken a while, in which another process of this task may have noted a submission.
            self._read_at = clock.now()
            self._learn_of_others((yield ReadNote()))
            if not self._others:
                break
        # Airflow starts a try twice now and then: what this very try has started has ended, and that was it.
        if found is not None and self._this.has_started(found) and is_given_up(found):
            return Found(found)
        if found is not None and retry_from_failure:
            log.info("CDF runs the failed tasks again: it ended %s. [execution %s]", found.status, found.id)
            retried = yield from self._retry(found)
            if not has_ended_badly(retried):
                return Found(retried, is_under_way_anew=True)
        elif found is not None:
            log.info(
                "Starting a new execution: the last one ended %s. [execution %s]", found.status, found.id
            )
        if self.left_running:
            # A retry may have more luck. Beside what still runs, nothing is started.
            raise CdfError(told("No execution was started, because an older one goes on.", self.left_running))
        started = yield from self.start(version, input=input, metadata=metadata)
        return Found(started, is_under_way_anew=True)

    def find(self) -> NotedConversation[WorkflowExecution | None]:
        """Return what this logical run has started already, if it is worth anything or tells how it ended."""
        self._read_at = clock.now()
        note = yield ReadNote()
        self._has_store, self._noted = note is not None, note or []
        noted = {one.submit_id for one in self._noted}
        self._known, self._others = set(noted), set()
        this = self._this
        is_complete = self._has_store and not self._may_lose_notes
        if is_complete and not noted and this.number == 1:
            return None

        def is_open(listed: _Listed) -> bool:
            if noted or is_complete:
                return not noted <= listed.submit_ids
            return this.number > 1 and not self._is_accounted_for(this.number - 1, listed)

        listed = yield from self._look(is_open, within=submitting.NONCE_DEAD_AFTER)
        if listed.unreadable and is_open(listed):
            raise conversations.inconclusive(listed.unreadable)
        if this.is_first_since_a_clear and not noted:
            self._name_namesakes(listed)
        # What has not appeared until now never will.
        self._noted = [one for one in self._noted if one.submit_id in listed.submit_ids]
        return (yield from self._settle(listed))

    def _is_accounted_for(self, number: int, listed: _Listed) -> bool:
        """Whether what an earlier try may have started is listed, as far as can be told without a note."""
        before_a_clear = self._this.is_first_since_a_clear
        known = [*listed.own, *listed.earlier, *(listed.namesakes if before_a_clear else [])]
        if any(try_number_of(one.metadata.get(SUBMIT_ID)) == number for one in known):
            return True
        # One that found an execution of its own life, of any use, has gone on with it, and started nothing.
        return not all(map(has_ended_badly, known if before_a_clear else listed.own))

    def start(
        self,
        version: str,
        *,
        input: Mapping[str, Any] | None,  # noqa: A002 - the API's own name
        metadata: Mapping[str, str],
    ) -> NotedConversation[WorkflowExecution]:
        """Start an execution, and return it; or the one that another process of the task has started."""
        this = self._this
        if input is not None:
            # Before anything is noted: a lazy value reads XComs here, and may fail in any way.
            input = json_object(input, "input")  # noqa: A001 - as above
        own = Submission(this.new_submit_id(), this.number, this.key.max_tries, this.clears)
        before = self._noted
        self._noted = [*before, own][-LONGEST_NOTE:]
        if self._has_store:
            yield WriteNote(tuple(self._noted))
        was_quick = clock.now() - self._read_at < QUICK
        self._known.add(own.submit_id)
        self.open_submission = own.submit_id
        try:
            started = yield from conversations.run_workflow(
                self._settings,
                self._workflow_external_id,
                version,
                input=input,
                metadata=metadata,
                submit_id=own.submit_id,
            )
        except CdfError as error:
            if not is_ambiguous(error) and not error.may_be_under_way:
                self.open_submission = None
                yield from self._note_that_nothing_was_started(before)
            raise
        self.open_submission, self.started = None, started.id
        give_up_at = clock.now() + submitting.SUBMIT_WITHIN
        while True:
            try:
                return (yield from self._settle_with_others(started, own, was_quick))
            except CdfError as error:
                log.warning(
                    "%s", told("Whether another process has started an execution is not known.", error)
                )
                if not is_transient(error) or clock.now() >= give_up_at:
                    return started
            yield Pause(LOOK_AGAIN_AFTER)

    def cancel_all(
        self, is_open: Callable[[Collection[object]], bool], within: float
    ) -> Conversation[list[str]]:
        """
        Cancel all that runs of this task, and return in sentences what has become of it.

        :param is_open: given the submit ids of what is listed, whether more may still appear.
        :param within: seconds to look for more.
        """
        # What is there already does not wait for what may follow: there may be less time than that takes.
        fates: list[str] = []
        for seconds in (0.0, within):
            listed = yield from self._look(lambda listed: is_open(listed.submit_ids), seconds)
            cancelled, left = yield from self._cancel([*listed.own, *listed.earlier], TASK_HAS_DIED)
            fates += cancelled
            if not is_open(listed.submit_ids):
                break
        return [*fates, *left]

    def _retry(self, found: WorkflowExecution) -> Conversation[WorkflowExecution]:
        try:
            return (yield from conversations.retry_execution(self._settings, found.id))
        except CdfError as error:
            if isinstance(error, CdfApiError) and error.is_about_the_id:
                # It may have been retried by hand a moment ago.
                now: WorkflowExecution = yield calls.get_execution(self._settings.project, found.id)
                if not has_ended_badly(now):
                    return now
            raise error.adding(
                f"The execution had ended {found.status} before. [execution {found.id}]"
            ) from None

    def _settle_with_others(
        self, started: WorkflowExecution, own: Submission, was_quick: bool
    ) -> NotedConversation[WorkflowExecution]:
        """
        Settle that another process of this task may have started an execution, too.

        Airflow starts a try twice now and then (apache/airflow#65248); and the process of an earlier try may
        have gone on as an orphan.
        """
        note: list[Submission] | None = None
        try:
            note = yield ReadNote()
        except CdfError as error:
            log.warning("%s", error)
        self._learn_of_others(note)
        if self._has_store and note is not None and was_quick and not self._others:
            return started
        awaited = {own.submit_id, *self._others}
        listed = yield from self._look(
            lambda listed: not awaited <= listed.submit_ids,
            within=submitting.NONCE_DEAD_AFTER if self._others else LISTED_AFTER,
        )
        return (yield from self._settle(listed)) or started

    def _learn_of_others(self, note: list[Submission] | None) -> None:
        """Add to what is noted the submissions of other processes that have come since it was read."""
        new = [one for one in note or () if one.submit_id not in self._known]
        self._noted = [*self._noted, *new]
        self._others |= {one.submit_id for one in new}
        self._known |= self._others

    def _note_that_nothing_was_started(self, noted: list[Submission]) -> NotedConversation[None]:
        """Take a submission back, so that no later try waits for it."""
        self._noted = noted
        if not self._has_store:
            return
        try:
            yield WriteNote(tuple(noted))
        except CdfError as error:
            log.info("%s", error)

    def _look(self, is_open: Callable[[_Listed], bool], within: float) -> Conversation[_Listed]:
        """Look in CDF until nothing more is to be expected, or the time for that is over."""
        until = clock.now() + within
        has_said_so = False
        while True:
            listed = yield from self._list()
            left = until - clock.now()
            if left <= 0 or not is_open(listed):
                return listed
            if not has_said_so:
                has_said_so = True
                log.info(
                    "A request to start an execution may be under way still. Looking in CDF for what it "
                    "starts for up to %.0f s.",
                    left,
                )
            yield Pause(min(LOOK_AGAIN_AFTER, left))

    def _list(self) -> Conversation[_Listed]:
        # All that run, whatever their workflow: an edit may have changed that between two tries.
        found: dict[str, WorkflowExecution] = {}
        unreadable: list[str] = []
        for narrowed_down in ({"status": "RUNNING"}, {"workflow_external_id": self._workflow_external_id}):
            executions = yield from conversations.list_executions(
                self._settings,
                self._has_our_name,
                unreadable,
                created_after=self._this.since,
                **narrowed_down,
            )
            found |= {one.id: one for one in executions}
        by_life: dict[bool | None, list[WorkflowExecution]] = {True: [], False: [], None: []}
        for one in found.values():
            by_life[self._belongs(one)].append(one)
        return _Listed(by_life[True], by_life[False], by_life[None], unreadable)

    def _has_our_name(self, execution: WorkflowExecution) -> bool:
        key = RunKey.parse(execution.metadata.get(RUN_KEY))
        return (key is not None and key.task == self._this.key.task) or self._belongs(execution) is not None

    def _name_namesakes(self, listed: _Listed) -> None:
        """Warn of what may be of this task before it was cleared, and is not cancelled."""
        for one in listed.namesakes:
            if not one.has_ended:
                log.warning(
                    "An execution of a DAG run of the same name goes on. It is of this task before it was "
                    "cleared, or of another Airflow. Extra 'airflow_name' of the connection tells them "
                    "apart. [execution %s]",
                    one.id,
                )

    def _belongs(self, execution: WorkflowExecution) -> bool | None:
        """Whether it is of this logical run, or of an earlier life of the task (``False``), or neither."""
        this, submit_id = self._this, execution.metadata.get(SUBMIT_ID)
        for one in self._noted:
            if one.submit_id == submit_id:
                return one.is_of_the_life_of(this)
        if this.has_started(execution):
            return True
        key = RunKey.parse(execution.metadata.get(RUN_KEY))
        if key is None or key.task != this.key.task:
            return None
        if key.run_began == this.key.run_began:
            return key.max_tries == this.key.max_tries
        # Of a DAG run of the same name: of this Airflow only if the connection says which one it is.
        return False if this.is_named else None

    def _settle(self, listed: _Listed) -> Conversation[WorkflowExecution | None]:
        """Keep one execution of this logical run, and cancel what else runs of the task."""
        keep = min(listed.own, key=_by_usefulness, default=None)
        others = [one for one in listed.own if one is not keep]
        others += listed.earlier if self._may_cancel_earlier else []
        _, left = yield from self._cancel(others, ANOTHER_WAS_KEPT)
        self.left_running = told(*left)
        return keep

    def _cancel(
        self, executions: list[WorkflowExecution], reason: str
    ) -> Conversation[tuple[list[str], list[str]]]:
        """Cancel those that run; return in sentences what has become of them, and which may still run."""
        fates: list[str] = []
        left: list[str] = []
        for execution in executions:
            if execution.has_ended:
                continue
            try:
                ended = yield from conversations.cancel_execution(self._settings, execution.id, reason)
            except CdfError as error:
                left.append(
                    told(
                        "An execution may still run; it could not be cancelled.",
                        error,
                        ids(execution=execution.id),
                    )
                )
                log.warning("%s", left[-1])
            else:
                fates.append(after_cancelling(ended))
                log.info("%s", fates[-1])
        return fates, left


def _by_usefulness(execution: WorkflowExecution) -> tuple[int, int, str]:
    """Order executions of one logical run: a result, what runs (the oldest first), the latest bad end."""
    age = execution.created_time or 0
    if execution.status == "COMPLETED":
        return 0, age, execution.id
    return (2, -age, execution.id) if execution.has_ended else (1, age, execution.id)
