"""A speech emotion recognition model, exported by korser, for transformers: onnxruntime runs model.onnx on a CPU."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, cached_file

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class KorserConfig(PretrainedConfig):
    """Tasks with their classes, and the shortest and longest waveform of the graph in samples."""

    model_type = "korser"


@dataclass
class KorserOutput(ModelOutput):
    """Logits of the main task; of every task, by its name, probabilities or a number, ``(B, K)``."""

    logits: torch.Tensor | None = None
    predictions: dict | None = None


class KorserForAudioClassification(PreTrainedModel):
    """Runs the graph for one waveform after the other; a longer one in equal pieces, whose predictions are averaged."""

    config_class = KorserConfig
    main_input_name = "input_values"

    def __init__(self, config, session):
        super().__init__(config)
        self.session = session
        self.empty = torch.nn.Parameter(torch.zeros(0), requires_grad=False)  # transformers asks for its device

    @classmethod
    def from_pretrained(cls, name, *args, config=None, **options):
        """Load a folder or a repository of the hub."""
        options = {key: value for key, value in options.items() if key in HUB_OPTIONS}
        config = config or KorserConfig.from_pretrained(name, **options)
        cached_file(name, "model.safetensors", **options)  # the weights, which the graph takes from its folder
        graph = cached_file(name, "model.onnx", **options)
        return cls(config, onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])).eval()

    def forward(self, input_values, attention_mask=None, **unused):
        """Predict waveforms ``(B, T)`` at 16 kHz in [-1, 1]."""
        mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
        rows = [self._predict(x[: int(m.sum())].float().cpu().numpy()) for x, m in zip(input_values, mask)]
        columns = [torch.from_numpy(np.stack(column)).to(input_values.device) for column in zip(*rows)]
        tasks = self.config.tasks
        main = columns[0].clamp(min=1e-30).log() if tasks[0]["classes"] else columns[0]
        return KorserOutput(logits=main, predictions={task["name"]: p for task, p in zip(tasks, columns)})

    def _predict(self, waveform):
        if len(waveform) < self.config.shortest_input:
            raise ValueError(f"{len(waveform)} samples at 16 kHz: expected at least {self.config.shortest_input}")
        pieces = np.array_split(waveform, -(-len(waveform) // self.config.longest_input))
        names = [task["name"] for task in self.config.tasks]
        found = [self.session.run(names, {"waveform": np.ascontiguousarray(piece[None])}) for piece in pieces]
        return [np.mean(outputs, 0)[0] for outputs in zip(*found)]
