"""Does telling a model why work better than telling it what? Measure it."""

__version__ = "0.1.0"

__all__ = ["__version__"]
