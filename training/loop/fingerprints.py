"""Fingerprints: two things of one fingerprint are the same, whatever they are called and wherever they lie."""

import hashlib
import json
from typing import Any

from torch import Tensor

from dvae import FirstStage
from pipelines.folder.fingerprints import weights_digest, weights_digests
from prior_transformer import PriorTokenizer, StreamPrior

LATER = ("encoder_padding", "input_map", "pooled_halvings")  # of a config, since `codes_digests_of_before`


def digest_of(settings: dict[str, Any]) -> str:
    """Of whatever JSON holds, its keys in any order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def tokenizer_digest(tokenizer: PriorTokenizer) -> str:
    """Of its tokens and their ids, which a prior's text embedding learned the meaning of."""
    return digest_of(tokenizer.get_vocab())


def encoder_fact(prior: StreamPrior) -> dict[str, list[str]]:
    """The fact of its text encoder, in every precision that it may have been stored in; {} of one that has none."""
    encoder = prior.text_encoder
    return {} if encoder is None else {"text_encoder": weights_digests(encoder.state_dict())}


def codes_digest(dvae: FirstStage) -> str:
    """Of what decides the codes of a picture: the encoder's and the posterior's weights, and how they compute."""
    return weights_digest(_makes_codes(dvae), dvae.config.code_settings())


def codes_digests(dvae: FirstStage) -> list[str]:
    """`codes_digest`, and those of the same dVAE stored in half precision, as pipelines are."""
    return weights_digests(_makes_codes(dvae), dvae.config.code_settings())


def _makes_codes(dvae: FirstStage) -> dict[str, Tensor]:
    return {**dvae.encoder.state_dict(prefix="encoder."), **dvae.posterior.state_dict(prefix="posterior.")}


def codes_digests_of_before(dvae: FirstStage) -> list[str]:
    """
    What caches had for `codes_digest` at first: it hashed the whole config, with transformers' version in it, so there
    is one for the version here and one for that which saved the dVAE.
    """
    config, found = dvae.config, []
    versions = dict.fromkeys([None, getattr(config, "transformers_version", None)])
    for version in versions:
        settings = {key: value for key, value in json.loads(config.to_json_string()).items() if key not in LATER}
        if version is not None:
            settings["transformers_version"] = version
        digest = hashlib.sha256((json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
        for name, tensor in sorted(_makes_codes(dvae).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        found.append(digest.hexdigest()[:16])
    return found
