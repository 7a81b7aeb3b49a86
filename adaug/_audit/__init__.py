"""The audit: where is a network weak?"""

from adaug._audit._run import audit
from adaug._audit._table import Audit

__all__ = ["Audit", "audit"]
