//! From text to [`Constraint`].

use super::{Constraint, Kind, Literal, Operator, literal::unquote};

/// Longest constraint, in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;

/// Where and why a constraint makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the constraint is not valid at character {at}: {problem}")]
pub struct ConstraintError {
    /// Position in the text, in characters from 0.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

pub(super) fn parse(text: &str) -> Result<Constraint, ConstraintError> {
    let mut parser = Parser { chars: Vec::new(), at: 0 };
    if text.len() > MAX_LENGTH {
        return parser.fail(format!("longer than {MAX_LENGTH} bytes"));
    }
    parser.chars = text.chars().collect();
    parser.skip_space();
    if parser.peek().is_none() {
        return Ok(Constraint::And(Vec::new()));
    }
    let constraint = parser.constraint(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(constraint),
        Some(c) => parser.fail(format!("`{c}` after the end; put several in (& .. )")),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn constraint(&mut self, depth: usize) -> Result<Constraint, ConstraintError> {
        if depth > MAX_DEPTH {
            return self.fail(format!("nested more than {MAX_DEPTH} deep"));
        }
        self.expect('(')?;
        self.skip_space();
        let constraint = match self.peek() {
            Some(')') => Constraint::And(Vec::new()),
            Some('&') => Constraint::And(self.children(depth)?),
            Some('|') => Constraint::Or(self.children(depth)?),
            Some('!') => {
                self.at += 1;
                self.skip_space();
                Constraint::Not(Box::new(self.constraint(depth + 1)?))
            }
            // A redundant pair of parentheses.
            Some('(') => self.constraint(depth + 1)?,
            _ => self.comparison()?,
        };
        self.skip_space();
        self.expect(')')?;
        Ok(constraint)
    }

    fn children(&mut self, depth: usize) -> Result<Vec<Constraint>, ConstraintError> {
        self.at += 1;
        let mut children = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some('(') => children.push(self.constraint(depth + 1)?),
                _ => return Ok(children),
            }
        }
    }

    fn comparison(&mut self) -> Result<Constraint, ConstraintError> {
        let start = self.at;
        while self.peek().is_some_and(|c| !matches!(c, '(' | ')' | '=' | '<' | '>' | '!' | '~')) {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            self.at = start;
            return self.fail(format!("`{name}` is not a property name"));
        }
        let operator = self.operator()?;
        let (property, kind) = split_kind(name);
        let (literal, any) = self.literal()?;
        let property = property.to_owned();
        Ok(match (any, operator, kind) {
            (true, Operator::Equal, _) => Constraint::Present(property),
            (true, Operator::NotEqual, _) => {
                Constraint::Not(Box::new(Constraint::Present(property)))
            }
            _ => Constraint::Compare { property, kind, operator, literal },
        })
    }

    fn operator(&mut self) -> Result<Operator, ConstraintError> {
        let next = self.chars.get(self.at + 1) == Some(&'=');
        let (operator, length) = match (self.peek(), next) {
            (Some('='), _) => (Operator::Equal, 1),
            (Some('!'), true) => (Operator::NotEqual, 2),
            (Some('<'), true) => (Operator::LessOrEqual, 2),
            (Some('>'), true) => (Operator::GreaterOrEqual, 2),
            (Some('<'), false) => (Operator::Less, 1),
            (Some('>'), false) => (Operator::Greater, 1),
            _ => return self.fail("expected one of = != < <= > >=".to_owned()),
        };
        self.at += length;
        Ok(operator)
    }

    /// The literal up to the closing parenthesis; true if it is a lone wildcard.
    fn literal(&mut self) -> Result<(Literal, bool), ConstraintError> {
        self.skip_space();
        let mut pieces = vec![Vec::new()];
        // Length of the last piece up to its last character that is not white space, or is escaped.
        let mut kept = 0;
        let mut escaped = false;
        loop {
            let piece = pieces.last_mut().expect("never empty");
            match self.peek() {
                Some(')') => break,
                Some('(') => return self.fail("a `(` in a value is written \\28".to_owned()),
                Some('*') => {
                    pieces.push(Vec::new());
                    kept = 0;
                }
                Some('\\') => {
                    let byte = self.escape()?;
                    piece.push(byte);
                    kept = piece.len();
                    escaped = true;
                    continue;
                }
                Some(c) => {
                    let mut utf8 = [0; 4];
                    piece.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                    if !c.is_whitespace() {
                        kept = piece.len();
                    }
                }
                None => return self.fail("the closing `)` is missing".to_owned()),
            }
            self.at += 1;
        }
        pieces.last_mut().expect("never empty").truncate(kept);
        let mut texts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match String::from_utf8(piece) {
                Ok(text) => texts.push(text),
                Err(_) => return self.fail("escapes in the value are not UTF-8".to_owned()),
            }
        }
        let any = texts.len() == 2 && texts.iter().all(String::is_empty);
        if let ([only], false) = (texts.as_mut_slice(), escaped) {
            *only = unquote(only).to_owned();
        }
        Ok((Literal::from_pieces(texts), any))
    }

    /// `\2a`, or `\` and any other character for itself.
    fn escape(&mut self) -> Result<u8, ConstraintError> {
        let digit = |c: Option<&char>| c.and_then(|c| c.to_digit(16));
        let pair = (digit(self.chars.get(self.at + 1)), digit(self.chars.get(self.at + 2)));
        if let (Some(high), Some(low)) = pair {
            self.at += 3;
            return Ok((high * 16 + low) as u8);
        }
        match self.chars.get(self.at + 1) {
            Some(&c) if c.is_ascii() => {
                self.at += 2;
                Ok(c as u8)
            }
            _ => self.fail("`\\` needs two hexadecimal digits after it, such as \\28".to_owned()),
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), ConstraintError> {
        match self.peek() {
            Some(c) if c == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(c) => self.fail(format!("expected `{wanted}`, found `{c}`")),
            None => self.fail(format!("expected `{wanted}`, found the end")),
        }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn fail<T>(&self, problem: String) -> Result<T, ConstraintError> {
        Err(ConstraintError { at: self.at, problem })
    }
}

fn split_kind(name: &str) -> (&str, Kind) {
    match name.rsplit_once('@') {
        Some((name, "d" | "t")) if !name.is_empty() => (name, Kind::Date),
        Some((name, "v")) if !name.is_empty() => (name, Kind::Version),
        _ => (name, Kind::Natural),
    }
}
