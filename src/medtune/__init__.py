"""medtune: turn a general vision-language model into a medical-imaging assistant, and show with numbers what it became."""

__version__ = "0.1.0"
