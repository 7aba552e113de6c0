"""The patch embedding of a vision tower as the matrix product that it is.

Its Conv3d has a stride as large as its kernel, so no two patches share a pixel: the convolution is one product of the flattened
patches with the flattened kernel. cuDNN's Conv3d is 10 to 20 times slower at it in some versions of torch (PyTorch issue
174051).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def use_matrix_product(model: nn.Module) -> bool:
    """Let the vision tower of ``model`` embed patches by a matrix product. Returns whether it has such an embedding.

    The weights stay where they are: saved and trained as before.
    """
    embedding: Any = getattr(getattr(getattr(model, "model", None), "visual", None), "patch_embed", None)
    projection = getattr(embedding, "proj", None)
    if projection is None or type(projection).__name__ != "Conv3d":
        return False
    if tuple(projection.stride) != tuple(projection.kernel_size) or any(projection.padding) or projection.groups != 1:
        return False
    embedding.forward = _MatrixProduct(projection)
    return True


class _MatrixProduct:
    def __init__(self, projection: nn.Conv3d) -> None:
        self._projection = projection

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """(num_patches, channels * time * height * width) -> (num_patches, embed_dim)."""
        from torch.nn.functional import linear

        weight = self._projection.weight
        return linear(hidden_states.view(-1, weight[0].numel()).to(weight.dtype), weight.flatten(1), self._projection.bias)
