"""A stand-in of the Hugging Face Hub on loopback: what huggingface_hub really asks, and no more.

Large files go by LFS: HF_HUB_DISABLE_XET must be set, as `environment` does, because Xet's own
protocol is not spoken here.
"""

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# Tokens: who they belong to, and what they may do.
USERS = {
    "hf_you": {"name": "you", "orgs": ["your-club"], "role": "write"},
    "hf_reader": {"name": "you", "orgs": [], "role": "read"},
    "hf_other": {"name": "other", "orgs": [], "role": "write"},
}

# Larger files, and those with these endings, are stored by LFS.
LFS_BYTES, LFS_ENDINGS = 10_000_000, (".safetensors", ".model", ".parquet", ".npz")


@dataclass
class Commit:
    """The files of a commit, by name."""

    oid: str
    files: dict[str, bytes]
    message: str


@dataclass
class Repository:
    """A repository: its commits, and the branches that name one of them."""

    private: bool
    owner: str
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> Commit:
        """Adds a commit to a branch."""
        text = f"{branch} {message} {len(self.commits)}"
        made = Commit(hashlib.sha1(text.encode()).hexdigest(), files, message)
        self.commits[made.oid] = made
        self.refs[branch] = made.oid
        return made

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, or of that name."""
        return self.commits.get(self.refs.get(revision, revision))


class Refused(Exception):
    """An answer that is an error: its status, its code and its text."""

    def __init__(self, status: int, code: str = "", text: str = ""):
        super().__init__(text or code)
        self.status, self.code, self.text = status, code, text or code


class Hub:
    """What the stand-in has: repositories by kind and id, and large files by their SHA-256."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []  # Each request: its method and path.
        self.dies_at: str | None = None  # A part of a request at which the connection breaks.
        self.silent_seconds = 0.0  # How long each answer takes.
        self.address = ""
        self.lock = threading.Lock()

    def files(
        self, repository: str, revision: str = "main", kind: str = "model"
    ) -> dict[str, bytes]:
        """The files of a repository."""
        found = self.repositories[kind, repository].find(revision)
        assert found is not None
        return found.files

    def messages(self, repository: str, kind: str = "model") -> list[str]:
        """What the commits of a repository say, the first one first."""
        return [each.message for each in self.repositories[kind, repository].commits.values()]


def environment(address: str, home: Path, token: str | None = "hf_you") -> dict[str, str]:
    """The variables of a process that talks to the stand-in, with empty caches of its own."""
    kept = {name: each for name, each in os.environ.items() if "PROXY" not in name.upper()}
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        kept.pop(name, None)
    given = {} if token is None else {"HF_TOKEN": token}
    return {
        **kept,
        **given,
        "HF_ENDPOINT": address,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VIDEOPRISM_MLX_CACHE": str(home / "cache"),
    }


@contextmanager
def running() -> Iterator[Hub]:
    """A stand-in that answers at `address` while the block runs."""
    hub = Hub()

    class Handler(Answers):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield hub
        server.shutdown()


class Answers(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # It would wait 40 ms before the body of an answer.

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        asked = f"{self.command} {unquote(path)}"
        self.hub.asked.append(asked)
        time.sleep(self.hub.silent_seconds)
        if self.hub.dies_at is not None and self.hub.dies_at in asked:
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        try:
            with self.hub.lock:
                self._route(path, query, body)
        except Refused as refused:
            answer = json.dumps({"error": refused.text}).encode()
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.text}
            self._send(refused.status, answer, headers)

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        kinds, name = r"(models|datasets)", r"([^/]+/[^/]+)"
        routes = [
            (r"/api/whoami-v2", self._whoami),
            (r"/api/validate-yaml", self._validate),
            (r"/api/repos/create", self._create),
            (rf"/api/{kinds}/{name}/branch/(.+)", self._branch),
            (rf"/api/{kinds}/{name}/preupload/(.+)", self._preupload),
            (rf"/api/{kinds}/{name}/commit/(.+)", self._commit),
            (rf"/api/{kinds}/{name}/tree/(.+)", self._tree),
            (rf"/api/{kinds}/{name}/revision/(.+)", self._info),
            (rf"/api/{kinds}/{name}", self._info),
            (rf"/(datasets/)?{name}\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/([0-9a-f]{64})", self._put),
            (rf"/(datasets/)?{name}/resolve/([^/]+)/(.+)", self._resolve),
        ]
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                answer(*(unquote(each or "") for each in match.groups()), query=query, body=body)
                return
        raise Refused(404, "", f"the stand-in does not know {self.command} {path}")

    def _user(self, needed: bool = True) -> dict[str, Any] | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in USERS:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        if not token and needed:
            raise Refused(401, "", "Invalid username or password.")
        return USERS.get(token)

    def _find(self, kind: str, name: str, writes: bool = False) -> Repository:
        user = self._user(needed=writes)
        kind = "dataset" if kind.startswith("dataset") else "model"
        found = self.hub.repositories.get((kind, name))
        names = [] if user is None else [user["name"], *user["orgs"]]
        if found is None or (found.private and found.owner not in names):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if writes and found.owner not in names:
            raise Refused(403, "", f"You don't have write access to {name}")
        return found

    def _whoami(self, **_: Any) -> None:
        user = self._user()
        assert user is not None
        orgs = [{"name": name} for name in user["orgs"]]
        auth = {"accessToken": {"role": user["role"]}}
        self._json({"type": "user", "name": user["name"], "orgs": orgs, "auth": auth})

    def _validate(self, body: bytes, **_: Any) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            warning = {"message": "empty or missing yaml metadata in repo card"}
            return self._json({"errors": [], "warnings": [warning]})
        self._json({"errors": [], "warnings": []})

    def _create(self, body: bytes, **_: Any) -> None:
        user = self._user()
        assert user is not None
        asked = json.loads(body)
        owner = asked["organization"] or user["name"]
        if owner not in [user["name"], *user["orgs"]] or user["role"] == "read":
            raise Refused(403, "", f"You don't have the rights to create a model under {owner}")
        key = asked.get("type") or "model", f"{owner}/{asked['name']}"
        if key in self.hub.repositories:
            raise Refused(409, "", "You already created this model repo")
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        made = self.hub.repositories[key] = Repository(is_private, owner)
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self._json({"url": f"{self.hub.address}/{key[1]}", "name": key[1]})

    def _branch(self, kind: str, name: str, branch: str, **_: Any) -> None:
        found = self._find(kind, name, writes=True)
        if branch in found.refs:
            raise Refused(409, "", "Reference already exists")
        found.refs[branch] = found.refs["main"]
        self._json({})

    def _at(self, found: Repository, revision: str) -> Commit:
        commit = found.find(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _info(self, kind: str, name: str, revision: str = "main", **_: Any) -> None:
        found = self._find(kind, name)
        commit = self._at(found, revision)
        files = [{"rfilename": each} for each in commit.files]
        answer = {"_id": "0", "id": name, "modelId": name, "sha": commit.oid, "siblings": files}
        self._json({**answer, "private": found.private, "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, kind: str, name: str, revision: str, **_: Any) -> None:
        commit = self._at(self._find(kind, name), revision)
        self._json([{"type": "file", "path": each, **described(each, content)}
                    for each, content in commit.files.items()])  # fmt: skip

    def _preupload(self, kind: str, name: str, revision: str, query: Any, body: bytes) -> None:
        found = self._find(kind, name, writes="create_pr" not in query)
        files = self._at(found, revision).files
        answer = []
        for each in json.loads(body)["files"]:
            path = each["path"]
            here = files.get(path)
            oid = None if here is None else oid_of(path, here)
            mode = "lfs" if is_large(path, each["size"]) else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def _batch(self, kind: str, name: str, body: bytes, **_: Any) -> None:
        self._find(kind, name)
        objects = []
        for each in json.loads(body)["objects"]:
            href = {"href": f"{self.hub.address}/lfs/{each['oid']}"}
            is_here = each["oid"] in self.hub.large
            objects.append({**each, **({} if is_here else {"actions": {"upload": href}})})
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, body: bytes, **_: Any) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "", "the content has another checksum")
        self.hub.large[oid] = body
        self._send(200, b"")

    def _commit(self, kind: str, name: str, revision: str, query: Any, body: bytes) -> None:
        is_proposed = "create_pr" in query
        found = self._find(kind, name, writes=not is_proposed)
        before = self._at(found, revision)
        files, message = dict(before.files), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, before.oid):
                    raise Refused(412, "", "A commit has happened since")
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(each.startswith("refs/pr/") for each in found.refs)
        branch = f"refs/pr/{number}" if is_proposed else revision
        made = found.commit(branch, files, message)
        page = f"{self.hub.address}/{name}"
        answer = {"commitUrl": f"{page}/commit/{made.oid}", "commitOid": made.oid}
        pull = {"pullRequestUrl": f"{page}/discussions/{number}"} if is_proposed else {}
        self._json({"success": True, **answer, **pull})

    def _resolve(self, kind: str, name: str, revision: str, file: str, **_: Any) -> None:
        commit = self._at(self._find(kind, name), revision)
        if file not in commit.files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        content = commit.files[file]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{oid_of(file, content)}"'}
        self._send(200, content, headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def is_large(path: str, size: int) -> bool:
    """Whether a file is stored by LFS."""
    return size > LFS_BYTES or path.endswith(LFS_ENDINGS)


def oid_of(path: str, content: bytes) -> str:
    """The name of a file's content: SHA-256 for LFS, and git's own otherwise."""
    if is_large(path, len(content)):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def described(path: str, content: bytes) -> dict[str, Any]:
    """What the list of files says about one."""
    oid, size = oid_of(path, content), len(content)
    lfs = {"oid": oid, "size": size, "pointerSize": 130}
    return {"oid": oid, "size": size, **({"lfs": lfs} if is_large(path, size) else {})}
