//! How results are shown: as a table for people, as JSON for machines.

use std::io::{self, Write};

use serde_json::Value;

#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Shows rows under their headings; as JSON `value` instead.
    pub(super) fn table<const N: usize>(
        self,
        value: &Value,
        headings: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        if self.json {
            return self.line(&value.to_string());
        }
        let mut widths = headings.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = io::stdout().lock();
        for row in std::iter::once(&headings.map(str::to_owned)).chain(rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Shows a line to people, `value` to machines.
    pub(super) fn say(self, value: &Value, text: &str) -> io::Result<()> {
        if self.json {
            self.line(&value.to_string())
        } else {
            self.line(text)
        }
    }

    pub(super) fn line(self, text: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }
}
