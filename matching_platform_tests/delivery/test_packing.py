import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matching_platform.delivery import packing, probe
from matching_platform.delivery.packing import build_bento
from matching_platform.matching.matcher import ModelError
from matching_platform_tests.delivery.parts import VERSION


def test_a_bento_holds_service_code_model_and_probe(bento: Path, model: Path) -> None:
    source = bento / "src"
    assert {path.name for path in source.iterdir()} == {
        "service.py",
        "bentofile.yaml",
        "probe.json",
        "matching_platform",
        "model",
    }
    assert {path.name for path in (source / "matching_platform").iterdir()} == {
        "__init__.py",
        "delivery",
        "ledger",
        "matching",
        "predictions",
        "store",
    }
    assert {path.name for path in (source / "model").iterdir()} == {path.name for path in model.iterdir()}
    packed = probe.read(bento)
    assert packed.version == VERSION
    assert {row["transfer_id"] for row in packed.proposals} == {
        row["transfer_id"] for row in probe.REQUEST["transfers"]
    }


def test_the_image_needs_neither_dagster_nor_a_gpu(bento: Path) -> None:
    lines = (bento / "env" / "python" / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    names = {line.split("==")[0] for line in lines}
    assert {"bentoml", "polars", "torch"} <= names
    assert not names & {"dagster", "pandas", "duckdb", "evidently", "scikit-learn"}
    assert next(line for line in lines if line.startswith("torch==")).endswith("+cpu")
    assert "USER 1034:1034" in (bento / "env" / "docker" / "Dockerfile").read_text()


def test_the_same_model_gives_the_same_bento_even_at_the_same_time(model: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    shutil.copytree(model, stored)
    (stored / ".version.json").write_text("{}")
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(
            build_bento, (model, stored), ("a", "a"), (tmp_path / "one", tmp_path / ".hidden" / "two")
        )
    assert one.digest == other.digest
    assert one.size == other.size == sum(path.stat().st_size for path in one.path.rglob("*") if path.is_file())


def test_a_bento_is_never_overwritten(model: Path, bento: Path) -> None:
    with pytest.raises(FileExistsError, match="never changed"):
        build_bento(model, "a", bento)


@pytest.mark.parametrize("version", ["", "A", "-a", "a/b", "a:b", "a" * 64])
def test_a_version_that_cannot_name_a_bento_is_refused(model: Path, tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match="cannot name a bento"):
        build_bento(model, version, tmp_path / "bento")


def test_a_corrupt_model_is_not_packed_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "weights.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError):
        build_bento(broken, "a", tmp_path / "bentos" / "bento")
    assert not list((tmp_path / "bentos").iterdir())


def test_what_bentoml_says_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = tmp_path / "bento"
    shutil.copytree(packing.BENTO, description)
    (description / "service.py").write_text("import nothing_of_that_name\n")
    monkeypatch.setattr(packing, "BENTO", description)
    with pytest.raises(packing.PackingError, match="nothing_of_that_name"):
        build_bento(model, "a", tmp_path / "built")
    assert not (tmp_path / "built").exists()
