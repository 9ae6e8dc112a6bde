# SPDX-License-Identifier: GPL-2.0
"""Two nodes, each a virtual machine on the stock kernel, joined by a cable."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import initramfs, klog, paths
from lib.vm import GuestDied, Spec, Vm

BOOT_SECONDS = 300.0
COMMAND_SECONDS = 30.0
MEMORY = 512


class CommandFailed(Exception):
    """A program in a guest did not succeed."""


@dataclass(frozen=True)
class Output:
    """How a program in a guest ended."""

    status: int
    stdout: str
    stderr: str


class Node:
    """A node that does what it is told. Commands may run side by side."""

    def __init__(self, number: int, vm: Vm) -> None:
        self.number = number
        self.vm = vm
        self.addr = f"10.0.0.{number}"
        self.nid = f"{self.addr}@tcp"
        self._next_id = 0
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Output]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)

    def await_ready(self) -> None:
        """Waits until the guest has booted."""
        while (line := self.vm.line(BOOT_SECONDS)) != "ready":
            if line is None:
                raise GuestDied(f"{self.vm.name} ended while booting. {self.vm.why_qemu_failed()}")
        self._reader.start()

    def _read(self) -> None:
        why = f"{self.vm.name} is gone"
        try:
            while (line := self.vm.line(3600)) is not None:
                reply = json.loads(line)
                with self._lock:
                    future = self._waiting.pop(reply["id"], None)
                if future:
                    future.set_result(Output(reply["status"], reply["stdout"], reply["stderr"]))
        except (GuestDied, OSError, ValueError) as trouble:
            why = f"{self.vm.name}: {trouble}"
        with self._lock:
            lost, self._waiting = list(self._waiting.values()), {}
        for future in lost:
            future.set_exception(GuestDied(why))

    def _ask(self, request: dict[str, Any]) -> Future[Output]:
        future: Future[Output] = Future()
        with self._lock:
            self._next_id += 1
            self._waiting[self._next_id] = future
            self.vm.say(json.dumps({**request, "id": self._next_id}))
        return future

    def start(self, *argv: str, limit: float = COMMAND_SECONDS) -> Future[Output]:
        """Starts a program; the future is its end."""
        return self._ask({"argv": argv, "limit": limit})

    def stay(self, sign: str, *argv: str) -> None:
        """Starts a program that stays, and waits until it has written `sign`."""
        request = {"argv": argv, "until": sign, "limit": COMMAND_SECONDS}
        self.finish(self._ask(request), " ".join(argv))

    def run(self, *argv: str, limit: float = COMMAND_SECONDS) -> str:
        """Runs a program that must succeed; gives what it wrote."""
        return self.finish(self.start(*argv, limit=limit), " ".join(argv), limit)

    def finish(self, future: Future[Output], what: str, limit: float = COMMAND_SECONDS) -> str:
        """Waits for a program that must succeed."""
        try:
            output = future.result(limit + 30)
        except TimeoutError:
            raise CommandFailed(f"node {self.number}: {what}: no answer from the guest") from None
        if output.status != 0:
            raise CommandFailed(f"node {self.number}: {what}: status {output.status}: {output.stderr.strip()}")
        return output.stdout

    def socklctl(self, *words: str, limit: float = COMMAND_SECONDS) -> Any:
        """Runs socklctl, which must succeed; gives its answer."""
        text = self.run("socklctl", "--json", *words, limit=limit)
        return json.loads(text) if text.strip() else None

    def insert_module(self) -> None:
        """Inserts the module."""
        self.finish(self._ask({"module": "insert"}), "insert the module")

    def remove_module(self) -> float:
        """Removes the module; gives the seconds that took. The guest bounds it."""
        return float(self.finish(self._ask({"module": "remove"}), "remove the module"))

    def set_up_network(self) -> None:
        """Gives the network card its address."""
        self.run("ip", "addr", "add", f"{self.addr}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def mark(self, text: str) -> None:
        """Writes a line into the kernel's log."""
        self.finish(self._ask({"mark": text}), "mark")

    def end(self) -> None:
        """Asks the guest to power off, and waits until it has."""
        self.vm.say(json.dumps({"end": True}))
        if not self.vm.wait(30):
            raise GuestDied(f"{self.vm.name} did not power off")



class Cable:
    """What joins the two machines: a unix socket, which the first one listens on."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="socklnd-"))

    def devices(self, number: int) -> list[str]:
        """QEMU's arguments for the network card of node 1 or 2."""
        server = "server=on" if number == 1 else "server=off,reconnect-ms=200"
        address = f"addr.type=unix,addr.path={self._folder / 'cable'}"
        return [
            "-netdev", f"stream,id=net,{server},{address}",
            "-device", f"virtio-net-pci,netdev=net,mac=52:54:00:00:00:{number:02x},romfile=",
        ]

    def close(self) -> None:
        """Removes the socket."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Pair:
    """Both nodes. Use it in a `with` block: its end is the machines' end."""

    def __init__(self, name: str, kernel: paths.Kernel, *, keep: bool = False) -> None:
        self._name = name
        self._kernel = kernel
        self._keep = keep
        self._cable = Cable()
        self._vms: list[Vm] = []
        self._archive = paths.BUILD / "tests" / f"{name}.initramfs"
        try:
            initramfs.build(kernel, self._archive, initramfs.BARE)
        except BaseException:
            self._cable.close()
            raise

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for vm in self._vms:
            vm.kill()
        self._cable.close()
        if not self._keep:
            self._archive.unlink(missing_ok=True)

    def boot(self, number: int, life: int = 1) -> Node:
        """Starts one node; `life` counts how often it was started. Does not wait for it."""
        name = f"{self._name}-{number}" + (f"-life{life}" if life > 1 else "")
        spec = Spec(
            name=name, kernel=self._kernel, initramfs=self._archive, logs=paths.LOGS, runner=["agent"],
            cpus=1, memory=MEMORY, devices=self._cable.devices(number),
        )
        vm = Vm(spec)
        self._vms.append(vm)
        return Node(number, vm)

    def trouble(self) -> str | None:
        """What is wrong in the kernels' logs, if anything; those of killed machines included."""
        for vm in self._vms:
            if found := klog.trouble(vm.console()):
                return f"{vm.name}: {found}"
        return None

    def boot_both(self) -> tuple[Node, Node]:
        """Starts both nodes at the same time; both are ready when this returns."""
        one, two = self.boot(1), self.boot(2)
        for node in (one, two):
            node.await_ready()
        return one, two


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Does several things at the same time; the first error is raised when all are done."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def call(index: int) -> None:
        try:
            results[index] = calls[index]()
        except Exception as error:  # raised again below
            errors.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
