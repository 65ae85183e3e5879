import pytest
import torch
from speechbrain.lobes.models import ECAPA_TDNN as lobes

from korser.plugins.backbones.ecapa import Ecapa
from korser.utils.errors import UserError


def test_it_is_speechbrains_network_where_that_does_not_depend_on_padding():
    torch.manual_seed(0)
    net = Ecapa(in_channels=10, width=16, embedding_size=8, bottleneck=8)
    x, lengths = torch.randn(3, 60, 10), torch.tensor([60, 60, 60])
    net(x, lengths)  # moves the running statistics
    sizes = {"attention_channels": 8, "se_channels": 8}
    theirs = lobes.ECAPA_TDNN(10, lin_neurons=8, channels=[16] * 4 + [48], **sizes).eval()
    theirs.load_state_dict(net.net.state_dict(), strict=False)  # theirs counts batches, too
    for module in theirs.modules():
        if isinstance(module, lobes.Conv1d):
            module.padding_mode = "constant"
    with torch.no_grad():
        ours, expected = net.eval()(x, lengths), theirs(x)[:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-3)  # 1e-5 is added to variances here


def test_a_width_that_cannot_be_split_is_refused():
    with pytest.raises(UserError, match="Ecapa: width=12: expected a multiple of 8"):
        Ecapa(in_channels=4, width=12)
