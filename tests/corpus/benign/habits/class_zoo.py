"""Models a team.

[corpus]
habit = "dataclasses with slots, enums, abstract classes, descriptors, metaclasses and pattern matching"
inputs = [[{role = "lead", days = 5}, {role = "worker", days = 10}]]
outputs = [{lead = 10, worker = 10}]
runs = 3
"""

import abc
import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    LEAD = enum.auto()
    WORKER = enum.auto()


class Counted(abc.ABCMeta):
    made = 0

    def __call__(cls, *arguments, **named):
        Counted.made += 1
        return super().__call__(*arguments, **named)


@dataclass(slots=True)
class Member(metaclass=Counted):
    role: Role
    days: int

    def cost(self):
        match self:
            case Member(Role.LEAD, days):
                return days * 2
            case Member(days=days):
                return days


def run(payload, context):
    members = [Member(Role(each["role"]), each["days"]) for each in payload]
    assert Counted.made == len(members)
    return {each.role: each.cost() for each in members}
