"""The audit, which finds where a network is weak, and the classes of its results."""

from adaug.audits._comparison import Change, Comparison
from adaug.audits._plan import Axis
from adaug.audits._records import Case, Curve, FamilyTable, Grid, Picture
from adaug.audits._run import audit
from adaug.audits._statistics import Estimate
from adaug.audits._table import Audit

__all__ = ["Audit", "Axis", "Case", "Change", "Comparison", "Curve", "Estimate", "FamilyTable", "Grid", "Picture", "audit"]
