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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import split_tensor_dict

from bgkit.errors import BgkitError
from bgkit.models.batches import can_share, cheapest_batches, pass_cost, tree_mask
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
    groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for number, (row, there) in enumerate(zip(ids.cpu(), mask.bool().cpu(), strict=True)):
        prompt, tail = row[:-keep][there[:-keep]].tolist(), row[-keep:][there[-keep:]].tolist()
        if tail:
            groups.setdefault(tuple(prompt), []).append((number, tail))
    rows = []
    for prompt, tails in groups.items():
        row = Row(list(prompt), [])
        for tail in tails:
            if row.tails and row.width + len(tail[1]) > widest:
                rows.append(row)
                row = Row(list(prompt), [])
            row.tails.append(tail)
        rows.append(row)
    return rows


def regrouped(batches: Sequence[dict], prompts: str = "prompt_ids") -> list[dict]:
    """Micro-batches of one step with the completions of a prompt beside each other.

    The trainer shuffles a step's completions, and few of a micro-batch would share a prompt. Values
    with a row for each completion are moved, others left. Where a loss is a mean over micro-batches
    of their means over completions, or over all tokens of the step, it stays the same.
    """
    asked = torch.cat([batch[prompts] for batch in batches]).tolist()
    first: dict[tuple[int, ...], int] = {}
    rank = [first.setdefault(tuple(row), len(first)) for row in asked]
    order = torch.tensor(sorted(range(len(rank)), key=rank.__getitem__))
    whole = {}
    for name, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            value = torch.cat([batch[name] for batch in batches])[order]
        elif isinstance(value, list):
            together = [one for batch in batches for one in batch[name]]
            value = [together[place] for place in order]
        whole[name] = value
    return split_tensor_dict(whole, len(batches))


class _Packed(NamedTuple):
    """What one pass needs: inputs (rows, width), and where the head reads what it predicts."""

    inputs: dict[str, torch.Tensor]
    places: torch.Tensor  # in the flattened rows, one for each predicted token
    labels: torch.Tensor
    at: tuple[torch.Tensor, torch.Tensor]  # row of the batch and column of its completion


def _pack(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> _Packed:
    width = max(row.width for row in rows)
    ids, positions = torch.zeros(2, len(rows), width, dtype=torch.long).unbind()
    reads: list[tuple[int, int, int, int]] = []  # place, label, row of the batch, column
    for g, row in enumerate(rows):
        stem = end = len(row.prompt)
        ids[g, :stem], positions[g, :stem] = torch.tensor(row.prompt), torch.arange(stem)
        for number, tail in row.tails:
            last, size = g * width + stem - 1, len(tail) - 1
            ids[g, end : end + size] = torch.tensor(tail[:-1], dtype=torch.long)
            positions[g, end : end + size] = stem + torch.arange(size)
            places = [last, *range(g * width + end, g * width + end + size)]
            reads += zip(places, tail, [number] * len(tail), range(len(tail)), strict=True)
            end += size
    lengths = [[len(tail) - 1 for _, tail in row.tails] for row in rows]
    stems = [len(row.prompt) for row in rows]
    mask = tree_mask(stems, lengths, dtype)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    inputs = {name: value.to(device) for name, value in inputs.items()}
    places, labels, *at = torch.tensor(reads, device=device).T.contiguous()
    return _Packed(inputs, places, labels, tuple(at))


@contextmanager
def _reading(backbone: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Let a backbone give the hidden states at some places of its flattened rows, as one row."""

    def gather(module, arguments, outputs):
        outputs.last_hidden_state = outputs.last_hidden_state.flatten(0, 1)[places][None]
        return outputs

    handle = backbone.register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()


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

    def rows_of(self, model, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> list[Row]:
        """The rows to compute; [] where the model, or this batch, goes the plain way."""
        if self.why:
            return []
        rows = grouped(ids, mask, keep, _slots(ids))
        if max((len(row.tails) for row in rows), default=0) < 2:
            return []
        longest = int(mask.sum(1).max())
        if not can_share(model.config, longest):
            self.give_up("the model's attention does not see the whole row")
            return []
        return rows

    def give_up(self, why: str) -> None:
        """Go TRL's way from now on."""
        self.why = why
        say(f"Each prompt is computed once per completion: {why}.")

    def log_probabilities(
        self,
        model,
        *,
        backbone: torch.nn.Module,
        rows: list[Row],
        shape: tuple[int, int],
        autocast: Callable,
        at_once: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (n, keep) of completions, 0 where there is no token.

        ``at_once`` makes it one pass, where processes count them.
        """
        weight = backbone.get_input_embeddings().weight
        widths = [row.width for row in rows]
        batches = cheapest_batches(widths, _slots(weight), pass_cost(backbone))
        batches = [range(len(rows))] if at_once else batches
        learns = torch.is_grad_enabled() and len(batches) > 1
        logps = torch.zeros(shape, dtype=torch.float32, device=weight.device)
        entropies = torch.zeros_like(logps)
        for batch in batches:
            packed = _pack([rows[i] for i in batch], weight.device, computed_in(weight, autocast))

            def compute(packed=packed) -> tuple[torch.Tensor, torch.Tensor]:
                with _reading(backbone, packed.places), autocast():
                    found = model(
                        **packed.inputs, shift_labels=packed.labels[None], fused_lm_head=True
                    )
                entropy = found.entropy
                return found.log_probs[0], torch.zeros(()) if entropy is None else entropy[0]

            # activations of one pass at a time: others are computed again in the backward pass
            one, other = checkpoint(compute, use_reentrant=False) if learns else compute()
            logps = logps.index_put(packed.at, one.float())
            if other.dim():
                entropies = entropies.index_put(packed.at, other.float())
        return logps, entropies

    def agrees(
        self,
        compute: Callable[[], torch.Tensor],
        plain: torch.Tensor,
        there: torch.Tensor,
        longest: int,
        dtype: torch.dtype,
    ) -> bool:
        """Whether both ways agree but for the rounding of ``dtype``; else TRL's way is gone.

        ``compute`` gives the log-probabilities on shared prompts, ``there`` is 1 where a token is,
        ``longest`` the longest of the rows.
        """
        try:
            apart = float(((compute() - plain) * there).abs().max())
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).partition("\n")[0][:100]
            self.give_up(f"the model does not take rows of shared prompts ({reason})")
            return False
        if not apart <= (CLOSE if dtype == torch.float32 else CLOSE_IN_HALVES):
            self.give_up(f"rows of shared prompts differ from plain ones by {apart:.2g} nats")
            return False
        self.checked = longest
        return True


def _slots(tensor: torch.Tensor) -> int:
    return SLOTS.get(tensor.device.type, SLOTS["cpu"])


def computed_in(weight: torch.Tensor, autocast) -> torch.dtype:
    """The type that a model of these weights computes in."""
    with autocast():
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype
