"""Forward pass of a frozen encoder, with the results of transformers' modules in less time.

What is slow in transformers, and what is done here:

- The group norm behind the first convolution (``feat_extract_norm: group``) reads and writes the largest activation,
  3,200 x 512 per second, a dozen times. But that convolution is linear in a window of 10 samples, so that mean and
  variance of its outputs follow from the mean ``m`` and covariance ``S`` of the windows: ``w_c . m`` and ``w_c' S w_c``
  for channel ``c``. They are summed in float64, since ``w_c' S w_c`` may be a small difference, and the norm becomes
  part of the convolution's weights, which then differ between utterances.
- Activations are stored as (time, channels), so that layer norms need no transposition and a convolution with stride
  ``s`` is one matrix product for every ``s`` taps on a view. Utterances are padded to a multiple of the output frame
  and concatenated; frames of windows across a border are not used.
- The batch is convolved in pieces, so that temporary tensors stay small (:data:`PIECE`), and GELU works in place.
- The positional convolution (128 taps, 16 groups) uses FFTs in blocks, and its weight norm is computed once.
- Attention runs over utterances of equal length without a mask, as flash attention requires. In batches sorted by
  length these runs are few; beyond :data:`MAX_RUNS` a mask is used.
- Under autocast, weights are cast once instead of at every call, and an activation once instead of for each of the
  queries, keys and values. The residual stream, norms and the positional convolution stay in float32, and the samples
  enter the first convolution as sums of two low-precision numbers, which makes its products exact to 16 bits.
- There is one host synchronisation, for the lengths.

Shape legend: ``B`` utterances, ``T`` samples, ``F`` frames (50 per second), ``C`` channels, ``H`` heads.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from korser.frontend.lengths import length_mask, mask_padding, receptive_field
from korser.plugins.frontends import triton_support
from korser.plugins.frontends.encoder.families.waveform.convolutions import (
    cast,
    convolution_weights,
    convolve,
    fft_convolve,
    fft_weights,
    split_products,
)

__all__ = ["FrozenEncoder", "add_norm"]

MAX_RUNS = 32  # runs of utterances of equal length, whose attention is computed one after the other
PIECE = {"cpu": 200, "cuda": 3200}  # frames that are convolved at once

Weights = dict[nn.Module, Any]  # derived weights by module


class FrozenEncoder:
    """Hidden states of a frozen transformers model, as its own forward pass gives them without gradient.

    Weights in the required layout and dtype are derived at the first call, and again when a parameter was moved,
    replaced or changed in place (except through ``.data``, which torch does not track). They are not part of the state
    dict.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A wav2vec 2.0, HuBERT, WavLM or data2vec-audio model in eval mode; for which :meth:`supports` is true.
    compiled : bool
        Fuse norms with neighbouring operations by ``torch.compile``.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.model = model
        self.compiled = compiled
        self._norm_activate, self._add_norm = (
            torch.compile(function, dynamic=True) if compiled else function for function in (norm_activate, add_norm)
        )
        self.stamp = self.sources = self.derived = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "stamp": None, "sources": None, "derived": None}  # copies derive their own

    @staticmethod
    def supports(model: nn.Module) -> bool:
        """Return whether a model can be computed: frozen float32 parameters, no adapters (MMS)."""
        adapters = getattr(model.config, "adapter_attn_dim", None) is not None
        return not adapters and all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())

    def __call__(
        self, x: torch.Tensor, lengths: torch.Tensor, frames: torch.Tensor, every_layer: bool
    ) -> list[torch.Tensor]:
        """Compute hidden states.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` float32 waveform, normalised if the checkpoint requires it, zero beyond ``lengths``.
        lengths, frames : torch.Tensor
            ``(B,)`` int64, samples and output frames of each utterance.
        every_layer : bool
            Return all hidden states instead of the last.

        Returns
        -------
        list of torch.Tensor
            Layers 0 to top, or only the top; each ``(B, F, C)`` float32, ``F`` the largest of ``frames``; arbitrary
            beyond an utterance's frames.
        """
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with torch.autocast(kind, enabled=False):
            weights = self._weights(dtype)
            sizes = frames.tolist()  # the one host synchronisation
            runs = [(n, len(list(run))) for n, run in itertools.groupby(sizes)]
            y = self._extract(x, lengths, max(sizes), weights, dtype)
            padded = frames if len(runs) > 1 else None
            mask = length_mask(frames, max(sizes))[:, None, None] if len(runs) > MAX_RUNS else None
            return self._encode(y, padded, runs, mask, weights, dtype, every_layer)

    # ---- convolutional feature extractor ----------------------------------------------------------------------------

    def _extract(
        self, x: torch.Tensor, lengths: torch.Tensor, n_frames: int, weights: Weights, dtype: torch.dtype
    ) -> torch.Tensor:
        """``(B, T)`` -> ``(B, F, C)`` in ``dtype``."""
        config = self.model.config
        hop, reach = math.prod(config.conv_stride), receptive_field(config.conv_kernel, config.conv_stride)
        more = -(-(reach - hop) // hop)  # frames on whose samples the last frame depends
        first = self._first_weights(x, lengths, weights)
        x = F.pad(x, (0, hop * (n_frames + more) - x.shape[1]))  # may crop samples that no frame depends on

        y = x.new_empty(len(x), n_frames, config.conv_dim[-1], dtype=dtype)
        piece = PIECE["cpu" if x.device.type == "cpu" else "cuda"]
        rows, columns = max(1, piece // n_frames), min(piece, n_frames)
        for b, f in itertools.product(range(0, len(x), rows), range(0, n_frames, columns)):
            part = y[b : b + rows, f : f + columns]
            samples = x[b : b + rows, hop * f : hop * (f + part.shape[1] + more)]
            out = self._convolutions(samples, first[b : b + rows], weights, dtype)
            part.copy_(out.view(len(samples), -1, out.shape[-1])[:, : part.shape[1]])
        return y

    def _first_weights(self, x: torch.Tensor, lengths: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return joint weights and offset of the first convolution and its group norm, ``(B, taps + 1, C)`` float32."""
        layer = self.model.feature_extractor.conv_layers[0]
        w = weights[layer]  # (taps, C) float64
        bias = torch.zeros_like(w[0]) if layer.conv.bias is None else layer.conv.bias.double()
        norm = getattr(layer, "layer_norm", None)
        if not isinstance(norm, torch.nn.GroupNorm):
            return torch.cat([w, bias[None]]).float().expand(len(x), -1, -1)
        taps, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        windows = x.unfold(1, taps, stride).double()  # (B, n, taps)
        count = (lengths - taps) // stride + 1
        windows = mask_padding(windows, count)
        count = count[:, None, None]
        mean = windows.sum(1, keepdim=True) / count  # (B, 1, taps)
        covariance = windows.mT @ windows / count - mean.mT @ mean  # (B, taps, taps)
        variance = ((covariance @ w) * w).sum(1, keepdim=True).clamp(min=0)  # (B, 1, C)
        w = w * (norm.weight.double() / (variance + norm.eps).sqrt())  # (B, taps, C)
        return torch.cat([w, norm.bias.double() - mean @ w], 1).float()  # the convolution's bias is in its mean too

    def _convolutions(self, x: torch.Tensor, first: torch.Tensor, weights: Weights, dtype: torch.dtype) -> torch.Tensor:
        """``(B, T)``, ``T`` a multiple of a frame -> ``(B * F, C)``, arbitrary in the last frames of an utterance."""
        layers = self.model.feature_extractor.conv_layers
        taps, stride = layers[0].conv.kernel_size[0], layers[0].conv.stride[0]
        windows = F.pad(x, (0, taps - stride)).unfold(1, taps, stride)
        windows = torch.cat([windows, windows.new_ones(*windows.shape[:2], 1)], -1)  # (B, n, taps + 1)
        if dtype != torch.float32:
            windows, first = split_products(windows, first, dtype)
        y = torch.bmm(windows, first).flatten(0, 1)  # (B * n, C)
        for layer in layers:
            if layer is not layers[0]:
                y = convolve(y, layer.conv.stride[0], *weights[layer])
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.LayerNorm):
                y = self._norm_activate(y, norm.weight, norm.bias, norm.eps, layer.activation)
            else:
                y = activate(layer.activation, y)
        return y

    # ---- transformer ------------------------------------------------------------------------------------------------

    def _encode(
        self,
        y: torch.Tensor,
        padded: torch.Tensor | None,
        runs: list[tuple[int, int]],
        mask: torch.Tensor | None,
        weights: Weights,
        dtype: torch.dtype,
        every_layer: bool,
    ) -> list[torch.Tensor]:
        """``(B, F, C)`` -> hidden states; ``padded``: the frames if utterances differ in length, else None."""
        projection, encoder = self.model.feature_projection, self.model.encoder
        stable = getattr(self.model.config, "do_stable_layer_norm", False)

        if hasattr(projection, "layer_norm"):
            y = projection.layer_norm(y.float()).to(dtype)
        h = F.linear(y, *weights[projection.projection]).float()
        h = cut(h, padded)
        h = h + self._positions(h, padded, weights)
        if not stable:
            h = encoder.layer_norm(h)
            a = h.to(dtype)  # input of the next matrix product

        add_norm = self._add_norm
        if h.is_cuda and not self.compiled and triton_support.is_available():
            from korser.plugins.frontends.encoder.families.waveform.triton import add_norm
        states, bias = [h], None
        for layer in encoder.layers:
            if hasattr(layer.attention, "rel_attn_embed"):  # WavLM, whose first layer has it for all
                bias = layer.attention.compute_bias(h.shape[1], h.shape[1])  # (H, F, F)
            attention = functools.partial(attend, layer.attention, bias, runs, mask, weights)
            first, second = layer.layer_norm, layer.final_layer_norm
            if stable:
                h = h + attention(first(h).to(dtype))
                h = h + feed_forward(layer.feed_forward, second(h).to(dtype), weights)
            else:
                h, a = add_norm(h, attention(a), first.weight, first.bias, first.eps)
                h, a = add_norm(h, feed_forward(layer.feed_forward, a, weights), second.weight, second.bias, second.eps)
            states = [*states, h] if every_layer else [h]
        if stable:
            states[-1] = encoder.layer_norm(h)
        return states

    def _positions(self, h: torch.Tensor, padded: torch.Tensor | None, weights: Weights) -> torch.Tensor:
        """Compute the positional embedding of ``(B, F, C)``."""
        embed = self.model.encoder.pos_conv_embed
        if hasattr(embed, "layers"):  # data2vec-audio
            for layer in embed.layers:
                h = fft_convolve(h, *weights[layer])
                h = cut(activate(layer.activation, layer.layer_norm(h)), padded)
            return h
        norm = getattr(embed, "batch_norm", None)  # HuBERT
        if norm is not None:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            h = cut((h - norm.running_mean) * scale + norm.bias, padded)
        return activate(embed.activation, fft_convolve(h, *weights[embed]))

    # ---- weights ----------------------------------------------------------------------------------------------------

    def _weights(self, dtype: torch.dtype) -> Weights:
        """Return derived weights by module, computed again if a parameter or buffer has changed."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        stamp = [dtype, *((t.data_ptr(), t._version, t.device) for t in tensors if not t.is_inference())]
        if stamp != self.stamp or any(t.is_inference() for t in tensors):  # inference tensors have no version
            self.derived = self._derive(dtype)
            self.stamp, self.sources = stamp, [t.detach() for t in tensors]  # kept, so that no address is reused
        return self.derived

    def _derive(self, dtype: torch.dtype) -> Weights:
        extractor, encoder = self.model.feature_extractor, self.model.encoder
        first, *others = extractor.conv_layers
        derived = {first: first.conv.weight[:, 0].T.double()}
        derived |= {layer: convolution_weights(layer.conv, dtype) for layer in others}
        for module in self.model.modules():
            if isinstance(module, torch.nn.Linear):
                derived[module] = module.weight.to(dtype), cast(module.bias, dtype)
        embed = encoder.pos_conv_embed
        for module in getattr(embed, "layers", [embed]):
            derived[module] = fft_weights(module.conv)
        return derived


def activate(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Apply an activation; GELU in place, since a large new tensor costs more than the function."""
    return torch.ops.aten.gelu_(x) if isinstance(function, GELUActivation) else function(x)


def norm_activate(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    function: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Apply layer norm and activation in float32; return the dtype of ``x``.

    The error of a rounded scale and offset would be the same in every frame and add up over the layers.
    """
    return activate(function, F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps)).to(x.dtype)


def add_norm(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the layer norm of ``x + y``, in float32 and in the dtype of ``y``."""
    z = F.layer_norm(x + y, x.shape[-1:], weight, bias, eps)
    return z, z.to(y.dtype)


def cut(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Set ``x`` to zero beyond ``lengths``, if given."""
    return x if lengths is None else mask_padding(x, lengths)


def feed_forward(layers: nn.Module, x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Apply the two linear layers behind the attention."""
    x = activate(layers.intermediate_act_fn, F.linear(x, *weights[layers.intermediate_dense]))
    return F.linear(x, *weights[layers.output_dense])


def attend(
    attention: nn.Module,
    bias: torch.Tensor | None,
    runs: list[tuple[int, int]],
    mask: torch.Tensor | None,
    weights: Weights,
    x: torch.Tensor,
) -> torch.Tensor:
    """Compute multi-head self-attention of ``(B, F, C)``, arbitrary beyond an utterance's frames.

    Parameters
    ----------
    bias : torch.Tensor or None
        ``(H, F, F)``, WavLM's relative position bias.
    runs : list of (int, int)
        Number of frames, and how many consecutive utterances have it.
    mask : torch.Tensor or None
        ``(B, 1, 1, F)`` bool; if given, runs are not used.
    """
    n_frames = x.shape[1]
    heads = (attention.num_heads, attention.head_dim)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (F.linear(x, *weights[p]).unflatten(-1, heads).transpose(1, 2) for p in projections)  # (B, H, F, C / H)
    gate = None if bias is None else position_gate(attention, x.unflatten(-1, heads).transpose(1, 2), weights)

    def scores_bias(rows: slice, n: int) -> torch.Tensor | None:
        return None if bias is None else (gate[rows, :, :n] * bias[:, :n, :n]).to(x.dtype)

    if len(runs) == 1 or mask is not None:
        scores = scores_bias(slice(None), n_frames)
        if mask is not None:
            scores = mask if scores is None else scores.masked_fill(~mask, -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=scores).transpose(1, 2).flatten(2)
    else:
        y, start = torch.zeros_like(x), 0
        for n, many in runs:
            rows = slice(start, start + many)
            part = (t[rows, :, :n] for t in (q, k, v))
            out = F.scaled_dot_product_attention(*part, attn_mask=scores_bias(rows, n))
            y[rows, :n] = out.transpose(1, 2).flatten(2)
            start += many
    return F.linear(y, *weights[attention.out_proj])


def position_gate(attention: nn.Module, x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Return the gate of WavLM's position bias (arXiv 2110.13900), ``(B, H, F, C / H)`` -> ``(B, H, F, 1)``."""
    gates = F.linear(x, *weights[attention.gru_rel_pos_linear]).float().unflatten(-1, (2, 4)).sum(-1).sigmoid()
    a, b = gates.chunk(2, dim=-1)
    return a * (b * attention.gru_rel_pos_const - 1) + 2
