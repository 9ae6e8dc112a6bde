# SPDX-License-Identifier: GPL-2.0
"""Tests of the tests: what must be noticed is noticed. Run by `tests/run host`."""

from __future__ import annotations

import io
import itertools
import subprocess
import tempfile
import unittest
import unittest.mock
from contextlib import redirect_stdout
from pathlib import Path

from lib import coverage, cpio, defects, klog, lustre, lustre_tree, netns, paths, results
from lib.report import Report
from lib.vm import Spec

TROUBLE = (
    "[    9.1] WARNING: CPU: 0 PID: 1 at net/core/sock.c:10 f+0x1/0x2 [ksocklnd]",
    "[    9.1] WARNING: possible circular locking dependency detected",
    "[    9.1] WARNING: suspicious RCU usage",
    "[    9.1] BUG: KASAN: slab-use-after-free in f+0x1/0x2 [ksocklnd]",
    "[    9.1] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
    "[    9.1] BUG: scheduling while atomic: socklnd_sd00/77/0x00000002",
    "[    9.1] BUG: unable to handle page fault for address: ffff888000000000",
    "[    9.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[    9.1] Oops: general protection fault, probably for non-canonical address 0xdffffc0000000001",
    "[    9.1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [socklnd_sd01:88]",
    "[    9.1] INFO: task rmmod:123 blocked for more than 30 seconds.",
    "[    9.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[    9.1] INFO: rcu_preempt self-detected stall on CPU",
    "[    9.1] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[    9.1] refcount_t: underflow; use-after-free.",
    "[    9.1] list_del corruption. prev->next should be ffff, but was 0000",
    "[    9.1] rust_kernel: panicked at conn.rs:1:1:",
    "[    9.1] Kernel panic - not syncing: Fatal exception",
    "[    9.1] ksocklnd: page allocation failure: order:3, mode:0x40dc0",
    "[    9.1] unregister_netdevice: waiting for eth0 to become free. Usage count = 2",
    "[    9.1] ref_tracker: net notrefcnt@ffff8880 has 1/1 users at",
    "[    9.1] socklnd-guest[77]: segfault at 0 ip 00000000 sp 00000000 error 4",
    "[    9.1] UBSAN: array-index-out-of-bounds in net/ipv4/tcp.c:1:1",
    "[    9.1] INFO: possible recursive locking detected",
    "[    9.1] init: cannot insert /lib/modules/virtio_net.ko",
)
HARMLESS = (
    "[    0.1] tsc: Unable to calibrate against PIT",
    "[    0.1] mtrr: your CPUs had inconsistent fixed MTRR settings",
    "[    0.1] clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable",
    "[    9.1] ksocklnd: loading out-of-tree module taints kernel.",
    "[    9.1] ksocklnd: 10.0.0.1@tcp: refused a connection from 10.0.0.2:40000: its port (see the parameter 'accept')",
    "[    9.1] ksocklnd: module verification failed: signature and/or required key missing - tainting kernel",
    "[    9.1] kmemleak: Kernel memory leak detector initialized (mem pool available: 39384)",
    "[    9.1] sysrq: Show Blocked State",
    "[    9.1] Running RCU synchronous self tests",
    "[    9.1] ref_tracker: memory allocation failure, unreliable refcount tracker.",
)


class Log(unittest.TestCase):
    """The kernel's log."""

    def test_trouble_is_found(self) -> None:
        for line in TROUBLE:
            with self.subTest(line):
                self.assertIsNotNone(klog.trouble(f"[ 1.0] fine\n{line}\n[ 9.2] fine\n"))

    def test_the_rest_is_not(self) -> None:
        for line in HARMLESS:
            with self.subTest(line):
                self.assertIsNone(klog.trouble(f"{line}\n"))

    def test_each_test_has_its_section(self) -> None:
        log = (
            "boot\n[ 1.0] socklnd-tests: begin one\nBUG: x\n[ 2.0] socklnd-tests: end one\nbetween\n"
            "[ 3.0] socklnd-tests: begin two\nfine\n[ 4.0] socklnd-tests: end two\nlast\n"
        )
        self.assertIsNotNone(klog.trouble(klog.section(log, "one")))
        self.assertIsNone(klog.trouble(klog.section(log, "two")))
        self.assertEqual(klog.section(log, "three"), "")
        self.assertEqual(klog.outside(log), "boot\nbetween\nlast")


class FakeVm:
    """A guest that has said all that it will ever say."""

    def __init__(self, lines: list[str], console: str, *, ends: bool = True) -> None:
        self.name = "fake"
        self.console_log = Path("fake.console")
        self._lines = list(lines)
        self._console = console
        self._ends = ends

    def line(self, _seconds: float) -> str | None:
        return self._lines.pop(0) if self._lines else None

    def console(self) -> str:
        return self._console

    def wait(self, _seconds: float) -> bool:
        return self._ends

    def why_qemu_failed(self) -> str:
        return ""


def follow(lines: list[str], console: str = "", *, ends: bool = True) -> tuple[Report, results.Outcome]:
    """What comes of such a guest."""
    report = Report()
    with redirect_stdout(io.StringIO()):
        outcome = results.follow(FakeVm(lines, console, ends=ends), "fake", report)  # type: ignore[arg-type]
    return report, outcome


def marks(name: str, text: str = "") -> str:
    """A log of a test's run."""
    return f"[1] socklnd-tests: begin {name}\n{text}[2] socklnd-tests: end {name}\n"


class Results(unittest.TestCase):
    """The results of a guest."""

    def test_success(self) -> None:
        report, outcome = follow(["KTAP version 1", "1..1", "# begin a 5", "ok 1 a # 0.1 s", "# end"], marks("a"))
        self.assertEqual((report.passed, report.failed, outcome.lost), (1, 0, None))

    def test_failures(self) -> None:
        said = ["# begin a 5", "# a: because", "not ok 1 a # 0.1 s", "# end"]
        self.assertEqual(follow(said, marks("a"))[0].failed, 1)
        said = ["# begin a 5", "ok 1 a # 0.1 s", "# end"]
        self.assertEqual(follow(said, marks("a", "[1] BUG: x\n"))[0].failed, 1, "the kernel complained")
        with unittest.mock.patch.object(klog, "await_end", lambda read, _name: read()):
            self.assertEqual(follow(said, "")[0].failed, 1, "nothing in the log")

    def test_lost_guests(self) -> None:
        self.assertIsNotNone(follow([])[1].lost)
        self.assertIsNotNone(follow(["# begin a 5"])[1].lost)
        self.assertEqual(follow(["# begin a 5"])[1].current, "a")
        self.assertIsNotNone(follow(["Bail out! stuck"])[1].lost)
        self.assertIsNotNone(follow(["# end"], ends=False)[1].lost)

    def test_nothing_is_no_success(self) -> None:
        with redirect_stdout(io.StringIO()) as out:
            self.assertEqual(Report().finish(), 1)
        self.assertEqual(out.getvalue(), "0 passed, 0 failed\n")

    def test_what_failed_is_told_again(self) -> None:
        report = Report()
        with redirect_stdout(io.StringIO()):
            report.result("a", "because")
            report.result("b", None)
        with redirect_stdout(io.StringIO()) as out:
            self.assertEqual(report.finish(), 1)
        self.assertRegex(out.getvalue(), r"FAILED a\n +because\nfailed: a\n1 passed, 1 failed\n$")


class FakeGuest(FakeVm):
    """A guest that runs scenarios which it is given, with what comes of each: True, False, or its loss."""

    def __init__(self, spec: Spec, outcomes: dict[str, bool | None], ran: list[tuple[str, str]]) -> None:
        super().__init__(["KTAP version 1", "ready"], "")
        self.name = spec.name
        self._outcomes = outcomes
        self._ran = ran

    def __enter__(self) -> FakeGuest:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say_nothing(self) -> None:
        """Does not boot."""
        self._lines = []

    def say(self, name: str) -> None:
        """Runs the scenario of this name."""
        self._ran.append((self.name, name))
        self._console += marks(name) if name else ""
        came = self._outcomes.get(name)
        if not name:
            self._lines = ["# end"]
        elif came is not None:
            rest = ["ready"] if came else ["# retires", "# end"]
            self._lines = [f"# begin {name} 5", "# times: running 0.1 s", f"{'ok' if came else 'not ok'} 1 {name} # 0.1 s", *rest]


class Machines(unittest.TestCase):
    """Scenarios given out to machines."""

    def run_them(self, outcomes: dict[str, bool | None], broken: int = 0) -> tuple[Report, list[tuple[str, str]]]:
        """Runs these scenarios in one machine at a time, of which the first ones do not boot."""
        report = Report()
        ran: list[tuple[str, str]] = []
        kernel = paths.Kernel("debug", Path(), "7", Path(), None, Path())
        share = netns.Share(kernel, Path(), list(outcomes))
        started = itertools.count()

        def machine(spec: Spec) -> FakeGuest:
            guest = FakeGuest(spec, outcomes, ran)
            if next(started) < broken:
                guest.say_nothing()
            return guest

        with redirect_stdout(io.StringIO()), unittest.mock.patch.object(netns, "machine", machine):
            netns.run_machines(share, 1, report)
        self.assertEqual(share.left(), [] if broken < results.BOOTS else list(outcomes))
        return report, ran

    def test_one_machine_runs_all_that_succeed(self) -> None:
        report, ran = self.run_them({"a": True, "b": True})
        self.assertEqual(report.failures, [])
        self.assertEqual([name for _, name in ran], ["a", "b", ""])
        self.assertEqual(len({machine for machine, _ in ran}), 1)

    def test_after_a_failure_the_next_has_a_machine_of_its_own(self) -> None:
        for came in (False, None):
            with self.subTest(came):
                report, ran = self.run_them({"a": True, "b": came, "c": True})
                self.assertEqual([name for name, _ in report.failures], ["netns: b"])
                self.assertEqual([name for _, name in ran], ["a", "b", "c", ""])
                self.assertEqual(len({machine for machine, _ in ran}), 2)

    def test_a_machine_that_does_not_boot_is_started_again(self) -> None:
        for broken, failed in ((results.BOOTS - 1, 0), (results.BOOTS, 1)):
            with self.subTest(broken):
                report, ran = self.run_them({"a": True}, broken)
                self.assertEqual(report.failed, failed)
                self.assertEqual([name for _, name in ran], ["a", ""] if not failed else [])

    def test_each_runs_on_one_kernel(self) -> None:
        there = ["wildcards", "no_memory_in_transfer_ipv6", "crowd"]
        self.assertEqual(netns.by_kernel(there, None), {"debug": there[:2], "um-debug": there[2:]})
        self.assertEqual(netns.by_kernel(there, "debug"), {"debug": there})
        self.assertEqual(netns.by_kernel(there, "um-debug"), {"um-debug": ["wildcards", "crowd"]})


class Archive(unittest.TestCase):
    """File systems for guests."""

    def test_records(self) -> None:
        archive = cpio.Archive()
        archive.data("a/b", b"12345")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x"
            archive.write(path)
            data = path.read_bytes()
        self.assertEqual(data.count(b"070701"), 3, "the folder, the file, the end")
        self.assertIn(b"a/b\0", data)
        self.assertEqual(len(data) % 4, 0)


class Lustre(unittest.TestCase):
    """What is told of runs with a Lustre tree, and which trees are refused."""

    def test_table(self) -> None:
        text = lustre.table({"C-C": {"a": "1", "b": "22"}, "ours-ours": {"b": "3", "c": "4"}})
        lines = [line.split() for line in text.splitlines()]
        self.assertEqual(lines[1:], [["a", "1", "-"], ["b", "22", "3"], ["c", "-", "4"]])

    def test_complaints_that_are_not_usual(self) -> None:
        usual = {"ping": {"LNetError: # was there"}}
        scenario = unittest.mock.Mock(drivers=(lustre.OURS, lustre.C), complaints=usual)
        self.assertIsNone(lustre.unusual(scenario, usual))
        scenario.complaints = {"ping": {"LNetError: # was there"}, "discover": {"LNetError: # is new"}}
        self.assertIn("discover: LNetError: # is new", lustre.unusual(scenario, usual) or "")

    def test_tree_that_is_not_configured(self) -> None:
        kernel = paths.Kernel("stock", Path("image"), "7.3.4", Path("module"), None, Path("source"))
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(paths.Missing, "config.h"):
                lustre_tree.Tree(Path(folder), kernel)
            (Path(folder) / "config.h").write_text('#define VERSION "2.17.57"\n')
            with self.assertRaisesRegex(paths.Missing, "ksocklnd.ko"):
                lustre_tree.Tree(Path(folder), kernel)


def table(**rows: str) -> str:
    """A table that is right, but for the rows given: `header`, `item` or `entry`, as the whole line."""
    entries = [f"| {number}. x | nothing | cannot occur: x |" for number in coverage.ENTRIES]
    entries[1] = rows.get("entry", entries[1])
    header = ["| `a_b`, `c` | `tx.rs: Tx::len` | `netns: one`; not shown yet: x |", "| `d` | nothing | not needed: x |"]
    header += [rows["header"]] if "header" in rows else []
    tables = [("Structures", header), (coverage.HISTORY, entries)]
    titles = ["| item | here | shown by |", "|---|---|---|"]
    return "\n".join(line for name, lines in tables for line in (f"## {name}", "", *titles, *lines, ""))


class Coverage(unittest.TestCase):
    """The table of what shows what."""

    known = coverage.Tests(
        {"one"}, {"suite": {"case"}}, {"two-node": {"pair"}}, {"wire": {"test"}}, {"nid"}, variants={"variant"}
    )

    def check(self, text: str) -> list[str]:
        try:
            counts = "\n".join(coverage.counts(coverage.rows(text)))
        except ValueError:
            counts = ""
        return coverage.check(f"{text}\n## {coverage.COUNTS}\n\n{counts}\n", self.known)

    def test_what_is_right(self) -> None:
        self.assertEqual(self.check(table()), [])
        for test in ("kunit: suite", "kunit: suite.case", "two-node: pair", "cargo: wire::a::test", "fuzz: nid"):
            with self.subTest(test):
                self.assertEqual(self.check(table(header=f"| `e` | `tx.rs: Tx` | `{test}` |")), [])

    def test_wrong_rows_are_named(self) -> None:
        for row in (
            "| `e` | `tx.rs: Tx::there_is_no_such` | `netns: one` |",
            "| `e` | `there_is_no_such.rs: Tx` | `netns: one` |",
            "| `e` | `tx.rs: Tx::min` | `netns: one` |",
            "| `e` | `tx.rs` | `netns: one` |",
            "| `e` | somewhere | `netns: one` |",
            "| `e` | not there yet | `netns: one` |",
            "| `e` | `tx.rs: Tx` | `netns: two` |",
            "| `e` | `tx.rs: Tx` | `netns: one`, `kunit: suite.other` |",
            "| `e` | `tx.rs: Tx` | `kunit: other.case` |",
            "| `e` | `tx.rs: Tx` | `two-node: one` |",
            "| `e` | `tx.rs: Tx` | `three-node: pair` |",
            "| `e` | `tx.rs: Tx` | `cargo: model::test` |",
            "| `e` | `tx.rs: Tx` | `fuzz: one` |",
            "| `e` | `tx.rs: Tx` | `netns: one` and more |",
            "| `e` | `tx.rs: Tx` | certainly |",
            "| e | `tx.rs: Tx` | `netns: one` |",
            "| `e` | `tx.rs: Tx` |",
            "| `c` | `tx.rs: Tx` | `netns: one` |",
        ):
            with self.subTest(row):
                wrong = self.check(table(header=row))
                self.assertEqual(len(wrong), 1, wrong)
                self.assertIn(row.split(" | ")[0], wrong[0])

    def test_defects_and_rows_name_each_other(self) -> None:
        right = "| `e` | `tx.rs: Tx` | `netns: one`, `defect: bug` |"
        self.assertEqual(self.check(table(header="| `e` | `tx.rs: Tx` | `netns: one`, `defect: variant` |")), [])
        self.assertEqual(len(self.check(table(header=right))), 1, "no such defect")
        for entries, test, row, wrong in (
            (("`e`",), "netns: one", right, 0),
            (("`e`", "`f`"), "netns: one", right, 1),
            (("`f`",), "netns: one", right, 2),
            (("`e`",), "fuzz: nid", right, 1),
            (("`e`",), "netns: two", right, 2),
            (("`e`",), "netns: one", "| `e` | `tx.rs: Tx` | `netns: one` |", 1),
            (("`e`",), "netns: one", "| `e` | `tx.rs: Tx` | `defect: bug` |", 2),
        ):
            with self.subTest(entries=entries, test=test, row=row):
                bug = defects.Defect("bug", Path("bug.patch"), entries, test, "A story.", ("tx.rs",))
                with unittest.mock.patch.dict(self.known.defects, bug=bug):
                    self.assertEqual(len(self.check(table(header=row))), wrong)

    def test_entries_are_complete(self) -> None:
        for row in ("| 3. x | nothing | cannot occur: x |", ""):
            self.assertEqual(len(self.check(table(entry=row))), 1)

    def test_counts_are_compared(self) -> None:
        text = table()
        right = "\n".join(coverage.counts(coverage.rows(text)))
        for counts in ("", right.replace("| 98 |", "| 97 |")):
            wrong = coverage.check(f"{text}\n## {coverage.COUNTS}\n\n{counts}\n", self.known)
            self.assertEqual(wrong, [f"the counts have to be:\n{right}"])

    def test_tests_are_found(self) -> None:
        known = coverage.tests()
        for name in (
            "netns: ping_both_ways",
            "kunit: socklnd_route",
            "kunit: socklnd_lib_linux_socket.options",
            "two-node: peer-killed",
            "three-node: gateway",
            "cargo: model::full",
            "cargo: model::nobody_is_woken",
            "cargo: wire::rules::postponing_never_hastens",
            "fuzz: header",
        ):
            self.assertTrue(known.has(name), name)


PATCH = """A story.

Entry: 1. x
Entry: 2. y
Test: netns: one

--- a/file
+++ b/file
@@ -1,2 +1,2 @@
 one
-two
+three
"""


class Defects(unittest.TestCase):
    """Patches with old bugs."""

    def test_what_a_patch_says(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bug.patch"
            path.write_text(PATCH)
            bug = defects.parse(path)
            self.assertEqual((bug.name, bug.entries, bug.test), ("bug", ("1. x", "2. y"), "netns: one"))
            self.assertEqual((bug.story, bug.files), ("A story.", ("file",)))
            for part in ("A story.\n", "Test: netns: one\n", "Entry: 1. x\nEntry: 2. y\n", PATCH.partition("--- ")[2]):
                path.write_text(PATCH.replace(part, ""))
                with self.subTest(part):
                    self.assertRaises(ValueError, defects.parse, path)

    def test_patches_apply_or_say_so(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, file = Path(folder) / "bug.patch", Path(folder) / "tree" / "file"
            path.write_text(PATCH)
            file.parent.mkdir()
            file.write_text("one\ntwo\n")
            bug = defects.parse(path)
            self.assertIsNone(defects.apply(bug, file.parent, check=True))
            self.assertEqual(file.read_text(), "one\ntwo\n")
            self.assertIsNone(defects.apply(bug, file.parent))
            self.assertEqual(file.read_text(), "one\nthree\n")
            self.assertIsNotNone(defects.apply(bug, file.parent))


class TreeCheck(unittest.TestCase):
    """A check in scripts of the whole tree."""

    def about(self, script: str, files: dict[str, str], *arguments: str) -> str:
        """What a script says about a tree with these files; it fails if it says anything."""
        with tempfile.TemporaryDirectory() as folder:
            for file, text in files.items():
                path = Path(folder) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            command = [paths.REPO / "scripts" / script, *arguments, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode != 0, bool(done.stdout), done.stderr)
            return done.stdout


class Unsafe(TreeCheck):
    """Where unsafe code may stand."""

    def check(self, file: str, text: str) -> str:
        """What scripts/check-unsafe says about a tree with one file."""
        return self.about("check-unsafe", {file: text})

    def test_only_in_named_files(self) -> None:
        block = "fn f() {\n    unsafe { g() }\n}\n"
        for file in ("lib_linux.rs", "lib_linux/socket/new.rs", "ctl/ffi.rs", "tests/x.rs"):
            self.assertEqual(self.check(file, block), "", file)
        for file in ("conn.rs", "peer/ffi.rs", "ctl.rs", "ctl/ffi/more.rs", "other/lib_linux/x.rs"):
            self.assertEqual(self.check(file, block), f"check-unsafe: ./{file}:2:    unsafe {{ g() }}\n")

    def test_what_counts(self) -> None:
        for text in ("unsafe impl Send for X {}", "use kernel::bindings;", "bindings::f()", 'extern "C" fn f() {}'):
            self.assertNotEqual(self.check("conn.rs", text), "", text)
        for text in ("// unsafe", "#[allow(unsafe_code)]", 'pr_info!("unsafe");', "/// No `unsafe`.", "let unsafer = 1;"):
            self.assertEqual(self.check("conn.rs", text), "", text)


class Examples(TreeCheck):
    """Which items of lib_linux have an example in their documentation."""

    EXAMPLE = "/// # Examples\n///\n/// ```\n/// let x = X::new();\n/// assert!(x.is_new());\n/// ```\n"

    def check(self, text: str, file: str = "lib_linux/x.rs") -> str:
        """What scripts/gen-examples --check says about a tree with this file."""
        return self.about("gen-examples", {"lib_linux.rs": "", file: text}, "--check")

    def test_public_items_have_one(self) -> None:
        for item in (
            "struct X(u8);",
            "enum X {",
            "unsafe trait X {",
            "fn x() {}",
            "const fn x() {}",
            "const X: u8 = 0;",
            "static X: u8 = 0;",
        ):
            public = f"pub(crate) {item}\n"
            complaint = f"gen-examples: lib_linux/x.rs:2: {'x' if 'fn' in item else 'X'} has no example\n"
            self.assertEqual(self.check("/// Text.\n" + public), complaint)
            text = self.EXAMPLE.replace("```", "```text", 1)
            self.assertIn(" has no example\n", self.check(text + public))
            for text in (
                self.EXAMPLE + "#[must_use]\n" + public,
                "#[doc(hidden)]\n" + public,
                f"pub(super) {item}\n",
                item + "\n",
            ):
                self.assertEqual(self.check(text), "", text)
        self.assertEqual(self.check("pub(crate) fn x() {}\n", "lib_linux/x/tests.rs"), "")

    def test_methods_may_share_one(self) -> None:
        methods = "    pub(crate) fn new() {}\n    pub(crate) fn is_new() {}\n"
        text = self.EXAMPLE + "pub(crate) struct X<T>(T);\nimpl<T: Y<T>> X<T> {\n" + methods
        self.assertEqual(self.check(text + "}\n"), "")
        self.assertIn(" X::is_old has no example\n", self.check(text + "    pub(crate) fn is_old() {}\n}\n"))
        self.assertIn(" is_new has no example\n", self.check(text + "}\npub(crate) fn is_new() {}\n"))

    def test_macros_that_are_exported(self) -> None:
        text = "macro_rules! x {\n}\n"
        self.assertEqual(self.check(text), "")
        self.assertIn(" x! has no example\n", self.check(text + "pub(crate) use x;\n"))
        for before in (self.EXAMPLE, "#[doc(hidden)]\n"):
            self.assertEqual(self.check(before + text + "pub(crate) use x;\n"), "")


class Locks(TreeCheck):
    """The page of locks."""

    def check(self, page: str, code: str) -> str:
        """What scripts/check-locks says about this page and this code."""
        return self.about("check-locks", {"socklnd.rs": page, "x.rs": code})

    def test_each_class_is_listed_once(self) -> None:
        page = "//! | `socklnd_a` | x | y |\n//! | `socklnd_b` | x | y |\n"
        one = 'a <- new_mutex!(Inner {\n    x: 1\n}, "socklnd_a"),\n'
        two = 'b <- new_spinlock_irq!((), "socklnd_b"),\n wake <- new_condvar!("socklnd_wake"),\n'
        self.assertEqual(self.check(page, one + two), "")
        self.assertIn("socklnd_b", self.check(page, one))
        self.assertIn("socklnd_a", self.check(page, two))
        self.assertIn("socklnd_c", self.check(page, one + two + 'new_spinlock!(0, "socklnd_c")'))
        self.assertIn("socklnd_a", self.check(page + page.splitlines()[0] + "\n", one + two))
