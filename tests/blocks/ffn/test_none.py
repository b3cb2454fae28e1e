"""No feed-forward: a layer without that sublayer."""

from registry import factory


def test_builds_nothing():
    assert factory("ffn/none")(8) is None
