# SPDX-License-Identifier: GPL-2.0
"""Nodes, each a virtual machine on the stock kernel, and the cables that join them."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lib import initramfs, klog, paths
from lib.vm import GuestDied, Spec, Vm

BOOT_SECONDS = 300.0
COMMAND_SECONDS = 30.0
MEMORY = 512

M = TypeVar("M", bound="Machines")


class CommandFailed(Exception):
    """A program in a guest did not succeed."""


@dataclass(frozen=True)
class Output:
    """How a program in a guest ended."""

    status: int
    stdout: str
    stderr: str


class Node:
    """A node that does what it is told. Commands may run side by side.

    It has a network card for each of its NIDs, the first of which others know it by.
    """

    def __init__(self, number: int, vm: Vm, nids: Sequence[str] = (), name: str | None = None) -> None:
        self.number = number
        self.name = name or f"node {number}"
        self.vm = vm
        self.nids = tuple(nids) or (f"10.0.0.{number}@tcp",)
        self.nid = self.nids[0]
        self.addr = self.nid.partition("@")[0]
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
            raise CommandFailed(f"{self.name}: {what}: no answer from the guest") from None
        if output.status != 0:
            raise CommandFailed(f"{self.name}: {what}: status {output.status}: {output.stderr.strip()}")
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
        """Gives each network card its address."""
        for card, nid in enumerate(self.nids):
            addr = nid.partition("@")[0]
            # Nobody else has an address of IPv6, and that need not be found out first.
            words = [f"{addr}/64", "nodad"] if ":" in addr else [f"{addr}/24"]
            self.run("ip", "addr", "add", *words, "dev", f"eth{card}")
            self.run("ip", "link", "set", f"eth{card}", "up")

    def mark(self, text: str) -> None:
        """Writes a line into the kernel's log."""
        self.finish(self._ask({"mark": text}), "mark")

    def end(self) -> None:
        """Asks the guest to power off, and waits until it has."""
        self.vm.say(json.dumps({"end": True}))
        if not self.vm.wait(30):
            raise GuestDied(f"{self.vm.name} did not power off")


class Cable:
    """What joins two machines: a unix socket, which the first one listens on. The second may come and go."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="socklnd-"))

    def devices(self, number: int, card: int = 0) -> list[str]:
        """QEMU's arguments for a network card at end 1 or 2; a machine with several cards numbers them."""
        server = "server=on" if number == 1 else "server=off,reconnect-ms=200"
        address = f"addr.type=unix,addr.path={self._folder / 'cable'}"
        return [
            "-netdev", f"stream,id=net{card},{server},{address}",
            "-device", f"virtio-net-pci,netdev=net{card},mac=52:54:00:00:{card:02x}:{number:02x},romfile=",
        ]

    def close(self) -> None:
        """Removes the socket."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Machines:
    """Nodes that are joined somehow. Use it in a `with` block: its end is the machines' end."""

    memory = MEMORY
    accel: list[str] | None = None  # as in Spec

    def __init__(self, name: str, kernel: paths.Kernel, cables: int, *, keep: bool = False) -> None:
        self._name = name
        self._kernel = kernel
        self._keep = keep
        self._cables = [Cable() for _ in range(cables)]
        self._vms: list[Vm] = []
        self._archive = paths.BUILD / "tests" / f"{name}.initramfs"
        try:
            self.build(self._archive)
        except BaseException:
            self._unplug()
            raise

    def __enter__(self: M) -> M:
        return self

    def __exit__(self, *_: object) -> None:
        for vm in self._vms:
            vm.kill()
        self._unplug()
        if not self._keep:
            self._archive.unlink(missing_ok=True)

    def _unplug(self) -> None:
        for cable in self._cables:
            cable.close()

    def build(self, archive: Path) -> None:
        """Writes what nodes boot into."""
        initramfs.build(self._kernel, archive, initramfs.BARE)

    def devices(self, number: int) -> list[str]:
        """QEMU's arguments for the network cards of one node."""
        raise NotImplementedError

    def node(self, number: int, vm: Vm) -> Node:
        """The node that a machine is."""
        return Node(number, vm)

    def boot(self, number: int, life: int = 1) -> Node:
        """Starts one node; `life` counts how often it was started. Does not wait for it."""
        name = f"{self._name}-{number}" + (f"-life{life}" if life > 1 else "")
        spec = Spec(
            name=name, kernel=self._kernel, initramfs=self._archive, logs=paths.LOGS, runner=["agent"],
            cpus=1, memory=self.memory, devices=self.devices(number), accel=self.accel,
        )
        vm = Vm(spec)
        self._vms.append(vm)
        return self.node(number, vm)

    def trouble(self) -> str | None:
        """What is wrong in the kernels' logs, if anything; those of killed machines included."""
        for vm in self._vms:
            if found := klog.trouble(vm.console()):
                return f"{vm.name}: {found}"
        return None

    def boot_all(self, count: int) -> list[Node]:
        """Starts so many nodes at the same time; all are ready when this returns."""
        nodes = [self.boot(number) for number in range(1, count + 1)]
        for node in nodes:
            node.await_ready()
        return nodes


class Pair(Machines):
    """Two nodes and a cable."""

    def __init__(self, name: str, kernel: paths.Kernel, *, keep: bool = False) -> None:
        super().__init__(name, kernel, 1, keep=keep)

    def devices(self, number: int) -> list[str]:
        return self._cables[0].devices(number)

    def boot_both(self) -> tuple[Node, Node]:
        """Starts both nodes at the same time; both are ready when this returns."""
        one, two = self.boot_all(2)
        return one, two


class PairIpv6(Pair):
    """The same with addresses of IPv6 and no others."""

    def node(self, number: int, vm: Vm) -> Node:
        return Node(number, vm, [f"fd00::{number}@tcp"])


class Crossing(Machines):
    """A client on network tcp, a server on tcp1, and between them, with a card on each, a gateway."""

    CLIENT, SERVER, GATEWAY = 1, 2, 3
    NODES = {
        CLIENT: ("client", ("10.0.0.1@tcp",)),
        SERVER: ("server", ("10.1.0.1@tcp1",)),
        GATEWAY: ("gateway", ("10.0.0.254@tcp", "10.1.0.254@tcp1")),
    }

    def __init__(self, name: str, kernel: paths.Kernel, *, keep: bool = False) -> None:
        super().__init__(name, kernel, 2, keep=keep)

    def devices(self, number: int) -> list[str]:
        # The gateway may be killed and come back, so it is the second end of both cables.
        ends = {
            self.CLIENT: self._cables[0].devices(1),
            self.SERVER: self._cables[1].devices(1),
            self.GATEWAY: [*self._cables[0].devices(2, 0), *self._cables[1].devices(2, 1)],
        }
        return ends[number]

    def node(self, number: int, vm: Vm) -> Node:
        name, nids = self.NODES[number]
        return Node(number, vm, nids, name)


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
