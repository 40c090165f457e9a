"""A server on this machine that speaks as much of the Hub's protocol as a push and a fetch need, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secret"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose line matches: a status, "cut" (the connection) or "garble" (bytes)."""

    pattern: str
    what: int | str
    times: int = 1
    met: int = 0


@dataclass
class Repository:
    """Files of each commit; large ones by their hash."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision."""
        if revision == "main" and self.commits:
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)


class HubServer(ThreadingHTTPServer):
    """Repositories in memory, behind one token that may write."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def fault(self, pattern: str, what: int | str, times: int = 1) -> Fault:
        """Let something go wrong."""
        self.faults.append(Fault(pattern, what, times))
        return self.faults[-1]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        line = f"{self.command} {self.path}"
        self.server.asked.append(line)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.garble = False
        for fault in self.server.faults:
            if fault.met < fault.times and re.search(fault.pattern, line):
                fault.met += 1
                if fault.what == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                if isinstance(fault.what, int):
                    return self._send(fault.what, {"error": "something broke"})
                self.garble = True
        path = self.path.split("?")[0]
        for method, pattern, handle in ROUTES:
            match = re.fullmatch(pattern, path)
            if self.command in method.split("|") and match:
                return handle(self, **match.groupdict())
        self._send(404, {"error": f"no {line}"})

    def _send(self, status: int, value: Any = None, headers: dict[str, str] | None = None, data: bytes | None = None) -> None:
        data = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, {"error": "Invalid credentials in Authorization header"})
        return False

    def _repository(self, repo: str) -> Repository | None:
        found = self.server.repositories.get(repo)
        if found and (not found.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"):
            return found
        self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return None

    def create(self) -> None:
        if not self._may_write():
            return
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        if repo in self.server.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"})
        self.server.repositories[repo] = Repository(bool(asked.get("private") or asked.get("visibility") == "private"))
        self._send(200, {"url": f"{self.server.url}/{repo}", "id": repo, "name": repo})

    def whoami(self) -> None:
        if self._may_write():
            self._send(200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def card(self) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        if self._may_write():
            files = [f["path"] for f in json.loads(self.body)["files"]]
            modes = {f: "lfs" if f.endswith(".safetensors") else "regular" for f in files}
            self._send(200, {"files": [{"path": f, "uploadMode": m, "shouldIgnore": False} for f, m in modes.items()]})

    def batch(self, repo: str) -> None:
        if not self._may_write():
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            new = asked["oid"] not in self.server.blobs
            actions = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
            objects.append({**asked, **({"actions": actions} if new else {})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(422, {"error": "another sha256"})
        self.server.blobs[oid] = self.body
        self._send(200, {})

    def commit(self, repo: str, revision: str) -> None:
        if not self._may_write():
            return
        repository = self.server.repositories[repo]
        files = dict(repository.commits[-1][1]) if repository.commits else {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        oid = hashlib.sha1(self.body + str(len(repository.commits)).encode()).hexdigest()
        repository.commits.append((oid, files))
        url = f"{self.server.url}/{repo}/commit/{oid}"
        self._send(200, {"success": True, "commitUrl": url, "commitOid": oid, "hookOutput": "", "pullRequestUrl": None})

    def info(self, repo: str, revision: str = "main") -> None:
        if (repository := self._repository(repo)) is None:
            return
        found = repository.files(revision)
        if found is None:
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in found[1]]
        self._send(200, {"id": repo, "modelId": repo, "sha": found[0], "private": repository.private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        if (repository := self._repository(repo)) is None:
            return
        found = repository.files(revision)
        if found is None:
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = [{"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for n, d in found[1].items()]
        self._send(200, files)

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if (repository := self._repository(repo)) is None:
            return
        found = repository.files(revision)
        if found is None or name not in found[1]:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        data = found[1][name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": found[0], "Accept-Ranges": "bytes"}
        if self.garble:
            data = data[:-4] + b"\0\1\2\3"
        self._send(200, headers=headers, data=data)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.card),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REVISION}", Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.store),
    ("POST", rf"/api/models/{_REPO}/commit/{_REVISION}", Handler.commit),
    ("GET", rf"/api/models/{_REPO}", Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/{_REVISION}", Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/{_REVISION}", Handler.tree),
    ("GET|HEAD", rf"/{_REPO}/resolve/{_REVISION}/(?P<name>.+)", Handler.resolve),
]
