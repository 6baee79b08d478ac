"""Where a list goes on, page by page, and that it comes to an end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import CdfAnswerError
from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecution

#: Empty pages in a row that lead on to another one, after which a list is not followed any longer.
MOST_EMPTY = 10
#: Pages after which it is not either: ten million executions, where CDF answers as many as it is asked for.
MOST_PAGES = 10_000
#: Executions on a list of those that run, after which it is not followed: a poll keeps 2 KB of each.
MOST_RUNNING = 100_000
#: Seconds within which a list is read where nothing else can be done meanwhile.
LIST_WITHIN = 60.0


class Pages:
    """
    Where a list goes on, which a server may say for ever.

        while not pages.are_over:
            page = send(calls.list_executions(project, cursor=pages.cursor))
            for execution in pages.items_of(page): ...

    :param within: seconds for all pages. A list that ends with the page that is being read is never late.
    :param most: executions on all pages, where all of them are kept.
    """

    def __init__(self, within: float = math.inf, most: float = math.inf) -> None:
        self._within = within
        self._most, self._found = most, 0
        self._give_up_at = clock.now() + within
        self._seen: set[str] = set()
        self._empty = 0
        #: Of the next page; ``None`` for the first one.
        self.cursor: str | None = None
        #: Whether there is no other page.
        self.are_over = False

    def items_of(self, page: ExecutionPage) -> Iterator[WorkflowExecution]:
        """
        Iterate over a page, and then note where the list goes on.

        :raises CdfAnswerError: if it has been there before, or seems never to end.
        """
        yield from page.items
        self.cursor = page.next_cursor or None
        self.are_over = self.cursor is None
        if self.cursor is None:
            return
        self._empty = 0 if page.items else self._empty + 1
        self._found += len(page.items)
        read = len(self._seen) + 1
        problem = ""
        if self.cursor in self._seen:
            problem = f"page {read} leads back to an earlier one"
        elif self._empty >= MOST_EMPTY:
            problem = f"{self._empty} empty pages in a row lead on to another one"
        elif read >= MOST_PAGES:
            problem = f"after {read} pages there is another one"
        elif self._found >= self._most:
            problem = f"after {self._found} executions there is another page"
        elif clock.now() >= self._give_up_at:
            problem = f"after {self._within:.0f} s and {read} pages there is another one"
        if problem:
            raise CdfAnswerError(f"CDF's list has no end: {problem}.")
        self._seen.add(self.cursor)
