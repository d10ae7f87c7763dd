r"""Makes a dVAE of pictures twice as large out of a trained one, with the same codes.

    python -m training.enlarge_dvae embedded --output_dir runs/large/dvae [--encoder_padding replicate]
    python -m training.train_dvae PRESET --training.init_from runs/large/dvae --training.autoencoder_steps 0 \
        --training.decoder_steps 100%

The encoder sees a picture at half its size, by means of 2×2 pixels. Of a drawing that is reduced otherwise one code in
twenty is another, so a prior that knows its pictures by heart goes on from those of the small dVAE. The decoder gets
one group more, which has learned nothing yet: that is what the second line is for.
"""

from pathlib import Path

from dvae import DVAE, DVAEConfig, DVAEImageProcessor
from pipelines.folder.whole import WEIGHTS, saved_whole

from .loop.command import run_command
from .loop.engine import same_draws
from .loop.pretrained import load_dvae
from .presets.reading import new_parser


def main(argv: list[str] | None = None) -> DVAE:
    parser = new_parser("enlarge_dvae", __doc__)
    parser.add_argument("dvae", type=str, help="a dVAE's or a pipeline's folder or Hub id, or embedded")
    parser.add_argument("--output_dir", type=str, required=True, help="where it is saved")
    parser.add_argument("--width", type=int, default=32, help="channels of the decoder's new group")
    parser.add_argument("--blocks", type=int, default=1, help="residual blocks of it")
    parser.add_argument("--encoder_padding", type=str, choices=["zeros", "replicate"], help="as it is, unless given")
    args = parser.parse_args(argv)
    large = enlarge(load_dvae(args.dvae), args.width, args.blocks, args.encoder_padding)
    with saved_whole(Path(args.output_dir), WEIGHTS) as folder:
        large.save_pretrained(folder)
        DVAEImageProcessor(large.config.image_size).save_pretrained(folder)
    print(f"{args.output_dir}: pictures of {large.config.image_size} px in {large.config.grid_size}² codes")
    return large


def enlarge(dvae: DVAE, width: int, blocks: int, encoder_padding: str | None = None) -> DVAE:
    """
    A dVAE of twice the side whose codes of a picture are `dvae`'s of the means of its 2×2 pixels, where the encoder's
    padding stays as it is.
    """
    config = DVAEConfig.from_dict(
        {
            **dvae.config.to_dict(),
            "image_size": 2 * dvae.config.image_size,
            "downsample_factor": 2 * dvae.config.downsample_factor,
            "widths": [width, *dvae.config.widths],
            "blocks_per_group": [blocks, *dvae.config.blocks],
            "post_gain": dvae.config.gain,
            "pooled_halvings": dvae.config.pooled_halvings + 1,
            "encoder_padding": encoder_padding or dvae.config.encoder_padding,
            "dtype": "float32",
        }
    )
    with same_draws(0):
        large = DVAE(config)
    new = large.state_dict()  # whose last layer has another name: the old one's maps are of half the size
    fitting = {name: value for name, value in dvae.state_dict().items() if name in new}
    large.load_state_dict({**new, **fitting})
    return large


if __name__ == "__main__":
    run_command(main)
