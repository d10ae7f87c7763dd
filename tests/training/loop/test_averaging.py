"""The moving average of the weights: what is evaluated and saved."""

import torch
from toy_run import Toy

from training.loop.averaging import Average


def test_each_update_moves_it_by_a_share_and_the_first_one_copies():
    toy, decay, values = Toy(), 0.9, (1.0, 5.0, -2.0)
    average = Average(toy, decay)
    for value in values:
        with torch.no_grad():
            for parameter in toy.parameters():
                parameter.fill_(value)
        average.update()
    expected = decay * (decay * values[0] + (1 - decay) * values[1]) + (1 - decay) * values[2]
    for part in (average.tensors, average.module().state_dict()):
        for tensor in part.values():
            torch.testing.assert_close(tensor, torch.full_like(tensor, expected))
    assert all((parameter == values[-1]).all() for parameter in toy.parameters()), "the weights are not it"
    average.copy_to_model()
    torch.testing.assert_close(dict(toy.state_dict()), average.tensors)


def test_what_is_frozen_is_its_own_average():
    toy = Toy()
    toy.linear.weight.requires_grad_(False)
    average = Average(toy, 0.5)
    assert average.tensors["linear.weight"].data_ptr() == toy.linear.weight.data_ptr()
    assert average.tensors["linear.bias"].data_ptr() != toy.linear.bias.data_ptr()
