"""The version of the package. The build reads it from here, so this file imports nothing."""

__version__ = "0.3.0.dev0"
