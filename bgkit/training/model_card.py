"""The model card of a trained adapter, and pushing both to the hub.

The card reports training, data, results with intervals, departures from the paper, and limits of
use. It contains no generated text.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pandas as pd
from huggingface_hub import HfApi, ModelCard, ModelCardData

from bgkit import rewards, runs
from bgkit.errors import BgkitError
from bgkit.evaluation import results
from bgkit.evaluation.samples import judge_names
from bgkit.models import hub
from bgkit.training import trainer

REPORTED = "filter_rate near_boundary false_positive false_negative".split()
REPORTED += "raw_harm system_harm system_help kl".split()


def card(run: runs.Run) -> str:
    """The model card of a complete run, in Markdown; raises BgkitError for an incomplete one."""
    if not run.complete:
        raise BgkitError(
            f"The run {run.folder} is incomplete, so it has no figures to report; finish it first."
        )
    result, config = run.result, run.config
    rows = pd.DataFrame(result["rows"])
    settings = {name: _plain(value) for name, value in vars(config).items()}
    if config.max_false_negatives:
        settings["strength"] = f"{config.strength:g} at first, {run.strength:.3g} at the end"
    judge = next(iter(judge_names(config)), "none")
    grader = "the testbed's oracle" if judge == "oracle" else f"the judge `{_plain(judge)}`"
    graded = rows.loc[rows["metric"] == "system_harm", "mean"].notna().any()
    formula = f"`{_plain(config.reward)}`, the user's own"
    if design := rewards.DESIGNS.get(config.reward):
        formula = inspect.getdoc(design).splitlines()[0]
    layers = run.read_json("config.json").get("policy_made_of") or [config.policy]
    tags = ["boundary-guidance", "grpo", "safety"]
    model_card = ModelCard.from_template(
        ModelCardData(base_model=_plain(layers[0]), library_name="peft", tags=tags),
        template_path=str(Path(__file__).with_suffix(".md")),
        config=settings,
        guard=_plain(runs.label(config.guard)),
        layers=[_plain(name) for name in layers],
        formula=formula,
        n_test=config.test_prompts,
        grader=grader if graded else "nobody",
        table=results.table(result["rows"], REPORTED),
        departures="\n".join(map(_departures, (rewards, trainer))),
        versions=result["versions"],
        machine=result["machine"],
        git=result["git"],
    )
    return str(model_card)


def _plain(value: object) -> object:
    """A setting without line breaks, cells or code marks, which a user's names may contain."""
    if isinstance(value, str):
        return " ".join(value.replace("|", "/").replace("`", "'").split())
    return value


def _departures(module: ModuleType) -> str:
    """The list of deviations in a module's docstring."""
    text = inspect.cleandoc(module.__doc__).split("Deviations from the paper", 1)[1]
    return text.split("\n\n", 1)[1]


def push(run: runs.Run, repository: str, *, dry_run: bool = False, private: bool = True) -> Path:
    """Write the card to the adapter's folder and upload both; ``dry_run`` only writes the card.

    Returns the card's path. Raises BgkitError if the hub refuses.
    """
    text, path = card(run), run.adapter / "README.md"
    runs.write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    if dry_run:
        return path
    with hub.translate_errors("repository", repository, "uploading to"):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=run.adapter,
            allow_patterns=["*.safetensors", "*.json", "*.jinja", "README.md"],
        )
    return path
