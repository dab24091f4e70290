"""What the list must look like, whatever the scores say.

Soft parts move candidates as far as the request's strengths let them: ``diversity``, ``calibration``, then
``exploration``. Hard ones hold whatever the scores say: ``constraints``. ``apply`` puts them together.
"""

from edge_reranker.ranking.policy.apply import Arranged, Drawn, Given, apply, has_soft

__all__ = ["Arranged", "Drawn", "Given", "apply", "has_soft"]
