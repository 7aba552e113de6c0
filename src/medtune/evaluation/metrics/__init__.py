"""Metrics: each follows :class:`medtune.types.Metric` and stands in a file of its own.

Shared are :mod:`.additive` (scores whose statistics add up) and :mod:`.words` (what a word is, in English and Chinese).
"""
