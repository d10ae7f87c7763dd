"""The first stages that there are, by the `model_type` that their config.json says.

A first stage has `encode`, `decode`, `reconstruct` and `log_posterior`, and of its config `image_size`, `grid` and
`grid_size`, `codebook_size`, `style_size` and `summary`; with a style also `encode_style`, which `decode` then takes.
Whatever range or map its networks need stays inside: pixels are in [0, 1].
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .configuration_dvae import DVAEConfig
from .configuration_vqgan import VQGANConfig
from .modeling_dvae import DVAE
from .modeling_vqgan import VQGAN

FirstStage = DVAE | VQGAN
FIRST_STAGES: dict[str, type[DVAE] | type[VQGAN]] = {DVAEConfig.model_type: DVAE, VQGANConfig.model_type: VQGAN}
CONFIGS: dict[str, type[DVAEConfig] | type[VQGANConfig]] = {
    config.model_type: config for config in (DVAEConfig, VQGANConfig)
}


def load_first_stage(name: str | Path, **options: Any) -> FirstStage:
    """`from_pretrained` of whichever first stage a folder or Hub id holds."""
    return FIRST_STAGES[_model_type(name, **options)].from_pretrained(name, **options)


def load_first_stage_config(name: str | Path, **options: Any) -> DVAEConfig | VQGANConfig:
    """The config alone of whichever first stage a folder or Hub id holds."""
    return CONFIGS[_model_type(name, **options)].from_pretrained(name, **options)


def _model_type(name: str | Path, **options: Any) -> str:
    """Raises a `ValueError` that names those there are for one that is no first stage's."""
    config, _ = PreTrainedConfig.get_config_dict(name, **options)
    model_type = config.get("model_type", "")
    if model_type not in FIRST_STAGES:
        raise ValueError(f"{name}: model_type={model_type!r} is no first stage's; there are {', '.join(FIRST_STAGES)}")
    return model_type
