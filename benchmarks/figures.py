"""The numbers behind a table: the median of the rounds, and how far they spread."""

import dataclasses
from statistics import median, quantiles

__all__ = ["Chart", "Spread", "format_spread", "median", "summarise"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some rounds and the range of their middle half."""

    median: float
    low: float
    high: float


def summarise(numbers):
    """Return the Spread of the numbers of all rounds; of less than three, their range."""
    if len(numbers) < 3:
        return Spread(median(numbers), min(numbers), max(numbers))
    low, _, high = quantiles(numbers, n=4)
    return Spread(median(numbers), low, high)


def format_spread(numbers):
    """Return the median and, behind it, the range of the middle half."""
    spread = summarise(numbers)
    if len(numbers) < 3:
        return f"{spread.median:.2f}"
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


@dataclasses.dataclass
class Chart:
    """What the picture of a table shows: {group: {name: Spread}}, all of one unit.

    A group has its name as a heading, if that is not empty; with `own_scales` its bars are to
    be compared with each other alone. With an `x_axis` the groups are places on that axis, and
    the names are curves.
    """

    unit: str
    groups: dict
    x_axis: str = ""
    own_scales: bool = False

    @property
    def has_spread(self):
        """Whether anything was measured more than once, and came out differently."""
        spreads = (each for members in self.groups.values() for each in members.values())
        return any(each.low != each.high for each in spreads)

    @classmethod
    def of_rounds(cls, unit, groups, x_axis="", own_scales=False):
        """Make one from {group: {name: numbers of all rounds}}."""
        return cls(
            unit,
            {
                str(group): {name: summarise(numbers) for name, numbers in members.items()}
                for group, members in groups.items()
            },
            x_axis,
            own_scales,
        )

    @classmethod
    def from_json(cls, content):
        """Make it again from what dataclasses.asdict() made of it."""
        groups = {
            group: {name: Spread(**each) for name, each in members.items()}
            for group, members in content["groups"].items()
        }
        return cls(**content | {"groups": groups})
