from matching_platform.learning import split
from matching_platform.store.record import Record
from matching_platform.store.registry import MODELS
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, TABLES, World


def test_unchanged_data_trains_nothing_again(world: World) -> None:
    before = world.platform.store.versions(MODELS)
    world.platform.warehouse.write_month(
        "transfers", MONTHS[0], world.platform.warehouse.read_month("transfers", MONTHS[0]).reverse()
    )
    for month in MONTHS:
        assert world.make(*TABLES, month=month).success
    made = world.make("train_set", "model", month=NEWEST)
    assert made.metadata("model")["trained"].startswith("before")
    assert world.platform.store.versions(MODELS) == before


def test_the_model_is_reproducible_from_its_manifest(world: World) -> None:
    before = world.platform.current("model", NEWEST)
    for name in world.platform.store.files.names("records/trainings"):
        for path in (world.home / "data" / "store" / "records" / "trainings" / name).iterdir():
            path.unlink()
    assert world.make("model", month=NEWEST).metadata("model")["trained"] == "now"
    assert list((world.home / "data" / "checkpoints").iterdir()) == []
    assert world.platform.current("model", NEWEST) == before


def test_the_frozen_test_stays_and_proves_it(world: World) -> None:
    frozen = split.current(world.platform.store)
    assert frozen is not None
    again = world.make("test_split").metadata("test_split")
    assert again["sha256"] == frozen.version.digest
    assert again["times made"] == 1
    assert 0.1 < again["share of components"] < 0.3


def test_the_frozen_test_is_remade_only_for_a_reason(world: World) -> None:
    config = {"ops": {"test_split": {"config": {"remake_because": "the company was restructured"}}}}
    assert world.make("test_split", config=config).success
    entries = Record(world.platform.store, split.RECORD).entries()
    assert [entry.reason for entry in entries][1:] == ["the company was restructured"]


def test_a_change_of_an_old_month_changes_the_train_set_and_not_the_test(world: World) -> None:
    before = world.platform.current("train_set", NEWEST)
    frozen = split.current(world.platform.store)
    matches = world.platform.warehouse.read_month("matches", MONTHS[0])
    world.platform.warehouse.write_month("matches", MONTHS[0], matches.head(matches.height - 3))
    assert world.make(*TABLES, month=MONTHS[0]).success
    made = world.make("train_set", month=NEWEST)
    assert made.success, made.failure
    assert world.platform.current("train_set", NEWEST) != before
    assert split.current(world.platform.store).version == frozen.version


def test_an_earlier_train_set_knows_nothing_later(world: World) -> None:
    made = world.make("train_set", month=MONTHS[1])
    assert made.metadata("train_set")["months"] == 2
    assert all(check.passed for check in made.result.get_asset_check_evaluations())
