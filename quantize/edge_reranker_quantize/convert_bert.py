"""A BERT as published, of the parts of models/convert.py: any number of files, either tokenizer's form."""

from __future__ import annotations

from typing import Any

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.convert import SINGLE, bert_names, check_bert, describe_bert, write_wordpiece
from edge_reranker_quantize.convert_source import Checkpoint
from edge_reranker_quantize.convert_write import Tensor

# What only a classifier or the training reads, and the count of positions.
_LEFT_OUT = ("pooler.", "cls.", "embeddings.position_ids")
_POOLING = {"pooling_mode_cls_token": "CLS", "pooling_mode_mean_tokens": "MEAN"}


class Bert:
    """A checkpoint of a plain lower-case BERT."""

    architecture = "bert"

    def __init__(self, source: Checkpoint) -> None:
        """Raises ModelInvalid for any other model."""
        self._source = source
        try:
            names = bert_names(int(source.config["num_hidden_layers"]))
            found = {name.removeprefix("bert."): name for name in source.shapes}
            if more := [n for n in found if n not in names.values() and not n.startswith(_LEFT_OUT)]:
                raise ValueError(f"tensor {more[0]} has no place in it")
            if gone := [theirs for theirs in names.values() if theirs not in found]:
                raise ValueError(f"no tensor {gone[0]}")
            self.tensors = [self._tensor(ours, found[theirs]) for ours, theirs in names.items()]
            self._words = self._vocabulary()
            check_bert(source.config, self._words, source.shapes[found[names["token_embd.weight"]]][0])
            self._lower_case()
            self._pooling = self._pooled()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelInvalid(f"{source.folder}: no BERT that can be converted: {error}") from error

    def describe(self, writer: Any) -> None:
        """The model's settings and its vocabulary in a GGUFWriter."""
        describe_bert(writer, self._source.config)
        write_wordpiece(writer, self._words, pooling=self._pooling)

    def _tensor(self, name: str, origin: str) -> Tensor:
        shape = self._source.shapes[origin]
        single = len(shape) < 2 or name in SINGLE
        return Tensor(name, shape, lambda: self._source.read(origin), origin, single)

    def _vocabulary(self) -> list[str]:
        if self._source.has("vocab.txt"):
            text = (self._source.folder / "vocab.txt").read_text(encoding="utf-8")
            return text.removesuffix("\n").split("\n")
        model = self._source.tokenizer["model"]
        if model.get("type") != "WordPiece":
            raise ValueError(f"its tokenizer is {model.get('type')}, not WordPiece")
        words: dict[str, int] = model["vocab"]
        if sorted(words.values()) != list(range(len(words))):
            raise ValueError("tokenizer.json leaves numbers of tokens out")
        return sorted(words, key=words.__getitem__)

    def _lower_case(self) -> None:
        """llama.cpp makes every WordPiece text lower-case."""
        cased = False
        if self._source.has("tokenizer_config.json"):
            cased = self._source.json("tokenizer_config.json").get("do_lower_case") is False
        if self._source.has("tokenizer.json"):
            cased = cased or (self._source.tokenizer.get("normalizer") or {}).get("lowercase") is False
        if cased:
            raise ValueError("it tells capitals from small letters, which llama.cpp does not")

    def _pooled(self) -> str:
        """How sentence-transformers pools; the mean where it does not say."""
        if not self._source.has("1_Pooling/config.json"):
            return "MEAN"
        said = self._source.json("1_Pooling/config.json")
        chosen = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
        if len(chosen) != 1 or chosen[0] not in _POOLING:
            raise ValueError(
                f"1_Pooling/config.json: {chosen or 'nothing'} is chosen; mean or CLS is converted"
            )
        return _POOLING[chosen[0]]
