import httpx

from matching_platform.defs.promotion import rollout
from matching_platform_tests.defs.conftest import NEWEST, World


def test_the_champion_is_packed_rolled_out_and_proposes(world: World) -> None:
    try:
        made = world.make("champion", "bento", "image", "deployment", "proposals", "drift_report", month=NEWEST)
        assert made.success, made.failure
        model = world.platform.registry.champion().model.name
        assert httpx.get(f"{rollout(world.platform).url}/model", trust_env=False).json()["version"] == model
        assert made.metadata("image")["built"] is False
        assert made.metadata("proposals")["rows"] > 0
        assert world.make("realised_quality", month=NEWEST).metadata("realised_quality")["exact"] > 0.5
        again = world.make("deployment")
        assert again.metadata("deployment")["changed"] is False
    finally:
        rollout(world.platform).stop()
