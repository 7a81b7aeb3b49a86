"""The HTML page and the figure of an audit. They need extras, so `Audit` imports this folder only when a user asks for them."""

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
    import PIL  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"`Audit.html` and `Audit.figure` need jinja2, matplotlib and pillow. Found no {error.name}; pip install adaug[audit].",
        name=error.name,
    ) from error

from adaug.audits._report.figure import draw
from adaug.audits._report.page import write

__all__ = ["draw", "write"]
