"""Pictures: samples with their labels, the views of a batch, and the distributions that were learned.

Needs matplotlib (`pip install adaug[viz]`).
"""

from adaug.plots.distributions import draw_distributions
from adaug.plots.samples import samples
from adaug.plots.views import draw_views

__all__ = ["draw_distributions", "draw_views", "samples"]
