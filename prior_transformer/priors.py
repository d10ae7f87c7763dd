"""The priors that there are, by the `model_type` that their config.json and a preset's `model` say."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .configuration_stream import StreamConfig
from .modeling_llama_prior import LlamaPrior
from .modeling_prior_transformer import PriorTransformer
from .stream import StreamPrior

PRIORS: dict[str, type[StreamPrior]] = {
    prior.config_class.model_type: prior for prior in (PriorTransformer, LlamaPrior)
}


def prior_class(model_type: str) -> type[StreamPrior]:
    """Raises a `ValueError` that names those there are for another one."""
    if model_type not in PRIORS:
        raise ValueError(f"model_type={model_type!r} is no prior's; there are {', '.join(PRIORS)}")
    return PRIORS[model_type]


def prior_config(settings: dict[str, Any]) -> StreamConfig:
    """The config of these settings, of a `PriorTransformer` unless their `model_type` says another prior."""
    settings = {"model_type": PriorTransformer.config_class.model_type, **settings}
    return prior_class(settings.pop("model_type")).config_class(**settings)


def build_prior(config: StreamConfig) -> StreamPrior:
    """An untrained prior of its config's kind."""
    return prior_class(config.model_type)(config)  # pyright: ignore[reportCallIssue]  # each kind takes it alone


def load_prior(name: str | Path, **options: Any) -> StreamPrior:
    """`from_pretrained` of whichever prior a folder or Hub id holds."""
    return prior_class(_model_type(name, **options)).from_pretrained(name, **options)


def load_prior_config(name: str | Path) -> StreamConfig:
    """The config alone of whichever prior a folder or Hub id holds."""
    return prior_class(_model_type(name)).config_class.from_pretrained(name)


def _model_type(name: str | Path, **options: Any) -> str:
    config, _ = PreTrainedConfig.get_config_dict(name, **options)
    return config.get("model_type", "")
