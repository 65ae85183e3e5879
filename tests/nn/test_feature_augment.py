import torch

from korser.nn.feature_augment import FeatureAugment


def batch(n=6, time=50, channels=20):
    lengths = torch.randint(1, time + 1, (n,))
    lengths[0] = time
    return torch.randn(n, time, channels) + 3, lengths


def test_off_in_eval():
    x, lengths = batch()
    y, same, mix = FeatureAugment(mixup_alpha=0.3).eval()(x, lengths)
    assert y is x and same is lengths and mix is None


def test_masks_fill_with_the_mean_and_keep_to_their_fractions():
    augment = FeatureAugment(time_masks=1, time_fraction=0.2, channel_masks=1, channel_fraction=0.3, mixup_alpha=0)
    seen = 0
    for seed in range(20):
        torch.manual_seed(seed)
        x, lengths = batch()
        y, _, mix = augment(x, lengths)
        assert mix is None
        for i, n in enumerate(lengths.tolist()):
            changed = (x[i, :n] != y[i, :n]) if n > 1 else torch.zeros(n, x.shape[2], dtype=torch.bool)
            rows, columns = changed.all(1), changed.all(0)
            assert rows.sum() <= 0.2 * n + 1
            assert columns.sum() <= 0.3 * x.shape[2] + 1
            assert torch.equal(changed, rows[:, None] | columns[None])
            mean = x[i, :n].mean(0).expand_as(changed)
            torch.testing.assert_close(y[i, :n][changed], mean[changed])
            seen += int(rows.sum()) + int(columns.sum())
    assert seen > 100


def test_mixup_shares_and_lengths():
    torch.manual_seed(0)
    augment = FeatureAugment(time_masks=0, channel_masks=0, mixup_alpha=0.4)
    x, lengths = batch()
    y, same, (partner, share) = augment(x, lengths)
    assert torch.equal(same, lengths)
    assert torch.equal(partner.sort().values, torch.arange(len(x)))
    assert ((share >= 0.5) & (share <= 1)).all() and share.min() < 0.999
    for i, j in enumerate(partner.tolist()):
        n, m = int(lengths[i]), int(lengths[j])
        both = min(n, m)
        torch.testing.assert_close(y[i, :both], share[i] * x[i, :both] + (1 - share[i]) * x[j, :both])
        assert torch.equal(y[i, both:n], x[i, both:n])


def test_what_lies_in_the_padding_never_leaks():
    x, lengths = batch()
    poisoned = x.clone()
    valid = torch.arange(x.shape[1])[None] < lengths[:, None]
    poisoned[~valid] = float("nan")
    outputs = []
    for features in (x, poisoned):
        torch.manual_seed(3)
        outputs.append(FeatureAugment(mixup_alpha=0.3)(features, lengths)[0][valid])
    assert torch.equal(*outputs)


def test_same_seed_same_draws_whatever_the_width_and_dtype():
    lengths = torch.tensor([9, 7, 3])
    mixes = []
    for channels, dtype in ((1, torch.float32), (64, torch.float64)):
        torch.manual_seed(5)
        x = torch.randn(3, 9, channels, generator=torch.Generator(), dtype=dtype)
        y, _, mix = FeatureAugment(mixup_alpha=0.3)(x, lengths)
        assert y.dtype == dtype
        mixes.append(mix)
    assert torch.equal(mixes[0][0], mixes[1][0])
    torch.testing.assert_close(mixes[0][1].double(), mixes[1][1])


def test_input_is_not_changed_and_gradients_flow():
    torch.manual_seed(0)
    x, lengths = batch()
    x.requires_grad_()
    before = x.detach().clone()
    y, _, _ = FeatureAugment(mixup_alpha=0.3)(x, lengths)
    y.sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad.abs().sum() > 0


def test_one_frame_of_one_channel():
    y, lengths, _ = FeatureAugment(mixup_alpha=0.3)(torch.ones(1, 1, 1), torch.tensor([1]))
    assert torch.equal(y, torch.ones(1, 1, 1)) and lengths.tolist() == [1]
