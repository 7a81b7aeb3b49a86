"""An audit to look at: one HTML page, and a figure. Needs extras, so nothing else imports it before it is asked for."""

from adaug.audits._html._figure import draw
from adaug.audits._html._page import write

__all__ = ["draw", "write"]
