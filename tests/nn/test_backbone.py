"""The backbone follows from what the frontend declares, and its width from a number of parameters."""

import logging
from functools import partial

import pytest
import torch
from conftest import HPARAMS
from torch import nn

from korser import Frontend, UserError, load_hparams
from korser.nn.backbone import count_trained, for_frontend, width_for
from korser.plugins.backbones.blstm import BLSTM
from korser.plugins.backbones.convnet import ConvNet
from korser.plugins.backbones.ecapa import Ecapa
from korser.plugins.backbones.linear_pool import LinearPool
from korser.plugins.backbones.temporal import TemporalNet

BANDS = Frontend(output_size=8, frame_rate=50.0, frequency_axis=True)
STATES = Frontend(output_size=12, frame_rate=None)


class Fixed(nn.Module):
    def __init__(self, *, in_channels):
        super().__init__()


def test_the_declared_axis_chooses_the_backbone_and_its_sizes():
    net = for_frontend(frontend=BANDS, bands=ConvNet, states=TemporalNet)
    assert type(net) is ConvNet and net.input_norm.num_features == 8 and net.blocks[0].conv.stride[0] == 2
    net = for_frontend(frontend=STATES, bands=ConvNet, states=TemporalNet)
    assert type(net) is TemporalNet and net.projection.in_features == 12
    with pytest.raises(UserError, match="ConvNet: frame_rate=None"):
        for_frontend(frontend=STATES, states=ConvNet)
    with pytest.raises(UserError, match="backbone.bands is missing: .*Frontend declares frequency_axis=True"):
        for_frontend(frontend=BANDS, states=TemporalNet)


@pytest.mark.parametrize("backbone", [ConvNet, TemporalNet, LinearPool, Ecapa, BLSTM])
@pytest.mark.parametrize("parameters", [120_000, 1_000_000])
def test_the_width_is_the_largest_within_a_number_of_parameters(backbone, parameters):
    state = torch.get_rng_state()
    width = width_for(parameters, partial(backbone, in_channels=40))
    assert torch.equal(torch.get_rng_state(), state)
    step = getattr(backbone, "width_step", 1)
    assert count_trained(backbone(in_channels=40, width=width)) <= parameters
    assert count_trained(backbone(in_channels=40, width=width + step)) > parameters


def test_the_chosen_width_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        net = for_frontend(frontend=STATES, states=LinearPool, parameters=140)
    assert net.width == 10 and count_trained(net) == 130
    assert "LinearPool: width 10, 130 trained parameters (at most 140)" in caplog.text


def test_a_number_that_cannot_be_met_is_refused():
    with pytest.raises(UserError, match="LinearPool has 13 trained parameters at width 1, the smallest"):
        for_frontend(frontend=STATES, states=LinearPool, parameters=12)
    with pytest.raises(UserError, match="Fixed has no argument 'width'"):
        for_frontend(frontend=STATES, states=Fixed, parameters=12)
    with pytest.raises(UserError, match="backbone.parameters=-1: expected a positive number"):
        for_frontend(frontend=STATES, states=LinearPool, parameters=-1)


@pytest.mark.parametrize("model", ["mel_stl", "leaf_stl"])
def test_the_weights_are_those_of_the_class_built_directly(model):
    convnet = "!new:korser.plugins.backbones.convnet.ConvNet "
    convnet += "{in_channels: !ref <frontend.output_size>, frame_rate: !ref <frontend.frame_rate>}"
    nets = [load_hparams(HPARAMS / f"{model}.yaml", o)["backbone"] for o in ({}, {"backbone": convnet})]
    one, other = (net.state_dict() for net in nets)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
