"""What a preset says of an adversary beside the dVAE."""

from dataclasses import dataclass

from ..loop.schedules import Steps


@dataclass
class AdversarySettings:
    """
    start: the step, after the dVAE's warm-up as an autoencoder, from which it listens to the adversary.
    warmup: how many steps before that its own network starts to learn, so that it has something to say.
        Both are numbers of steps, or shares of the run's, such as "10%".
    width: channels of its network. lr, betas: of its Adam.
    """

    start: Steps = 0
    warmup: Steps = 0
    width: int = 64
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.9)


@dataclass
class PixelSettings(AdversarySettings):
    """
    weight: the adversary's gradient at the decoder's last layer, as a multiple of the reconstruction's.
    num_layers: of the patch discriminator: a receptive field of 16, 34 or 70 pixels at 1, 2 or 3.
    objective: "hinge", "non_saturating" or "minimax". r1_gamma: γ of γ/2 · E‖∇D‖² on pictures; 0
        leaves it out.
    """

    weight: float = 0.5
    num_layers: int = 2
    objective: str = "hinge"
    r1_gamma: float = 0.0


@dataclass
class PosteriorSettings(AdversarySettings):
    """
    draws: fixed noises that the marginals are averaged over. baseline: decay of the mean that the score function
        subtracts.
    """

    draws: int = 16
    baseline: float = 0.95


@dataclass
class StyleSettings(AdversarySettings):
    """draws: noises that the moments of adaptive contrast are averaged over."""

    draws: int = 16
