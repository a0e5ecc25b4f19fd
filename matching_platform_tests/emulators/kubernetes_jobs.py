"""The part of the Kubernetes API that Dagster's executor talks to: jobs, whose pods are processes of this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import yaml

_JOB: Final = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(/(?P<name>[^/?]+))?(/status)?(\?.*)?$")


@dataclass
class Cluster:
    """Jobs by name, in the order of their creation: the manifest of each and the process of its pod."""

    url: str
    environment: dict[str, str]
    jobs: dict[str, tuple[dict[str, Any], subprocess.Popen[bytes]]] = field(default_factory=dict)

    def config(self, path: Path) -> Path:
        """A kubeconfig for it, written to `path`."""
        named = [{"name": "it", "cluster": {"server": self.url}}]
        context = [{"name": "it", "context": {"cluster": "it", "user": "it"}}]
        users = [{"name": "it", "user": {}}]
        told = {"clusters": named, "contexts": context, "users": users, "current-context": "it"}
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **told}))
        return path

    def preempt(self, job: str, *, warned: bool) -> None:
        """Takes the node of a job's pod away; `warned`: the pod is told to end, as Kubernetes does where it can."""
        _, pod = self.jobs[job]
        pod.send_signal(signal.SIGTERM if warned else signal.SIGKILL)

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
        environment = {**os.environ, **self.environment, **given, "KUBERNETES_SERVICE_HOST": "127.0.0.1"}
        program, *arguments = container["args"]
        command = [str(Path(sys.executable).parent / program), *arguments]
        self.jobs[manifest["metadata"]["name"]] = (manifest, subprocess.Popen(command, env=environment))
        return manifest

    def job(self, name: str) -> dict[str, Any]:
        manifest, pod = self.jobs[name]
        ended = pod.poll()
        status = {"active": 1} if ended is None else {"failed": 1} if ended else {"succeeded": 1}
        return {**manifest, "status": status}


@contextmanager
def serve(environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster whose pods get `environment` too; whatever still runs in it ends with it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self._answer(201, cluster.create(json.loads(self.rfile.read(size))))

        def do_GET(self) -> None:
            asked = _JOB.match(self.path)
            if asked and asked["name"] in cluster.jobs:
                self._answer(200, cluster.job(asked["name"]))
            else:
                self._answer(404, {"kind": "Status", "status": "Failure", "code": 404, "message": self.path})

        def _answer(self, code: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cluster = Cluster(f"http://127.0.0.1:{server.server_port}", environment)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        for _, pod in cluster.jobs.values():
            pod.kill()
            pod.wait()
