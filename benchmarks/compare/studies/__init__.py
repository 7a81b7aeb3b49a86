"""All studies. A new question is a few lines in one of these files."""

from benchmarks.compare.studies import hourglasses, lengths, worst_view
from benchmarks.compare.study import Study

FILES = (worst_view, lengths, hourglasses)
STUDIES = {study.name: study for file in FILES for study in vars(file).values() if isinstance(study, Study)}
