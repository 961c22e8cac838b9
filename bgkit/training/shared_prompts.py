"""Log-probabilities of a step's completions with each prompt computed once, under TRL's loss.

TRL passes every prompt through the model once for each of its G completions. Here a group is one
row, the prompt and then its completions (:mod:`bgkit.models.batches`), and the head reads only the
positions that predict a completion's token. Only TRL's method that returns log-probabilities is
replaced (:class:`SharedPrompts`), for the training pass, the old policy and the reference.

At the first step of a run, and whenever rows grow, the result is checked against TRL's plain pass.
It differs for models with sliding windows, linear attention, positions that do not restart, or
kernels that ignore the mask. Such a model uses the plain pass; a message and the run's record say
so.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import split_tensor_dict

from bgkit.errors import BgkitError
from bgkit.models.batches import can_share, cheapest_batches, pack, pass_cost, tree_mask
from bgkit.models.policies import plain_model
from bgkit.progress import say

MODES = ("auto", "off")
#: Largest difference of a log-probability (nats) due to rounding, in float32 and in half precision.
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.3
#: Padded positions of one pass, by device; with several passes, the backward pass recomputes them.
SLOTS = {"cpu": 4096, "cuda": 65_536}


@dataclass
class Row:
    """A prompt and some of its completions: (row of the batch, its completion's tokens)."""

    prompt: list[int]
    tails: list[tuple[int, list[int]]]

    @property
    def width(self) -> int:
        """Positions; a completion's last token predicts nothing and is left out."""
        return len(self.prompt) + sum(len(tail) - 1 for _, tail in self.tails)


def group_by_prompt(ids: torch.Tensor, mask: torch.Tensor, keep: int, max_width: int) -> list[Row]:
    """Group a padded batch (n, prompt + ``keep``) by prompt, into rows of at most ``max_width``.

    A row has at least one completion; empty completions are left out.

    >>> ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 8, 9]]), torch.tensor([[1, 1, 1, 0]] * 2)
    >>> [row.tails for row in group_by_prompt(ids, mask, 2, 99)]
    [[(0, [7]), (1, [8])]]
    """
    groups: dict[tuple[int, ...], list[Row]] = {}
    for number, (row, used) in enumerate(zip(ids.cpu(), mask.bool().cpu(), strict=True)):
        prompt, tail = row[:-keep][used[:-keep]].tolist(), row[-keep:][used[-keep:]].tolist()
        if tail:
            rows = groups.setdefault(tuple(prompt), [])
            if not rows or rows[-1].width + len(tail) > max_width:
                rows.append(Row(prompt, []))
            rows[-1].tails.append((number, tail))
    return list(itertools.chain.from_iterable(groups.values()))


def regroup(batches: Sequence[dict]) -> list[dict]:
    """Reorder the micro-batches of one step so that completions of a prompt are adjacent.

    TRL shuffles a step's completions, so few of a micro-batch would share a prompt. Values with one
    row per completion are reordered, others kept. A loss that averages over completions and then
    over micro-batches, or over all tokens of the step, stays the same.
    """
    prompts = torch.cat([batch["prompt_ids"] for batch in batches]).tolist()
    order = np.argsort(pd.Series(map(tuple, prompts)).factorize()[0], kind="stable")
    step = {}
    for name, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            value = torch.cat([batch[name] for batch in batches])[torch.from_numpy(order)]
        elif isinstance(value, list):
            values = [item for batch in batches for item in batch[name]]
            value = [values[place] for place in order]
        step[name] = value
    return split_tensor_dict(step, len(batches))


def _pack(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> tuple:
    """One pass over rows: its inputs (rows, width), where the head reads, and what it predicts.

    For each predicted token: its place in the flattened rows, its label, and its (row, column) in
    the batch of completions.
    """
    prompts, tails = [row.prompt for row in rows], [[t[:-1] for _, t in row.tails] for row in rows]
    ids, positions = pack(prompts, tails)
    reads = []
    for g, row in enumerate(rows):
        end = g * ids.shape[1] + len(row.prompt)  # of the prompt, then of each completion
        before = end - 1
        for number, tail in row.tails:
            places = [before, *range(end, end + len(tail) - 1)]
            reads += [(places[i], tail[i], number, i) for i in range(len(tail))]
            end += len(tail) - 1
    lengths = [list(map(len, group)) for group in tails]
    mask = tree_mask(list(map(len, prompts)), lengths, dtype)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    places, labels, *cells = torch.tensor(reads, device=device).T.contiguous()
    return {name: value.to(device) for name, value in inputs.items()}, places, labels, tuple(cells)


def _compute_rows(
    model,
    rows: list[Row],
    *,
    backbone: torch.nn.Module,
    shape: tuple[int, int],
    autocast: Callable,
    single_pass: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies (n, keep) of completions, 0 where there is no token.

    A wrapped model needs a ``single_pass``, as its processes count passes.
    """
    weight = backbone.get_input_embeddings().weight
    widths = [row.width for row in rows]
    batches = cheapest_batches(widths, _slots(weight.device), pass_cost(backbone))
    batches = [range(len(rows))] if single_pass else batches
    recompute = torch.is_grad_enabled() and len(batches) > 1
    logps = torch.zeros(shape, dtype=torch.float32, device=weight.device)
    entropies = torch.zeros_like(logps)
    for batch in batches:
        dtype = compute_dtype(weight, autocast)
        *packed, cells = _pack([rows[i] for i in batch], weight.device, dtype)
        # keep the activations of one pass at a time; the backward pass recomputes the others
        compute = functools.partial(_forward, model, backbone, autocast, *packed)
        logp, entropy = checkpoint(compute, use_reentrant=False) if recompute else compute()
        logps = logps.index_put(cells, logp[0].float())
        if entropy is not None:  # None for a reference
            entropies = entropies.index_put(cells, entropy[0].float())
    return logps, entropies


def _forward(
    model, backbone, autocast: Callable, inputs: dict, places: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities and entropies by TRL's head at some places of the flattened rows."""

    def gather(module, arguments, outputs):
        outputs.last_hidden_state = outputs.last_hidden_state.flatten(0, 1)[places][None]
        return outputs

    with backbone.register_forward_hook(gather), autocast():
        outputs = model(**inputs, shift_labels=labels[None], fused_lm_head=True)
    return outputs.log_probs, outputs.entropy


@dataclass
class SharedPrompts:
    """Whether a run computes each prompt once: ``mode`` is auto or off, ``off_reason`` why not.

    ``checked`` is the width of the longest row that was compared with the plain pass.
    """

    mode: str = "auto"
    off_reason: str = ""
    checked: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BgkitError(f"shared_prompts is one of {', '.join(MODES)}, not {self.mode!r}.")
        self.off_reason = "asked for" if self.mode == "off" else ""

    @property
    def status(self) -> str:
        """The entry in a run's record."""
        return f"off: {self.off_reason}" if self.off_reason else "on"

    def turn_off(self, reason: str) -> None:
        """Use the plain pass from now on."""
        self.off_reason = reason
        say(f"Each prompt is computed once per completion: {reason}.")

    def compute(
        self,
        model,
        unwrapped,
        ids: torch.Tensor,
        mask: torch.Tensor,
        keep: int,
        plain: Callable,
        autocast: Callable,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Log-probabilities and entropies (n, ``keep``) of a padded batch's completions.

        ``unwrapped`` is the model without the wrapper of a launch, ``plain`` TRL's own method. None
        if the model, or this batch, needs the plain pass.
        """
        rows = [] if self.off_reason else group_by_prompt(ids, mask, keep, _slots(ids.device))
        if max((len(row.tails) for row in rows), default=0) < 2:
            return None
        inner = plain_model(unwrapped)
        if not can_share(inner.config, int(mask.sum(1).max())):
            return self.turn_off("the model's attention does not see the whole row")
        options = {"backbone": inner.base_model, "shape": (len(ids), keep), "autocast": autocast}
        widest = max(rows, key=lambda row: row.width)
        if widest.width > self.checked:
            numbers = [number for number, _ in widest.tails]
            with torch.no_grad():
                expected = plain(unwrapped, ids[numbers], mask[numbers], keep)[0]
                try:
                    logps = _compute_rows(unwrapped, [widest], **options)[0][numbers]
                except torch.OutOfMemoryError:
                    raise
                except (TypeError, ValueError, AttributeError, RuntimeError) as error:
                    reason = str(error).partition("\n")[0][:100]
                    return self.turn_off(
                        f"the model does not take rows of shared prompts ({reason})"
                    )
            difference = float(((logps - expected) * mask[numbers, -keep:]).abs().max())
            dtype = compute_dtype(inner.get_input_embeddings().weight, autocast)
            if not difference <= (TOLERANCE if dtype is torch.float32 else HALF_TOLERANCE):
                return self.turn_off(
                    f"rows of shared prompts differ from plain ones by {difference:.2g} nats"
                )
            self.checked = widest.width
        return _compute_rows(model, rows, **options, single_pass=model is not unwrapped)


def _slots(device: torch.device) -> int:
    return SLOTS.get(device.type, SLOTS["cpu"])


def compute_dtype(weight: torch.Tensor, autocast: Callable) -> torch.dtype:
    """The type that a model with these weights computes in."""
    with autocast():
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype
