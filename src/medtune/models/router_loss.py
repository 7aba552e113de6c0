"""The loss that keeps the experts of a mixture evenly used, while their router is being trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from medtune.models.packed_forward import causal_model
from medtune.models.replaced import replaced

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["balancing_loss", "returns_router_loss", "router_loss"]


def balancing_loss(router_logits: Sequence[Tensor], *, top_k: int, mask: Tensor | None = None) -> Tensor:
    """E * sum_e f_e P_e of every layer, averaged over the layers (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6).

    f_e is the number of choices of expert e for each token, P_e its mean probability. ``top_k`` when all experts are used
    alike, up to the number of experts when they are not. transformers' ``load_balancing_loss_func`` averages f and P over the
    layers first, and so does not see layers that are unbalanced in different ways; for one layer the two agree.

    Args:
        router_logits: (N, E) of each layer.
        top_k: Experts that a token goes to.
        mask: (N,), True for tokens that count; None = all do.

    Returns:
        () float32, with gradient through P.
    """
    import torch

    losses = []
    for logits in router_logits:
        probabilities = torch.softmax(logits.float(), dim=-1)
        chosen = torch.zeros_like(probabilities).scatter_(1, probabilities.topk(top_k, dim=-1).indices, 1.0)
        if mask is None:
            frequency, probability = chosen.mean(dim=0), probabilities.mean(dim=0)
        else:
            share = mask.to(probabilities) / mask.sum().clamp(min=1)
            frequency, probability = share @ chosen, share @ probabilities
        losses.append(logits.shape[-1] * (frequency * probability).sum())
    return torch.stack(losses).mean()


@contextlib.contextmanager
def router_loss(model: nn.Module, coefficient: float | None) -> Iterator[bool]:
    """Inside, a mixture of experts in training mode returns its :func:`balancing_loss` as ``aux_loss``, and its text config holds
    ``coefficient``; None = it returns none, whatever its config says.

    Its ``forward`` then takes one argument more: ``routed`` (N,), True for tokens that count in the loss, such as not to count
    padding. With none that counts the loss is 0, with a gradient of 0.

    Yields:
        Whether ``model`` has routers.
    """
    causal: Any = causal_model(model)
    config: Any = causal.config.get_text_config() if hasattr(causal, "config") else None
    if not hasattr(config, "router_aux_loss_coef"):
        yield False
        return
    # Qwen3-VL-MoE's config has had no such field before transformers 5.18.
    before = getattr(config, "output_router_logits", None), config.router_aux_loss_coef
    # Forwards of transformers 5.17 look at the argument alone, newer ones at the config as well.
    config.output_router_logits = False
    adds: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if coefficient is not None:
        config.router_aux_loss_coef = coefficient
        adds = replaced(causal, "forward", _WithRouterLoss(causal, config.num_experts_per_tok))
    try:
        with adds:
            yield True
    finally:
        config.router_aux_loss_coef = before[1]
        if before[0] is None:
            del config.output_router_logits
        else:
            config.output_router_logits = before[0]


def returns_router_loss(model: nn.Module) -> bool:
    """Whether ``model`` is inside of :func:`router_loss`, has routers and was given a coefficient."""
    return isinstance(vars(causal_model(model)).get("forward"), _WithRouterLoss)


class _WithRouterLoss:
    def __init__(self, causal: Any, top_k: int) -> None:
        self._causal = causal
        self._forward = causal.forward
        self._top_k = top_k

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.pop("routed", None)
        if not self._causal.training:
            return self._forward(*args, **kwargs)
        output = self._forward(*args, **kwargs, output_router_logits=True)
        output["aux_loss"] = balancing_loss(output["router_logits"], top_k=self._top_k, mask=mask)
        # Kept, they would hold on to every layer's graph beyond the loss.
        output["router_logits"] = None
        return output
