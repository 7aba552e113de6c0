"""Synthetic pictures with known truth: phantom head slices with radiology texts, and general descriptions of like pictures."""

from medtune.data.sources.phantom.general import PhantomGeneral
from medtune.data.sources.phantom.source import Phantom

__all__ = ["Phantom", "PhantomGeneral"]
