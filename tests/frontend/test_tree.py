"""What of a frontend is a function of the audio alone."""

import torch
from test_base import Halve

from korser import Chain, Parallel
from korser.frontend.tree import branches_of, leaves, split_frozen, stages_of


def frozen(**settings):
    return Halve(trained=False, **settings)


def behind(rate=8000, **settings):
    return Halve(in_channels=4, input_rate=rate, **settings)


def divided(frontend):
    """Return the inputs as lists of stages, and check that the parts compute what the frontend does."""
    split = split_frozen(frontend)
    x, lengths = torch.randn(2, 101), torch.tensor([101, 60])
    frontend.eval()
    inputs = []
    for row in split.inputs:
        given = x, lengths
        for i in row:
            given = split.frozen[i](*given)
        inputs.append(given)
    for got, expected in zip(split.remainder(inputs), frontend(x, lengths)):
        assert torch.equal(got, expected)
    return [[split.frozen[i] for i in row] for row in split.inputs], split.trainable


def test_the_frozen_prefix_ends_at_the_first_trained_stage():
    first, trained, last = frozen(), behind(), behind(4000, trained=False)
    assert divided(Chain(Chain(first, trained), last)) == ([[first]], [trained, last])
    assert divided(first) == ([[first]], [])
    trained = Halve()
    assert divided(trained) == ([[]], [trained])


def test_each_branch_has_a_frozen_prefix():
    first, trained, second, encoder = frozen(), behind(), frozen(), Halve()
    parallel = Parallel(Chain(first, trained), second, encoder)
    assert divided(parallel) == ([[first], [second], []], [parallel])
    assert split_frozen(parallel).remainder.called() == [trained, encoder]


def test_branches_behind_a_frozen_stage_share_it():
    first, second, trained = frozen(), behind(trained=False), behind()
    parallel = Parallel(second, trained)
    assert divided(Chain(first, parallel)) == ([[first, second], [first]], [parallel])


def test_nested_branches_are_divided():
    first, second, trained, other = frozen(), frozen(), behind(), Halve()
    inner = Parallel(first, Chain(Halve(), behind(trained=False)))
    assert inner.frame_rate == 4000 and not inner.frozen
    outer = Parallel(Chain(inner, Halve(in_channels=8, input_rate=4000)), Chain(second, trained), other)
    inputs, _ = divided(outer)
    assert inputs == [[first], [], [second]]


def test_a_frozen_parallel_is_divided_if_it_is_the_last():
    first, second = frozen(), frozen()
    parallel = Parallel(first, second)
    mixed, trained = Halve(in_channels=8, input_rate=8000, trained=False), behind(4000)
    assert divided(parallel) == ([[first], [second]], [parallel])
    assert divided(Chain(parallel, mixed, trained)) == ([[parallel, mixed]], [trained])


def test_a_parallel_behind_a_trained_stage_is_not_divided():
    trained, branch = Halve(), behind(trained=False)
    parallel = Parallel(branch, behind(trained=False))
    assert divided(Chain(trained, parallel)) == ([[]], [trained, parallel])


def test_leaves_and_branches_have_names():
    first, second = Halve(), behind()
    inner = Parallel(first)
    frontend = Parallel(Chain(inner, second), first)
    assert stages_of(Chain(Chain(first), second)) == [first, second]
    assert leaves([frontend]) == [first, second]
    assert branches_of(frontend) == {
        "branch 1 of Parallel 1 (Parallel -> Halve)": frontend.branches[0],
        "branch 2 of Parallel 1 (Halve)": first,
        "branch 1 of Parallel 2 (Halve)": first,
    }
