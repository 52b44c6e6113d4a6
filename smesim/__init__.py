"""smesim: predict and measure which unit should do which part of an LLM's operators on CPUs with a matrix extension."""

__version__ = "0.1.0"
