"""Trains the prior: text and codes -> codes; and saves the whole pipeline.

    python -m training.train_prior training/configs/emoji_cpu.yaml [--training.steps 100 …] [--dry_run]

Takes output_dir/dvae and output_dir/tokenizer, or what training.dvae and training.tokenizer name, or those of the
pipeline that training.init_from names. Leaves output_dir/prior, output_dir/pipeline (what
`TextToImagePipeline.from_pretrained` loads), checkpoints and pictures; with training.lora output_dir/adapter too.
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor

from dvae import DVAEImageProcessor, FirstStage
from pipelines.checkpoints.first_stages import find_first_stage
from pipelines.checks import check_components, check_stream
from pipelines.drawing.settings import SamplingSettings, check_settings
from pipelines.folder.adapters import add_adapter, has_adapter, merge_adapter, save_adapter
from pipelines.folder.whole import WEIGHTS, saved_whole
from prior_transformer import (
    PriorTokenizer,
    StreamConfig,
    StreamPrior,
    build_prior,
    load_prior,
    load_tokenizer,
    prior_config,
)

from .codes.cached import CodeSource, Collate, DrawnCodes, captions_of
from .codes.of_run import code_caches, codes_of
from .evaluation.validation import evaluate_prior
from .finish import SAMPLES, how_to_paint, save_pipeline
from .loop.command import run_command
from .loop.engine import leave_processes, make_accelerator, need_whole_weights, ready, same_draws
from .loop.fingerprints import codes_digests, encoder_fact, tokenizer_digest
from .loop.optimizers import OPTIMIZERS
from .loop.pretrained import (
    check_own_parts,
    check_start,
    find_part,
    freeze,
    lora_config,
    part_of_run,
    read_through_encoder,
)
from .loop.provenance import check_facts, model_fact, save_provenance
from .loop.run import Run
from .loop.run_log import HELDOUT_SPLIT, save_numbers
from .loop.schedules import warmup_cosine
from .loop.stepping import set_lr
from .pictures.in_memory import in_order
from .pictures.loaders import say_if_few
from .pictures.report import LOOKED_AT, cut_captions
from .pictures.splits import data_fact, fit_scenes, load_split
from .preflight.plan import plan_or_train
from .presets.reading import parse
from .presets.trainers import PriorTraining
from .sets import KINDS, caption

LOSSES = ("loss", "text_loss", "image_loss")


def main(argv: list[str] | None = None) -> StreamPrior:
    args = parse("prior", PriorTraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    accelerator = make_accelerator(training)
    set_seed(training.seed, device_specific=True)
    dvae = find_first_stage(part_of_run("dvae", training, output_dir), dtype=torch.float32)
    tokenizer = load_tokenizer(part_of_run("tokenizer", training, output_dir))
    tokenizer.encode_captions([""], bpe_dropout=training.bpe_dropout)  # refused here, not in the first batch
    prior = build(args.model, training, dvae.to(accelerator.device), tokenizer, accelerator)
    check_settings(SamplingSettings(**training.sampling), prior)
    fit_scenes(args, KINDS, accelerator.print)
    data = data_fact(load_split(args.data, "train", KINDS), args.data)
    check_own_parts(training, output_dir, ("dvae", "tokenizer"), data, accelerator.print)
    caches = code_caches(dvae, args.data, training, output_dir, KINDS)
    facts = {"data": data, "dvae": codes_digests(dvae), "tokenizer": tokenizer_digest(tokenizer)} | encoder_fact(prior)
    source, unseen = codes_of(caches, dvae, training, accelerator)
    say_if_few(len(source.singles), training.batch_size, accelerator.print)
    looked_at = range(min(LOOKED_AT, len(source.singles)))
    captions = [caption(source.single(i)[0], random.Random(i)) for i in looked_at]
    if cut := cut_captions(captions, tokenizer):
        accelerator.print(cut)
    train(prior, dvae, tokenizer, source, unseen, facts, args, accelerator, output_dir)
    return prior


def build(
    model: dict | None, training: PriorTraining, dvae: FirstStage, tokenizer: PriorTokenizer, accelerator: Accelerator
) -> StreamPrior:
    """A prior that fits the dVAE and the tokenizer: their sizes are taken from them."""
    if training.init_from:
        prior = load_prior(find_part(training.init_from, "prior"), dtype=torch.float32)
        check_components(dvae, prior, tokenizer, DVAEImageProcessor(dvae.config.image_size))
        check_stream(prior, tokenizer)
        check_start(training, dvae, tokenizer, accelerator.print)
        read_features(prior, tokenizer, training, accelerator)
        if training.text_loss_weight is not None:
            prior.config.text_loss_weight = training.text_loss_weight
            prior.config.validate()
        if training.lora is not None:
            need_whole_weights(accelerator, "an adapter")
            add_adapter(prior, lora_config(prior, training.lora, base=training.init_from))
        freeze(prior, training.freeze)
        return fast(prior, accelerator)
    model = model or {}
    fitting = {
        "text_vocab_size": len(tokenizer),
        "text_length": tokenizer.model_max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "codebook_size": dvae.config.codebook_size,
        "grid_size": dvae.config.grid_size,
    }
    if differing := [name for name, value in fitting.items() if model.get(name, value) != value]:
        asked = ", ".join(f"{name}={model[name]}" for name in differing)
        there = ", ".join(f"{name}={fitting[name]}" for name in differing)
        raise ValueError(f"model has {asked}, but the dVAE and the tokenizer have {there}: leave them out")
    with same_draws(training.seed):
        prior = build_prior(prior_config({**model, **fitting}))
    read_features(prior, tokenizer, training, accelerator)
    accelerator.print(
        f"prior: {prior.num_parameters() / 1e6:.2f} M parameters, {prior.config.stream_length} positions"
    )
    freeze(prior, training.freeze)
    return fast(prior, accelerator)


def read_features(
    prior: StreamPrior, tokenizer: PriorTokenizer, training: PriorTraining, accelerator: Accelerator
) -> None:
    """A prior that reads features of text gets its encoder, frozen, which is no part of what Accelerate moves."""
    if prior.config.feature_size is not None:
        need_whole_weights(accelerator, "a prior that reads features of text")
        read_through_encoder(prior.to(accelerator.device), tokenizer, training)


def fast(prior: StreamPrior, accelerator: Accelerator) -> StreamPrior:
    """In bf16 on a CPU the backward of torch's fused attention takes several times as long as the one written out."""
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        prior.set_attn_implementation("eager")
    return prior


def train(
    prior: StreamPrior,
    dvae: FirstStage,
    tokenizer: PriorTokenizer,
    source: CodeSource,
    unseen: dict[str, Dataset],
    facts: dict,
    args,
    accelerator: Accelerator,
    output_dir: Path,
) -> None:
    training: PriorTraining = args.training
    optimizer = OPTIMIZERS[training.optimizer](prior, prior.layers, training)
    local_batch_size = training.local_batch_size(accelerator.num_processes)
    drawn = DrawnCodes(
        source,
        training.steps * training.batch_size,
        training.seed,
        scene_share=training.scene_share,
        caption_dropout=training.caption_dropout,
        write=caption,
    )
    loader = in_order(drawn, local_batch_size, training.num_workers, Collate(tokenizer, training.bpe_dropout))
    model, optimizer, loader = accelerator.prepare(ready(prior, training, prior.layers), optimizer, loader)

    def evaluate(average: StreamPrior, run: Run) -> None:
        report(average, dvae, tokenizer, unseen, args, run)

    if has_adapter(prior):
        facts = {**facts, "base": prior.adapter_base}
    settings = {"model": model_fact(prior.config)}
    parts = {"model": prior, "optimizer": optimizer, "report": evaluate, "facts": facts, "settings": settings}
    parts |= {"may_go_on": lambda told: check_model(told, prior.config)}
    run = Run("prior", training, accelerator, output_dir, **parts)
    with run:
        for batch in run.batches(loader):
            lr = warmup_cosine(run.step, training.lr, training.lr_end, training.warmup_steps, training.steps)
            set_lr(optimizer, lr)
            with accelerator.accumulate(model):
                input_ids = prior.join(with_dropped(prior, batch["text_ids"], batch["dropped"]), batch["codes"])
                output = model(input_ids, labels=input_ids)
                run.descend(output.loss)
            run.end_step({name: output[name] for name in LOSSES if name in output}, lr=lr)
    accelerator.print(how_to_paint(output_dir))


def with_dropped(prior: StreamPrior, text_ids: Tensor, dropped: Tensor) -> Tensor:
    """Text ids (B, T), those of the rows in `dropped`, (B,) bool, as the empty caption that guidance steers from."""
    return torch.where(dropped[:, None], prior.null(text_ids), text_ids)


def check_model(told: dict[str, Any], config: StreamConfig) -> None:
    """
    Raises a ValueError where weights of the same shapes would compute something else than in the run that goes on.

    told: what its checkpoint tells; before it told of the model, the paper's convolutional mask was clipped.
    """
    here = model_fact(config)
    there = told.get("model", {"conv_edges": "clipped"} if here.get("attention_pattern") == "dalle" else {})
    check_facts(f"the checkpoint of step {told['step']}", {"model": there}, {"model": here}, (), "start anew")


def report(
    prior: StreamPrior, dvae: FirstStage, tokenizer: PriorTokenizer, unseen: dict[str, Dataset], args, run: Run
) -> None:
    """
    Evaluates the averaged weights; saves them, the pipeline and a page of samples: an adapter alone, and merged into
    the prior and the pipeline. All is done where the averaged prior lies: of a sharded one on the CPU, as no GPU may
    hold it.
    """
    output_dir, numbers = run.output_dir, {}
    for split in ("validation", HELDOUT_SPLIT):
        if split in unseen:
            nll = evaluate_prior(prior, tokenizer, unseen[split], caption)
            numbers |= {f"{split}_{name}": value for name, value in nll.items()}
    run.evaluated(numbers)
    if has_adapter(prior):
        save_adapter(prior, output_dir / "adapter")
        merge_adapter(prior)
    with saved_whole(output_dir / "prior", WEIGHTS) as folder:
        prior.save_pretrained(folder)
        save_numbers(folder / "metrics.json", {"step": run.step, **numbers})
        save_numbers(folder / "recipe.json", args.training.recipe())
        save_provenance(folder, run.facts)
    prompts = captions_of(unseen["validation"], SAMPLES, caption)
    pipeline = save_pipeline(output_dir, dvae, prior, tokenizer, args.training, args.data, prompts)
    assert pipeline.samples is not None  # `save_pipeline` paints them
    run.show("samples", pipeline.samples)


if __name__ == "__main__":
    run_command(partial(plan_or_train, "prior", PriorTraining, main, __doc__, KINDS), leave_processes)
