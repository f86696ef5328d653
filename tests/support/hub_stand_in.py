"""A stand-in for the Hugging Face hub on the loopback, serving repositories from a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|paths-info|preupload|commit)/(?P<revision>[^/]+)"
    r"(?:/(?P<path>.+))?)?"
)
_FILE = re.compile(
    r"/(?P<dataset>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


_LFS = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_STORED = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})")
TOKEN = "hf_standin"
"""The token that may write to the repositories of OWNER."""
OWNER = "owner"


class HubStandIn:
    """What the hub's clients need to list, fetch and write repositories.

    Attributes:
        root: The repositories: ``models/OWNER/NAME/...`` and ``datasets/OWNER/NAME/...``. Each has
            one commit on its branch ``main``.
        url: What ``HF_ENDPOINT`` must be set to.
        requests: Every request so far, as ``METHOD path``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.created: dict[str, bool] = {}
        """Whether each repository that a client created is private."""
        self.stored: dict[str, bytes] = {}
        """Large files by SHA-256, before a commit puts them in place."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[HubStandIn]:
        """Serve until the block is left; nothing listens at :attr:`url` afterwards."""
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def fetched(self) -> set[str]:
        """Paths within their repositories of the files whose content was sent or asked about."""
        found = (_FILE.fullmatch(request.partition(" ")[2]) for request in self.requests)
        return {match["path"] for match in found if match}


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean; the requests are recorded instead."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("POST", "PUT") and self._write(path, body):
            return
        if path == "/api/whoami-v2":
            return (
                self._json({"name": OWNER, "type": "user", "orgs": []}) if self._known() else None
            )
        if match := _API.fullmatch(path):
            self._api(match, body)
        elif match := _FILE.fullmatch(path):
            self._file(match)
        else:
            self._error("EntryNotFound")

    def _known(self) -> bool:
        """Whether the request has the token; if not, it is refused."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, b'{"error": "Invalid credentials"}', {"Content-Type": "application/json"})
        return False

    def _write(self, path: str, body: bytes) -> bool:
        """Answer a request that writes, if this is one."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            if self._known():
                name = f"{asked.get('organization') or OWNER}/{asked['name']}"
                if not name.startswith(f"{OWNER}/"):
                    self._send(403, b"{}", {})
                    return True
                status = 409 if (self.hub.root / "models" / name).is_dir() else 200
                if status == 200:
                    (self.hub.root / "models" / name).mkdir(parents=True)
                    self.hub.created[name] = asked.get("visibility", "") == "private" or bool(
                        asked.get("private")
                    )
                answer = json.dumps({"url": f"{self.hub.url}/{name}", "name": name}).encode()
                self._send(status, answer, {"Content-Type": "application/json"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := _LFS.fullmatch(path):
            if self._known():
                objects = json.loads(body)["objects"]
                for entry in objects:
                    entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}
                self._json({"transfer": "basic", "objects": objects})
        elif match := _STORED.fullmatch(path):
            assert hashlib.sha256(body).hexdigest() == match["oid"]
            self.hub.stored[match["oid"]] = body
            self._send(200, b"", {})
        elif (match := _API.fullmatch(path)) and match["verb"] in ("preupload", "commit"):
            if self._known():
                self._commit(match["verb"], self.hub.root / "models" / match["name"], body)
        else:
            return False
        return True

    def _commit(self, verb: str, folder: Path, body: bytes) -> None:
        """Say how files are to be sent, or put what was sent in place."""
        if verb == "preupload":
            files = [
                {
                    "path": file["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                (folder / value["path"]).write_bytes(self.hub.stored[value["oid"]])
        made = _commit(folder)
        name = folder.relative_to(self.hub.root / "models")
        address = f"{self.hub.url}/{name}/commit/{made}"
        self._json({"success": True, "commitOid": made, "commitUrl": address})

    def _repository(self, kind: str, name: str, revision: str | None) -> tuple[Path, str] | None:
        folder = self.hub.root / kind / name
        if not folder.is_dir():
            # The hub does not tell an absent repository from a private one.
            self._error("RepoNotFound", 401)
            return None
        commit = _commit(folder)
        if revision not in (None, "main", commit):
            self._error("RevisionNotFound")
            return None
        return folder, commit

    def _api(self, match: re.Match[str], body: bytes) -> None:
        repository = self._repository(match["kind"], match["name"], match["revision"])
        if repository is None:
            return
        folder, commit = repository
        if match["verb"] == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0]
            below = folder / (match["path"] or "")
            if not below.is_dir():
                return self._error("EntryNotFound")
            entries = sorted(below.rglob("*") if recursive.lower() == "true" else below.iterdir())
            return self._json([_entry(folder, path) for path in entries])
        if match["verb"] == "paths-info":
            wanted = _paths(body, self.headers.get("Content-Type", ""))
            existing = [folder / path for path in wanted if (folder / path).exists()]
            return self._json([_entry(folder, path) for path in existing])
        files = [entry for path in sorted(folder.rglob("*")) if (entry := _entry(folder, path))]
        self._json(
            {
                "id": match["name"],
                "sha": commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": e["path"]} for e in files if e["type"] == "file"],
            }
        )

    def _file(self, match: re.Match[str]) -> None:
        kind = "datasets" if match["dataset"] else "models"
        repository = self._repository(kind, match["name"], match["revision"])
        if repository is None:
            return
        folder, commit = repository
        path = folder / match["path"]
        if not path.is_file():
            return self._error("EntryNotFound", commit=commit)
        content = path.read_bytes()
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_digest(content)}"',
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self._send(206, content[start : end + 1], headers)
        self._send(200, content, headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, code: str, status: int = 404, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        if commit is not None:
            headers["X-Repo-Commit"] = commit
        self._send(status, b"", headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _commit(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listing = [(str(path.relative_to(folder)), _digest(path.read_bytes())) for path in files]
    return _digest(repr(listing).encode())


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path.relative_to(folder)), "size": 0}
    if path.is_dir():
        return entry | {"type": "directory", "oid": _digest(entry["path"].encode())}
    content = path.read_bytes()
    return entry | {"type": "file", "oid": _digest(content), "size": len(content)}


def _paths(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        paths = json.loads(body)["paths"]
        return [paths] if isinstance(paths, str) else list(paths)
    return parse_qs(body.decode()).get("paths", [])
