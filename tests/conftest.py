"""What every test gets: a fixed seed, and the device that `pytest --device` names."""

import logging

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the blocks under test run: cpu or cuda")
    parser.addoption("--all", action="store_true", help="every combination, not a sample")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


torch.set_num_threads(1)  # tests run side by side; one thread each is faster than all fighting for all cores
logging.getLogger("torch.__trace").propagate = False  # thousands of lines a compilation, in every failure's report
