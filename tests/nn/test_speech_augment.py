"""Waveform augmentation: that the signal is changed as it is said to be, and nothing else."""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from korser.nn.speech_augment import BANDS, NOISE_PERIOD, RelativeSpeechAugment, SpeechAugment
from korser.utils.errors import UserError

RATE = 16000
NOTHING = {"equalise": 0.0, "reverb": 0.0, "noise": 0.0, "band_limit": 0.0, "gain": 0.0}


def white(size, seconds, seed=0):
    """``(size, T)`` of white noise, and its lengths."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(size, int(seconds * RATE), generator=generator), torch.full((size,), int(seconds * RATE))


def spectrum(x):
    """Power density ``(B, 513)``, averaged over windows of 64 ms, and its frequencies."""
    frames = x.unfold(1, 1024, 512) * torch.hann_window(1024)
    return torch.fft.rfft(frames).abs().square().mean(1), torch.linspace(0, RATE / 2, 513)


def apply(x, lengths, seed=0, **options):
    """Augmented ``x`` and what was drawn."""
    augment = SpeechAugment(**options)
    torch.manual_seed(seed)
    drawn = augment.draw(len(x), "cpu")
    return augment.transform(x, lengths, drawn), drawn


# What is done


def test_nothing_drawn_changes_nothing():
    x, lengths = white(3, 0.7)
    y, _ = apply(x, lengths, **NOTHING)
    torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_has_the_drawn_ratio_and_colour(slope):
    x, _ = white(6, 4.0)
    lengths = torch.tensor([64000, 64000, 40000, 20000, 8000, 30000])
    augment = SpeechAugment(**{**NOTHING, "noise": 1.0, "reverb": 1.0, "gain": 1.0}, noise_slope=(slope, slope))
    torch.manual_seed(0)
    drawn = augment.draw(len(x), "cpu")
    noisy = augment.transform(x, lengths, drawn)
    clean = augment.transform(x, lengths, {**drawn, "noise": torch.zeros(6, dtype=torch.bool)})
    speech = clean * ((noisy * clean).sum(1) / clean.square().sum(1))[:, None]  # as loud as it is beside the noise
    noise = noisy - speech
    measured = 10 * torch.log10(speech.square().sum(1) / noise.square().sum(1))
    assert drawn["snr_db"].max() - drawn["snr_db"].min() > 10
    torch.testing.assert_close(measured, drawn["snr_db"], atol=0.5, rtol=0)

    power, hertz = spectrum(noise[:2])
    inside = (hertz > 100) & (hertz < 6000)
    x_axis, y_axis = torch.log10(hertz[inside]), torch.log10(power[:, inside])
    centred = x_axis - x_axis.mean()
    fitted = (y_axis * centred).sum(1) / centred.square().sum()
    torch.testing.assert_close(fitted, torch.full((2,), -slope), atol=0.2, rtol=0)


def test_low_pass_has_the_drawn_edge():
    x, lengths = white(4, 8.0)
    y, drawn = apply(x, lengths, **{**NOTHING, "band_limit": 1.0}, telephone=0.0)
    (power, hertz), (before, _) = spectrum(y), spectrum(x)
    for ratio, edge in zip(10 * torch.log10(power / before), drawn["low_pass_hz"]):
        passed, stopped = ratio[(hertz > 50) & (hertz < edge - 100)], ratio[hertz > edge + 100]
        assert passed.max() - passed.min() < 1.0
        assert stopped.max() < passed.mean() - 35
        assert hertz[ratio < passed.mean() - 6].min() == pytest.approx(float(edge), abs=40)


def test_noise_is_in_the_channels_band_too():
    x, lengths = white(4, 4.0)
    y, _ = apply(x, lengths, **{**NOTHING, "band_limit": 1.0, "noise": 1.0}, telephone=1.0, snr_db=(0, 0))
    power, hertz = spectrum(y)
    inside = power[:, (hertz > 350) & (hertz < 3350)].mean(1)
    outside = torch.cat([power[:, hertz < 200], power[:, hertz > 3500]], dim=1).amax(1)
    assert (10 * torch.log10(outside / inside)).max() < -35


def test_reverberation_has_the_drawn_time_and_share():
    x, lengths = torch.zeros(5, 20000), torch.full((5,), 20000)
    x[:, 100] = 0.5
    y, drawn = apply(x, lengths, **{**NOTHING, "reverb": 1.0}, rt60=(0.15, 0.7))
    direct, tail = y[:, 100].square(), y[:, 101:].square()
    assert y[:, :100].abs().max() < 1e-5  # not before the sound
    measured = 10 * torch.log10(direct / tail.sum(1))
    torch.testing.assert_close(measured, drawn["direct_db"], atol=0.5, rtol=0)
    remaining = 10 * torch.log10(tail.flip(1).cumsum(1).flip(1) / tail.sum(1)[:, None])  # Schroeder 1965
    for curve, rt60 in zip(remaining, drawn["rt60"]):
        t30 = 2 * float((curve < -35).int().argmax() - (curve < -5).int().argmax()) / RATE
        assert t30 == pytest.approx(float(rt60), rel=0.15)


def test_equaliser_has_the_drawn_gains():
    x, lengths = white(3, 30.0)
    y, drawn = apply(x, lengths, **{**NOTHING, "equalise": 1.0})
    (power, hertz), (before, _) = spectrum(y), spectrum(x)
    ratio = 10 * torch.log10(power / before)
    centres = 700 * ((1 + 8000 / 700) ** (torch.arange(BANDS) / (BANDS - 1)) - 1)
    did_you_mean = (
        (hertz[None] - centres[1:-1, None]).abs().argmin(1)
    )  # at 0 and 8,000 Hz there is half a band to measure
    measured, wanted = ratio[:, did_you_mean], drawn["equalise_db"][:, 1:-1]
    difference = measured - wanted
    assert (difference - difference.mean(1, keepdim=True)).abs().max() < 1.0  # the level is restored: up to a constant
    assert wanted.std() > 2


def test_gain_is_the_change_of_level():
    x, lengths = white(8, 1.0)
    y, drawn = apply(x, lengths, equalise=1.0, reverb=1.0, noise=1.0, band_limit=1.0, gain=1.0)
    change = 10 * torch.log10(y.square().sum(1) / x.square().sum(1))
    torch.testing.assert_close(change, drawn["gain_db"], atol=0.01, rtol=0)
    y, _ = apply(x, lengths, equalise=1.0, reverb=1.0, noise=1.0, band_limit=1.0, gain=0.0)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1))


def test_each_is_drawn_with_its_probability():
    torch.manual_seed(0)
    shares = {"equalise": 0.8, "reverb": 0.4, "noise": 0.6, "band_limit": 0.3, "gain": 0.9, "telephone": 0.25}
    augment = SpeechAugment(**shares)
    drawn = [augment.draw(100, "cpu") for _ in range(10)]
    for name, share in shares.items():
        assert torch.cat([d[name] for d in drawn]).float().mean() == pytest.approx(share, abs=0.06)  # 4 deviations
    together = torch.cat([d["noise"] & d["reverb"] for d in drawn]).float().mean()
    assert together == pytest.approx(0.24, abs=0.055)  # independent of each other
    for value in (0.0, 1.0):
        drawn = SpeechAugment(**dict.fromkeys(shares, value)).draw(200, "cpu")
        assert all((drawn[name] == bool(value)).all() for name in shares)
    for name, (least, most) in augment.ranges.items():
        assert least <= drawn[name].min() < drawn[name].max() <= most


# Nothing else


@pytest.mark.parametrize("padding", [0, 1, 30000])
def test_an_utterance_is_the_same_however_far_it_is_padded(padding):
    lengths = torch.tensor([9000, 20000, 401])
    augment = SpeechAugment(equalise=1.0, reverb=1.0, noise=1.0, band_limit=1.0)
    x, _ = white(3, 20000 / RATE)
    torch.manual_seed(3)
    expected = augment(x, lengths)
    rubbish = torch.full((3, padding), math.nan)
    padded = torch.cat([x, rubbish], dim=1)
    for row, length in zip(padded, lengths):
        row[length:] = math.inf
    torch.manual_seed(3)
    y = augment(padded, lengths)
    torch.testing.assert_close(y[:, :20000], expected, rtol=1e-4, atol=1e-6)
    assert all((row[length:] == 0).all() for row, length in zip(y, lengths))


def test_an_utterance_is_the_same_alone():
    lengths = torch.tensor([9000, 20000, 401])
    augment = SpeechAugment(equalise=1.0, reverb=1.0, noise=1.0, band_limit=1.0)
    x, _ = white(3, 20000 / RATE)
    drawn = augment.draw(3, "cpu")
    together = augment.transform(x, lengths, drawn)
    for i, length in enumerate(lengths):
        alone = augment.transform(
            x[i : i + 1, :length], lengths[i : i + 1], {k: v[i : i + 1] for k, v in drawn.items()}
        )
        torch.testing.assert_close(alone[0], together[i, :length], rtol=1e-4, atol=1e-6)


def test_the_seed_decides():
    x, lengths = white(2, 0.5)
    augment = SpeechAugment()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(augment(x, lengths))
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[0] - outputs[2]).abs().amax(1).min() > 0.01
    assert (outputs[0][0] - outputs[0][1]).abs().max() > 0.01
    torch.manual_seed(1)
    same = augment(x[:1].expand(2, -1), lengths)
    assert (same[0] - same[1]).abs().max() > 0.01  # two utterances of a batch differ in more than what is said


def test_silence_click_and_offset_stay_finite():
    x = torch.zeros(4, 8000)
    x[1, 4000] = 1.0
    x[2] = 0.5
    x[3, 0] = 1e-12
    lengths = torch.tensor([8000, 8000, 8000, 1])
    for seed in range(3):
        y, _ = apply(x, lengths, seed, equalise=1.0, reverb=1.0, noise=1.0, band_limit=1.0)
        assert y.isfinite().all()
        assert y[0].abs().max() < 1e-6


def test_longer_than_the_noises_period():
    x, lengths = white(1, (NOISE_PERIOD + 5000) / RATE)
    y, _ = apply(x, lengths, **{**NOTHING, "noise": 1.0}, snr_db=(-60, -60))
    assert y.shape == x.shape
    torch.testing.assert_close(y[:, NOISE_PERIOD:], y[:, :5000], rtol=0.05, atol=1e-3)  # seamless, again


def test_evaluation_leaves_speech_alone():
    x, lengths = white(2, 0.5)
    lengths[1] = 5000
    y = SpeechAugment().eval()(x, lengths)
    assert torch.equal(y[0], x[0]) and torch.equal(y[1, :5000], x[1, :5000]) and not y[1, 5000:].any()


def test_types_and_gradients():
    x, lengths = white(2, 0.5)
    augment = SpeechAugment()
    torch.manual_seed(0)
    expected = augment(x, lengths)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        y = augment(x.clone().requires_grad_(), lengths)
    assert y.dtype == torch.float32 and not y.requires_grad
    torch.testing.assert_close(y, expected)
    assert not list(augment.parameters()) and not augment.state_dict()


def test_in_a_yaml_as_speechbrain_calls_it():
    augment = load_hyperpyyaml("x: !new:korser.nn.speech_augment.RelativeSpeechAugment {band_limit: 0.1}")["x"]
    assert isinstance(augment, RelativeSpeechAugment) and augment.probabilities["band_limit"] == 0.1
    x, _ = white(2, 0.5)
    relative = torch.tensor([1.0, 0.625])
    torch.manual_seed(0)
    y, returned = augment(x, relative)
    assert returned is relative
    torch.manual_seed(0)
    expected = SpeechAugment(band_limit=0.1)(x, torch.tensor([8000, 5000]))
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("option", "value"),
    [("noise", 1.5), ("telephone", -0.1), ("equalise_db", -1), ("rt60", (0.5, 0.1)), ("rt60", (0.1, 2.0)),
     ("low_pass_hz", (100, 9000)), ("snr_db", (5,))],
)  # fmt: skip
def test_invalid_options_are_refused(option, value):
    with pytest.raises(UserError, match=f"SpeechAugment.{option}=.*: expected "):
        SpeechAugment(**{option: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_the_same_and_nothing_waits_for_it():
    x, lengths = (tensor.cuda() for tensor in white(4, 2.0))
    augment = SpeechAugment().cuda()
    augment(x, lengths)
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = augment(x, lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert y.isfinite().all()
    drawn = augment.draw(4, "cuda")
    expected = SpeechAugment().transform(x.cpu(), lengths.cpu(), {name: value.cpu() for name, value in drawn.items()})
    torch.testing.assert_close(augment.transform(x, lengths, drawn).cpu(), expected, rtol=1e-3, atol=1e-5)
    assert RelativeSpeechAugment()(x, torch.ones(4).cuda())[0].is_cuda
