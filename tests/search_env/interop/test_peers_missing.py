"""Without a peer its adapter says what to install, and nothing else is the worse for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from search_env.errors import MissingDependencyError

PEERS = {"skyrl": "skyrl_gym", "openenv": "openenv", "verifiers": "verifiers"}


@pytest.mark.parametrize("adapter", sorted(PEERS))
def test_a_missing_peer_is_named_with_the_command_that_installs_it(adapter, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == PEERS[adapter]]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, PEERS[adapter], None)
    monkeypatch.delitem(sys.modules, f"search_env.interop.{adapter}", raising=False)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'search-env\[{adapter}\]'"):
        __import__(f"search_env.interop.{adapter}")


def test_the_package_and_the_functions_for_trl_import_no_peer():
    code = (
        "import sys, search_env.interop, search_env.interop.trl\n"
        f"print({{*{list(PEERS.values())!r}, 'trl', 'torch', 'ray'}} & {{name.split('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
