"""A diagnosis names what is wrong with an installation or machine, with what to type, and never breaks itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from search_agents import diagnosis
from search_agents.diagnosis import Finding, Verdict, installation, machine, services, torch_build

Installs = Callable[..., None]
TORCH = {"version": "2.8.0", "cuda": "12.8", "threads": 2, "architectures": ["sm_80", "sm_90"], "gpus": []}


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installs:
    """Puts the metadata of packages before everything that is really installed."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, version: str, *requirements: str, extras: tuple[str, ...] = (), python: str = ">=3") -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return install


def by_name(findings: object) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}  # type: ignore[attr-defined]


def test_an_extra_that_is_not_installed_is_a_note_with_the_command(installs: Installs) -> None:
    installs("search-env", "9", 'no-such-thing>=1; extra == "web"', extras=("web", "dev"))
    (finding,) = installation.extras()
    assert (finding.check, finding.verdict) == ("[web]", Verdict.NOTE)
    assert finding.text == "not installed; missing: no-such-thing"
    assert finding.remedy == "python -m pip install 'search-env[web]'"


def test_a_version_of_an_installed_extra_that_does_not_fit_is_a_problem(installs: Installs) -> None:
    installs("thing", "3.1", 'part==2; extra == "fast"', 'other==1; extra == "slow"', extras=("fast", "slow"))
    installs("part", "4")
    installs("search-env", "9", 'thing[fast]>=2; extra == "web"', 'thing<3; extra == "old"', extras=("web", "old"))
    found = by_name(installation.extras())
    assert found["[old]"].verdict is found["[web]"].verdict is Verdict.PROBLEM
    assert found["[old]"].text == "thing 3.1 does not fit <3"
    assert found["[web]"].text == "part 4 does not fit ==2 of thing[fast]"
    assert found["[web]"].remedy == "python -m pip install 'search-env[web]' --upgrade"


def test_an_extra_whose_packages_fit_is_well(installs: Installs) -> None:
    installs("thing", "3.1")
    installs(
        "search-env",
        "9",
        'thing>=3,<4; extra == "web"',
        'gone; python_version < "3" and extra == "web"',
        extras=("web",),
    )
    assert list(installation.extras()) == [Finding("[web]", Verdict.OK, "thing 3.1")]


def test_the_packages_that_everything_needs_must_be_there_and_fit(installs: Installs) -> None:
    installs("thing", "1")
    installs("search-env", "9", "no-such-thing>=1", "thing>=2", python=">=4")
    found = by_name(installation.packages())
    assert found["packages"].verdict is found["python"].verdict is Verdict.PROBLEM
    assert found["packages"].text == "no-such-thing is missing; thing 1 does not fit >=2"
    assert "needs >=4" in found["python"].text


def test_vllm_whose_torch_is_another_is_a_problem(installs: Installs) -> None:
    installs("vllm", "0.20", "torch==9.9", "no-such-thing", 'ray>=99; extra == "more"')
    installs("torch", "9.8")
    found = by_name(installation.packages())["vllm"]
    assert (found.verdict, found.text) == (Verdict.PROBLEM, "vllm 0.20: torch 9.8 does not fit ==9.9")


def test_a_disk_without_room_is_a_problem_with_the_way_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finding,) = machine.disk("cache", tmp_path / "not" / "yet")
    assert finding.verdict is (Verdict.OK if shutil.disk_usage(tmp_path).free >= 2 * 2**30 else Verdict.PROBLEM)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    (finding,) = machine.disk("cache", tmp_path / "not" / "yet")
    assert finding.verdict is Verdict.PROBLEM
    assert "1.0 GiB free" in finding.text and "SEARCH_ENV_CACHE" in finding.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = machine.disk("outputs", tmp_path / "file" / "below")
    assert finding.verdict is Verdict.PROBLEM and "is a file" in finding.text
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (finding,) = machine.disk("outputs", tmp_path)
    assert finding.verdict is Verdict.PROBLEM and "cannot be written" in finding.text


@pytest.mark.parametrize(
    ("given", "verdict", "remedy"),
    [
        ({}, Verdict.NOTE, "export OMP_NUM_THREADS=1 where several run at once"),
        ({"OMP_NUM_THREADS": "1"}, Verdict.OK, ""),
        ({"OMP_NUM_THREADS": "8"}, Verdict.PROBLEM, "export OMP_NUM_THREADS=4"),
        ({"OMP_NUM_THREADS": "0"}, Verdict.PROBLEM, "export OMP_NUM_THREADS=1"),
        ({"OMP_NUM_THREADS": "many"}, Verdict.PROBLEM, "export OMP_NUM_THREADS=1"),
    ],
)
def test_threads_beyond_the_cores_are_a_problem(
    given: dict[str, str], verdict: Verdict, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    found = by_name(machine.threads(given))["threads"]
    assert (found.verdict, found.remedy) == (verdict, remedy)


def test_the_quota_of_a_container_bounds_the_cores(tmp_path: Path) -> None:
    all_cores = machine.cores(tmp_path / "none")
    quota = tmp_path / "cpu.max"
    for text, expected in (("max 100000", all_cores), ("50000 100000", 1), ("nonsense", all_cores)):
        quota.write_text(text)
        assert machine.cores(quota) == expected


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((7, 0), ["compute_75"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a"], False),
        ((10, 3), ["sm_100"], True),
        ((9, 0), ["gfx90a"], False),
    ],
)
def test_a_gpu_has_kernels_where_cuda_says_so(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert torch_build.has_kernels(capability, architectures) is runs
    gpu = {"name": "A GPU", "capability": list(capability)}
    probe = {**TORCH, "architectures": architectures, "gpus": [gpu]}
    found = by_name(torch_build.read_probe(probe, have=2, driver=True))["gpu"]
    assert found.verdict is (Verdict.OK if runs else Verdict.PROBLEM)


def test_a_gpu_that_torch_does_not_use_is_a_problem() -> None:
    cpu = by_name(torch_build.read_probe({**TORCH, "cuda": None}, have=2, driver=True))["gpu"]
    assert cpu.verdict is Verdict.PROBLEM and "a build for CPUs" in cpu.text and "--index-url" in cpu.remedy
    cuda = by_name(torch_build.read_probe(TORCH, have=2, driver=True))["gpu"]
    assert cuda.verdict is Verdict.PROBLEM and cuda.remedy == "nvidia-smi"
    assert by_name(torch_build.read_probe(TORCH, have=2, driver=False))["gpu"].verdict is Verdict.NOTE


def test_more_threads_of_torch_than_cores_are_a_problem() -> None:
    found = by_name(torch_build.read_probe({**TORCH, "threads": 64}, have=2, driver=False))["torch"]
    assert (found.verdict, found.remedy) == (Verdict.PROBLEM, "export OMP_NUM_THREADS=2")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import os; os._exit(3)", "exit 3"),
    ],
)
def test_a_torch_that_crashes_is_a_finding(
    code: str, said: str, installs: Installs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installs("torch", "2.9.9")
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = torch_build.check_torch()
    assert finding.verdict is Verdict.PROBLEM
    assert finding.text.startswith("torch 2.9.9 cannot be imported: ") and said in finding.text


@pytest.mark.parametrize(
    ("server", "client", "verdict"),
    [
        ("8.19.1", "8.19.0", Verdict.OK),
        ("9.1.0", "9.5.1", Verdict.OK),
        ("8.19.1", "9.5.1", Verdict.NOTE),
        ("9.1.0", "8.19.0", Verdict.NOTE),
        ("7.17.0", "8.19.0", Verdict.PROBLEM),
        ("10.0.0", "9.0.0", Verdict.PROBLEM),
    ],
)
def test_a_client_of_another_major_than_the_server_is_told(server: str, client: str, verdict: Verdict) -> None:
    finding = services.server_version(server, client)
    assert finding.verdict is verdict
    if verdict is Verdict.NOTE:
        assert finding.remedy == f"python -m pip install 'elasticsearch[async]=={server[0]}.*'"


@pytest.fixture
def server() -> Iterator[str]:
    """Says that it is Elasticsearch 8.19.1, and has no index."""

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = {"version": {"number": "8.19.1"}} if self.path == "/" else {"error": {"type": "index_not_found"}}
            body = json.dumps(told).encode()
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = reply

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_a_search_server_is_asked_for_its_version_also_where_an_index_is_missing(server: str) -> None:
    pytest.importorskip("elasticsearch")
    spec = {"name": "resilient", "of": {"name": "elasticsearch", "url": server, "index": "wiki"}}
    searched, version = services.retriever(spec)
    assert searched.verdict is Verdict.PROBLEM and "index_not_found" in searched.text
    assert version.check == "elasticsearch" and version.text.startswith("server 8.19.1, client ")


def test_a_retriever_that_answers_is_well() -> None:
    (finding,) = services.retriever("bm25")
    assert finding.verdict is Verdict.OK and "bm25 answered in" in finding.text


@pytest.mark.parametrize(
    ("spec", "said", "remedy"),
    [
        ("bm52", "Did you mean 'bm25'?", "search-env list retrievers"),
        ({"name": "http", "url": "http://127.0.0.1:9"}, "cannot be asked", "search-env serve"),
        (
            {"name": "cached", "of": {"name": "http", "url": "http://127.0.0.1:9"}},
            "cannot be asked",
            "search-env serve",
        ),
        ({"name": "bm25", "index": "no-such-folder"}, "no-such-folder", "search-env index --help"),
    ],
)
def test_a_retriever_that_cannot_be_asked_is_a_problem(spec: object, said: str, remedy: str, tmp_path: Path) -> None:
    if isinstance(spec, dict) and spec["name"] == "cached":
        spec["path"] = str(tmp_path / "cache.sqlite3")
    finding = next(iter(services.retriever(spec)))  # type: ignore[arg-type]
    assert finding.verdict is Verdict.PROBLEM
    assert said in finding.text and finding.remedy == remedy


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("metadata torn")

    monkeypatch.setattr(diagnosis, "packages", broken)
    monkeypatch.setattr(diagnosis, "check_torch", lambda: ())
    found = by_name(diagnosis.diagnose(out=tmp_path))
    assert found["packages"].verdict is Verdict.PROBLEM and "RuntimeError: metadata torn" in found["packages"].text
    assert {"outputs", "cache", "threads"} <= set(found)


def test_nothing_heavy_is_imported_into_the_command(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not today')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from search_agents.cli import main\nmain(['doctor', '--json'])\n"
        "heavy = {'torch', 'ray', 'transformers', 'vllm', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"PYTHONPATH": ":".join([str(tmp_path), *filter(None, sys.path)]), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
