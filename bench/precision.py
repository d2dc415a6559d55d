"""What a trial's `precision` means on a device, and whether the device has it."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch

from bench.products import ROUNDED, set_precision

DTYPES = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "tf32": torch.float32,
    "bf16": torch.float32,
    "fp16": torch.float32,
}
"""The type of weights, sums and losses; what else a precision rounds is inside its products."""


def apply(precision: str) -> None:
    """Sets torch's switches and those of `bench.products`, for this thread's next trial."""
    # "fp32" means true fp32 in every kernel; cuDNN's recurrences default to TF32.
    kind = "tf32" if precision == "tf32" else "ieee"
    # The older switches first and alike: otherwise torch refuses to read either.
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    backends: Any = torch.backends  # torch's own stubs lag behind these switches
    for switch in (backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv):
        switch.fp32_precision = kind
    backends.cudnn.rnn.fp32_precision = kind
    set_precision(precision)


def rounding(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which torch's own products round their factors, if they are to."""
    if precision not in ROUNDED:
        return contextlib.nullcontext()
    # No cache: weights change in every step, and a captured step must round them anew.
    return torch.autocast(device.type, ROUNDED[precision], cache_enabled=False)


@functools.cache
def refusal(precision: str, device: str) -> str | None:
    """Returns why this machine's `cpu` or `cuda` has no such precision, None if it has it."""
    if precision in ("fp32", "fp64"):
        return None
    if device == "cpu":
        if precision != "bf16":
            return f"precision {precision} needs a GPU; a CPU has fp32, fp64 and, if new, bf16"
        if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
            return "precision bf16: this CPU has neither AVX512-BF16 nor AMX; write precision fp32"
        return None
    if torch.cuda.get_device_capability()[0] < 8 and precision != "fp16":
        name = torch.cuda.get_device_name()
        return f"precision {precision} needs a GPU of compute capability 8 or more, unlike {name}"
    return None
