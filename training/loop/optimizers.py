"""What a prior is trained by: AdamW, or Muon for the matrices of its blocks beside AdamW for all else."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from .loop_training import LoopTraining


def adamw(model: nn.Module, blocks: nn.Module, training: LoopTraining) -> AdamW:
    """For all of the model that learns."""
    groups = weight_decay_groups(model, training.weight_decay)
    return AdamW(groups, lr=training.lr, betas=training.betas, fused=True)


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No decay on biases, gains, embeddings and the BOS, as the paper has it (appendix B.3)."""
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in parameters if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class MuonAndAdamW(Optimizer):
    """
    Muon (https://kellerjordan.github.io/posts/muon/) for the matrices of the blocks, AdamW for heads, embeddings and
    vectors: two optimisers as one, so that a schedule, a checkpoint and a loss scaler need not know.

    Muon's steps are as large as AdamW's (arXiv 2502.16982), so that one lr and one weight decay serve both.
    """

    def __init__(self, model: nn.Module, blocks: nn.Module, training: LoopTraining):
        decayed, others = weight_decay_groups(model, training.weight_decay)
        in_blocks = set(blocks.parameters())
        matrices = {**decayed, "params": [p for p in decayed["params"] if p in in_blocks]}
        heads = {**decayed, "params": [p for p in decayed["params"] if p not in in_blocks]}
        self.muon = Muon([matrices], lr=training.lr, adjust_lr_fn="match_rms_adamw")
        self.adamw = AdamW([heads, others], lr=training.lr, betas=training.betas, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    def step(self, closure: None = None) -> None:
        """Each steps on the groups and the state that are here, which `load_state_dict` makes anew."""
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.state = self.adamw.state = self.state
        self.muon.step()
        self.adamw.step()


OPTIMIZERS: dict[str, Callable[[nn.Module, nn.Module, LoopTraining], Optimizer]] = {
    "adamw": adamw,
    "muon": MuonAndAdamW,
}
