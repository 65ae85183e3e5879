"""The whole model: frontend -> backbone -> one head per task.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels, ``K`` classes.
"""

from torch import nn

from korser.frontend.base import split_frozen
from korser.frontend.lengths import mask_padding

PREFIX = "frozen_stages."  # of the names of frozen weights in the model's state


class SpeechEmotionModel(nn.Module):
    """A frontend, a backbone and a head.

    Parameters
    ----------
    frontend : korser.Frontend
        Its leading frozen stages become :attr:`prefix`, whose output can be cached.
    backbone : torch.nn.Module
        ``forward(features (B, T, C), lengths (B,)) -> (B, E)``.
    head : torch.nn.Module
        ``forward(embedding (B, E)) -> {task: (B, K)}`` and ``loss``.
    """

    def __init__(self, *, frontend, backbone, head):
        super().__init__()
        prefix, rest = split_frozen(frontend)
        self.frozen_stages = nn.ModuleList(prefix)
        self.trainable_stages = nn.ModuleList(rest)
        self.backbone = backbone
        self.head = head

    def forward(self, x, lengths, *, skip_frozen=False, augment=None):
        """Logits of every task.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveform, or ``(B, T, C)`` output of the frozen prefix if ``skip_frozen``.
        lengths : torch.Tensor
            ``(B,)`` int64, in samples or frames.
        skip_frozen : bool
            Whether the frozen prefix has been applied already.
        augment : callable, optional
            ``(features, lengths) -> (features, lengths, mix)``, applied to what the frontend gives.

        Returns
        -------
        logits : dict of str to torch.Tensor
            ``(B, K)`` for each task.
        mix : tuple or None
            What ``augment`` says about the labels.
        """
        x, lengths = self.features(x, lengths, skip_frozen=skip_frozen)
        mix = None
        if augment is not None:
            x, lengths, mix = augment(x, lengths)
        return self.head(self.backbone(x, lengths)), mix

    def features(self, x, lengths, *, skip_frozen=False):
        """What the frontend gives: ``(B, T', C')`` and ``(B,)``."""
        x = mask_padding(x, lengths, look_first=True)
        if not skip_frozen:
            for stage in self.frozen_stages:
                x, lengths = stage(x, lengths)
        for stage in self.trainable_stages:
            x, lengths = stage(x, lengths)
        return x, lengths

    def train(self, mode=True):
        """Set the training mode; frozen stages stay in eval."""
        super().train(mode)
        for stage in (*self.frozen_stages, *self.trainable_stages):
            stage.train(mode)
        return self

    def trained_state(self):
        """State without the frozen prefix, whose weights come from their own source."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(PREFIX)}

    def load_trained_state(self, state):
        """Load what :meth:`trained_state` gave.

        Raises
        ------
        RuntimeError
            If a name or a shape does not fit.
        """
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [k for k in missing if not k.startswith(PREFIX)]
        if missing or unexpected:
            raise RuntimeError(f"the saved weights do not fit the model: missing {missing}, unexpected {unexpected}")

    def count_parameters(self):
        """Number of parameters, all and trained ones."""
        return (
            sum(p.numel() for p in self.parameters()),
            sum(p.numel() for p in self.parameters() if p.requires_grad),
        )
