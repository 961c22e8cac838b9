"""The card that goes to the hub with an adapter, and what is uploaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import samples as evaluation
from bgkit.training import model_card


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    """A complete run folder as training leaves it, with made-up figures."""
    config = runs.make_config({"policy": "tiny`| evil", "test_prompts": 7})
    environment = {"versions": {"bgkit": "0.1.0", "torch": "2.13.0"}, "machine": "a laptop"}
    made = runs.open_run(tmp_path / "run", config, {**environment, "git": "abc"})
    labels = evaluation.labels_of(config, "boundary")
    rows = [
        {**labels, "design": design, "kind": "all", "metric": metric}
        | {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        for design, mean in (("base", 0.2), ("boundary", 0.05))
        for metric in ("near_boundary", "system_harm")
    ]
    made.adapter.mkdir(exist_ok=True)
    made.finish({"rows": rows, **environment, "git": "abc"})
    return made


def test_the_card_tells_method_figures_limits_and_departures(run: runs.Run) -> None:
    text = model_card.card(run)
    assert "| near_boundary | 0.200 [0.190, 0.210] | 0.050 [0.040, 0.060] |" in text
    assert "z - s B(t)" in text and "| `strength` | `8.0` |" in text
    assert "learning rate falls linearly" in text and "unweighted" in text
    assert "the testbed's oracle" in text and "one training seed" in text
    assert "bgkit 0.1.0, torch 2.13.0" in text and "a laptop" in text
    assert "`tiny'/ evil`" in text and "{{" not in text
    result = run.read_json("result.json")
    result["rows"] = [row for row in result["rows"] if row["metric"] == "near_boundary"]
    run.finish(result)
    asked = runs.Run(run.folder, replace(run.config, prompts="everyday"))
    assert "graded by\nnobody" in model_card.card(asked)
    (run.folder / "result.json").unlink()
    with pytest.raises(BgkitError, match="is incomplete, so it has no figures"):
        model_card.card(run)


def test_a_dry_run_writes_the_card_and_a_push_uploads_it_to_a_private_repository(
    run, bgkit_here, monkeypatch
) -> None:
    asked = []
    for name in ("create_repo", "upload_folder"):
        target = f"huggingface_hub.HfApi.{name}"
        monkeypatch.setattr(target, lambda self, *places, **more: asked.append((places, more)))
    done, card = bgkit_here("push", run.folder, "--dry-run"), run.adapter / "README.md"
    assert (done.returncode, done.stdout.strip(), asked) == (0, str(card), [])
    assert card.read_text(encoding="utf-8") == model_card.card(run)
    assert bgkit_here("push", run.folder, "--to", "me/adapter").returncode == 0
    created, (_, uploaded) = asked
    assert created == (("me/adapter",), {"private": True, "exist_ok": True})
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/adapter", run.adapter)
    assert all("parquet" not in pattern for pattern in uploaded["allow_patterns"])


@pytest.mark.parametrize(
    ("place", "said"), [([], "Where to? Give --to"), (["--to", "me/adapter"], "me/adapter")]
)
def test_no_place_and_no_network_are_one_sentence(run, bgkit_here, place, said) -> None:
    done = bgkit_here("push", run.folder, *place)  # the tests are offline
    assert done.returncode == 2 and done.stderr.startswith("bgkit: ") and said in done.stderr
