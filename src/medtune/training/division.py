"""What several devices share between them, and what that costs in communication. Imports nothing heavy.

ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054, section 5 (what each stage divides) and 7 (how much is sent). FSDP: Zhao et al.
2023, arXiv:2304.11277, section 3. A ring moves 2 (n - 1) / n of what is reduced, and (n - 1) / n of what is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass

from medtune.training.config import DdpSettings, DeepSpeedSettings, DistributedSettings, FsdpSettings, NoDistribution

__all__ = ["Division", "divide"]


@dataclass(frozen=True, slots=True)
class Division:
    """Attributes:
    num_devices: That train together.
    weight_share: Devices that weights are divided among; likewise ``gradient_share`` and ``optimizer_share``.
    keeps_gathered: Weights that were gathered for the forward pass stay.
    buckets: A second copy of the gradients, for sending.
    offloads_optimizer: The optimizer's states rest in main memory.
    offloads_weights: Weights and gradients too.
    gathers_inside: Weights are gathered within a layer, by hooks that ``torch.compile`` cannot look into.
    """

    num_devices: int = 1
    weight_share: int = 1
    gradient_share: int = 1
    optimizer_share: int = 1
    keeps_gathered: bool = False
    buckets: bool = False
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    gathers_inside: bool = False

    def weights(self, stored: float, *, layers: int) -> float:
        """Bytes of base weights on a device, and of the layers that are gathered at once: one in use, one on its way."""
        if self.weight_share == 1:
            return stored
        mine = 0.0 if self.offloads_weights else stored / self.weight_share
        return mine + (stored if self.keeps_gathered else 2 * stored / max(1, layers))

    def gradients(self, whole: float) -> float:
        """Bytes of gradients on a device."""
        if self.offloads_weights:
            return 0.0
        return whole / self.gradient_share + (whole if self.buckets else 0.0)

    def optimizer(self, whole: float) -> float:
        """Bytes of the optimizer's states on a device."""
        return 0.0 if self.offloads_optimizer else whole / self.optimizer_share

    def offloaded(self, *, weights: float, trained: float, states: float) -> float:
        """Bytes in main memory, per device: of ``weights`` and ``states`` bytes, and ``trained`` parameters."""
        total = states / self.optimizer_share if self.offloads_optimizer else 0.0
        return total + ((weights + 4 * trained) / self.weight_share if self.offloads_weights else 0.0)

    def seconds(self, *, stored: float, trained: float, passes: int, link: float, computed: float) -> float:
        """What a step waits for others: gradients are sent at its end; weights are gathered while the layer before computes."""
        if self.num_devices == 1:
            return 0.0
        ring = (self.num_devices - 1) / self.num_devices
        waited = 2 * ring * trained / link
        if self.weight_share > 1:
            gathered = passes * (1 if self.keeps_gathered else 2) * ring * stored / link
            waited += max(0.0, gathered - computed)
        return waited


def divide(settings: DistributedSettings, num_devices: int) -> Division:
    """How ``settings`` divide the work among ``num_devices``."""
    count = num_devices
    if count < 2 or isinstance(settings, NoDistribution):
        return Division()
    if isinstance(settings, DdpSettings):
        return Division(count, buckets=True)
    if isinstance(settings, DeepSpeedSettings):
        stage, to_cpu = settings.zero_stage, settings.offload == "cpu"
        return Division(
            count,
            weight_share=count if stage == 3 else 1,
            gradient_share=count if stage >= 2 else 1,
            optimizer_share=count,
            offloads_optimizer=to_cpu,
            offloads_weights=to_cpu and stage == 3,
            gathers_inside=stage == 3,
        )
    assert isinstance(settings, FsdpSettings)
    return Division(
        count,
        weight_share=count,
        gradient_share=count,
        optimizer_share=count,
        keeps_gathered=not settings.reshard_after_forward,
        offloads_optimizer=settings.cpu_offload,
        offloads_weights=settings.cpu_offload,
    )
