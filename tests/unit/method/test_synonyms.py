"""Synonym dictionaries: sources, normalisation, and what is said about bad ones."""

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.method import synonyms as module
from xlt_ray.method.synonyms import load_synonyms

GOOD = b'{"movie": ["film"], "film": ["movie"], "the": []}'
PARSED = {"movie": ("film",), "film": ("movie",)}


def write(folder: Path, content: bytes | str, name: str = "synonyms.json") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal(source: str) -> str:
    with pytest.raises(UserError) as caught:
        load_synonyms(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"movie": ["film"], "film": ["movie"]}, PARSED),
        ({"a": ["c", "b"], "b": []}, {"a": ("c", "b")}),
        ({"a": ["b", "a", "A", "b", "B", "c"]}, {"a": ("b", "c")}),
        ({"Movie": ["Film"], "movie": ["film", "flick"]}, {"movie": ("film", "flick")}),
        ({"car": ["motor car", "", "'auto'", "x\u0085", "auto"]}, {"car": ("auto",)}),
        ({"ice cream": ["gelato"], "": ["x"], "don't": ["won't"]}, {"don't": ("won't",)}),
    ],
)
def test_a_dictionary_is_normalised(tmp_path: Path, entries: dict, expected: dict) -> None:
    synonyms = load_synonyms(write(tmp_path, json.dumps(entries)))
    assert dict(synonyms) == expected
    assert len(synonyms) == len(expected)


def test_a_byte_order_mark_is_no_part_of_the_dictionary(tmp_path: Path) -> None:
    assert dict(load_synonyms(write(tmp_path, b"\xef\xbb\xbf" + GOOD))) == PARSED


def test_unknown_words_have_no_synonyms(tmp_path: Path) -> None:
    synonyms = load_synonyms(write(tmp_path, GOOD))
    assert synonyms.get("the") is None
    assert "the" not in synonyms


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{\n"movie": ["film"],\n"film": ["mov', ["line 3", "not JSON"]),
        ("", ["line 1", "not JSON"]),
        ("[" * 100_000, ["nested too deep"]),
        ("1" * 5_000, ["digits"]),
        ('["movie", "film"]', ["not a list"]),
        ("null", ["not a null"]),
        ('{"movie": ["film"], "car": "auto"}', ["'car'", "string"]),
        ('{"movie": {"film": 1}}', ["'movie'", "dictionary"]),
        ('{"movie": ["film", 3]}', ["'movie'", "number"]),
        ('{"movie": ["film", true]}', ["'movie'", "boolean"]),
        ('{"movie": ["film", ["x"]]}', ["'movie'", "list"]),
        ("{}", ["no word has a synonym"]),
        ('{"movie": [], "film": ["film"]}', ["no word has a synonym"]),
        ('{"movie": ["film"], "movie": ["flick"]}', ["key 'movie' is given twice"]),
        (b'{"movie": ["\xff"]}', ["not UTF-8 at byte 12"]),
    ],
)
def test_a_bad_dictionary_is_refused(
    tmp_path: Path, content: bytes | str, parts: list[str]
) -> None:
    path = write(tmp_path, content)
    message = refusal(path)
    for part in [path, *parts]:
        assert part in message


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "neighbours.json")
    message = refusal(str(tmp_path / "neighbors.json"))
    assert "neighbors.json" in message
    assert "did you mean 'neighbours.json'?" in message
    assert "did you mean" not in refusal(str(tmp_path / "quite_other"))
    assert "no such home folder" in refusal("~nobody-of-that-name/synonyms.json")
    assert "no file" in refusal(str(tmp_path / "nowhere" / "neighbours.json"))


def test_a_mistyped_name_is_told_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'wordnet'?" in refusal("wordnt")
    assert "did you mean 'demo'?" in refusal("dem")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(str(tmp_path))


class Server:
    """A real HTTP server on loopback for the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, *_: object) -> None:
                requests.append(self.path)

            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XLT_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def server(served: Path) -> Iterator[Server]:
    server = Server(served)
    yield server
    server.stop()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_url_is_downloaded_once(cache: Path, served: Path, server: Server) -> None:
    write(served, GOOD)
    url = f"{server.url}/synonyms.json"
    for digest in (sha256(GOOD), sha256(GOOD).upper(), sha256(GOOD)):
        assert dict(load_synonyms(f"{url}#sha256={digest}")) == PARSED
    assert server.requests == ["/synonyms.json"]
    assert [path.read_bytes() for path in cache.iterdir()] == [GOOD]


def test_a_url_without_a_digest_is_refused_and_told_the_one_to_add(
    cache: Path, served: Path, server: Server
) -> None:
    write(served, GOOD)
    message = refusal(f"{server.url}/synonyms.json")
    assert not cache.exists()
    assert dict(load_synonyms(message.split()[-1])) == PARSED
    # What is in the cache is no reason to take whatever comes under this name.
    write(served, b'{"big": ["large"]}')
    assert sha256(b'{"big": ["large"]}') in refusal(f"{server.url}/synonyms.json")


def test_a_wrong_digest_is_refused_and_nothing_kept(
    cache: Path, served: Path, server: Server
) -> None:
    write(served, GOOD)
    message = refusal(f"{server.url}/synonyms.json#sha256={'0' * 64}")
    assert sha256(GOOD) in message
    assert "0" * 64 in message
    assert not cache.exists()


def test_a_cached_file_with_another_digest_is_downloaded_again(
    cache: Path, served: Path, server: Server
) -> None:
    url = f"{server.url}/synonyms.json"
    old = b'{"old": ["ancient"]}'
    write(served, old)
    assert dict(load_synonyms(f"{url}#sha256={sha256(old)}")) == {"old": ("ancient",)}
    write(served, GOOD)
    assert dict(load_synonyms(f"{url}#sha256={sha256(GOOD)}")) == PARSED
    assert len(list(cache.iterdir())) == 1


def test_a_page_that_is_no_dictionary_is_refused_and_not_kept(
    cache: Path, served: Path, server: Server
) -> None:
    write(served, "<html>log in first</html>")
    url = f"{server.url}/synonyms.json"
    page = b"<html>log in first</html>"
    for source in (url, f"{url}#sha256={sha256(page)}"):
        assert f"{url}, line 1: not JSON" in refusal(source)
    assert not cache.exists()


def test_two_urls_do_not_share_a_cached_file(cache: Path, served: Path, server: Server) -> None:
    write(served, GOOD, "a.json")
    other = b'{"big": ["large"]}'
    write(served, other, "b.json")
    assert dict(load_synonyms(f"{server.url}/a.json#sha256={sha256(GOOD)}")) == PARSED
    big = load_synonyms(f"{server.url}/b.json#sha256={sha256(other)}")
    assert dict(big) == {"big": ("large",)}


def test_an_unreachable_url_is_refused(cache: Path, served: Path) -> None:
    server = Server(served)
    missing = f"{server.url}/missing.json"
    assert "404" in refusal(missing)
    server.stop()
    message = refusal(missing)
    assert missing in message
    assert "cannot download" in message
    assert "cannot download" in refusal("http://[::1/x.json")


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=" + "0" * 32, "sha256=" + "g" * 64])
def test_a_malformed_digest_is_refused_before_any_request(
    cache: Path, server: Server, fragment: str
) -> None:
    assert fragment in refusal(f"{server.url}/synonyms.json#{fragment}")
    assert server.requests == []


def test_a_cache_that_cannot_be_written_is_told(cache: Path, served: Path, server: Server) -> None:
    write(served, GOOD)
    cache.write_text("a file where the folder should be")
    assert "XLT_RAY_CACHE" in refusal(f"{server.url}/synonyms.json#sha256={sha256(GOOD)}")


def test_the_counter_fitted_list_is_pinned_by_commit_and_digest() -> None:
    *_, repository, commit, file = module.COUNTER_FITTED_URL.split("/")
    assert (repository, file) == ("Robust-XLT", "counterfitted_neighbors.json")
    assert len(bytes.fromhex(commit)) == 20
    assert len(bytes.fromhex(module.COUNTER_FITTED_SHA256)) == 32


@pytest.fixture
def counter_fitted(server: Server, served: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve the file under the last part of its address; the digest is that of `GOOD`."""
    name = module.COUNTER_FITTED_URL.rpartition("/")[2]
    monkeypatch.setattr(module, "COUNTER_FITTED_URL", f"{server.url}/{name}")
    monkeypatch.setattr(module, "COUNTER_FITTED_SHA256", sha256(GOOD))
    return served / name


def test_the_counter_fitted_list_is_downloaded_once(
    cache: Path, server: Server, counter_fitted: Path
) -> None:
    counter_fitted.write_bytes(GOOD)
    for _ in range(2):
        assert dict(load_synonyms("counter-fitted")) == PARSED
    assert server.requests == [f"/{counter_fitted.name}"]
    server.stop()
    assert dict(load_synonyms("counter-fitted")) == PARSED


@pytest.mark.parametrize("content", [None, b'{"other": ["list"]}'])
def test_without_the_counter_fitted_list_a_path_is_asked_for(
    cache: Path, server: Server, counter_fitted: Path, content: bytes | None
) -> None:
    if content is not None:
        counter_fitted.write_bytes(content)
    message = refusal("counter-fitted")
    assert f"{server.url}/{counter_fitted.name}" in message
    assert message.endswith(
        "; without a network, give a copy of the file: method.view.synonyms=path.json"
    )
    assert not cache.exists()


def test_demo_dictionary() -> None:
    synonyms = load_synonyms("demo")
    assert len(synonyms) > 10
    for word, others in synonyms.items():
        assert word == word.lower()
        assert word not in others


@pytest.mark.skipif(
    "XLT_RAY_TEST_DATA" not in os.environ, reason="XLT_RAY_TEST_DATA names no folder of real text"
)
def test_counter_fitted_neighbours() -> None:
    path = Path(os.environ["XLT_RAY_TEST_DATA"]) / "counterfitted_neighbors.json"
    assert sha256(path.read_bytes()) == module.COUNTER_FITTED_SHA256
    raw = json.loads(path.read_text(encoding="utf-8"))
    synonyms = load_synonyms(str(path))
    assert synonyms["movie"] == tuple(raw["movie"])
    assert set(synonyms) <= {word.lower() for word, others in raw.items() if others}
    assert len(synonyms) > 0.99 * sum(bool(others) for others in raw.values())


def test_importing_does_not_load_the_heavy_packages() -> None:
    code = (
        "import sys, xlt_ray.method.synonyms, xlt_ray.method.synonym_view; "
        "print(*{'wn', 'nltk', 'lemminflect', 'numpy', 'torch'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == []
