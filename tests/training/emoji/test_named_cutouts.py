"""What a scene of cut-outs shows, whatever draws it."""

from training.emoji.named_cutouts import NamedCutouts


def test_scenes_show_what_their_things_are():
    parts = {"kind": "beside", "things": [{"name": "cat", "style": "noto"}, {"name": "dog", "style": "noto"}]}
    other = {"kind": "beside", "things": [{"name": "cat", "style": "twemoji"}, {"name": "dog", "style": "noto"}]}
    turned = {"kind": "above", "things": parts["things"]}
    assert NamedCutouts.shown(parts) == NamedCutouts.shown(other) != NamedCutouts.shown(turned)


def test_a_whole_thing_is_the_same_whatever_is_said_of_it():
    red, blue = {"name": "red armchair", "style": "icon"}, {"name": "blue armchair", "style": "icon"}
    painted = {"kind": "colour", "things": [{**blue, "colour": "red"}]}
    assert NamedCutouts.shown({"kind": "single", "things": [red]}) == NamedCutouts.shown(painted)
    assert NamedCutouts.shown({"kind": "large", "things": [red]}) == NamedCutouts.shown(painted)
    others = ({"kind": "single", "things": [blue]}, {"kind": "small", "things": [red]}, {**painted, "ground": "blue"})
    assert all(NamedCutouts.shown(other) != NamedCutouts.shown(painted) for other in others)
