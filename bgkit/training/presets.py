"""Named combinations of policy, guard, reward model and prompts, for notebook 06. Data only.

The guards and reward models are encoders that read ``tokenizer(prompt, response)``. Batch sizes and
lengths are chosen by :mod:`bgkit.training.budget`'s arithmetic for the machine that a preset
names; except for the testbed's, no preset has been run by the authors on that machine, and
learning rates are starting points. Some models ask for acceptance of their licence on the hub.
"""

from __future__ import annotations

from bgkit.errors import BgkitError
from bgkit.runs import Run, TrainConfig, load_run
from bgkit.testbed.store import data_folder

HARMAUG = "hbseong/HarmAug-Guard"
#: The weights on ``main`` are a pickle; the pull request holds the same ones as safetensors.
OPEN_ASSISTANT = "OpenAssistant/reward-model-deberta-v3-large-v2@refs/pr/3"
GRANITE = "ibm-granite/granite-guardian-3.1-2b"
SKYWORK = "Skywork/Skywork-Reward-V2-Qwen3-0.6B"
ENCODERS = {"guard": HARMAUG, "utility": OPEN_ASSISTANT, "prompts": "xstest"}

#: name -> settings of a run (as in TrainConfig), and ``machine``, a key of
#: bgkit.training.budget.GPUS or cpu
PRESETS: dict[str, dict] = {
    "testbed-cpu": {
        "machine": "cpu",
        "policy": "small",
        "guard": "default",
        "utility": "mild",
        "prompts": "testbed",
        "steps": 12,
        "batch_size": 32,
        "max_completion_length": 60,
        "learning_rate": 6e-3,
        "test_prompts": 100,
    },
    "english-cpu": {
        "machine": "cpu",
        "policy": "smollm2-135m",
        "guard": "english",
        "utility": "english",
        "judge": "english",
        "prompts": "everyday-short",
        "temperature": 0.7,
        "steps": 30,
        "batch_size": 32,
        "max_completion_length": 48,
        "lora_rank": 4,
        "lora_alpha": 8,
        "learning_rate": 5e-4,
        "beta": 0.02,
        "save_every": 5,
        "test_prompts": 167,
    },
    "colab-t4": {
        "machine": "T4",
        "policy": "Qwen/Qwen2.5-0.5B-Instruct",
        **ENCODERS,
        "steps": 40,
        "batch_size": 32,
        "accumulation": 4,
        "max_completion_length": 128,
        "learning_rate": 5e-5,
        "test_prompts": 100,
    },
    "gpu-24gb": {
        "machine": "RTX 4090",
        "policy": "Qwen/Qwen2.5-1.5B-Instruct",
        **ENCODERS,
        "steps": 100,
        "batch_size": 64,
        "accumulation": 2,
        "max_completion_length": 256,
        "learning_rate": 5e-5,
        "test_prompts": 200,
    },
    "gpu-80gb": {
        "machine": "H100",
        "policy": "Qwen/Qwen2.5-7B-Instruct",
        **ENCODERS,
        "steps": 200,
        "batch_size": 128,
        "accumulation": 2,
        "max_completion_length": 256,
        "learning_rate": 2e-5,
        "test_prompts": 400,
    },
}
#: The paper's generators. It names its judge (GPT-4.1), but neither guard nor reward model in what
#: could be read: these are our choice, and so are the settings. The judge asks a server.
PAPER = {
    "paper-qwen-0.5b": ("Qwen/Qwen2.5-0.5B-Instruct", "RTX 4090", 5e-5, 4),
    "paper-qwen-7b": ("Qwen/Qwen2.5-7B-Instruct", "H100", 2e-5, 8),
    "paper-qwen-14b": ("Qwen/Qwen2.5-14B-Instruct", "H200", 1e-5, 16),
    "paper-gemma-9b": ("google/gemma-2-9b-it", "H200", 1e-5, 16),
}
PRESETS |= {
    name: {
        "machine": machine,
        "policy": policy,
        "guard": GRANITE,
        "utility": SKYWORK,
        "judge": "api:gpt-4.1",
        "prompts": "xstest,jbb-harmful,jbb-benign,or-bench-hard",
        "steps": 200,
        "batch_size": 128,
        "accumulation": accumulation,
        "max_completion_length": 256,
        "learning_rate": rate,
        "test_prompts": 400,
    }
    for name, (policy, machine, rate, accumulation) in PAPER.items()
}

#: What the demo, and the reference table, change in the default config: the table has more test
#: prompts, no held-out curve and no judge, the demo fewer steps at a higher rate.
DEMO = {"eval_every": 20, "steps": 40, "learning_rate": 6e-3, "test_prompts": 200}
REFERENCE = {"eval_every": 0, "test_prompts": 800, "judge": "none"}

_QWEN = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True}
_DEBERTA_LARGE = {
    "model_type": "deberta-v2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 128_100,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
#: hub name -> what its config.json says that matters here, and how many bytes a stored weight has
SHAPES: dict[str, dict] = {
    "Qwen/Qwen2.5-0.5B-Instruct": {
        **_QWEN,
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "bytes_per_weight": 2,
    },
    "Qwen/Qwen2.5-1.5B-Instruct": {
        **_QWEN,
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "bytes_per_weight": 2,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **_QWEN,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
        "bytes_per_weight": 2,
    },
    "Qwen/Qwen2.5-14B-Instruct": {
        **_QWEN,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
        "hidden_size": 5120,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "intermediate_size": 13_824,
        "bytes_per_weight": 2,
    },
    "google/gemma-2-9b-it": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 3584,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "intermediate_size": 14_336,
        "bytes_per_weight": 2,
    },
    GRANITE: {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "vocab_size": 49_155,
        "tie_word_embeddings": True,
        "hidden_size": 2048,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "bytes_per_weight": 2,
    },
    SKYWORK: {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "num_labels": 1,
        "bytes_per_weight": 2,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "bytes_per_weight": 2,
    },
    "minilm": {
        "model_type": "bert",
        "vocab_size": 30_522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
        "num_labels": 2,
        "bytes_per_weight": 4,
    },
    HARMAUG: {**_DEBERTA_LARGE, "num_labels": 2, "bytes_per_weight": 4},
    OPEN_ASSISTANT: {**_DEBERTA_LARGE, "num_labels": 1, "bytes_per_weight": 4},
}


def choose(name: str, **own: object) -> dict:
    """Settings of a preset without ``machine``; what is given in ``own`` replaces its values.

    Values of ``own`` that are empty or zero leave the preset's. Raises BgkitError for an unknown
    preset.

    >>> choose("testbed-cpu", policy="tiny", guard="", steps=0)["policy"]
    'tiny'
    """
    if name not in PRESETS:
        raise BgkitError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    given = {key: value for key, value in own.items() if value}
    settings = {key: value for key, value in PRESETS[name].items() if key != "machine"}
    return {**settings, **given}


def shipped(config: TrainConfig) -> Run | None:
    """The English run of this config that comes with the kit, or None."""
    found = sorted((data_folder() / "runs" / "english").glob("*/config.json"))
    loaded = (load_run(path.parent) for path in found)
    return next((run for run in loaded if run.config == config), None)
