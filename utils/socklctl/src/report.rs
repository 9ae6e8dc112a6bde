// SPDX-License-Identifier: GPL-2.0

//! Results on their way to the reader: a person or a program.

use crate::error::Error;
use comfy_table::{CellAlignment, Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
};

/// A result that can be printed. Its `Serialize` is the JSON form.
pub(crate) trait Report: Serialize {
    /// The text form: lines without the last line end. Empty if there is nothing to say.
    fn text(&self) -> String;
}

/// A result that says nothing to a person, because it worked.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Quiet<T: Serialize>(pub(crate) T);

impl<T: Serialize> Report for Quiet<T> {
    fn text(&self) -> String {
        String::new()
    }
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether somebody looks on, for whom a progress bar may be drawn.
    pub(crate) fn is_watched(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether results are a person's to see on a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// A result as it is printed, without the last line end.
    pub(crate) fn render(&self, report: &impl Report) -> String {
        if self.json {
            to_json(report)
        } else {
            report.text()
        }
    }

    /// Prints a result.
    pub(crate) fn report(&self, report: &impl Report) -> Result<(), Error> {
        self.show(&self.render(report)).map(drop)
    }

    /// Prints one of many results. Returns whether the reader is still there.
    pub(crate) fn show(&self, text: &str) -> Result<bool, Error> {
        print(&mut io::stdout().lock(), text)
    }

    /// Prints lines in place of all that the terminal shows. Returns whether it is still there.
    pub(crate) fn redraw(&self, text: &str) -> Result<bool, Error> {
        // To the upper left corner; each line, and all below the last, is cleared.
        let lines = text.lines().map(|line| format!("{line}\x1b[K\n"));
        self.show(&format!("\x1b[H{}\x1b[J", lines.collect::<String>()))
    }

    /// Prints a line on the way to a result; programs get only the result. Returns whether the reader
    /// is still there.
    pub(crate) fn progress(&self, line: &str) -> Result<bool, Error> {
        if self.json {
            Ok(has_reader(io::stdout()))
        } else {
            self.show(line)
        }
    }

    /// Prints an error. If that fails, there is nobody left to tell.
    pub(crate) fn error(&self, error: &Error) {
        let text = if self.json {
            to_json(error)
        } else {
            format!("socklctl: {error}")
        };
        let _ = print(&mut io::stderr().lock(), &text);
    }
}

fn to_json(value: &impl Serialize) -> String {
    // Fails only for maps with keys that are no strings; there are none.
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether somebody may still read what is written to a pipe or a socket; of anything else it is not
/// known before something is written.
fn has_reader(to: impl AsFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::empty())];
    // An error and the end are always told, asked for or not.
    let failed = poll(&mut polled, Some(&Timespec::default())).is_err();
    failed
        || !polled[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Prints lines. It is no error if the reader has seen enough: returns whether that is not so.
fn print(to: &mut impl Write, text: &str) -> Result<bool, Error> {
    if text.is_empty() {
        return Ok(true);
    }
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Error::Io {
            what: "print the result",
            source,
        }),
    }
}

/// A table in plain columns, as other tools can cut them. Columns whose title ends in `>` are
/// aligned to the right.
pub(crate) fn table<const N: usize>(
    titles: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(titles.map(|title| title.trim_end_matches('>')));
    for (title, column) in titles.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if title.ends_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(rows);
    table.trim_fmt()
}

/// Something that may be missing, as one word.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows = [
            ["a".to_string(), "1".to_string()],
            ["bbbb".to_string(), "100".to_string()],
        ];
        assert_eq!(
            table(["name", "n>"], rows),
            "name    n\na       1\nbbbb  100"
        );
        assert_eq!(table(["name", "n>"], []), "name  n");
    }

    #[test]
    fn a_reader_who_left_is_no_error() {
        struct Closed(ErrorKind);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(matches!(
            print(&mut Closed(ErrorKind::BrokenPipe), "x"),
            Ok(false)
        ));
        assert!(matches!(print(&mut Vec::new(), "x"), Ok(true)));
        assert!(print(&mut Closed(ErrorKind::StorageFull), "x").is_err());
        assert!(print(&mut Closed(ErrorKind::StorageFull), "").is_ok());
    }

    #[test]
    fn who_reads_a_pipe_is_seen_without_writing() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(has_reader(&writer));
        drop(reader);
        assert!(!has_reader(&writer));
        assert!(has_reader(std::fs::File::open("/dev/null").unwrap()));
    }

    #[test]
    fn success_without_words_prints_nothing_but_json() {
        let report = Quiet(serde_json::json!({"nid": "10.0.0.1@tcp"}));
        assert_eq!(report.text(), "");
        assert_eq!(to_json(&report), r#"{"nid":"10.0.0.1@tcp"}"#);
    }
}
