"""Draws control.png beside this file: what the embedded model does besides painting a prompt, a row each.

    python -P tests/benchmarks/control_figure.py

1. A stream, row by row. 2. A walk from "avocado" to "armchair". 3. An apple, its hole, three fillings, and the best of
16 for three prompts. 4. A held-out emoji, its top half, three completions by its name and three without a prompt.
5. A picture and its variations, from strength 0.5 to 0.95. 6. A picture and, code by code, what three prompts add to
its log-likelihood.
"""

from pathlib import Path

from PIL import Image, ImageDraw

from pipelines import TextToImagePipeline
from pipelines.pictures import make_grid
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.sets import KINDS

GREY = (217, 217, 217)
CELL = 128  # pixels of the sheet


def main() -> None:
    pipeline = TextToImagePipeline.from_pretrained()
    quiet = {"seed": 0, "progress_bar": False}
    size = pipeline.dvae.config.image_size
    rows = [[part.images[0] for part in pipeline.stream("sailboat", every=8, **quiet)]]
    rows.append(pipeline.interpolate("avocado", "armchair", steps=8, **quiet).images)

    apple = pipeline("red apple", seed=0, progress_bar=False).images[0]
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).rectangle((size // 4, size // 4, 3 * size // 4 - 1, 3 * size // 4 - 1), fill=255)
    fillings = pipeline.inpaint("red apple", apple, mask, num_images_per_prompt=3, temperature=1.0, **quiet).images
    prompts = ["red apple", "green apple", "cat face"]
    best = pipeline.inpaint(prompts, apple, mask, best_of=16, temperature=1.0, **quiet).images
    rows.append([apple, Image.composite(Image.new("RGB", apple.size, GREY), apple, mask), *fillings, *best])

    held_out = Pictures(load_split(DataArguments(), "validation", KINDS), DataArguments(), size)
    emoji, name = Image.fromarray(held_out.single(10)[0]), held_out.parts[10]["things"][0]["name"]
    top = emoji.copy()
    top.paste(GREY, (0, size // 2, size, size))
    completions = pipeline.complete([name, ""], emoji, num_images_per_prompt=3, temperature=0.7, **quiet).images
    rows.append([emoji, top, *completions])

    cat = pipeline("cat face", seed=1, progress_bar=False).images[0]
    strengths = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
    rows.append([cat, *(pipeline.vary(cat, strength=s, **quiet).images[0] for s in strengths)])

    codes = pipeline("red apple above a blue car", **quiet).codes
    row = pipeline.postprocess(pipeline.decode_codes(codes))
    for prompt in ("red apple above a blue car", "red apple", "blue car"):
        row += pipeline.score(prompt, codes).heat_maps(size=size)
    rows.append(row + [Image.new("RGB", (size, size), "white")] * (8 - len(row)))

    sheet = make_grid([image for row in rows for image in row], columns=8)
    path, zoom = Path(__file__).with_name("control.png"), max(CELL // size, 1)
    sheet = sheet.resize((zoom * sheet.width, zoom * sheet.height), Image.Resampling.NEAREST)
    sheet.quantize(256, kmeans=12, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
