"""The score function's gradient of an expectation over samples that no gradient passes through, such as codes."""

import torch
from torch import Tensor


def score_function_surrogate(log_q: Tensor, reward: Tensor, baseline: Tensor | float | None = None) -> Tensor:
    """
    log_q (B,) = log q(c) of samples c ~ q, reward (B,) = f(c) -> scalar, mean over the batch, whose gradient is that
    of E_q[f] where f holds still: mean of (f(c) − baseline) ∇ log q(c) (REINFORCE, Williams 1992).

    Without bias for any baseline that does not depend on a sample's own c, as E_q ∇ log q = 0; a good one takes much
    of the variance away. It says nothing by its value, and no gradient reaches reward or baseline. baseline: a number,
    or one a sample (B,); None is 0.
    """
    if log_q.shape != reward.shape:
        raise ValueError(
            f"log_q {tuple(log_q.shape)} must have the shape of reward {tuple(reward.shape)}: sum log q over the grid"
        )
    advantage = reward if baseline is None else reward - baseline
    if advantage.shape != reward.shape:
        given = tuple(torch.as_tensor(baseline).shape)
        raise ValueError(f"baseline {given} must be a number or of the shape of reward {tuple(reward.shape)}")
    return (advantage.detach() * log_q).mean()
