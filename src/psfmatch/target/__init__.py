"""The best common target PSF for a set of inputs, and what it costs each of them."""

from psfmatch.target.common import TargetCost, common_target, target_cost
from psfmatch.target.families import target_width, target_words

__all__ = ["TargetCost", "common_target", "target_cost", "target_width", "target_words"]
