"""An audit to look at: one HTML page, and a figure. Needs extras, so nothing else imports it before it is asked for."""

from adaug._audit.page._figure import draw
from adaug._audit.page._page import write

__all__ = ["draw", "write"]
