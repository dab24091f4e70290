"""The byte-level BPE tokenizer of tokenizer.json in a GGUF, as llama.cpp reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker_quantize.convert_source import Checkpoint

# What cuts a text before BPE; llama.cpp has it by name. Its script tells it by a hash of what a test text
# becomes, which needs the tokenizer itself; tokenizer.json says it in words.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = ("ByteLevel", True)
_BYTES = ("ByteLevel", False)
_PRE: Mapping[tuple[Any, ...], str] = {
    (_GPT2,): "gpt-2",
    (("Digits", True), _GPT2): "smollm",
    (("Split", _WORDS % r"\p{N}", "Isolated", False), _BYTES): "qwen2",
    (("Split", _WORDS % r"\p{N}{1,3}", "Isolated", False), _BYTES): "llama-bpe",
}
# llama.cpp normalises nothing for BPE. NFC leaves composed text, the usual kind, as it is.
_NORMALISERS = ("NFC",)


def write_bpe(writer: Any, source: Checkpoint, n_rows: int, pre: str | None) -> None:
    """Tokens, types, merges, special tokens and chat template; ``n_rows`` is how many tokens have a row.

    ``pre`` names the pre-tokenizer where it is not recognised. Raises ModelInvalid for a tokenizer that
    llama.cpp cannot follow, InvalidArgument for one that needs ``pre``.
    """
    gguf = require_gguf()
    model = source.tokenizer.get("model")
    path = source.folder / "tokenizer.json"
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        found = model.get("type") if isinstance(model, dict) else None
        kind = "SentencePiece" if found == "BPE" else found
        raise ModelInvalid(
            f"{path}: a tokenizer of type {kind}, not byte-level BPE; convert its published GGUF"
        )
    name = pre or _recognised(source)
    tokens, kinds = _tokens(source, n_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(source.folder, load_merges=True, n_vocab=len(tokens))
    if not special.merges:
        raise ModelInvalid(f"{path}: it has no merges; fetch it again")
    # Said in any case: what a file does not say, llama.cpp decides by the pre-tokenizer's name.
    special.add_special_token.setdefault("bos", False)
    special.add_to_gguf(writer, quiet=True)
    if source.has("tokenizer_config.json"):
        space = source.json("tokenizer_config.json").get("add_prefix_space")
        if isinstance(space, bool):
            writer.add_add_space_prefix(space)


def _tokens(source: Checkpoint, n_rows: int) -> tuple[list[str], list[int]]:
    """Every row's token and type; a row that no token has is unused."""
    kinds = require_gguf().TokenType
    tokens = [f"[PAD{at}]" for at in range(n_rows)]
    types = [int(kinds.UNUSED)] * n_rows
    path = source.folder / "tokenizer.json"
    try:
        for token, at in source.tokenizer["model"]["vocab"].items():
            tokens[_row(at, n_rows)], types[at] = token, int(kinds.NORMAL)
        for added in source.tokenizer.get("added_tokens") or ():
            token, at = added["content"], added["id"]
            control = added.get("special") or _looks_special(token)
            tokens[_row(at, n_rows)] = token
            types[at] = int(kinds.CONTROL if control else kinds.USER_DEFINED)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelInvalid(f"{path}: its tokens cannot be read: {error}; fetch it again") from error
    return tokens, types


def _row(at: int, n_rows: int) -> int:
    if not 0 <= at < n_rows:
        raise ValueError(f"token {at} of {n_rows} rows of embeddings")
    return at


def _looks_special(token: str) -> bool:
    """Whether it is meant for structure though the file does not say so; llama.cpp's script has the same."""
    return any(token.startswith(f"<{bar}") and token.endswith(f"{bar}>") for bar in ("|", "\uff5c"))


def _recognised(source: Checkpoint) -> str:
    path = source.folder / "tokenizer.json"
    normaliser = source.tokenizer.get("normalizer")
    if normaliser and normaliser.get("type") not in _NORMALISERS:
        raise InvalidArgument(
            "--pre",
            f"needed: {path} normalises text by {normaliser.get('type')}, which llama.cpp does not do; "
            "name one of its pre-tokenizers to convert it all the same",
        )
    steps = source.tokenizer.get("pre_tokenizer") or {}
    if (name := _PRE.get(_signature(steps))) is None:
        raise InvalidArgument(
            "--pre",
            f"needed: the pre_tokenizer of {path} is none that is recognised ({', '.join(_PRE.values())}); "
            "give llama.cpp's name for it",
        )
    return name


def _signature(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a pre-tokenizer does, so that equal ones are equal."""
    kind = step.get("type")
    if kind == "Sequence":
        return tuple(part for each in step.get("pretokenizers", ()) for part in _signature(each))
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return ((kind, step.get("use_regex", True)),)
    if kind == "Digits":
        return ((kind, step.get("individual_digits")),)
    if kind == "Split":
        pattern = step.get("pattern") or {}
        return ((kind, pattern.get("Regex"), step.get("behavior"), step.get("invert", False)),)
    return ((kind,),)
