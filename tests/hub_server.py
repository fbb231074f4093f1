"""A Hub on 127.0.0.1: the HTTP with which huggingface_hub makes a repository, pushes to it and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_test"


@dataclass
class Repository:
    """Commits of a model, oldest first: sha -> files."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def files(self, revision: str) -> dict[str, bytes] | None:
        """Those of a commit, or of the last where the branch is asked for."""
        if revision == "main" and self.commits:
            return list(self.commits.values())[-1]
        return self.commits.get(revision)

    def sha(self, revision: str) -> str:
        return list(self.commits)[-1] if revision == "main" else revision


@dataclass
class Hub:
    """What the server knows and was asked. down: requests for files that it still answers with 503."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    down: int = 0


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/lfs/"):
            return self._blob(path.rpartition("/")[2], body)
        if path.startswith("/api/"):
            return self._api(path.removeprefix("/api/").split("/"), body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        owner, name, _, revision, *file = path.strip("/").split("/")
        return self._file(f"{owner}/{name}", revision, "/".join(file))

    def _chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _api(self, words: list[str], body: bytes) -> None:
        if words == ["validate-yaml"]:
            return self._validate(json.loads(body)["content"])
        if words == ["repos", "create"]:
            return self._create(json.loads(body))
        repo, action = "/".join(words[1:3]), words[3] if len(words) > 3 else "info"
        if (refused := self._refused(repo)) is not None:
            return self._send(*refused)
        found = self.hub.repositories[repo]
        if action == "preupload":
            files = [
                {
                    "path": entry["path"],
                    "uploadMode": "lfs" if entry["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for entry in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if action == "commit":
            return self._commit(repo, [json.loads(line) for line in body.splitlines()])
        if action == "tree":
            listed = (found.files(words[4]) or {}).items()
            return self._json(
                [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in listed]
            )
        revision = words[4] if action == "revision" else "main"
        files = found.files(revision) or {}
        siblings = [{"rfilename": name} for name in files]
        return self._json({"id": repo, "sha": found.sha(revision), "siblings": siblings})

    def _validate(self, content: str) -> None:
        if "license: free-as-in-beer" in content:
            return self._json({"errors": [{"message": '"license" must be one of [apache-2.0]'}]}, 400)
        return self._json({"errors": [], "warnings": []})

    def _create(self, wanted: dict) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        owner = wanted.get("organization") or "somebody"
        if owner == "others":
            return self._json({"error": "You don't have the rights to create a model there"}, 403)
        repo = f"{owner}/{wanted['name']}"
        if repo in self.hub.repositories:
            return self._json(
                {"error": "You already created this model", "url": f"{self.hub.url}/{repo}"}, 409
            )
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.repositories[repo] = Repository(private=private)
        return self._json({"url": f"{self.hub.url}/{repo}"})

    def _batch(self, wanted: dict) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
            for o in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _blob(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send(400)
        self.hub.blobs[oid] = body
        return self._send(200)

    def _commit(self, repo: str, lines: list[dict]) -> None:
        found = self.hub.repositories[repo]
        files = dict(found.files("main") or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        sha = hashlib.sha1(repr((len(found.commits), sorted(files))).encode()).hexdigest()
        found.commits[sha] = files
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})

    def _refused(self, repo: str) -> tuple[int, dict[str, str]] | None:
        """The status and headers of a repository that this client may not read."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not known):
            return (404 if known else 401), {"X-Error-Code": "RepoNotFound"}
        if found.gated and not known:
            return 401, {"X-Error-Code": "GatedRepo"}
        return None

    def _file(self, repo: str, revision: str, name: str) -> None:
        if self.hub.down:
            self.hub.down -= 1
            return self._send(503)
        if (refused := self._refused(repo)) is not None:
            return self._send(*refused)
        found = self.hub.repositories[repo]
        files = found.files(revision)
        if files is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        commit = {"X-Repo-Commit": found.sha(revision)}
        if name not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", **commit})
        tag = hashlib.sha256(files[name]).hexdigest()
        return self._send(200, {"ETag": f'"{tag}"', **commit}, files[name])

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
