"""A model folder becomes an encoder, a model, an adapter."""

from medtune.models.hub_kernels import keep_off_hub

keep_off_hub()  # before any module of this room, or of one above it, imports PEFT or transformers' trainer
