"""Keeps to the rules of retention in the background, and lets requests go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge_reranker.errors import StoreError
from edge_reranker.store import Store
from edge_reranker.types import Retention, RetentionStatus

_EVERY_S = 3_600.0
# After a step of the sweep, the writer is left to others for as long again, and this at least.
_REST_S = 0.004
# A namespace may have so many events more than its rule keeps, in parts of them, before it is swept.
_MARGIN = 0.1
_LEAST_MARGIN = 64


class Sweeper:
    """One thread, which is only there once a namespace has a rule. Thread-safe.

    A namespace is swept at the start, when its rule changes, when more was recorded than a tenth of what it
    keeps (64 events at least), and every hour in which events may have come over the rule: a service without
    rules never wakes up for it, and one that rests does once an hour if events go by age. Nothing that was
    recorded is ever refused for a rule: until the sweep, a namespace holds more than its rule keeps.

    ``swept`` hears of a namespace of which something went, and whether a context may have had it.
    """

    def __init__(
        self,
        store: Store,
        swept: Callable[[str, bool], None],
        *,
        every_s: float = _EVERY_S,
        rest_s: float = _REST_S,
    ) -> None:
        self._store = store
        self._swept = swept
        self._every_s = every_s
        self._rest_s = rest_s
        self._changed = threading.Condition()
        self._rules = store.retentions()
        self._due = set(self._rules)
        self._recorded: dict[str, int] = {}
        self._sweeping = ""
        self._setting = threading.Lock()
        self._stopping = ""  # the namespace whose rule is being changed
        self._swept_at_s = time.monotonic()
        self._closed = False
        self._thread: threading.Thread | None = None
        if self._due:
            self._start()

    def status(self, namespace: str) -> RetentionStatus:
        """The rule in force, and how far it is. Raises StoreError."""
        with self._changed:
            sweeping = namespace in self._due or namespace == self._sweeping
        return RetentionStatus(self._store.retention(namespace), self._store.now(), sweeping)

    def set(self, namespace: str, rule: Retention) -> None:
        """Changes a rule, durably, and has the namespace swept. Raises StoreError.

        Once it returns, nothing more goes by the rule before.
        """
        with self._setting:
            with self._changed:
                self._stopping = namespace
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._sweeping != namespace)
            try:
                self._store.set_retention(namespace, rule)
            except BaseException:
                rule = self._rules.get(namespace, Retention())
                raise
            finally:
                self._changed_to(namespace, rule)

    def _changed_to(self, namespace: str, rule: Retention) -> None:
        with self._changed:
            self._stopping = ""
            if rule:
                self._rules[namespace] = rule
                self._due.add(namespace)
                self._start()
            else:
                self._rules.pop(namespace, None)
                self._due.discard(namespace)
                self._recorded.pop(namespace, None)
            self._changed.notify_all()

    def recorded(self, namespace: str, n_events: int) -> None:
        """Takes in that so many events are new; has the namespace swept when they are many."""
        with self._changed:
            rule = self._rules.get(namespace)
            if rule is None or not n_events:
                return
            first = not self._recorded
            self._recorded[namespace] = self._recorded.get(namespace, 0) + n_events
            if self._recorded[namespace] >= _margin(rule):
                self._due.add(namespace)
            # Else the thread would wake for nothing, record by record.
            if first or namespace in self._due:
                self._changed.notify_all()

    def close(self) -> None:
        """Stops after the step at hand; the next start goes on. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._sweeping = ""
                self._changed.notify_all()
                while not (self._closed or self._due - {self._stopping}):
                    if not self._changed.wait(self._until_next_s()):
                        self._due.update(self._rules)
                if self._closed:
                    return
                self._sweeping = (self._due - {self._stopping}).pop()
                self._due.discard(self._sweeping)
                self._recorded.pop(self._sweeping, None)
                self._swept_at_s = time.monotonic()
            self._sweep(self._sweeping)

    def _until_next_s(self) -> float | None:
        """How long nothing can come over a rule; None: until something is recorded."""
        if self._due:  # its rule is being changed
            return None
        by_age = any(
            rule.max_age_days or any(each.max_age_days for each in rule.by_type)
            for rule in self._rules.values()
        )
        if not by_age and not self._recorded:
            return None
        return max(0.0, self._swept_at_s + self._every_s - time.monotonic())

    def _sweep(self, namespace: str) -> None:
        removed = touched = False
        try:
            for step in self._store.sweep(namespace):
                removed = True
                touched = touched or step.touched
                if step.touched:
                    self._swept(namespace, True)
                with self._changed:
                    if self._changed.wait_for(self._must_stop, timeout=max(step.took_s, self._rest_s)):
                        return
        except StoreError:
            # A full or damaged disk: everybody who uses the store is told, and the next hour tries again.
            return
        finally:
            if removed:
                self._swept(namespace, touched)

    def _must_stop(self) -> bool:
        return self._closed or self._stopping == self._sweeping


def _margin(rule: Retention) -> int:
    counts = [rule.max_events, *(each.max_events for each in rule.by_type)]
    smallest = min((count for count in counts if count), default=0)
    return max(_LEAST_MARGIN, int(smallest * _MARGIN)) if smallest else 1 << 62
