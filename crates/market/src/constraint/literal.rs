//! The right side of a comparison.

use std::fmt;

/// A literal: pieces of text with wildcards between them. Most have one piece, no wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    pieces: Vec<String>,
}

impl Literal {
    /// A literal without wildcards.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { pieces: vec![text.into()] }
    }

    /// A literal with a wildcard between each two pieces.
    pub fn from_pieces(pieces: Vec<String>) -> Self {
        if pieces.is_empty() { Self::plain("") } else { Self { pieces } }
    }

    /// The text, if there is no wildcard in it.
    pub fn as_plain(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether `text` has the literal's form.
    pub fn matches(&self, text: &str) -> bool {
        let (first, rest) = match self.pieces.split_first() {
            Some(split) => split,
            None => return text.is_empty(),
        };
        let Some((last, middle)) = rest.split_last() else { return text == first };
        let Some(mut text) = text.strip_prefix(first.as_str()) else { return false };
        for piece in middle {
            let Some(at) = text.find(piece.as_str()) else { return false };
            text = &text[at + piece.len()..];
        }
        text.ends_with(last.as_str())
    }

    /// The elements of a list literal, `[a,b]`; `None` for any other.
    pub fn as_list(&self) -> Option<Vec<Literal>> {
        let inner = self.as_plain()?.trim().strip_prefix('[')?.strip_suffix(']')?;
        if inner.trim().is_empty() {
            return Some(Vec::new());
        }
        Some(inner.split(',').map(|item| Self::plain(unquote(item.trim()))).collect())
    }
}

pub(crate) fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, piece) in self.pieces.iter().enumerate() {
            if i > 0 {
                f.write_str("*")?;
            }
            write_escaped(f, piece, i == 0)?;
        }
        Ok(())
    }
}

/// Escapes what would end the literal, be a wildcard, be trimmed, or be taken for quotes or for a
/// part of the operator before it.
fn write_escaped(f: &mut fmt::Formatter<'_>, piece: &str, first: bool) -> fmt::Result {
    let end = piece.chars().count().saturating_sub(1);
    for (i, c) in piece.chars().enumerate() {
        let edge = (i == 0 || i == end) && (c.is_whitespace() || c == '"');
        let operator = first && i == 0 && c == '=';
        if matches!(c, '(' | ')' | '*' | '\\') || edge || operator {
            let mut utf8 = [0; 4];
            c.encode_utf8(&mut utf8).bytes().try_for_each(|b| write!(f, "\\{b:02x}"))?;
        } else {
            write!(f, "{c}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let pattern = |s: &str| Literal::from_pieces(s.split('*').map(str::to_owned).collect());
        for (p, text, want) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(pattern(p).matches(text), want, "{p} {text}");
        }
    }
}
