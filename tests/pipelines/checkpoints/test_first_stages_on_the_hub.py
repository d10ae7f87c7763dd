"""A repository of a public first stage: what holds it is fetched, and nothing that it does not need."""

import torch
from huggingface_hub import HfApi
from messages import refused
from public_layouts import SIDE, as_deepseek, as_gumbel, janus_vqvae

from pipelines.checkpoints.first_stages import find_first_stage, find_first_stage_config

ANNA, BERT = "hf_anna", "hf_bert"  # tokens


def push(folder, **files) -> None:
    api = HfApi(token=ANNA)
    api.create_repo("anna/vq", private=True)
    for name, value in files.items():
        torch.save(value, folder / "file")
        api.upload_file(repo_id="anna/vq", path_or_fileobj=folder / "file", path_in_repo=name.replace("__", "."))


def test_what_holds_a_first_stage_alone_is_fetched_and_no_more(hub, tmp_path):
    weights = as_deepseek(janus_vqvae().state_dict())
    push(tmp_path, vq_ds16_t2i__pt={"model": weights}, t2i_XL_stage1_256__pt={"model": {"output": torch.zeros(9)}})
    options = {"cache_dir": tmp_path / "cache", "token": ANNA}
    assert find_first_stage_config("anna/vq", **options).posterior == "normalised_vq"
    vqgan = find_first_stage("anna/vq", image_size=SIDE, **options)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    torch.save({"model": weights}, tmp_path / "vq.pt")
    assert torch.equal(vqgan.encode(pixels), find_first_stage(tmp_path / "vq.pt").encode(pixels))
    fetched = {path.name for path in (tmp_path / "cache").glob("*/snapshots/*/*")}
    assert fetched == {"vq_ds16_t2i.pt"}
    with refused(OSError, "anna/vq"):
        find_first_stage("anna/vq", cache_dir=tmp_path / "other", token=BERT)


def test_of_rudalles_two_the_plain_one_is_fetched(hub, tmp_path):
    """The other one's decoder is a network of another kind, and its name comes first."""
    state = {"state_dict": as_gumbel(janus_vqvae().state_dict())}
    other = {"state_dict": {"encoder.conv_in.weight": torch.zeros(9)}}
    names = {"vqgan__gumbelf8-sber__model__ckpt": state, "vqgan__gumbelf8-sber-dwt__model__ckpt": other}
    push(tmp_path, **names)
    vqgan = find_first_stage("anna/vq", cache_dir=tmp_path / "cache", token=ANNA)
    assert vqgan.config.posterior == "gumbel" and vqgan.config.image_size == 256


def test_a_repository_without_one_is_refused(hub, tmp_path):
    push(tmp_path, notes__txt={})
    with refused(OSError, "anna/vq", "encoder.pkl", "*.safetensors"):
        find_first_stage("anna/vq", cache_dir=tmp_path / "cache", token=ANNA)
