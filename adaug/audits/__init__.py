"""The audit, which finds where a network is weak, and the classes of its results."""

from adaug.audits.audit import Audit
from adaug.audits.comparison import Change, Comparison
from adaug.audits.plan import Axis
from adaug.audits.records import Case, Curve, FamilyTable, Grid, Picture
from adaug.audits.run import audit
from adaug.audits.statistics import Estimate

__all__ = ["Audit", "Axis", "Case", "Change", "Comparison", "Curve", "Estimate", "FamilyTable", "Grid", "Picture", "audit"]
