from __future__ import annotations

from pathlib import Path

import pytest

from terroir.common.errors import InvalidArgument
from terroir.dataset.vocabulary import DRAWN_WORLD, load_vocabulary, with_article
from terroir.tiny.world.scene import COLOURS, SCENES, SUBJECTS, TIMES, Scene, caption


def test_the_default_vocabulary_says_what_the_drawn_world_draws() -> None:
    subject, scene, detail = load_vocabulary(DRAWN_WORLD).slots
    assert len(subject.labels()) == len(COLOURS) * len(SUBJECTS)
    assert set(subject.labels()) == {with_article(f"a {colour} {thing}") for colour in COLOURS for thing in SUBJECTS}
    assert len(scene.labels()) == len(SCENES)
    assert len(detail.labels()) == len(TIMES)


@pytest.mark.parametrize("place", SCENES)
@pytest.mark.parametrize("time", TIMES)
def test_its_captions_are_captions_of_the_drawn_world(place: str, time: str) -> None:
    vocabulary = load_vocabulary(DRAWN_WORLD)
    _, scene, detail = vocabulary.slots
    said = vocabulary.caption.format(
        subject="a red house", scene=scene.labels()[SCENES.index(place)], detail=detail.labels()[TIMES.index(time)]
    )
    assert said == caption(Scene("house", "red", place, time))


GOOD = """
caption: "{subject}"
slots: [{name: subject, phrase: "a {thing}", parts: {thing: [cat, owl]}, templates: ["{subject}"]}]
"""


def test_a_vocabulary_of_ones_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    (slot,) = load_vocabulary(tmp_path / "mine.yaml").slots
    assert slot.labels() == ("a cat", "an owl")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (GOOD.replace("caption:", "captoin:"), "captoin"),
        (GOOD.replace("a {thing}", "a {think}"), "think"),
        (GOOD.replace('["{subject}"]', '["a picture"]'), "lacks"),
        (GOOD.replace('["{subject}"]', '["{subject} {scene}"]'), "scene"),
        (GOOD.replace('caption: "{subject}"', 'caption: "{scene}"'), "scene"),
        (GOOD.replace("[cat, owl]", "[]"), "thing"),
        (GOOD.replace("name: subject", "name: mood"), "mood"),
        (GOOD.replace("[cat, owl]", str([f"w{n}" for n in range(2001)])), "2000"),
        ("caption: [", "mine"),
        ("", "mine"),
    ],
)
def test_a_mistake_in_a_vocabulary_is_named(tmp_path: Path, wrong: str, named: str) -> None:
    (tmp_path / "mine.yaml").write_text(wrong)
    with pytest.raises(InvalidArgument, match=named) as caught:
        load_vocabulary(tmp_path / "mine.yaml")
    assert caught.value.reason == "INVALID_VOCABULARY"


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="none"):
        load_vocabulary(tmp_path / "none.yaml")
