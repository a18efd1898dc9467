"""With how many examples a property is tried."""

from hypothesis import settings


def out_of_100(count: int) -> settings:
    """For a property whose examples take long, or that needs more than others: `count` where others have a hundred."""
    return settings(max_examples=max(2, count * settings.default.max_examples // 100))
