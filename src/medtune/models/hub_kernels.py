"""bitsandbytes, imported without a question to a hub.

Where the package ``kernels`` is installed too, and the processor has AVX-512 with bfloat16, bitsandbytes fetches a compiled
kernel from Hugging Face while it is imported (``bitsandbytes/backends/cpu/ops.py``, 0.50.2), and goes on with its own where
that fails. PEFT imports bitsandbytes wherever it is installed, and transformers' trainer imports PEFT: a run that asked for
nothing on the network would ask a hub, and run what comes back. ``HF_HUB_OFFLINE`` is no way out: it is read once, and would
also forbid the model that a recipe names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["keep_off_hub"]


class _Finder:
    """Finds bitsandbytes as Python would, and lets it be executed as if ``kernels`` were not installed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "bitsandbytes":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_without_kernels(module: ModuleType) -> None:
            had, before = "kernels" in sys.modules, sys.modules.get("kernels")
            sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's own way to say: cannot be imported
            try:
                execute(module)
            finally:
                if had and before is not None:
                    sys.modules["kernels"] = before
                else:
                    del sys.modules["kernels"]

        spec.loader.exec_module = execute_without_kernels  # type: ignore[method-assign]
        return spec


def keep_off_hub() -> None:
    """Whoever imports bitsandbytes in this process from now on, nothing is fetched for it. May be called again."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
