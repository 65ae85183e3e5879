"""Stages, chains and what is frozen in them."""

import pytest
import torch
from torch import nn

from korser import Chain, Frontend, OneAtATime


class Halve(Frontend):
    def __init__(self, *, in_channels=None, input_rate=16000, min_length=2, trained=True, **declared):
        super().__init__(
            output_size=4,
            frame_rate=input_rate / 2,
            in_channels=in_channels,
            input_rate=input_rate,
            min_length=min_length,
            **declared,
        )
        self.layer = nn.Linear(in_channels or 1, 4).requires_grad_(trained)
        self.drop = nn.Dropout(0.5)

    def output_lengths(self, lengths):
        return lengths // 2

    def forward(self, x, lengths):
        x = x if x.dim() == 3 else x[..., None]
        return self.drop(self.layer(x[:, 1::2])), self.output_lengths(lengths)


def test_a_chain_is_a_stage():
    chain = Chain(Halve(), Halve(in_channels=4, input_rate=8000))
    features, lengths = chain(torch.randn(2, 101), torch.tensor([101, 10]))
    assert features.shape == (2, 25, 4)
    assert lengths.tolist() == [25, 2]
    assert chain.output_lengths(torch.tensor([101])).item() == 25
    assert (chain.output_size, chain.frame_rate, chain.in_channels) == (4, 4000, None)


@pytest.mark.parametrize("needs", [1, 2, 3, 7])
def test_the_shortest_input_of_a_chain(needs):
    chain = Chain(Halve(), Halve(in_channels=4, input_rate=8000, min_length=needs))
    assert chain.min_length == 2 * needs
    assert chain.output_lengths(torch.tensor([chain.min_length])).item() >= needs // 2


def test_lengths_that_do_not_grow_are_an_error():
    class One(Halve):
        def output_lengths(self, lengths):
            return torch.ones_like(lengths)

    with pytest.raises(ValueError, match="no input is long enough for One -> Halve"):
        Chain(One(), Halve(in_channels=4, input_rate=8000))


def test_neighbours_must_fit():
    with pytest.raises(ValueError, match="gives 4 channels at 8000 Hz, but Halve takes 5"):
        Chain(Halve(), Halve(in_channels=5, input_rate=8000))
    with pytest.raises(ValueError, match="at 8000 Hz, but Halve takes 4 at 50 Hz"):
        Chain(Halve(), Halve(in_channels=4, input_rate=50))


def test_frozen_stages_stay_in_eval():
    chain = Chain(Halve(trained=False), Halve(in_channels=4, input_rate=8000)).train()
    frozen, trained = chain.stages
    assert frozen.frozen and not trained.frozen and not chain.frozen
    assert not any(m.training for m in frozen.modules())
    assert all(m.training for m in trained.modules())


def test_arguments_are_remembered():
    assert Halve(min_length=3).config == {"args": (), "min_length": 3}


def test_the_longest_input_of_a_chain():
    chain = Chain(Halve(), Halve(in_channels=4, input_rate=8000, max_length=50))
    assert chain.max_length == 101  # 51 frames of the first stage need 102 samples
    assert Chain(Halve(), Halve(in_channels=4, input_rate=8000)).max_length is None


def test_one_frame_per_utterance_is_the_end_of_a_chain():
    class Functionals(Halve):
        def __init__(self):
            super().__init__()
            self.frame_rate = None

    with pytest.raises(ValueError, match="Functionals gives one frame per utterance: it can only be the last stage"):
        Chain(Functionals(), Halve(in_channels=4, input_rate=8000))


def test_channels_of_a_chain_are_those_of_its_last_stage():
    assert Chain(Halve(), Halve(in_channels=4, input_rate=8000, frequency_axis=True)).frequency_axis
    assert not Chain(Halve(frequency_axis=True), Halve(in_channels=4, input_rate=8000)).frequency_axis


def test_what_a_subclass_has_to_define_is_named_with_the_class():
    class Own(Frontend):
        pass

    class Alone(OneAtATime):
        pass

    x, lengths = torch.zeros(1, 8), torch.tensor([8])
    with pytest.raises(NotImplementedError, match=r"^Own does not define forward\(x, lengths\)$"):
        Own(output_size=1, frame_rate=100)(x, lengths)
    with pytest.raises(NotImplementedError, match=r"^Alone does not define one\(x\)$"):
        Alone(output_size=1, frame_rate=100)(x, lengths)
