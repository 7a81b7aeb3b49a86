"""The HTML page and the figure of an audit. They need extras, so they are imported only when the user asks for them."""

from adaug.audits._report.figure import draw
from adaug.audits._report.page import write

__all__ = ["draw", "write"]
