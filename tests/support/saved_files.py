"""The files of a saved pipeline: its parts, and the code that strangers load them with."""

FILES = {
    "README.md",
    "model_index.json",
    "dvae/config.json",
    "dvae/model.safetensors",
    "image_processor/preprocessor_config.json",
    "prior/config.json",
    "prior/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
}
CODE = {
    "dvae/categoricals.py",
    "dvae/checked_config.py",
    "dvae/configuration_dvae.py",
    "dvae/continuous_posteriors.py",
    "dvae/latent_priors.py",
    "dvae/lattice_posteriors.py",
    "dvae/likelihoods.py",
    "dvae/modeling_dvae.py",
    "dvae/posterior_base.py",
    "dvae/posteriors.py",
    "dvae/style.py",
    "image_processor/image_processing_dvae.py",
    "prior/blocks.py",
    "prior/cache.py",
    "prior/checked_config.py",
    "prior/configuration_prior_transformer.py",
    "prior/configuration_stream.py",
    "prior/masks.py",
    "prior/modeling_prior_transformer.py",
    "prior/prior_block.py",
    "prior/stream.py",
    "tokenizer/tokenization_prior.py",
}
FILES |= CODE
