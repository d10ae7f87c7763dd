"""One curve whatever carries the run: processes, shards, micro-batches, activations kept or computed again."""

import json

import pytest
import torch
import yaml
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, set_seed
from messages import refused
from processes import ROOT, run_processes
from squares import DVAE_SIZES
from trained import FLAGS

from dvae import DVAE
from prior_transformer import PriorTransformer
from training import train_dvae, train_gan, train_prior
from training.loop.engine import power_sgd
from training.presets.trainers import DVAETraining, PriorTraining

CONFIGS = sorted((ROOT / "training" / "configs" / "accelerate").glob("*.yaml"))
TYPES = {"ddp": "MULTI_GPU", "ddp_nodes": "MULTI_GPU", "fsdp2": "FSDP"}


@pytest.mark.parametrize("trainer", ["dvae", "gan", "prior"])
def test_processes_build_the_same_weights_and_then_draw_their_own_noise(trainer, tiny_dvae, tiny_tokenizer):
    accelerator, noise, weights = Accelerator(cpu=True), [], []
    for rank in range(2):
        set_seed(rank)
        before = torch.get_rng_state()
        if trainer == "dvae":
            model = train_dvae.build(DVAE_SIZES, DVAETraining(), accelerator)
        elif trainer == "gan":
            model = train_gan.build({"generator": {"image_size": 32}}, seed=0)
        else:
            model = train_prior.build({"hidden_size": 16}, PriorTraining(), tiny_dvae, tiny_tokenizer, accelerator)
        assert torch.equal(torch.get_rng_state(), before)
        noise.append(torch.randn(4))
        weights.append(list(model.parameters()))
    assert not torch.equal(*noise) and all(map(torch.equal, *weights))


def test_micro_batches_take_the_step_of_the_whole_batch(trained):
    """Every micro-batch has as many pictures and as many tokens, so that the mean of means is the mean."""
    curve = trained.one_process("micro", "--training.gradient_accumulation_steps", "4")
    assert curve == pytest.approx(trained.curve("one"), rel=1e-5)


def test_activations_computed_again_change_nothing(trained):
    assert trained.one_process("again", "--training.activation_checkpointing", "true") == trained.curve("one")


def test_the_dvaes_activations_are_computed_again(tiny_dvae):
    """With the same noise: the same gradients, from fewer tensors kept."""

    def step(activation_checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(0)
        dvae, kept = DVAE(tiny_dvae.config).train(), []
        if activation_checkpointing:
            dvae.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
        ):
            output = dvae(torch.rand(2, 3, 16, 16))
        (output.maps.square().mean() + output.kl.mean()).backward()
        return [p.grad for p in dvae.parameters()], sum(kept)

    (whole, kept), (again, fewer) = step(False), step(True)
    assert all(map(torch.equal, whole, again))
    assert 0.1 * kept < fewer < 0.7 * kept


@pytest.mark.slow
def test_compiled_blocks_give_the_same_curve(trained):
    curve = trained.one_process("compiled", "--training.compile", "true")
    assert curve == pytest.approx(trained.curve("one"), rel=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(trained):
    arguments = ["train_prior", str(trained.folder / "digests.json"), trained.preset, *trained.output_dir("two")]
    run_processes("two_processes.py", *arguments, *FLAGS)
    assert trained.curve("two") == pytest.approx(trained.curve("one"), rel=1e-5)
    assert len(set(json.loads((trained.folder / "digests.json").read_text()))) == 1


@pytest.mark.slow
def test_two_processes_give_the_dvaes_curve_of_one_while_it_draws_no_noise(trained):
    flags = ["--training.steps", "9", "--training.autoencoder_steps", "8", "--training.decoder_steps", "0"]
    arguments = ["train_dvae", str(trained.folder / "digests.json"), trained.preset, *flags]
    run_processes("two_processes.py", *arguments, "--output_dir", str(trained.folder / "dvae-two"))
    train_dvae.main([trained.preset, *flags, "--output_dir", str(trained.folder / "dvae-one")])
    one, two = trained.curve("dvae-one", "dvae"), trained.curve("dvae-two", "dvae")
    assert two[:8] == pytest.approx(one[:8], rel=1e-4)


@pytest.mark.slow
def test_a_sharded_run_gives_the_same_curve_is_stopped_resumed_and_saved_whole(trained):
    """Accelerate's FSDP2 over gloo: each block, then the root; stopped after step 4, and told to on one process."""
    arguments = [trained.preset, *trained.output_dir("sharded"), *FLAGS]
    run_processes("sharded_prior.py", "3", *arguments)
    [checkpoint] = (trained.folder / "sharded" / "prior-checkpoints").iterdir()
    assert checkpoint.name == "step-0000004" and (checkpoint / "optimizer-1.safetensors").exists()
    run_processes("sharded_prior.py", "0", *arguments, "--training.resume_from", "latest")
    assert trained.curve("sharded") == pytest.approx(trained.curve("one"), rel=1e-5)
    one, sharded = trained.weights("one"), trained.weights("sharded")
    assert one.keys() == sharded.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(sharded[name], tensor, rtol=1e-4, atol=1e-6)
    with refused(ValueError, 2, 1, "--training.init_from"):
        trained.one_process("sharded", "--training.resume_from", "latest")


@pytest.mark.slow
def test_powersgd_keeps_the_processes_equal_and_the_curve_near(trained):
    flags = ["--training.powersgd_rank", "1", "--training.warmup_steps", "3"]
    arguments = ["train_prior", str(trained.folder / "digests.json"), trained.preset, *trained.output_dir("psgd")]
    run_processes("two_processes.py", *arguments, *FLAGS, *flags)
    assert len(set(json.loads((trained.folder / "digests.json").read_text()))) == 1
    whole, compressed = trained.one_process("warm", "--training.warmup_steps", "3"), trained.curve("psgd")
    assert compressed[:3] == pytest.approx(whole[:3], rel=1e-5)
    assert compressed != pytest.approx(whole, rel=1e-5) and compressed == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_accelerates_own_and_opens_with_its_command(path):
    config = ClusterConfig.from_yaml_file(path)
    assert config.distributed_type is DistributedType(TYPES[path.stem])
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# accelerate launch --config_file {path.relative_to(ROOT)} ")
    command = first.removeprefix("# accelerate launch ").replace("RANK", "0").split()
    parsed = launch_command_parser().parse_args(command)
    assert (ROOT / parsed.config_file).samefile(path) and parsed.training_script == "training.train_prior"
    assert config.num_processes == 8 * config.num_machines


def test_the_sharding_config_wraps_the_priors_blocks():
    fsdp = yaml.safe_load((ROOT / "training/configs/accelerate/fsdp2.yaml").read_text())["fsdp_config"]
    assert fsdp["fsdp_transformer_layer_cls_to_wrap"] == PriorTransformer._no_split_modules[0]
    names = {name.removeprefix("fsdp_") for name in fsdp}
    fields = FullyShardedDataParallelPlugin.__dataclass_fields__.keys()
    assert names - {"transformer_layer_cls_to_wrap", "offload_params", "version"} <= fields
    assert fsdp["fsdp_version"] == 2


def test_powersgd_is_off_without_a_rank():
    assert power_sgd(PriorTraining()) == {}
    state = power_sgd(PriorTraining(powersgd_rank=4, warmup_steps=100))["comm_state_option"]
    assert state == {"matrix_approximation_rank": 4, "start_powerSGD_iter": 100}
