// SPDX-License-Identifier: GPL-2.0

//! Makes broken variants of the files that are tried: each has one passage replaced, and a test
//! that the scenario named with it fails.

use std::{env, fmt::Write, fs, path::Path};

/// A variant: its name, what is replaced by what, and the scenario that must fail.
type Variant = (&'static str, &'static str, &'static str, &'static str);

const READINESS: &str = "sched/readiness.rs";
const MAILBOX: &str = "mailbox.rs";

const BROKEN_READINESS: &[Variant] = &[
    (
        "finish_forgets_new_events",
        "            if bits & Self::EVENTS == 0 {\n                bits & !Self::SCHEDULED",
        "            if true {\n                bits & !(Self::SCHEDULED | Self::EVENTS)",
        "conn::arrivals",
    ),
    (
        "finish_overlooks_room",
        "let again = if bits & Self::TX != 0 {",
        "let again = if false {",
        "conn::full_again",
    ),
    (
        "full_is_never_ended",
        "bits & !Self::FULL\n            } else {\n                bits\n            };\n            Self::schedule",
        "bits\n            } else {\n                bits\n            };\n            Self::schedule",
        "conn::full_again",
    ),
    (
        "every_event_queues",
        "old & Self::SCHEDULED == 0 && new & Self::SCHEDULED != 0",
        "(old, new & Self::SCHEDULED).1 != 0",
        "conn::arrivals",
    ),
    (
        "events_are_not_cleared",
        "self.update(|bits| bits & !Self::EVENTS).0",
        "self.update(|bits| bits & !(Self::EVENTS | Self::SCHEDULED)).0",
        "conn::arrivals",
    ),
    (
        "held_is_overlooked",
        "bits & (Self::SCHEDULED | Self::HELD) == 0",
        "bits & Self::SCHEDULED == 0",
        "conn::held",
    ),
    (
        "release_adds_no_events",
        "(bits & !Self::HELD) | Self::EVENTS",
        "bits & !Self::HELD",
        "conn::arrival_before_release",
    ),
    (
        "unordered",
        "cmpxchg(old, new, Full)",
        "cmpxchg(old, new, Relaxed)",
        "conn::two_schedulers",
    ),
    (
        "not_atomic",
        "match self.0.cmpxchg(old, new, Full) {",
        "match self.0.cmpxchg(self.0.load(Relaxed), new, Full) {",
        "conn::arrivals",
    ),
];

const BROKEN_MAILBOX: &[Variant] = &[
    (
        "nobody_is_woken",
        "            self.wake.notify_one();",
        "",
        "threads::a_post_wakes",
    ),
    (
        "a_post_wakes_all",
        "            self.wake.notify_one();",
        "            self.wake.notify_all();",
        "threads::a_post_wakes_one",
    ),
    (
        "one_wake_up_for_two_posts",
        "            inner.idle -= 1;",
        "            inner.idle = 0;",
        "threads::two_posts_wake_two",
    ),
    (
        "sleepers_are_not_counted",
        "            inner.idle += 1;",
        "",
        "threads::a_post_wakes",
    ),
    (
        "a_timeout_counts_all_down",
        "inner.idle = inner.idle.saturating_sub(1);\n                            Some(0)",
        "inner.idle = 0;\n                            inner.stopped = true;\n                            Some(0)",
        "threads::timed_waits",
    ),
    (
        "a_kick_is_not_remembered",
        "        inner.kicked = true;\n",
        "",
        "threads::a_kick_wakes",
    ),
    (
        "stop_wakes_one",
        "        inner.stopped = true;\n        inner.idle = 0;\n        drop(inner);\n        self.wake.notify_all();",
        "        inner.stopped = true;\n        inner.idle = 0;\n        drop(inner);\n        self.wake.notify_one();",
        "threads::stop_reaches_all",
    ),
    (
        "stop_comes_before_letters",
        "            if let Some(object) = inner.list.pop_front() {",
        "            if inner.stopped {\n                return Mail::Stop;\n            }\n            if let Some(object) = inner.list.pop_front() {",
        "threads::posts_are_taken",
    ),
];

fn main() {
    let crate_dir = env::var("CARGO_MANIFEST_DIR").unwrap();
    let top = Path::new(&crate_dir).join("../..");
    let out = env::var("OUT_DIR").unwrap();
    let out = Path::new(&out);

    let mut list = String::new();
    for (file, variants) in [(READINESS, BROKEN_READINESS), (MAILBOX, BROKEN_MAILBOX)] {
        println!("cargo::rerun-if-changed={}", top.join(file).display());
        let text = fs::read_to_string(top.join(file)).unwrap();
        for (name, from, to, scenario) in variants {
            assert_eq!(
                text.matches(from).count(),
                1,
                "{file} has changed: {name} is to replace this: {from}"
            );
            let path = out.join(format!("{name}.rs"));
            fs::write(&path, text.replace(from, to)).unwrap();
            let of = |this: &str| {
                if this == file {
                    path.clone()
                } else {
                    top.join(this)
                }
            };
            write!(
                list,
                "#[allow(dead_code, unused_imports, unused_variables)]
                mod {name} {{
                    #[path = {mailbox:?}] mod mailbox;
                    #[path = {readiness:?}] mod readiness;
                    #[path = {conn:?}] mod conn;
                    #[path = {threads:?}] mod threads;
                    #[test] fn is_found_out() {{ crate::explore::must_fail({scenario}); }}
                }}\n",
                mailbox = of(MAILBOX),
                readiness = of(READINESS),
                conn = top.join("tests/model/src/conn.rs"),
                threads = top.join("tests/model/src/threads.rs"),
            )
            .unwrap();
        }
    }
    fs::write(out.join("broken.rs"), list).unwrap();
    println!("cargo::rerun-if-changed=build.rs");
}
