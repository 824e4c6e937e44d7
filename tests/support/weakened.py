"""Jails with a control taken away, for tests that show what the control is good for: the attack then succeeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import pyseccomp

from plugind.linux import seccomp
from plugind.linux import seccomp_lists as lists
from plugind.model import Limits, Profile
from plugind.sandbox import jailspec
from plugind.sandbox.spawn import UnsafeOverrides


def weakened(
    *,
    without: Collection[str] = (),
    changed: Mapping[str, Mapping[str, object]] | None = None,
    allow: Collection[str] = (),
    no_filter: bool = False,
    memfd_noexec: bool = True,
) -> UnsafeOverrides:
    """A jail without some steps, with other arguments for some (by step), or with system calls that no filter stops.

    `no_filter` lets every system call through that the kernel then judges by capabilities and namespaces alone.
    """
    changed = changed or {}

    def build_jail(
        profile: Profile, limits: Limits, digest: str, uid: int, ground: jailspec.Ground
    ) -> jailspec.JailSpec:
        spec = jailspec.build(profile, limits, digest, uid, ground)
        known = {step.name for step in spec.steps}
        assert known >= {*without, *changed}, f"there are no such steps: {known}"
        steps = [
            dataclasses.replace(step, arguments={**step.arguments, **changed.get(step.name, {})})
            for step in spec.steps
            if step.name not in without
        ]
        return dataclasses.replace(spec, steps=tuple(steps))

    def build_filter(profile: Profile, *, memfd: bool) -> bytes:
        if no_filter:
            return _everything()
        return _also(profile, memfd, allow) if allow else seccomp.build(profile, memfd=memfd)

    def template_filter() -> bytes:
        return _everything() if no_filter or set(allow) & set(lists.NEVER) else seccomp.template_filter()

    return UnsafeOverrides(build_jail, build_filter, template_filter, memfd_noexec)


def _everything() -> bytes:
    return seccomp._export(pyseccomp.SyscallFilter(pyseccomp.ALLOW))


def _also(profile: Profile, memfd: bool, names: Collection[str]) -> bytes:
    rules = seccomp._start(pyseccomp.NOTIFY)
    allowed = {*lists.ALLOWED, *names, *(lists.EXECUTE if profile.exec_allowed else ())}
    if memfd:
        allowed |= lists.MEMFD
    seccomp._add(rules, pyseccomp.ALLOW, sorted(allowed))
    fcntls = (*lists.FCNTLS, *(lists.FCNTL_LOCKS if profile.file_locks else ()))
    seccomp._by_argument(_Without(rules, names), fcntls)
    return seccomp._export(rules)


class _Without:
    """Rules for all calls but some: one that is allowed as a whole cannot have rules of its own as well."""

    def __init__(self, rules: pyseccomp.SyscallFilter, names: Collection[str]) -> None:
        self._rules = rules
        self._names = names

    def add_rule(self, action: object, name: str, *arguments: object) -> None:
        if name not in self._names:
            self._rules.add_rule(action, name, *arguments)
