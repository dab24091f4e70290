"""Models and packs on this device: what can be pulled, what is there, and whether it is whole."""

from edge_reranker.models.cache import ModelCache, ModelFile, pull_dataset
from edge_reranker.models.pack import Pack
from edge_reranker.models.pack import load as load_pack

__all__ = ["ModelCache", "ModelFile", "Pack", "load_pack", "pull_dataset"]
