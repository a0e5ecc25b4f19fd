"""Code that makes another model has another version; what is only said about it does not count."""

from pathlib import Path

import pytest

from matching_platform.learning.code import TRAINING_CODE, version_of

TEXT = '''"""What it is."""

EPOCHS = 12  # enough


def train(epochs: int = EPOCHS) -> int:
    """What it does."""
    return epochs
'''


def of(folder: Path, text: str, name: str = "training.py") -> str:
    (folder / name).write_text(text)
    return version_of((folder / name,))


@pytest.mark.parametrize(
    ("text", "instead"),
    [("EPOCHS = 12", "EPOCHS = 13"), ("return epochs", "return epochs + 1"), ("epochs: int = EPOCHS", "epochs: int")],
)
def test_other_code_has_another_version(tmp_path: Path, text: str, instead: str) -> None:
    assert of(tmp_path, TEXT.replace(text, instead)) != of(tmp_path, TEXT)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("# enough", "# more would learn by heart"),
        ("What it does", "What it does, and why"),
        ("What it is", "It"),
        ("\n\n\n", "\n"),
    ],
)
def test_what_is_said_about_it_does_not_count(tmp_path: Path, text: str, instead: str) -> None:
    assert of(tmp_path, TEXT.replace(text, instead)) == of(tmp_path, TEXT)


def test_a_file_counts_by_its_name(tmp_path: Path) -> None:
    assert of(tmp_path, TEXT, "tuning.py") != of(tmp_path, TEXT)


def test_the_training_loop_and_what_it_rests_on_are_among_it() -> None:
    names = {f"{path.parent.name}/{path.name}" for path in TRAINING_CODE}
    assert names >= {"learning/training.py", "learning/examples.py", "matching/features.py", "matching/scorer.py"}
    assert version_of() == version_of()
    assert len(version_of()) == 12
