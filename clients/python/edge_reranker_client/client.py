"""The client that apps use."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO

from edge_reranker.v1 import (
    context_service_pb2,
    context_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
)
from edge_reranker_client import discovery, messages, requests, why
from edge_reranker_client.namespaces import Namespaces
from edge_reranker_client.records import (
    BeliefEvent,
    Event,
    Explained,
    Forgotten,
    Model,
    Profile,
    Ranking,
    Reason,
    Recorded,
    Retention,
    RetentionStatus,
)
from edge_reranker_client.transport import Transport, given_path

_WARMUP_S = 60.0
_LOAD_S = 130.0  # a minute for the self-test, and one for the longest call on the model before
_HEALTH_S = 2.0
_TRANSFER_S = 24 * 3600.0  # as long as it goes on: a million events take minutes, more on a slow board


class EdgeReranker:
    """Talks to the edge-reranker service on this device.

    Socket and token are found by themselves: arguments first, then ``EDGE_RERANKER_SOCKET``,
    ``EDGE_RERANKER_TOKEN`` and ``EDGE_RERANKER_DATA_DIR``, then the platform's data directory. A given
    ``data_dir`` means its own socket and token, whatever the environment says. The socket is the one that
    ``config.toml`` in the data directory names, else the usual one; other settings files are not read.
    ``namespace`` is the app's own, if the owner made one for it (else ``EDGE_RERANKER_NAMESPACE``, else the
    default one); its token is found there. ``owner=True`` reads the owner's token, which all calls but
    ``rerank``, ``record``, ``events`` and ``healthy`` need.
    Every call ends within ``timeout_s`` unless it is given its own. Use it from several threads as you like,
    and close it or use it in a ``with`` block. All errors are ``edge_reranker_client.EdgeRerankerError``; an
    argument that cannot be right raises its kind ``InvalidArgument``, which names it.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        token: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        timeout_s: float = 10.0,
        *,
        owner: bool = False,
        namespace: str | None = None,
    ) -> None:
        scope = requests.scope(owner, namespace, environment=data_dir is None)
        folder = given_path("data_dir", discovery.default_data_dir() if data_dir is None else data_dir)
        chosen = socket
        if socket is None and data_dir is None:
            chosen = os.environ.get(discovery.SOCKET_VARIABLE) or None
        if chosen is None:
            chosen = discovery.configured_socket(folder)
        found = token or (os.environ.get(discovery.TOKEN_VARIABLE) if data_dir is None else None)
        self._transport = Transport(
            discovery.socket_path(folder) if chosen is None else given_path("socket", chosen),
            found,
            discovery.token_path(folder, scope),
            timeout_s,
        )
        channel = self._transport.channel
        rerank: Any = rerank_service_pb2_grpc.RerankServiceStub(channel)  # type: ignore[no-untyped-call]
        context: Any = context_service_pb2_grpc.ContextServiceStub(channel)  # type: ignore[no-untyped-call]
        models: Any = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
        self._rerank, self._context, self._models = rerank, context, models
        self.namespaces = Namespaces(self._transport, channel)
        self.why = why.Why(self._transport, channel)

    def rerank(
        self,
        candidates: Iterable[messages.CandidateLike],
        *,
        query: str = "",
        surface: str = "",
        session_id: str = "",
        top_n: int = 0,
        budget_ms: int = 0,
        policy: messages.PolicyLike | None = None,
        context: Mapping[str, str] | None = None,
        effort: str = "",
        timeout_s: float | None = None,
    ) -> Ranking:
        """The candidates (best first by the backend) in this user's order.

        A candidate is a ``Candidate``, a mapping with its field names, or a proto message. The service
        takes ``budget_ms`` at most (0: its default), and answers before ``timeout_s`` is over. ``context`` is
        what the app tells of the device or the moment, by the names that its events have in theirs. The
        model reads on when the first places are settled if ``effort`` is "FULL", not if it is "SETTLED"; with
        neither, if ``budget_ms`` is given.
        """
        request = requests.rerank(
            candidates, query, surface, session_id, top_n, budget_ms, policy, context, effort
        )
        return messages.ranking_of(self.rerank_message(request, timeout_s=timeout_s))

    def rerank_stream(
        self,
        candidates: Iterable[messages.CandidateLike],
        *,
        query: str = "",
        surface: str = "",
        session_id: str = "",
        top_n: int = 0,
        budget_ms: int = 0,
        policy: messages.PolicyLike | None = None,
        context: Mapping[str, str] | None = None,
        effort: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[Ranking]:
        """A complete order after each tier, each better informed than the last; the final one says so."""
        request = requests.rerank(
            candidates, query, surface, session_id, top_n, budget_ms, policy, context, effort
        )
        for answer in self.rerank_stream_message(request, timeout_s=timeout_s):
            yield messages.ranking_of(answer)

    def record(self, events: Iterable[messages.EventLike], *, timeout_s: float | None = None) -> Recorded:
        """Stores what the user did, all or nothing; returns once it is durable.

        An event without an id gets a new one in each call: the client's own retries never store it twice,
        but to call again with the same events after an error, give each an ``event_id`` of your own.
        """
        request = context_service_pb2.RecordEventsRequest(events=messages.events(events))
        answer = self.record_message(request, timeout_s=timeout_s)
        return Recorded(answer.recorded, answer.duplicates)

    def events(self, *, page_size: int = 0, timeout_s: float | None = None) -> Iterator[Event]:
        """The app's own events, newest first, fetched page by page."""
        page_token = ""
        while True:
            request = messages.request(
                context_service_pb2.ListEventsRequest, page_size=page_size, page_token=page_token
            )
            page = self.events_message(request, timeout_s=timeout_s)
            for each in page.events:
                yield messages.event_of(each)
            page_token = page.next_page_token
            if not page_token:
                return

    def forget(
        self,
        *,
        event_id: str = "",
        item_id: str = "",
        type: str = "",
        tag: str = "",
        time_range: tuple[messages.Moment | None, messages.Moment | None] | None = None,
        all: bool = False,
        all_namespaces: bool = False,
        namespace: str = "",
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> Forgotten:
        """Removes events and all that only they needed, backups too; says what went. Owner only.

        ``type`` is a name such as "LIKE"; ``time_range`` is the first moment and the first one after it, None
        for no end. ``namespace`` "" is the token's own. ``dry_run`` only says what would go.
        Raises InvalidArgument unless exactly one of the first seven is given.
        """
        selector = {
            "event_id": event_id,
            "item_id": item_id,
            "type": type,
            "tag": tag,
            "time_range": time_range,
            "all": all,
            "all_namespaces": all_namespaces,
        }
        request = messages.forget_request(selector, namespace=namespace, dry_run=dry_run)
        return messages.forgotten_of(self.forget_message(request, timeout_s=timeout_s))

    def explain(
        self,
        ranking_id: str,
        ids: Iterable[str] = (),
        *,
        namespace: str = "",
        timeout_s: float | None = None,
    ) -> Explained:
        """Why a past ranking placed the candidates ``ids`` (none: all) where it did. Owner only.

        Raises NotFound for a ranking that is not there, InvalidArgument for an id that was not in it.
        """
        answer = self.why.explain_message(ranking_id, ids, namespace=namespace, timeout_s=timeout_s)
        return why.explained_of(answer)

    def profile(self, *, namespace: str = "", timeout_s: float | None = None) -> Profile:
        """What the service believes about a namespace's user, and which topics are muted. Owner only."""
        return why.profile_of(self.why.profile_message(namespace=namespace, timeout_s=timeout_s))

    def mute(self, topic: str, *, namespace: str = "", timeout_s: float | None = None) -> tuple[str, ...]:
        """Keeps candidates with this tag out of rankings from now on; all muted topics. Owner only."""
        answer = self.why.mute_message(topic, namespace=namespace, timeout_s=timeout_s)
        return tuple(answer.muted_topics)

    def unmute(self, topic: str, *, namespace: str = "", timeout_s: float | None = None) -> tuple[str, ...]:
        """Lets a muted topic back in; all topics that are muted still. Owner only."""
        answer = self.why.unmute_message(topic, namespace=namespace, timeout_s=timeout_s)
        return tuple(answer.muted_topics)

    def forget_event(self, event: Reason | BeliefEvent, *, timeout_s: float | None = None) -> Forgotten:
        """Forgets the event that an explanation or a belief names, and what it led to. Owner only."""
        return self.forget(event_id=event.event_id, namespace=event.namespace, timeout_s=timeout_s)

    def retention(self, *, namespace: str = "", timeout_s: float | None = None) -> RetentionStatus:
        """How long a namespace's events are kept; "": the token's own. Owner only."""
        request = messages.request(context_service_pb2.GetRetentionRequest, namespace=namespace)
        return messages.retention_status_of(self.retention_message(request, timeout_s=timeout_s))

    def set_retention(
        self, retention: messages.RetentionLike, *, namespace: str = "", timeout_s: float | None = None
    ) -> Retention:
        """Changes how long a namespace's events are kept; returns the rule in force. Owner only.

        It takes the place of the rule before, and what it does not keep is removed soon: ``retention`` says
        whether that is done. ``Retention()`` keeps everything.
        """
        request = messages.request(context_service_pb2.SetRetentionRequest, namespace=namespace)
        request.retention.CopyFrom(messages.retention(retention))
        return messages.retention_of(self.set_retention_message(request, timeout_s=timeout_s).retention)

    def export(self, *, namespace: str = "", timeout_s: float = _TRANSFER_S) -> Iterator[bytes]:
        """All that cannot be made again, as JSON lines for ``import_``, in pieces. Owner only.

        Keep it only if the loop ends by itself: on ServiceUnavailable or StoreBusy it is not whole.
        ``namespace`` is whose, else the token's own.
        """
        request = messages.request(context_service_pb2.ExportRequest, namespace=namespace)
        for answer in self._transport.stream(self._context.Export, request, timeout_s=timeout_s):
            yield answer.chunk

    def import_(
        self, chunks: Iterable[bytes] | BinaryIO, *, namespace: str = "", timeout_s: float = _TRANSFER_S
    ) -> Recorded:
        """Takes back what ``export`` gave, cut anywhere, or an open file: all of it or nothing. Owner only.

        What is known already is left as it is and counted. Raises InvalidArgument, which names the line, and
        whatever ``chunks`` raises.
        """
        kind = context_service_pb2.ImportRequest
        first = messages.request(kind, namespace=namespace)
        requests = itertools.chain([first], (kind(chunk=piece) for piece in messages.pieces(chunks)))
        answer = self._transport.send(self._context.Import, requests, timeout_s=timeout_s)
        return Recorded(answer.recorded, answer.duplicates)

    def models(self, *, timeout_s: float | None = None) -> list[Model]:
        """The models on this device. Owner only."""
        return [messages.model_of(each) for each in self.models_message(timeout_s=timeout_s).models]

    def load_model(self, name: str, *, timeout_s: float = _LOAD_S) -> Model:
        """Swaps the service's model behind a self-test; loads it anew if it is in use. Owner only.

        Calls under way end on the model they began with. Raises ``FailedPrecondition`` or its kind
        ``ModelInvalid`` when the model cannot be used; then the one in use stays.
        """
        request = messages.request(model_service_pb2.LoadModelRequest, name=name)
        return messages.model_of(self.load_model_message(request, timeout_s=timeout_s).model)

    def warmup(self, *, timeout_s: float = _WARMUP_S) -> bool:
        """Makes the next rerank fast; whether the model answers. Owner only."""
        call, request = self._models.Warmup, model_service_pb2.WarmupRequest()
        return bool(self._transport.call(call, request, timeout_s=timeout_s, idempotent=True).ready)

    def healthy(self, *, timeout_s: float = _HEALTH_S) -> bool:
        """Whether the service runs and takes calls; no failure to find out raises. Needs no token."""
        return self._transport.serving(timeout_s)

    def rerank_message(
        self, request: rerank_service_pb2.RerankRequest, *, timeout_s: float | None = None
    ) -> rerank_service_pb2.RerankResponse:
        """``rerank`` in protos. Made again only if the first attempt never reached the service."""
        requests.expect(rerank_service_pb2.RerankRequest, request)
        answer: rerank_service_pb2.RerankResponse = self._transport.call(
            self._rerank.Rerank, request, timeout_s=timeout_s, idempotent=False
        )
        return answer

    def rerank_stream_message(
        self, request: rerank_service_pb2.RerankRequest, *, timeout_s: float | None = None
    ) -> Iterator[rerank_service_pb2.RerankResponse]:
        """``rerank_stream`` in protos."""
        requests.expect(rerank_service_pb2.RerankRequest, request)
        wrapped = rerank_service_pb2.RerankStreamRequest(request=request)
        for answer in self._transport.stream(self._rerank.RerankStream, wrapped, timeout_s=timeout_s):
            yield answer.response

    def record_message(
        self, request: context_service_pb2.RecordEventsRequest, *, timeout_s: float | None = None
    ) -> context_service_pb2.RecordEventsResponse:
        """``record`` in protos; every event needs its id."""
        requests.expect(context_service_pb2.RecordEventsRequest, request)
        answer: context_service_pb2.RecordEventsResponse = self._transport.call(
            self._context.RecordEvents, request, timeout_s=timeout_s, idempotent=True
        )
        return answer

    def events_message(
        self, request: context_service_pb2.ListEventsRequest, *, timeout_s: float | None = None
    ) -> context_service_pb2.ListEventsResponse:
        """One page of ``events`` in protos."""
        requests.expect(context_service_pb2.ListEventsRequest, request)
        answer: context_service_pb2.ListEventsResponse = self._transport.call(
            self._context.ListEvents, request, timeout_s=timeout_s, idempotent=True
        )
        return answer

    def forget_message(
        self, request: context_service_pb2.ForgetRequest, *, timeout_s: float | None = None
    ) -> context_service_pb2.ForgetResponse:
        """``forget`` in protos."""
        requests.expect(context_service_pb2.ForgetRequest, request)
        answer: context_service_pb2.ForgetResponse = self._transport.call(
            self._context.Forget, request, timeout_s=timeout_s, idempotent=True
        )
        return answer

    def retention_message(
        self, request: context_service_pb2.GetRetentionRequest, *, timeout_s: float | None = None
    ) -> context_service_pb2.GetRetentionResponse:
        """``retention`` in protos."""
        requests.expect(context_service_pb2.GetRetentionRequest, request)
        answer: context_service_pb2.GetRetentionResponse = self._transport.call(
            self._context.GetRetention, request, timeout_s=timeout_s, idempotent=True
        )
        return answer

    def set_retention_message(
        self, request: context_service_pb2.SetRetentionRequest, *, timeout_s: float | None = None
    ) -> context_service_pb2.SetRetentionResponse:
        """``set_retention`` in protos."""
        requests.expect(context_service_pb2.SetRetentionRequest, request)
        answer: context_service_pb2.SetRetentionResponse = self._transport.call(
            self._context.SetRetention, request, timeout_s=timeout_s, idempotent=True
        )
        return answer

    def models_message(self, *, timeout_s: float | None = None) -> model_service_pb2.ListModelsResponse:
        """``models`` in protos."""
        answer: model_service_pb2.ListModelsResponse = self._transport.call(
            self._models.ListModels,
            model_service_pb2.ListModelsRequest(),
            timeout_s=timeout_s,
            idempotent=True,
        )
        return answer

    def load_model_message(
        self, request: model_service_pb2.LoadModelRequest, *, timeout_s: float | None = _LOAD_S
    ) -> model_service_pb2.LoadModelResponse:
        """``load_model`` in protos. Made again only if the first attempt never reached the service."""
        requests.expect(model_service_pb2.LoadModelRequest, request)
        answer: model_service_pb2.LoadModelResponse = self._transport.call(
            self._models.LoadModel, request, timeout_s=timeout_s, idempotent=False
        )
        return answer

    def close(self) -> None:
        """Ends the connection; calls in flight are cancelled, later ones raise FailedPrecondition."""
        self._transport.close()

    def __enter__(self) -> EdgeReranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
