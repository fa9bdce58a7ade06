"""What a training stage can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from teachwhy.records import Record


class SftSettings(Record):
    """Supervised fine-tuning with LoRA (Hu et al., arXiv 2106.09685) on the linear layers; loss on assistant tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    updates: int = Field(120, ge=1)
    """Steps of the optimizer."""
    rows_per_update: int = Field(4, ge=1)
    """Rows of the arm's own corpora in each update; neutral rows come on top where effort has to be made equal."""
    learning_rate: float = Field(5e-4, gt=0)
    """Highest; cosine to zero after the warm-up."""
    warmup: float = Field(0.05, ge=0, le=0.5)
    """Share of the updates."""
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    top_layers: int | None = Field(None, ge=1)
    """Adapt the last so many layers alone; None: all. Nothing is computed backwards through the layers below them."""
    weight_decay: float = Field(0.01, ge=0)
    max_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the frozen weights while training; `auto` is bfloat16 where the machine computes in it, else float32."""
    max_tokens: int = Field(512, ge=16)
    """A longer row stops the study: cutting it would cut off its stop token."""
