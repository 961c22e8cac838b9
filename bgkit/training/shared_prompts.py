"""Log-probabilities of a step's completions with each prompt computed once, under TRL's loss.

TRL forwards every prompt once for each of its G completions. Here a group is one row, prompt and
completions one after the other (:mod:`bgkit.models.batches`), and the head reads the positions
that predict a completion's token, and no others. Only TRL's method that returns log-probabilities
is replaced (:class:`SharedPrompts`), for the training pass, the old policy's and the reference's.

Whether a model takes such rows is checked against the plain pass, at the first step of a run and
whenever rows grow: sliding windows, linear attention, positions that do not restart and kernels
that ignore the mask would show there. Such a model goes TRL's way; a line says so, and the run's
record.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import split_tensor_dict

from bgkit.errors import BgkitError
from bgkit.models.batches import can_share, cheapest_batches, pass_cost, tree_mask
from bgkit.models.policies import plain_model
from bgkit.progress import say

WAYS = ("auto", "off")
#: Largest difference of a log-probability (nats) that rounding explains, in float32 and in halves.
CLOSE, CLOSE_IN_HALVES = 1e-3, 0.3
#: Padded positions of one pass, by device; a step of more recomputes passes in its backward one.
SLOTS = {"cpu": 4096, "cuda": 65_536}


@dataclass
class Row:
    """A prompt and some of its completions: (row of the batch, its completion's tokens)."""

    prompt: list[int]
    tails: list[tuple[int, list[int]]]

    @property
    def width(self) -> int:
        """Positions; a completion's last token predicts nothing, and is left out."""
        return len(self.prompt) + sum(len(tail) - 1 for _, tail in self.tails)


def grouped(ids: torch.Tensor, mask: torch.Tensor, keep: int, widest: int) -> list[Row]:
    """The rows of a padded batch (n, prompt + ``keep``) by their prompt; each at most ``widest``.

    A row has one completion at least; completions of no token are left out.

    >>> ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 8, 9]]), torch.tensor([[1, 1, 1, 0]] * 2)
    >>> [row.tails for row in grouped(ids, mask, 2, 99)]
    [[(0, [7]), (1, [8])]]
    """
    groups: dict[tuple[int, ...], list[Row]] = {}
    for number, (row, there) in enumerate(zip(ids.cpu(), mask.bool().cpu(), strict=True)):
        prompt, tail = row[:-keep][there[:-keep]].tolist(), row[-keep:][there[-keep:]].tolist()
        if tail:
            rows = groups.setdefault(tuple(prompt), [])
            if not rows or rows[-1].width + len(tail) > widest:
                rows.append(Row(prompt, []))
            rows[-1].tails.append((number, tail))
    return list(itertools.chain.from_iterable(groups.values()))


def regrouped(batches: Sequence[dict]) -> list[dict]:
    """Micro-batches of one step with the completions of a prompt beside each other.

    The trainer shuffles a step's completions, and few of a micro-batch would share a prompt. Values
    with a row for each completion are moved, others left. Where a loss is a mean over micro-batches
    of their means over completions, or over all tokens of the step, it stays the same.
    """
    asked = torch.cat([batch["prompt_ids"] for batch in batches]).tolist()
    order = np.argsort(pd.Series(map(tuple, asked)).factorize()[0], kind="stable")
    whole = {}
    for name, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            value = torch.cat([batch[name] for batch in batches])[torch.from_numpy(order)]
        elif isinstance(value, list):
            together = [one for batch in batches for one in batch[name]]
            value = [together[place] for place in order]
        whole[name] = value
    return split_tensor_dict(whole, len(batches))


def _packed(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> tuple:
    """What one pass needs: inputs (rows, width), where the head reads, and what it predicts there.

    Places in the flattened rows, labels, and (row of the batch, column of its completion) are
    those of each predicted token.
    """
    width = max(row.width for row in rows)
    ids, positions, reads = [], [], []
    for g, row in enumerate(rows):
        stem, line, at = len(row.prompt), [*row.prompt], [*range(len(row.prompt))]
        for number, tail in row.tails:
            end, size = len(line), len(tail)
            places = [stem - 1, *range(end, end + size - 1)]
            reads += [(g * width + places[i], tail[i], number, i) for i in range(size)]
            line += tail[:-1]
            at += range(stem, stem + size - 1)
        ids.append(torch.tensor(line))
        positions.append(torch.tensor(at))
    lengths = [[len(tail) - 1 for _, tail in row.tails] for row in rows]
    stems = [len(row.prompt) for row in rows]
    inputs = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": tree_mask(stems, lengths, dtype),
        "position_ids": pad_sequence(positions, batch_first=True),
    }
    places, labels, *at = torch.tensor(reads, device=device).T.contiguous()
    return {name: value.to(device) for name, value in inputs.items()}, places, labels, tuple(at)


def _passes(
    model,
    rows: list[Row],
    *,
    backbone: torch.nn.Module,
    shape: tuple[int, int],
    autocast: Callable,
    at_once: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies (n, keep) of completions, 0 where there is no token.

    ``at_once`` makes it one pass, where processes count them.
    """
    weight = backbone.get_input_embeddings().weight
    widths = [row.width for row in rows]
    batches = cheapest_batches(widths, _slots(weight.device), pass_cost(backbone))
    batches = [range(len(rows))] if at_once else batches
    learns = torch.is_grad_enabled() and len(batches) > 1
    logps = torch.zeros(shape, dtype=torch.float32, device=weight.device)
    entropies = torch.zeros_like(logps)
    for batch in batches:
        packed = _packed([rows[i] for i in batch], weight.device, computed_in(weight, autocast))
        # activations of one pass at a time: others are computed again in the backward pass
        compute = functools.partial(_pass, model, backbone, autocast, *packed[:3])
        one, other = checkpoint(compute, use_reentrant=False) if learns else compute()
        logps = logps.index_put(packed[-1], one[0].float())
        if other is not None:  # as of a reference
            entropies = entropies.index_put(packed[-1], other[0].float())
    return logps, entropies


def _pass(
    model, backbone, autocast: Callable, inputs: dict, places: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What TRL's head makes of the hidden states at some places of the flattened rows."""

    def gather(module, arguments, outputs):
        outputs.last_hidden_state = outputs.last_hidden_state.flatten(0, 1)[places][None]
        return outputs

    with backbone.register_forward_hook(gather), autocast():
        found = model(**inputs, shift_labels=labels[None], fused_lm_head=True)
    return found.log_probs, found.entropy


@dataclass
class SharedPrompts:
    """How a run computes its log-probabilities: ``way`` is auto or off; ``why`` not, if not.

    ``checked`` is the longest row that was compared with the plain pass.
    """

    way: str = "auto"
    why: str = ""
    checked: int = 0

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise BgkitError(f"shared_prompts is one of {', '.join(WAYS)}, not {self.way!r}.")
        self.why = "asked for" if self.way == "off" else ""

    @property
    def told(self) -> str:
        """What stands in a run's record."""
        return f"off: {self.why}" if self.why else "on"

    def give_up(self, why: str) -> None:
        """Go TRL's way from now on."""
        self.why = why
        say(f"Each prompt is computed once per completion: {why}.")

    def compute(
        self,
        model,
        local,
        ids: torch.Tensor,
        mask: torch.Tensor,
        keep: int,
        trls: Callable,
        autocast: Callable,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Log-probabilities and entropies (n, ``keep``) of a padded batch's completions.

        ``local`` is the model without the wrapper of a launch, ``trls`` TRL's own method. None
        where the model, or this batch, goes TRL's way.
        """
        rows = [] if self.why else grouped(ids, mask, keep, _slots(ids.device))
        if max((len(row.tails) for row in rows), default=0) < 2:
            return None
        inner = plain_model(local)
        if not can_share(inner.config, int(mask.sum(1).max())):
            return self.give_up("the model's attention does not see the whole row")
        how = {"backbone": inner.base_model, "shape": (len(ids), keep), "autocast": autocast}
        widest = max(rows, key=lambda row: row.width)
        if widest.width > self.checked:
            numbers = [number for number, _ in widest.tails]
            with torch.no_grad():
                known = trls(local, ids[numbers], mask[numbers], keep)[0]
                try:
                    apart = _passes(local, [widest], **how)[0][numbers] - known
                except (TypeError, ValueError, AttributeError, RuntimeError) as error:
                    if isinstance(error, torch.OutOfMemoryError):
                        raise
                    reason = str(error).partition("\n")[0][:100]
                    return self.give_up(
                        f"the model does not take rows of shared prompts ({reason})"
                    )
            apart = float((apart * mask[numbers, -keep:]).abs().max())
            full = computed_in(inner.get_input_embeddings().weight, autocast) is torch.float32
            if not apart <= (CLOSE if full else CLOSE_IN_HALVES):
                return self.give_up(
                    f"rows of shared prompts differ from plain ones by {apart:.2g} nats"
                )
            self.checked = widest.width
        return _passes(model, rows, **how, at_once=model is not local)


def _slots(device: torch.device) -> int:
    return SLOTS.get(device.type, SLOTS["cpu"])


def computed_in(weight: torch.Tensor, autocast: Callable) -> torch.dtype:
    """The type that a model of these weights computes in."""
    with autocast():
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype
