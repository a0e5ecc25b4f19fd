"""From a model to a service that answers: Bento, acceptance, rollout."""
