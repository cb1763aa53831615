"""The training loop: stopped anywhere it goes on bit for bit, on any number of workers and ranks on the same data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from plans import made_documents, made_plan, write_mixture, write_planned, write_tokens

from headrace import main
from mixtures.plan import Plan
from trainer_bridge.errors import CheckpointError, StateMismatch, TrainingError
from trainer_bridge.moe.optimizer import learning_rate
from trainer_bridge.moe.panel import Metrics
from trainer_bridge.moe.ranks import Ranks
from trainer_bridge.moe.run_log import StepMetrics
from trainer_bridge.moe.settings import ModelSettings, OptimizerSettings, TrainingSettings
from trainer_bridge.moe.train import Run, locked, take_step, train
from trainer_bridge.torch_data import StreamDataset

REPOSITORY = Path(__file__).resolve().parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}", "OMP_NUM_THREADS": "1"}
SETTINGS = TrainingSettings(
    ModelSettings(layers=2, d_model=8, heads=1, head_dim=2, d_ff=8, experts=4),
    OptimizerSettings(learning_rate=0.01, warmup_steps=2),
    steps=6,
    micro_batch=2,
    evaluate_every=2,
    evaluate_sequences=4,
    checkpoint_every=2,
    loader_workers=0,
    threads=1,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return Plan.load(made_plan(tmp_path_factory.mktemp("plan"), validation={"share": "1/10"}))


@dataclasses.dataclass(slots=True)
class Told:
    """What a call of `train` showed and said."""

    run: Run
    metrics: list[Metrics]
    said: list[str]

    @property
    def weights(self) -> str:
        """The hash of the weights and of the optimizer's moments."""
        digest = hashlib.sha256()
        for parameter in self.run.model.parameters():
            moments = self.run.optimizer.state[parameter]
            for tensor in (parameter.detach(), moments["exp_avg"], moments["exp_avg_sq"], moments["step"]):
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def call(
    plan: Plan, folder: Path, until: int | None = None, settings: TrainingSettings = SETTINGS, on_step=None
) -> Told:
    metrics: list[Metrics] = []
    said: list[str] = []

    def show(found: Metrics) -> None:
        metrics.append(found)
        if on_step and isinstance(found, StepMetrics):
            on_step(found.step)

    return Told(train(settings, plan, folder, until, Ranks(), show, said.append), metrics, said)


def logged(folder: Path) -> list[dict]:
    """The lines of the log without what depends on the clock."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory) -> tuple[Path, Told]:
    """Six steps without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, call(plan, folder)


def test_a_run_writes_what_it_promises(plan, whole):
    folder, told = whole
    assert told.said == [f"starting: {told.run.model.config.total_parameters:,} parameters, 6 steps"]
    kinds = [(entry["kind"], entry["step"]) for entry in logged(folder)]
    steps, evaluations = [("step", n) for n in range(1, 7)], [("evaluation", n) for n in (0, 2, 4, 6)]
    assert sorted(kinds) == sorted(steps + evaluations)
    assert [entry["sequences"] for entry in logged(folder) if entry["kind"] == "step"] == [4, 8, 12, 16, 20, 24]
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-00000004", "step-00000006"]
    assert json.loads((folder / "run.json").read_text())["fingerprint"] == plan.fingerprint
    losses = [entry["loss"] for entry in logged(folder) if entry["kind"] == "step"]
    assert losses[0] == pytest.approx(11.516, abs=0.01), "the logarithm of the vocabulary"
    assert losses[-1] < losses[0]
    rates = [entry["learning_rate"] for entry in logged(folder) if entry["kind"] == "step"]
    assert rates == [learning_rate(SETTINGS.optimizer, step, 6) for step in range(6)]
    assert {group["lr"] for group in told.run.optimizer.param_groups} == {rates[-1]} != {rates[0]}


def test_it_stops_and_goes_on_at_every_step_bit_for_bit(plan, whole, tmp_path):
    """Six calls of one step each: weights, moments and logs are those of one call."""
    for step in range(1, 7):
        told = call(plan, tmp_path, until=step)
        expected = f"resuming at step {step - 1}, sequence {4 * (step - 1)}"
        assert told.said[0] == expected if step > 1 else told.said[0].startswith("starting")
        assert told.run.step == step
    assert told.weights == whole[1].weights
    last = {entry["step"]: entry for entry in logged(tmp_path) if entry["kind"] == "step"}
    assert last == {entry["step"]: entry for entry in logged(whole[0]) if entry["kind"] == "step"}
    assert call(plan, tmp_path).said[1:] == ["nothing to do: 6 steps are done"]


def test_a_step_that_was_not_saved_is_done_again(plan, whole, tmp_path):
    """Killed between two checkpoints: what was logged after the last is cut off."""

    def die(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(plan, tmp_path, on_step=die)
    assert logged(tmp_path)[-1]["step"] == 5
    told = call(plan, tmp_path)
    assert told.said == ["resuming at step 4, sequence 16"]
    assert told.weights == whole[1].weights
    assert logged(tmp_path) == logged(whole[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_saves(plan, whole, tmp_path, number):
    before = signal.getsignal(number)

    def ask(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), number)

    told = call(plan, tmp_path, on_step=ask)
    assert told.run.step == 3, "asked while step 2 was shown, so step 3 is the next to end"
    assert told.said[-1] == "stopped after step 3; the same command goes on from there"
    assert (tmp_path / "checkpoints/step-00000003").is_dir()
    assert signal.getsignal(number) is before
    assert call(plan, tmp_path).weights == whole[1].weights
    assert logged(tmp_path) == logged(whole[0])


def test_workers_change_nothing(plan, whole, tmp_path):
    settings = dataclasses.replace(SETTINGS, loader_workers=2)
    told = call(plan, tmp_path, settings=settings)
    assert told.weights == whole[1].weights
    assert logged(tmp_path) == logged(whole[0])


def test_training_leaves_pytorch_as_it_was(whole):
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_a_damaged_checkpoint_is_said_and_passed_over(plan, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    damaged = tmp_path / "checkpoints/step-00000006/model.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told = call(plan, tmp_path)
    assert told.said[0].startswith(f"warning: {damaged}: its hash is not that of checkpoint.json")
    assert told.said[1] == "resuming at step 4, sequence 16"
    assert told.weights == whole[1].weights


def test_to_the_end_of_the_plan(tmp_path):
    """The last step is filled with an empty sequence."""
    web = write_tokens(tmp_path / "out", "web", made_documents("web", (10, 20, 30, 64, 100)))
    phases = [{"length": 64, "global_batch": 3}]
    plan = Plan.load(write_planned(write_mixture(tmp_path, {"web": (web, "text")}, phases=phases)))
    assert (plan.sequences, plan.steps) == (8, 3)
    told = call(plan, tmp_path / "run", settings=dataclasses.replace(SETTINGS, steps=None))
    assert "no evaluation: the plan holds no document out" in told.said
    assert [found.sequences for found in told.metrics] == [3, 6, 8]
    assert sum(found.tokens for found in told.metrics) == 448


def test_a_loss_that_is_no_number_stops_the_run(plan, tmp_path):
    settings = dataclasses.replace(SETTINGS, optimizer=OptimizerSettings(learning_rate=1e30, warmup_steps=0), steps=4)
    with pytest.raises(TrainingError, match=r"step \d: the loss is .*\nhint: `headrace trace --step") as caught:
        call(plan, tmp_path, settings=settings)
    failed = int(re.search(r"step (\d)", str(caught.value))[1])
    assert [entry["step"] for entry in logged(tmp_path) if entry["kind"] == "step"] == list(range(1, failed))


def test_weights_stay_as_they_were_before_a_loss_that_is_no_number(plan, tmp_path):
    told = call(plan, tmp_path, until=1)
    with torch.no_grad():
        told.run.model.output[0, 0] = float("inf")
    before = told.weights
    batch = next(iter(StreamDataset(plan.path, 1, 2)))
    with pytest.raises(TrainingError, match=re.escape("step 2: the loss is nan")):
        take_step(told.run, batch)
    assert told.weights == before
    assert told.run.step == 1


def test_what_does_not_fit_is_refused(plan, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    with pytest.raises(TrainingError, match=re.escape(f"steps: 1,000,000 are asked for, the plan has {plan.steps:,}")):
        call(plan, folder, settings=dataclasses.replace(SETTINGS, steps=1_000_000))
    wider = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, d_ff=16))
    with pytest.raises(CheckpointError, match=re.escape("d_ff 8 (now 16)")):
        call(plan, folder, settings=wider)
    with pytest.raises(TrainingError, match="3 ranks: cannot share 4 sequences a step equally"):
        train(SETTINGS, plan, folder, None, Ranks(0, 3), lambda _: None, lambda _: None)
    other = Plan.load(made_plan(tmp_path / "plan", validation={"share": "1/9"}))
    with pytest.raises(StateMismatch, match=f"the state belongs to plan {plan.fingerprint}"):
        call(other, folder)
    assert logged(folder) == logged(whole[0]), "a refused call changes nothing"


def test_two_at_once_are_refused(tmp_path):
    said = pytest.raises(TrainingError, match="run: another process is training in it")
    with locked(tmp_path / "run"), said, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="hint: name another --output"), locked(tmp_path / "file"):
        pass


def test_data_that_changed_is_refused(plan, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    marker = tmp_path / "checkpoints/step-00000006/checkpoint.json"
    digest = [entry for entry in logged(tmp_path) if entry["kind"] == "step"][-1]["digest"]
    assert digest in marker.read_text()
    marker.write_text(marker.read_text().replace(digest, "0" * 32))
    with pytest.raises(StateMismatch, match=f"has the digest {digest}, when it was trained on it was {'0' * 32}"):
        call(plan, tmp_path)


def write_config(folder: Path) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(SETTINGS)))
    return path


def test_the_command(plan, whole, tmp_path):
    words = ["train", write_config(tmp_path), "--plan", plan.path, "--output", tmp_path / "run"]
    first = CliRunner().invoke(main, [str(word) for word in [*words, "--steps", 3]])
    assert first.exit_code == 0, first.output
    assert "starting: " in first.output
    assert "step 3 of 3: loss" in first.output
    assert "after step 2: held-out loss" in first.output
    again = CliRunner().invoke(main, [str(word) for word in words])
    assert again.exit_code == 0, again.output
    assert "resuming at step 3, sequence 12" in again.output
    assert "step 6 of 6: loss" in again.output
    steps = [[entry for entry in logged(folder) if entry["kind"] == "step"] for folder in (tmp_path / "run", whole[0])]
    assert steps[0] == steps[1]
    wrong = CliRunner().invoke(main, [str(word) for word in [*words[:-1], plan.path]])
    assert wrong.exit_code != 0
    assert "Traceback" not in wrong.output


def test_ctrl_c_reaches_the_whole_group(plan, whole, tmp_path):
    """The loader's workers too, which must live until the step is finished."""
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(dataclasses.asdict(dataclasses.replace(SETTINGS, loader_workers=1))))
    command = [
        sys.executable,
        "-m",
        "headrace_main",
        "train",
        config,
        "--plan",
        plan.path,
        "--output",
        tmp_path / "run",
    ]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("step 1 of 6"):
                os.killpg(process.pid, signal.SIGINT)
                break
        rest, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, errors) == (0, "")
    stopped = re.search(r"stopped after step (\d); the same command goes on from there", rest)
    assert stopped is not None
    assert (tmp_path / f"run/checkpoints/step-0000000{stopped[1]}").is_dir()
    assert call(plan, tmp_path / "run").weights == whole[1].weights


@pytest.mark.parametrize("absent", ["torch", "tensorboard"])
def test_without_the_trainer_s_packages(plan, tmp_path, absent):
    """The light environment has the command, and says what it lacks."""
    program = f"import sys; sys.modules[{absent!r}] = None; import headrace; headrace.main()"
    command = [
        sys.executable,
        "-c",
        program,
        "train",
        write_config(tmp_path),
        "--plan",
        plan.path,
        "--output",
        tmp_path,
    ]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: {absent}: is not installed\nhint: pip install 'headrace[train]'\n"


def test_two_ranks_over_gloo(plan, whole, tmp_path):
    """Two processes, started as users do: the same data, the same losses but for rounding; and one goes on alone."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "headrace_main",
        "train", write_config(tmp_path), "--plan", plan.path, "--output", tmp_path / "run", "--steps", "4",
    ]  # fmt: skip
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("starting: ") == 1, "one rank speaks"
    alone = {entry["step"]: entry for entry in logged(whole[0]) if entry["kind"] == "step"}
    found = [entry for entry in logged(tmp_path / "run") if entry["kind"] == "step"]
    assert [entry["step"] for entry in found] == [1, 2, 3, 4]
    for entry in found:
        expected = alone[entry["step"]]
        for name in ("digest", "tokens", "targets", "sequences", "learning_rate"):
            assert entry[name] == expected[name]
        for name in ("loss", "aux_loss", "gradient_norm"):
            assert entry[name] == pytest.approx(expected[name], rel=1e-4)
    told = call(plan, tmp_path / "run")
    assert told.said == ["resuming at step 4, sequence 16"]
    assert [found.digest for found in told.metrics if isinstance(found, StepMetrics)] == [
        alone[5]["digest"],
        alone[6]["digest"],
    ]
