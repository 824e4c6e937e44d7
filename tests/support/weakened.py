"""Jails with a control taken away, for tests that show what the control is good for: the attack then succeeds."""

from __future__ import annotations

import dataclasses
import errno
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pyseccomp

from plugind.linux import seccomp
from plugind.linux import seccomp_lists as lists
from plugind.model import Limits, Profile
from plugind.profiles import profiles_dir
from plugind.sandbox import jailspec
from plugind.sandbox.spawn import UnsafeOverrides


def weakened(
    *,
    without: Collection[str] = (),
    changed: Mapping[str, Mapping[str, object]] | None = None,
    allow: Collection[str] = (),
    foreign: bool = False,
    no_filter: bool = False,
    instance_filter: Callable[[], bytes] | None = None,
    memfd_noexec: bool = True,
    cores: bool = False,
) -> UnsafeOverrides:
    """A jail without some steps, with other arguments for some (by step), or with system calls that no filter stops.

    `allow` lets these calls through whatever their arguments, and no other. `foreign` lets every call of a foreign
    architecture and of x32 through, and no other. `no_filter` lets everything through that the kernel then judges by
    capabilities and namespaces alone. `instance_filter` is another filter altogether. A setting that is a mapping is
    changed by its entries; one that is None is taken out of it. `cores` leaves the launcher the core limit it had.
    """
    changed = changed or {}

    def build_jail(
        profile: Profile, limits: Limits, digest: str, uid: int, ground: jailspec.Ground
    ) -> jailspec.JailSpec:
        spec = jailspec.build(profile, limits, digest, uid, ground)
        known = {step.name for step in spec.steps}
        assert known >= {*without, *changed}, f"there are no such steps: {known}"
        steps = [
            dataclasses.replace(step, arguments=_merged(step.arguments, changed.get(step.name, {})))
            for step in spec.steps
            if step.name not in without
        ]
        return dataclasses.replace(spec, steps=tuple(steps))

    def build_filter(profile: Profile, *, memfd: bool, network: bool = False) -> bytes:
        if instance_filter:
            return instance_filter()
        if no_filter:
            return _everything()
        if allow or foreign:
            return _also(profile, memfd, allow, foreign)
        return seccomp.build(profile, memfd=memfd, network=network)

    def template_filter() -> bytes:
        open_too = no_filter or foreign or instance_filter or set(allow) & set(lists.NEVER)
        return _everything() if open_too else seccomp.template_filter()

    made = UnsafeOverrides(build_jail, build_filter, template_filter, memfd_noexec)
    return dataclasses.replace(made, limit_cores=lambda: None) if cores else made


def _merged(arguments: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(arguments)
    for key, value in changes.items():
        assert key in arguments, f"the step has no {key}: {list(arguments)}"
        merged[key] = _entries(arguments[key], value)
    return merged


def _entries(before: object, changes: object) -> object:
    if not isinstance(before, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {name: item for name, item in {**before, **changes}.items() if item is not None}


def everything_but(call: str, argument: int, value: int) -> bytes:
    """The filter that others had (CVE-2019-10063): a deny-list, and in it a call by all 64 bits of an argument."""
    rules = _open_to_foreign(pyseccomp.SyscallFilter(pyseccomp.ALLOW))
    rules.add_rule(pyseccomp.NOTIFY, call, pyseccomp.Arg(argument, pyseccomp.EQ, value))
    return seccomp._export(rules)


def _everything() -> bytes:
    return seccomp._export(_open_to_foreign(pyseccomp.SyscallFilter(pyseccomp.ALLOW)))


def _open_to_foreign(rules: pyseccomp.SyscallFilter) -> pyseccomp.SyscallFilter:
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ALLOW)
    return rules


def _also(profile: Profile, memfd: bool, names: Collection[str], foreign: bool) -> bytes:
    """seccomp.build with these calls on top."""
    unknown = [name for name in names if not seccomp.known(name)]
    assert not unknown, f"libseccomp does not know {unknown}"
    rules = seccomp._start(pyseccomp.NOTIFY)
    if foreign:
        _open_to_foreign(rules)
    allowed = {*lists.ALLOWED, *names, *(lists.EXECUTE if profile.exec_allowed else ())}
    if memfd:
        allowed |= lists.MEMFD
    seccomp._add(rules, pyseccomp.ALLOW, sorted(allowed))
    fcntls = (*lists.FCNTLS, *(lists.FCNTL_LOCKS if profile.file_locks else ()))
    seccomp._by_argument(_Others(rules, names), fcntls)
    seccomp._add(rules, pyseccomp.ERRNO(errno.ENOSYS), sorted(set(lists.NOT_THERE) - set(names)))
    return seccomp._export(rules)


class _Others:
    """Takes rules for all calls but some: one that is allowed as a whole cannot have rules of its own as well."""

    def __init__(self, rules: pyseccomp.SyscallFilter, names: Collection[str]) -> None:
        self._rules = rules
        self._names = names

    def add_rule(self, action: object, name: str, *conditions: Any) -> None:
        """As SyscallFilter.add_rule."""
        if name not in self._names:
            self._rules.add_rule(action, name, *conditions)


def profiles_of(folder: Path, tier: int, **values: int) -> Path:
    """A copy of the profiles in `folder`, with other numbers in one tier's [jail] and [ceilings].

    The other tiers lack something, and so are not started: their templates would only take time.
    """
    copy = folder / "profiles"
    shutil.copytree(profiles_dir(), copy)
    for path in copy.glob("tier*.toml"):
        if path.name != f"tier{tier}.toml":
            _change(path, r"^requires = \[", 'requires = ["nothing of the kind", ')
    for name, value in values.items():
        _change(copy / f"tier{tier}.toml", rf"^{name}\s*=.*$", f"{name} = {value}")
    return copy


def _change(path: Path, pattern: str, to: str) -> None:
    text, count = re.subn(f"(?m){pattern}", to, path.read_text())
    assert count, f"{path.name} has no {pattern}"
    path.write_text(text)
