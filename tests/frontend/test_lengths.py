import torch

from korser.frontend.lengths import mask_padding

LENGTHS = torch.tensor([2, 3])


def test_padding_becomes_zero_whatever_it_was():
    for padding in (float("nan"), float("inf"), 1.0):
        x = torch.ones(2, 3, 4)
        x[0, 2] = padding
        for look_first in (False, True):
            y = mask_padding(x, LENGTHS, look_first=look_first)
            assert y.sum(2).tolist() == [[4, 4, 0], [4, 4, 4]]


def test_nothing_is_copied_where_padding_is_zero_already():
    x = mask_padding(torch.ones(2, 3, 4), LENGTHS)
    assert mask_padding(x, LENGTHS, look_first=True) is x
    assert mask_padding(x, LENGTHS) is not x


def test_no_gradient_reaches_the_padding():
    x = mask_padding(torch.ones(2, 3), LENGTHS).requires_grad_()
    mask_padding(x, LENGTHS, look_first=True).sum().backward()
    assert x.grad.tolist() == [[1, 1, 0], [1, 1, 1]]
