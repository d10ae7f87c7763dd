"""What shapes a trainer's weights, and settings that no run could keep."""

import pytest
from messages import refused

from training.loop.loop_training import LoopTraining
from training.presets.trainers import DVAETraining, GANTraining, PriorTraining


def test_a_recipe_is_what_shapes_the_weights():
    recipe = DVAETraining(steps=10, flip=False, kl_weight=0, log_every=5, resume_from="latest").recipe()
    assert (recipe["steps"], recipe["kl_weight"]) == (10, 0)
    assert not {"flip", "log_every", "resume_from", "max_grad_norm"} & set(recipe)  # off, or no shape


def test_a_batch_that_does_not_divide_is_refused_with_both_numbers():
    assert LoopTraining(batch_size=24, gradient_accumulation_steps=3).local_batch_size(4) == 2
    with refused(ValueError, "batch_size=10", 4):
        LoopTraining(batch_size=10).local_batch_size(4)


@pytest.mark.parametrize("training_type", [DVAETraining, PriorTraining, GANTraining])
@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"log_every": 0, "steps": 700}, ["log_every=0", 1, 700]),
        ({"evaluate_every": 0}, ["evaluate_every=0", 1]),
        ({"checkpoint_every": -1}, ["checkpoint_every=-1", 1]),
        ({"keep_checkpoints": 0}, ["keep_checkpoints=0", 1]),
        ({"mixed_precision": "bfloat16"}, ["mixed_precision='bfloat16'", "no", "fp16", "bf16"]),
    ],
)
def test_a_loop_that_could_not_run_is_refused(training_type, settings, parts):
    with refused(ValueError, *parts):
        training_type(**settings)


def test_a_gan_is_trained_from_the_start_and_each_batch_at_once():
    with refused(ValueError, "gradient_accumulation_steps=2", 1):
        GANTraining(gradient_accumulation_steps=2)
    with refused(ValueError, "init_from='embedded'"):
        GANTraining(init_from="embedded")
    with refused(ValueError, "compile"):
        GANTraining(compile=True)
