// SPDX-License-Identifier: GPL-2.0

//! Prints results: as text, or as JSON.

use crate::error::Error;
use comfy_table::{CellAlignment, Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
};

/// A result that can be printed. `Serialize` makes its JSON form.
pub(crate) trait Report: Serialize {
    /// The text form: lines without the last line end. Empty if nothing is printed.
    fn text(&self) -> String;
}

/// A result that is not printed as text, only as JSON.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Quiet<T: Serialize>(pub(crate) T);

impl<T: Serialize> Report for Quiet<T> {
    fn text(&self) -> String {
        String::new()
    }
}

/// The form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Format {
    /// The form that the option `--json` selects, if `json` says that it was given.
    pub(crate) fn selected_by(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Prints results.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a progress bar can be drawn.
    pub(crate) fn shows_progress(&self) -> bool {
        self.format == Format::Text && io::stderr().is_terminal()
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether results are text on a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.format == Format::Text && io::stdout().is_terminal()
    }

    /// A result as it is printed, without the last line end.
    pub(crate) fn render(&self, report: &impl Report) -> String {
        if self.is_json() {
            to_json(report)
        } else {
            report.text()
        }
    }

    /// Prints a result.
    pub(crate) fn report(&self, report: &impl Report) -> Result<(), Error> {
        self.show(&self.render(report)).map(drop)
    }

    /// Prints one of many results. Returns `false` if the output was closed.
    pub(crate) fn show(&self, text: &str) -> Result<bool, Error> {
        print(&mut io::stdout().lock(), text)
    }

    /// Replaces the contents of the terminal by these lines. Returns `false` if it was closed.
    pub(crate) fn redraw(&self, text: &str) -> Result<bool, Error> {
        // Moves to the upper left corner; clears the rest of each line, and all below the last one.
        let lines = text.lines().map(|line| format!("{line}\x1b[K\n"));
        self.show(&format!("\x1b[H{}\x1b[J", lines.collect::<String>()))
    }

    /// Prints a line before the result is known, as text only. Returns `false` if the output was closed.
    pub(crate) fn progress(&self, line: &str) -> Result<bool, Error> {
        if self.is_json() {
            Ok(has_reader(io::stdout()))
        } else {
            self.show(line)
        }
    }

    /// Prints an error. That this fails can't be reported.
    pub(crate) fn error(&self, error: &Error) {
        let text = if self.is_json() {
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

/// Whether a pipe or a socket still has a reader. True for other files.
fn has_reader(to: impl AsFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::empty())];
    // poll reports errors and hang-ups even if no events are requested.
    let failed = poll(&mut polled, Some(&Timespec::default())).is_err();
    failed
        || !polled[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Prints lines. Returns `false` if the reader has closed the pipe, which is no error.
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

/// A table in columns that are separated by blanks. Columns whose title ends in `>` are
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

/// A value, or `-` if there is none.
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
