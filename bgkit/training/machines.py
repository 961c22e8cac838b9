"""Machines as numbers: how quick they are at what a model does, from a table or measured here."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

from bgkit.models import devices

#: Passes over a layer cost this at least, by far the most of a small batch: seconds, an assumption.
LAUNCH = 1.5e-3


@dataclass(frozen=True)
class Machine:
    """A machine as numbers: FLOP/s of a matrix product and bytes/s of memory, in a number format.

    ``width`` is the bytes of a weight; ``memory`` in bytes; ``launch`` the seconds that a pass over
    one layer takes at least, in Python and in launching kernels.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    width: int
    launch: float = LAUNCH

    @property
    def on_gpu(self) -> bool:
        """Whether it is a CUDA device."""
        return self.name not in ("cpu", "mps")


#: Makers' data sheets: dense rates in bfloat16, which a T4 does not have (float32 then).
GPUS = {
    machine.name: machine
    for machine in (
        Machine("T4", 8.1e12, 320e9, 15.8e9, 4),
        Machine("L4", 121e12, 300e9, 24e9, 2),
        Machine("RTX 3090", 71e12, 936e9, 25e9, 2),
        Machine("RTX 4090", 165e12, 1008e9, 25e9, 2),
        Machine("A100", 312e12, 2039e9, 85e9, 2),
        Machine("H100", 989e12, 3350e9, 85e9, 2),
        Machine("H200", 989e12, 4800e9, 141e9, 2),
    )
}


def this_machine(device: str = "auto", precision: str = "auto", size: int = 1024) -> Machine:
    """Measure the machine at hand in about a second: a matrix product, a copy, a small operation.

    ``size`` is the number of rows and columns; on a GPU four times as many are taken.
    """
    place = devices.pick_device(device)
    dtype, on_gpu = devices.pick_dtype(place, precision), place.type == "cuda"
    size *= 4 if on_gpu else 1
    a = torch.ones(size, size, dtype=dtype, device=place)
    things = {"a": a, "b": a[:8, :64].contiguous(), "c": a.new_ones(8 * size * size)}
    threads = torch.get_num_threads()
    product, copy, operation = (
        Timer(work, globals=things, num_threads=threads).blocked_autorange(min_run_time=0.2).median
        for work in ("a @ a", "c.clone()", "b * 2")
    )
    if on_gpu:
        memory = torch.cuda.get_device_properties(place).total_memory
    else:  # 0 where the system does not tell
        known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 0
    return Machine(
        name=torch.cuda.get_device_name(place) if on_gpu else place.type,
        flops=2 * size**3 / product,
        bandwidth=2 * things["c"].nbytes / copy,
        memory=float(memory),
        width=a.element_size(),
        # about 160 operations in a layer with adapters; on a GPU a pass takes LAUNCH / 3 at least
        launch=max(160 * operation, LAUNCH / 3 if on_gpu else 0),
    )
