"""The small start: deviations from the width, and from the depth where sublayers write."""

import pytest


@pytest.mark.parametrize(
    ("end", "deviates"), [("to_q", (2 / 320) ** 0.5), ("to_v", (2 / 320) ** 0.5), ("table", (2 / 320) ** 0.5)]
)
def test_deviation_follows_the_width_of_the_stream(build, deviation, end, deviates):
    assert deviation(build("init/small"), end) == pytest.approx(deviates, rel=0.05)


def test_what_writes_into_the_stream_follows_the_depth(build, deviation):
    """In a deep stack; in a shallow one it is as wide as the rest, also behind the four widths of a feed-forward."""
    shallow, deep = build("init/small"), build("init/small", name="stack/looped", passes=4)
    assert deviation(deep, "mixer.to_out") == pytest.approx(2 / (12 * 64**0.5), rel=0.05)
    assert deviation(shallow, "mixer.to_out") == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    assert deviation(shallow, "ffn.to_out") == pytest.approx((2 / 320) ** 0.5, rel=0.05)


def test_scores_start_small(build, deviation):
    assert deviation(build("init/small"), "to_logits") == pytest.approx(0.3 / 64**0.5, rel=0.05)
