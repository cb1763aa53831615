"""The training configuration: what a file may say, and what is said about one that is wrong."""

from __future__ import annotations

import pytest

from trainer_bridge.errors import TrainingError
from trainer_bridge.moe.settings import ModelSettings, OptimizerSettings, load_settings

MODEL = "model: {layers: 2, d_model: 64, heads: 4, head_dim: 16, d_ff: 128}\n"


def load(folder, text):
    path = folder / "train.yaml"
    path.write_text(text)
    return load_settings(path)


def test_a_model_is_enough(tmp_path):
    settings = load(tmp_path, MODEL)
    assert settings.model == ModelSettings(layers=2, d_model=64, heads=4, head_dim=16, d_ff=128)
    assert settings.optimizer == OptimizerSettings()
    assert settings.steps is None
    config = settings.model.config(100_352)
    assert (config.vocabulary, config.experts, config.experts_per_token) == (100_352, 16, 2)


def test_everything_can_be_said(tmp_path):
    settings = load(
        tmp_path,
        "model: {layers: 1, d_model: 8, heads: 1, head_dim: 2, d_ff: 8, experts: 4, experts_per_token: 1, "
        "rope_base: 500.0, aux_weight: 0.5, z_weight: 0}\n"
        "optimizer: {learning_rate: 0.5, final_share: 0, warmup_steps: 0, beta1: 0, beta2: 0.5, weight_decay: 0, "
        "gradient_clip: 2}\n"
        "steps: 9\nmicro_batch: 1\nseed: 0\nevaluate_every: 2\nevaluate_sequences: 3\ncheckpoint_every: 4\n"
        "keep_checkpoints: 5\nloader_workers: 0\nthreads: 1\n",
    )
    config = settings.model.config(16)
    assert (config.aux_weight, config.z_weight, config.rope_base) == (0.5, 0, 500)
    assert settings.optimizer.gradient_clip == 2
    assert (settings.steps, settings.keep_checkpoints, settings.threads) == (9, 5, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 1\n", "model"),
        (MODEL + "epochs: 2\n", "epochs: found 2: unknown key"),
        (MODEL + "steps: 0\n", "steps 0: allowed are whole numbers from 1 on"),
        (MODEL + "steps: many\n", "steps: found 'many'"),
        (MODEL + "micro_batch: 1.5\n", "micro_batch: found 1.5"),
        (MODEL + "threads: 0\n", "threads 0: allowed are whole numbers from 1 on"),
        (MODEL + "keep_checkpoints: 1\n", "keep_checkpoints 1: allowed from 2 on, for the last may be damaged"),
        (MODEL + "loader_workers: -1\n", "loader_workers -1: allowed from 0 on"),
        (MODEL + "optimizer: {learning_rate: 0}\n", "learning_rate 0"),
        (MODEL + "optimizer: {learning_rate: .inf}\n", "learning_rate"),
        (MODEL + "optimizer: {beta2: 1}\n", "beta2 1"),
        (MODEL + "optimizer: {final_share: 1.5}\n", "final_share 1.5"),
        (MODEL + "optimizer: {warmup_steps: -1}\n", "warmup_steps -1"),
        (MODEL.replace("64", "60"), "d_model: 60 is no multiple of 8"),
        (MODEL.replace("layers: 2", "layers: 0"), "layers: 0 is no count"),
        (MODEL.replace("layers: 2", "layers: true"), "layers: found True"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'train.yaml'}: ")
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TrainingError, match="hint: give the path of a training configuration file"):
        load_settings(tmp_path / "none.yaml")
