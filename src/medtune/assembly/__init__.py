"""How the rooms' pieces are put together for one recipe: the data set, the training, the generators, who answers in a chat.

The verbs of :mod:`medtune.api` call these; a room never sees a recipe, only its own section or plain arguments.
"""

from __future__ import annotations

from medtune.assembly.chat import chat_source, may_leave
from medtune.assembly.data import make_dataset, refuse_errors, show_findings
from medtune.assembly.evaluation import (
    check_metrics,
    check_transforms,
    identities,
    provenance,
    tell_of_boxes,
    trained,
    weights_hash,
)
from medtune.assembly.generation import generators, hf_options, load, load_named_code, other_generator, worker_generators
from medtune.assembly.listener import say
from medtune.assembly.training import check_startable, discard_unstarted, resumable, train, tune

__all__ = [
    "chat_source",
    "check_metrics",
    "check_startable",
    "check_transforms",
    "discard_unstarted",
    "generators",
    "hf_options",
    "identities",
    "load",
    "load_named_code",
    "make_dataset",
    "may_leave",
    "other_generator",
    "provenance",
    "refuse_errors",
    "resumable",
    "say",
    "show_findings",
    "tell_of_boxes",
    "train",
    "trained",
    "tune",
    "weights_hash",
    "worker_generators",
]
