"""Half precision on disk and in memory: small files, the same codes."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from dvae import DVAE
from pipelines import TextToImagePipeline


def test_half_precision_on_disk_is_float32_in_use(tiny_pipeline, tmp_path):
    pipeline = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components))
    pipeline.to(torch.float16).save_pretrained(tmp_path)
    for part in ("dvae", "prior"):
        stored = load_file(tmp_path / part / "model.safetensors")
        stored.pop("posterior.codebook.weight", None)
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.dtype == loaded.dvae.dtype == torch.float32
    assert loaded("a red apple", seed=0, output_type="pt", progress_bar=False).images.isfinite().all()
    assert TextToImagePipeline.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_the_codebook_as_it_is(tiny_dvae, dtype, tmp_path):
    """Of two entries that differ by less than half precision can tell, the same one stays the nearest."""
    dvae, pixel_values = copy.deepcopy(tiny_dvae), torch.rand(2, 3, 16, 16)
    entries = dvae.posterior.codebook.weight.data
    entries[1::2] = entries[::2] * (1 + 1e-4)
    half = copy.deepcopy(dvae).to(dtype)
    half.save_pretrained(tmp_path)
    for loaded in (half, DVAE.from_pretrained(tmp_path, dtype=dtype), DVAE.from_pretrained(tmp_path)):
        assert loaded.dtype == dtype and torch.equal(loaded.posterior.codebook.weight, entries)
        assert loaded.reconstruct(pixel_values.to(dtype)).isfinite().all()
    whole = DVAE.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(whole.posterior.codebook.weight, entries)
    whole.double()
    for cast in (torch.float32, torch.float64, dtype):
        assert whole.to(cast).posterior.codebook.weight.dtype == (torch.float32 if cast == dtype else cast)
