"""What the list must look like, whatever the scores say.

Soft parts move candidates as far as the request's strengths let them: ``diversity``, ``calibration``, then
``exploration``. Hard ones hold whatever the scores say: ``constraints``. ``apply`` puts them together.
"""

from edge_reranker.ranking.policy.apply import Arranged, Given, apply, has_soft
from edge_reranker.ranking.policy.calibration import tag_shares

__all__ = ["Arranged", "Given", "apply", "has_soft", "tag_shares"]
