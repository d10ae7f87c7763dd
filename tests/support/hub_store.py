"""What a small Hub keeps and decides: repositories, commits, large objects, who may read and write. No HTTP here."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

LARGE = (".safetensors", ".png")
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


class Refused(Exception):
    """An answer that is an error, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass(frozen=True)
class File:
    content: bytes
    large: bool

    @property
    def git_hash(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.large else self.git_hash


@dataclass
class Repo:
    """commits: the whole tree of each, by its hash. refs: branches and tags. options: as it was created."""

    url: str
    owner: str
    private: bool
    options: dict[str, Any]
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, File]) -> str:
        listing = "\n".join(f"{path} {tree[path].oid}" for path in sorted(tree))
        oid = hashlib.sha1(f"{len(self.commits)} {listing}".encode()).hexdigest()
        self.commits[oid], self.refs[branch] = tree, oid
        return oid

    def resolve(self, revision: str) -> str:
        oid = self.refs.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid


class Store:
    """
    users: name by token. part_size: bytes above which a large file is uploaded in parts.
    objects: content of the large files, by sha256. parts: of those on their way, by number.
    """

    def __init__(self, users: dict[str, str], part_size: int, endpoint: str):
        self.users, self.part_size, self.endpoint = users, part_size, endpoint
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    # Who may do what.

    def reader(self, repo_type: str, repo_id: str, user: str | None) -> Repo:
        repo = self.repos.get((repo_type, repo_id))
        if repo is None or (repo.private and user != repo.owner):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def writer(self, repo_type: str, repo_id: str, user: str | None) -> Repo:
        repo = self.reader(repo_type, repo_id, user)
        if user != repo.owner:
            raise Refused(403 if user else 401, "You have no write access to this repository")
        return repo

    # What the client calls, in the order of a push and a pull.

    def create(self, user: str | None, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        owner, repo_type = body.get("organization") or user, body.get("type") or "model"
        if user is None or owner != user:
            raise Refused(403 if user else 401, "You may not create a repository there")
        repo_id = f"{owner}/{body['name']}"
        url = f"{self.endpoint}/{PREFIXES[repo_type]}{repo_id}"
        if (repo_type, repo_id) in self.repos:
            return {"url": url, "error": "You already created this repo"}, 409
        repo = Repo(
            url, owner, private=body.get("visibility") == "private" or body.get("private", False), options=body
        )
        repo.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs\n", large=False)})
        self.repos[repo_type, repo_id] = repo
        return {"url": url, "name": repo_id}, 200

    def preupload(self, repo: Repo, revision: str, body: dict[str, Any]) -> dict[str, Any]:
        tree, files = repo.commits[repo.resolve(revision)], []
        for path in (entry["path"] for entry in body["files"]):
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = tree[path].oid if path in tree else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def batch(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"transfer": "basic", "objects": [self._upload(**entry) for entry in body["objects"]]}

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        if oid in self.objects:
            return {"oid": oid, "size": size}  # there already
        verify = {"href": f"{self.endpoint}/lfs/verify"}
        upload: dict[str, Any] = {"href": f"{self.endpoint}/lfs/upload/{oid}"}
        if size > self.part_size:
            count = -(-size // self.part_size)
            parts = {str(i): f"{self.endpoint}/lfs/upload/{oid}?part={i}" for i in range(1, count + 1)}
            header = {"chunk_size": str(self.part_size), **parts}
            upload = {"href": f"{self.endpoint}/lfs/complete/{oid}", "header": header}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def put(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, f"the content of {oid} has another sha256")
        self.objects[oid] = content

    def complete(self, oid: str, body: dict[str, Any]) -> dict[str, Any]:
        parts = self.parts.pop(oid)
        if [part["partNumber"] for part in body["parts"]] != sorted(parts):
            raise Refused(400, f"parts {body['parts']} are not those of {oid}")
        self.put(oid, b"".join(parts[i] for i in sorted(parts)))
        return {}

    def verify(self, body: dict[str, Any]) -> dict[str, Any]:
        if len(self.objects.get(body["oid"], b"")) != body["size"]:
            raise Refused(404, f"{body['oid']} was not uploaded")
        return {}

    def commit(self, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        parent = repo.resolve(branch)
        tree = dict(repo.commits[parent])
        for line in lines:
            value, path = line["value"], line["value"].get("path", "")
            if line["key"] == "header":
                if value.get("parentCommit", parent) != parent:
                    raise Refused(412, f"{branch} has moved on to {parent}")
            elif line["key"] == "file":
                tree[path] = File(base64.b64decode(value["content"]), large=False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refused(400, f"{path} was not uploaded")
                tree[path] = File(self.objects[value["oid"]], large=True)
            elif line["key"] == "deletedFile":
                del tree[path]
            else:
                raise Refused(400, f"unknown operation {line['key']}")
        oid = repo.commit(branch, tree)
        return {"success": True, "commitOid": oid, "commitUrl": f"{repo.url}/commit/{oid}", "hookOutput": ""}

    def info(self, repo: Repo, repo_id: str, revision: str) -> dict[str, Any]:
        oid = repo.resolve(revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[oid])]
        return {"id": repo_id, "sha": oid, "private": repo.private, "tags": [], "siblings": siblings}

    def tree(self, repo: Repo, revision: str, folder: str) -> list[dict[str, Any]]:
        entries = []
        for path, file in sorted(repo.commits[repo.resolve(revision)].items()):
            if path.startswith(folder):
                entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.git_hash}
                lfs = {"oid": file.oid, "size": len(file.content), "pointerSize": 130}
                entries.append(entry | ({"lfs": lfs} if file.large else {}))
        return entries
