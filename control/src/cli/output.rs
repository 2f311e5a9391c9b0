//! Printing.

use crate::error::ControlError;
use crate::text::printable;
use std::io::{ErrorKind, IsTerminal, Write};

/// Prints text of a machine: without what terminals obey.
pub(super) fn print(text: &str) {
    print_raw(printable(text).trim_end().as_bytes());
}

/// Prints bytes as they are and ends the line. Nobody who reads any more, as after `| head`, is no error.
pub(super) fn print_raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// Tells an error and what to do.
pub(super) fn error(error: &ControlError) {
    let advice = error.advice();
    eprintln!("ashlarctl: {}", printable(&error.to_string()));
    if !advice.is_empty() {
        eprintln!("  {}", printable(&advice).replace('\n', "\n  "));
    }
}

/// Text in a colour where colours are wanted (<https://no-color.org>).
pub(super) fn coloured(text: &str, colour: Colour) -> String {
    let wanted =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    if wanted { format!("\x1b[1;{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
}

/// Colours (ECMA-48, 8.3.117).
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
}

/// Columns with two spaces between them; the last one may be of any width. The cells must be printable.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let rows = [["A", "B"], ["long ä", "x"], ["", "y"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A       B\nlong ä  x\n        y\n");
    }
}
