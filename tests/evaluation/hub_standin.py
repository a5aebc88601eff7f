"""A stand-in for the Hugging Face hub: the routes that huggingface_hub asks for a dataset, over real HTTP.

Its dataset info and its file headers (ETag, X-Repo-Commit) are those of the hub's API.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


def commit_of(revision):
    """The commit of a branch or tag."""
    return hashlib.sha1(revision.encode()).hexdigest()


COMMIT = commit_of("main")


class Hub:
    """Datasets by id, each with its files by revision."""

    def __init__(self):
        self.datasets = {}
        self.requests = []
        self.gated = set()

    def add(self, name, files, *, revision="main"):
        self.datasets.setdefault(name, {})[revision] = files

    def files(self, name, revision):
        """The files of a branch, tag or commit; None where there is none."""
        return next(
            (files for known, files in self.datasets[name].items() if revision in (known, commit_of(known))), None
        )

    def info(self, name, revision):
        commit = commit_of(revision) if revision in self.datasets[name] else revision
        siblings = [{"rfilename": file} for file in self.files(name, revision)]
        return {
            "id": name,
            "sha": commit,
            "siblings": siblings,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    @contextmanager
    def serving(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/api/datasets/"):
            self.describe(path.removeprefix("/api/datasets/"))
        elif path.startswith("/datasets/") and "/resolve/" in path:
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            self.send_file(name, rest, body=body)
        else:
            self.refuse(404, "EntryNotFound")

    def describe(self, path):
        name, _, revision = path.partition("/revision/")
        revision = revision or "main"
        if name not in self.hub.datasets:
            return self.refuse(401, "RepoNotFound")
        if self.hub.files(name, revision) is None:
            return self.refuse(404, "RevisionNotFound")
        return self.reply(200, json.dumps(self.hub.info(name, revision)).encode(), {"Content-Type": "application/json"})

    def send_file(self, name, rest, *, body):
        revision = next(
            (known for known in self.hub.datasets[name] if rest.startswith(f"{known}/")), rest.split("/")[0]
        )
        files, file = self.hub.files(name, revision), rest.removeprefix(f"{revision}/")
        if name in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if file not in files:
            return self.refuse(404, "EntryNotFound")
        data = files[file]
        commit = commit_of(revision) if revision in self.hub.datasets[name] else revision
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return self.reply(200, data, headers, body=body)

    def refuse(self, status, code):
        self.reply(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"})

    def reply(self, status, data, headers, *, body=True):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass
