"""One call as the server sees it: when it arrived, whose it is, and when its answer is due."""

from __future__ import annotations

import contextvars
import dataclasses
import math
import threading
import time
from dataclasses import dataclass

from edge_reranker.deadline import Deadline
from edge_reranker.server import limits
from edge_reranker.turns import Turn
from edge_reranker.types import Ranking


@dataclass(frozen=True, slots=True)
class Call:
    """``arrived_s`` and ``due_s`` (the gRPC deadline, ``inf`` without one) are on the monotonic clock.

    ``app`` is who shares places and turns with others: a namespace's app, or the owner, who has the default
    namespace but not its app's limits.
    """

    namespace: str
    arrived_s: float
    due_s: float = math.inf
    app: str = ""


_CURRENT: contextvars.ContextVar[Call] = contextvars.ContextVar("call")


def enter(call: Call) -> None:
    """Makes ``call`` the current one of this task; gRPC runs each call in a task of its own."""
    _CURRENT.set(call)


def current() -> Call:
    """The call that this task answers."""
    return _CURRENT.get()


_MOST_GRPC_MARGIN_MS = 50.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a call may take: ``default_ms`` unless it asks, less a margin for the way back.

    The wish (budget) may be met a little late, so ``margin_ms`` is small. At gRPC's deadline the client
    gives up and gets nothing, so the answer is due a tenth of the time before it, but at least
    ``grpc_margin_ms`` and at most 50 ms. (With 10 ms, 1 answer of 60 came too late on two cores with a
    load of 6.)

    A list that takes long to take in also takes its caller long to send: as much goes off once more, a
    quarter of the time at most.
    """

    default_ms: float = 200.0
    margin_ms: float = 3.0
    grpc_margin_ms: float = 15.0

    def deadline(
        self,
        call: Call,
        budget_ms: float,
        cancelled: threading.Event | None = None,
        *,
        taken_ms: float = 0.0,
        turn: Turn | None = None,
    ) -> Deadline:
        """When the core must be done; ``budget_ms`` 0 means the default, more than 60,000 means that.

        ``taken_ms`` is how long it took to take the request in; ``turn`` is what it computes by.
        """
        wish_ms = min(budget_ms or self.default_ms, limits.MAX_BUDGET_MS)
        wished_s = call.arrived_s + (wish_ms - self.margin_ms - min(taken_ms, wish_ms / 4)) / 1000.0
        if math.isinf(call.due_s):
            return Deadline(wished_s, cancelled, turn)
        left_ms = (call.due_s - call.arrived_s) * 1000.0
        margin_ms = min(max(self.grpc_margin_ms, left_ms / 10.0), _MOST_GRPC_MARGIN_MS)
        margin_ms += min(taken_ms, left_ms / 4)
        return Deadline(min(wished_s, call.due_s - margin_ms / 1000.0), cancelled, turn)


_MOST_LATENESS_MS = 50.0
_LATENESS_HALVED_S = 5.0


class Lateness:
    """How long after their deadline answers are ready, because other programs hold the processors.

    The worst of late is planned for, and forgotten within seconds (docs/decisions/0007). Threads may share
    one: at worst a measurement is lost.
    """

    def __init__(self) -> None:
        self._worst = (0.0, 0.0)  # ms, and when it was

    def before(self, due: Deadline) -> Deadline:
        """The deadline to work by so that ``due`` is met; half of the time is left in any case."""
        return due.less_ms(min(self._ms(), max(0.0, due.remaining_ms() / 2)))

    def ended(self, deadline: Deadline, call: Call) -> None:
        """Takes in that the answer to ``call``, which was to be ready by ``deadline``, is so now.

        Who gets less time than it takes to answer at all is always late; that says little of the device.
        """
        given_ms = (deadline.at_s - call.arrived_s) * 1000.0
        late_ms = min(since_ms(deadline.at_s), given_ms, _MOST_LATENESS_MS)
        if late_ms > self._ms():
            self._worst = (late_ms, time.monotonic())

    def _ms(self) -> float:
        ms, at_s = self._worst
        return float(ms * 0.5 ** ((time.monotonic() - at_s) / _LATENESS_HALVED_S))


def timed(ranking: Ranking, queue_ms: float) -> Ranking:
    """The ranking with the time before the core's work added to its timings."""
    timings = dataclasses.replace(
        ranking.timings, queue_ms=queue_ms, total_ms=ranking.timings.total_ms + queue_ms
    )
    return dataclasses.replace(ranking, timings=timings)


def since_ms(moment_s: float) -> float:
    """Milliseconds since a moment on the monotonic clock."""
    return (time.monotonic() - moment_s) * 1000.0
