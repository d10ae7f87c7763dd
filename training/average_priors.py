r"""Makes of two priors the one of their mean weights: it knows what both know, where one was tuned from the other.

    python -m training.average_priors embedded runs/mine/prior --output_dir runs/mean/prior [--weight 0.3]
    python -m training.train_prior PRESET --training.init_from runs/mean/prior --training.tokenizer embedded

Of a prior that was tuned and the one that it was tuned from, the mean keeps more of what the old one knew, and much of
what the new one learned (arXiv 2109.01903). It costs no training: try a few weights, of it as it is, or as the start
of another tuning. The mean of two that have nothing in common knows nothing.
"""

from pathlib import Path

import torch

from pipelines.folder.whole import WEIGHTS, saved_whole
from prior_transformer import StreamPrior, load_prior

from .loop.command import run_command
from .loop.pretrained import find_part
from .loop.provenance import agree, model_fact, read_provenance, save_provenance
from .presets.reading import new_parser


def main(argv: list[str] | None = None) -> StreamPrior:
    parser = new_parser("average_priors", __doc__)
    for name in ("first", "second"):
        parser.add_argument(name, type=str, help="a prior's or a pipeline's folder or Hub id, or embedded")
    parser.add_argument("--weight", type=float, default=0.5, help="of the second, 0 to 1; the first has what is left")
    parser.add_argument("--output_dir", type=str, required=True, help="where it is saved")
    args = parser.parse_args(argv)
    folders = [find_part(name, "prior") for name in (args.first, args.second)]
    told = [read_provenance(folder) for folder in folders]
    either = told[1] | told[0]
    facts = {name: fact for name, fact in either.items() if all(agree(fact, one.get(name, fact)) for one in told)}
    if "tokenizer" in either.keys() - facts.keys():
        raise ValueError(f"{args.first} and {args.second} learned with two tokenizers: their weights have no mean")
    first, second = (load_prior(folder, dtype=torch.float32) for folder in folders)
    mean = average(first, second, args.weight)
    with saved_whole(Path(args.output_dir), WEIGHTS) as folder:
        mean.save_pretrained(folder)
        save_provenance(folder, facts)
    print(f"{args.output_dir}: {1 - args.weight:g} of {args.first}, {args.weight:g} of {args.second}")
    return mean


def average(first: StreamPrior, second: StreamPrior, weight: float = 0.5) -> StreamPrior:
    """
    `first` itself, with the weights (1 − weight) · its own + weight · `second`'s. Raises a ValueError where they are
    not of one architecture, or the weight is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must be in [0, 1]")
    own, other = first.state_dict(), second.state_dict()
    shapes = [{name: tuple(tensor.shape) for name, tensor in weights.items()} for weights in (own, other)]
    apart = sorted(name for name in own.keys() | other.keys() if shapes[0].get(name) != shapes[1].get(name))
    if apart:
        raise ValueError(
            f"{apart[0]} is {shapes[0].get(apart[0])} and {shapes[1].get(apart[0])}: give priors of one size"
        )
    left, right = model_fact(first.config), model_fact(second.config)
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            raise ValueError(f"{name} is {left.get(name)} and {right.get(name)}: give priors of one architecture")
    first.load_state_dict({name: tensor.lerp(other[name].to(tensor), weight) for name, tensor in own.items()})
    return first


if __name__ == "__main__":
    run_command(main)
