"""The default difficulty of running difficulty. It should not grow with the size of the object, as losses often do."""
