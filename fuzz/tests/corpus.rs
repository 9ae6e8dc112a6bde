// SPDX-License-Identifier: GPL-2.0

//! Every input that the repository keeps, without libFuzzer.

use std::{fs, path::Path};

/// The inputs that are kept.
fn replay(target: &str, function: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        function(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no inputs");
}

#[test]
fn header() {
    replay("header", socklnd_fuzz::header);
}

#[test]
fn long_header() {
    replay("long_header", socklnd_fuzz::long_header);
}

#[test]
fn messages() {
    replay("messages", socklnd_fuzz::messages);
}

#[test]
fn handshake() {
    replay("handshake", socklnd_fuzz::handshake);
}

#[test]
fn acceptor() {
    replay("acceptor", socklnd_fuzz::acceptor);
}

#[test]
fn nid() {
    replay("nid", socklnd_fuzz::nid);
}

#[test]
fn values() {
    replay("values", socklnd_fuzz::values);
}
