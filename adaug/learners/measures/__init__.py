"""The default difficulty of running difficulty. It should not grow with the size of the object, as losses often do."""

from adaug.learners.measures.choice import GIVEN, LOSS, USERS, measure_of, measured, name_of, what_was_found
from adaug.learners.measures.measure import Measure

__all__ = ["GIVEN", "LOSS", "USERS", "Measure", "measure_of", "measured", "name_of", "what_was_found"]
