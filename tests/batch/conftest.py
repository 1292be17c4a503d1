import pytest

from wavelldm.batch.run import Cluster, ray_ready


@pytest.fixture(scope="session")
def ray_here():
    """One Ray for all tests, as starting it takes longer than they do."""
    with ray_ready(Cluster(2)):
        yield
