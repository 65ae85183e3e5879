"""A frozen encoder's forward pass, with the arithmetic of transformers' modules in an order that machines like better.

What is slow in the plain forward pass, and what is done here:

- The group norm behind the first convolution (``feat_extract_norm: group``) reads and writes the largest activation,
  3,200 x 512 a second, a dozen times. But that convolution is linear in a window of 10 samples, so the mean and
  variance of its outputs follow from the mean ``m`` and covariance ``S`` of the windows: channel ``c`` has ``w_c . m``
  and ``w_c' S w_c``. They are summed in float64, since ``w_c' S w_c`` may be a small difference, and the norm becomes
  part of the convolution's weights, for each utterance its own.
- Activations lie as (time, channels), so that layer norms need no transposition and a convolution with stride ``s`` is
  one matrix product for every ``s`` taps on a view, without copies (:func:`convolve`). Utterances are padded to a whole
  number of output frames and lie behind one another in one long matrix; a window across a border gives only a frame
  that nobody reads.
- The batch goes through the convolutions in pieces, so that temporaries stay small (:data:`PIECE`), GELU in place.
- The positional convolution (128 taps, 16 groups) is done by FFT in blocks (overlap-save), its weight norm once.
- Attention runs over utterances of equal length without a mask, as flash attention wants it. In batches sorted by
  length these are few; beyond :data:`MAX_RUNS` a mask is used.
- Under autocast the weights are cast once and not at every call, an activation once and not for each of the queries,
  keys and values. The residual stream, norms and the positional convolution stay in float32, and the samples enter the
  first convolution as a sum of two low-precision numbers each, which makes its products exact to 16 bits.
- There is one host synchronisation, for the lengths.

Shape legend: ``B`` utterances, ``T`` samples, ``F`` frames (50 a second), ``C`` channels, ``H`` heads, ``G`` groups.
"""

import functools
import itertools
import math

import torch
from torch.nn import functional as F
from transformers.activations import GELUActivation

from korser.frontend.lengths import length_mask, mask_padding
from korser.plugins.frontends import triton_support

MAX_RUNS = 32  # of equal length, in which attention is computed one after the other
PIECE = {"cpu": 200, "cuda": 3200}  # frames that go through the convolutions at once


class FrozenEncoder:
    """Hidden states of a frozen transformers model without gradient, as its own forward pass gives them.

    Weights in the layout or dtype that is needed here are derived at the first call and again whenever a parameter was
    moved, replaced or changed in place (but for changes through ``.data``, which torch does not track). They are no
    part of the state dict.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A wav2vec 2.0, HuBERT, WavLM or data2vec-audio model in eval mode; :meth:`supports` says whether it will do.
    every : bool
        Give all hidden states and not the last alone.
    compiled : bool
        Let ``torch.compile`` fuse norms with what is beside them.
    """

    def __init__(self, model, every=False, compiled=False):
        self.model = model
        self.every = every
        self.compiled = compiled
        self._norm_activate, self._add_norm = (
            torch.compile(function, dynamic=True) if compiled else function for function in (norm_activate, add_norm)
        )
        self.stamp = self.sources = self.derived = None

    def __getstate__(self):
        return {**self.__dict__, "stamp": None, "sources": None, "derived": None}  # copies derive their own

    @staticmethod
    def supports(model):
        """Return whether a model can be computed: float32 parameters, no adapters (MMS)."""
        adapters = getattr(model.config, "adapter_attn_dim", None) is not None
        return not adapters and all(p.dtype == torch.float32 for p in model.parameters())

    def __call__(self, x, lengths, frames):
        """Compute hidden states.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` float32 waveform, normalised if the checkpoint wants it, zero past ``lengths``.
        lengths, frames : torch.Tensor
            ``(B,)`` int64, samples and output frames of each utterance.

        Returns
        -------
        list of torch.Tensor
            Layers 0 to top, or the top alone; each ``(B, F, C)`` float32, ``F`` the largest of ``frames``; arbitrary
            past an utterance's frames.
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
            return self._encode(y, padded, runs, mask, weights, dtype)

    # ---- convolutional feature extractor ----------------------------------------------------------------------------

    def _extract(self, x, lengths, n_frames, weights, dtype):
        """``(B, T)`` -> ``(B, F, C)`` in ``dtype``."""
        config = self.model.config
        hop, reach = math.prod(config.conv_stride), receptive_field(config.conv_kernel, config.conv_stride)
        more = -(-(reach - hop) // hop)  # frames whose samples the last frame reaches into
        first = self._first_weights(x, lengths, weights)
        x = F.pad(x, (0, hop * (n_frames + more) - x.shape[1]))  # may crop what no frame sees

        y = x.new_empty(len(x), n_frames, config.conv_dim[-1], dtype=dtype)
        piece = PIECE["cpu" if x.device.type == "cpu" else "cuda"]
        rows, columns = max(1, piece // n_frames), min(piece, n_frames)
        for b, f in itertools.product(range(0, len(x), rows), range(0, n_frames, columns)):
            part = y[b : b + rows, f : f + columns]
            samples = x[b : b + rows, hop * f : hop * (f + part.shape[1] + more)]
            out = self._convolutions(samples, first[b : b + rows], weights, dtype)
            part.copy_(out.view(len(samples), -1, out.shape[-1])[:, : part.shape[1]])
        return y

    def _first_weights(self, x, lengths, weights):
        """Weights and offset of the first convolution and its group norm in one, ``(B, taps + 1, C)`` float32."""
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

    def _convolutions(self, x, first, weights, dtype):
        """``(B, T)``, ``T`` a whole number of frames -> ``(B * F, C)``, the last frames of each utterance arbitrary."""
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

    def _encode(self, y, padded, runs, mask, weights, dtype):
        """``(B, F, C)`` -> hidden states; ``padded``: the frames where utterances differ in length, else None."""
        projection, encoder = self.model.feature_projection, self.model.encoder
        stable = getattr(self.model.config, "do_stable_layer_norm", False)

        if hasattr(projection, "layer_norm"):
            y = projection.layer_norm(y.float()).to(dtype)
        h = F.linear(y, *weights[projection.projection]).float()
        h = cut(h, padded)
        h = h + self._positions(h, padded, weights)
        if not stable:
            h = encoder.layer_norm(h)
            a = h.to(dtype)  # what the next matrix reads

        add_norm = self._add_norm
        if h.is_cuda and not self.compiled and triton_support.is_available():
            from korser.plugins.frontends.wav2vec.triton import add_norm
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
            states = [*states, h] if self.every else [h]
        if stable:
            states[-1] = encoder.layer_norm(h)
        return states

    def _positions(self, h, padded, weights):
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

    def _weights(self, dtype):
        """Return derived weights by module, computed again if a parameter or buffer has changed."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        stamp = [dtype, *((t.data_ptr(), t._version, t.device) for t in tensors if not t.is_inference())]
        if stamp != self.stamp or any(t.is_inference() for t in tensors):  # of inference tensors torch keeps no version
            self.derived = self._derive(dtype)
            self.stamp, self.sources = stamp, [t.detach() for t in tensors]  # held, so that no address is used again
        return self.derived

    def _derive(self, dtype):
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


def receptive_field(kernels, strides):
    """Return the number of samples that one frame behind a stack of convolutions depends on."""
    n = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        n = (n - 1) * stride + kernel
    return n


def activate(function, x):
    """Apply an activation, GELU in place: a large new tensor costs more than the function."""
    return torch.ops.aten.gelu_(x) if isinstance(function, GELUActivation) else function(x)


def norm_activate(x, weight, bias, eps, function):
    """Layer norm and activation in float32; the dtype of ``x`` comes out.

    Of a rounded scale and offset the error would be the same in every frame and add up over the layers.
    """
    return activate(function, F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps)).to(x.dtype)


def add_norm(x, y, weight, bias, eps):
    """Layer norm of ``x + y``, in float32 and in the dtype of ``y``."""
    z = F.layer_norm(x + y, x.shape[-1:], weight, bias, eps)
    return z, z.to(y.dtype)


def cut(x, lengths):
    """Zero past ``lengths``, where there are such."""
    return x if lengths is None else mask_padding(x, lengths)


def split_products(a, b, dtype):
    """Factors of low precision whose product is ``a @ b`` to twice that precision.

    ``a = a1 + a2`` and ``b = b1 + b2``, each of ``dtype``; ``[a1, a2, a1] @ [b1; b1; b2]`` lacks only ``a2 @ b2``. The
    inner dimension is filled up with zeros to a multiple of 8, as tensor cores want it.

    Example
    -------
    >>> a, b = torch.randn(1, 4, 11), torch.randn(1, 11, 5)
    >>> u, v = split_products(a, b, torch.bfloat16)
    >>> u.shape, bool((u.float() @ v.float() - a @ b).abs().max() < 1e-4)
    (torch.Size([1, 4, 40]), True)
    """
    a1, b1 = a.to(dtype), b.to(dtype)
    a2, b2 = (a - a1).to(dtype), (b - b1).to(dtype)
    fill = -3 * a.shape[-1] % 8
    return F.pad(torch.cat([a1, a2, a1], -1), (0, fill)), F.pad(torch.cat([b1, b1, b2], -2), (0, 0, 0, fill))


def cast(x, dtype):
    """``x`` in another dtype, if there is an ``x``."""
    return None if x is None else x.to(dtype)


def convolution_weights(conv, dtype):
    """For :func:`convolve`: one matrix for every ``stride`` taps, and the bias."""
    w = conv.weight.permute(2, 1, 0).to(dtype)  # (taps, C in, C out)
    return [part.flatten(0, 1) for part in w.split(conv.stride[0])], cast(conv.bias, dtype)


def convolve(x, stride, matrices, bias):
    """Strided convolution by matrix products on views.

    Parameters
    ----------
    x : torch.Tensor
        ``(n, C)``, ``n`` a multiple of ``stride``.
    stride : int
    matrices : list of torch.Tensor
        ``(taps * C, C')`` each, for taps 0 to ``stride - 1`` and so on.
    bias : torch.Tensor or None

    Returns
    -------
    torch.Tensor
        ``(n / stride, C')``; rows whose window reaches beyond ``x`` are arbitrary.
    """
    x = x.view(len(x) // stride, -1)
    if bias is None:
        y = x[:, : len(matrices[0])] @ matrices[0]
    else:
        y = torch.addmm(bias, x[:, : len(matrices[0])], matrices[0])
    for i, matrix in enumerate(matrices[1:], 1):
        y[: len(y) - i].addmm_(x[i:, : len(matrix)], matrix)
    return y


def fft_weights(conv):
    """For :func:`fft_convolve`: spectra of a grouped convolution, ``(bins, G, C / G, C / G)``, its bias, two sizes."""
    taps = conv.kernel_size[0]
    size = 2 ** math.ceil(math.log2(2 * taps))
    spectrum = torch.fft.rfft(conv.weight, n=size).conj()  # (C, C / G, bins); conj: a correlation
    spectrum = spectrum.unflatten(0, (conv.groups, -1)).permute(3, 0, 2, 1).resolve_conj().contiguous()
    return spectrum, conv.bias, taps, size


def fft_convolve(x, spectrum, bias, taps, size):
    """Convolve in groups over time, centred, zero-padded, in blocks of ``size - taps + 1`` frames (overlap-save).

    With an even number of taps frame ``t`` sees ``t - taps / 2`` to ``t + taps / 2 - 1``, as in fairseq.

    Parameters
    ----------
    x : torch.Tensor
        ``(B, F, C)`` float32.
    spectrum, bias, taps, size
        From :func:`fft_weights`.

    Returns
    -------
    torch.Tensor
        ``(B, F, C)``.
    """
    B, n_frames, C = x.shape
    hop = size - taps + 1
    n = -(-n_frames // hop)
    x = F.pad(x, (0, 0, taps // 2, n * hop + taps - 1 - taps // 2 - n_frames))
    blocks = torch.fft.rfft(x.unfold(1, size, hop))  # (B, n, C, bins)
    blocks = blocks.flatten(0, 1).unflatten(1, spectrum.shape[1:3]).permute(3, 1, 0, 2)  # (bins, G, B * n, C / G)
    y = torch.fft.irfft((blocks @ spectrum).permute(2, 1, 3, 0), n=size)[..., :hop]  # (B * n, G, C / G, hop)
    return y.reshape(B, n, C, hop).transpose(2, 3).reshape(B, n * hop, C)[:, :n_frames] + bias


def feed_forward(layers, x, weights):
    """Apply the two linear layers behind the attention."""
    x = activate(layers.intermediate_act_fn, F.linear(x, *weights[layers.intermediate_dense]))
    return F.linear(x, *weights[layers.output_dense])


def attend(attention, bias, runs, mask, weights, x):
    """Multi-head self-attention.

    Parameters
    ----------
    attention : nn.Module
        Of transformers.
    bias : torch.Tensor or None
        ``(H, F, F)``, WavLM's relative position bias.
    runs : list of (int, int)
        Frames, and how many utterances in a row have them.
    mask : torch.Tensor or None
        ``(B, 1, 1, F)`` bool; if given, runs are not used.
    weights : dict
    x : torch.Tensor
        ``(B, F, C)``.

    Returns
    -------
    torch.Tensor
        ``(B, F, C)``, arbitrary past an utterance's frames.
    """
    n_frames = x.shape[1]
    heads = (attention.num_heads, attention.head_dim)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (F.linear(x, *weights[p]).unflatten(-1, heads).transpose(1, 2) for p in projections)  # (B, H, F, C / H)
    gate = None if bias is None else position_gate(attention, x.unflatten(-1, heads).transpose(1, 2), weights)

    def scores_bias(rows, n):
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


def position_gate(attention, x, weights):
    """WavLM's gate of its relative position bias (arXiv 2110.13900), ``(B, H, F, C / H)`` -> ``(B, H, F, 1)``."""
    gates = F.linear(x, *weights[attention.gru_rel_pos_linear]).float().unflatten(-1, (2, 4)).sum(-1).sigmoid()
    a, b = gates.chunk(2, dim=-1)
    return a * (b * attention.gru_rel_pos_const - 1) + 2
