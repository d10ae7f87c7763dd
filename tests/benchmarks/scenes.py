"""Scenes put together of blocks of codes against scenes that are drawn and encoded, at a toy's scale.

    python -m tests.benchmarks.scenes prior [--way blocks] [--steps 800]   # nats a code, held-out pairs; empty grounds
    python -m tests.benchmarks.scenes speed                                # scenes a second of one core
    python -m tests.benchmarks.scenes psnr [--dvae FOLDER …]               # put together, and encoded

The prior's ways: `pool`, scenes as they were until scenes were laid out, shifted by eighths and a thing on a ground at
three quarters of its size, 12,000 of them encoded; `drawn`, today's layouts, 12,000 drawn and encoded; `blocks`, put
together afresh. Pictures, dVAE and size are the embedded model's.
"""

import argparse
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dvae import DVAE
from pipelines import TextToImagePipeline
from pipelines.drawing.keys import draw_keys
from pipelines.drawing.loop import draw_codes
from pipelines.drawing.settings import SamplingSettings
from prior_transformer import PriorTransformer, PriorTransformerConfig
from training.codes.blocks import ground_codes
from training.emoji.named_cutouts import CutoutScenes
from training.emoji.pieces import reduce
from training.emoji.scenes import GROUNDS, KINDS
from training.loop.losses import psnr
from training.loop.schedules import warmup_cosine
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures, to_pixel_values
from training.pictures.layouts import Layout, Put, put_together
from training.pictures.splits import load_split
from training.sets import KINDS as SETS

TOY = {"beside": 30, "above": 20, "ground": 20, "small": 10, "large": 4}
THINGS, POOL, HELD_OUT = 40, 12_000, 100
CPU = torch.device("cpu")
Words = list[int]


class Toy:
    """`count` of the embedded set's things of one style, their composer, and their blocks of a dVAE's codes."""

    def __init__(self, dvae: DVAE, count: int, seed: int = 3, weights: dict[str, float] | None = None):
        self.dvae, self.size, self.side = dvae.eval(), dvae.config.image_size, dvae.config.grid_size
        pictures = Pictures(load_split(DataArguments(), "train", SETS), DataArguments(), self.size)
        things = [parts["things"][0] for parts in pictures.parts]
        found = [i for i, one in enumerate(things) if one["style"] == "noto" and len(one["name"].split()) <= 2]
        chosen = random.Random(seed).sample(found, count)
        self.composer = CutoutScenes([things[i] for i in chosen], [pictures.images[i] for i in chosen])
        self.composer = self.composer.weigh(dict.fromkeys(KINDS, 0) | (weights or TOY))
        shown = [self.composer.show(piece) for piece in range(self.composer.pieces)]
        codes = self.encode([one.picture for one in shown]).view(-1, self.side, self.side).numpy()
        self.blocks = [one.block(grid) for one, grid in zip(shown, codes, strict=True)]
        self.grounds = ground_codes(dvae, self.composer, CPU)

    @torch.inference_mode()
    def encode(self, pictures: list[np.ndarray]) -> Tensor:
        """RGB pictures -> codes (n, N)."""
        parts = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).split(64)
        return torch.cat([self.dvae.encode(to_pixel_values(part, CPU)).flatten(1) for part in parts])

    def codes(self, layout: Layout) -> Tensor:
        grid = put_together(layout.puts, self.blocks.__getitem__, self.side, self.grounds[layout.ground])
        return torch.from_numpy(grid.ravel())

    def words(self, parts: dict) -> Words:
        """A caption of six tokens: the kind, each thing and its colour, the ground."""
        things = [(row, one.get("colour")) for row, one in zip(parts["rows"], parts["things"], strict=True)]
        said = [1 + list(KINDS).index(parts["kind"])]
        for row, colour in [*things, (THINGS, None)][:2]:
            said += [20 + row, 80 + (1 + list(GROUNDS).index(colour) if colour else 0)]
        return [*said, 100 + (1 + list(GROUNDS).index(parts["ground"]) if parts.get("ground") else 0)]


def as_it_was(toy: Toy, parts: dict, rng: random.Random) -> np.ndarray:
    """The scene of these parts as it was drawn before: the things shifted, on a ground smaller, large ones cut."""
    kind, shift = parts["kind"], lambda: rng.choice((-1, 0, 1)) / 8
    ground = GROUNDS[parts["ground"]] if kind == "ground" else (255, 255, 255)
    canvas = Image.new("RGBA", (toy.size, toy.size), (*ground, 255))
    middle = 0.5 + shift()
    places = {
        "beside": [(0.25, middle), (0.75, middle)],
        "above": [(middle, 0.25), (middle, 0.75)],
        "small": [(middle, 0.5 + shift())],
    }.get(kind, [(0.5, 0.5)])
    side = round(toy.size * {"ground": 0.75, "large": 1.25}.get(kind, 0.5))
    for row, (x, y) in zip(parts["rows"], places, strict=True):
        picture = reduce(Image.fromarray(toy.composer.cutouts[row]), side)
        left, top = round(x * toy.size - side / 2), round(y * toy.size - side / 2)
        picture = picture.crop((max(0, -left), max(0, -top), min(side, toy.size - left), min(side, toy.size - top)))
        canvas.alpha_composite(picture, (max(0, left), max(0, top)))
    return np.asarray(canvas.convert("RGB"))


def plain(parts: dict) -> dict:
    """The parts without what scenes had not then: a colour of its own, a ground of any kind."""
    things = [{key: value for key, value in one.items() if key != "colour"} for one in parts["things"]]
    return {"kind": parts["kind"], "things": things, "rows": parts["rows"]} | (
        {"ground": parts["ground"]} if parts["kind"] == "ground" else {}
    )


def scenes(toy: Toy, way: str, count: int, seed: int, kind: str | None = None) -> tuple[Tensor, Tensor]:
    """`count` scenes of a way, held out where a kind is named -> codes (n, N), words (n, 6)."""
    rngs = [random.Random(f"{seed}-{kind}-{i}") for i in range(count)]
    laid = [toy.composer.lay(rng, kind is not None, kind) for rng in rngs]
    if way == "pool":
        parts = [plain(parts) for _, parts in laid]
        codes = toy.encode([as_it_was(toy, one, rng) for one, rng in zip(parts, rngs, strict=True)])
    else:
        parts = [parts for _, parts in laid]
        drawn = [layout for layout, _ in laid]
        codes = (
            torch.stack([toy.codes(layout) for layout in drawn])
            if way == "blocks"
            else toy.encode([toy.composer.draw_layout(layout) for layout in drawn])
        )
    return codes, torch.tensor([toy.words(one) for one in parts])


def singles(toy: Toy, way: str) -> tuple[Tensor, Tensor]:
    layouts = [Layout(0, (Put(row, 0, 0),)) for row in range(THINGS)]
    codes = [toy.codes(layout) for layout in layouts] if way == "blocks" else None
    codes = torch.stack(codes) if codes else toy.encode([toy.composer.draw_layout(layout) for layout in layouts])
    return codes, torch.tensor([[0, 20 + row, 80, 20 + THINGS, 80, 100] for row in range(THINGS)])


def train_prior(way: str, steps: int, batch_size: int = 16, share: float = 2 / 3) -> None:
    """A prior of 0.5 M on scenes of a way: prints nats a code on held-out pairs along the run."""
    toy = Toy(TextToImagePipeline.from_pretrained().dvae, THINGS)
    alone, pool = singles(toy, way), None if way == "blocks" else scenes(toy, way, POOL, seed=1)
    unseen = {kind: scenes(toy, way, HELD_OUT, 9, kind) for kind in ("beside", "above", "ground")}
    torch.manual_seed(0)
    sizes = {"text_vocab_size": 120, "text_length": 6, "codebook_size": toy.dvae.config.codebook_size}
    heads = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "dropout": 0.0}
    prior = PriorTransformer(PriorTransformerConfig(grid_size=toy.side, **sizes, **heads))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=2e-3, betas=(0.9, 0.96), weight_decay=0.045)
    print(f"{way}: {prior.num_parameters() / 1e6:.2f} M parameters", flush=True)
    composed = round(share * batch_size)
    for step in range(steps):
        rng = random.Random(step)
        if pool is None:
            codes, words = scenes(toy, way, composed, seed=100 + step)
        else:
            codes, words = (part[[rng.randrange(POOL) for _ in range(composed)]] for part in pool)
        rows = [rng.randrange(THINGS) for _ in range(batch_size - composed)]
        batch = prior.join(torch.cat([words, alone[1][rows]]), torch.cat([codes, alone[0][rows]]))
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, 2e-3, 2e-5, 50, steps)
        loss = prior(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            nats = {kind: nats_of(prior, *pair) for kind, pair in unseen.items()}
            shown = ", ".join(f"{kind} {value:.4f}" for kind, value in nats.items())
            print(f"{way}, step {step + 1}: training {loss.item():.3f}; held-out {shown}", flush=True)
    for temperature in (0.5, 1.0):
        painted(prior.eval(), *unseen["ground"], way, temperature)


@torch.inference_mode()
def painted(prior: PriorTransformer, codes: Tensor, words: Tensor, way: str, temperature: float) -> None:
    """Of things on held-out grounds: how many of what is painted are empty, and how many codes are as asked for."""
    keys = draw_keys(list(range(len(words))), codes.shape[1])
    *_, (_, drawn) = draw_codes(prior, words, keys, SamplingSettings(temperature=temperature))
    commonest = drawn.mode(dim=1).values[:, None]
    empty = (drawn != commonest).float().mean(1) < 0.1
    thing = codes != codes.mode(dim=1).values[:, None]
    right = (drawn == codes)[thing].float().mean()
    print(f"{way}, painted at {temperature}: {empty.float().mean():.0%} empty, {right:.0%} of a thing's codes right")


@torch.inference_mode()
def nats_of(prior: PriorTransformer, codes: Tensor, words: Tensor) -> float:
    ids = prior.join(words, codes)
    return float(np.mean([prior(part, labels=part).image_loss.item() for part in ids.split(50)]))


def speed(count: int = POOL) -> None:
    """Of one core: drawing the layout of a scene, putting its codes together, and drawing and encoding it instead."""
    toy = Toy(TextToImagePipeline.from_pretrained().dvae, THINGS, weights=dict(KINDS))
    laid: list[Layout] = []

    def lay() -> None:
        laid.extend(toy.composer.lay(random.Random(f"0-{i}"))[0] for i in range(count))

    def draw_and_encode() -> None:
        toy.encode([toy.composer.draw_layout(layout) for layout in laid[: count // 40]])

    told: list[tuple[str, Callable[[], object], float]] = [
        ("laying out", lay, 1),
        ("putting codes together", lambda: [toy.codes(layout) for layout in laid], 1),
        ("drawing and encoding", draw_and_encode, 40),
    ]
    for name, work, parts in told:
        start = time.process_time()
        work()
        print(f"{name}: {parts * (time.process_time() - start):.2f} s of CPU for {count:,} scenes")


@torch.inference_mode()
def compare(folders: list[str], count: int = 200) -> None:
    """PSNR of scenes put together, and of the same drawn and encoded; of how many codes a flat ground is."""
    for folder in folders:
        dvae = DVAE.from_pretrained(folder) if folder else TextToImagePipeline.from_pretrained().dvae
        toy, flat = Toy(dvae, THINGS, seed=5), []
        for colour in toy.composer.grounds:
            flat.append(len(toy.encode([np.full((toy.size, toy.size, 3), colour, np.uint8)]).unique()))
        print(f"{folder or 'embedded'}: white is {flat[0]} codes, coloured grounds {np.mean(flat[1:]):.1f}")
        for where in ("white", "colour"):
            laid = [toy.composer.lay(random.Random(f"psnr-{i}")) for i in range(20 * count)]
            chosen = [one for one, _ in laid if (one.ground > 0) == (where == "colour")][:count]
            drawn = [toy.composer.draw_layout(layout) for layout in chosen]
            real = to_pixel_values(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2), CPU)
            ways = {
                "put together": torch.stack([toy.codes(layout) for layout in chosen]),
                "encoded": toy.encode(drawn),
            }
            for way, codes in ways.items():
                grids = codes.view(-1, toy.side, toy.side)
                again = torch.cat([toy.dvae.decode(part) for part in grids.split(50)])
                print(f"  on {where}, {way}: {psnr(real, again).mean():.2f} dB", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prior", "speed", "psnr"))
    parser.add_argument("--way", choices=("pool", "drawn", "blocks"), default="blocks")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--dvae", nargs="*", default=[""], help="folders of dVAEs (default: the embedded one)")
    args = parser.parse_args(argv)
    if args.what == "prior":
        train_prior(args.way, args.steps)
    elif args.what == "speed":
        speed()
    else:
        compare(args.dvae)


if __name__ == "__main__":
    main()
