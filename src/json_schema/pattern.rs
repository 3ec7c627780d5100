//! Patterns: ECMA-262 with the `u` flag (draft 2020-12, core §6.4), said again for `regex-lite`, which takes
//! time in proportion to pattern and text.
//!
//! The two differ in `.`, `\s`, `$`, `[^]`, `\cX`, `\u`, set operations and more; so every pattern is read here
//! by ECMA's grammar, and only literals, ranges, groups and repetitions are passed on. What cannot be said so
//! is refused: look-around, backreferences, `\p`. Kinder than ECMA's in one thing: any ASCII punctuation may be
//! escaped.

use super::json_path::clip;
use regex_lite::{Regex, RegexBuilder};

/// Most states of one pattern: `[a-z]{3}` has three, `a{0,3}` six.
const MAX_STATES: u64 = 1_024;
/// Most groups inside each other.
const MAX_GROUPS: u32 = 32;
/// What `regex-lite` may use for one pattern, in bytes.
const MAX_MEMORY: usize = 64 * 1024;

/// A pattern that can be matched.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// As the schema has it.
    source: String,
    /// How large it is.
    pub states: u64,
    /// In how many states a match can be at once.
    at_once: u64,
}

impl Pattern {
    /// Reads a pattern; or why not.
    pub fn read(source: &str) -> Result<Pattern, String> {
        let mut reader = Reader { rest: source, out: String::new(), groups: 0, chooses: false };
        let size = reader.alternatives()?;
        if !reader.rest.is_empty() {
            return Err("has a `)` without its `(`".to_owned());
        }
        // A group of the reader is up to four levels of theirs.
        let built = RegexBuilder::new(&reader.out).size_limit(MAX_MEMORY).nest_limit(MAX_GROUPS * 4 + 8).build();
        let regex = built.map_err(|_| too_large())?;
        // What can start anywhere can be everywhere.
        let one_start = source.starts_with('^') && !reader.chooses;
        let at_once = if one_start { size.at_once } else { size.states };
        Ok(Pattern { regex, source: source.to_owned(), states: size.states, at_once })
    }

    /// What a match against `text` costs at most, in visits of a state.
    pub fn price(&self, text: &str) -> u64 {
        (self.at_once + 1).saturating_mul(text.chars().count() as u64 + 1)
    }

    /// Whether it matches anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern for people.
    pub fn shown(&self) -> String {
        clip(&self.source, 100)
    }
}

fn too_large() -> String {
    format!("is too large: repetitions written out, a pattern may have {MAX_STATES} states")
}

/// A range of code points, both ends included. Surrogates never reach a class: no text has one.
type Range = (u32, u32);

const DIGITS: [Range; 1] = [(0x30, 0x39)];
const WORD: [Range; 4] = [(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
/// WhiteSpace and LineTerminator of ECMA-262.
const SPACE: [Range; 10] = [
    (0x09, 0x0d),
    (0x20, 0x20),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x2028, 0x2029),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
    (0xfeff, 0xfeff),
];
/// What `.` does not match.
const LINE_ENDS: [Range; 3] = [(0x0a, 0x0a), (0x0d, 0x0d), (0x2028, 0x2029)];

/// The code points of a class escape.
fn set_of(letter: char) -> Option<Vec<Range>> {
    match letter {
        'd' => Some(DIGITS.to_vec()),
        'D' => Some(others(&DIGITS)),
        'w' => Some(WORD.to_vec()),
        'W' => Some(others(&WORD)),
        's' => Some(SPACE.to_vec()),
        'S' => Some(others(&SPACE)),
        _ => None,
    }
}

/// In their order, overlaps joined.
fn tidy(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::new();
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// All code points that are in none of `ranges`, which are tidy.
fn others(ranges: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut from = 0;
    for &(start, end) in ranges {
        out.extend(start.checked_sub(1).filter(|last| from <= *last).map(|last| (from, last)));
        from = end + 1;
    }
    out.extend((from <= 0x10ffff).then_some((from, 0x10ffff)));
    // An end among the surrogates moves out of them.
    let outside = |(start, end): Range| {
        let start = if (0xd800..=0xdfff).contains(&start) { 0xe000 } else { start };
        let end = if (0xd800..=0xdfff).contains(&end) { 0xd7ff } else { end };
        (start <= end).then_some((start, end))
    };
    out.into_iter().filter_map(outside).collect()
}

/// What a part of a pattern costs.
#[derive(Clone, Copy)]
struct Size {
    /// Its states.
    states: u64,
    /// In how many of them a match that enters it at one place can be at once. Never too few.
    at_once: u64,
    /// How many characters it matches, where that is always the same.
    length: Option<u64>,
}

impl Size {
    const NOTHING: Size = Size { states: 0, at_once: 0, length: Some(0) };

    fn of(states: u64, length: u64) -> Size {
        Size { states, at_once: states, length: Some(length) }
    }

    /// One after the other.
    fn then(self, next: Size) -> Size {
        let at_once = match (self.length, next.length) {
            (None, _) => self.at_once + next.states,
            (Some(0), _) | (_, Some(0)) => self.at_once + next.at_once,
            // A match has left the one when it is in the other.
            _ => self.at_once.max(next.at_once),
        };
        let length = self.length.zip(next.length).map(|(a, b)| a.saturating_add(b));
        Size { states: self.states + next.states, at_once, length }
    }

    /// One or the other.
    fn or(self, other: Size) -> Size {
        let length = self.length.filter(|_| self.length == other.length);
        Size { states: self.states + other.states + 1, at_once: self.at_once + other.at_once + 1, length }
    }

    /// From `min` to `max` times: written out.
    fn repeated(self, min: u64, max: Option<u64>) -> Result<Size, String> {
        let copies = max.unwrap_or(min).max(1);
        let splits = max.map_or(2, |max| max - min);
        let states = self.states.max(1).saturating_mul(copies).saturating_add(splits);
        if states > MAX_STATES {
            return Err(too_large());
        }
        match self.length.filter(|length| *length > 0 && max == Some(min)) {
            Some(length) => Ok(Size { states, at_once: self.at_once, length: Some(length.saturating_mul(min)) }),
            None => Ok(Size { states, at_once: states, length: None }),
        }
    }
}

/// What an escape stands for.
enum Escape {
    Char(char),
    Set(Vec<Range>),
}

/// Reads ECMA's grammar from `rest`, writes `regex-lite`'s to `out`, and counts states.
struct Reader<'p> {
    rest: &'p str,
    out: String,
    groups: u32,
    /// Whether there are alternatives outside all groups.
    chooses: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// Whether `text` comes next; if so, it is passed.
    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Alternatives up to the end of their group.
    fn alternatives(&mut self) -> Result<Size, String> {
        let (mut before, mut last) = (None, Size::NOTHING);
        while !self.rest.is_empty() && !self.rest.starts_with(')') {
            if self.take("|") {
                self.out.push('|');
                self.chooses |= self.groups == 0;
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
            if self.take(ecma) {
                self.out.push_str(ours);
                return Ok(Size::of(1, 0));
            }
        }
        let size = match self.next().unwrap_or_default() {
            c @ ('*' | '+' | '?') => return Err(format!("has a `{c}` with nothing to repeat")),
            c @ ('{' | '}' | ']') => return Err(format!("has a bare `{c}`: as a character, it is written `\\{c}`")),
            '(' => self.group()?,
            '[' => self.class()?,
            '.' => self.set(&others(&LINE_ENDS)),
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
        // Looking through ranges costs far less than a state.
        Size::of(1 + ranges.len() as u64 / 4, 1)
    }

    /// After `(`. No group is captured: nothing asks what it matched, and captures cost.
    fn group(&mut self) -> Result<Size, String> {
        if ["?=", "?!", "?<=", "?<!"].iter().any(|look| self.rest.starts_with(look)) {
            return Err("has a look-around, which takes more than linear time".to_owned());
        }
        if self.take("?<") {
            let (name, rest) = self.rest.split_once('>').ok_or("has a group name without its `>`")?;
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                return Err("has a group name that is no name".to_owned());
            }
            self.rest = rest;
        } else if self.rest.starts_with('?') && !self.take("?:") {
            return Err("has a `(?` that is neither `(?:` nor `(?<name>`".to_owned());
        }
        self.groups += 1;
        if self.groups > MAX_GROUPS {
            return Err(format!("has more than {MAX_GROUPS} groups inside each other"));
        }
        self.out.push_str("(?:");
        let size = self.alternatives()?;
        self.groups -= 1;
        if !self.take(")") {
            return Err("has a `(` without its `)`".to_owned());
        }
        self.out.push(')');
        Ok(size)
    }

    /// What may follow an atom. Lazy or not, it matches the same texts.
    fn repetition(&mut self, size: Size) -> Result<Size, String> {
        for (sign, min, max) in [("*", 0, None), ("+", 1, None), ("?", 0, Some(1))] {
            if self.take(sign) {
                self.out.push_str(sign);
                self.take("?");
                return size.repeated(min, max);
            }
        }
        match self.take("{") {
            true => self.counted(size),
            false => Ok(size),
        }
    }

    /// After `{`.
    fn counted(&mut self, size: Size) -> Result<Size, String> {
        let malformed = || "has a `{` that is no `{n}`, `{n,}` or `{n,m}`".to_owned();
        let min = self.count().ok_or_else(malformed)?;
        let max = match self.take(",") {
            false => Some(min),
            true => self.count(),
        };
        if !self.take("}") {
            return Err(malformed());
        }
        if max.is_some_and(|max| max < min) {
            return Err("has a repetition whose most is below its least".to_owned());
        }
        self.take("?");
        let size = size.repeated(min, max)?;
        let max = max.map(|max| max.to_string()).unwrap_or_default();
        self.out.push_str(&format!("{{{min},{max}}}"));
        Ok(size)
    }

    /// Digits. What is far too many stays far too many.
    fn count(&mut self) -> Option<u64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())?;
        self.rest = rest;
        Some(digits.parse().unwrap_or(u64::MAX))
    }

    /// After `[`.
    fn class(&mut self) -> Result<Size, String> {
        let negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
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
            let end = match self.is_range() && self.take("-") {
                false => start,
                true => match self.class_atom()? {
                    Escape::Char(end) if start <= end => end,
                    _ => return Err("has a range in a class that does not end above its start".to_owned()),
                },
            };
            ranges.push((u32::from(start), u32::from(end)));
        }
        let ranges = tidy(ranges);
        Ok(if negated { self.set(&others(&ranges)) } else { self.set(&ranges) })
    }

    /// Whether a range's `-` comes next; the last in a class is a character.
    fn is_range(&self) -> bool {
        self.rest.starts_with('-') && !self.rest.starts_with("-]")
    }

    fn class_atom(&mut self) -> Result<Escape, String> {
        match self.next() {
            None => Err("has a `[` without its `]`".to_owned()),
            Some('\\') if self.take("b") => Ok(Escape::Char('\u{8}')),
            Some('\\') => self.escape(),
            Some(c) => Ok(Escape::Char(c)),
        }
    }

    /// After the backslash.
    fn escape(&mut self) -> Result<Escape, String> {
        let letter = self.next().ok_or("ends with a backslash")?;
        if let Some(set) = set_of(letter) {
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

    /// After `\u`: four digits, two times four for a surrogate pair, or digits in braces.
    fn unicode(&mut self) -> Result<char, String> {
        let malformed = || "has a `\\u` that is no code point".to_owned();
        if self.take("{") {
            let end = self.rest.find('}').ok_or_else(malformed)?;
            let code = self.hex(end).ok_or_else(malformed)?;
            self.take("}");
            return char::from_u32(code).ok_or_else(malformed);
        }
        let first = self.hex(4).ok_or_else(malformed)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(malformed);
        }
        let second = if self.take("\\u") { self.hex(4) } else { None };
        let second = second.filter(|second| (0xdc00..0xe000).contains(second)).ok_or_else(malformed)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(malformed)
    }
}
