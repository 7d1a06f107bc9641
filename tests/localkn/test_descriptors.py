"""The platform gives its processes as many file descriptors as the system allows."""

import resource

from tests.localkn.running import Running


def test_processes_of_the_platform_inherit_a_raised_limit(platform: Running) -> None:
    """A shell's soft limit of 256 does not reach the supervisor or the instances that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        done = platform.up("--direct")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert done.returncode == 0, done.stderr
    instance = next(process for process in platform.processes() if process.pid == platform.instances()[0]["pid"])
    for process in (platform.supervisor(), instance):
        assert process.rlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
