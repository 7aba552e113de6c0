"""MedTrinity-25M in its three physical forms: demo shards, metadata shards, archives of pictures."""

from medtune.data.sources.medtrinity.source import QUESTIONS, MedTrinity

__all__ = ["QUESTIONS", "MedTrinity"]
