"""A real Chromium without a screen, told what to do over a pair of pipes (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.paths import leave_out

PATIENCE_S = 30.0


class Browser:
    """One page of a browser of its own; a context manager."""

    def __init__(
        self, width: int = 1280, height: int = 860, *, dark: bool = False, options: Sequence[str] = ()
    ) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            leave_out("browser", "no Chromium here: apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._number = 0
        self.said: list[str] = []
        theirs, self._write = os.pipe()
        self._read, answers = os.pipe()
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
            f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}",
            *options, "about:blank",
        ]  # fmt: skip
        # Chromium reads commands from the file 3 and writes its answers to 4
        move = f'exec "$@" 3<&{theirs} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", move, "bash", *command],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs)
        os.close(answers)
        self._left = b""
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def send(self, method: str, **params: Any) -> Any:
        """Have something done, and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if not method.startswith(
            ("Target.", "Browser.")
        ):  # those are said to the browser, all others to the page
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self.send("Page.navigate", url=url)

    def viewer(self, url: str) -> str:
        """Open a page as another user would, who shares no cookies and no connections; gives the user."""
        user: str = self.send("Target.createBrowserContext")["browserContextId"]
        self.send("Target.createTarget", url=url, browserContextId=user)
        return user

    def evaluate(self, expression: str) -> Any:
        """The value of an expression on the page; promises are waited for."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true on the page; one that fails is not true yet."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.evaluate(
            f"(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()"
        ):
            assert time.monotonic() < end_s, f"not within {PATIENCE_S:g} s: {expression}; {self.said}"
            time.sleep(0.05)

    def text(self, name: str) -> str:
        """The text of the element of this id."""
        return str(self.evaluate(f"document.getElementById({name!r}).textContent"))

    def screenshot(self, path: Path) -> None:
        """Write the page as PNG."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser and all its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has gone"
            self._left += data
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.said.append(json.dumps(message["params"]))
        return message
