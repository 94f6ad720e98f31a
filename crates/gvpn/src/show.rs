//! What commands print: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// Prints `value` as JSON, or as `text` makes of it.
pub(crate) fn value<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Outcome {
    let printed = if json {
        serde_json::to_string_pretty(value).map_err(Failure::new)? + "\n"
    } else {
        text(value)
    };
    print(&printed)
}

/// Prints text; a reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Outcome {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write to standard output")(e))
        }
        _ => Ok(()),
    }
}

/// A table with a header line; columns are as wide as they must be.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> =
        std::iter::once(header.map(str::to_uppercase)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:w$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `NAME: value` lines of a JSON object, nested ones indented.
pub(crate) fn fields(value: &Value) -> String {
    let mut text = String::new();
    write_fields(value, 0, &mut text);
    text
}

fn write_fields(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(map) = value else { return };
    for (name, value) in map {
        let indent = "  ".repeat(depth);
        match value {
            Value::Null => {}
            Value::Object(_) => {
                text.push_str(&format!("{indent}{}:\n", words(name)));
                write_fields(value, depth + 1, text);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                text.push_str(&format!("{indent}{}:\n", words(name)));
                for item in items {
                    text.push_str(&format!("{indent}  -\n"));
                    write_fields(item, depth + 2, text);
                }
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                text.push_str(&format!("{indent}{}: {}\n", words(name), items.join(", ")));
            }
            _ => text.push_str(&format!("{indent}{}: {}\n", words(name), plain(value))),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `camelCase` as words.
fn words(name: &str) -> String {
    name.chars().fold(String::new(), |mut words, c| {
        if c.is_ascii_uppercase() {
            words.push(' ');
            words.push(c.to_ascii_lowercase());
        } else {
            words.push(if c == '_' { ' ' } else { c });
        }
        words
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_fields_are_aligned_and_readable() {
        let text = table(["id", "name"], [["1".into(), "a".into()], ["22".into(), "b".into()]]);
        assert_eq!(text, "ID  NAME\n1   a\n22  b\n");
        let value = serde_json::json!({"nodeId": "0x1", "paths": {"rttMs": 1}, "gone": null});
        assert_eq!(fields(&value), "node id: 0x1\npaths:\n  rtt ms: 1\n");
    }
}
