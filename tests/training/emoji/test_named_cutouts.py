"""What a scene of cut-outs shows, whatever draws it."""

from training.emoji.named_cutouts import NamedCutouts


def test_scenes_show_what_their_things_are():
    parts = {"kind": "beside", "things": [{"name": "cat", "style": "noto"}, {"name": "dog", "style": "noto"}]}
    other = {"kind": "beside", "things": [{"name": "cat", "style": "twemoji"}, {"name": "dog", "style": "noto"}]}
    turned = {"kind": "above", "things": parts["things"]}
    assert NamedCutouts.shown(parts) == NamedCutouts.shown(other) != NamedCutouts.shown(turned)
