"""What one call gets: its deadline, its turn, its status, and nobody's secrets."""

from __future__ import annotations

import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import edge_reranker_client
from edge_reranker import errors
from edge_reranker.deadline import Deadline
from edge_reranker.server.call import Budget, Call, Lateness
from edge_reranker.server.status import INTERNAL_MESSAGE
from edge_reranker.types import Ranking, RerankQuery
from edge_reranker_client import EdgeReranker, Event, Item
from tests.server.fake_core import FakeCore, until_deadline
from tests.server.fixtures import Running, running
from tests.server.requests import rerank

SECRET = "divorce lawyers near me"


@pytest.mark.parametrize(
    ("budget_ms", "grpc_s", "due_ms"),
    [
        (0, math.inf, 197.0),  # the default, less 3
        (50, math.inf, 47.0),
        (50, 10.0, 47.0),  # gRPC's is later: the budget binds
        (500, 0.1, 85.0),  # gRPC's is sooner: less 15
        (500, 0.2, 180.0),  # less a tenth
        (0, 0.02, 5.0),
        (9_000, 2.0, 1_950.0),  # less 50 at most
        (4_294_967_295, math.inf, 59_997.0),  # a minute at most
    ],
)
def test_core_is_due_at_the_sooner_of_budget_and_grpc_deadline_less_a_margin(
    budget_ms: int, grpc_s: float, due_ms: float
) -> None:
    call = Call("default", arrived_s=100.0, due_s=100.0 + grpc_s)
    assert Budget().deadline(call, budget_ms).at_s == pytest.approx(100.0 + due_ms / 1000.0)


@pytest.mark.parametrize(
    ("budget_ms", "grpc_s", "taken_ms", "due_ms"),
    [
        (100, math.inf, 10.0, 87.0),
        (100, math.inf, 60.0, 72.0),  # less a quarter at most
        (9_000, 0.1, 10.0, 75.0),
        (9_000, 0.1, 60.0, 60.0),
    ],
)
def test_what_takes_long_to_take_in_is_due_so_much_sooner(
    budget_ms: int, grpc_s: float, taken_ms: float, due_ms: float
) -> None:
    call = Call("default", arrived_s=100.0, due_s=100.0 + grpc_s)
    due = Budget().deadline(call, budget_ms, taken_ms=taken_ms)
    assert due.at_s == pytest.approx(100.0 + due_ms / 1000.0)


@pytest.mark.parametrize("budget_ms", [30, 120])
def test_answer_comes_by_the_budget_however_much_the_core_has_to_do(tmp_path: Path, budget_ms: int) -> None:
    with running(tmp_path, FakeCore(before=until_deadline)), EdgeReranker(data_dir=tmp_path) as client:
        client.rerank([{"id": "a"}], budget_ms=1)
        took_ms = []
        for _ in range(5):
            start_s = time.perf_counter()
            client.rerank([{"id": "a"}], budget_ms=budget_ms)
            took_ms.append((time.perf_counter() - start_s) * 1000.0)
    # The best of five, because other work on the machine may delay any one.
    assert budget_ms - 10 <= min(took_ms) <= budget_ms + 10


def test_answer_comes_before_grpc_gives_up(tmp_path: Path) -> None:
    with running(tmp_path, FakeCore(before=until_deadline)), EdgeReranker(data_dir=tmp_path) as client:
        client.rerank([{"id": "a"}], budget_ms=1)
        for timeout_s in (0.3, 0.4, 0.5):
            start_s = time.perf_counter()
            assert client.rerank([{"id": "a"}], budget_ms=60_000, timeout_s=timeout_s).ids == ("a",)
            assert time.perf_counter() - start_s > timeout_s * 0.8


def test_default_budget_is_the_servers(tmp_path: Path) -> None:
    with running(tmp_path, default_budget_ms=5_000.0, margin_ms=100.0) as it:
        with EdgeReranker(data_dir=tmp_path) as client:
            client.rerank([{"id": "a"}])
        assert 4_000 < it.core.deadlines[0].remaining_ms() <= 4_900


def test_time_before_the_work_is_told_and_counted(app: EdgeReranker) -> None:
    timings = app.rerank([{"id": "a"}]).timings
    assert timings.queue_ms > 0
    assert timings.total_ms == pytest.approx(timings.queue_ms + 1.0)  # the fake core says 1 ms


def test_one_slow_call_does_not_delay_another(tmp_path: Path) -> None:
    slow = threading.Event()

    def wait_if_first(deadline: Deadline) -> None:
        if not slow.is_set():
            slow.set()
            until_deadline(deadline)

    core = FakeCore(before=wait_if_first)
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.rerank, [{"id": "a"}], budget_ms=1_500)
        assert slow.wait(5)
        assert client.rerank([{"id": "b"}]).ids == ("b",)
        assert list(client.events()) == []
        assert not waiting.done()
        assert waiting.result(5).ids == ("a",)


def test_a_call_that_waits_for_the_model_lets_others_compute(tmp_path: Path) -> None:
    slow, done = threading.Event(), threading.Event()

    def wait_if_first(deadline: Deadline) -> None:
        if not slow.is_set():
            with deadline.while_waiting():
                slow.set()
                done.wait(5)

    core = FakeCore(before=wait_if_first)
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.rerank, [{"id": "a"}], budget_ms=10_000)
        assert slow.wait(5)
        assert client.rerank([{"id": "b"}], budget_ms=10_000).timings.queue_ms < 4_000
        assert not waiting.done()
        done.set()
        assert waiting.result(5).ids == ("a",)


@pytest.mark.parametrize("streamed", [False, True])
def test_calls_that_compute_take_turns_and_say_how_long_they_waited(tmp_path: Path, streamed: bool) -> None:
    computing, done = threading.Event(), threading.Event()

    def compute(deadline: Deadline) -> None:
        computing.set()
        done.wait(5)

    def call(name: str) -> float:
        if streamed:
            *_, last = client.rerank_stream([{"id": name}], budget_ms=10_000)
            return last.timings.queue_ms
        return client.rerank([{"id": name}], budget_ms=10_000).timings.queue_ms

    core = FakeCore(before=compute)
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client, ThreadPoolExecutor(2) as threads:
        first = threads.submit(call, "a")
        assert computing.wait(5)
        computing.clear()
        second = threads.submit(call, "b")
        assert not computing.wait(0.3)
        done.set()
        assert first.result(5) < second.result(5)
        assert second.result(5) >= 200


def test_calls_to_the_store_are_in_the_core_together_so_that_they_can_share_a_commit(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    core = FakeCore(before=lambda deadline: _passed(together))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client, ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda i: client.record([Event("LIKE", Item("a"), event_id=str(i))]), range(8))
        assert sum(each.recorded for each in answers) == 8


def _passed(barrier: threading.Barrier) -> None:
    barrier.wait(5)


def test_one_call_too_many_is_refused_at_once_and_the_place_comes_free_again(tmp_path: Path) -> None:
    busy = threading.Event()
    done = threading.Event()

    def hold(deadline: Deadline) -> None:
        busy.set()
        done.wait(5)

    with (
        running(tmp_path, FakeCore(before=hold), max_rerank_calls=1),
        EdgeReranker(data_dir=tmp_path) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(client.rerank, [{"id": "a"}])
        assert busy.wait(5)
        with pytest.raises(edge_reranker_client.Overloaded, match="try again shortly"):
            client.rerank([{"id": "b"}])
        with pytest.raises(edge_reranker_client.Overloaded):
            list(client.rerank_stream([{"id": "b"}]))
        done.set()
        assert first.result(5).ids == ("a",)
        assert client.rerank([{"id": "b"}]).ids == ("b",)


def test_thread_of_a_call_that_was_given_up_comes_free_by_its_deadline(tmp_path: Path) -> None:
    core = FakeCore(before=until_deadline)
    with running(tmp_path, core, max_rerank_calls=1) as it, it.channel() as channel:
        call: Any = channel.unary_unary("/edge_reranker.v1.RerankService/Rerank")
        message = rerank("a")
        message.budget_ms = 400
        future = call.future(message.SerializeToString(), metadata=it.bearer("app"), timeout=5)
        assert _soon(lambda: bool(core.deadlines))
        future.cancel()
        core.before = lambda deadline: None
        with EdgeReranker(data_dir=tmp_path) as client:
            with pytest.raises(edge_reranker_client.Overloaded):
                client.rerank([{"id": "b"}])
            time.sleep(max(0.0, core.deadlines[0].remaining_ms() / 1000.0))
            assert _soon(lambda: _works(client))


def test_stream_that_its_reader_leaves_is_closed_at_its_next_step(tmp_path: Path) -> None:
    steps: list[Deadline] = []
    left = threading.Event()

    def work(deadline: Deadline) -> None:
        steps.append(deadline)
        if len(steps) > 1:
            left.wait(5)

    core = FakeCore(before=work)
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client:
        stream = client.rerank_stream([{"id": "a"}])
        assert not next(stream).final
        stream.close()  # type: ignore[attr-defined]
        time.sleep(0.3)  # for the news to reach the server
        left.set()
        assert _soon(lambda: core.streams_closed == 1)
    assert len(steps) == 2


def test_stream_gives_each_order_as_it_comes(app: EdgeReranker) -> None:
    answers = list(app.rerank_stream([{"id": "b"}, {"id": "a"}], top_n=1))
    assert [each.ids for each in answers] == [("a",)] * 3
    assert [each.results[0].tier for each in answers] == [0, 1, 2]
    assert [each.final for each in answers] == [False, False, True]


def test_stream_that_fails_midway_gives_what_it_had_and_then_the_error(tmp_path: Path) -> None:
    calls = iter([None, errors.EngineDied("the worker stopped")])

    def fail_second(deadline: Deadline) -> None:
        error = next(calls)
        if error is not None:
            raise error

    with running(tmp_path, FakeCore(before=fail_second)), EdgeReranker(data_dir=tmp_path) as client:
        stream = client.rerank_stream([{"id": "a"}])
        assert next(stream).ids == ("a",)
        with pytest.raises(edge_reranker_client.EngineDied, match="the worker stopped"):
            next(stream)


def _everything(client: EdgeReranker) -> list[object]:
    """Calls every rpc that reaches the core; what each raised."""
    raised: list[object] = []
    for call in (
        lambda: client.rerank([{"id": "a", "title": SECRET}], query=SECRET),
        lambda: list(client.rerank_stream([{"id": "a", "title": SECRET}], query=SECRET)),
        lambda: client.record([Event("SEARCH", query=SECRET, item=Item("a", title=SECRET))]),
        lambda: list(client.events()),
        lambda: client.forget(item_id=SECRET),
        lambda: client.models(),
        lambda: client.warmup(),
    ):
        try:
            call()
        except edge_reranker_client.EdgeRerankerError as error:
            raised.append(error)
    return raised


def test_foreign_exceptions_text_reaches_neither_client_nor_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(deadline: Deadline) -> None:
        raise LookupError(SECRET)

    caplog.set_level(logging.DEBUG)
    with running(tmp_path, FakeCore(before=fail)), EdgeReranker(data_dir=tmp_path, owner=True) as client:
        raised = _everything(client)
    assert [str(each) for each in raised] == [INTERNAL_MESSAGE] * 7
    written = caplog.text + "".join(capfd.readouterr())
    assert "LookupError" in caplog.text
    assert "/edge_reranker.v1.RerankService/Rerank failed" in caplog.text
    assert SECRET not in written
    assert "Traceback" not in written


def test_nothing_a_user_wrote_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(tmp_path) as it, EdgeReranker(data_dir=tmp_path, owner=True) as client:
        assert _everything(client) == []
        assert len(it.core.stored["default"]) == 1
        with pytest.raises(edge_reranker_client.InvalidArgument, match=SECRET):
            client.rerank([{"id": SECRET}, {"id": SECRET}])
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


class Stops(FakeCore):
    """Has a damaged store."""

    def rerank(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Ranking:
        raise errors.StoreCorrupt("the store is damaged; restore a backup")


def test_our_own_errors_pass_with_their_message(tmp_path: Path) -> None:
    with (
        running(tmp_path, Stops()),
        EdgeReranker(data_dir=tmp_path) as client,
        pytest.raises(edge_reranker_client.StoreCorrupt) as caught,
    ):
        client.rerank([{"id": "a"}])
    assert str(caught.value) == "the store is damaged; restore a backup"
    assert caught.value.status is grpc.StatusCode.DATA_LOSS


def _works(client: EdgeReranker) -> bool:
    try:
        client.rerank([{"id": "b"}])
    except edge_reranker_client.Overloaded:
        return False
    return True


def _soon(happens: object) -> bool:
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        if happens():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_unknown_rpc_is_unimplemented(served: Running) -> None:
    with served.channel() as channel:
        call: Any = channel.unary_unary("/edge_reranker.v1.RerankService/Guess")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=served.bearer("owner"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def ended(lateness: Lateness, *, given_ms: float, late_ms: float) -> None:
    """An answer that is ready now, ``late_ms`` after what was given to it was over."""
    arrived_s = time.monotonic() - (given_ms + late_ms) / 1000.0
    lateness.ended(Deadline(arrived_s + given_ms / 1000.0), Call("default", arrived_s))


def earlier_ms(lateness: Lateness, left_ms: float) -> float:
    due = Deadline.after_ms(left_ms)
    return (due.at_s - lateness.before(due).at_s) * 1000.0


def test_answers_that_come_late_make_the_next_ones_due_earlier_for_some_seconds() -> None:
    lateness = Lateness()
    assert earlier_ms(lateness, 200) == 0, "all was in time so far"
    ended(lateness, given_ms=100, late_ms=40)
    assert earlier_ms(lateness, 200) == pytest.approx(40, abs=2)
    ended(lateness, given_ms=100, late_ms=4)
    ended(lateness, given_ms=100, late_ms=-50)
    assert earlier_ms(lateness, 200) == pytest.approx(40, abs=2), "the worst counts"
    time.sleep(1.0)
    assert earlier_ms(lateness, 200) == pytest.approx(40 * 0.5**0.2, abs=2), "and is forgotten"


def test_lateness_leaves_half_of_the_time_and_takes_50_ms_at_most() -> None:
    lateness = Lateness()
    ended(lateness, given_ms=1_000, late_ms=5_000)
    assert earlier_ms(lateness, 1_000) == pytest.approx(50, abs=2)
    assert earlier_ms(lateness, 40) == pytest.approx(20, abs=2)
    assert earlier_ms(lateness, -5) == 0


def test_who_gives_no_time_teaches_nothing() -> None:
    lateness = Lateness()
    ended(lateness, given_ms=-2, late_ms=30)
    assert earlier_ms(lateness, 200) == 0
    ended(lateness, given_ms=5, late_ms=30)
    assert earlier_ms(lateness, 200) == pytest.approx(5, abs=1)


def test_a_server_that_answered_late_plans_the_next_request_earlier(tmp_path: Path) -> None:
    late = iter([0.3, 0.0])
    core = FakeCore(before=lambda deadline: time.sleep(next(late)))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client:
        given_ms = []
        for _ in range(2):
            start_s = time.monotonic()
            client.rerank([{"id": "a"}], budget_ms=200)
            given_ms.append((core.deadlines[-1].at_s - start_s) * 1000.0)
    assert given_ms[0] - given_ms[1] > 40
