"""A stand-in for the W&B server on loopback: it records what the real client (0.31) sends.

    with WandbServer() as server:
        ...                                   # with the environment of server.environment
        server.run("abc").history             # rows in the order of arrival

It proves what the client sends, not what W&B's own server makes of it.
"""

from __future__ import annotations

import json
import re
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"
PROJECT = {"id": "p", "name": "research", "entity": {"id": "e", "name": "someone"}, "internalId": "p"}


@dataclass
class ServedRun:
    """What arrived of one run."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)  # groupName, displayName, tags, ...
    config: dict[str, Any] = field(default_factory=dict)  # by key; W&B's own part is `_wandb`
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def by_step(self) -> dict[int, dict[str, Any]]:
        """The rows as W&B draws them, over `trainer/global_step`: of one step the last value of each key wins."""
        steps: dict[int, dict[str, Any]] = {}
        for row in self.history:
            steps.setdefault(row["trainer/global_step"], {}).update({k: v for k, v in row.items() if k[0] != "_"})
        return steps


def config_of(run: ServedRun) -> str:
    """A config as W&B writes it."""
    return json.dumps({key: {"value": value} for key, value in run.config.items()})


class WandbServer:
    """Modes: "good", "nonsense" (every answer is an empty JSON object), "forbidden" (every key is wrong),
    "broken" (it knows the user and nothing else), "silent" (it answers no request that matches `hangs_on`),
    "failing" (it answers those with 500)."""

    def __init__(self, mode: str = "good", hangs_on: str = ".*") -> None:
        self.mode, self.hangs_on = mode, re.compile(hangs_on)
        self.closed = threading.Event()
        self.runs: dict[str, ServedRun] = {}
        self.views: list[dict[str, Any]] = []  # reports, as they were saved
        self.operations: list[str] = []
        handler = type("Handler", (_Handler,), {"served": self})
        self.http = _QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closed.set()
        self.http.shutdown()
        self.http.server_close()

    def run(self, name: str) -> ServedRun:
        return self.runs[name]

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data of one GraphQL operation; None for one that is not known."""
        operation = query.split("(")[0].split("{")[0].split()[-1]
        self.operations.append(operation)
        if operation in ("Viewer", "GetDefaultEntity"):
            viewer = {"id": "u", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer}
        if self.mode == "broken":
            return None
        parts = (self._of_projects, self._of_runs, self._of_artifacts)
        return next((found for part in parts if (found := part(operation, variables)) is not None), None)

    def _of_projects(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "GetProjects":
            node = {"__typename": "Project", "id": "p", "name": "research", "entityName": "someone", "user": None,
                    "createdAt": "2026-01-01T00:00:00", "isBenchmark": False}  # fmt: skip
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": node}]}}
        if operation == "upsertView":
            self.views.append(variables)
            place = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
            view = {key: variables[key] for key in ("type", "name", "displayName", "description", "spec")}
            view |= {"id": f"view{len(self.views)}", "project": place, "updatedAt": "2026-01-01T00:00:00"}
            return {"upsertView": {"view": view, "inserted": True}}
        if operation == "OrganizationCoreWeaveOrganizationID":
            return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
        return None

    def _of_runs(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {"model": {**PROJECT, "bucket": self._resume_status(run) if run else None}}
        if operation == "UpsertBucket":
            return self._upsert(variables)
        if operation in ("Run", "RunHistoryKeys"):  # what wandb.Api().run() asks
            run = self.runs.get(variables["name"])
            return {"project": {"run": self._state(run) if run else None}}
        if operation == "CreateRunFiles":
            names = variables["files"]
            links = [{"name": n, "uploadUrl": f"{self.url}/put/{variables['run']}/{n}"} for n in names]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": links}}
        return None

    def _of_artifacts(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if operation == "ArtifactType":
            return {"project": {**PROJECT, "artifactType": {"id": "t", "name": "run_table"}, "artifact": None}}
        if operation == "CreateArtifact":
            self.runs[variables["input"]["runName"]].artifacts.append(variables["input"])
            sequence = {"id": "s", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": sequence}}}
        if operation == "CreateArtifactManifest":
            file = {"id": "f", "name": "manifest", "displayName": "manifest", "uploadHeaders": []}
            file["uploadUrl"] = f"{self.url}/put/-/manifest"
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CreateArtifactFiles":
            names = [file["name"] for file in variables["input"]["artifactFiles"]]
            return {
                "createArtifactFiles": {"files": {"edges": [{"node": self._artifact_file(name)} for name in names]}}
            }
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a", "digest": ""}}}
        return None

    def _artifact_file(self, name: str) -> dict[str, Any]:
        return {
            "id": "f", "name": name, "displayName": name, "uploadHeaders": [], "artifact": {"id": "a"},
            "uploadUrl": f"{self.url}/put/-/{name}", "storagePath": name, "uploadMultipartUrls": None,
        }  # fmt: skip

    def _resume_status(self, run: ServedRun) -> dict[str, Any]:
        return {
            "id": run.name, "name": run.name, "displayName": run.name, "tags": [], "logLineCount": 0,
            "summaryMetrics": json.dumps(run.summary), "config": config_of(run), "historyLineCount": len(run.history),
            "wandbConfig": json.dumps(run.config.get("_wandb", {})), "eventsLineCount": 0, "eventsTail": "[]",
            "historyTail": json.dumps([json.dumps(run.history[-1])] if run.history else []),
        }  # fmt: skip

    def _state(self, run: ServedRun) -> dict[str, Any]:
        last_step = max((row["_step"] for row in run.history), default=-1)
        state = "running" if run.exit_code is None else "failed" if run.exit_code else "finished"
        return {
            "id": run.name, "name": run.name, "displayName": run.name, "projectId": "1", "state": state, "tags": [],
            "config": config_of(run), "createdAt": "2026-01-01T00:00:00",
            "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}", "user": {}, "readOnly": False,
            "historyLineCount": len(run.history), "historyKeys": {"lastStep": last_step},
        }  # fmt: skip

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables["id"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ServedRun(name, variables.get("project") or "research"))
        run.fields.update({k: v for k, v in variables.items() if v is not None})
        for key, value in json.loads(variables.get("config") or "{}").items():
            run.config[key] = value["value"]
        run.summary.update(json.loads(variables.get("summaryMetrics") or "{}"))
        bucket = {"id": name, "name": name, "displayName": name, "description": None, "sweepName": None}
        bucket |= {"config": config_of(run), "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": len(run.history)}, "inserted": inserted}}

    def stream(self, name: str, content: dict[str, Any]) -> None:
        """One post of the file stream."""
        run = self.runs[name]
        for file, chunk in content.get("files", {}).items():
            if file == "wandb-history.jsonl":
                run.history += [json.loads(line) for line in chunk["content"]]
            elif file == "wandb-summary.json":
                run.summary.update(json.loads(chunk["content"][-1]))
        if content.get("complete"):
            run.exit_code = content.get("exitcode")


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    served: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = json.loads(self._body() or b"{}")
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        authorised = scheme == "Basic" and b64decode(secret).decode() == f"api:{KEY}"
        if self.served.mode == "nonsense":
            return self._reply({"data": {}})
        if self.served.mode == "forbidden" or not authorised:
            return self._reply({"errors": [{"message": "invalid key"}]}, 401)
        if self._hangs(re.sub(r"\s*(query|mutation)\s*", "", content.get("query", self.path))):
            return self._reply({"errors": [{"message": "internal"}]}, 500)
        if self.path == "/graphql":
            data = self.served.answer(content["query"], content.get("variables") or {})
            return self._reply({"data": data} if data else {"data": None, "errors": [{"message": "unknown"}]})
        self.served.stream(self.path.split("/")[4], content)  # /files/<entity>/<project>/<run>/file_stream
        return self._reply({"limits": {}})

    def _hangs(self, request: str) -> bool:
        """Whether this request is to be answered with an error; of a silent server, when it is closed."""
        if self.served.mode not in ("silent", "failing") or not self.served.hangs_on.match(request):
            return False
        if self.served.mode == "silent":
            self.served.closed.wait()
        return True

    def do_PUT(self) -> None:
        if self._hangs(f"PUT {self.path}"):
            return self._reply({}, 500)
        _, _, run, name = self.path.split("/", 3)
        if run in self.served.runs:
            self.served.runs[run].files[name.split("?")[0]] = self._body()
        else:
            self._body()
        self._reply({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
