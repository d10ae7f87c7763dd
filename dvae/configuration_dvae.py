"""The architecture of the dVAE: saved as config.json, validated once, here."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .checked_config import CheckedConfig


@strict
class DVAEConfig(CheckedConfig):
    """
    Architecture of a `DVAE`; the defaults are the paper's (arXiv 2102.12092, appendix A).

    image_size: side of the square pictures, in pixels.
    downsample_factor: pixels to one code along a side; the grid of codes is image_size / downsample_factor square.
    codebook_size: K, the number of codes.
    codebook_dim: width of a code's embedding, the decoder's input.
    widths: channels of the groups, from full resolution down to the grid; one group more than halvings.
    blocks_per_group: residual blocks in each group: one number for all, or one for each width. Near the grid a block
        costs little and sees the whole picture.
    bottleneck: a block's hidden channels are its output channels divided by this.
    post_gain: factor on a block's residual path, not 0; None takes the paper's, 1 / (number of blocks)².
    resampling: "pool" (the paper's: max-pooling down, nearest neighbours up), or "shuffle" (2×2 pixels to channels and
        back), which keeps where in its square a pixel stands, so that a small decoder need not learn it.
    encoder_padding: "zeros" (the paper's), or "replicate", which repeats the border's pixels, so that a flat ground
        has one code, at the border as inside.
    pooled_halvings: so many of the first halvings are means of 2×2 pixels, with the encoder's groups behind them: a
        picture has the codes of one of half its side, or a quarter, and the decoder, with all groups, paints it whole.
    input_map: what the encoder sees of a pixel x: "centred", 2 x − 1, or "shrunk", 0.8 x + 0.1, as OpenAI's does.
    posterior: "gumbel" (the paper's: a logits head), "gumbel_codebook" (logits are −scale · squared distance to a
        codebook), "implicit" (the same with noise of the whole picture, so that codes depend on each other), "vq"
        (nearest entry, straight-through), "normalised_vq" (nearest by angle), "ibq" (a hard one-hot with the gradient
        of all entries), "fsq" (codebook_dim numbers rounded to L values each), or "lfq" (their signs). A lattice has
        as many codes as points: codebook_size = L^codebook_dim, and 2^codebook_dim for "lfq".
    commitment: weight of the commitment loss, for "vq", "normalised_vq", "ibq" and "lfq" alone.
    likelihood: "logit_laplace" (the paper's), "laplace", "gaussian", or "bernoulli" for binary pixels.
    style_size: S, width of a continuous latent of the whole picture beside the codes; 0 for none.
    style_posterior: its q, "gaussian" or "implicit". style_prior: its p, "gaussian" or "flow" (needs zuko).
    min_log_scale: floor under the likelihood's ln of the scale; None leaves it free, as the paper does. Drawings are
        constant over large areas, where a free scale falls without end and takes the loss with it.

    Raises a `StrictDataclassError` that holds both numbers for sizes that do not fit;
    a `TypeError` for an unknown key.
    """

    model_type = "armchair_dvae"

    image_size: int = 256
    downsample_factor: int = 8
    codebook_size: int = 8192
    codebook_dim: int = 128
    widths: list[int] | tuple[int, ...] = (256, 512, 1024, 2048)
    blocks_per_group: int | list[int] | tuple[int, ...] = 2
    bottleneck: int = 4
    post_gain: float | int | None = None
    resampling: Literal["pool", "shuffle"] = "pool"
    encoder_padding: Literal["zeros", "replicate"] = "zeros"
    pooled_halvings: int = 0
    input_map: Literal["centred", "shrunk"] = "centred"
    posterior: Literal["gumbel", "gumbel_codebook", "implicit", "vq", "normalised_vq", "ibq", "fsq", "lfq"] = "gumbel"
    commitment: float | int = 0.25
    likelihood: Literal["logit_laplace", "laplace", "gaussian", "bernoulli"] = "logit_laplace"
    min_log_scale: float | int | None = None
    style_size: int = 0
    style_posterior: Literal["gaussian", "implicit"] = "implicit"
    style_prior: Literal["gaussian", "flow"] = "gaussian"

    def validate_sizes(self):
        for name in ("image_size", "downsample_factor", "codebook_dim", "bottleneck"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.style_size < 0:
            raise ValueError(f"style_size={self.style_size} must not be negative: 0 is no style")
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size={self.codebook_size} must be at least 2: one code says nothing")
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"image_size={self.image_size} must be divisible by downsample_factor={self.downsample_factor}"
            )

    def validate_lattice(self):
        if self.posterior in ("fsq", "lfq"):
            levels = 2 if self.posterior == "lfq" else max(2, round(self.codebook_size ** (1 / self.codebook_dim)))
            if levels**self.codebook_dim != self.codebook_size:
                raise ValueError(
                    f"codebook_size={self.codebook_size} must be L^{self.codebook_dim} for posterior="
                    f"{self.posterior!r} of codebook_dim={self.codebook_dim}, as {levels}^{self.codebook_dim} = "
                    f"{levels**self.codebook_dim} is"
                )

    def validate_widths(self):
        halvings = len(self.widths) - 1
        if 2**halvings != self.downsample_factor:
            raise ValueError(
                f"{len(self.widths)} widths {list(self.widths)} halve the picture {halvings} times, by "
                f"{2**halvings}, but downsample_factor={self.downsample_factor}: give one width more than halvings"
            )
        if min(self.widths) < self.bottleneck:
            raise ValueError(f"widths {list(self.widths)} must each be at least bottleneck={self.bottleneck}")
        if not 0 <= self.pooled_halvings <= halvings:
            raise ValueError(
                f"pooled_halvings={self.pooled_halvings} must be 0 to {halvings}, the halvings of "
                f"downsample_factor={self.downsample_factor}"
            )
        if self.resampling == "shuffle" and any(width % 4 for width in self.widths):
            raise ValueError(f"widths {list(self.widths)} must be divisible by 4 for resampling='shuffle'")

    def validate_blocks(self):
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"blocks_per_group={list(self.blocks)} has {len(self.blocks)} numbers for {len(self.widths)} widths: "
                "give one number for all, or one for each width"
            )
        if min(self.blocks) < 1:
            raise ValueError(f"blocks_per_group={self.blocks_per_group} must be at least 1")

    def validate_post_gain(self):
        if self.post_gain == 0:
            raise ValueError(
                "post_gain=0 switches every block's residual path off: give another, or null for the paper's "
                f"1 / {sum(self.blocks) ** 2}, which a model saved with 0 has learned with"
            )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Residual blocks of each group, from full resolution down to the grid."""
        if isinstance(self.blocks_per_group, int):
            return (self.blocks_per_group,) * len(self.widths)
        return tuple(self.blocks_per_group)

    @property
    def gain(self) -> float:
        """What a block's residual path is multiplied by: post_gain, or the paper's 1 / (number of blocks)²."""
        return 1 / sum(self.blocks) ** 2 if self.post_gain is None else self.post_gain

    @property
    def grid_size(self) -> int:
        """Codes along a side: image_size / downsample_factor."""
        return self.image_size // self.downsample_factor

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of a picture's codes."""
        return self.grid_size, self.grid_size

    @property
    def summary(self) -> str:
        """The architecture in a line, for a model card."""
        widths = ", ".join(map(str, self.widths))
        return f"{self.posterior} posterior, {self.likelihood} likelihood, {widths} channels"

    def code_settings(self) -> dict[str, Any]:
        """What decides the codes of a picture beside the weights and their shapes."""
        names = ("image_size", "downsample_factor", "resampling", "posterior", "encoder_padding")
        defaults = {"input_map": "centred", "pooled_halvings": 0}  # of settings that came later
        later = {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}
        return {"gain": self.gain, **{name: getattr(self, name) for name in names}, **later}

    @property
    def num_pixel_channels(self) -> int:
        """3·H·W, the dimensions of one picture: what bits per dimension are counted over."""
        return 3 * self.image_size**2


DVAEConfig.register_for_auto_class()  # this file is saved beside the weights
