"""The model's tiers, each behind one Scorer protocol."""

from edge_reranker.scoring.background import BackgroundEncoder
from edge_reranker.scoring.epochs import Epochs
from edge_reranker.scoring.hot import HotPrefix
from edge_reranker.scoring.learning import Learning
from edge_reranker.scoring.plan import Plan
from edge_reranker.scoring.public import PublicVectors
from edge_reranker.scoring.rank import RankScorer
from edge_reranker.scoring.tier1 import VectorScorer
from edge_reranker.scoring.tier2 import CrossScorer, Prompt
from edge_reranker.scoring.tiers import Serving, Tiers
from edge_reranker.scoring.types import Scorer, TierScores, User
from edge_reranker.scoring.users import Users
from edge_reranker.scoring.vectors import VectorCache

__all__ = [
    "BackgroundEncoder",
    "CrossScorer",
    "Epochs",
    "HotPrefix",
    "Learning",
    "Plan",
    "Prompt",
    "PublicVectors",
    "RankScorer",
    "Scorer",
    "Serving",
    "TierScores",
    "Tiers",
    "User",
    "Users",
    "VectorCache",
    "VectorScorer",
]
