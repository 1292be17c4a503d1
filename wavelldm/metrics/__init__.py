"""How good an enhanced recording is: scores against the clean one, of single clips and of whole folders.

Read `signals` (what all metrics check), `composite` and `scores` (the functions, listed in METRICS), then `intervals`
(how sure a mean is), `folders` and `protocols` (`wavelldm evaluate`); `alignment` finds delays, `differentiable` holds
approximations of PESQ and ESTOI for training.
"""

from .alignment import align, undelay
from .folders import evaluate
from .scores import GROUPS, METRICS, Metric, choose, measure
from .signals import MetricError

__all__ = ["GROUPS", "METRICS", "Metric", "MetricError", "align", "choose", "evaluate", "measure", "undelay"]
