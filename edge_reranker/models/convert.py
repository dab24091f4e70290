"""BERT in safetensors to a GGUF of half precision, as llama.cpp reads it: WordPiece, no classifier.

``convert_bert`` makes what `model pull` needs; `quantize convert` makes any type, from any such folder, of
the same parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_reranker.errors import Missing, ModelInvalid

FILES = ("model.safetensors", "config.json", "vocab.txt")

# Names in the file, and GGUF's; those of a layer stand behind its number.
_WHOLE = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# llama.cpp adds rows of these two to single precision, and takes them in no other.
SINGLE = ("position_embd.weight", "token_types.weight")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def convert_bert(folder: Path, target: Path) -> None:
    """Writes ``target`` from the ``FILES`` in ``folder``; matrices F16, all else F32.

    Raises Missing without the libraries for it, ModelInvalid for a model that is no plain lower-case BERT.
    """
    try:
        import gguf
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise Missing(
            f"making a GGUF of {FILES[0]} needs {error.name}: pip install 'edge-reranker[device]'"
        ) from error
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        arrays = load_file(folder / "model.safetensors")
        names = bert_names(int(config["num_hidden_layers"]))
        tensors = {ours: arrays[theirs] for ours, theirs in names.items()}
        check_bert(config, vocabulary, len(tensors["token_embd.weight"]))
        writer = gguf.GGUFWriter(target, "bert")
        describe_bert(writer, config)
        write_wordpiece(writer, vocabulary)
        for name, array in tensors.items():
            half = array.ndim == 2 and name not in SINGLE
            writer.add_tensor(name, array.astype(np.float16 if half else np.float32))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelInvalid(f"{folder}: no BERT that can be converted: {error}; pull it again") from error
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bert_names(n_layers: int) -> dict[str, str]:
    """Each tensor's name in a GGUF, and in safetensors; without the pooler, which only a classifier reads."""
    pairs: dict[str, str] = {}
    for theirs, ours in _WHOLE.items():
        pairs |= {theirs: ours} if theirs.endswith(".weight") else _both(theirs, ours)
    for layer in range(n_layers):
        for theirs, ours in _LAYER.items():
            pairs |= _both(f"encoder.layer.{layer}.{theirs}", f"blk.{layer}.{ours}")
    return {ours: theirs for theirs, ours in pairs.items()}


def _both(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}


def check_bert(config: Mapping[str, Any], vocabulary: list[str], rows: int) -> None:
    """Raises ValueError or KeyError for a model that is no plain lower-case BERT with ``rows`` words."""
    for name, wanted in (("model_type", "bert"), ("hidden_act", "gelu")):
        if config[name] != wanted:
            raise ValueError(f"{name} is {config[name]!r}, not {wanted!r}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("its positions are not absolute")
    if len(vocabulary) != rows:
        raise ValueError(f"{len(vocabulary)} words in vocab.txt, {rows} rows of embeddings")
    if missing := [token for token in _SPECIAL if token not in vocabulary]:
        raise ValueError(f"vocab.txt has no {missing[0]}")


def describe_bert(writer: Any, config: Mapping[str, Any]) -> None:
    """The model's settings in a GGUFWriter."""
    settings: tuple[tuple[Callable[[Any], None], str], ...] = (
        (writer.add_block_count, "num_hidden_layers"),
        (writer.add_context_length, "max_position_embeddings"),
        (writer.add_embedding_length, "hidden_size"),
        (writer.add_feed_forward_length, "intermediate_size"),
        (writer.add_head_count, "num_attention_heads"),
        (writer.add_layer_norm_eps, "layer_norm_eps"),
        (writer.add_token_type_count, "type_vocab_size"),
    )
    for add, name in settings:
        add(config[name])
    writer.add_causal_attention(False)


def write_wordpiece(writer: Any, vocabulary: list[str], *, pooling: str = "MEAN") -> None:
    """WordPiece as llama.cpp has it: what begins a word has "▁" in front, what goes on has nothing.

    ``pooling`` is MEAN or CLS.
    """
    from gguf import PoolingType
    from gguf import TokenType as kinds

    kind_of = dict.fromkeys(_SPECIAL, kinds.CONTROL) | {"[UNK]": kinds.UNKNOWN}
    writer.add_pooling_type(PoolingType[pooling])
    writer.add_tokenizer_model("bert")
    writer.add_token_list(
        [
            word if word in kind_of else word[2:] if word.startswith("##") else f"▁{word}"
            for word in vocabulary
        ]
    )
    writer.add_token_types([int(kind_of.get(word, kinds.NORMAL)) for word in vocabulary])
    for add, token in (
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(vocabulary.index(token))
