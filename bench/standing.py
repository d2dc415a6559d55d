"""Where a trial stands: all that training carries from window to window but tensors."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Standing:
    """Plain numbers, so that a checkpoint holds them as JSON, to the last bit.

    `windows`, `row` and `seconds` are of the pass over the training text that is under way: windows
    trained, the row of the columns at which the next begins, and what they took.
    """

    lr: float
    step: int = 0
    epochs_done: int = 0
    best_epoch: int | None = None
    best_valid: float | None = None
    valid_nlls: list[float] = field(default_factory=list)
    averaged_from_epoch: int | None = None
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    trained_tokens: int = 0
    resumed: int = 0
    captured: bool = False
    windows: int = 0
    row: int = 0
    seconds: float = 0.0
