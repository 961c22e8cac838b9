"""The settings of a fit, from which the command line's options are derived."""

from __future__ import annotations

from dataclasses import dataclass

from bgkit.runs.config import check_settings, setting


@dataclass(frozen=True)
class Settings:
    """How an encoder is fitted; ``bgkit fit --help`` explains each setting.

    Raises BgkitError for values of a wrong type or out of range.
    """

    encoder: str = setting("minilm", "model to start from: minilm, a folder, a hub name")
    epochs: int = setting(6, "passes over the training rows", least=1)
    learning_rate: float = setting(1e-3, "peak learning rate", above=0)
    batch_size: int = setting(16, "rows per step", least=1)
    lora_rank: int = setting(
        16, "rank of the LoRA adapter; 0 trains all weights and writes them whole", least=0
    )
    seed: int = setting(
        0, "seed of the head's initial weights and the order of rows", least=0, most=2**32 - 1
    )

    def __post_init__(self) -> None:
        check_settings(self)
