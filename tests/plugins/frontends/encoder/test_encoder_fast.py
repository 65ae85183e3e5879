"""The fast path of a frozen encoder gives the numbers of transformers' modules."""

import copy
import shutil

import pytest
import torch
import transformers
from test_encoder import FEW, VARIANTS, alone, distance, reference, save_checkpoint, waveform
from torch.utils._python_dispatch import TorchDispatchMode

from korser.data.fingerprint import weights_digest
from korser.plugins.frontends.encoder.encoder import PretrainedEncoder
from korser.plugins.frontends.encoder.families.waveform import fast as fast_module
from korser.plugins.frontends.encoder.families.waveform.convolutions import (
    convolution_weights,
    convolve,
    fft_convolve,
    fft_weights,
    split_products,
)
from korser.plugins.frontends.encoder.families.waveform.fast import FrozenEncoder
from korser.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers

ROUNDING = 2e-6  # of float32, relative to the largest feature; measured: 1.6e-6 and below
BF16 = 2e-2  # of a whole utterance, in the 2-norm; measured: 1.6e-2, mostly of the weights' rounding
SIZES = [5000, 5000, 3000, 6543, 719, 400]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save_checkpoint(root / name, *variant) for name, variant in VARIANTS.items()}


@pytest.fixture(params=VARIANTS)
def variant(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture(params=FEW)
def few(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture
def some(checkpoints):
    return checkpoints["wav2vec2-group-post"]


def both(source, **options):
    return [PretrainedEncoder(source=source, implementation=name, **options) for name in ("auto", "reference")]


def batch(sizes=SIZES):
    """Waveforms with noise past their lengths, one sample longer than the longest."""
    x = waveform(len(sizes) * (max(sizes) + 1)).view(len(sizes), -1)
    for i, n in enumerate(sizes):
        x[i, :n] = waveform(n, seed=i)
    return x, torch.tensor(sizes)


def relative(got, want, lengths):
    """The largest relative error of an utterance in the 2-norm."""
    return max(((y[:n] - z[:n]).norm() / z[:n].norm()).item() for y, z, n in zip(got.float(), want, lengths))


class Operations(TorchDispatchMode):
    """The names of what is run inside."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function._schema.name)
        return function(*args, **(kwargs or {}))

    def __enter__(self):
        self.names = set()
        return super().__enter__()


def test_single_utterances_equal_transformers(variant):
    x = waveform(6000)
    want = reference(variant, x)
    got = alone(PretrainedEncoder(source=variant, layer="all"), x)[0].split(32, dim=-1)
    for a, b in zip(got, [*want.hidden_states[:-1], want.last_hidden_state], strict=True):
        assert distance(a, b) < ROUNDING


@pytest.mark.parametrize("runs, piece", [(2, 7), (32, 30)])
def test_batches_equal_the_reference(variant, monkeypatch, runs, piece):
    monkeypatch.setattr(fast_module, "MAX_RUNS", runs)  # fewer than here: attention with a mask
    monkeypatch.setattr(fast_module, "PIECE", {"cpu": piece})  # parts of an utterance, or two at once
    x, lengths = batch()
    fast, plain = both(variant, layer="all")
    got, frames = fast(x, lengths)
    want, _ = plain(x, lengths)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert distance(got, want) < ROUNDING
    for i, n in enumerate(frames):
        assert (got[i, n:] == 0).all()


def test_as_near_to_float64_as_the_reference(few):
    x, lengths = batch()
    fast, plain = both(few)
    exact = plain.double()(x.double(), lengths)[0]
    error = distance(fast(x, lengths)[0].double(), exact)
    assert error < 1e-6
    assert error < 2 * distance(plain.float()(x, lengths)[0].double(), exact)


def test_group_norm_of_filters_that_meet_little_energy(some):
    """Statistics of a filter's output from the covariance of its input, where all but 1e-6 of that cancels."""
    x = (0.3 + 0.1 * torch.sin(torch.arange(8000) / 50) + 1e-4 * waveform(8000))[None]
    fast, plain = both(some, do_normalize=False)
    for frontend in (fast, plain):
        weight = frontend.encoder.model.feature_extractor.conv_layers[0].conv.weight
        weight.data = torch.diff(weight, n=2, dim=2, prepend=torch.zeros_like(weight[..., :2]))
        weight.data -= weight.mean(2, keepdim=True)
    exact = plain.double()(x.double(), torch.tensor([8000]))[0]
    plain.float()
    error = distance(plain(x, torch.tensor([8000]))[0].double(), exact)
    assert distance(fast(x, torch.tensor([8000]))[0].double(), exact) < max(2 * error, ROUNDING)


@pytest.mark.parametrize("name, layer", [*((name, "all") for name in VARIANTS), *((name, 2) for name in FEW)])
def test_bf16_differs_by_rounding(checkpoints, name, layer):
    x, lengths = batch()
    fast, plain = both(checkpoints[name], layer=layer)
    want, frames = plain(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = fast(x, lengths)
    assert got.dtype == torch.float32
    assert 0 < relative(got, want, frames.tolist()) < BF16


def test_bf16_is_nearer_than_the_autocast_of_transformers(some):
    x, lengths = batch()
    fast, plain = both(some)
    want, frames = plain(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [relative(frontend(x, lengths)[0], want, frames.tolist()) for frontend in (fast, plain)]
    assert errors[0] < errors[1]


def test_an_unknown_implementation_is_refused(some):
    with pytest.raises(UserError, match="implementation='quick': expected 'auto', 'compiled' or 'reference'"):
        PretrainedEncoder(source=some, implementation="quick")


def test_precision_may_change_between_calls(some):
    x, lengths = batch()
    frontend = PretrainedEncoder(source=some)
    want = frontend(x, lengths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(frontend(x, lengths)[0], want)
    assert torch.equal(frontend(x, lengths)[0], want)


def test_no_host_synchronisation_but_for_the_lengths(few):
    x, lengths = batch()
    frontend = PretrainedEncoder(source=few)
    frontend(x, lengths)
    with Operations() as operations:
        frontend(x, lengths)
    assert not operations.names & {"aten::_local_scalar_dense", "aten::nonzero", "aten::index", "aten::index_put_"}


def test_nothing_is_masked_where_all_are_equally_long(some):
    x = torch.stack([waveform(4000, 1), waveform(4000, 2)])
    frontend = PretrainedEncoder(source=some, do_normalize=False)
    lengths = torch.tensor([4000, 4000])
    with torch.no_grad(), Operations() as operations:
        frontend.encoder._fast(x, lengths, frontend.output_lengths(lengths), every_layer=False)
    attention = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert attention in operations.names
    assert {name for name in operations.names if "dot_product" in name} == {attention}


@pytest.mark.parametrize(
    "change",
    [
        lambda frontend, other: frontend.load_state_dict(other.state_dict()),
        lambda frontend, other: [p.copy_(q) for p, q in zip(frontend.parameters(), other.parameters())],
        lambda frontend, other: [setattr(p, "data", q.data) for p, q in zip(frontend.parameters(), other.parameters())],
    ],
    ids=["load_state_dict", "in place", "data"],
)
def test_weights_are_followed(some, change):
    x, lengths = batch()
    frontend, other = PretrainedEncoder(source=some), PretrainedEncoder(source=some)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
        before, want = frontend(x, lengths)[0], other(x, lengths)[0]
        change(frontend, other)
    assert distance(before, want) > 1e-3
    assert torch.equal(frontend(x, lengths)[0], want)


def test_types_are_followed(some):
    x, lengths = batch()
    frontend = PretrainedEncoder(source=some)
    want = frontend(x, lengths)[0]
    rounded = copy.deepcopy(frontend).to(torch.bfloat16).float()(x, lengths)[0]
    assert frontend.double()(x, lengths)[0].dtype == torch.float64  # the reference
    assert torch.equal(frontend.float()(x, lengths)[0], want)
    assert torch.equal(frontend.to(torch.bfloat16).float()(x, lengths)[0], rounded)
    assert distance(rounded, want) > 1e-4


def test_state_dict_and_digest_are_untouched_and_copies_stand_alone(some):
    x, lengths = batch()
    frontend = PretrainedEncoder(source=some)
    keys, digest = list(frontend.state_dict()), weights_digest(frontend)
    want = frontend(x, lengths)[0]
    assert list(frontend.state_dict()) == keys and weights_digest(frontend) == digest
    twin = copy.deepcopy(frontend)
    assert torch.equal(twin(x, lengths)[0], want)
    with torch.no_grad():
        next(twin.parameters()).mul_(2)
    assert not torch.equal(twin(x, lengths)[0], want)
    assert torch.equal(frontend(x, lengths)[0], want)


def test_inference_mode(some):
    x, lengths = batch()
    want = PretrainedEncoder(source=some)(x, lengths)[0]
    with torch.inference_mode():
        frontend = PretrainedEncoder(source=some)
        assert torch.equal(frontend(x, lengths)[0], want)
        for p in frontend.parameters():
            p.mul_(1.1)  # of which torch keeps no count here
        assert not torch.equal(frontend(x, lengths)[0], want)
    frontend = PretrainedEncoder(source=some)
    with torch.inference_mode():
        assert torch.equal(frontend(x, lengths)[0], want)
    assert torch.equal(frontend(x, lengths)[0], want)


def test_the_reference_is_taken_where_it_is_needed(some, tmp_path, monkeypatch):
    x, lengths = batch()
    folder = tmp_path / "adapters"
    options = VARIANTS["wav2vec2-group-stable"][1] | {"adapter_attn_dim": 8}
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**options)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)

    def never(*args):
        raise AssertionError("the fast path was taken")

    monkeypatch.setattr(FrozenEncoder, "__call__", never)
    for options in ({"implementation": "reference"}, {"freeze": "none"}, {"freeze": "feature_extractor"}):
        PretrainedEncoder(source=some, **options)(x, lengths)
    PretrainedEncoder(source=folder)(x, lengths)  # as in MMS
    frontend = PretrainedEncoder(source=some)
    frontend(x.requires_grad_(), lengths)[0].sum().backward()
    with pytest.raises(AssertionError, match="was taken"):
        frontend(x.detach(), lengths)


@pytest.mark.parametrize("taps, stride", [(3, 2), (2, 2), (5, 2), (1, 1), (4, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_by_matrix_products(taps, stride, bias):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(5, 7, taps, stride, bias=bias, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(40, 5, dtype=torch.float64)
    want = conv(x.T[None])[0].T
    got = convolve(x, stride, *convolution_weights(conv, torch.float64))
    assert len(got) == 40 // stride
    assert torch.allclose(got[: len(want)], want)


@pytest.mark.parametrize("taps", [1, 2, 7, 16, 19])
@pytest.mark.parametrize("n", [1, 5, 64, 65])
def test_convolution_by_fft(taps, n):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(12, 12, taps, padding=taps // 2, groups=3, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(2, n, 12, dtype=torch.float64)
    want = conv(x.mT)[..., :n].mT  # without the last of an even number of taps, as transformers
    assert torch.allclose(fft_convolve(x, *fft_weights(conv)), want)


@pytest.mark.parametrize("dtype, bits", [(torch.bfloat16, 14), (torch.float16, 20)])
def test_products_of_split_factors(dtype, bits):
    torch.manual_seed(0)
    a, b = torch.randn(2, 30, 11), torch.randn(2, 11, 5)
    u, v = split_products(a, b, dtype)
    assert u.dtype == v.dtype == dtype
    want = a.double() @ b.double()
    assert (u.double() @ v.double() - want).norm() / want.norm() < 2**-bits


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["wav2vec2-layer-post", "hubert-group-stable"])
def test_compiled(checkpoints, name):
    plain, fast = (PretrainedEncoder(source=checkpoints[name], implementation=i) for i in ("reference", "compiled"))
    for sizes in (SIZES, SIZES[2:]):
        x, lengths = batch(sizes)
        want, frames = plain(x, lengths)
        assert distance(fast(x, lengths)[0], want) < ROUNDING
        with torch.autocast("cpu", torch.bfloat16):
            assert relative(fast(x, lengths)[0], want, frames.tolist()) < BF16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bf16", [False, True])
def test_gpu_gives_the_numbers_of_the_cpu(variant, bf16, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, lengths = batch()
    fast, plain = both(variant, layer="all")
    want, frames = plain(x, lengths)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        got, _ = fast.to("cuda")(x.to("cuda"), lengths.to("cuda"))
    assert relative(got.cpu(), want, frames.tolist()) < (BF16 if bf16 else 1e-5)
