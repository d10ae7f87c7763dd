"""Trains the prior: text and codes -> codes; and saves the whole pipeline.

    accelerate launch -m training.train_prior training/configs/emoji_cpu.yaml [--training.steps 100 …]

Takes output_dir/dvae and output_dir/tokenizer, or what training.dvae and training.tokenizer name. Leaves
output_dir/prior, output_dir/pipeline (what `TextToImagePipeline.from_pretrained` loads), checkpoints and pictures.
"""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from dvae import DVAE
from prior_transformer import PriorTokenizer, PriorTransformer, PriorTransformerConfig

from .arguments import PriorTraining, parse
from .checkpoints import RunLog, averaged, load_checkpoint, save_checkpoint, save_numbers, set_lr
from .codes import CachedCodes, Collate, cached_codes, captions_of
from .data import Pictures, in_order, load_split
from .evaluate import evaluate_prior
from .finish import save_pipeline
from .precision import mixed_precision
from .scenes import HELDOUT_SPLIT
from .schedules import warmup_cosine


def main(argv: list[str] | None = None) -> PriorTransformer:
    args = parse("prior", PriorTraining, argv, __doc__)
    training, output_dir = args.training, Path(args.output_dir)
    accelerator = Accelerator(
        mixed_precision=mixed_precision(training.mixed_precision),
        gradient_accumulation_steps=training.gradient_accumulation_steps,
    )
    set_seed(training.seed, device_specific=True)
    dvae_folder = need(Path(training.dvae or output_dir / "dvae"), "train_dvae")
    dvae = DVAE.from_pretrained(dvae_folder, dtype=torch.float32).to(accelerator.device)
    tokenizer_folder = need(Path(training.tokenizer or output_dir / "tokenizer"), "train_tokenizer")
    tokenizer = PriorTokenizer.from_pretrained(tokenizer_folder)
    prior = build(args.model, training, dvae, tokenizer, accelerator)
    with accelerator.main_process_first():
        splits = ["train", "validation"] + [HELDOUT_SPLIT] * (training.cached_scenes > 0)
        encoded = {split: load_codes(dvae, split, args, output_dir, accelerator) for split in splits}
    train(prior, dvae, tokenizer, encoded, args, accelerator, output_dir)
    return prior


def need(folder: Path, trainer: str) -> Path:
    if not (folder / "config.json").exists() and not (folder / "tokenizer.json").exists():
        raise FileNotFoundError(f"no {folder.name} at {folder}: run training.{trainer} with the same preset first")
    return folder


def load_codes(dvae: DVAE, split: str, args, output_dir: Path, accelerator: Accelerator):
    """The cached codes of a split; HELDOUT_SPLIT holds scenes alone, of things that training never put together."""
    own = "train" if split == HELDOUT_SPLIT else split
    pictures = load_split(args.data, own)
    scenes = {"train": args.training.cached_scenes, "validation": 0, HELDOUT_SPLIT: 256}
    settings = {
        "data": args.data.path,
        "split": own,
        "pictures": len(pictures),
        "scenes": scenes[split],
        "held_out": split == HELDOUT_SPLIT,
        "seed": args.training.seed,
    }
    size = dvae.config.image_size
    return cached_codes(
        dvae, output_dir / "codes", lambda: Pictures(pictures, args.data, size), accelerator.device, **settings
    )


def build(
    model: dict | None, training: PriorTraining, dvae: DVAE, tokenizer: PriorTokenizer, accelerator: Accelerator
) -> PriorTransformer:
    """A prior that fits the dVAE and the tokenizer: their sizes are taken from them."""
    if training.init_from:
        return fast(PriorTransformer.from_pretrained(training.init_from, dtype=torch.float32), accelerator)
    fitting = {
        "text_vocab_size": len(tokenizer),
        "text_length": tokenizer.model_max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "image_vocab_size": dvae.config.codebook_size,
        "grid_size": dvae.config.grid_size,
    }
    torch.manual_seed(training.seed)  # the same weights on every process
    prior = PriorTransformer(PriorTransformerConfig(**{**(model or {}), **fitting}))
    accelerator.print(
        f"prior: {prior.num_parameters() / 1e6:.2f} M parameters, {prior.config.stream_length} positions"
    )
    return fast(prior, accelerator)


def fast(prior: PriorTransformer, accelerator: Accelerator) -> PriorTransformer:
    """In bf16 on a CPU the backward of torch's fused attention takes several times as long as the one written out."""
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        prior.set_attn_implementation("eager")
    return prior


def train(prior, dvae, tokenizer, encoded, args, accelerator: Accelerator, output_dir: Path) -> None:
    training: PriorTraining = args.training
    optimizer = torch.optim.AdamW(
        weight_decay_groups(prior, training.weight_decay), lr=training.lr, betas=training.betas, fused=True
    )
    ema = averaged(prior, training.ema).to(accelerator.device)
    accumulation = training.gradient_accumulation_steps
    local_batch_size = training.local_batch_size(accelerator.num_processes)
    drawn = CachedCodes(
        encoded["train"],
        training.steps * training.batch_size,
        training.seed,
        training.scene_share,
        training.caption_dropout,
    )
    loader = in_order(drawn, local_batch_size, training.num_workers, Collate(tokenizer, training.bpe_dropout))
    model, optimizer, loader = accelerator.prepare(prior.train(), optimizer, loader)
    accelerator.register_for_checkpointing(ema)
    folder = output_dir / "prior-checkpoints"
    step = load_checkpoint(accelerator, folder, training.resume_from)
    log = RunLog(output_dir / "prior-log.jsonl", accelerator.is_main_process)
    bar = tqdm(total=training.steps, initial=step, desc="prior", disable=not accelerator.is_main_process)

    for batch in accelerator.skip_first_batches(loader, step * accumulation):
        lr = warmup_cosine(step, training.lr, training.lr_end, training.warmup_steps, training.steps)
        with accelerator.accumulate(model):
            set_lr(optimizer, lr)
            input_ids = prior.join(batch["text_ids"], batch["codes"])
            output = model(input_ids, labels=input_ids)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients and training.max_grad_norm:
                accelerator.clip_grad_norm_(prior.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        ema.update_parameters(prior)
        step += 1
        bar.update()
        if step % training.log_every == 0:
            numbers = {name: output[name].item() for name in ("loss", "text_loss", "image_loss")}
            bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()})
            log.write(step, lr=lr, **numbers)
        if step % training.evaluate_every == 0 or step == training.steps:
            report(ema.module, dvae, tokenizer, encoded, args, accelerator, output_dir, step, log)
        if step % training.checkpoint_every == 0 or step == training.steps:
            save_checkpoint(accelerator, folder, step, training.keep_checkpoints)
    bar.close()


def weight_decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """No decay on biases, gains, embeddings and the BOS, as the paper has it (appendix B.3)."""
    embeddings = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in parameters if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def report(prior, dvae, tokenizer, encoded, args, accelerator, output_dir: Path, step: int, log: RunLog) -> None:
    """Evaluates the averaged weights on the first process; saves them, the pipeline and a page of samples."""
    if not accelerator.is_main_process:
        return
    prior.eval()
    numbers = {}
    for split in ("validation", HELDOUT_SPLIT):
        if split in encoded:
            nll = evaluate_prior(prior, tokenizer, encoded[split], accelerator.device)
            numbers |= {f"{split}_{name}": value for name, value in nll.items()}
    log.write(step, **numbers)
    tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    prior.save_pretrained(output_dir / "prior")
    save_numbers(output_dir / "prior" / "metrics.json", {"step": step, **numbers})
    prompts = captions_of(encoded["validation"], count=16)
    pipeline = save_pipeline(output_dir, dvae, prior, tokenizer, args.training.sampling, args.data, prompts)
    folder = output_dir / "prior-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.samples.save(folder / f"samples-{step:07d}.png")


if __name__ == "__main__":
    main()
