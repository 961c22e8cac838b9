"""A trained adapter for others: its model card, and pushing both to the hub.

The card says how the adapter was trained, on what, what came of it with intervals, where the kit
departs from the paper, and what the adapter is not for. It holds no sample of a model's text.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import jinja2
import pandas as pd

from bgkit import rewards, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import results
from bgkit.evaluation.samples import judge_names
from bgkit.models import hub
from bgkit.progress import phase

SHOWN = (
    "filter_rate near_boundary false_positive false_negative raw_harm system_harm system_help kl"
)
_CARD = """---
library_name: peft
base_model: {{ layers[0] }}
tags: [boundary-guidance, grpo, safety]
---
# {{ config.policy }}, trained by {{ config.reward }}

A {{ "LoRA adapter" if config.lora_rank else "full fine-tuning" }} of `{{ config.policy }}` for use
**behind the guard `{{ guard }}`** with threshold {{ config.tau }}: responses with a guard's
probability of being unsafe of {{ config.tau }} or more are replaced by a refusal. Trained with
bgkit {{ versions.bgkit }} by Boundary Guidance (Ball and Haupt,
"Don't Walk the Line", arXiv 2510.11834).
{% if layers[1:] %}
What was trained is `{{ layers[0] }}` with the adapter{{ "s" if layers[2:] }}
{% for name in layers[1:] %}`{{ name }}`{{ ", then " if not loop.last }}{% endfor %} merged into it.
{{- " This adapter belongs on that, not on the model alone." if config.lora_rank }}
{% endif %}
## Method

GRPO with the reward `{{ config.reward }}`: {{ formula }}

| setting | value |
|---|---|
{% for name, value in settings.items() -%}
| `{{ name }}` | `{{ value }}` |
{% endfor %}
## Data

Prompts: `{{ config.prompts }}`. {{ n_test }} held-out prompts were used for the figures below;
training and test prompts do not overlap.

## What came of it

Mean and 95% interval over prompts, for **one training seed**: another seed may differ by more than
that. *System* is what the user sees behind the filter. Harm and helpfulness are graded by
{{ grader }}.

{{ table }}

## Departures from the paper

{{ departures }}

## Intended use, and limits

For research on generators and the filters they are deployed with. The adapter learned to keep its
distance from the boundary of **one** guard at **one** threshold: behind another guard, another
threshold, or no guard at all, none of the figures above holds. It can still be made to produce
harmful text. Harm that the guard does not see (t near 0) is not removed by this training.

## Made with

{% for name, value in versions.items() -%}
{{ name }} {{ value }}{{ ", " if not loop.last }}
{%- endfor %};
{{ machine }}; git {{ git }}.
"""


def card(run: runs.Run) -> str:
    """The model card of a complete run, in Markdown.

    Raises BgkitError for a run that is not complete.
    """
    if not run.complete:
        raise BgkitError(
            f"The run {run.folder} is incomplete, so it has no figures to show; finish it first."
        )
    result = run.read_json("result.json")
    rows = pd.DataFrame(result["rows"])
    known = rows.loc[rows["metric"] == "system_harm", "mean"].notna().any()
    settings = {name: _plain(value) for name, value in vars(run.config).items()}
    layers = run.read_json("config.json").get("policy_made_of") or [run.config.policy]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return environment.from_string(_CARD).render(
        config=settings,
        guard=_plain(runs.label(run.config.guard)),
        settings=settings,
        layers=[_plain(name) for name in layers],
        formula=_formula(run.config.reward),
        n_test=run.config.test_prompts,
        grader=_grader(run.config) if known else "nobody",
        table=_markdown(results.table(result["rows"], SHOWN.split())),
        departures=_departures(),
        versions=result["versions"],
        machine=result["machine"],
        git=result["git"],
    )


def _grader(config: runs.TrainConfig) -> str:
    name = judge_names(config)[0]
    return "the testbed's oracle" if name == "oracle" else f"the judge `{_plain(name)}`"


def _formula(reward: str) -> str:
    """The first line of a design's docstring; of one's own the name, its file may be elsewhere."""
    known = rewards.DESIGNS.get(reward)
    return inspect.getdoc(known).splitlines()[0] if known else f"`{_plain(reward)}`, the user's own"


def _plain(value: object) -> object:
    """Names of models and files are a user's text: no line breaks, cells, or code marks in them."""
    if isinstance(value, str):
        return " ".join(value.replace("|", "/").replace("`", "'").split())
    return value


def _markdown(table: pd.DataFrame) -> str:
    heads = ["metric", *map(str, table.columns)]
    lines = [heads, ["---"] * len(heads)]
    lines += [
        [str(name), *map(str, row)] for name, row in zip(table.index, table.values, strict=True)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _departures() -> str:
    """The lists of deviations at the top of the modules that make them."""
    from bgkit.training import trainer as training

    return "\n".join(
        inspect.cleandoc(module.__doc__)
        .split("Deviations from the paper", 1)[1]
        .split("\n\n", 1)[1]
        for module in (rewards, training)
    )


def push(run: runs.Run, repository: str, *, dry_run: bool = False, private: bool = True) -> Path:
    """Write the card beside the adapter and upload both; ``dry_run`` only writes the card.

    Returns the card's path. Raises BgkitError if the hub refuses.
    """
    text = card(run)
    path = run.adapter / "README.md"
    runs.write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    if dry_run:
        return path
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        with phase(f"uploading to {repository}"):
            api.upload_folder(
                repo_id=repository,
                folder_path=run.adapter,
                allow_patterns=["*.safetensors", "*.json", "*.jinja", "README.md"],
            )
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise hub.problem(error, "repository", repository) from error
    return path
