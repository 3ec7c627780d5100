//! Patterns: ECMA-262 with the `u` flag (draft 2020-12, core §6.4), translated for `regex-lite`, whose time is
//! proportional to the lengths of pattern and text.
//!
//! The two grammars differ in `.`, `\s`, `$`, `[^]`, `\cX`, `\u`, set operations and more. So each pattern is read here
//! by ECMA's grammar, and translated into literals, ranges, groups and repetitions only. Patterns that need more are
//! refused: look-around, backreferences, `\p`. In one point this reader accepts more than ECMA: any ASCII punctuation
//! may be escaped.

mod code_points;
mod size;

use super::json_path::clip;
use code_points::{class_escape, complement, normalized, Range, LINE_ENDS};
use regex_lite::{Regex, RegexBuilder};
use size::Size;

/// The most states of one pattern: `[a-z]{3}` has three, `a{0,3}` six.
const MAX_STATES: u64 = 1_024;
/// The most groups inside each other.
const MAX_GROUPS: u32 = 32;
/// The most memory that `regex-lite` may use for one pattern, in bytes.
const MAX_MEMORY: usize = 64 * 1024;

/// A pattern that has been read.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// The pattern as the schema has it.
    source: String,
    pub states: u64,
    /// The most states in which a match can be at the same time.
    at_once: u64,
}

impl Pattern {
    /// Reads a pattern. The error says why it is refused.
    pub fn read(source: &str) -> Result<Pattern, String> {
        let mut reader = Reader { rest: source, out: String::new(), groups: 0, has_top_alternatives: false };
        let size = reader.alternatives()?;
        if !reader.rest.is_empty() {
            return Err("has a `)` without its `(`".to_owned());
        }
        // One group here is up to four levels of nesting for `regex-lite`.
        let built = RegexBuilder::new(&reader.out).size_limit(MAX_MEMORY).nest_limit(MAX_GROUPS * 4 + 8).build();
        let regex = built.map_err(|_| too_large())?;
        // A match that may start at any character may be in all states at the same time.
        let one_start = source.starts_with('^') && !reader.has_top_alternatives;
        let at_once = if one_start { size.at_once } else { size.states };
        Ok(Pattern { regex, source: source.to_owned(), states: size.states, at_once })
    }

    /// The most visits of states that matching `text` takes.
    pub fn cost(&self, text: &str) -> u64 {
        (self.at_once + 1).saturating_mul(text.chars().count() as u64 + 1)
    }

    /// Whether the pattern matches anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern for a message.
    pub fn shown(&self) -> String {
        clip(&self.source, 100)
    }
}

fn too_large() -> String {
    format!("is too large: repetitions written out, a pattern may have {MAX_STATES} states")
}

/// The meaning of an escape.
enum Escape {
    Char(char),
    Set(Vec<Range>),
}

/// Reads ECMA's grammar from `rest`, writes `regex-lite`'s grammar to `out`, and counts states.
struct Reader<'p> {
    rest: &'p str,
    out: String,
    groups: u32,
    /// Whether there are alternatives outside of all groups.
    has_top_alternatives: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// Whether `text` comes next. If it does, it is consumed.
    fn consume(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads alternatives up to the end of their group.
    fn alternatives(&mut self) -> Result<Size, String> {
        let (mut before, mut last) = (None, Size::NOTHING);
        while !self.rest.is_empty() && !self.rest.starts_with(')') {
            if self.consume("|") {
                self.out.push('|');
                self.has_top_alternatives |= self.groups == 0;
                before = Some(before.map_or(last, |before: Size| before.or(last)));
                last = Size::NOTHING;
            } else {
                last = last.then(self.term()?);
            }
            if before.map_or(0, |before| before.states) + last.states > MAX_STATES {
                return Err(too_large());
            }
        }
        Ok(before.map_or(last, |before| before.or(last)))
    }

    fn term(&mut self) -> Result<Size, String> {
        for (ecma, ours) in [("^", r"\A"), ("$", r"\z"), (r"\b", r"\b"), (r"\B", r"\B")] {
            if self.consume(ecma) {
                self.out.push_str(ours);
                return Ok(Size::of(1, 0));
            }
        }
        let size = match self.next().unwrap_or_default() {
            c @ ('*' | '+' | '?') => return Err(format!("has a `{c}` with nothing to repeat")),
            c @ ('{' | '}' | ']') => return Err(format!("has a bare `{c}`: as a character, it is written `\\{c}`")),
            '(' => self.group()?,
            '[' => self.class()?,
            '.' => self.set(&complement(&LINE_ENDS)),
            '\\' => match self.escape()? {
                Escape::Char(c) => self.literal(c),
                Escape::Set(ranges) => self.set(&ranges),
            },
            c => self.literal(c),
        };
        self.repetition(size)
    }

    fn literal(&mut self, c: char) -> Size {
        match c.is_ascii_alphanumeric() {
            true => self.out.push(c),
            false => self.out.push_str(&format!("\\x{{{:x}}}", u32::from(c))),
        }
        Size::of(1, 1)
    }

    fn set(&mut self, ranges: &[Range]) -> Size {
        let all: &[Range] = &[(0, 0x10ffff)];
        let (open, written) = if ranges.is_empty() { ("[^", all) } else { ("[", ranges) };
        self.out.push_str(open);
        for (start, end) in written {
            self.out.push_str(&format!("\\x{{{start:x}}}-\\x{{{end:x}}}"));
        }
        self.out.push(']');
        // The search through the ranges costs far less than a state.
        Size::of(1 + ranges.len() as u64 / 4, 1)
    }

    /// Reads a group after its `(`. No group is captured, because captures take time and nobody reads them.
    fn group(&mut self) -> Result<Size, String> {
        if ["?=", "?!", "?<=", "?<!"].iter().any(|look| self.rest.starts_with(look)) {
            return Err("has a look-around, which takes more than linear time".to_owned());
        }
        if self.consume("?<") {
            let (name, rest) = self.rest.split_once('>').ok_or("has a group name without its `>`")?;
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                return Err("has a group name that is no name".to_owned());
            }
            self.rest = rest;
        } else if self.rest.starts_with('?') && !self.consume("?:") {
            return Err("has a `(?` that is neither `(?:` nor `(?<name>`".to_owned());
        }
        self.groups += 1;
        if self.groups > MAX_GROUPS {
            return Err(format!("has more than {MAX_GROUPS} groups inside each other"));
        }
        self.out.push_str("(?:");
        let size = self.alternatives()?;
        self.groups -= 1;
        if !self.consume(")") {
            return Err("has a `(` without its `)`".to_owned());
        }
        self.out.push(')');
        Ok(size)
    }

    /// Reads the repetition that may follow an atom. A lazy one matches the same texts.
    fn repetition(&mut self, size: Size) -> Result<Size, String> {
        for (sign, min, max) in [("*", 0, None), ("+", 1, None), ("?", 0, Some(1))] {
            if self.consume(sign) {
                self.out.push_str(sign);
                self.consume("?");
                return size.repeated(min, max);
            }
        }
        match self.consume("{") {
            true => self.counted(size),
            false => Ok(size),
        }
    }

    /// Reads a repetition after its `{`.
    fn counted(&mut self, size: Size) -> Result<Size, String> {
        let malformed = || "has a `{` that is no `{n}`, `{n,}` or `{n,m}`".to_owned();
        let min = self.count().ok_or_else(malformed)?;
        let max = match self.consume(",") {
            false => Some(min),
            true => self.count(),
        };
        if !self.consume("}") {
            return Err(malformed());
        }
        if max.is_some_and(|max| max < min) {
            return Err("has a repetition whose most is below its least".to_owned());
        }
        self.consume("?");
        let size = size.repeated(min, max)?;
        let max = max.map(|max| max.to_string()).unwrap_or_default();
        self.out.push_str(&format!("{{{min},{max}}}"));
        Ok(size)
    }

    /// Reads digits. A number that is too large for the type becomes the largest one, which is refused as well.
    fn count(&mut self) -> Option<u64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())?;
        self.rest = rest;
        Some(digits.parse().unwrap_or(u64::MAX))
    }

    /// Reads a class after its `[`.
    fn class(&mut self) -> Result<Size, String> {
        let negated = self.consume("^");
        let mut ranges = Vec::new();
        while !self.consume("]") {
            let start = match self.class_atom()? {
                Escape::Char(c) => c,
                Escape::Set(_) if self.is_range() => {
                    return Err("has a range in a class that starts with a set".to_owned());
                }
                Escape::Set(set) => {
                    ranges.extend(set);
                    continue;
                }
            };
            let end = match self.is_range() && self.consume("-") {
                false => start,
                true => match self.class_atom()? {
                    Escape::Char(end) if start <= end => end,
                    _ => return Err("has a range in a class that does not end above its start".to_owned()),
                },
            };
            ranges.push((u32::from(start), u32::from(end)));
        }
        let ranges = normalized(ranges);
        Ok(if negated { self.set(&complement(&ranges)) } else { self.set(&ranges) })
    }

    /// Whether the `-` of a range comes next. At the end of a class, `-` is a character.
    fn is_range(&self) -> bool {
        self.rest.starts_with('-') && !self.rest.starts_with("-]")
    }

    fn class_atom(&mut self) -> Result<Escape, String> {
        match self.next() {
            None => Err("has a `[` without its `]`".to_owned()),
            Some('\\') if self.consume("b") => Ok(Escape::Char('\u{8}')),
            Some('\\') => self.escape(),
            Some(c) => Ok(Escape::Char(c)),
        }
    }

    /// Reads an escape after its backslash.
    fn escape(&mut self) -> Result<Escape, String> {
        let letter = self.next().ok_or("ends with a backslash")?;
        if let Some(set) = class_escape(letter) {
            return Ok(Escape::Set(set));
        }
        let c = match letter {
            't' => '\t',
            'n' => '\n',
            'v' => '\u{b}',
            'f' => '\u{c}',
            'r' => '\r',
            '0' if !self.rest.starts_with(|c: char| c.is_ascii_digit()) => '\0',
            'c' => self.control()?,
            'x' => self.hex(2).and_then(char::from_u32).ok_or("has a `\\x` without two hex digits")?,
            'u' => self.unicode()?,
            '0'..='9' | 'k' => return Err("has a backreference, which takes more than linear time".to_owned()),
            'p' | 'P' => return Err("has a `\\p`, which is not taken".to_owned()),
            c if c.is_ascii_punctuation() => c,
            c => return Err(format!("has an escape `\\{c}` that ECMA-262 does not know")),
        };
        Ok(Escape::Char(c))
    }

    fn control(&mut self) -> Result<char, String> {
        let letter = self.next().filter(char::is_ascii_alphabetic).ok_or("has a `\\c` without a letter")?;
        Ok(char::from(letter as u8 % 32))
    }

    fn hex(&mut self, length: usize) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(length)?;
        let digits = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
        self.rest = rest;
        u32::from_str_radix(digits, 16).ok()
    }

    /// Reads the code point after `\u`: four digits, two times four for a surrogate pair, or digits in braces.
    fn unicode(&mut self) -> Result<char, String> {
        let malformed = || "has a `\\u` that is no code point".to_owned();
        if self.consume("{") {
            let end = self.rest.find('}').ok_or_else(malformed)?;
            let code = self.hex(end).ok_or_else(malformed)?;
            self.consume("}");
            return char::from_u32(code).ok_or_else(malformed);
        }
        let first = self.hex(4).ok_or_else(malformed)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(malformed);
        }
        let second = if self.consume("\\u") { self.hex(4) } else { None };
        let second = second.filter(|second| (0xdc00..0xe000).contains(second)).ok_or_else(malformed)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(malformed)
    }
}
