"""A HuggingFace hub on 127.0.0.1 for tests, and a second server that plays its content network.

It answers what downloads ask for: the description of a repository, its tree, HEAD and GET of files
at a revision. Small files are sent through a redirect within the hub, large ones (git LFS) from the
other server, as the real hub does. Faults make it misbehave, each a number of times:

    with FakeHub() as hub:
        hub.add("org/name", {"config.json": b"{}", "model.safetensors": x}, lfs=["model.safetensors"])
        hub.fault("model.safetensors", cut=1000)
        ... HF_ENDPOINT=hub.url ...
        hub.requests  # what came in

Only the standard library is used.
"""

import hashlib
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def commit_of(name):
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass
class Repo:
    kind: str  # "models" or "datasets"
    id: str
    files: dict
    lfs: frozenset
    commit: str
    revisions: dict
    error: dict = field(default_factory=dict)  # {"status":, "code":, "message":}: refused to all

    def etag(self, path):
        data = self.files[path]
        return hashlib.sha256(data).hexdigest() if path in self.lfs else git_hash(data)


@dataclass
class Fault:
    """What goes wrong with requests whose path contains `path`; None: nothing of that kind."""

    path: str
    times: int = 1 << 30
    method: str = ""  # any
    server: str = ""  # "hub", "cdn" or any
    after: int = 0  # requests that go well first
    status: int = None  # this answer, with `headers`
    headers: dict = field(default_factory=dict)
    cut: int = None  # the connection ends after so many bytes of the body
    end: int = None  # the body ends there in good order, without a Content-Length
    ignore_range: bool = False
    body: bytes = None  # sent in place of the file
    linked_size: int = None  # X-Linked-Size of the description
    linked_etag: str = None
    commit: str = None
    rate: int = None  # bytes per second
    stall: int = None  # silence after so many bytes, until the client gives up
    redirect: str = None
    json: object = None  # the answer of the API
    raw: bytes = None  # sent as it is, then closed


@dataclass
class Request:
    server: str
    method: str
    path: str
    headers: dict
    status: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:  # a client that had enough
            pass

    def do_HEAD(self):
        self.handle_request()

    def do_GET(self):
        self.handle_request()

    def handle_request(self):
        self.hub = self.server.hub
        self.asked = Request(self.server.name, self.command, self.path, dict(self.headers))
        with self.hub.lock:
            self.hub.requests.append(self.asked)
        self.fault = self.hub.take_fault(self.server.name, self.command,
                                         urllib.parse.unquote(self.path))
        try:
            self.answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self):
        fault = self.fault
        if fault.raw is not None:
            self.wfile.write(fault.raw)
            self.close_connection = True
        elif fault.status is not None:
            self.send(fault.status, fault.headers)
        elif self.server.name == "cdn":
            self.send_file(self.hub.blobs[self.path.split("?")[0].rsplit("/", 1)[1]], {})
        else:
            self.answer_hub()

    def send(self, status, headers, body=b"", length=None):
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message=""):
        self.send(status, {"X-Error-Code": code, "X-Error-Message": message})

    def answer_hub(self):
        path = urllib.parse.urlsplit(self.path).path
        match = re.fullmatch(r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/([^/]+))?", path)
        inner = re.fullmatch(r"/api/resolve-cache/(models|datasets)/(.+?)/([0-9a-f]{40})/(.+)", path)
        if inner:
            return self.answer_file(*inner.groups(), True)
        if match:
            kind, name, what, revision = match.groups()
            repo = self.find(kind, name)
            commit = repo and self.find_commit(repo, urllib.parse.unquote(revision or "main"))
            if not commit:
                return
            if self.fault.json is not None:
                answer = self.fault.json
            elif what == "tree":
                answer = [self.tree_entry(repo, f) for f in sorted(repo.files)]
            else:
                answer = {"id": repo.id, "sha": commit, "siblings": [
                    self.sibling(repo, f, "blobs=" in self.path) for f in sorted(repo.files)]}
            body = json.dumps(answer).encode()
            return self.send(200, {"Content-Type": "application/json"}, body)
        match = re.fullmatch(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", path)
        if match:
            data, name, revision, file = match.groups()
            return self.answer_file("datasets" if data else "models", name, revision, file, False)
        self.refuse(404, "")

    def sibling(self, repo, path, blobs):
        entry = {"rfilename": path}
        if blobs:
            entry |= {"size": len(repo.files[path]), "blobId": git_hash(repo.files[path])}
        if blobs and path in repo.lfs:
            entry["lfs"] = {"sha256": repo.etag(path), "size": len(repo.files[path]),
                            "pointerSize": 130}
        return entry

    def tree_entry(self, repo, path):
        entry = {"type": "file", "path": path, "size": len(repo.files[path]),
                 "oid": git_hash(repo.files[path])}
        if path in repo.lfs:
            entry["lfs"] = {"oid": repo.etag(path), "size": len(repo.files[path]),
                            "pointerSize": 130}
        return entry

    def find(self, kind, name):
        repo = self.hub.repos.get((kind, name))
        if repo and not repo.error:
            return repo
        if repo:
            self.refuse(repo.error["status"], repo.error["code"], repo.error.get("message", ""))
        else:  # the real hub does not tell a private repository from none
            known = self.headers.get("Authorization")
            self.refuse(404 if known else 401, "RepoNotFound", "Repository not found")
        return None

    def find_commit(self, repo, revision):
        if revision == repo.commit:
            return repo.commit
        if revision not in repo.revisions:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        return repo.revisions.get(revision)

    def answer_file(self, kind, name, revision, file, final):
        file = urllib.parse.unquote(file)
        repo = self.find(kind, name)
        commit = repo and self.find_commit(repo, urllib.parse.unquote(revision))
        if not commit:
            return
        if file not in repo.files:
            return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data, fault = repo.files[file], self.fault
        headers = {"X-Repo-Commit": fault.commit or commit,
                   "ETag": '"%s"' % (fault.linked_etag or repo.etag(file))}
        if fault.redirect:
            return self.send(302, headers | {"Location": fault.redirect})
        if file in repo.lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size":
                        str(len(data) if fault.linked_size is None else fault.linked_size),
                        "Location": f"{self.hub.cdn_url}/blobs/{repo.etag(file)}?Signature=abc"}
            return self.send(302, headers, b"Found. Redirecting")
        if not final and self.hub.inner_redirects:
            location = f"/api/resolve-cache/{kind}/{name}/{commit}/{urllib.parse.quote(file)}"
            return self.send(307, headers | {"Location": location})
        self.send_file(data, headers)

    def send_file(self, data, headers):
        fault = self.fault
        if fault.body is not None:
            data = fault.body
        first, status = 0, 200
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and not fault.ignore_range:
            first, status = int(match[1]), 206
            if first >= len(data):
                return self.send(416, {"Content-Range": f"bytes */{len(data)}"})
            headers = headers | {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
        if fault.headers:
            headers = headers | fault.headers
        body = data[first:]
        if fault.end is not None and self.command == "GET":
            self.asked.status = status
            self.send_response(status)
            for name, value in (headers | {"Connection": "close"}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: fault.end])
            self.close_connection = True
            return
        limit = next((n for n in (fault.cut, fault.stall) if n is not None), len(body))
        self.send(status, {"Accept-Ranges": "bytes"} | headers, b"", len(body))
        if self.command == "HEAD":
            return
        step = fault.rate // 20 if fault.rate else 1 << 20
        for begin in range(0, min(limit, len(body)), step):
            self.wfile.write(body[begin : min(limit, begin + step)])
            if fault.rate:
                time.sleep(0.05)
        if fault.stall is not None:
            self.hub.stopping.wait(15)
        if limit < len(body) or fault.stall is not None:
            self.close_connection = True


class FakeHub:
    def __init__(self):
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.repos, self.blobs, self.faults, self.requests = {}, {}, [], []
        self.inner_redirects = True

    def __enter__(self):
        self.servers = []
        for name in ("hub", "cdn"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.hub, server.name = self, name
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers.append(server)
        self.url, self.cdn_url = (f"http://127.0.0.1:{s.server_address[1]}" for s in self.servers)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, files, lfs=(), kind="models", revisions=(), error=None):
        """A repository with one commit, which `main` and `revisions` stand for; the Repo."""
        commit = commit_of(name + "".join(sorted(files)))
        repo = Repo(kind, name, dict(files), frozenset(lfs), commit,
                    dict.fromkeys(("main", *revisions), commit), error or {})
        self.repos[kind, name] = repo
        for path in lfs:
            self.blobs[repo.etag(path)] = repo.files[path]
        return repo

    def fault(self, path, **what):
        self.faults.append(Fault(path, **what))

    def take_fault(self, server, method, path):
        with self.lock:
            for fault in self.faults:
                name = fault.path
                if server == "cdn":  # there files are known by their hash
                    name = next((r.etag(fault.path) for r in self.repos.values()
                                 if fault.path in r.lfs), name)
                if (name in path and fault.times > 0 and fault.method in ("", method)
                        and fault.server in ("", server)):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return Fault("")

    def count(self, text, method="", server=""):
        """Requests so far whose path contains `text`."""
        return sum(text in urllib.parse.unquote(r.path) and method in ("", r.method)
                   and server in ("", r.server) for r in self.requests)
