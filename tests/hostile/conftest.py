from tests.integration.conftest import demo_state, pipeline  # noqa: F401 - fixtures, shared with the integration tests
