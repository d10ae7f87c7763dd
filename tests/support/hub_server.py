"""A small Hub on loopback: it speaks what huggingface_hub's client asks for, from creating a repo to a resumed file.

    with Hub(users={"hf_anna": "anna"}) as hub:
        ...  # HF_ENDPOINT=hub.endpoint in another process, or the fixture `hub` in this one

Regular files have their git hash as ETag, large ones (weights, pictures) their sha256, as git LFS has them: a batch
request, a PUT or one for each part, a completion, then the commit. Xet is not spoken: HF_HUB_DISABLE_XET=1.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_store import Refused, Repo, Store

REPO = r"/(datasets/|spaces/|)([^/]+/[^/]+)"
TYPES = {"": "model", "datasets/": "dataset", "spaces/": "space"}


class Hub:
    """
    users: name by token. part_size: bytes above which a large file is uploaded in parts.
    requests: (method, path, Range, status) of each request answered. unknown: those that it does not speak.
    cut_after: the next download of a large file breaks off after so many bytes.
    down: a pattern; it answers 503 to requests whose path matches.
    """

    def __init__(self, users: dict[str, str], part_size: int = 5_000_000):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # another host, as the Hub's large files have
        self.store = Store(users, part_size, self.endpoint)
        self.requests: list[tuple[str, str, str | None, int]] = []
        self.unknown: list[str] = []
        self.cut_after: int | None = None
        self.down: str | None = None

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def asked(self, method: str, pattern: str) -> list[tuple[str | None, int]]:
        """Range and status of each request of this method whose path matches."""
        found = [r for r in self.requests if r[0] == method and re.search(pattern, r[1])]
        return [(range_, status) for _, _, range_, status in found]


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, finds its route, writes the answer."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self) -> None:
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self.read_chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.route(urlsplit(self.path).path, body)
        except Refused as refused:
            self.send(refused.status, json.dumps({"error": str(refused)}).encode(), refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: Any) -> None:
        """`Hub.requests` is the log."""

    @property
    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.store.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.store.users.get(token)

    def route(self, path: str, body: bytes) -> None:
        store = self.hub.store
        if self.hub.down and re.search(self.hub.down, path):
            raise Refused(503, "the Hub is down")
        if path == "/api/repos/create":
            self.send_json(*store.create(self.user, json.loads(body)))
        elif path == "/api/validate-yaml":
            self.send_json(*validate_card(json.loads(body)["content"]))
        elif path == "/lfs/verify":
            self.send_json(store.verify(json.loads(body)))
        elif match := re.fullmatch(r"/lfs/(upload|complete|objects)/(\w{64})", path):
            self.large_object(*match.groups(), body)
        elif match := re.fullmatch(REPO + r"\.git/info/lfs/objects/batch", path):
            store.writer(TYPES[match[1]], match[2], self.user)
            self.send_json(store.batch(json.loads(body)))
        elif match := re.fullmatch(REPO + r"/resolve/([^/]+)/(.+)", path):
            repo = store.reader(TYPES[match[1]], match[2], self.user)
            self.resolve(repo, unquote(match[3]), unquote(match[4]))
        elif match := re.fullmatch(r"/api/(model|dataset|space)s/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?(?:/(.*))?", path):
            repo_type, repo_id, call, revision, folder = match.groups()
            self.repo_call(repo_type, repo_id, call or "revision", unquote(revision or "main"), folder or "", body)
        elif re.fullmatch(r"/api/[a-z-]+", path):
            raise Refused(404, "the client asks for itself, and does without an answer")
        else:
            self.refuse_unknown()

    def repo_call(self, repo_type: str, repo_id: str, call: str, revision: str, folder: str, body: bytes) -> None:
        store = self.hub.store
        if self.command == "GET":
            repo = store.reader(repo_type, repo_id, self.user)
            if call == "revision":
                self.send_json(store.info(repo, repo_id, revision))
            elif call == "tree":
                self.send_json(store.tree(repo, revision, unquote(folder)))
            else:
                self.refuse_unknown()
            return
        repo = store.writer(repo_type, repo_id, self.user)
        if call == "preupload":
            self.send_json(store.preupload(repo, revision, json.loads(body)))
        elif call == "commit":
            self.send_json(store.commit(repo, revision, [json.loads(line) for line in body.splitlines()]))
        elif call == "tag":
            repo.refs[json.loads(body)["tag"]] = repo.resolve(revision)
            self.send_json({})
        elif call == "branch":
            repo.refs[revision] = repo.resolve(json.loads(body).get("startingPoint", "main"))
            self.send_json({})
        else:
            self.refuse_unknown()

    def refuse_unknown(self) -> None:
        self.hub.unknown.append(f"{self.command} {self.path}")
        raise Refused(404, "this small Hub does not speak that")

    def large_object(self, call: str, oid: str, body: bytes) -> None:
        """A PUT of a whole one or of a part, the completion of parts, or the download that a resolve leads to."""
        store, part = self.hub.store, parse_qs(urlsplit(self.path).query).get("part")
        if call == "objects":
            if "Authorization" in self.headers:
                raise Refused(400, "the storage is another host, which must not see the token")
            self.send_file(store.objects[oid], {"ETag": f'"{oid}"'}, may_break=True)
        elif call == "complete":
            self.send_json(store.complete(oid, json.loads(body)))
        elif part:
            store.parts.setdefault(oid, {})[int(part[0])] = body
            self.send(200, b"", {"ETag": f'"{oid[:8]}-{part[0]}"'})
        else:
            store.put(oid, body)
            self.send(200, b"")

    def resolve(self, repo: Repo, revision: str, path: str) -> None:
        commit = repo.resolve(revision)
        file = repo.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if file is None:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound", headers)
        if not file.large:
            self.send_file(file.content, headers | {"ETag": f'"{file.oid}"'})
            return
        headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.content))}
        self.send(302, b"", headers | {"Location": f"{self.hub.storage}/lfs/objects/{file.oid}"})

    def send_file(self, content: bytes, headers: dict[str, str], may_break: bool = False) -> None:
        first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
        if (start, stop) != (0, len(content)):
            told = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            self.send(206, content[start:stop], told)
        elif may_break and self.hub.cut_after is not None:
            self.send(200, content, headers, cut_after=self.hub.cut_after)
            self.hub.cut_after, self.close_connection = None, True
        else:
            self.send(200, content, headers)

    def send_json(self, answer: Any, status: int = 200) -> None:
        self.send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut_after: int | None = None
    ) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range"), status))
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut_after])


def validate_card(text: str) -> tuple[dict[str, Any], int]:
    """The Hub's check of a card's front matter, as far as YAML goes: it must be a mapping."""
    parts = text.split("---\n")
    data = yaml.safe_load(parts[1]) if text.startswith("---\n") and len(parts) > 2 else {}
    if not isinstance(data, dict):
        return {"errors": [{"message": "the front matter is no mapping"}], "warnings": []}, 400
    return {"errors": [], "warnings": []}, 200
