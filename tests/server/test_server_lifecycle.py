"""Health, reflection and a stop that drops nobody."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import edge_reranker_client
from edge_reranker.deadline import Deadline
from edge_reranker.server.server import SERVICES
from edge_reranker_client import EdgeReranker
from tests.server.fake_core import FakeCore
from tests.server.fixtures import Running, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving_for_each_service_without_a_token(served: Running, service: str) -> None:
    with served.channel() as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest(service=service), timeout=5).status == SERVING


def test_health_of_an_unknown_service_is_not_found(served: Running) -> None:
    with served.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_stop_says_not_serving_and_lets_the_call_in_flight_finish(tmp_path: Path) -> None:
    working = threading.Event()

    def work(deadline: Deadline) -> None:
        working.set()
        time.sleep(0.4)

    with (
        running(tmp_path, FakeCore(before=work)) as it,
        it.channel() as channel,
        EdgeReranker(data_dir=tmp_path) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        assert list(client.events()) == []  # an earlier call: a stop that counted it would not wait
        working.clear()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(watch).status == SERVING
        answer = threads.submit(client.rerank, [{"id": "a"}])
        assert working.wait(5)
        stopping = threads.submit(it.stop, 1.0)
        assert next(watch).status == NOT_SERVING
        assert answer.result(5).ids == ("a",)
        stopping.result(5)
        assert not it.socket.exists()


def test_call_longer_than_the_grace_is_ended_and_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    working = threading.Event()

    def work(deadline: Deadline) -> None:
        working.set()
        time.sleep(1.5)

    with (
        running(tmp_path, FakeCore(before=work)) as it,
        EdgeReranker(data_dir=tmp_path) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(client.rerank, [{"id": "a"}])
        assert working.wait(5)
        start_s = time.monotonic()
        it.stop(0.1)
        assert time.monotonic() - start_s < 1.0
        with pytest.raises((edge_reranker_client.ServiceUnavailable, edge_reranker_client.Cancelled)):
            answer.result(5)


def test_stop_twice_does_no_harm(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        it.stop()
        it.stop()
        assert not it.socket.exists()


def test_stop_does_not_wait_for_clients_that_only_stay_connected(tmp_path: Path) -> None:
    with running(tmp_path) as it, EdgeReranker(data_dir=tmp_path) as client, it.channel() as channel:
        assert client.rerank([{"id": "a"}]).ids == ("a",)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(watch).status == SERVING
        start_s = time.monotonic()
        it.stop(8.0)
        assert time.monotonic() - start_s < 2.0


def test_a_call_that_comes_while_the_service_stops_is_refused_as_unavailable(tmp_path: Path) -> None:
    working = threading.Event()

    def work(deadline: Deadline) -> None:
        working.set()
        time.sleep(0.6)

    with (
        running(tmp_path, FakeCore(before=work)) as it,
        EdgeReranker(data_dir=tmp_path) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        answer = threads.submit(client.rerank, [{"id": "a"}])
        assert working.wait(5)
        stopping = threads.submit(it.stop, 5.0)
        while client.healthy():
            time.sleep(0.01)
        with pytest.raises(edge_reranker_client.ServiceUnavailable):
            client.rerank([{"id": "b"}])
        assert answer.result(5).ids == ("a",)
        stopping.result(5)


def test_a_client_that_was_there_first_finds_the_service_soon_after_it_started(tmp_path: Path) -> None:
    with EdgeReranker(socket=tmp_path / "run" / "edge-reranker.sock", data_dir=tmp_path, token="x") as client:
        with pytest.raises(edge_reranker_client.ServiceUnavailable):
            client.rerank([{"id": "a"}])
        with running(tmp_path):
            start_s = time.monotonic()
            while True:
                try:
                    client.rerank([{"id": "a"}])
                except edge_reranker_client.ServiceUnavailable:
                    assert time.monotonic() - start_s < 3.0
                    time.sleep(0.02)
                except edge_reranker_client.Unauthenticated:
                    return  # it was reached: the token is none of the service's


def reflect(served: Running) -> set[str]:
    with served.channel() as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(call(iter([request]), timeout=5))
        return {each.name for each in answer.list_services_response.service}


def test_reflection_is_off_unless_asked_for(served: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        reflect(served)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_lists_the_services_when_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, reflection=True) as it:
        assert reflect(it) >= {*SERVICES, "grpc.health.v1.Health"}
